#include "engine/webhook/courier_link.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"

enum { PAUSE_FIRST_MS = 500, PAUSE_MOST_MS = 30000 };

struct courier_link {
    struct loop *loop;
    struct ipc_channel *channel; /* NULL: there is no courier */
    const struct courier_handlers *handlers;
    void *arg;
    courier_start_fn start;
    void *start_arg;
    int64_t not_before_ms; /* CLOCK_MONOTONIC: of the next one */
    int64_t pause_ms;
};

static void lose(struct courier_link *link)
{
    ipc_channel_free(TAKE_PTR(link->channel));
    link->not_before_ms = clock_mono_ms() + link->pause_ms;
    link->pause_ms = 2 * link->pause_ms > PAUSE_MOST_MS ? PAUSE_MOST_MS : 2 * link->pause_ms;
    link->handlers->lost(link->arg);
}

static void on_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct courier_link *link = arg;
    (void)fds;
    (void)n_fds;
    if (!str_eq(json_str(msg, "type", ""), "delivered"))
        return;
    link->pause_ms = PAUSE_FIRST_MS;
    link->handlers->answered(link->arg, msg);
}

static void on_closed(void *arg, const struct err *err)
{
    if (err)
        log_err(LOG_LEVEL_WARNING, NULL, err, "courier");
    lose(arg);
}

struct courier_link *courier_link_new(struct loop *loop, const struct courier_handlers *handlers, void *arg)
{
    struct courier_link *link = mem_new(sizeof *link);
    *link = (struct courier_link){.loop = loop, .handlers = handlers, .arg = arg, .pause_ms = PAUSE_FIRST_MS};
    return link;
}

void courier_link_on_start(struct courier_link *link, courier_start_fn start, void *arg)
{
    link->start = start;
    link->start_arg = arg;
}

static bool begin(struct courier_link *link)
{
    int ends[2];
    struct err err;
    if (!link->start || clock_mono_ms() < link->not_before_ms)
        return false;
    if (ipc_pair(ends, &err) != 0) {
        log_err(LOG_LEVEL_WARNING, NULL, &err, "courier");
        link->not_before_ms = clock_mono_ms() + link->pause_ms;
        return false;
    }
    link->channel = ipc_channel_new(link->loop, ends[0], on_message, on_closed, link);
    link->start(link->start_arg, ends[1]);
    close(ends[1]);
    return true;
}

bool courier_link_send(struct courier_link *link, const json_t *message)
{
    if (!link->channel && !begin(link))
        return false;
    ipc_channel_send(link->channel, message, NULL, 0);
    return true;
}

void courier_link_reset(struct courier_link *link)
{
    if (link->channel)
        lose(link);
}

void courier_link_rest(struct courier_link *link)
{
    ipc_channel_free(TAKE_PTR(link->channel));
}

void courier_link_free(struct courier_link *link)
{
    if (!link)
        return;
    courier_link_rest(link);
    free(link);
}
