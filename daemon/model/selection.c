#include "model/selection.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

const json_t *selection_writer(const json_t *writers, const char *instance_id)
{
    return json_find(writers, "instance_id", instance_id);
}

const json_t *selection_component(const json_t *writer, const char *logical_path, const char *name)
{
    size_t i;
    json_t *component;
    json_array_foreach(json_object_get(writer, "components"), i, component)
    {
        if (str_eq(json_str(component, "logical_path", ""), logical_path ? logical_path : "") &&
            str_eq(json_str(component, "name", ""), name))
            return component;
    }
    return NULL;
}

/* "path\name", the prefix under which a component's descendants lie. '/' and '\' both separate. Caller frees. */
static char *full_path(const json_t *component)
{
    const char *path = json_str(component, "logical_path", "");
    char *full = str_new("%s%s%s", path, *path ? "\\" : "", json_str(component, "name", ""));
    for (char *c = full; *c; c++) {
        if (*c == '/')
            *c = '\\';
    }
    return full;
}

static bool is_beneath(const json_t *root, const json_t *component)
{
    AUTO_FREE char *above = full_path(root);
    AUTO_FREE char *below = full_path(component);
    size_t n = strlen(above);
    return strncmp(above, below, n) == 0 && below[n] == '\\';
}

static bool same_component(const json_t *a, const json_t *b)
{
    return str_eq(json_str(a, "logical_path", ""), json_str(b, "logical_path", "")) &&
           str_eq(json_str(a, "name", ""), json_str(b, "name", ""));
}

bool selection_covers(const json_t *explicit_component, const json_t *component)
{
    return same_component(explicit_component, component) ||
           (json_bool(explicit_component, "selectable", false) && is_beneath(explicit_component, component));
}

bool selection_within(const json_t *root, const json_t *component)
{
    return same_component(root, component) || is_beneath(root, component);
}

static const json_t *selectable_ancestor(const json_t *writer, const json_t *component)
{
    size_t i;
    json_t *other;
    json_array_foreach(json_object_get(writer, "components"), i, other)
    {
        if (other != component && json_bool(other, "selectable", false) && is_beneath(other, component))
            return other;
    }
    return NULL;
}

const json_t *selection_root(const json_t *writer, const json_t *component)
{
    const json_t *root = component, *above;
    while ((above = selectable_ancestor(writer, root)) != NULL)
        root = above;
    return root;
}

bool selection_required(const json_t *writer, const json_t *component)
{
    return !json_bool(component, "selectable", false) && !selectable_ancestor(writer, component);
}

int selection_may_add(const json_t *writer, const json_t *component, struct err *err)
{
    if (json_bool(component, "selectable", false))
        return 0;
    const json_t *ancestor = selectable_ancestor(writer, component);
    if (!ancestor)
        return 0;
    err_invalid(err, "/name", "component %s is not selectable by itself: it comes with %s",
                json_str(component, "name", ""), json_str(ancestor, "name", ""));
    return -1;
}

/* The chosen component of this writer that meets `test` with component, as the writer offers it; or NULL. */
static const json_t *chosen_that(const json_t *writer, const json_t *chosen, const json_t *component,
                                 bool (*test)(const json_t *chosen, const json_t *component))
{
    size_t i;
    json_t *item;
    json_array_foreach(chosen, i, item)
    {
        if (!str_eq(json_str(item, "instance_id", ""), json_str(writer, "instance_id", "")))
            continue;
        const json_t *known = selection_component(writer, json_str(item, "logical_path", ""), json_str(item, "name", ""));
        if (known && test(known, component))
            return known;
    }
    return NULL;
}

bool selection_included(const json_t *writer, const json_t *chosen, const json_t *component)
{
    return chosen_that(writer, chosen, component, selection_covers) != NULL;
}

/* Does `component` define a set of which the chosen one is a member? */
static bool is_member(const json_t *chosen, const json_t *component)
{
    return json_bool(component, "selectable", false) && is_beneath(component, chosen);
}

int selection_fits(const json_t *writer, const json_t *chosen, const json_t *component, struct err *err)
{
    const char *name = json_str(component, "name", "");
    const json_t *other = chosen_that(writer, chosen, component, same_component);
    if (other)
        return err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "component %s was added before", name);
    other = chosen_that(writer, chosen, component, selection_covers);
    if (other)
        err_invalid(err, "/name", "component %s comes with %s, which was added before", name, json_str(other, "name", ""));
    if (!other && (other = chosen_that(writer, chosen, component, is_member)) != NULL)
        err_invalid(err, "/name", "component %s brings %s with it, which was added before", name, json_str(other, "name", ""));
    return other ? -1 : 0;
}

/* --- what must come along --- */

static bool takes_part(const json_t *writer, const json_t *chosen)
{
    size_t i;
    json_t *item;
    json_array_foreach(chosen, i, item)
    {
        if (str_eq(json_str(item, "instance_id", ""), json_str(writer, "instance_id", "")))
            return true;
    }
    return false;
}

bool selection_is_remote(const json_t *dependency)
{
    const char *path = json_str(dependency, "logical_path", "");
    return strlen(path) > 2 && (path[0] == '\\' || path[0] == '/') && path[1] == path[0];
}

/* Whether an instance of the class has it in the backup; else where it could be had, if anywhere. */
static bool dependency_met(const json_t *writers, const json_t *chosen, const json_t *dependency,
                           struct selection_missing *ret)
{
    size_t i;
    json_t *writer;
    json_array_foreach(writers, i, writer)
    {
        const json_t *component =
            str_eq(json_str(writer, "class_id", ""), json_str(dependency, "class_id", ""))
                ? selection_component(writer, json_str(dependency, "logical_path", ""), json_str(dependency, "name", ""))
                : NULL;
        if (!component)
            continue;
        if (selection_included(writer, chosen, component))
            return true;
        if (!ret->component) {
            ret->writer = writer;
            ret->component = selection_root(writer, component);
        }
    }
    return false;
}

static bool dependencies_met(const json_t *writers, const json_t *chosen, const json_t *writer, const json_t *component,
                             struct selection_missing *ret)
{
    size_t i;
    json_t *dependency;
    json_array_foreach(json_object_get(component, "dependencies"), i, dependency)
    {
        *ret = (struct selection_missing){.of_writer = writer, .of_component = component, .dependency = dependency};
        if (!selection_is_remote(dependency) && !dependency_met(writers, chosen, dependency, ret))
            return false;
    }
    return true;
}

bool selection_whole(const json_t *writers, const json_t *chosen, struct selection_missing *ret)
{
    size_t i, k;
    json_t *writer, *component;
    json_array_foreach(writers, i, writer)
    {
        if (!takes_part(writer, chosen))
            continue;
        json_array_foreach(json_object_get(writer, "components"), k, component)
        {
            bool included = selection_included(writer, chosen, component);
            if (!included && selection_required(writer, component)) {
                *ret = (struct selection_missing){.writer = writer, .component = component};
                return false;
            }
            if (included && !dependencies_met(writers, chosen, writer, component, ret))
                return false;
        }
    }
    return true;
}

int selection_tell_missing(const struct selection_missing *missing, struct err *err)
{
    const char *name = json_str(missing->component, "name", ""), *writer = json_str(missing->writer, "name", "");
    if (!missing->dependency)
        return err_set(err, VSS_E_BAD_STATE, "Add it with POST /sessions/{id}/components.",
                       "writer %s: component %s is required with anything of this writer", writer, name);
    if (!missing->component)
        return err_set(err, VSS_E_BAD_STATE, "Leave the component out, or configure the writer that it depends on.",
                       "component %s of writer %s depends on %s of writer class %s, which is not here",
                       json_str(missing->of_component, "name", ""), json_str(missing->of_writer, "name", ""),
                       json_str(missing->dependency, "name", ""), json_str(missing->dependency, "class_id", ""));
    return err_set(err, VSS_E_BAD_STATE, "Add it with POST /sessions/{id}/components.",
                   "component %s of writer %s depends on component %s of writer %s, which is not in the backup",
                   json_str(missing->of_component, "name", ""), json_str(missing->of_writer, "name", ""), name, writer);
}

/* --- backup types --- */

bool selection_schema(const json_t *writer, const char *word)
{
    return json_has_string(json_object_get(writer, "backup_schema"), word);
}

const char *selection_type(const json_t *writer, const char *type)
{
    static const char *const in_schema[] = {"incremental", "differential", "log"};
    for (size_t i = 0; i < ELEMENTS(in_schema); i++)
        if (str_eq(type, in_schema[i]))
            return selection_schema(writer, type) ? in_schema[i] : "full";
    return str_eq(type, "copy") ? "copy" : str_eq(type, "other") ? "other" : "full";
}

static bool in_mask(const json_t *mask, const char *type)
{
    /* A copy takes what a full backup takes (vss-model 4.10); the default mask names every type (4.6). */
    bool as_full = str_eq(type, "copy") || str_eq(type, "other");
    return !json_is_array(mask) || json_has_string(mask, type) || (as_full && json_has_string(mask, "full"));
}

bool selection_takes(const json_t *writer, const json_t *file_set, const char *type)
{
    return in_mask(json_object_get(file_set, "backup_types"), selection_type(writer, type));
}

bool selection_needs_snapshot(const json_t *writer, const json_t *file_set, const char *type)
{
    return selection_takes(writer, file_set, type) &&
           in_mask(json_object_get(file_set, "snapshot_types"), selection_type(writer, type));
}

bool selection_any_snapshot(const json_t *writers, const json_t *chosen, const char *type)
{
    size_t i, k, m;
    json_t *writer, *component, *set;
    json_array_foreach(writers, i, writer)
    json_array_foreach(json_object_get(writer, "components"), k, component)
    json_array_foreach(json_object_get(component, "file_sets"), m, set)
    {
        if (selection_needs_snapshot(writer, set, type) && selection_included(writer, chosen, component))
            return true;
    }
    return false;
}
