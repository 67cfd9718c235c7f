#pragma once
/* Where snapshots are kept: `.quiesced` (mode 0700, ours) at the top of the mount where the volume lies, or in the
 * staging directory, which itself lets writers' users pass through. Both hold, per snapshot, the tree ID and its
 * ownership mark ID.json (providers/mark.h). */
#include <limits.h>
#include <stdbool.h>

#include "base/err.h"
#include "providers/provider.h"
#include "providers/tree_walk.h"

#define PLACE_NAME ".quiesced"

struct place {
    int fd; /* -1: does not exist (only without create) */
    char path[PATH_MAX];
    struct tree_identity identity;
};
#define AUTO_PLACE __attribute__((cleanup(place_close)))
void place_close(struct place *place);

/* Open a path of this host without following any symbolic link. Returns a descriptor, or -1 with errno. */
int place_open_path(const char *path, int flags);

/* Path of the place on the volume's own file system. Without root it may be the staging directory, when that lies on
 * the same file system. -1: none, with the reason. */
int place_locate(const struct provider_environment *env, const struct volume *volume, char ret[PATH_MAX],
                 char reason[256]);

/* The staging directory, symbolic links in its path resolved; false when none is configured. */
bool place_staging_top(const struct provider_environment *env, char ret[PATH_MAX]);
/* The place in it. */
bool place_staging(const struct provider_environment *env, char ret[PATH_MAX]);

/* Open a place; create makes it, and its parent when that is missing. It must be a directory of ours that nobody else
 * can write: VSS_E_PROVIDER_VETO otherwise. */
int place_open(const char *path, bool create, struct place *ret, struct err *err);

/* Fills skip (room for 3) with every place that a walk of this volume must leave out. Returns how many. */
size_t place_skips(const struct provider_environment *env, const struct volume *volume, struct tree_identity ret[3]);

/* path itself when it is a directory, else its parent. */
void place_directory_of(const char *path, char ret[PATH_MAX]);
