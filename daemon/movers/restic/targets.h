#pragma once
/* What restic is told to read: the items' roots, so that runs of one backup look alike, and what lies below them but
 * was left out by the scan as literal patterns. */
#include "movers/payload/roots.h"
#include "movers/payload/scan.h"
#include "movers/restic/restic_private.h"

struct targets {
    int list_fd;               /* for --files-from-raw: NUL-separated paths */
    int exclude_fd;            /* for --exclude-file */
    struct path_list patterns; /* for --exclude: names that the file's syntax cannot hold */
    char roots[ROOTS_SIZE];    /* the same for every run over the same items on the same host */
};
int targets_make(struct targets *ret, const struct scan *scan, const char *host, struct err *err);
void targets_clear(struct targets *targets);
