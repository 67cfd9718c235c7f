#include "agent/workers.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"

enum { WORKER_CORE_FD = 3, WORKER_LEASE_FD = 4 };

struct worker {
    LIST_ENTRY(worker) all;
    struct workers *owner;
    char id[64];
    pid_t pid;
    int pidfd;
    struct loop_io *exit_io;
    struct ipc_channel *lease; /* NULL once it has ended */
};

struct workers {
    struct loop *loop;
    const char *const *argv;
    workers_exited_fn exited;
    void *arg;
    LIST_HEAD(, worker) all;
};

struct workers *workers_new(struct loop *loop, const char *const *argv, workers_exited_fn exited, void *arg)
{
    struct workers *workers = mem_new(sizeof(*workers));
    *workers = (struct workers){.loop = loop, .argv = argv, .exited = exited, .arg = arg};
    LIST_INIT(&workers->all);
    return workers;
}

static void end_lease(struct worker *worker)
{
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
    free(workers);
}

/* What is left of the worker's children ends by itself when its pipes close, after undoing: it is not killed here. The
 * number of the group could be another's by now, besides. */
static void on_exit_io(void *arg, uint32_t events)
{
    struct worker *worker = arg;
    struct workers *owner = worker->owner;
    char id[sizeof(worker->id)];
    int status = 0;
    (void)events;
    if (!proc_reap(worker->pid, worker->pidfd, 0, &status))
        return;
    str_copy(id, sizeof(id), worker->id);
    worker_free(worker);
    owner->exited(owner->arg, id, status);
}

static void on_lease_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    (void)arg;
    (void)msg;
    (void)fds;
    (void)n_fds; /* a worker has nothing to say on its lease */
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
static const char *const *environment(void)
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
        .argv = workers->argv, .environment = environment(), .fds = fds, .n_fds = ELEMENTS(fds), .new_group = true};
    struct worker *worker = mem_new(sizeof(*worker));
    if (proc_spawn(&spec, &worker->pid, &worker->pidfd, err) < 0) {
        free(worker);
        return err_prefix(err, "worker %s", id);
    }
    worker->owner = workers;
    str_copy(worker->id, sizeof(worker->id), id);
    worker->lease = ipc_channel_new(workers->loop, TAKE_FD(lease_ours), on_lease_message, on_lease_closed, worker);
    worker->exit_io = loop_io_add(workers->loop, worker->pidfd, EPOLLIN, on_exit_io, worker);
    LIST_INSERT_HEAD(&workers->all, worker, all);
    ipc_channel_send(worker->lease, start, NULL, 0);
    *ret_core_end = TAKE_FD(core_ours);
    *ret_pid = worker->pid;
    return 0;
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
