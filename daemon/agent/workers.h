#pragma once
/* The workers that this agent has launched. A worker's lease is a channel on its fd 4: when it closes, the worker
 * undoes what it holds and exits. */
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/loop.h"

struct workers;

/* A worker has ended and was reaped; status as of waitpid. */
typedef void (*workers_exited_fn)(void *arg, const char *id, int status);

struct workers *workers_new(struct loop *loop, const char *const *argv, workers_exited_fn exited, void *arg);
void workers_free(struct workers *workers); /* NULL is fine */

/* Starts a worker, and sends it start (borrowed) on its lease. ret_core_end: core's end of its other channel, the
 * caller's to close. */
int workers_launch(struct workers *workers, const char *id, const json_t *start, int *ret_core_end, int *ret_pid,
                   struct err *err);
bool workers_none(const struct workers *workers);
/* Closes every lease: the workers undo and exit by themselves. */
void workers_end_leases(struct workers *workers);
/* SIGKILL to the process group of each one that is left. */
void workers_kill(struct workers *workers);
