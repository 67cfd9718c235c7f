#include "model/restore_plan.h"

#include <fnmatch.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/restore_rules.h"
#include "model/selection.h"

/* Is this member of the writer's metadata restored with the component? */
static bool chosen(const json_t *described, const json_t *component, const json_t *known)
{
    const json_t *subs = json_object_get(component, "subcomponents"), *sub;
    size_t i;
    json_array_foreach(subs, i, sub)
    {
        if (selection_within(sub, known))
            return true;
    }
    return json_array_size(subs) == 0 && selection_covers(described, known);
}

static const json_t *matching(const json_t *sets, const json_t *set)
{
    size_t i;
    const json_t *have;
    json_array_foreach(sets, i, have)
    {
        if (restore_same_set(have, set))
            return have;
    }
    return NULL;
}

struct planning {
    const json_t *component, *described, *writer;
    json_t *items;
    bool unspoken; /* PreRestore is yet to come: what a writer said before is not its word any more */
};

static void add_item(const struct planning *planning, const json_t *set, const char *to, const json_t *mapping)
{
    bool in_place = str_eq(to, json_str(set, "path", ""));
    bool keeps = in_place && str_eq(json_str(planning->writer, "restore_method", ""), "restore_if_not_there");
    json_add(planning->items, json_pack("{s:s, s:s, s:s, s:b, s:s, s:n, s:b, s:O?}", "component", json_str(planning->component, "id", ""),
                                        "path", json_str(set, "path", ""), "spec", json_str(set, "spec", "*"), "recursive",
                                        json_bool(set, "recursive", true), "to", to, "rename", "overwrite", !keeps, "mapping",
                                        (json_t *)mapping));
}

static int place_set(const struct planning *planning, const json_t *set, struct err *err)
{
    const char *target = planning->unspoken ? "original" : json_str(planning->component, "restore_target", "original");
    const json_t *given = str_eq(target, "original") ? matching(json_object_get(planning->component, "new_targets"), set) : NULL;
    bool elsewhere = str_eq(target, "alternate") ||
                     (str_eq(target, "original") && str_eq(json_str(planning->writer, "restore_method", ""), "restore_to_alternate_location"));
    if (given) {
        add_item(planning, set, json_str(given, "new_path", ""), NULL);
        return 0;
    }
    if (!elsewhere) {
        add_item(planning, set, json_str(set, "path", ""), NULL);
        return 0;
    }
    const json_t *mapping = matching(json_object_get(planning->writer, "alternate_locations"), set);
    if (!mapping && planning->unspoken) {
        add_item(planning, set, json_str(set, "path", ""), NULL);
        return 0;
    }
    if (!mapping)
        return err_set(err, VSS_E_UNEXPECTED_WRITER_ERROR, "Give the file set a new target, or restore the files by hand.",
                       "writer %s wants %s at an alternate location, and its metadata names none", json_str(planning->writer, "name", ""),
                       json_str(set, "path", ""));
    add_item(planning, set, json_str(mapping, "alternate_path", ""), mapping);
    return 0;
}

/* A file's name as a glob that matches nothing else. */
static char *literal(const char *name)
{
    char *glob = mem_new(2 * strlen(name) + 1), *to = glob;
    for (; *name; name++) {
        if (strchr("*?[]\\", *name))
            *to++ = '\\';
        *to++ = *name;
    }
    return glob;
}

static char *folder_of(const char *path, const char **ret_name)
{
    char *folder = str_dup(path);
    char *slash = strrchr(folder, '/');
    *ret_name = strrchr(path, '/') + 1;
    slash[slash == folder] = '\0';
    return folder;
}

static void direct(const struct planning *planning, const json_t *directed)
{
    const char *old, *name;
    AUTO_FREE char *from = folder_of(json_str(directed, "path", "/"), &old);
    AUTO_FREE char *to = folder_of(json_str(directed, "new_path", "/"), &name);
    AUTO_FREE char *spec = literal(old);
    json_add(planning->items, json_pack("{s:s, s:s, s:s, s:b, s:s, s:s?, s:b, s:n}", "component", json_str(planning->component, "id", ""),
                                        "path", from, "spec", spec, "recursive", 0, "to", to, "rename",
                                        str_eq(old, name) ? NULL : name, "overwrite", 1, "mapping"));
}

/* The set of the component that the file lies beneath. */
static const json_t *set_above(const struct planning *planning, const char *path)
{
    size_t i;
    const json_t *set;
    json_array_foreach(json_object_get(planning->described, "file_sets"), i, set)
    {
        if (path_beneath(path, json_str(set, "path", "")))
            return set;
    }
    return NULL;
}

/* A file that the writer added: it goes where its file set goes, whether or not that one names it. */
static int place_added(const struct planning *planning, const char *path, struct err *err)
{
    const json_t *set = set_above(planning, path);
    const char *name;
    if (!set)
        return 0;
    AUTO_JSON json_t *items = json_array();
    const struct planning its_set = {planning->component, planning->described, planning->writer, items, planning->unspoken};
    if (place_set(&its_set, set, err))
        return -1;
    json_t *item = json_array_get(items, 0);
    const char *top = json_str(set, "path", ""), *to = json_str(item, "to", "");
    AUTO_FREE char *folder = folder_of(path, &name);
    AUTO_FREE char *spec = literal(name);
    AUTO_FREE char *there = str_eq(to, top) ? str_dup(folder) : str_new("%s%s", str_eq(to, "/") ? "" : to, folder + strlen(top));
    json_put(item, "path", json_string(folder));
    json_put(item, "spec", json_string(spec));
    json_put(item, "recursive", json_false());
    json_put(item, "to", json_string(there));
    json_add(planning->items, json_incref(item));
    return 0;
}

/* Is it brought by one of the items that the file sets gave? */
static bool brought(const json_t *items, size_t from, const char *path)
{
    for (size_t i = from; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        const char *folder = json_str(item, "path", ""), *name = strrchr(path, '/') + 1;
        size_t above = (size_t)(name - path) - 1, length = str_eq(folder, "/") ? 0 : strlen(folder);
        if (path_beneath(path, folder) && fnmatch(json_str(item, "spec", "*"), name, 0) == 0 &&
            (json_bool(item, "recursive", true) || above == length))
            return true;
    }
    return false;
}

static int plan_added(const struct planning *planning, size_t from, struct err *err)
{
    size_t i;
    const json_t *path;
    if (json_array_size(json_object_get(planning->component, "subcomponents")))
        return 0; /* they belong to the component itself */
    json_array_foreach(json_object_get(planning->component, "added_files"), i, path)
    {
        if (!brought(planning->items, from, json_string_value(path)) && place_added(planning, json_string_value(path), err))
            return -1;
    }
    return 0;
}

json_t *restore_plan_sets(const json_t *document, const json_t *component)
{
    return restore_plan_sets_as(document, component, json_str(json_object_get(document, "backup_state"), "type", "full"));
}

json_t *restore_plan_sets_as(const json_t *document, const json_t *component, const char *type)
{
    const json_t *described = restore_described(document, component), *writer = restore_writer(document, component), *known, *set;
    json_t *sets = json_array();
    size_t i, k;
    json_array_foreach(json_object_get(writer, "components"), i, known)
    {
        if (!described || !chosen(described, component, known))
            continue;
        json_array_foreach(json_object_get(known, "file_sets"), k, set)
        {
            if (selection_takes(writer, set, type))
                json_add(sets, json_pack("{s:s, s:s, s:b}", "path", json_str(set, "path", ""), "spec", json_str(set, "spec", "*"), "recursive",
                                         json_bool(set, "recursive", true)));
        }
    }
    return sets;
}

/* A component that has files and directs none of them would pass for restored without a single one. */
static int plan_directed(const struct planning *planning, const json_t *sets, struct err *err)
{
    const json_t *targets = json_object_get(planning->component, "directed_targets"), *target;
    size_t i;
    if (json_array_size(targets) == 0 && json_array_size(sets))
        return err_set(err, VSS_E_UNEXPECTED_WRITER_ERROR, "Restore the files by hand.", "writer %s directs the files of %s, and named none of them",
                       json_str(planning->writer, "name", ""), json_str(planning->component, "name", ""));
    json_array_foreach(targets, i, target) direct(planning, target);
    return 0;
}

static int plan_component(const json_t *document, const struct planning *planning, struct err *err)
{
    AUTO_JSON json_t *sets = restore_plan_sets(document, planning->component);
    size_t i, from = json_array_size(planning->items);
    const json_t *set;
    if (!planning->unspoken && str_eq(json_str(planning->component, "restore_target", ""), "directed"))
        return plan_directed(planning, sets, err);
    json_array_foreach(sets, i, set)
    {
        if (place_set(planning, set, err))
            return -1;
    }
    return plan_added(planning, from, err);
}

static json_t *plan_all(const json_t *document, const json_t *components, bool unspoken, struct err *err)
{
    AUTO_JSON json_t *items = json_array();
    size_t i;
    const json_t *component;
    json_array_foreach(components, i, component)
    {
        const struct planning planning = {component, restore_described(document, component), restore_writer(document, component), items, unspoken};
        if (plan_component(document, &planning, err))
            return NULL;
    }
    return TAKE_PTR(items);
}

json_t *restore_plan(const json_t *document, const json_t *components, struct err *err)
{
    return plan_all(document, components, false, err);
}

json_t *restore_plan_unspoken(const json_t *document, const json_t *components)
{
    return plan_all(document, components, true, NULL);
}

int restore_plan_confined(const json_t *items, const json_t *roots, struct err *err)
{
    size_t i, k;
    const json_t *item, *root;
    json_array_foreach(items, i, item)
    {
        const char *to = json_str(item, "to", "");
        bool beneath = false;
        json_array_foreach(roots, k, root) beneath = beneath || (path_is_canonical(to) && path_beneath(to, json_string_value(root)));
        if (!beneath)
            return err_set(err, E_ACCESSDENIED, "Set restore.roots in the configuration: it names where restores may go.",
                           "%s is not beneath a restore root", to);
    }
    return 0;
}
