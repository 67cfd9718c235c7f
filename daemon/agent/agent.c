#include "agent/agent.h"

#include <signal.h>
#include <sys/stat.h>

#include "agent/guards.h"
#include "agent/left_frozen.h"
#include "agent/survivors.h"
#include "agent/workers.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/kin.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/undo_bounds.h"
#include "guardian/thaw_orphans.h"

enum {
    CONTROL_FD = 3,
    UNDO_MS = 15000, /* what workers get to undo when everything ends; in a restore RESTORE_UNDO_WORKER_MS */
    REAP_MS = 3000,  /* after SIGKILL; a worker in an uninterruptible call stays behind, and must not hold us too */
};

struct agent {
    struct loop *loop;
    struct ipc_channel *control, *core;
    struct workers *workers;
    struct guards *guards;
    struct survivors *survivors;
    struct left_frozen *left_frozen;
    json_t *start; /* the newest start or reload: what later workers are told */
    json_t *departed; /* marks of workers that have exited, by id, while something of theirs may still hold */
    struct loop_timer *undo, *reap;
    bool draining, drained, ending;
    bool told_restoring; /* serve knows that an application may be stopped for a restore */
    int code;
};

static void answer(struct ipc_channel *channel, json_t *msg /* taken */, const int *fds, size_t n_fds)
{
    if (channel)
        ipc_channel_send(channel, msg, fds, n_fds);
    json_decref(msg);
}

/* May a writer of ours, or one that a dead worker has left, have stopped its application? */
static bool restores(const struct agent *agent)
{
    return workers_restoring(agent->workers) || survivors_restoring(agent->survivors);
}

static int orphans_patience_ms(void *arg)
{
    return restores(arg) ? RESTORE_UNDO_WORKER_MS : SURVIVORS_MS;
}

static void tell_restoring(struct agent *agent)
{
    bool now = restores(agent);
    if (now == agent->told_restoring)
        return;
    agent->told_restoring = now;
    answer(agent->control, json_pack("{s:s, s:b}", "type", "restoring", "active", now), NULL, 0);
}

static json_t *figures(const struct agent *agent)
{
    json_t *told = guards_figures(agent->guards);
    left_frozen_figures(agent->left_frozen, told);
    const json_t *limit = json_object_get(json_object_get(json_object_get(agent->start, "config"), "limits"), "freeze_seconds");
    json_put(told, "freeze_seconds", json_integer(json_is_integer(limit) ? json_integer_value(limit) : 60));
    return told;
}

/* Core takes a dead worker's word for nothing: applications go on when its freeze sets are thawed and its writers are gone. */
static void settle(struct agent *agent)
{
    const char *id;
    void *next;
    json_t *mark;
    json_object_foreach_safe(agent->departed, next, id, mark)
    {
        if (guards_hold(agent->guards, id) || survivors_have(agent->survivors, json_string_value(mark)))
            continue;
        answer(agent->core, json_pack("{s:s, s:s}", "type", "settled", "worker", id), NULL, 0);
        json_object_del(agent->departed, id);
    }
}

/* A freeze that begins or ends is known at once, not with the next round of the watchdog. */
static void guards_changed(void *arg)
{
    struct agent *agent = arg;
    answer(agent->control, json_pack("{s:s, s:o}", "type", "figures", "figures", figures(agent)), NULL, 0);
    settle(agent);
}

static void set_thawed(void *arg, const char *worker, const char *set)
{
    struct agent *agent = arg;
    answer(agent->core, json_pack("{s:s, s:s, s:s}", "type", "thawed", "worker", worker, "set", set), NULL, 0);
}

/* What earlier runs left frozen, and nobody has been able to thaw yet. */
static void left_changed(void *arg)
{
    struct agent *agent = arg;
    answer(agent->core, json_pack("{s:s, s:O}", "type", "left_frozen", "sets", left_frozen_sets(agent->left_frozen)), NULL, 0);
    answer(agent->control, json_pack("{s:s, s:o}", "type", "figures", "figures", figures(agent)), NULL, 0);
}

static void check_idle(struct agent *agent)
{
    if (!workers_none(agent->workers) || !guards_none(agent->guards) || !survivors_none(agent->survivors))
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
    survivors_kill(agent->survivors, NULL);
    workers_leave(agent->workers);
    loop_quit(agent->loop, 1); /* guardians thaw when our end of their channel closes */
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
    loop_timer_set(agent->undo, restores(agent) ? RESTORE_UNDO_WORKER_MS : UNDO_MS);
    check_idle(agent);
}

static void worker_exited(void *arg, const char *id, const char *mark, int status)
{
    struct agent *agent = arg;
    char text[64];
    json_put(agent->departed, id, json_string(mark));
    answer(agent->core,
           json_pack("{s:s, s:s, s:s}", "type", "exited", "worker", id, "status",
                     proc_status_text(status, text, sizeof(text))),
           NULL, 0);
    settle(agent);
    tell_restoring(agent);
    check_idle(agent);
}

/* --- what workers ask on their lease --- */

static void worker_asked(void *arg, struct worker *worker, const json_t *msg, int *fds, size_t n_fds)
{
    struct agent *agent = arg;
    const char *type = json_str(msg, "type", "");
    if (str_eq(type, "guard"))
        guards_launch(agent->guards, worker, msg, fds, n_fds, agent->start);
    else if (str_eq(type, "thaw"))
        guards_thaw(agent->guards, worker, json_str(msg, "set", ""));
    else if (str_eq(type, "restoring")) {
        workers_set_restoring(worker, json_bool(msg, "active", false));
        tell_restoring(agent);
    }
}

static void worker_gone(void *arg, struct worker *worker)
{
    struct agent *agent = arg;
    guards_owner_gone(agent->guards, worker);
}

static void guard_tells(void *arg, void *owner, json_t *message, const int *fds, size_t n_fds)
{
    (void)arg;
    workers_tell(owner, message, fds, n_fds);
}

static void worker_named(void *arg, const char *mark)
{
    struct agent *agent = arg;
    survivors_kill(agent->survivors, mark); /* its number was another worker's before */
    settle(agent);
}

static void worker_bereaved(void *arg, const char *mark, bool restoring)
{
    struct agent *agent = arg;
    survivors_add(agent->survivors, mark, restoring);
}

static void none_left(void *arg)
{
    settle(arg);
    tell_restoring(arg);
    check_idle(arg);
}

/* --- core --- */

static int launch(struct agent *agent, const json_t *msg, int *ret_core_end, int *ret_pid, struct err *err)
{
    const char *id = json_str(msg, "worker", NULL);
    const char *session = json_str(msg, "session", NULL);
    if (agent->draining || agent->ending)
        return err_set(err, VSS_E_BAD_STATE, "Try again when the service has started anew.", "the agent is stopping");
    if (fault("agent.launch"))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "worker %s: fault injected", id ? id : "?");
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
    survivors_adopt(agent->survivors, msg);
    agent->start = json_incref(msg);
    agent->core = ipc_channel_new(agent->loop, TAKE_FD(fds[0]), on_core_message, on_core_closed, agent);
    left_frozen_begin(agent->left_frozen, msg);
    answer(agent->control, json_pack("{s:s}", "type", "ready"), NULL, 0);
    tell_restoring(agent); /* of those that it has adopted */
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

static void on_ping(struct agent *agent, json_t *msg, int *fds, size_t n_fds)
{
    (void)msg;
    (void)fds;
    (void)n_fds;
    answer(agent->control, json_pack("{s:s, s:o}", "type", "pong", "figures", figures(agent)), NULL, 0);
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
} messages[] = {{"start", on_start}, {"reload", on_reload}, {"drain", on_drain}, {"ping", on_ping}};

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

static bool is_own(void *arg, pid_t pid)
{
    struct agent *agent = arg;
    return workers_own(agent->workers, pid) || guards_own(agent->guards, pid) || left_frozen_own(agent->left_frozen, pid) ||
           survivors_own(agent->survivors, pid);
}

int agent_run(const char *const *worker_argv, const char *const *guardian_argv)
{
    static const int ignored[] = {SIGPIPE, SIGTERM, SIGINT, SIGHUP}; /* a holder of leases ends when serve says so */
    static const struct workers_events events = {worker_named, worker_bereaved, worker_exited, worker_asked,
                                               worker_gone};
    struct agent agent = {.loop = loop_new(), .departed = json_object()};
    log_init("agent", LOG_LEVEL_INFO);
    for (size_t i = 0; i < ELEMENTS(ignored); i++)
        signal(ignored[i], SIG_IGN);
    agent.guards = guards_new(agent.loop, guardian_argv, guard_tells, none_left, &agent);
    guards_on_change(agent.guards, guards_changed);
    guards_on_thaw(agent.guards, set_thawed);
    agent.left_frozen = left_frozen_new(agent.loop, left_changed, &agent);
    agent.survivors = survivors_new(agent.loop, none_left, &agent);
    agent.workers = workers_new(agent.loop, worker_argv, &events, &agent);
    struct kin *kin = kin_new(agent.loop, orphans_patience_ms, is_own, &agent);
    agent.undo = loop_timer_new(agent.loop, undo_over, &agent);
    agent.reap = loop_timer_new(agent.loop, reap_over, &agent);
    agent.control = ipc_channel_new(agent.loop, CONTROL_FD, on_control_message, on_control_closed, &agent);
    int code = loop_run(agent.loop);
    kin_free(kin);
    ipc_channel_free(agent.core);
    ipc_channel_free(agent.control);
    workers_free(agent.workers);
    guards_free(agent.guards);
    survivors_free(agent.survivors);
    left_frozen_free(agent.left_frozen);
    json_decref(agent.departed);
    loop_timer_free(agent.undo);
    loop_timer_free(agent.reap);
    json_decref(agent.start);
    loop_free(agent.loop);
    return code;
}

void agent_before_joining(void)
{
    log_init("agent", LOG_LEVEL_INFO);
    umask(022); /* as serve's children have it (serve.c): folders that a restore makes, writers and commands, whatever the unit's UMask= is */
    thaw_orphans();
}

int agent_main(void)
{
    const char *const worker[] = {proc_self_path(), "--role=worker", NULL};
    const char *const guardian[] = {proc_self_path(), "--role=guardian", NULL};
    return agent_run(worker, guardian);
}
