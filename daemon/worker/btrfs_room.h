#pragma once
/* What statvfs does not tell of a btrfs: with all of its disk given out to data, and its metadata full, nothing can be written, snapshotted or
 * even deleted, however much of it is free. */

/* How much of what its metadata can have (what is given to it, and its share of what is given to nothing yet) is free, in percent; -1: it does not say. */
int btrfs_metadata_free_percent(const char *mount_point);
