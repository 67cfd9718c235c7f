#include "front/pace.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "front/connection.h"

static uint64_t received(const struct connection *c)
{
    return c->pace.received;
}

/* What the client's kernel has confirmed: our own buffers in between would hide a client that reads nothing. */
static uint64_t confirmed(const struct connection *c)
{
    int queued = 0;
    (void)ioctl(c->client, SIOCOUTQ, &queued);
    return (c->ssl ? BIO_number_written(SSL_get_wbio(c->ssl)) : c->pace.sent) - (uint64_t)queued;
}

static void window(struct connection *c, struct pace_window *w, bool waiting,
                   uint64_t (*moved)(const struct connection *))
{
    if (waiting && !w->since)
        *w = (struct pace_window){.since = clock_mono_ms(), .mark = moved(c)};
    else if (!waiting)
        w->since = 0;
}

static int64_t sooner(int64_t a, const struct pace_window *w, int64_t patience)
{
    return w->since && w->since + patience < a ? w->since + patience : a;
}

static void on_tick(void *arg);

static int64_t soonest(const struct connection *c)
{
    const struct pace *pace = &c->pace;
    int64_t at = sooner(INT64_MAX, &pace->head, c->front->head_ms);
    at = sooner(at, &pace->body, c->front->stall_ms);
    return sooner(at, &pace->reply, c->front->stall_ms);
}

static void arm(struct connection *c)
{
    struct pace *pace = &c->pace;
    pace->due = soonest(c);
    if (pace->due == INT64_MAX) {
        loop_timer_free(TAKE_PTR(pace->timer));
        return;
    }
    int64_t now = clock_mono_ms();
    if (!pace->timer)
        pace->timer = loop_timer_new(c->front->loop, on_tick, c);
    loop_timer_set(pace->timer, pace->due > now ? pace->due - now : 0);
}

/* The window is over: did enough move in it? If so, the next one begins. */
static bool too_slow(const struct connection *c, struct pace_window *w, int64_t now, uint64_t moved)
{
    if (!w->since || now - w->since < c->front->stall_ms)
        return false;
    bool slow = moved - w->mark < c->front->least_rate * (uint64_t)c->front->stall_ms / 1000;
    *w = (struct pace_window){.since = now, .mark = moved};
    return slow;
}

static void on_tick(void *arg)
{
    struct connection *c = arg;
    struct pace *pace = &c->pace;
    int64_t now = clock_mono_ms();
    if (too_slow(c, &pace->reply, now, confirmed(c))) {
        c->reset = true; /* else the kernel would keep what the client does not read, for minutes */
        connection_close(c);
    } else if (pace->head.since && now - pace->head.since >= c->front->head_ms)
        relay_refuse(c, &refusal_head_slow);
    else if (too_slow(c, &pace->body, now, received(c)))
        relay_refuse(c, &refusal_body_slow);
    else
        arm(c);
}

void pace_update(struct connection *c)
{
    struct pace *pace = &c->pace;
    enum gate_place place = gate_place(c->gate);
    bool reads = !c->refused && !c->client_eof && !c->core_deaf;
    window(c, &pace->head, reads && place == GATE_HEAD, received);
    window(c, &pace->body, reads && place == GATE_BODY && !c->to_core.bytes, received);
    window(c, &pace->reply, c->to_client.bytes, confirmed);
    bool armed = pace->timer && loop_timer_armed(pace->timer); /* not after a tick that refused */
    int64_t at = soonest(c);
    if (at != INT64_MAX && (!armed || at < pace->due)) /* a timer that comes too early looks and is set again */
        arm(c);
}

void pace_limits_changed(struct connection *c)
{
    if (c->pace.timer && loop_timer_armed(c->pace.timer))
        arm(c);
}

void pace_end(struct connection *c)
{
    loop_timer_free(TAKE_PTR(c->pace.timer));
    c->pace = (struct pace){0};
}
