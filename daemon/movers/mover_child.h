#pragma once
/* Role mover: one request on standard input, progress and the outcome as JSON lines on standard output
 * (docs/architecture.md, "worker -> mover child"). The end of standard input cancels. */
int mover_main(void);
