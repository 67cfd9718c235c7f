/* What is there: writers, providers, movers, volumes; and what a path or a choice would mean. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/mover.h"
#include "worker/context.h"
#include "worker/plan.h"
#include "worker/volumes.h"

static json_t *writer_item(const struct writer_entry *entry, const json_t *missing)
{
    size_t i;
    const json_t *item, *error = NULL;
    json_array_foreach (missing, i, item)
        if (str_eq(json_str(item, "instance_id", ""), entry->instance_id))
            error = json_object_get(item, "error");
    json_t *components = json_object_get(entry->metadata, "components");
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:o}", "instance_id", entry->instance_id, "class_id",
                     entry->class_id, "name", entry->name, "type", json_str(entry->configuration, "type", "exec"),
                     "available", entry->metadata != NULL, "reason", error ? json_str(error, "detail", "") : "",
                     "components", components ? json_incref(components) : json_array());
}

static int add_writers(struct worker *worker, json_t *result, struct err *err)
{
    bool borrowed = worker->undo.held[HOLD_WRITERS]; /* a session's own writers must not be disturbed */
    if (!borrowed && writers_gather(worker, NULL, err) < 0)
        return -1;
    json_t *list = json_array();
    for (size_t i = 0; i < worker->writers.n; i++)
        json_add(list, writer_item(&worker->writers.entries[i], worker->writers.missing));
    json_put(result, "writers", list);
    if (borrowed)
        return 0;
    AUTO_JSON json_t *cleanup = undo_cleanup_new();
    undo_drop(&worker->undo, HOLD_WRITERS); /* identify only: nobody is owed a BackupShutdown */
    writers_close(worker);
    undo_release(worker, HOLD_STAGING, cleanup);
    return 0;
}

static json_t *plug_in(const char *name, const char *title, bool available, const char *reason)
{
    return json_pack("{s:s, s:s, s:b, s:s}", "name", name, "title", title, "available", available, "reason", reason);
}

int operation_inventory(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    (void)args;
    if (add_writers(worker, result, err) < 0)
        return -1;
    struct provider_environment env = worker_environment(worker);
    json_t *providers = json_array(), *movers = json_array();
    json_put(result, "providers", providers);
    json_put(result, "movers", movers);
    for (size_t i = 0; providers_all[i]; i++) {
        struct provider_availability found = {0};
        providers_all[i]->probe(&env, &found);
        json_add(providers, plug_in(providers_all[i]->name, providers_all[i]->title, found.available, found.reason));
    }
    for (size_t i = 0; movers_all[i]; i++) {
        char reason[256] = "";
        movers_all[i]->probe(reason);
        json_add(movers, plug_in(movers_all[i]->name, movers_all[i]->title, reason[0] == '\0', reason));
    }
    json_t *volumes = NULL;
    if (volumes_list(&env, &volumes, err) < 0)
        return -1;
    json_put(result, "volumes", volumes);
    return 0;
}

int operation_resolve(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    struct provider_environment env = worker_environment(worker);
    struct volume volume;
    const struct provider *provider = NULL;
    struct provider_plan plan = {0};
    json_t *nested = NULL;
    env.storage = json_str(args, "storage", NULL);
    if (volumes_resolve(&env, json_str(args, "path", ""), json_str(args, "provider", NULL), &volume, &provider, err) <
            0 ||
        provider->plan(&env, &volume, &plan, err) < 0 ||
        plan_check_addition(worker, args, provider->name, err) < 0 || volumes_nested(volume.path, &nested, err) < 0)
        return -1;
    json_put(result, "volume", json_string(volume.path));
    json_put(result, "provider", json_string(provider->name));
    json_put(result, "atomic", json_boolean(plan.atomic));
    json_put(result, "outside", json_boolean(provider->outside));
    json_put(result, "superblock", json_string(volume.superblock));
    json_put(result, "fs_type", json_string(volume.fs_type));
    json_put(result, "mount_point", json_string(volume.mount_point));
    json_put(result, "nested", nested);
    return 0;
}
