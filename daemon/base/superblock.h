#pragma once
/* What a freeze freezes has one name in all our processes. */
#include <stdbool.h>

enum { SUPERBLOCK_NAME_SIZE = 64 };

/* The superblock on which the open file lies: "major:minor" of its device; for btrfs, which shows a device number of
 * its own for every subvolume, the file system's UUID. false (and "") when the kernel does not say. fd: no O_PATH. */
bool superblock_name(int fd, char ret[SUPERBLOCK_NAME_SIZE]);
