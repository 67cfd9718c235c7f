#pragma once
/* What the file-wise providers do with trees: copy with full fidelity, measure, remove. */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "providers/tree_walk.h"

struct tree_stats {
    int64_t files; /* everything that is no directory */
    int64_t directories;
    int64_t bytes;  /* of regular files, as their sizes say */
    json_t *nested; /* escaped paths of mounts and subvolumes that were not entered; NULL = none. New reference. */
};

struct tree_job {
    bool (*cancelled)(void *arg);
    void *cancelled_arg;
    const struct tree_identity *skip; /* directories left out, e.g. the place where the copies are kept */
    size_t n_skip;
    const json_t *only; /* names at the top of the tree: nothing else is looked at; NULL = all of it */
};

/* Makes `name` in place_fd (must not exist) a copy of the tree of source_fd: owners, modes, times, extended attributes
 * (ACLs among them), hard links, symbolic links, holes, special files. clone: share the data by FICLONE, else copy it.
 * What is left of a failed call is removed by tree_remove. Without root, other users' ownership cannot be kept. */
int tree_copy(const struct tree_job *job, int source_fd, const char *source, int place_fd, const char *name, bool clone,
              struct tree_stats *ret, struct err *err);
/* Removes the tree (and what a broken tree_copy left beside it); never crosses a mount. Gone already is success. */
int tree_remove(int place_fd, const char *name, struct err *err);
int tree_measure(const struct tree_job *job, int source_fd, const char *source, struct tree_stats *ret,
                 struct err *err);
