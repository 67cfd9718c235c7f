#pragma once
/* Role mover: one request on standard input, progress and the outcome as JSON lines on standard output
 * (docs/architecture.md, "worker -> mover child"). The end of standard input cancels. */
int mover_main(void);

/* What the verb "archive" finds open: the snapshot's tree, and the pipe that it writes the tar into. */
enum { MOVER_TREE_FD = 3, MOVER_OUTPUT_FD = 4 };
