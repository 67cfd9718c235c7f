#pragma once
/* The worker role: one session's (or one session-less job's) phases in sequential code. fd 3 = core, fd 4 = agent's
 * lease. Returns the exit status: 0 after `release` or after an orderly undo. */
int worker_main(void);
