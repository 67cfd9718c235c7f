#include "agent/workers.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/offspring.h"
#include "base/proc.h"
#include "base/str.h"

enum {
    WORKER_CORE_FD = 3,
    WORKER_LEASE_FD = 4,
    LOOK_MS = 1000, /* for one that was killed and cannot end */
    LOOKS_TOLD = 2, /* it may have been at its end in the first one */
};

struct worker {
    LIST_ENTRY(worker) all;
    struct workers *owner;
    char id[64];
    char mark[160]; /* of its writers' processes */
    pid_t pid;
    int pidfd;
    bool restoring;
    int hangs; /* in how many looks, one after the other: killed, and it does not end */
    struct loop_io *exit_io;
    struct ipc_channel *lease; /* NULL once it has ended */
};

struct workers {
    struct loop *loop;
    const char *const *argv;
    const struct workers_events *events;
    void *arg;
    struct loop_timer *timer;
    LIST_HEAD(, worker) all;
};

/* A killed worker that waits for a disk in the kernel keeps its writers' input open: they do not hear its end, and the thread that would have
 * ended them with their windows is gone with it. They are not told to wait for the disk, too. In a restore they are: who has stopped its
 * application must undo and start it, which no kill does, and does so when the disk answers. */
static void look(void *arg)
{
    struct workers *workers = arg;
    struct worker *worker;
    LIST_FOREACH(worker, &workers->all, all)
    {
        worker->hangs = worker->restoring || !proc_kill_pending(worker->pid) ? 0 : worker->hangs + 1;
        if (worker->hangs != LOOKS_TOLD)
            continue;
        log_line(LOG_LEVEL_ERROR, NULL, "worker %s (pid %d) was killed and does not end: it hangs in the kernel", worker->id, (int)worker->pid);
        workers->events->bereaved(workers->arg, worker->mark, false);
    }
    if (!workers_none(workers))
        loop_timer_set(workers->timer, LOOK_MS);
}

struct workers *workers_new(struct loop *loop, const char *const *argv, const struct workers_events *events,
                            void *arg)
{
    struct workers *workers = mem_new(sizeof(*workers));
    *workers = (struct workers){.loop = loop, .argv = argv, .events = events, .arg = arg};
    LIST_INIT(&workers->all);
    workers->timer = loop_timer_new(loop, look, workers);
    return workers;
}

static void end_lease(struct worker *worker)
{
    if (!worker->lease)
        return;
    worker->owner->events->gone(worker->owner->arg, worker);
    ipc_channel_free(TAKE_PTR(worker->lease));
}

static void worker_free(struct worker *worker)
{
    LIST_REMOVE(worker, all);
    end_lease(worker);
    loop_io_remove(worker->exit_io);
    close(worker->pidfd);
    free(worker);
}

void workers_free(struct workers *workers)
{
    struct worker *worker;
    if (!workers)
        return;
    while ((worker = LIST_FIRST(&workers->all)))
        worker_free(worker);
    loop_timer_free(workers->timer);
    free(workers);
}

/* Its writers hear end-of-file, undo and exit by themselves: they are not killed here. */
static void on_exit_io(void *arg, uint32_t events)
{
    struct worker *worker = arg;
    struct workers *owner = worker->owner;
    char id[sizeof(worker->id)], mark[sizeof(worker->mark)];
    int status = 0;
    (void)events;
    if (!proc_reap(worker->pid, worker->pidfd, 0, &status))
        return;
    if (status != 0) /* it could not see to it itself that they end */
        owner->events->bereaved(owner->arg, worker->mark, worker->restoring);
    str_copy(id, sizeof(id), worker->id);
    str_copy(mark, sizeof(mark), worker->mark);
    worker_free(worker);
    owner->events->exited(owner->arg, id, mark, status);
}

static void on_lease_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct worker *worker = arg;
    worker->owner->events->asked(worker->owner->arg, worker, msg, fds, n_fds);
}

static void on_lease_closed(void *arg, const struct err *err)
{
    struct worker *worker = arg;
    if (err)
        log_err(LOG_LEVEL_ERROR, NULL, err, "worker %s: its lease broke", worker->id);
    end_lease(worker);
}

/* Only what a worker may need of our environment: where the fault points lie, what a sanitizer is told, and whether
 * standard error is the journal. */
const char *const *workers_environment(void)
{
    static const char *const through[] = {"QUIESCED_FAULT_DIR", "ASAN_OPTIONS", "UBSAN_OPTIONS",
                                          "TSAN_OPTIONS",       "LSAN_OPTIONS", "JOURNAL_STREAM"};
    static const char *list[2 + ELEMENTS(through) + 1] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"};
    static bool filled;
    for (size_t i = 0, to = 2; !filled && i < ELEMENTS(through); i++) {
        const char *value = getenv(through[i]);
        if (value)
            list[to++] = str_new("%s=%s", through[i], value); /* for the life of the process */
    }
    filled = true;
    return list;
}

static bool known(const struct workers *workers, const char *id)
{
    struct worker *worker;
    LIST_FOREACH(worker, &workers->all, all)
    if (str_eq(worker->id, id))
        return true;
    return false;
}

static int check_id(const struct workers *workers, const char *id, struct err *err)
{
    if (!id || !*id || strlen(id) >= sizeof(((struct worker *)0)->id))
        return err_set(err, E_INVALIDARG, NULL, "worker: the id is missing or too long");
    if (known(workers, id))
        return err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "worker %s: runs already", id);
    return 0;
}

int workers_launch(struct workers *workers, const char *id, const json_t *start, int *ret_core_end, int *ret_pid,
                   struct err *err)
{
    int core[2], lease[2];
    if (check_id(workers, id, err) < 0 || ipc_pair(core, err) < 0)
        return -1;
    AUTO_FD int core_ours = core[0], core_theirs = core[1];
    if (ipc_pair(lease, err) < 0)
        return -1;
    AUTO_FD int lease_ours = lease[0], lease_theirs = lease[1];
    const struct proc_fd fds[] = {
        {STDERR_FILENO, STDERR_FILENO}, {core_theirs, WORKER_CORE_FD}, {lease_theirs, WORKER_LEASE_FD}};
    /* It must not die with us: it undoes what it holds when the lease closes, however we end. */
    const struct proc_spec spec = {
        .argv = workers->argv, .environment = workers_environment(), .fds = fds, .n_fds = ELEMENTS(fds), .new_group = true};
    struct worker *worker = mem_new(sizeof(*worker));
    if (proc_spawn(&spec, &worker->pid, &worker->pidfd, err) < 0) {
        free(worker);
        return err_prefix(err, "worker %s", id);
    }
    worker->owner = workers;
    str_copy(worker->id, sizeof(worker->id), id);
    str_format(worker->mark, sizeof(worker->mark), OFFSPRING_MARK "%s:%d:", json_str(start, "installation", "-"),
               (int)worker->pid);
    workers->events->named(workers->arg, worker->mark);
    worker->lease = ipc_channel_new(workers->loop, TAKE_FD(lease_ours), on_lease_message, on_lease_closed, worker);
    worker->exit_io = loop_io_add(workers->loop, worker->pidfd, EPOLLIN, on_exit_io, worker);
    LIST_INSERT_HEAD(&workers->all, worker, all);
    if (!loop_timer_armed(workers->timer))
        loop_timer_set(workers->timer, LOOK_MS);
    ipc_channel_send(worker->lease, start, NULL, 0);
    *ret_core_end = TAKE_FD(core_ours);
    *ret_pid = worker->pid;
    return 0;
}

void workers_tell(struct worker *worker, const json_t *message, const int *fds, size_t n_fds)
{
    if (worker->lease)
        ipc_channel_send(worker->lease, message, fds, n_fds);
}

const char *workers_id(const struct worker *worker)
{
    return worker->id;
}

bool workers_own(const struct workers *workers, pid_t pid)
{
    const struct worker *worker;
    LIST_FOREACH(worker, &workers->all, all)
    if (worker->pid == pid)
        return true;
    return false;
}

void workers_set_restoring(struct worker *worker, bool restoring)
{
    worker->restoring = restoring;
}

bool workers_restoring(const struct workers *workers)
{
    const struct worker *worker;
    LIST_FOREACH(worker, &workers->all, all)
    if (worker->restoring)
        return true;
    return false;
}

bool workers_none(const struct workers *workers)
{
    return LIST_EMPTY(&workers->all);
}

void workers_end_leases(struct workers *workers)
{
    struct worker *worker;
    LIST_FOREACH(worker, &workers->all, all)
    end_lease(worker);
}

void workers_kill(struct workers *workers)
{
    struct worker *worker;
    LIST_FOREACH(worker, &workers->all, all)
    {
        log_line(LOG_LEVEL_ERROR, NULL, "worker %s (pid %d) did not end in time: killed", worker->id, (int)worker->pid);
        proc_kill_group(worker->pid); /* not reaped yet: the number is still its own */
    }
}

void workers_leave(struct workers *workers)
{
    struct worker *worker;
    LIST_FOREACH(worker, &workers->all, all)
    {
        log_line(LOG_LEVEL_ERROR, NULL, "worker %s (pid %d) was killed and does not end: it hangs in the kernel%s", worker->id, (int)worker->pid,
                 worker->restoring ? "; what its restore has stopped stays so until then" : "");
        if (!worker->restoring)
            offspring_kill(worker->pid);
    }
}
