#pragma once
/* Files that are either the old ones or whole: written beside, fsynced, renamed, directory fsynced. */
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* Replaces path with these bytes. The mode is set before any byte is written. */
int atomic_file_write(const char *path, mode_t mode, const void *data, size_t size, struct err *err);
/* Reads a whole small file (at most 1 MiB). Returns 0 and a malloc'ed, NUL-terminated text (ret_size may be NULL);
 * 1 when the file does not exist; -1 otherwise. */
int atomic_file_read(const char *path, char **ret_text, size_t *ret_size, struct err *err);
