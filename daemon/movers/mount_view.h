#pragma once
/* Presents snapshots at their original paths to this process and its children alone (mount_namespaces(7)): a path that
 * changes from run to run makes incremental movers read everything again (restic#4092). */
#include <jansson.h>
#include <stddef.h>

#include "movers/mover.h"

/* binds: array of {"source","target"}, mounted read-only. After that every item whose source is not what lies at its
 * path (a file that a writer added, an alternate path) is put there too: over what is there, or, where nothing is,
 * in a tmpfs that shows the folder's own entries beside it. Without root in a user namespace with the caller's ids.
 * Does nothing when there is nothing to present. */
int mount_view_make(const json_t *binds, const struct mover_item *items, size_t n_items, struct err *err);
/* Binds alone, for movers that read items where they are. */
int mount_view_bind(const json_t *binds, struct err *err);
