#pragma once
/* The role core: HTTP, API, engine and store in one unprivileged process. */

/* Runs until serve closes the control channel on fd 3 (docs/architecture.md). Returns the exit status. */
int core_main(void);
