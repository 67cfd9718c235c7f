#pragma once
/* Presents snapshots at their original paths to this process and its children alone (mount_namespaces(7)): a path that
 * changes from run to run makes incremental movers read everything again (restic#4092). */
#include <jansson.h>
#include <stddef.h>

#include "movers/mover.h"

/* What the items' sources are read through, once mounts have hidden their paths. */
struct mount_view {
    char **sources; /* "/proc/self/fd/N/NAME": of this process alone */
    size_t n;
    int *folders; /* O_PATH */
    size_t n_folders;
    char *folder; /* the path of the last one */
};

/* binds: array of {"source","target"}, mounted read-only. After that every item whose source is not what lies at its
 * path (a file that a writer added, an alternate path) is put there too: over what is there, or, where nothing is,
 * in a tmpfs that shows the folder's own entries beside it. Without root in a user namespace with the caller's ids.
 * The items' sources are set to where they can be read then; ret owns them: clear it, also after a failure, when the
 * items are done with. Does nothing when there is nothing to present. VSS_E_OBJECT_NOT_FOUND for a source that is not
 * there. */
int mount_view_make(struct mount_view *ret, const json_t *binds, struct mover_item *items, size_t n_items, struct err *err);
void mount_view_clear(struct mount_view *view);
