#pragma once
/* The restore of one SQLite database. Its files come into a directory beside it (directed targets); there they are checked,
 * and then their content replaces that of the living database in one transaction of SQLite's own: the application goes on,
 * sees the old content or the new one, and file, owner and mode stay. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct sqlite_restore {
    char *directory; /* where the files come to; owned, NULL = no restore is under way */
    bool elsewhere;  /* the requester's new target: only looked at */
};

/* pre_restore; the same again gives the same answer. path: the database, in which no new target may lie. ret_answer: restore_target and directed_targets of the component are put there. */
int sqlite_restore_begin(struct sqlite_restore *restore, const char *path, const json_t *component, json_t *ret_answer,
                         struct err *err);
/* post_restore, until give_up_ms (CLOCK_MONOTONIC). On -1 the database is as it was, or err says where the old file lies.
 * Ends the restore. */
int sqlite_restore_end(struct sqlite_restore *restore, const char *path, const json_t *component, int64_t give_up_ms,
                       struct err *err);
/* Removes what has come and forgets it. The living database was not touched. */
void sqlite_restore_drop(struct sqlite_restore *restore);
