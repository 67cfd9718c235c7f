#pragma once
/* What reflink and copy do with a whole volume; they differ only in how a file's data is carried. */
#include "providers/place.h"
#include "providers/tree.h"

/* Copies the volume into place/ID; fills snapshot->bytes. */
int tree_copy_volume(const struct provider_environment *env, int volume_fd, const struct place *place,
                     struct provider_snapshot *snapshot, bool clone, struct err *err);
/* Counts what tree_copy_volume would carry. ret->nested: new reference or NULL. */
int tree_measure_volume(const struct provider_environment *env, const struct volume *volume, struct tree_stats *ret,
                        struct err *err);
int tree_unmake(const struct place *place, const char *id, struct err *err);
