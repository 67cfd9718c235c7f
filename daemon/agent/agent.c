#include "agent/agent.h"

#include <signal.h>

#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/str.h"

enum {
    CONTROL_FD = 3,
    WORKER_CORE_FD = 3,
    WORKER_LEASE_FD = 4,
    UNDO_SECONDS = 15, /* what workers get to undo when everything ends; then their groups are killed */
};

struct agent;

struct child {
    struct child *next;
    struct agent *agent;
    char id[64];
    pid_t pid;
    int pidfd;
    struct loop_io *gone;
    struct ipc_channel *lease; /* its closing tells the worker to undo */
};

struct agent {
    struct loop *loop;
    struct ipc_channel *control, *core;
    json_t *start;
    struct child *children;
    struct loop_timer *last_word;
    bool draining, ending;
};

static void agent_send(struct ipc_channel *channel, json_t *msg /* taken */, const int *fds, size_t n_fds)
{
    if (channel)
        ipc_channel_send(channel, msg, fds, n_fds);
    json_decref(msg);
}

static void check_idle(struct agent *agent)
{
    if (agent->children)
        return;
    if (agent->ending)
        loop_quit(agent->loop, 0);
    else if (agent->draining)
        agent_send(agent->control, json_pack("{s:s}", "type", "drained"), NULL, 0);
}

static void kill_rest(void *arg)
{
    struct agent *agent = arg;
    for (struct child *child = agent->children; child; child = child->next) {
        log_line(LOG_LEVEL_ERROR, NULL, "worker %s (pid %d) did not end in time: killed", child->id, (int)child->pid);
        proc_kill_group(child->pid);
    }
}

/* Whoever asked is gone: every worker is told to undo and to end. */
static void agent_end(struct agent *agent)
{
    if (agent->ending)
        return;
    agent->ending = true;
    for (struct child *child = agent->children; child; child = child->next) {
        ipc_channel_free(child->lease);
        child->lease = NULL;
    }
    loop_timer_set(agent->last_word, UNDO_SECONDS * 1000);
    check_idle(agent);
}

static void child_gone(void *arg, uint32_t events)
{
    struct child *child = arg;
    struct agent *agent = child->agent;
    int status = 0;
    char text[64];
    (void)events;
    if (!proc_reap(child->pid, child->pidfd, 0, &status))
        return;
    for (struct child **at = &agent->children; *at; at = &(*at)->next) {
        if (*at == child) {
            *at = child->next;
            break;
        }
    }
    proc_kill_group(child->pid); /* nothing of a dead worker's group lives on */
    agent_send(agent->core, json_pack("{s:s, s:s, s:s}", "type", "exited", "worker", child->id, "status",
                                      proc_status_text(status, text, sizeof text)), NULL, 0);
    loop_io_remove(child->gone);
    ipc_channel_free(child->lease);
    close(child->pidfd);
    free(child);
    check_idle(agent);
}

static void lease_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    (void)arg, (void)msg, (void)fds, (void)n_fds; /* workers have nothing to say here */
}

static void lease_closed(void *arg, const struct err *err)
{
    struct child *child = arg;
    (void)err;
    ipc_channel_free(child->lease);
    child->lease = NULL;
}

static int spawn_worker(struct agent *agent, struct child *child, int core_end, int lease_end, struct err *err)
{
    (void)agent;
    const char *const argv[] = {proc_self_path(), "--role=worker", NULL};
    const struct proc_fd fds[] = {{1, 1}, {2, 2}, {core_end, WORKER_CORE_FD}, {lease_end, WORKER_LEASE_FD}};
    const char *environment[16] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"};
    static const char *const passed[] = {"QUIESCED_FAULT_DIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS", "HOME"};
    char text[ELEMENTS(passed)][512];
    size_t n = 2;
    for (size_t i = 0; i < ELEMENTS(passed); i++) {
        const char *value = getenv(passed[i]);
        if (value && str_format(text[i], sizeof text[i], "%s=%s", passed[i], value))
            environment[n++] = text[i];
    }
    const struct proc_spec spec = {.argv = argv, .environment = environment, .fds = fds, .n_fds = ELEMENTS(fds), .new_group = true};
    return proc_spawn(&spec, &child->pid, &child->pidfd, err);
}

static int launch(struct agent *agent, const json_t *msg, int *ret_core_end, struct child **ret_child, struct err *err)
{
    int core_pair[2], lease_pair[2];
    if (agent->draining || agent->ending)
        return err_set(err, E_OUTOFMEMORY, "Try again in a moment.", "the agent is stopping");
    if (ipc_pair(core_pair, err))
        return -1;
    AUTO_FD int core_ours = core_pair[0], core_theirs = core_pair[1];
    if (ipc_pair(lease_pair, err))
        return -1;
    AUTO_FD int lease_ours = lease_pair[0], lease_theirs = lease_pair[1];
    struct child *child = mem_new(sizeof *child);
    child->agent = agent;
    str_copy(child->id, sizeof child->id, json_str(msg, "worker", ""));
    if (spawn_worker(agent, child, core_theirs, lease_theirs, err)) {
        free(child);
        return -1;
    }
    child->lease = ipc_channel_new(agent->loop, TAKE_FD(lease_ours), lease_message, lease_closed, child);
    child->gone = loop_io_add(agent->loop, child->pidfd, EPOLLIN, child_gone, child);
    child->next = agent->children;
    agent->children = child;
    AUTO_JSON json_t *start = json_copy(agent->start);
    json_put(start, "type", json_string("start"));
    const char *session = json_str(msg, "session", NULL);
    json_put(start, "session", session ? json_string(session) : json_null());
    ipc_channel_send(child->lease, start, NULL, 0);
    *ret_core_end = TAKE_FD(core_ours);
    *ret_child = child;
    return 0;
}

static void core_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct agent *agent = arg;
    struct err err;
    struct child *child = NULL;
    AUTO_FD int core_end = -1;
    (void)fds, (void)n_fds;
    if (!str_eq(json_str(msg, "type", ""), "launch"))
        return;
    if (launch(agent, msg, &core_end, &child, &err)) {
        agent_send(agent->core, json_pack("{s:s, s:s, s:o}", "type", "launch_failed", "worker", json_str(msg, "worker", ""), "error",
                                          err_to_json(&err)), NULL, 0);
        return;
    }
    agent_send(agent->core, json_pack("{s:s, s:s, s:i}", "type", "launched", "worker", child->id, "pid", (int)child->pid), &core_end, 1);
}

static void core_closed(void *arg, const struct err *err)
{
    struct agent *agent = arg;
    (void)err;
    ipc_channel_free(agent->core);
    agent->core = NULL;
    agent_end(agent);
}

static void take_start(struct agent *agent, json_t *msg, int *fds, size_t n_fds)
{
    json_decref(agent->start);
    agent->start = json_deep_copy(msg);
    if (!agent->core && n_fds == 1)
        agent->core = ipc_channel_new(agent->loop, TAKE_FD(fds[0]), core_message, core_closed, agent);
    agent_send(agent->control, json_pack("{s:s}", "type", "ready"), NULL, 0);
}

static void take_drain(struct agent *agent, json_t *msg, int *fds, size_t n_fds)
{
    (void)msg, (void)fds, (void)n_fds;
    agent->draining = true;
    check_idle(agent);
}

static const struct {
    const char *type;
    void (*fn)(struct agent *agent, json_t *msg, int *fds, size_t n_fds);
} control_messages[] = {{"start", take_start}, {"reload", take_start}, {"drain", take_drain}};

static void control_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    for (size_t i = 0; i < ELEMENTS(control_messages); i++) {
        if (str_eq(json_str(msg, "type", ""), control_messages[i].type))
            control_messages[i].fn(arg, msg, fds, n_fds);
    }
}

static void control_closed(void *arg, const struct err *err)
{
    struct agent *agent = arg;
    (void)err;
    ipc_channel_free(agent->control);
    agent->control = NULL;
    agent_end(agent);
}

int agent_main(void)
{
    struct agent agent = {0};
    log_init("agent", LOG_LEVEL_INFO);
    agent.loop = loop_new();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, SIG_IGN); /* serve says when; a stray TERM must not end the holder of leases */
    signal(SIGINT, SIG_IGN);
    agent.last_word = loop_timer_new(agent.loop, kill_rest, &agent);
    agent.control = ipc_channel_new(agent.loop, CONTROL_FD, control_message, control_closed, &agent);
    int code = loop_run(agent.loop);
    loop_timer_free(agent.last_word);
    ipc_channel_free(agent.core);
    ipc_channel_free(agent.control);
    json_decref(agent.start);
    loop_free(agent.loop);
    return code;
}
