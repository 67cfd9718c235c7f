#pragma once
/* Who uses a file system, as fuser finds it. */
#include <stddef.h>
#include <sys/types.h>

/* Processes of this PID namespace, but for ourselves, whose working directory, root, program, mapped or open files lie on the
 * device `on` (st_dev; each btrfs subvolume has its own). Names the first few in ret: "1234 (postgres), 1240 (bash)". Returns how
 * many there are; those that may not be looked at are not counted. */
size_t open_files_find(dev_t on, char *ret, size_t size);
