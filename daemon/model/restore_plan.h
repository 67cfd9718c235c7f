#pragma once
/* Which files a restore brings back, and where to: from the stored document and what requester and writers said since. Pure. */
#include <jansson.h>

#include "base/err.h"

/* One item per file set of every given component, implicit members included, or of its subcomponents alone; of a component whose writer
 * directs the files, one per file: [{"component": id, "path","spec","recursive","to","rename","overwrite","mapping"}], where `to` is the folder
 * that takes what lay in `path`, and `mapping` the alternate location that was used, or null. New reference.
 * The writer's word (restore_target) goes before the requester's new targets, and these before the restore method of the backup.
 * NULL with VSS_E_UNEXPECTED_WRITER_ERROR where a writer wants an alternate location, or directs files, and has named none. */
json_t *restore_plan(const json_t *document, const json_t *components, struct err *err);
/* The same before PreRestore, whose answer may still change it: by the requester's new targets and the restore method alone. A file set
 * without its alternate location counts as one that stays where it was. New reference. */
json_t *restore_plan_unspoken(const json_t *document, const json_t *components);
/* The file sets that are restored with the component, implicit members included, or of its subcomponents alone: [{"path","spec",
 * "recursive"}]. New reference. */
json_t *restore_plan_sets(const json_t *document, const json_t *component);
/* The same, as if the backup had been of this type. */
json_t *restore_plan_sets_as(const json_t *document, const json_t *component, const char *type);
/* Every item's `to` lies beneath one of the roots, or E_ACCESSDENIED. */
int restore_plan_confined(const json_t *items, const json_t *roots, struct err *err);
