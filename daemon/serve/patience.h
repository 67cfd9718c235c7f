#pragma once
/* A call that knows no time-out of its own (NSS) runs in a detached thread; serve's loop waits for it only so long. Whoever comes last, the
 * thread or who waits, frees what both use: that is the callers' to see to, under their lock. */
#include <pthread.h>
#include <stdbool.h>

/* Starts run(arg), every signal blocked: they belong to the loop's thread. False: it was not started. */
bool patience_start(void *(*run)(void *arg), void *arg);
/* With lock held: waits until *done, signalled by ended, or until timeout_ms of the monotonic clock are over. Returns *done. */
bool patience_wait(pthread_cond_t *ended, pthread_mutex_t *lock, const bool *done, int timeout_ms);
