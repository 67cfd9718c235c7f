#pragma once
/* The last resort between Freeze and Thaw: while the worker is inside a provider's system call it cannot look at the clock, and when
 * that call waits for a disk (D state: it hears no signal either) nobody can end it. So a thread of its own looks: a writer that is still frozen
 * past its window is killed with its group; its hold (database session, lock) ends with it. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { FREEZE_GUARD_MAX = 1024 }; /* writers frozen at one time; a configuration has at most 1,000 */

/* From now until freeze_guard_forget, pid's group is killed at deadline_us (CLOCK_MONOTONIC microseconds).
 * Returns 0, or -1 when the table is full or no thread is to be had. */
int freeze_guard_watch(pid_t pid, int64_t deadline_us);
/* Thaw or Abort was sent to a guarded writer: it has at least until then to let go (CLOCK_MONOTONIC microseconds). */
void freeze_guard_extend(pid_t pid, int64_t at_least_us);
/* Thaw was answered, or the process is about to be reaped: it is not killed any more when this returns. */
void freeze_guard_forget(pid_t pid);
/* Did its deadline kill pid? Known until its place in the table kills another. */
bool freeze_guard_killed(pid_t pid);
