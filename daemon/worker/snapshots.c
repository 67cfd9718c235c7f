#include "worker/snapshots.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/session_model.h"
#include "worker/context.h"
#include "worker/volumes.h"

void snapshots_clear(struct snapshot_set *set)
{
    free(set->items);
    free(set->providers);
    free(set->held);
    *set = (struct snapshot_set){0};
}

/* Keeps each provider's snapshots together: create gets a contiguous group. */
static void insert(struct snapshot_set *set, const struct provider_snapshot *item, const struct provider *provider)
{
    size_t at = set->n;
    for (size_t i = 0; i < set->n; i++)
        if (set->providers[i] == provider)
            at = i + 1;
    memmove(set->items + at + 1, set->items + at, (set->n - at) * sizeof(*set->items));
    memmove(set->providers + at + 1, set->providers + at, (set->n - at) * sizeof(*set->providers));
    set->items[at] = *item;
    set->providers[at] = provider;
    set->n++;
}

static int add_volume(struct worker *worker, const json_t *named, struct err *err)
{
    struct provider_snapshot item = {.bytes = -1};
    const struct provider *provider = NULL;
    struct provider_environment env = worker_environment(worker);
    const char *path = json_str(named, "volume", "");
    if (volumes_resolve(&env, path, json_str(named, "provider", NULL), &item.volume, &provider, err) < 0)
        return err_prefix(err, "volume %s", path);
    str_copy(item.volume.requested, sizeof(item.volume.requested), json_str(named, "requested", path));
    char id[UUID_SIZE];
    str_copy(item.id, sizeof(item.id), json_str(named, "snapshot_id", uuid_v7(id)));
    str_copy(item.set_id, sizeof(item.set_id), worker->set.id);
    str_copy(item.session_id, sizeof(item.session_id), worker->session);
    struct provider_plan plan = {0};
    if (provider->plan(&env, &item.volume, &plan, err) < 0)
        return err_prefix(err, "volume %s", path);
    item.atomic = plan.atomic;
    item.bytes = plan.bytes;
    insert(&worker->set, &item, provider);
    return 0;
}

int snapshots_open(struct worker *worker, const json_t *args, struct err *err)
{
    struct snapshot_set *set = &worker->set;
    const json_t *volumes = json_object_get(args, "volumes");
    size_t i, n = json_array_size(volumes);
    const json_t *named;
    snapshots_clear(set);
    set->items = mem_new((n + 1) * sizeof(*set->items));
    set->providers = mem_new((n + 1) * sizeof(*set->providers));
    set->held = mem_new((n + 1) * sizeof(*set->held));
    str_copy(set->id, sizeof(set->id), json_str(args, "snapshot_set_id", ""));
    const struct session_context *context = session_context_by_name(json_str(args, "context", "backup"));
    set->auto_release = !context || context->auto_release;
    json_array_foreach (volumes, i, named)
        if (add_volume(worker, named, err) < 0)
            return -1;
    return 0;
}

/* The end of the run of equal providers that begins at i. */
static size_t group_end(const struct snapshot_set *set, size_t i)
{
    size_t end = i + 1;
    while (end < set->n && set->providers[end] == set->providers[i])
        end++;
    return end;
}

int snapshots_prepare(struct worker *worker, struct err *err)
{
    struct snapshot_set *set = &worker->set;
    struct provider_environment env = worker_environment(worker);
    for (size_t i = 0, end; i < set->n; i = end) {
        end = group_end(set, i);
        if (wait_look(&worker->wait))
            return worker_stopped(worker, err);
        if (set->providers[i]->prepare && set->providers[i]->prepare(&env, set->items + i, end - i, err) < 0)
            return err_prefix(err, "provider %s", set->providers[i]->name);
    }
    return 0;
}

int snapshots_create(struct worker *worker, struct err *err)
{
    struct snapshot_set *set = &worker->set;
    struct provider_environment env = worker_environment(worker);
    for (size_t i = 0, end; i < set->n; i = end) {
        end = group_end(set, i);
        if (wait_look(&worker->wait))
            return worker_stopped(worker, err);
        if (set->providers[i]->create(&env, set->items + i, end - i, err) < 0)
            return wait_stopped(&worker->wait) ? worker_stopped(worker, err)
                                               : err_prefix(err, "provider %s", set->providers[i]->name);
        for (size_t k = i; k < end; k++)
            set->held[k] = true;
    }
    set->created = true;
    return 0;
}

json_t *snapshots_for_writers(const struct snapshot_set *set)
{
    json_t *volumes = json_array();
    for (size_t i = 0; i < set->n; i++)
        json_add(volumes, json_pack("{s:s, s:s, s:b}", "volume", set->items[i].volume.path, "provider",
                                    set->providers[i]->name, "atomic", set->items[i].atomic));
    return volumes;
}

json_t *snapshots_result(const struct snapshot_set *set)
{
    json_t *snapshots = json_array();
    for (size_t i = 0; i < set->n; i++) {
        const struct provider_snapshot *item = &set->items[i];
        json_add(snapshots,
                 json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:s}", "id", item->id, "set_id", item->set_id, "volume",
                           item->volume.path, "provider", set->providers[i]->name, "path", item->path, "atomic",
                           item->atomic, "bytes", (json_int_t)item->bytes, "requested", item->volume.requested));
    }
    return snapshots;
}

const struct provider_snapshot *snapshots_cover(const struct snapshot_set *set, const char *path,
                                                char ret_source[PATH_MAX])
{
    const struct provider_snapshot *best = NULL;
    for (size_t i = 0; i < set->n; i++) {
        const struct provider_snapshot *item = &set->items[i];
        if (path_beneath(path, item->volume.path) && (!best || strlen(item->volume.path) > strlen(best->volume.path)))
            best = item;
    }
    if (!best)
        return NULL;
    const char *root = str_eq(best->volume.path, "/") ? "" : best->volume.path;
    return str_format(ret_source, PATH_MAX, "%s%s", best->path, path + strlen(root)) ? best : NULL;
}

/* An undo is not left half way. */
static bool never(void *arg)
{
    (void)arg;
    return false;
}

void snapshots_remove(struct worker *worker, json_t *cleanup)
{
    struct snapshot_set *set = &worker->set;
    struct provider_environment env = worker_environment(worker);
    env.cancelled = never;
    for (size_t i = set->n; i-- > 0;) {
        struct err err = {0};
        if (!set->held[i])
            continue;
        set->held[i] = false;
        if (set->providers[i]->remove(&env, &set->items[i], &err) == 0)
            json_add(json_object_get(cleanup, "removed"), json_string(set->items[i].id));
        else
            json_add(json_object_get(cleanup, "failed"),
                     json_pack("{s:s, s:s}", "object", set->items[i].id, "reason", err.text));
    }
    set->created = false;
}
