#pragma once
/* Looks after the children of a supervising process. A child that is stopped (SIGSTOP: it holds what it holds and hears
 * nothing) is killed after KIN_STOPPED_MS, so that it can be replaced like one that died. And the process becomes the
 * reaper of its descendants: an orphan, whose parent died, may undo what it holds; it is reaped, or killed when late. */
#include <stdbool.h>
#include <sys/types.h>

#include "base/loop.h"

enum { KIN_STOPPED_MS = 1000 }; /* longer than any job control that is meant well */

struct kin;
/* Did we start this child ourselves (then its exit is the caller's to reap)? */
typedef bool (*kin_own_fn)(void *arg, pid_t pid);

/* What an orphan gets to undo and exit, as things are now. */
typedef int (*kin_patience_fn)(void *arg);

/* One per process: takes SIGCHLD. */
struct kin *kin_new(struct loop *loop, kin_patience_fn patience_ms, kin_own_fn own, void *arg);
void kin_free(struct kin *kin); /* NULL is fine; orphans are left to the next reaper */
