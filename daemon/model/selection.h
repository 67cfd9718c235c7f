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
/* Does an explicit component bring this one with it (same component, or a descendant in its set)? */
bool selection_covers(const json_t *explicit_component, const json_t *component);
