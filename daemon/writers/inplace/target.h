#pragma once
/* A new target of a restore: somewhere that is nobody's living place. */
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

/* path with the symbolic links of whatever of it exists followed. Caller frees. */
char *target_resolved(const char *path);
/* Are new_targets ([{"new_path"}]) apart from places ([{"path"}]): none of them, none above or beneath one, also by way of
 * symbolic links? what: whose places, for the message. */
int target_check_apart(const json_t *new_targets, const json_t *places, const char *what, struct err *err);
/* flock of directory, or of the nearest one above it that exists: 0 and *ret_fd (the caller closes it, which ends the lock;
 * -1: the file system knows no locks); -1 when another session holds it. */
int target_lock(const char *directory, int *ret_fd, struct err *err);
