#pragma once
/* What everybody does who thaws in the guardian's place: the agent's second holder, and thaw-all. */
#include "guardian/freeze.h"
#include "guardian/record.h"

/* Kills the guardian (a pidfd; -1: it is gone), thaws what the record marks as ours, waits until the guardian is really
 * gone (a FIFREEZE in hand ends first), thaws what that has still frozen, and marks it. fds: one per file system, -1 =
 * cannot be reached, its mark stays. ret: THAW_DONE when it was frozen; for a mark that is not ours THAW_NOT_FROZEN.
 * Removes the record when nothing of ours is left. */
void take_over(struct freeze_record *record, const int *fds, int guardian_pidfd, enum thaw_result *ret);
