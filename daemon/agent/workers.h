#pragma once
/* The workers that this agent has launched. A worker's lease is a channel on its fd 4: when it closes, the worker
 * undoes what it holds and exits. */
#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/loop.h"

struct workers;

struct worker;

struct workers_events {
    /* A worker runs whose writers will bear this mark (base/offspring.h): whoever bears it already is another's. */
    void (*named)(void *arg, const char *mark);
    /* A worker died, or was killed and hangs in the kernel, and may have left writers behind that bear its mark. restoring: one of them may have stopped its application. */
    void (*bereaved)(void *arg, const char *mark, bool restoring);
    /* A worker has ended and was reaped; status as of waitpid; mark as of named. */
    void (*exited)(void *arg, const char *id, const char *mark, int status);
    /* It asks for something on its lease. fds that are not taken (set to -1) are closed afterwards. */
    void (*asked)(void *arg, struct worker *worker, const json_t *message, int *fds, size_t n_fds);
    /* It is gone, or its lease has ended: it cannot be told anything any more. */
    void (*gone)(void *arg, struct worker *worker);
};

struct workers *workers_new(struct loop *loop, const char *const *argv, const struct workers_events *events, void *arg);
void workers_free(struct workers *workers); /* NULL is fine */

/* Starts a worker, and sends it start (borrowed) on its lease. ret_core_end: core's end of its other channel, the
 * caller's to close. */
int workers_launch(struct workers *workers, const char *id, const json_t *start, int *ret_core_end, int *ret_pid,
                   struct err *err);
/* A message on a worker's lease; nothing when that has ended. */
void workers_tell(struct worker *worker, const json_t *message, const int *fds, size_t n_fds);
/* NULL-ended, static: the minimal environment of our children, and what tests hand through. */
const char *const *workers_environment(void);
const char *workers_id(const struct worker *worker);
bool workers_own(const struct workers *workers, pid_t pid); /* is it one of them? */
/* It says on its lease whether a writer of its may have stopped an application for a restore. */
void workers_set_restoring(struct worker *worker, bool restoring);
bool workers_restoring(const struct workers *workers); /* does any of them? */
bool workers_none(const struct workers *workers);
/* Closes every lease: the workers undo and exit by themselves. */
void workers_end_leases(struct workers *workers);
/* SIGKILL to the process group of each one that is left. */
void workers_kill(struct workers *workers);
/* Of each one that does not end for it: SIGKILL for its writers, which do not hear its end, but in a restore. */
void workers_leave(struct workers *workers);
