#pragma once
/* FIFREEZE and FITHAW, the only callers of both. A freeze has no owner and does not nest: whoever thaws, thaws for
 * everybody, so nothing here is called for a file system that is not marked as ours (guardian/record.h). */
#include <stddef.h>

enum thaw_result {
    THAW_DONE,
    THAW_NOT_FROZEN, /* EINVAL: somebody thawed it before us, the freeze did not hold to the end */
    THAW_FAILED,
};

/* Freezes; may block as long as dirty data is written. 0, or errno: EBUSY means that somebody else has frozen it. */
int freeze_begin(int fd);
/* Thaws; waits for a FIFREEZE of the same file system that still runs. */
enum thaw_result freeze_end(int fd);
/* Thaws all fds with one child each and waits for them: the order of stacked file systems then does not matter, as a
 * thaw that needs another one to come first only waits for it. fds of -1 are skipped (THAW_DONE). */
void freeze_end_all(const int *fds, size_t n, enum thaw_result *ret);
