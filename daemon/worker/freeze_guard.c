#include "worker/freeze_guard.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>

#include "base/clock.h"

static struct guarded {
    _Atomic pid_t pid; /* 0 = free */
    int64_t deadline_us;
} guarded[FREEZE_GUARD_MAX];

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* async-signal-safe (POSIX), unlike what a library might do around it */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void arm(void)
{
    int64_t next = INT64_MAX;
    for (int i = 0; i < FREEZE_GUARD_MAX; i++)
        if (guarded[i].pid && guarded[i].deadline_us < next)
            next = guarded[i].deadline_us;
    struct itimerval timer = {0};
    if (next != INT64_MAX) {
        int64_t left = next - now_us();
        if (left < 1000)
            left = 1000; /* zero would disarm */
        timer.it_value.tv_sec = left / 1000000;
        timer.it_value.tv_usec = left % 1000000;
    }
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void on_alarm(int signo)
{
    int saved = errno;
    (void)signo;
    for (int i = 0; i < FREEZE_GUARD_MAX; i++) {
        pid_t pid = guarded[i].pid;
        if (pid && guarded[i].deadline_us <= now_us()) {
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
            guarded[i].pid = 0;
        }
    }
    arm();
    errno = saved;
}

int freeze_guard_watch(pid_t pid, int64_t deadline_us)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    for (int i = 0; i < FREEZE_GUARD_MAX; i++) {
        if (guarded[i].pid)
            continue;
        guarded[i].deadline_us = deadline_us;
        guarded[i].pid = pid;
        arm();
        return 0;
    }
    return -1;
}

void freeze_guard_forget(pid_t pid)
{
    for (int i = 0; i < FREEZE_GUARD_MAX; i++)
        if (guarded[i].pid == pid)
            guarded[i].pid = 0;
    arm();
}
