#include "worker/freeze_guard.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "base/clock.h"
#include "base/proc.h"

static struct guarded {
    pid_t pid;    /* 0 = free */
    pid_t killed; /* the last one that this place has killed */
    int64_t deadline_us;
} guarded[FREEZE_GUARD_MAX];

/* The lock is held for kill(2) at most: whoever forgets a process may reap it at once. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* by CLOCK_MONOTONIC */
    bool runs;
} guard = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Kills who is late; when the next one will be, INT64_MAX: there is none. */
static int64_t end_late(int64_t now_us)
{
    int64_t next = INT64_MAX;
    for (int i = 0; i < FREEZE_GUARD_MAX; i++) {
        struct guarded *one = &guarded[i];
        if (one->pid && one->deadline_us <= now_us) {
            proc_kill_group(one->pid);
            one->killed = one->pid;
            one->pid = 0;
        }
        if (one->pid && one->deadline_us < next)
            next = one->deadline_us;
    }
    return next;
}

static void *watch(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&guard.lock);
    for (;;) {
        int64_t next = end_late(clock_mono_us());
        const struct timespec until = {.tv_sec = next / 1000000, .tv_nsec = next % 1000000 * 1000};
        if (next == INT64_MAX)
            pthread_cond_wait(&guard.changed, &guard.lock);
        else
            pthread_cond_timedwait(&guard.changed, &guard.lock, &until);
    }
    return NULL;
}

/* Under the lock. It lasts as long as the process; signals are the main thread's. */
static bool start(void)
{
    pthread_condattr_t monotonic;
    pthread_attr_t detached;
    pthread_t thread;
    sigset_t all, before;
    if (guard.runs)
        return true;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&guard.changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    guard.runs = pthread_create(&thread, &detached, watch, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    if (!guard.runs)
        pthread_cond_destroy(&guard.changed);
    return guard.runs;
}

static struct guarded *find(pid_t pid)
{
    for (int i = 0; i < FREEZE_GUARD_MAX; i++)
        if (guarded[i].pid == pid)
            return &guarded[i];
    return NULL;
}

int freeze_guard_watch(pid_t pid, int64_t deadline_us)
{
    pthread_mutex_lock(&guard.lock);
    struct guarded *room = start() ? find(0) : NULL;
    for (int i = 0; i < FREEZE_GUARD_MAX; i++)
        if (guarded[i].killed == pid) /* another process had that number */
            guarded[i].killed = 0;
    if (room) {
        room->pid = pid;
        room->deadline_us = deadline_us;
        pthread_cond_signal(&guard.changed);
    }
    pthread_mutex_unlock(&guard.lock);
    return room ? 0 : -1;
}

void freeze_guard_extend(pid_t pid, int64_t at_least_us)
{
    pthread_mutex_lock(&guard.lock);
    struct guarded *one = find(pid);
    if (one && one->deadline_us < at_least_us)
        one->deadline_us = at_least_us; /* who waits for the earlier one looks again then */
    pthread_mutex_unlock(&guard.lock);
}

void freeze_guard_forget(pid_t pid)
{
    pthread_mutex_lock(&guard.lock);
    struct guarded *one = pid > 0 ? find(pid) : NULL;
    if (one)
        one->pid = 0;
    pthread_mutex_unlock(&guard.lock);
}

bool freeze_guard_killed(pid_t pid)
{
    bool killed = false;
    pthread_mutex_lock(&guard.lock);
    for (int i = 0; pid > 0 && i < FREEZE_GUARD_MAX; i++)
        killed = killed || guarded[i].killed == pid;
    pthread_mutex_unlock(&guard.lock);
    return killed;
}
