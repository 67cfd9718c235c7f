/* The agent with workers of straw: this test executes itself again as the agent (--agent) and as its workers
 * (--worker). A worker tells what it was started with on core's channel; the session's name says how it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/offspring.h"
#include "base/proc.h"
#include "base/str.h"

enum { PATIENCE_MS = 60000 }; /* a bound for hanging, not an expectation */

/* --- a worker of straw --- */

static int open_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Of a straw worker, with the mark of its writers: it undoes a restore until nobody listens on core's channel any more. */
static int writer_main(void)
{
    char byte;
    while (read(3, &byte, 1) > 0)
        ;
    return 0;
}

static void start_writer(void)
{
    char mark[64];
    snprintf(mark, sizeof(mark), OFFSPRING_MARK "-:%d:", (int)getpid());
    char self[] = "--writer", byte;
    char *const argv[] = {self, self, NULL}, *const environment[] = {mark, NULL};
    int started[2];
    if (pipe2(started, O_CLOEXEC) != 0)
        return;
    if (fork() == 0) {
        execve(proc_self_path(), argv, environment);
        _exit(9);
    }
    /* As proc_spawn does: before its exec it does not bear the mark yet, and a worker killed then would leave it unseen. */
    close(started[1]);
    while (read(started[0], &byte, 1) > 0)
        ;
    close(started[0]);
}

static void say_restoring(bool active)
{
    AUTO_JSON json_t *message = json_pack("{s:s, s:b}", "type", "restoring", "active", active);
    ipc_send(4, message, NULL, 0, NULL);
}

/* Waits for the end of its lease, says "undone" to core, and exits. */
static int worker_main(void)
{
    AUTO_JSON json_t *start = NULL;
    AUTO_JSON json_t *undone = json_pack("{s:s}", "type", "undone");
    size_t n_fds = 0;
    char byte;
    if (ipc_recv(4, PATIENCE_MS, &start, NULL, &n_fds, NULL) != 1)
        return 9;
    const char *session = json_str(start, "session", "");
    AUTO_JSON json_t *told = json_pack("{s:s, s:O, s:i, s:i, s:b, s:b}", "type", "told", "start", start, "fds", open_fds(), "pid", (int)getpid(),
                                       "leads", getpgid(0) == getpid(), "term", signal(SIGTERM, SIG_DFL) == SIG_DFL);
    ipc_send(3, told, NULL, 0, NULL);
    if (str_eq(session, "restores")) {
        start_writer();
        say_restoring(true);
    }
    if (str_eq(session, "exits"))
        return 3;
    if (str_eq(session, "crashes"))
        raise(SIGKILL);
    while (read(4, &byte, 1) > 0)
        ;
    while (str_eq(session, "hangs"))
        pause();
    ipc_send(3, undone, NULL, 0, NULL);
    return 0;
}

/* --- the world --- */

struct world {
    pid_t agent;
    int control, core;
};

static json_t *receive(int fd, int *ret_fd)
{
    json_t *msg = NULL;
    size_t n_fds = ret_fd ? 1 : 0;
    struct err err;
    assert_true(ipc_recv(fd, PATIENCE_MS, &msg, ret_fd, &n_fds, &err) >= 0);
    return msg;
}

static void expect_type(int fd, const char *type)
{
    AUTO_JSON json_t *msg = receive(fd, NULL);
    assert_non_null(msg);
    assert_string_equal(json_str(msg, "type", ""), type);
}

static void tell(int fd, json_t *msg /* taken */, const int *fds, size_t n_fds)
{
    struct err err;
    assert_int_equal(ipc_send(fd, msg, fds, n_fds, &err), 0);
    json_decref(msg);
}

static json_t *start_message(const char *type, const char *node)
{
    return json_pack("{s:s, s:{s:{}}, s:s, s:s, s:{}}", "type", type, "config", "writers", "node", node, "staging",
                     "/x/staging", "run_as");
}

static int open_world(void **state, const char *mode)
{
    struct world *w = calloc(1, sizeof(*w));
    const char *const argv[] = {proc_self_path(), mode, NULL};
    int control[2], core[2], pidfd;
    struct err err;
    assert_int_equal(ipc_pair(control, &err), 0);
    assert_int_equal(ipc_pair(core, &err), 0);
    const struct proc_fd fds[] = {{2, 2}, {control[1], 3}};
    const struct proc_spec spec = {.argv = argv, .environment = (const char *const *)environ, .fds = fds, .n_fds = 2};
    assert_int_equal(proc_spawn(&spec, &w->agent, &pidfd, &err), 0);
    close(pidfd);
    close(control[1]);
    w->control = control[0];
    w->core = core[0];
    tell(w->control, start_message("start", "one"), &core[1], 1);
    close(core[1]);
    expect_type(w->control, "ready");
    *state = w;
    return 0;
}

static int world_open(void **state)
{
    return open_world(state, "--agent");
}

static int world_without_worker(void **state)
{
    return open_world(state, "--agent-without-worker");
}

static int reap(struct world *w)
{
    int status;
    assert_true(proc_reap(w->agent, -1, PATIENCE_MS, &status));
    w->agent = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int world_close(void **state)
{
    struct world *w = *state;
    int status = 0;
    close(w->control);
    if (w->agent)
        status = reap(w);
    if (w->core >= 0)
        close(w->core);
    free(w);
    return status;
}

/* The agent's next word to core, but for those that a worker's end is all over: tests that are about them read them themselves. */
static json_t *receive_core(struct world *w, int *ret_fd)
{
    for (;;) {
        json_t *msg = receive(w->core, ret_fd);
        if (!str_eq(json_str(msg, "type", ""), "settled"))
            return msg;
        json_decref(msg);
    }
}

static void expect_settled(struct world *w, const char *id)
{
    AUTO_JSON json_t *msg = receive(w->core, NULL);
    assert_string_equal(json_str(msg, "type", ""), "settled");
    assert_string_equal(json_str(msg, "worker", ""), id);
}

/* Launches and takes the worker's account of its start; ret_fd: core's channel to it. */
static json_t *launch(struct world *w, const char *id, const char *session, int *ret_fd)
{
    tell(w->core, json_pack("{s:s, s:s, s:s?}", "type", "launch", "worker", id, "session", session), NULL, 0);
    AUTO_JSON json_t *launched = receive_core(w, ret_fd);
    assert_string_equal(json_str(launched, "type", ""), "launched");
    assert_string_equal(json_str(launched, "worker", ""), id);
    assert_true(json_int(launched, "pid", 0) > 1);
    json_t *told = receive(*ret_fd, NULL);
    assert_non_null(told);
    return told;
}

static void expect_exited(struct world *w, const char *id, const char *status)
{
    AUTO_JSON json_t *msg = receive_core(w, NULL);
    assert_string_equal(json_str(msg, "type", ""), "exited");
    assert_string_equal(json_str(msg, "worker", ""), id);
    assert_string_equal(json_str(msg, "status", ""), status);
}

static void expect_undone(int worker)
{
    expect_type(worker, "undone");
    assert_null(receive(worker, NULL));
    close(worker);
}

/* --- tests --- */

static void a_worker_starts_with_its_two_channels_and_nothing_else(void **state)
{
    struct world *w = *state;
    int fd = -1;
    AUTO_JSON json_t *told = launch(w, "w1", "s1", &fd);
    const json_t *start = json_object_get(told, "start");
    assert_string_equal(json_str(start, "type", ""), "start");
    assert_string_equal(json_str(start, "session", ""), "s1");
    assert_string_equal(json_str(start, "node", ""), "one");
    assert_string_equal(json_str(start, "staging", ""), "/x/staging");
    assert_true(json_is_object(json_object_get(json_object_get(start, "config"), "writers")));
    assert_int_equal(json_int(told, "fds", 0), 5);
    assert_true(json_bool(told, "leads", false));
    assert_true(json_bool(told, "term", false)); /* the agent's deafness to SIGTERM is not inherited */
    close(fd);
}

static void a_worker_without_session_is_told_null(void **state)
{
    struct world *w = *state;
    int fd = -1;
    AUTO_JSON json_t *told = launch(w, "w1", NULL, &fd);
    assert_true(json_is_null(json_object_get(json_object_get(told, "start"), "session")));
    close(fd);
}

static void how_a_worker_ended_is_reported(void **state)
{
    struct world *w = *state;
    int fd = -1;
    json_decref(launch(w, "w1", "exits", &fd));
    expect_exited(w, "w1", "exit status 3");
    expect_settled(w, "w1");
    close(fd);
    json_decref(launch(w, "w2", "crashes", &fd));
    expect_exited(w, "w2", "signal 9 (Killed)");
    close(fd);
}

static void an_id_that_runs_already_is_refused(void **state)
{
    struct world *w = *state;
    struct err err;
    int fd = -1;
    json_decref(launch(w, "w1", "s1", &fd));
    tell(w->core, json_pack("{s:s, s:s, s:n}", "type", "launch", "worker", "w1", "session"), NULL, 0);
    AUTO_JSON json_t *msg = receive(w->core, NULL);
    assert_string_equal(json_str(msg, "type", ""), "launch_failed");
    err_from_json(&err, json_object_get(msg, "error"));
    assert_string_equal(hresult_name(err.hr), "VSS_E_OBJECT_ALREADY_EXISTS");
    close(fd);
}

static void a_worker_that_cannot_be_started_is_reported_with_the_reason(void **state)
{
    struct world *w = *state;
    struct err err;
    tell(w->core, json_pack("{s:s, s:s, s:n}", "type", "launch", "worker", "w1", "session"), NULL, 0);
    AUTO_JSON json_t *msg = receive(w->core, NULL);
    assert_string_equal(json_str(msg, "type", ""), "launch_failed");
    assert_string_equal(json_str(msg, "worker", ""), "w1");
    err_from_json(&err, json_object_get(msg, "error"));
    assert_non_null(strstr(err.text, "No such file or directory"));
}

static void reload_is_for_later_workers(void **state)
{
    struct world *w = *state;
    int first = -1, second = -1;
    json_decref(launch(w, "w1", "s1", &first));
    tell(w->control, start_message("reload", "two"), NULL, 0);
    expect_type(w->control, "ready");
    AUTO_JSON json_t *told = launch(w, "w2", "s2", &second);
    assert_string_equal(json_str(json_object_get(told, "start"), "node", ""), "two");
    assert_string_equal(json_str(json_object_get(told, "start"), "type", ""), "start");
    close(first);
    close(second);
}

static void workers_undo_when_core_dies(void **state)
{
    struct world *w = *state;
    int one = -1, two = -1;
    json_decref(launch(w, "w1", "s1", &one));
    json_decref(launch(w, "w2", "s2", &two));
    close(TAKE_FD(w->core));
    expect_undone(one);
    expect_undone(two);
    assert_int_equal(reap(w), 0);
}

static void workers_undo_when_serve_dies(void **state)
{
    struct world *w = *state;
    int one = -1;
    json_decref(launch(w, "w1", "s1", &one));
    shutdown(w->control, SHUT_RDWR);
    expect_undone(one);
    assert_int_equal(reap(w), 0);
}

static void workers_undo_when_the_agent_is_killed(void **state)
{
    struct world *w = *state;
    int one = -1;
    json_decref(launch(w, "w1", "s1", &one));
    kill(w->agent, SIGKILL);
    assert_int_equal(reap(w), -1);
    expect_undone(one);
}

static void a_worker_that_does_not_undo_in_time_is_killed(void **state)
{
    struct world *w = *state;
    int one = -1, two = -1;
    json_decref(launch(w, "w1", "hangs", &one));
    json_decref(launch(w, "w2", "s2", &two));
    shutdown(w->control, SHUT_RDWR);
    expect_undone(two);
    assert_int_equal(reap(w), 0);
    assert_null(receive(one, NULL));
    close(one);
}

static void expect_restoring(struct world *w, bool active)
{
    AUTO_JSON json_t *msg = receive(w->control, NULL);
    assert_string_equal(json_str(msg, "type", ""), "restoring");
    assert_true(json_bool(msg, "active", !active) == active);
}

/* serve, and the bounds of all who wait for an undo, go by that. */
static void a_restore_is_known_to_serve_until_the_writers_of_its_dead_worker_are_gone(void **state)
{
    struct world *w = *state;
    int fd = -1, other = -1;
    AUTO_JSON json_t *told = launch(w, "w1", "restores", &fd);
    expect_restoring(w, true);
    kill((pid_t)json_int(told, "pid", 0), SIGKILL);
    expect_exited(w, "w1", "signal 9 (Killed)");
    json_decref(launch(w, "w2", "exits", &other));
    expect_exited(w, "w2", "exit status 3");
    expect_settled(w, "w2"); /* and not w1: its writer may hold something */
    close(other);
    tell(w->control, json_pack("{s:s}", "type", "ping"), NULL, 0);
    expect_type(w->control, "pong"); /* and not that it is over */
    close(fd);
    expect_restoring(w, false);
    expect_settled(w, "w1");
}

static void the_agent_is_deaf_to_signals(void **state)
{
    struct world *w = *state;
    int fd = -1;
    kill(w->agent, SIGTERM);
    kill(w->agent, SIGINT);
    kill(w->agent, SIGHUP);
    json_decref(launch(w, "w1", "s1", &fd));
    close(fd);
}

static void drain_refuses_launches_and_waits_for_the_last_worker(void **state)
{
    struct world *w = *state;
    struct err err;
    int one = -1, pid;
    tell(w->core, json_pack("{s:s, s:s, s:s}", "type", "launch", "worker", "w1", "session", "s1"), NULL, 0);
    AUTO_JSON json_t *launched = receive(w->core, &one);
    pid = (int)json_int(launched, "pid", 0);
    expect_type(one, "told");
    tell(w->control, json_pack("{s:s}", "type", "drain"), NULL, 0);
    /* The two channels are not in order: ask until the refusal shows that the drain has arrived. */
    AUTO_JSON json_t *refused = NULL;
    for (int i = 0; !refused; i++) {
        char id[32];
        int extra = -1;
        snprintf(id, sizeof(id), "extra %d", i);
        tell(w->core, json_pack("{s:s, s:s, s:s}", "type", "launch", "worker", id, "session", "exits"), NULL, 0);
        for (bool over = false; !over;) {
            AUTO_JSON json_t *msg = receive(w->core, &extra);
            over = !str_eq(json_str(msg, "type", ""), "launched") && !str_eq(json_str(msg, "type", ""), "settled");
            if (str_eq(json_str(msg, "type", ""), "launch_failed"))
                refused = json_incref(msg);
        }
        if (extra >= 0)
            close(extra);
    }
    err_from_json(&err, json_object_get(refused, "error"));
    assert_string_equal(hresult_name(err.hr), "VSS_E_BAD_STATE");
    struct pollfd quiet = {.fd = w->control, .events = POLLIN};
    assert_int_equal(poll(&quiet, 1, 50), 0);
    kill(pid, SIGKILL);
    expect_exited(w, "w1", "signal 9 (Killed)");
    expect_type(w->control, "drained");
    close(one);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_open, world_close)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(a_worker_starts_with_its_two_channels_and_nothing_else),
        IN_WORLD(a_worker_without_session_is_told_null),
        IN_WORLD(how_a_worker_ended_is_reported),
        IN_WORLD(an_id_that_runs_already_is_refused),
        cmocka_unit_test_setup_teardown(a_worker_that_cannot_be_started_is_reported_with_the_reason,
                                        world_without_worker, world_close),
        IN_WORLD(reload_is_for_later_workers),
        IN_WORLD(workers_undo_when_core_dies),
        IN_WORLD(workers_undo_when_serve_dies),
        IN_WORLD(workers_undo_when_the_agent_is_killed),
        IN_WORLD(a_worker_that_does_not_undo_in_time_is_killed),
        IN_WORLD(a_restore_is_known_to_serve_until_the_writers_of_its_dead_worker_are_gone),
        IN_WORLD(the_agent_is_deaf_to_signals),
        IN_WORLD(drain_refuses_launches_and_waits_for_the_last_worker),
    };
    const char *const worker[] = {proc_self_path(), "--worker", NULL};
    const char *const guardian[] = {getenv("QUIESCED_AGENT"), "--role=guardian", NULL};
    const char *const absent[] = {"/nonexistent/worker", NULL};
    const char *mode = argc > 1 ? argv[1] : "";
    if (str_eq(mode, "--writer"))
        return writer_main();
    if (str_eq(mode, "--worker"))
        return worker_main();
    if (str_eq(mode, "--agent"))
        return agent_run(worker, guardian);
    if (str_eq(mode, "--agent-without-worker"))
        return agent_run(absent, guardian);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("agent", tests, NULL, NULL);
}
