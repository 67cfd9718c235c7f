#pragma once
/* Old data on its way out of a restore's way. Every file of some file sets is renamed, never copied, into a directory of
 * its own on the same file system, and renamed back when the restore comes to nothing. The sets' own directories stay where
 * they are: their owner, mode, mount and subvolume do not change. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct aside;

/* What a set's directory holds under such a name is not data: neither taken nor put back. Static, for exclude lists. */
extern const char aside_pattern[]; /* ".quiesced-*": when the place is within the directory itself */

struct aside *aside_new(void);
void aside_free(struct aside *aside); /* NULL is fine; leaves every file where it is */
/* Empties file_sets ([{"path","spec"}]; a directory that is not there counts as empty). Places are beside the directory
 * (DIR.before-restore-TIME), or within it (.quiesced-before-restore-TIME) when its parent may not be written or is another
 * file system. What an undo needs is made first: it must not fail for want of space. On failure everything is back in its
 * place, or the error says where it lies and aside_is_back is false. */
int aside_take(struct aside *aside, const json_t *file_sets, struct err *err);
/* Is all old data in its place again (after a failed aside_take, or aside_put_back)? */
bool aside_is_back(const struct aside *aside);
/* What lies in the sets' directories now goes to DIR.failed-restore-TIME (or .quiesced-failed-restore-TIME) and the old
 * data back to its place. On failure whatever could not be moved stays, and the error says where. May be called again: it
 * goes on where it failed, also after an aside_take that failed, and never puts old data away. */
int aside_put_back(struct aside *aside, struct err *err);
/* Removes the old data (after aside_take) or what was restored in vain (after aside_put_back), until give_up_ms
 * (CLOCK_MONOTONIC). False when something is left: aside_where still names it. */
bool aside_remove(struct aside *aside, int64_t give_up_ms);
/* What an earlier aside_take of directory left that was neither put back nor removed, ", " between them. Caller frees. */
char *aside_left(const char *directory);
/* The directories that hold what was taken or put away, ", " between them; "" when there is none. Caller frees. */
char *aside_where(const struct aside *aside);
