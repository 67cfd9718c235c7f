/* Snapshots outside of the session that made them: removal by id, and orphans after a crash. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/volumes.h"

static int remove_one(struct worker *worker, const struct provider *provider, const json_t *doc, struct err *err)
{
    struct provider_environment env = worker_environment(worker);
    struct provider_snapshot snapshot = {.bytes = -1};
    const struct provider *ignored = NULL;
    const char *volume = json_str(doc, "volume", "");
    /* The volume may be gone (unmounted, removed): the provider then goes by the snapshot's own path. */
    volumes_resolve(&env, volume, provider->name, &snapshot.volume, &ignored, NULL);
    str_copy(snapshot.volume.path, sizeof(snapshot.volume.path), volume);
    str_copy(snapshot.id, sizeof(snapshot.id), json_str(doc, "id", ""));
    str_copy(snapshot.set_id, sizeof(snapshot.set_id), json_str(doc, "set_id", ""));
    str_copy(snapshot.session_id, sizeof(snapshot.session_id), json_str(doc, "session_id", ""));
    str_copy(snapshot.path, sizeof(snapshot.path), json_str(doc, "path", ""));
    return provider->remove(&env, &snapshot, err);
}

int operation_remove_snapshot(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    const json_t *doc = json_object_get(args, "snapshot");
    const struct provider *provider = provider_by_name(json_str(doc, "provider", ""));
    if (!provider)
        return err_set(err, VSS_E_PROVIDER_NOT_REGISTERED, NULL, "no provider \"%s\"", json_str(doc, "provider", ""));
    if (remove_one(worker, provider, doc, err) < 0)
        return -1;
    json_put(result, "removed", json_pack("[s]", json_str(doc, "id", "")));
    return 0;
}

static bool is_known(const json_t *known, const char *id)
{
    size_t i;
    const json_t *item;
    json_array_foreach (known, i, item)
        if (str_eq(json_string_value(item), id))
            return true;
    return false;
}

static void sweep(struct worker *worker, const struct provider *provider, const json_t *found, const json_t *known,
                  json_t *result)
{
    size_t i;
    const json_t *doc;
    json_array_foreach (found, i, doc) {
        const char *id = json_str(doc, "id", "");
        struct err err = {0};
        if (is_known(known, id))
            continue;
        if (remove_one(worker, provider, doc, &err) == 0)
            json_add(json_object_get(result, "removed"), json_string(id));
        else
            json_add(json_object_get(result, "failed"), json_pack("{s:s, s:s}", "object", id, "reason", err.text));
    }
}

int operation_recover(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    struct provider_environment env = worker_environment(worker);
    AUTO_FREE struct volume *volumes = NULL;
    size_t n = 0;
    if (volumes_mounted(&volumes, &n, err) < 0)
        return -1;
    json_put(result, "removed", json_array());
    json_put(result, "failed", json_array());
    for (size_t i = 0; providers_all[i]; i++) {
        struct provider_availability found = {0};
        AUTO_JSON json_t *list = NULL;
        struct err trouble = {0};
        providers_all[i]->probe(&env, &found);
        if (!found.available)
            continue;
        if (wait_look(&worker->wait))
            return worker_stopped(worker, err);
        if (providers_all[i]->list(&env, volumes, n, &list, &trouble) == 0)
            sweep(worker, providers_all[i], list, json_object_get(args, "known"), result);
        else
            json_add(json_object_get(result, "failed"),
                     json_pack("{s:s, s:s}", "object", providers_all[i]->name, "reason", trouble.text));
    }
    return 0;
}
