#include "model/restore_rules.h"

#include "base/jsonspec.h"
#include "base/str.h"
#include "model/selection.h"

const json_t *restore_writer(const json_t *document, const json_t *component)
{
    return selection_writer(json_object_get(document, "writers"), json_str(component, "instance_id", ""));
}

const json_t *restore_described(const json_t *document, const json_t *component)
{
    return selection_component(restore_writer(document, component), json_str(component, "logical_path", ""), json_str(component, "name", ""));
}

bool restore_schema(const json_t *document, const json_t *component, const char *schema)
{
    return selection_schema(restore_writer(document, component), schema);
}

int restore_may_select(const json_t *document, const json_t *running, const json_t *component, const char *instance_id, struct err *err)
{
    const char *wanted = instance_id ? instance_id : json_str(component, "instance_id", "");
    const json_t *writer = selection_writer(running, wanted);
    if (!writer)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /sessions/{id}/writers lists who is there; another instance takes \"instance_id\".",
                       "component %s: its writer %s is not running", json_str(component, "name", ""), json_str(component, "writer", wanted));
    if (!instance_id || str_eq(instance_id, json_str(component, "instance_id", "")))
        return 0;
    if (!str_eq(json_str(writer, "class_id", ""), json_str(component, "class_id", "")))
        return err_invalid(err, "/instance_id", "writer %s is of another class than %s", json_str(writer, "name", ""),
                           json_str(component, "writer", ""));
    if (!restore_schema(document, component, "restore_with_move"))
        return err_invalid(err, "/instance_id", "writer %s does not restore with a move (restore_with_move of its backup_schema)",
                           json_str(component, "writer", ""));
    return 0;
}

/* Does another explicit component lie between the two? */
static const json_t *nearer(const json_t *document, const json_t *components, const json_t *component, const json_t *sub)
{
    const json_t *root = restore_described(document, component);
    size_t i;
    const json_t *other;
    json_array_foreach(components, i, other)
    {
        const json_t *described = restore_described(document, other);
        if (described != root && str_eq(json_str(other, "instance_id", ""), json_str(component, "instance_id", "")) &&
            selection_covers(root, described) && selection_covers(described, sub))
            return other;
    }
    return NULL;
}

int restore_may_add_subcomponent(const json_t *document, const json_t *components, const json_t *component, const json_t *sub,
                                 struct err *err)
{
    const char *name = json_str(sub, "name", "");
    const json_t *root = restore_described(document, component);
    const json_t *known = selection_component(restore_writer(document, component), json_str(sub, "logical_path", ""), name);
    if (!known || !selection_covers(root, known))
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /sessions/{id}/document has the writer's components as they were backed up.",
                       "component %s was backed up with no %s beneath it", json_str(component, "name", ""), name);
    if (known == root)
        return err_invalid(err, "/name", "%s is the component itself: select that", name);
    const json_t *other = nearer(document, components, component, known);
    if (other)
        return err_invalid(err, "/name", "%s lies beneath %s, which was backed up explicitly: name it there", name,
                           json_str(other, "name", ""));
    if (!json_bool(known, "selectable_for_restore", false))
        return err_invalid(err, "/name", "component %s is not selectable for restore: it comes with %s", name, json_str(component, "name", ""));
    return 0;
}

bool restore_same_set(const json_t *a, const json_t *b)
{
    return str_eq(json_str(a, "path", ""), json_str(b, "path", "")) && str_eq(json_str(a, "spec", "*"), json_str(b, "spec", "*")) &&
           json_bool(a, "recursive", true) == json_bool(b, "recursive", true);
}

bool restore_has_file_set(const json_t *document, const json_t *component, const json_t *set)
{
    const json_t *root = restore_described(document, component);
    size_t i, k;
    const json_t *known, *have;
    json_array_foreach(json_object_get(restore_writer(document, component), "components"), i, known)
    {
        if (!selection_covers(root, known))
            continue;
        json_array_foreach(json_object_get(known, "file_sets"), k, have)
        {
            if (restore_same_set(have, set))
                return true;
        }
    }
    return false;
}

const char *restore_lives_at(const json_t *document, const json_t *component, const char *path)
{
    const json_t *root = restore_described(document, component);
    size_t i, k;
    const json_t *known, *set;
    json_array_foreach(json_object_get(restore_writer(document, component), "components"), i, known)
    {
        if (!root || !selection_covers(root, known))
            continue;
        json_array_foreach(json_object_get(known, "file_sets"), k, set)
        {
            const char *place = json_str(set, "path", "");
            if (path_beneath(place, path) || (json_bool(set, "recursive", true) && path_beneath(path, place)))
                return place;
        }
    }
    return NULL;
}
