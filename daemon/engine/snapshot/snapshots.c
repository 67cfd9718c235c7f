/* Snapshots as records: what a set that was taken leaves, what the API shows of it, Query and GetSnapshotProperties. */
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

enum { VOLUME_SNAPSHOTS_MAX = 512 }; /* vss-model 5.3; limits.snapshots_per_volume */

/* --- rows --- */

/* _VSS_VOLUME_SNAPSHOT_ATTRIBUTES: what the context means, what the requester added, how the provider stores it. */
static json_t *attributes_of(const json_t *session_doc, const json_t *snapshot)
{
    const struct session_context *context = session_context_by_name(json_str(session_doc, "context", "backup"));
    const json_t *asked = json_object_get(session_doc, "attributes");
    const char *storage = json_str(snapshot, "storage", "");
    const struct {
        const char *name;
        bool set;
    } all[] = {
        {"persistent", context && context->persistent},
        {"no_autorecovery", json_has_string(asked, "no_autorecovery")},
        {"client_accessible", context && context->client_accessible},
        {"no_auto_release", context && !context->auto_release},
        {"no_writers", context && !context->writers},
        {"not_transacted", json_has_string(asked, "not_transacted")},
        {"differential", str_eq(storage, "differential")},
        {"plex", str_eq(storage, "plex")},
    };
    json_t *names = json_array();
    for (size_t i = 0; i < ELEMENTS(all); i++)
        if (all[i].set)
            json_add(names, json_string(all[i].name));
    return names;
}

void snapshot_batch_row(struct store_batch *batch, json_t *doc)
{
    const struct store_record record = {.id = json_str(doc, "id", ""), .session_id = json_str(doc, "session_id", NULL),
                                        .job_id = json_str(doc, "set_id", NULL), .owner = json_str(doc, "owner", NULL),
                                        .state = json_str(doc, "context", NULL), .operation = json_str(doc, "volume", NULL),
                                        .created_ms = json_int(session_private(doc), "created_ms", 0), .doc = doc};
    store_batch_put(batch, STORE_SNAPSHOT, &record);
}

void snapshots_batch_put(struct engine *engine, struct store_batch *batch, const json_t *session_doc, json_t *snapshots)
{
    size_t i;
    json_t *snapshot;
    char now[CLOCK_RFC3339_SIZE];
    int64_t at = clock_real_ms();
    clock_rfc3339(at, now);
    json_array_foreach(snapshots, i, snapshot)
    {
        AUTO_JSON json_t *doc = json_pack(
            "{s:s, s:s?, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:s, s:n, s:I, s:b, s:s?, s:s, s:{s:I}}", "id", json_str(snapshot, "id", ""),
            "set_id", json_str(session_doc, "snapshot_set_id", NULL), "set_count", (json_int_t)json_array_size(snapshots), "session_id",
            json_str(session_doc, "id", ""), "node", engine->node, "volume", json_str(snapshot, "volume", ""), "provider",
            json_str(snapshot, "provider", ""), "path", json_str(snapshot, "path", ""), "context", json_str(session_doc, "context", "backup"),
            "attributes", attributes_of(session_doc, snapshot), "state", SNAPSHOT_CREATED, "created_at", now, "exposed_path", "bytes",
            (json_int_t)json_int(snapshot, "bytes", -1), "atomic", json_bool(snapshot, "atomic", false), "outside_id",
            json_str(snapshot, "outside_id", NULL), "owner", json_str(session_doc, "owner", ""), "_", "created_ms", (json_int_t)at);
        snapshot_batch_row(batch, doc);
        event_snapshot(batch, "snapshot.created", doc);
    }
}

/* A snapshot that could not be removed is named itself; its provider, or all, when it could not be looked for. */
static bool left_behind(const json_t *volume, const json_t *failed)
{
    size_t i;
    const json_t *one;
    json_array_foreach(failed, i, one)
    {
        const char *object = json_str(one, "object", "");
        if (str_eq(object, json_str(volume, "snapshot_id", "")) || str_eq(object, json_str(volume, "provider", "")) ||
            str_eq(object, LEFT_ALL))
            return true;
    }
    return false;
}

void snapshots_batch_remove(struct store_batch *batch, const json_t *session_doc, const json_t *failed)
{
    const struct session_context *context = session_context_by_name(json_str(session_doc, "context", "backup"));
    if (context && context->persistent && session_state(session_doc) != SESSION_SET_OPEN && session_state(session_doc) != SESSION_PREPARED)
        return; /* persistent ones live until they are deleted */
    size_t i;
    json_t *volume;
    json_array_foreach(json_object_get(session_private(session_doc), "volumes"), i, volume)
    {
        if (left_behind(volume, failed))
            continue;
        AUTO_JSON json_t *gone = json_pack("{s:s, s:s?, s:s?, s:s?}", "id", json_str(volume, "snapshot_id", ""), "session_id",
                                           json_str(session_doc, "id", NULL), "owner", json_str(session_doc, "owner", NULL), "volume",
                                           json_str(volume, "volume", NULL));
        snapshot_batch_delete(batch, gone);
    }
}

int snapshots_room(struct engine *engine, const char *volume, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    int64_t most = json_int(json_object_get(engine->config, "limits"), "snapshots_per_volume", VOLUME_SNAPSHOTS_MAX);
    const struct store_query query = {.kind = STORE_SNAPSHOT, .operation = volume, .limit = (int)most};
    if (store_list(engine->store, &query, &rows, NULL, err) == STORE_ERROR)
        return -1;
    if ((int64_t)json_array_size(rows) < most)
        return 0;
    return err_set(err, VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED,
                   "Delete one (GET /snapshots?volume= lists them), or raise limits.snapshots_per_volume.", "volume %s has %zu snapshots already",
                   volume, json_array_size(rows));
}

int snapshots_fit(struct engine *engine, const json_t *volumes, struct err *err)
{
    size_t i;
    const json_t *volume;
    if (json_array_size(volumes) > VOLUMES_PER_SET)
        return err_set(err, VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED, NULL, "a snapshot set holds at most %d volumes", VOLUMES_PER_SET);
    json_array_foreach(volumes, i, volume)
        if (snapshots_room(engine, json_str(volume, "path", ""), err))
            return -1;
    return 0;
}

/* --- Query --- */

json_t *snapshot_view(struct engine *engine, json_t *doc)
{
    (void)engine;
    json_t *view = json_copy(doc);
    json_object_del(view, "_");
    if (json_str(doc, "exposed_path", NULL)) {
        json_t *attributes = json_copy(json_object_get(doc, "attributes"));
        json_add(attributes, json_string("exposed_locally"));
        json_put(view, "attributes", attributes);
    }
    char self[64], set[64];
    str_format(self, sizeof self, "/snapshots/%s", json_str(doc, "id", ""));
    str_format(set, sizeof set, "/snapshot-sets/%s", json_str(doc, "set_id", ""));
    json_put(view, "_links", json_pack("{s:{s:s}, s:{s:s}}", "self", "href", self, "set", "href", set));
    return view;
}

void engine_snapshot_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_SNAPSHOT, .session_id = json_str(request->query, "session", NULL),
                                .job_id = json_str(request->query, "set", NULL), .operation = json_str(request->query, "volume", NULL),
                                .state = json_str(request->query, "context", NULL)};
    if (str_eq(query.state, "all"))
        query.state = NULL; /* VSS_CTX_ALL */
    list_answer(engine, request, answer, arg, &query, snapshot_view);
}

static void no_such_snapshot(const char *what, const char *id, struct err *err)
{
    err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /snapshots lists what there is.", "%s %s: no such %s", what, id, what);
}

json_t *snapshot_read(struct engine *engine, const struct engine_request *request, struct err *err)
{
    json_t *doc = NULL;
    enum store_result result = store_get(engine->store, STORE_SNAPSHOT, request->id, &doc, NULL, err);
    if (result == STORE_OK && principal_sees_backup(request->principal, json_str(doc, "owner", "")))
        return doc;
    json_decref(doc);
    if (result != STORE_ERROR)
        no_such_snapshot("snapshot", request->id, err);
    return NULL;
}

void engine_snapshot_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    AUTO_JSON json_t *doc = snapshot_read(engine, request, &err);
    if (doc)
        answer_body(answer, arg, 200, snapshot_view(engine, doc));
    else
        answer_error(answer, arg, &err);
}

json_t *snapshot_set_read(struct engine *engine, const struct engine_request *request, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    const struct store_query query = {.kind = STORE_SNAPSHOT, .job_id = request->id, .limit = VOLUMES_PER_SET, .oldest_first = true};
    if (store_list(engine->store, &query, &rows, NULL, err) == STORE_ERROR)
        return NULL;
    if (json_array_size(rows) > 0 && principal_sees_backup(request->principal, json_str(json_array_get(rows, 0), "owner", "")))
        return TAKE_PTR(rows);
    no_such_snapshot("snapshot set", request->id, err);
    return NULL;
}

void engine_snapshot_set_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    AUTO_JSON json_t *rows = snapshot_set_read(engine, request, &err);
    if (!rows) {
        answer_error(answer, arg, &err);
        return;
    }
    json_t *snapshots = json_array(), *row, *first = json_array_get(rows, 0);
    size_t i;
    json_array_foreach(rows, i, row) json_add(snapshots, snapshot_view(engine, row));
    answer_body(answer, arg, 200,
                json_pack("{s:s, s:s, s:s, s:I, s:s, s:o}", "id", request->id, "session_id", json_str(first, "session_id", ""), "context",
                          json_str(first, "context", ""), "count", (json_int_t)json_int(first, "set_count", (json_int_t)json_array_size(rows)),
                          "created_at", json_str(first, "created_at", ""), "snapshots", snapshots));
}
