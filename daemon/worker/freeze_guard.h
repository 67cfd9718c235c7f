#pragma once
/* The last resort between Freeze and Thaw: while the worker is inside a provider's system call it cannot look at the
 * clock, so a timer signal does. A writer that is still frozen past its window is killed with its group; its hold
 * (database session, lock) ends with it. Everything here is async-signal-safe. */
#include <stdint.h>
#include <sys/types.h>

enum { FREEZE_GUARD_MAX = 256 }; /* writers frozen at one time */

/* From now until freeze_guard_forget, pid's group is killed at deadline_us (CLOCK_MONOTONIC microseconds).
 * Returns 0, or -1 when the table is full. */
int freeze_guard_watch(pid_t pid, int64_t deadline_us);
/* Thaw was sent, or the process is about to be reaped. */
void freeze_guard_forget(pid_t pid);
