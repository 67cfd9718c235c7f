#include "agent/agent.h"

#include <signal.h>

#include "agent/workers.h"
#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/proc.h"
#include "base/str.h"

enum {
    CONTROL_FD = 3,
    UNDO_MS = 15000, /* what workers get to undo when everything ends */
    REAP_MS = 3000,  /* after SIGKILL; a worker in an uninterruptible call stays behind, and must not hold us too */
};

struct agent {
    struct loop *loop;
    struct ipc_channel *control, *core;
    struct workers *workers;
    json_t *start; /* the newest start or reload: what later workers are told */
    struct loop_timer *undo, *reap;
    bool draining, drained, ending;
    int code;
};

static void answer(struct ipc_channel *channel, json_t *msg /* taken */, const int *fds, size_t n_fds)
{
    if (channel)
        ipc_channel_send(channel, msg, fds, n_fds);
    json_decref(msg);
}

static void check_idle(struct agent *agent)
{
    if (!workers_none(agent->workers))
        return;
    if (agent->ending) {
        loop_quit(agent->loop, agent->code);
    } else if (agent->draining && !agent->drained) {
        agent->drained = true;
        answer(agent->control, json_pack("{s:s}", "type", "drained"), NULL, 0);
    }
}

/* --- the end --- */

static void undo_over(void *arg)
{
    struct agent *agent = arg;
    workers_kill(agent->workers);
    loop_timer_set(agent->reap, REAP_MS);
}

static void reap_over(void *arg)
{
    struct agent *agent = arg;
    log_line(LOG_LEVEL_ERROR, NULL, "a killed worker does not end: it hangs in the kernel");
    loop_quit(agent->loop, 1);
}

/* Whoever could ask for something is gone: every worker is told to undo and to exit. */
static void end(struct agent *agent, const char *channel, const struct err *err)
{
    if (err) {
        log_err(LOG_LEVEL_ERROR, NULL, err, "the channel to %s failed", channel);
        agent->code = 1;
    }
    if (agent->ending)
        return;
    agent->ending = true;
    workers_end_leases(agent->workers);
    loop_timer_set(agent->undo, UNDO_MS);
    check_idle(agent);
}

static void worker_exited(void *arg, const char *id, int status)
{
    struct agent *agent = arg;
    char text[64];
    answer(agent->core,
           json_pack("{s:s, s:s, s:s}", "type", "exited", "worker", id, "status",
                     proc_status_text(status, text, sizeof(text))),
           NULL, 0);
    check_idle(agent);
}

/* --- core --- */

static int launch(struct agent *agent, const json_t *msg, int *ret_core_end, int *ret_pid, struct err *err)
{
    const char *id = json_str(msg, "worker", NULL);
    const char *session = json_str(msg, "session", NULL);
    if (agent->draining || agent->ending)
        return err_set(err, VSS_E_BAD_STATE, "Try again when the service has started anew.", "the agent is stopping");
    AUTO_JSON json_t *start = json_copy(agent->start);
    json_put(start, "type", json_string("start"));
    json_put(start, "session", session ? json_string(session) : json_null());
    return workers_launch(agent->workers, id, start, ret_core_end, ret_pid, err);
}

static void on_core_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct agent *agent = arg;
    struct err err;
    AUTO_FD int core_end = -1;
    const char *id = json_str(msg, "worker", "");
    int pid;
    (void)fds;
    (void)n_fds;
    if (!str_eq(json_str(msg, "type", ""), "launch"))
        return;
    if (launch(agent, msg, &core_end, &pid, &err) == 0)
        answer(agent->core, json_pack("{s:s, s:s, s:i}", "type", "launched", "worker", id, "pid", pid), &core_end, 1);
    else
        answer(agent->core,
               json_pack("{s:s, s:s, s:o}", "type", "launch_failed", "worker", id, "error", err_to_json(&err)), NULL,
               0);
}

static void on_core_closed(void *arg, const struct err *err)
{
    struct agent *agent = arg;
    ipc_channel_free(TAKE_PTR(agent->core));
    end(agent, "core", err);
}

/* --- serve --- */

static void on_start(struct agent *agent, json_t *msg, int *fds, size_t n_fds)
{
    if (agent->core || n_fds != 1) {
        const struct err err = {.hr = VSS_E_UNEXPECTED,
                                .text = "message from serve: start without core's channel, or twice"};
        end(agent, "serve", &err);
        return;
    }
    agent->start = json_incref(msg);
    agent->core = ipc_channel_new(agent->loop, TAKE_FD(fds[0]), on_core_message, on_core_closed, agent);
    answer(agent->control, json_pack("{s:s}", "type", "ready"), NULL, 0);
}

/* For later workers: one that runs keeps the configuration that it began with. */
static void on_reload(struct agent *agent, json_t *msg, int *fds, size_t n_fds)
{
    (void)fds;
    (void)n_fds;
    json_decref(agent->start);
    agent->start = json_incref(msg);
    answer(agent->control, json_pack("{s:s}", "type", "ready"), NULL, 0);
}

static void on_drain(struct agent *agent, json_t *msg, int *fds, size_t n_fds)
{
    (void)msg;
    (void)fds;
    (void)n_fds;
    agent->draining = true;
    check_idle(agent);
}

static const struct {
    const char *type;
    void (*fn)(struct agent *agent, json_t *msg, int *fds, size_t n_fds);
} messages[] = {{"start", on_start}, {"reload", on_reload}, {"drain", on_drain}};

static void on_control_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    for (size_t i = 0; i < ELEMENTS(messages); i++)
        if (str_eq(json_str(msg, "type", ""), messages[i].type))
            messages[i].fn(arg, msg, fds, n_fds);
}

static void on_control_closed(void *arg, const struct err *err)
{
    struct agent *agent = arg;
    ipc_channel_free(TAKE_PTR(agent->control));
    end(agent, "serve", err);
}

int agent_run(const char *const *worker_argv)
{
    static const int ignored[] = {SIGPIPE, SIGTERM, SIGINT, SIGHUP}; /* a holder of leases ends when serve says so */
    struct agent agent = {.loop = loop_new()};
    log_init("agent", LOG_LEVEL_INFO);
    for (size_t i = 0; i < ELEMENTS(ignored); i++)
        signal(ignored[i], SIG_IGN);
    agent.workers = workers_new(agent.loop, worker_argv, worker_exited, &agent);
    agent.undo = loop_timer_new(agent.loop, undo_over, &agent);
    agent.reap = loop_timer_new(agent.loop, reap_over, &agent);
    agent.control = ipc_channel_new(agent.loop, CONTROL_FD, on_control_message, on_control_closed, &agent);
    int code = loop_run(agent.loop);
    ipc_channel_free(agent.core);
    ipc_channel_free(agent.control);
    workers_free(agent.workers);
    loop_timer_free(agent.undo);
    loop_timer_free(agent.reap);
    json_decref(agent.start);
    loop_free(agent.loop);
    return code;
}

int agent_main(void)
{
    const char *const argv[] = {proc_self_path(), "--role=worker", NULL};
    return agent_run(argv);
}
