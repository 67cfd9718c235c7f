#pragma once
/* The ownership mark of a snapshot: ID.json beside it, on disk before the snapshot and removed after it, so that a
 * crash leaves no snapshot without mark. (A read-only snapshot can carry no attribute of its own.) */
#include <jansson.h>

#include "base/err.h"
#include "providers/place.h"
#include "providers/provider.h"

/* Writes and syncs the mark; an equal one that is there already stays. */
int mark_write(const struct place *place, const char *provider, const char *node,
               const struct provider_snapshot *snapshot, struct err *err);
/* Is there a mark of this node and provider for this id? 1 yes, 0 no mark at all, -1 someone else's or unreadable
 * (err). */
int mark_check(const struct place *place, const char *provider, const char *node, const char *id, struct err *err);
/* Removes marks of this node and provider that are older than max_age_s and have no tree: sets that were prepared and
 * never taken. (Create writes a missing mark again: nothing is lost.) Best effort. */
void mark_sweep(const struct place *place, const char *provider, const char *node, int64_t max_age_s);
/* Removes and syncs; gone already is success. */
int mark_remove(const struct place *place, const char *id, struct err *err);
/* Appends {"id","set_id","session_id","path","volume","present"} of every mark of this node and provider to items. */
int mark_list(const struct place *place, const char *provider, const char *node, json_t *items, struct err *err);
