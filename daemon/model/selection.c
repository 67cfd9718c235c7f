#include "model/selection.h"

#include <stdio.h>
#include <string.h>

#include "base/jsonspec.h"
#include "base/str.h"

const json_t *selection_writer(const json_t *writers, const char *instance_id)
{
    size_t i;
    json_t *writer;
    json_array_foreach(writers, i, writer)
    {
        if (str_eq(json_str(writer, "instance_id", ""), instance_id))
            return writer;
    }
    return NULL;
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

/* "path\name", the prefix under which a component's descendants lie. '/' and '\' both separate. */
static void full_path(const json_t *component, char *ret, size_t size)
{
    const char *path = json_str(component, "logical_path", "");
    str_format(ret, size, "%s%s%s", path, *path ? "\\" : "", json_str(component, "name", ""));
    for (char *c = ret; *c; c++) {
        if (*c == '/')
            *c = '\\';
    }
}

bool selection_covers(const json_t *explicit_component, const json_t *component)
{
    char root[2048], member[2048];
    full_path(explicit_component, root, sizeof root);
    full_path(component, member, sizeof member);
    size_t n = strlen(root);
    return strncmp(root, member, n) == 0 && (member[n] == '\0' || member[n] == '\\');
}

static const json_t *selectable_ancestor(const json_t *writer, const json_t *component)
{
    size_t i;
    json_t *other;
    json_array_foreach(json_object_get(writer, "components"), i, other)
    {
        if (other != component && json_bool(other, "selectable", false) && selection_covers(other, component))
            return other;
    }
    return NULL;
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
