#pragma once
/* RevertToSnapshot of a subvolume: a writable copy of the snapshot and the subvolume change places in one step of the file system.
 * Beside the snapshot lie, meanwhile, ID.revert (first the copy, then the old subvolume) and, to stay, ID.revert.json (which job
 * made which copy), by which a kill at any moment is told from a revert that has happened. */
#include "providers/keeper.h"

int btrfs_revert(const struct keeper *keeper, const struct provider_environment *env, const struct provider_snapshot *snapshot,
                 struct provider_revert *revert, struct err *err);
int btrfs_reverted(const struct keeper *keeper, const struct provider_environment *env, const struct provider_snapshot *snapshot,
                   const char *job, struct err *err);
/* What a revert left beside a snapshot that is removed now. */
int btrfs_revert_clear(const struct place *place, const char *id, struct err *err);
