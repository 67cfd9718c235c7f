#pragma once
#include "base/err.h"

/* As root: keep only what writers' users, snapshots, bind mounts and restores need, in every set and the bounding set.
 */
int capabilities_reduce(struct err *err);
