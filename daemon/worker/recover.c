/* What a crash left: orphans, staging directories, exposures that have to come back or to go. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/mover_client.h"
#include "worker/staging.h"
#include "worker/stored.h"
#include "worker/volumes.h"

static bool is_known(const json_t *known, const char *id)
{
    size_t i;
    const json_t *item;
    json_array_foreach (known, i, item)
        if (str_eq(json_string_value(item), id))
            return true;
    return false;
}

/* Only one session's when args name it (its worker died): those of others are in use. */
static bool is_wanted(const json_t *args, const json_t *doc)
{
    const char *session = json_str(args, "session", NULL);
    if (session && !str_eq(json_str(doc, "session_id", ""), session))
        return false;
    return !is_known(json_object_get(args, "known"), json_str(doc, "id", ""));
}

static void sweep(struct worker *worker, const struct provider *provider, const json_t *found, const json_t *args,
                  json_t *result)
{
    size_t i;
    const json_t *doc;
    json_array_foreach (found, i, doc) {
        const char *id = json_str(doc, "id", "");
        struct err err = {0};
        if (!is_wanted(args, doc))
            continue;
        if (stored_remove(worker, provider, doc, &err) == 0)
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
    staging_sweep(worker, json_object_get(result, "removed"), json_object_get(result, "failed"));
    stored_restore_exposures(worker, json_object_get(args, "exposures"), result);
    for (size_t i = 0; providers_all[i]; i++) {
        struct provider_availability found = {0};
        AUTO_JSON json_t *list = NULL;
        struct err trouble = {0};
        providers_all[i]->probe(&env, &found);
        if (!found.available)
            continue;
        if (wait_look(&worker->wait))
            return worker_stopped(worker, err);
        bool fails = worker_fault(worker, "provider.list") && worker_fault_error(providers_all[i]->name, &trouble);
        if (!fails && providers_all[i]->list(&env, volumes, n, &list, &trouble) == 0)
            sweep(worker, providers_all[i], list, args, result);
        else
            json_add(json_object_get(result, "failed"),
                     json_pack("{s:s, s:s}", "object", providers_all[i]->name, "reason", trouble.text));
    }
    return 0;
}

int operation_sweep(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    size_t i;
    json_t *repository;
    json_put(result, "failed", json_array());
    json_array_foreach (json_object_get(args, "repositories"), i, repository) {
        AUTO_JSON json_t *request = json_pack("{s:s, s:s, s:O}", "verb", "sweep", "mover",
                                              json_str(repository, "mover", ""), "repository", repository);
        AUTO_JSON json_t *nothing = NULL;
        struct err trouble = {0};
        if (wait_look(&worker->wait))
            return worker_stopped(worker, err);
        if (mover_client_run(worker, request, "sweep", &nothing, &trouble) < 0)
            json_add(json_object_get(result, "failed"), json_pack("{s:s, s:s}", "object", json_str(repository, "name", ""),
                                                                  "reason", trouble.text));
    }
    return 0;
}
