#include "base/kin.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"

enum { LOOK_MS = 250 };

struct relative {
    pid_t pid;
    int64_t seen_ms;    /* as an orphan, first; 0: never */
    int64_t stopped_ms; /* 0: it runs */
    bool present;
};

struct kin {
    struct loop *loop;
    struct loop_timer *timer;
    kin_own_fn own;
    void *arg;
    kin_patience_fn patience_ms;
    struct relative *known; /* stopped ones and orphans alone */
    size_t n;
};

static struct relative *find(struct kin *kin, pid_t pid)
{
    for (size_t i = 0; i < kin->n; i++)
        if (kin->known[i].pid == pid)
            return &kin->known[i];
    return NULL;
}

static struct relative *know(struct kin *kin, pid_t pid)
{
    struct relative *known = find(kin, pid);
    if (!known) {
        kin->known = mem_resize(kin->known, (kin->n + 1) * sizeof(*kin->known));
        known = &kin->known[kin->n++];
        *known = (struct relative){.pid = pid};
    }
    known->present = true;
    return known;
}

static void end(const struct relative *known, const char *why)
{
    log_line(LOG_LEVEL_ERROR, NULL, "process %d %s: killed", (int)known->pid, why);
    proc_kill_group(known->pid); /* our child, not yet reaped: the number is still its own */
}

static void look_at(struct kin *kin, pid_t pid, int64_t now)
{
    bool own = kin->own(kin->arg, pid), stopped = proc_stopped(pid);
    if (!own && waitpid(pid, NULL, WNOHANG) == pid)
        return;
    if (own && !stopped)
        return;
    struct relative *known = know(kin, pid);
    if (!own && !known->seen_ms)
        known->seen_ms = now;
    if (stopped && !known->stopped_ms)
        known->stopped_ms = now;
    if (!stopped)
        known->stopped_ms = 0;
    /* One whose parent is gone has nobody left who might mean it to go on. */
    if (stopped && (!own || now - known->stopped_ms >= KIN_STOPPED_MS))
        end(known, "is stopped");
    else if (!own && now - known->seen_ms >= kin->patience_ms(kin->arg))
        end(known, "outlived its parent and does not end");
}

static void forget_absent(struct kin *kin)
{
    size_t kept = 0;
    for (size_t i = 0; i < kin->n; i++)
        if (kin->known[i].present)
            kin->known[kept++] = kin->known[i];
    kin->n = kept;
}

static void look(void *arg)
{
    struct kin *kin = arg;
    FILE *children = fopen("/proc/thread-self/children", "re");
    int64_t now = clock_mono_ms();
    int pid;
    for (size_t i = 0; i < kin->n; i++)
        kin->known[i].present = false;
    while (children && fscanf(children, "%d", &pid) == 1)
        look_at(kin, pid, now);
    if (children)
        fclose(children);
    forget_absent(kin);
    if (kin->n > 0)
        loop_timer_set(kin->timer, LOOK_MS);
}

static void on_child(void *arg, int signo)
{
    (void)signo;
    look(arg);
}

struct kin *kin_new(struct loop *loop, kin_patience_fn patience_ms, kin_own_fn own, void *arg)
{
    struct kin *kin = mem_new(sizeof(*kin));
    *kin = (struct kin){.loop = loop, .own = own, .arg = arg, .patience_ms = patience_ms};
    kin->timer = loop_timer_new(loop, look, kin);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    loop_signal_add(loop, SIGCHLD, on_child, kin);
    return kin;
}

void kin_free(struct kin *kin)
{
    if (!kin)
        return;
    loop_timer_free(kin->timer);
    free(kin->known);
    free(kin);
}
