#pragma once
/* Which files a mover can bring back in one run: those of one file system that keep their places, or those that one
 * folder's new place takes. */
#include <jansson.h>

#include "base/err.h"

/* items: [{"component","path","spec","recursive","to","rename","overwrite"}], as engine/restore/restore_jobs.c makes them; roots: restore.roots.
 * Groups: [{"target","strip","sets","excepts","rename","overwrite","components":[ids]}], new reference. NULL with
 * E_ACCESSDENIED when a file would leave the roots. */
json_t *restore_groups(const json_t *items, const json_t *roots, struct err *err);
