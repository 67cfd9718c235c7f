#pragma once
/* What of a backup a restore wants, and where each entry of it goes. */
#include "movers/mover.h"
#include "movers/payload/manifest.h"

/* Marks the wanted entries of the manifest: those of restore->paths, or those of restore->sets with the folders that
 * they lie in. A folder that is only there to hold files counts as `parent`: one that exists keeps its own metadata.
 * VSS_E_OBJECT_NOT_FOUND when the backup holds nothing of what was asked for. */
int choice_mark(struct manifest *manifest, const struct mover_restore *restore, struct err *err);
/* The entry's place below the target, "" for the target itself; NULL when it has none (a folder above what is
 * restored). Points into entry or restore. */
const char *choice_place(const struct mover_restore *restore, const struct manifest_entry *entry);
/* Does an unwanted entry lie within a set all the same? A mover that restores whole folders drops it afterwards. */
bool choice_left_out(const struct mover_restore *restore, const struct manifest_entry *entry);
/* Everything beneath the set's folder, as far as its spec says? */
bool choice_is_whole(const struct mover_file_set *set);
