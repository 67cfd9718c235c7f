#pragma once
/* Role agent: launches workers and keeps a lease on each. No network, no OpenSSL, no policy. */

/* Runs until the control channel (fd 3) or core's channel closes and every worker has ended (those that do not undo in
 * time are killed). Returns the exit status: 0, or 1 when a channel broke instead of closing. */
int agent_main(void);
/* The same with another program in place of `quiesced --role=worker` (NULL-ended, argv[0] its path). */
int agent_run(const char *const *worker_argv);
