/* Wires loop, engine and API to the supervisor's messages. */
#include "api/core.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "api/api.h"
#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"

enum { CONTROL_FD = 3 };
/* When nothing is pending any more, replies in hand get so long to reach slow readers. */
enum { LINGER_MS = 2000, LINGER_STEP_MS = 20 };

struct core {
    struct loop *loop;
    struct ipc_channel *control;
    struct engine *engine;
    struct api *api;
    struct loop_timer *linger;
    int lingered_ms;
    bool draining;
};

static void answer(struct core *core, const char *type)
{
    AUTO_JSON json_t *msg = json_pack("{s:s}", "type", type);

    ipc_channel_send(core->control, msg, NULL, 0);
}

/* Only serve can start the signer. */
static void sign(void *arg, const char *principal, int days, int fd)
{
    struct core *core = arg;
    AUTO_JSON json_t *msg = json_pack("{s:s, s:s, s:i}", "type", "sign", "principal", principal, "days", days);

    ipc_channel_send(core->control, msg, &fd, 1);
}

static void seal(void *arg, int fd)
{
    struct core *core = arg;
    AUTO_JSON json_t *msg = json_pack("{s:s}", "type", "seal");

    ipc_channel_send(core->control, msg, &fd, 1);
}

/* The same of the courier: fd is its end of a channel. */
static void start_courier(void *arg, int fd)
{
    struct core *core = arg;
    AUTO_JSON json_t *msg = json_pack("{s:s}", "type", "courier");

    ipc_channel_send(core->control, msg, &fd, 1);
}

/* --- start, reload --- */

static int start(struct core *core, json_t *msg, int *fds, size_t n_fds, struct err *err)
{
    const char *fault_dir = json_str(msg, "fault_dir", NULL);

    if (core->engine || n_fds != 2)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "a second start message, or one with %zu descriptors", n_fds);
    if (fault_dir)
        setenv("QUIESCED_FAULT_DIR", fault_dir, 1);
    core->engine = engine_new(core->loop, msg, TAKE_FD(fds[1]), err);
    if (!core->engine)
        return -1;
    engine_on_sign(core->engine, sign, core);
    engine_on_seal(core->engine, seal, core);
    engine_on_courier(core->engine, start_courier, core);
    core->api = api_new(core->loop, core->engine, msg, TAKE_FD(fds[0]), err);
    return core->api ? 0 : -1;
}

/* Until leftovers of the last run are cleared, recovery could take a new session's snapshot for one of them. */
static void on_recovered(void *arg)
{
    answer(arg, "ready");
}

static void on_start(struct core *core, json_t *msg, int *fds, size_t n_fds)
{
    struct err err = {0};

    if (start(core, msg, fds, n_fds, &err) == 0) {
        engine_when_recovered(core->engine, on_recovered, core);
        return;
    }
    log_err(LOG_LEVEL_ERROR, NULL, &err, "cannot start");
    loop_quit(core->loop, 1);
}

static void on_reload(struct core *core, json_t *msg, int *fds, size_t n_fds)
{
    struct err err = {0};

    (void)fds;
    (void)n_fds;
    if (!core->api)
        return;
    if (api_reload(core->api, msg, &err) == 0)
        engine_reload(core->engine, json_object_get(msg, "config"));
    else
        log_err(LOG_LEVEL_ERROR, NULL, &err, "the configuration stays as it was");
    answer(core, "ready");
}

/* --- drain --- */

/* Nobody calls any more. */
static void on_sealed(void *arg)
{
    answer(arg, "drained");
}

static void on_linger(void *arg)
{
    struct core *core = arg;

    core->lingered_ms += LINGER_STEP_MS;
    if (api_close_idle(core->api) > 0 && core->lingered_ms < LINGER_MS)
        loop_timer_set(core->linger, LINGER_STEP_MS);
    else
        engine_audit_seal_last(core->engine, on_sealed, core);
}

static void on_drained(void *arg)
{
    struct core *core = arg;

    loop_timer_set(core->linger, 0);
}

static void on_drain(struct core *core, json_t *msg, int *fds, size_t n_fds)
{
    (void)msg;
    (void)fds;
    (void)n_fds;
    if (!core->api) {
        answer(core, "drained");
        return;
    }
    if (core->draining)
        return;
    core->draining = true;
    api_drain(core->api);
    engine_drain(core->engine, on_drained, core);
}

/* --- the channel --- */

static void on_ping(struct core *core, json_t *msg, int *fds, size_t n_fds)
{
    (void)msg;
    (void)fds;
    (void)n_fds;
    answer(core, "pong");
}

/* What the other roles count, for GET /metrics. */
static void on_figures(struct core *core, json_t *msg, int *fds, size_t n_fds)
{
    (void)fds;
    (void)n_fds;
    if (core->api)
        api_take_figures(core->api, msg);
}

static const struct {
    const char *type;
    void (*fn)(struct core *core, json_t *msg, int *fds, size_t n_fds);
} messages[] = {
    {"start", on_start},
    {"reload", on_reload},
    {"drain", on_drain},
    {"ping", on_ping},
    {"figures", on_figures},
};

static void on_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    const char *type = json_str(msg, "type", "");

    for (size_t i = 0; i < ELEMENTS(messages); i++)
        if (str_eq(messages[i].type, type)) {
            messages[i].fn(arg, msg, fds, n_fds);
            return;
        }
    log_line(LOG_LEVEL_ERROR, NULL, "unknown message \"%s\" from serve", type);
}

static void on_closed(void *arg, const struct err *err)
{
    struct core *core = arg;

    if (err)
        log_err(LOG_LEVEL_ERROR, NULL, err, "control channel");
    loop_quit(core->loop, err ? 1 : 0);
}

/* A socket pair per connection, and the default soft limit is 1,024. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int core_main(void)
{
    struct core core = {0};

    log_init("core", LOG_LEVEL_INFO);
    signal(SIGPIPE, SIG_IGN);
    /* A terminal's Ctrl-C and a service manager's stop reach the whole group: serve drains us, and its end is ours. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    raise_descriptor_limit();
    core.loop = loop_new();
    core.linger = loop_timer_new(core.loop, on_linger, &core);
    core.control = ipc_channel_new(core.loop, CONTROL_FD, on_message, on_closed, &core);
    int code = loop_run(core.loop);
    api_free(core.api);
    if (core.engine)
        engine_free(core.engine);
    ipc_channel_free(core.control);
    loop_timer_free(core.linger);
    loop_free(core.loop);
    return code;
}
