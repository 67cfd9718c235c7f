#pragma once
/* What dead agents left frozen. Before anything that may write: our own state directory could lie on it. Told in the log; waits at most 15 s,
 * since a file system on a dead disk may never thaw. */
void thaw_orphans(void);
