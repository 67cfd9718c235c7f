#pragma once
/* What a writer may ask of the volumes that a request names: "volumes", [{"volume","provider","atomic"}]. */
#include <jansson.h>
#include <stdbool.h>

/* The innermost volume that holds path (a volume nested in another is not in the outer one's snapshot), or NULL.
 * Borrowed. */
const json_t *volumes_of_path(const json_t *volumes, const char *path);
/* Do all these directories (strings, canonical) lie in one volume that is snapshotted atomically, with no other file
 * system or subvolume nested between or within `depth` levels below them? When in doubt: false. */
bool volumes_one_atomic(const json_t *volumes, const json_t *directories, int depth);
