#pragma once
/* Which components may, must and need not be named (vss-model 4.7). Works on the writers' metadata in the API's shape. Pure. */
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

/* The writer with this instance id, or NULL. Borrowed. */
const json_t *selection_writer(const json_t *writers, const char *instance_id);
/* The component of a writer, or NULL. Borrowed. logical_path NULL = "". */
const json_t *selection_component(const json_t *writer, const char *logical_path, const char *name);
/* May this component be added explicitly? Not when it is non-selectable beneath a selectable ancestor: it comes with that one. */
int selection_may_add(const json_t *writer, const json_t *component, struct err *err);
/* Must it be added as soon as anything of this writer is? (non-selectable, no selectable ancestor) */
bool selection_required(const json_t *writer, const json_t *component);
/* Does an explicit component bring this one with it: is it the same, or a descendant of a selectable one, which defines a set? */
bool selection_covers(const json_t *explicit_component, const json_t *component);
/* Is it the same, or does it lie beneath, whether root is selectable or not? (A restore's subcomponent brings its own set.) */
bool selection_within(const json_t *root, const json_t *component);
/* The topmost component whose set this one is a member of; itself when there is none. Borrowed. */
const json_t *selection_root(const json_t *writer, const json_t *component);

/* chosen: explicit components [{"instance_id","logical_path","name"}], of any writers. */

/* Is it in the backup, by itself or as a member of a set? */
bool selection_included(const json_t *writer, const json_t *chosen, const json_t *component);
/* May it be added beside those? VSS_E_OBJECT_ALREADY_EXISTS: it is one of them; E_INVALIDARG at /name: it belongs to the set
 * of one of them, or one of them to its own. */
int selection_fits(const json_t *writer, const json_t *chosen, const json_t *component, struct err *err);

/* What a selection lacks. */
struct selection_missing {
    const json_t *writer, *component;       /* what to add; component NULL: nobody here offers it */
    const json_t *of_writer, *of_component; /* who depends on it; NULL: it is required with anything of its writer */
    const json_t *dependency;
};
/* Are all required components there, and what any included one depends on? ret: the first that is missing, borrowed. A
 * dependency on another computer is not looked for: nobody here could say. */
bool selection_whole(const json_t *writers, const json_t *chosen, struct selection_missing *ret);
/* VSS_E_BAD_STATE. Returns -1. */
int selection_tell_missing(const struct selection_missing *missing, struct err *err);
/* Is it on another computer (logical path "\\\\computer\\...")? */
bool selection_is_remote(const json_t *dependency);

/* Does the writer's backup_schema name this? */
bool selection_schema(const json_t *writer, const char *word);
/* What a backup of this type is to this writer: one that its schema does not name is a full backup (vss-model 4.10), but a
 * copy stays a copy. Static. */
const char *selection_type(const json_t *writer, const char *type);
/* Do the file set's masks say that it is copied in a backup of this type, and from a snapshot? type: the session's. */
bool selection_takes(const json_t *writer, const json_t *file_set, const char *type);
bool selection_needs_snapshot(const json_t *writer, const json_t *file_set, const char *type);
/* Does any file set of any included component need one? */
bool selection_any_snapshot(const json_t *writers, const json_t *chosen, const char *type);
