#pragma once
/* This process's mount table, and what is nested in a path. */
#include <libmount.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define AUTO_MOUNTS __attribute__((cleanup(mounts_cleanup)))
#define MOUNTS_EACH(table, fs) for (struct libmnt_fs *fs = mounts_next(table, NULL); fs; fs = mounts_next(table, fs))

/* /proc/self/mountinfo; NULL with err. */
struct libmnt_table *mounts_read(struct err *err);
void mounts_cleanup(struct libmnt_table **table);
/* The entry after fs (NULL: the first), or NULL. */
struct libmnt_fs *mounts_next(struct libmnt_table *table, struct libmnt_fs *fs);
struct libmnt_fs *mounts_by_id(struct libmnt_table *table, uint64_t mount_id);
/* A file system with data of its own: no view of the kernel, no tmpfs, no exposed snapshot. */
bool mounts_is_real(struct libmnt_fs *fs);
/* Not hidden beneath another mount. */
bool mounts_is_visible(struct libmnt_fs *fs);
