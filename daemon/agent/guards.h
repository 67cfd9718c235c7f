#pragma once
/* The agent as second holder of every freeze: it launches the guardian of a freeze set, keeps the same fds, and thaws
 * when the guardian is gone, does not answer, or is late by a second. Its own thaw never blocks the loop. */
#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/loop.h"

struct guards;
struct guard;

/* To the worker that asked: a message on its lease, fds borrowed. owner is what guards_launch was given: a struct worker. */
typedef void (*guards_tell_fn)(void *arg, void *owner, json_t *message, const int *fds, size_t n_fds);
typedef void (*guards_idle_fn)(void *arg); /* no guard is left */

struct guards *guards_new(struct loop *loop, const char *const *argv, guards_tell_fn tell, guards_idle_fn idle,
                          void *arg);
void guards_free(struct guards *guards); /* NULL is fine; guardians that still run thaw by themselves */

/* A worker's {"type":"guard",...} with one fd per file system (taken, set to -1). settings: the agent's start message,
 * whose limits.freeze_seconds nobody exceeds. The answer goes to the worker by tell: "guarded" or "guard_failed". */
void guards_launch(struct guards *guards, void *owner, const json_t *message, int *fds, size_t n_fds,
                   const json_t *settings);
/* A worker's {"type":"thaw","set":ID}: its guardian does not answer. Answered by "thawed". */
void guards_thaw(struct guards *guards, void *owner, const char *set);
/* The worker is gone: its guardians have a second to thaw. */
void guards_owner_gone(struct guards *guards, void *owner);
bool guards_own(const struct guards *guards, pid_t pid); /* a guardian, or a second holder's child that thaws? */
bool guards_none(const struct guards *guards);
/* {"armed","frozen","frozen_since_us","second_holder_thaws"}: freeze sets with a guardian, those that are frozen (or about to be), since when
 * the oldest of them (clock_mono_us; 0: none), and how often the agent had to thaw one. New reference. */
json_t *guards_figures(const struct guards *guards);
void guards_on_change(struct guards *guards, void (*changed)(void *arg)); /* of these, and of guards_hold; arg as for guards_new */
/* The worker's freeze set is known to be thawed, or was never frozen. Whether it still lives does not matter. */
void guards_on_thaw(struct guards *guards, void (*thawed)(void *arg, const char *worker, const char *set));
/* May a freeze set of the worker with this id, dead or alive, be frozen? */
bool guards_hold(const struct guards *guards, const char *worker);
