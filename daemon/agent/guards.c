#include "agent/guards.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/second_holder.h"
#include "agent/workers.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "guardian/record.h"

enum {
    GUARDIAN_AGENT_FD = 3,
    GUARDIAN_WORKER_FD = 4,
    START_MS = 10000,
    LATE_MS = 1000, /* past the deadline, or after the worker's death: then the second holder thaws */
    EXIT_MS = 5000, /* from thawed to the guardian's exit */
    POLL_MS = 10,   /* for the exit of a child that is about to end */
    RETRY_FIRST_MS = 100, /* until the next second holder, when one could not thaw everything; doubled each time */
    RETRY_MAX_MS = 10000,
    FREEZE_SECONDS = 60,
};

enum guard_state {
    GUARD_STARTING,
    GUARD_READY,
    GUARD_FREEZING, /* frozen, or about to be */
    GUARD_THAWED,   /* by the guardian, which ends now */
    GUARD_THAWING,  /* by the second holder */
    GUARD_ENDING,   /* nothing is frozen; the guardian is to be reaped */
};

struct guard {
    LIST_ENTRY(guard) all;
    struct guards *guards;
    void *owner; /* NULL: the worker is gone */
    char worker[64]; /* its id, which stays */
    char set[64];
    enum guard_state state;
    pid_t pid, thawer;
    int pidfd, word_fd /* the worker's end of its channel to the guardian, until it is handed over */;
    struct ipc_channel *channel;
    struct loop_timer *timer;
    int fds[FREEZE_SET_MAX];
    size_t n;
    int record_fd;
    char record_path[4096];
    int64_t frozen_us; /* clock_mono_us; 0: nothing is */
    bool began; /* to freeze: the record is for its holders to remove */
    const char *why; /* the second holder acts; static */
    int64_t retry_ms;
};

struct guards {
    struct loop *loop;
    const char *const *argv;
    guards_tell_fn tell;
    guards_idle_fn idle;
    void *arg;
    void (*changed)(void *arg);
    void (*thawed)(void *arg, const char *worker, const char *set);
    uint64_t taken_over;
    LIST_HEAD(, guard) all;
};

struct guards *guards_new(struct loop *loop, const char *const *argv, guards_tell_fn tell, guards_idle_fn idle,
                          void *arg)
{
    struct guards *guards = mem_new(sizeof(*guards));
    *guards = (struct guards){.loop = loop, .argv = argv, .tell = tell, .idle = idle, .arg = arg};
    LIST_INIT(&guards->all);
    return guards;
}

bool guards_own(const struct guards *guards, pid_t pid)
{
    const struct guard *guard;
    LIST_FOREACH(guard, &guards->all, all)
    if (guard->pid == pid || guard->thawer == pid)
        return true;
    return false;
}

bool guards_none(const struct guards *guards)
{
    return LIST_EMPTY(&guards->all);
}

static void guard_free(struct guard *guard)
{
    LIST_REMOVE(guard, all);
    ipc_channel_free(guard->channel);
    loop_timer_free(guard->timer);
    for (size_t i = 0; i < guard->n; i++)
        fd_cleanup(&guard->fds[i]);
    fd_cleanup(&guard->record_fd);
    fd_cleanup(&guard->word_fd);
    fd_cleanup(&guard->pidfd);
    free(guard);
}

void guards_free(struct guards *guards)
{
    struct guard *guard;
    if (!guards)
        return;
    while ((guard = LIST_FIRST(&guards->all)))
        guard_free(guard);
    free(guards);
}

json_t *guards_figures(const struct guards *guards)
{
    const struct guard *guard;
    int64_t armed = 0, frozen = 0, since = 0;
    LIST_FOREACH(guard, &guards->all, all)
    {
        armed += guard->state == GUARD_READY || guard->frozen_us;
        frozen += guard->frozen_us != 0;
        if (guard->frozen_us && (!since || guard->frozen_us < since))
            since = guard->frozen_us;
    }
    return json_pack("{s:I, s:I, s:I, s:I}", "armed", (json_int_t)armed, "frozen", (json_int_t)frozen, "frozen_since_us", (json_int_t)since,
                     "second_holder_thaws", (json_int_t)guards->taken_over);
}

void guards_on_change(struct guards *guards, void (*changed)(void *arg))
{
    guards->changed = changed;
}

void guards_on_thaw(struct guards *guards, void (*thawed)(void *arg, const char *worker, const char *set))
{
    guards->thawed = thawed;
}

bool guards_hold(const struct guards *guards, const char *worker)
{
    const struct guard *guard;
    LIST_FOREACH(guard, &guards->all, all)
    if (str_eq(guard->worker, worker) && guard->state != GUARD_THAWED && guard->state != GUARD_ENDING)
        return true;
    return false;
}

static void enter(struct guard *guard, enum guard_state state, int64_t timer_ms)
{
    bool changes = guard->state != state;
    guard->state = state;
    if (state == GUARD_FREEZING)
        guard->frozen_us = clock_mono_us();
    else if (state != GUARD_THAWING)
        guard->frozen_us = 0;
    if (changes && (state == GUARD_THAWED || state == GUARD_ENDING) && guard->guards->thawed)
        guard->guards->thawed(guard->guards->arg, guard->worker, guard->set);
    if (changes && guard->guards->changed)
        guard->guards->changed(guard->guards->arg);
    if (timer_ms < 0)
        loop_timer_stop(guard->timer);
    else
        loop_timer_set(guard->timer, timer_ms);
}

static void tell(struct guard *guard, json_t *message /* taken */, const int *fds, size_t n_fds)
{
    json_put(message, "set", json_string(guard->set));
    if (guard->owner)
        guard->guards->tell(guard->guards->arg, guard->owner, message, fds, n_fds);
    json_decref(message);
}

static void kill_guardian(const struct guard *guard)
{
    syscall(SYS_pidfd_send_signal, guard->pidfd, SIGKILL, NULL, 0);
}

/* --- the second holder acts --- */

static void take_over(struct guard *guard, const char *why)
{
    const struct second_holder holder = {.guardian_pidfd = guard->pidfd,
                                         .record_fd = guard->record_fd,
                                         .record_path = guard->record_path,
                                         .fds = guard->fds,
                                         .n = guard->n};
    struct err err;
    guard->why = why;
    if (second_holder_start(&holder, &guard->thawer, &err) < 0)
        guard->thawer = 0; /* tried again with the timer */
    enter(guard, GUARD_THAWING, POLL_MS);
}

static void look_at_thawer(struct guard *guard)
{
    int status = 1 << 8;
    if (guard->thawer <= 0) {
        take_over(guard, guard->why);
        return;
    }
    pid_t reaped = waitpid(guard->thawer, &status, WNOHANG);
    if (reaped == 0 || (reaped < 0 && errno == EINTR)) {
        loop_timer_set(guard->timer, POLL_MS);
        return;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) { /* no word to the worker: what it would say is not so */
        guard->thawer = 0;
        guard->retry_ms = !guard->retry_ms                    ? RETRY_FIRST_MS
                          : 2 * guard->retry_ms > RETRY_MAX_MS ? RETRY_MAX_MS
                                                               : 2 * guard->retry_ms;
        loop_timer_set(guard->timer, guard->retry_ms);
        return;
    }
    enter(guard, GUARD_ENDING, 0);
    log_line(LOG_LEVEL_WARNING, NULL, "freeze set %s: %s, so the agent thawed it%s", guard->set, guard->why,
             guard->retry_ms ? ", but not at the first attempt" : "");
    guard->guards->taken_over++;
    tell(guard, json_pack("{s:s}", "type", "thawed"), NULL, 0);
}

static void look_at_guardian(struct guard *guard)
{
    struct guards *guards = guard->guards;
    if (!proc_reap(guard->pid, guard->pidfd, 0, NULL)) {
        loop_timer_set(guard->timer, POLL_MS);
        return;
    }
    if (!guard->began) /* one that was killed before could not remove it */
        unlink(guard->record_path);
    guard_free(guard);
    if (guards_none(guards))
        guards->idle(guards->arg);
}

static void give_up(struct guard *guard, const struct err *err)
{
    kill_guardian(guard);
    tell(guard, json_pack("{s:s, s:o}", "type", "guard_failed", "error", err_to_json(err)), NULL, 0);
    enter(guard, GUARD_ENDING, 0);
}

static void start_too_slow(struct guard *guard)
{
    struct err err;
    err_set(&err, VSS_E_UNEXPECTED, NULL, "the guardian did not become ready in time");
    give_up(guard, &err);
}

static void late(struct guard *guard)
{
    take_over(guard, guard->owner ? "its guardian did not thaw at the deadline"
                                  : "its guardian did not thaw when the worker was gone");
}

static void exit_too_slow(struct guard *guard)
{
    kill_guardian(guard);
    enter(guard, GUARD_ENDING, POLL_MS);
}

static void on_timer(void *arg)
{
    static void (*const timers[])(struct guard * guard) = {
        [GUARD_STARTING] = start_too_slow, [GUARD_READY] = late,
        [GUARD_FREEZING] = late,           [GUARD_THAWED] = exit_too_slow,
        [GUARD_THAWING] = look_at_thawer,  [GUARD_ENDING] = look_at_guardian,
    };
    struct guard *guard = arg;
    timers[guard->state](guard);
}

/* --- what the guardian says --- */

static void on_ready(struct guard *guard, const json_t *msg, int *fds, size_t n_fds)
{
    if (guard->state != GUARD_STARTING || n_fds != 1)
        return;
    const char *weak = json_str(msg, "weak", NULL);
    if (weak)
        log_line(LOG_LEVEL_WARNING, NULL, "the guardian of a freeze set holds less fast than it should: %s", weak);
    guard->record_fd = TAKE_FD(fds[0]);
    str_copy(guard->record_path, sizeof(guard->record_path), json_str(msg, "path", ""));
    enter(guard, GUARD_READY, guard->owner ? -1 : LATE_MS);
    tell(guard, json_pack("{s:s}", "type", "guarded"), &guard->word_fd, 1);
    close(TAKE_FD(guard->word_fd));
}

static void on_failed(struct guard *guard, const json_t *msg, int *fds, size_t n_fds)
{
    struct err err;
    (void)fds;
    (void)n_fds;
    err_from_json(&err, json_object_get(msg, "error"));
    give_up(guard, &err);
}

static void on_freezing(struct guard *guard, const json_t *msg, int *fds, size_t n_fds)
{
    (void)fds;
    (void)n_fds;
    if (guard->state != GUARD_READY)
        return;
    guard->began = true;
    int64_t left = (json_int(msg, "deadline_us", 0) - clock_mono_us()) / 1000;
    enter(guard, GUARD_FREEZING, guard->owner ? (left < 0 ? 0 : left) + LATE_MS : LATE_MS);
}

static void on_thawed(struct guard *guard, const json_t *msg, int *fds, size_t n_fds)
{
    (void)msg;
    (void)fds;
    (void)n_fds;
    if (guard->state == GUARD_FREEZING)
        enter(guard, GUARD_THAWED, EXIT_MS);
}

static const struct {
    const char *type;
    void (*fn)(struct guard *guard, const json_t *msg, int *fds, size_t n_fds);
} messages[] = {{"ready", on_ready}, {"failed", on_failed}, {"freezing", on_freezing}, {"thawed", on_thawed}};

static void on_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    for (size_t i = 0; i < ELEMENTS(messages); i++)
        if (str_eq(json_str(msg, "type", ""), messages[i].type))
            messages[i].fn(arg, msg, fds, n_fds);
}

/* Every message that it sent before its end has been read by now: what it had frozen and not thawed is known. */
static void on_closed(void *arg, const struct err *channel_err)
{
    struct guard *guard = arg;
    struct err err;
    (void)channel_err;
    ipc_channel_free(TAKE_PTR(guard->channel));
    if (guard->state == GUARD_STARTING) {
        err_set(&err, VSS_E_UNEXPECTED, NULL, "the guardian ended before it was ready");
        give_up(guard, &err);
    } else if (guard->state == GUARD_FREEZING) {
        take_over(guard, "its guardian is gone");
    } else if (guard->state == GUARD_READY || guard->state == GUARD_THAWED) {
        enter(guard, GUARD_ENDING, POLL_MS);
    }
}

/* --- the start --- */

static json_t *record_of(const struct guard *guard, const json_t *message, const json_t *settings)
{
    char boot_id[64];
    record_boot_id(boot_id);
    return json_pack("{s:s, s:s, s:s, s:s, s:O}", "installation", json_str(settings, "installation", "none"), "set",
                     guard->set, "session", json_str(message, "session", ""), "boot_id", boot_id, "file_systems",
                     json_object_get(message, "file_systems"));
}

/* Nobody holds longer than the configured limit, whatever a worker asks for. */
static int64_t allowed_ms(const json_t *message, const json_t *settings)
{
    const json_t *limits = json_object_get(json_object_get(settings, "config"), "limits");
    int64_t most = 1000 * json_int(limits, "freeze_seconds", FREEZE_SECONDS);
    int64_t asked = json_int(message, "freeze_ms", most);
    return asked > 0 && asked < most ? asked : most;
}

static int spawn(struct guard *guard, const json_t *start, struct err *err)
{
    int control[2], word[2];
    if (ipc_pair(control, err) < 0)
        return -1;
    AUTO_FD int control_ours = control[0], control_theirs = control[1];
    if (ipc_pair(word, err) < 0)
        return -1;
    guard->word_fd = word[0];
    AUTO_FD int word_theirs = word[1];
    const struct proc_fd fds[] = {
        {STDERR_FILENO, STDERR_FILENO}, {control_theirs, GUARDIAN_AGENT_FD}, {word_theirs, GUARDIAN_WORKER_FD}};
    /* It must outlive us: our end is its word to thaw. */
    const struct proc_spec spec = {.argv = guard->guards->argv,
                                   .environment = workers_environment(),
                                   .fds = fds,
                                   .n_fds = ELEMENTS(fds),
                                   .new_group = true};
    if (proc_spawn(&spec, &guard->pid, &guard->pidfd, err) < 0)
        return err_prefix(err, "guardian");
    guard->channel = ipc_channel_new(guard->guards->loop, TAKE_FD(control_ours), on_message, on_closed, guard);
    ipc_channel_send(guard->channel, start, guard->fds, guard->n);
    return 0;
}

static int launch(struct guard *guard, const json_t *message, const json_t *settings, struct err *err)
{
    if (fault("agent.guard"))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "guard: fault injected");
    if (guard->n == 0 || json_array_size(json_object_get(message, "file_systems")) != guard->n)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "message from a worker: not a set of file systems");
    AUTO_JSON json_t *start =
        json_pack("{s:s, s:s, s:I, s:o}", "type", "guard", "records", json_str(settings, "records", ""), "freeze_ms",
                  (json_int_t)allowed_ms(message, settings), "record", record_of(guard, message, settings));
    if (!start)
        return err_set(err, E_INVALIDARG, NULL, "freeze set: a path is not UTF-8");
    if (!record_path(json_str(settings, "records", ""), json_object_get(start, "record"), guard->record_path))
        return err_set(err, E_INVALIDARG, NULL, "freeze records: the directory's path is too long");
    return spawn(guard, start, err);
}

void guards_launch(struct guards *guards, void *owner, const json_t *message, int *fds, size_t n_fds,
                   const json_t *settings)
{
    struct err err;
    struct guard *guard = mem_new(sizeof(*guard));
    *guard = (struct guard){.guards = guards, .owner = owner, .pidfd = -1, .word_fd = -1, .record_fd = -1};
    str_copy(guard->set, sizeof(guard->set), json_str(message, "set", ""));
    str_copy(guard->worker, sizeof(guard->worker), workers_id(owner));
    for (; guard->n < n_fds && guard->n < FREEZE_SET_MAX; guard->n++)
        guard->fds[guard->n] = TAKE_FD(fds[guard->n]);
    guard->timer = loop_timer_new(guards->loop, on_timer, guard);
    LIST_INSERT_HEAD(&guards->all, guard, all);
    if (launch(guard, message, settings, &err) == 0) {
        enter(guard, GUARD_STARTING, START_MS);
        return;
    }
    tell(guard, json_pack("{s:s, s:o}", "type", "guard_failed", "error", err_to_json(&err)), NULL, 0);
    guard_free(guard);
}

/* --- what the worker says, or no longer does --- */

void guards_thaw(struct guards *guards, void *owner, const char *set)
{
    struct guard *guard;
    LIST_FOREACH(guard, &guards->all, all)
    {
        if (guard->owner != owner || !str_eq(guard->set, set))
            continue;
        if (guard->state == GUARD_THAWING) /* the word follows when it is so (look_at_thawer) */
            return;
        if (guard->state == GUARD_READY || guard->state == GUARD_FREEZING)
            take_over(guard, "its guardian did not answer");
        else
            tell(guard, json_pack("{s:s}", "type", "thawed"), NULL, 0);
        return;
    }
    AUTO_JSON json_t *thawed = json_pack("{s:s, s:s}", "type", "thawed", "set", set); /* its guard is gone: nothing is frozen */
    guards->tell(guards->arg, owner, thawed, NULL, 0);
}

void guards_owner_gone(struct guards *guards, void *owner)
{
    struct guard *guard;
    LIST_FOREACH(guard, &guards->all, all)
    {
        if (guard->owner != owner)
            continue;
        guard->owner = NULL;
        if (guard->state == GUARD_READY || guard->state == GUARD_FREEZING)
            loop_timer_set(guard->timer, LATE_MS);
    }
}
