/* The `covered` operation: which components keep files on the volumes of a set. Adding exactly these makes the set's snapshots
 * application-consistent without asking anybody who has nothing there. */
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/selection.h"
#include "worker/context.h"
#include "worker/volumes.h"

static bool outer_freeze(const struct provider_environment *env, const struct provider *provider, const struct volume *volume)
{
    struct provider_plan plan = {0};
    struct err ignored;
    return provider->plan(env, volume, &plan, &ignored) == 0 && (plan.freeze == FREEZE_WANTED || plan.freeze == FREEZE_LENT);
}

/* Does what lies at path belong to the named volume, or a part of what lies beneath it? */
static bool lies_on(const struct provider_environment *env, const char *path, bool recursive, const json_t *named)
{
    const char *at = json_str(named, "volume", "");
    struct volume own, its;
    const struct provider *provider = NULL, *same = NULL;
    struct err ignored;
    char real[PATH_MAX];
    if (recursive && path_beneath(at, path))
        return true;
    if (!realpath(path, real) || volumes_resolve(env, at, json_str(named, "provider", NULL), &own, &provider, &ignored) < 0 ||
        volumes_resolve(env, real, provider->name, &its, &same, &ignored) < 0 || !str_eq(own.superblock, its.superblock))
        return false;
    if (outer_freeze(env, provider, &own))
        return true;
    /* A provider of subvolumes names the one that holds the path; one of directories names the directory itself. */
    return str_eq(its.path, own.path) || (str_eq(its.path, real) && path_beneath(real, own.path) && str_eq(its.mount_point, own.mount_point));
}

static bool component_on(const struct provider_environment *env, const json_t *component, const json_t *volumes)
{
    size_t i, k;
    const json_t *set, *volume;
    json_array_foreach (json_object_get(component, "file_sets"), i, set)
        json_array_foreach (volumes, k, volume)
            if (lies_on(env, json_str(set, "alternate_path", json_str(set, "path", "")), json_bool(set, "recursive", true), volume))
                return true;
    return false;
}

static void add_once(json_t *list, const json_t *entry)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_array_get(list, i), entry))
            return;
    json_add(list, json_incref((json_t *)entry));
}

int operation_covered(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    struct provider_environment env = worker_environment(worker);
    json_t *covered = json_array();
    json_put(result, "components", covered);
    for (size_t i = 0; i < worker->writers.n; i++) {
        const json_t *metadata = worker->writers.entries[i].metadata;
        size_t k;
        const json_t *component;
        json_array_foreach (json_object_get(metadata, "components"), k, component) {
            if (wait_look(&worker->wait))
                return worker_stopped(worker, err);
            if (!component_on(&env, component, json_object_get(args, "volumes")))
                continue;
            const json_t *root = selection_root(metadata, component);
            AUTO_JSON json_t *entry = json_pack("{s:s, s:s, s:s}", "instance_id", json_str(metadata, "instance_id", ""), "logical_path",
                                                json_str(root, "logical_path", ""), "name", json_str(root, "name", ""));
            add_once(covered, entry);
        }
    }
    return 0;
}
