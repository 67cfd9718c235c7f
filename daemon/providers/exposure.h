#pragma once
/* ExposeSnapshot: a snapshot's tree, attached read-only at a directory of this mount namespace. */
#include <stdbool.h>

#include "base/err.h"

/* Attaches the directory tree_fd at the directory target_fd (neither may have been opened with O_PATH): read-only, no device
 * files, no set-id programs. name is the tree's, for the error. */
int exposure_attach(int tree_fd, int target_fd, const char *name, struct err *err);
/* Is something mounted at the directory fd? */
bool exposure_is_mount(int fd);
/* Is the uppermost mount at the directory fd this tree? */
bool exposure_is(int fd, int tree_fd);
/* Detaches the uppermost mount at the directory fd: gone from every path at once; what is open in it can be read to its end. */
int exposure_detach(int fd, const char *path, struct err *err);
