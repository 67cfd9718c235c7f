#pragma once
/* Role agent: launches workers keeps a lease on each, and is the second holder of every freeze. No network, no OpenSSL, no policy. */

/* Runs until the control channel (fd 3) or core's channel closes and every worker has ended (those that do not undo in
 * time are killed). Returns the exit status: 0, or 1 when a channel broke instead of closing. */
int agent_main(void);
/* As a unit of its own it is nobody's who has thawed before it started: it does so itself, before it reports for duty. */
void agent_before_joining(void);
/* The same with another program in place of `quiesced-agent --role=worker` and `--role=guardian` (NULL-ended, argv[0] its path). */
int agent_run(const char *const *worker_argv, const char *const *guardian_argv);
