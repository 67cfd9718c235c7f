#include "serve/patience.h"

#include <signal.h>
#include <time.h>

bool patience_start(void *(*run)(void *arg), void *arg)
{
    pthread_attr_t detached;
    pthread_t thread;
    sigset_t all, before;

    sigfillset(&all);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    bool started = pthread_create(&thread, &detached, run, arg) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    return started;
}

bool patience_wait(pthread_cond_t *ended, pthread_mutex_t *lock, const bool *done, int timeout_ms)
{
    struct timespec end;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += timeout_ms % 1000 * 1000000L;
    end.tv_sec += timeout_ms / 1000 + end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    while (!*done && pthread_cond_clockwait(ended, lock, CLOCK_MONOTONIC, &end) == 0)
        ;
    return *done;
}
