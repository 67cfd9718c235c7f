/* The snapshot set: the node's creation slot, the set's volumes, the snapshots' rows. */
#include "engine/engine_private.h"

struct slot_waiter {
    struct slot_waiter *next;
    struct session *session;
    void (*granted)(void *arg);
    void *arg;
};

bool slot_take(struct session *session)
{
    struct engine *engine = session->engine;
    if (engine->slot && engine->slot != session)
        return false;
    engine->slot = session;
    return true;
}

void slot_wait(struct session *session, void (*granted)(void *arg), void *arg)
{
    if (slot_take(session)) {
        granted(arg);
        return;
    }
    struct slot_waiter *waiter = mem_new(sizeof *waiter), **at = &session->engine->slot_waiters;
    *waiter = (struct slot_waiter){.session = session, .granted = granted, .arg = arg};
    while (*at)
        at = &(*at)->next;
    *at = waiter;
}

void slot_wait_forget(struct session *session)
{
    for (struct slot_waiter **at = &session->engine->slot_waiters; *at;) {
        struct slot_waiter *waiter = *at;
        if (waiter->session != session) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        free(waiter);
    }
}

void slot_release(struct session *session)
{
    struct engine *engine = session->engine;
    if (engine->slot != session)
        return;
    engine->slot = NULL;
    struct slot_waiter *waiter = engine->slot_waiters;
    if (!waiter)
        return;
    engine->slot_waiters = waiter->next;
    engine->slot = waiter->session;
    waiter->granted(waiter->arg);
    free(waiter);
}

/* --- StartSnapshotSet --- */

static void set_started(struct task *task, const struct err *err)
{
    if (err) {
        slot_release(task->session);
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    session_lease_renew(task->session);
    task_answer(task, 201, json_incref(task->body));
}

static void run_start(struct task *task)
{
    struct err err;
    if (!session_allow(task, SESSION_OP_START_SNAPSHOT_SET, NULL))
        return;
    if (str_eq(json_str(task->session->doc, "context", ""), "all")) {
        err_set(&err, VSS_E_BAD_STATE, "This context is for administration only.", "StartSnapshotSet: not possible in context all");
        task_fail(task, &err);
        return;
    }
    if (!slot_take(task->session)) {
        err_set(&err, VSS_E_SNAPSHOT_SET_IN_PROGRESS, "Try again when that set is finished.", "session %s is creating a snapshot set",
                task->engine->slot->id);
        task->retry_after = 5;
        task_fail(task, &err);
        return;
    }
    char id[UUID_SIZE];
    uuid_v7(id);
    task->draft = session_draft(task->session);
    session_set_state(task->draft, SESSION_SET_OPEN);
    json_put(task->draft, "snapshot_set_id", json_string(id));
    task->body = json_pack("{s:s, s:s, s:[]}", "id", id, "session_id", task->session->id, "volumes");
    task->committed = set_started;
    task_commit(task, NULL);
}

void engine_snapshot_set_start(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_start);
}

/* --- AddToSnapshotSet --- */

enum { VOLUMES_PER_SET = 64 }; /* vss-model 5.3 */

static void volume_added(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    session_lease_renew(task->session);
    task_answer(task, 201, json_incref(task->body));
}

static void resolved(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    struct err err;
    if (reply->err) {
        task_fail(task, reply->err);
        return;
    }
    const char *volume = json_str(reply->result, "volume", "");
    task->draft = session_draft(task->session);
    json_t *volumes = session_draft_array(task->draft, "volumes");
    size_t i;
    json_t *have;
    json_array_foreach(volumes, i, have)
    {
        if (str_eq(json_str(have, "volume", ""), volume)) {
            err_set(&err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "volume %s is in the set already", volume);
            task_fail(task, &err);
            return;
        }
    }
    char id[UUID_SIZE];
    uuid_v7(id);
    const char *requested = json_str(task->request->body, "path", volume);
    json_add(volumes, json_pack("{s:s, s:s, s:s, s:s, s:b}", "snapshot_id", id, "volume", volume, "provider",
                                json_str(reply->result, "provider", ""), "requested", requested, "atomic", json_bool(reply->result, "atomic", false)));
    task->body = json_pack("{s:s, s:s, s:s}", "snapshot_id", id, "volume", volume, "provider", json_str(reply->result, "provider", ""));
    task->committed = volume_added;
    task_commit(task, NULL);
}

static void run_add(struct task *task)
{
    struct err err;
    const json_t *body = task->request->body;
    const char *path = json_str(body, "path", "");
    if (!path_is_canonical(path)) {
        err_invalid(&err, "/path", "must be an absolute path without '.', '..' or empty parts");
        task_fail(task, &err);
        return;
    }
    if (!session_allow(task, SESSION_OP_ADD_TO_SNAPSHOT_SET, NULL))
        return;
    if (json_array_size(json_object_get(session_private(task->session->doc), "volumes")) >= VOLUMES_PER_SET) {
        err_set(&err, VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED, NULL, "a snapshot set holds at most %d volumes", VOLUMES_PER_SET);
        task_fail(task, &err);
        return;
    }
    static const struct worker_handlers handlers = {.done = resolved};
    worker_link_run(session_worker(task->session), "resolve", json_pack("{s:s, s:s?}", "path", path, "provider", json_str(body, "provider", NULL)),
                    &handlers, task);
}

void engine_snapshot_set_add(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_add);
}

/* --- rows --- */

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
            "{s:s, s:s?, s:s, s:s, s:s, s:s, s:s, s:s, s:[], s:s, s:s, s:n, s:I, s:b, s:s}", "id", json_str(snapshot, "id", ""), "set_id",
            json_str(session_doc, "snapshot_set_id", NULL), "session_id", json_str(session_doc, "id", ""), "node", engine->node, "volume",
            json_str(snapshot, "volume", ""), "provider", json_str(snapshot, "provider", ""), "path", json_str(snapshot, "path", ""), "context",
            json_str(session_doc, "context", "backup"), "attributes", "state", "created", "created_at", now, "exposed_path", "bytes",
            (json_int_t)json_int(snapshot, "bytes", -1), "atomic", json_bool(snapshot, "atomic", false), "owner", json_str(session_doc, "owner", ""));
        const struct store_record record = {.id = json_str(snapshot, "id", ""), .session_id = json_str(session_doc, "id", ""),
                                            .owner = json_str(session_doc, "owner", NULL), .state = "created", .created_ms = at, .doc = doc};
        store_batch_put(batch, STORE_SNAPSHOT, &record);
    }
}

void snapshots_batch_remove(struct engine *engine, struct store_batch *batch, const json_t *session_doc)
{
    (void)engine;
    const struct session_context *context = session_context_by_name(json_str(session_doc, "context", "backup"));
    if (context && context->persistent && session_state(session_doc) != SESSION_SET_OPEN && session_state(session_doc) != SESSION_PREPARED)
        return; /* persistent ones live until they are deleted */
    size_t i;
    json_t *volume;
    json_array_foreach(json_object_get(session_private(session_doc), "volumes"), i, volume)
        store_batch_delete(batch, STORE_SNAPSHOT, json_str(volume, "snapshot_id", ""));
}

void engine_snapshot_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_SNAPSHOT, .session_id = json_str(request->query, "session", NULL)};
    list_answer(engine, request, answer, arg, &query, NULL);
}

void engine_snapshot_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    json_t *doc = NULL;
    enum store_result result = store_get(engine->store, STORE_SNAPSHOT, request->id, &doc, NULL, &err);
    if (result == STORE_OK && principal_sees(request->principal, json_str(doc, "owner", ""))) {
        answer_body(answer, arg, 200, doc);
        return;
    }
    json_decref(doc);
    if (result != STORE_ERROR)
        err_set(&err, VSS_E_OBJECT_NOT_FOUND, "GET /snapshots lists what there is.", "snapshot %s: no such snapshot", request->id);
    answer_error(answer, arg, &err);
}
