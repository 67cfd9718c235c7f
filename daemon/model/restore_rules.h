#pragma once
/* What may be restored, and how (vss-model 1.7, 4.8). document: the Backup Components Document that was stored with the backup, whose
 * `writers` are the metadata documents of that time; components: those of the restore session. Pure. */
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

/* The stored metadata document of a component's writer, or NULL. Borrowed. */
const json_t *restore_writer(const json_t *document, const json_t *component);
/* The component as that document describes it, with its file sets; or NULL. Borrowed. */
const json_t *restore_described(const json_t *document, const json_t *component);
/* Does that writer's backup_schema name it? ("new_target", "restore_with_move", ...) */
bool restore_schema(const json_t *document, const json_t *component, const char *schema);
/* May SetSelectedForRestore(Ex) name this component? running: the writers that were gathered; instance_id: the one that it is redirected to,
 * or NULL. */
int restore_may_select(const json_t *document, const json_t *running, const json_t *component, const char *instance_id, struct err *err);
/* May AddRestoreSubcomponent name (logical_path, name) beneath component? It must have come along implicitly, be selectable for
 * restore, and have no nearer explicit ancestor among components. */
int restore_may_add_subcomponent(const json_t *document, const json_t *components, const json_t *component, const json_t *sub,
                                 struct err *err);
/* Is `set` ({"path","spec","recursive"}) exactly a file set of the component or of one that comes with it? */
bool restore_has_file_set(const json_t *document, const json_t *component, const json_t *set);
/* Same path, spec and recursion, with the defaults of the protocol. */
bool restore_same_set(const json_t *a, const json_t *b);
/* Would files that are put at path come among those of the component, as the document has it? The place of a file set that is path, lies
 * beneath it, or above it; NULL: none. Borrowed. */
const char *restore_lives_at(const json_t *document, const json_t *component, const char *path);
