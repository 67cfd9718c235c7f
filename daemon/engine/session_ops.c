/* The session's synchronous calls. */
#include "engine/engine_private.h"

#include <string.h>

/* --- create --- */

static json_t *session_record(struct engine *engine, const struct engine_request *request, const char *kind)
{
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE];
    int64_t created = clock_real_ms();
    uuid_v7(id);
    clock_rfc3339(created, now);
    const json_t *body = request->body;
    json_t *own = json_pack("{s:I, s:I, s:[], s:[], s:b}", "created_ms", (json_int_t)created, "lease_seconds",
                            (json_int_t)json_int(body, "lease_seconds", 0), "components", "volumes", "context_set",
                            json_object_get(body, "context") != NULL);
    json_t *doc = json_pack("{s:s, s:s, s:s?, s:s, s:s, s:n, s:s, s:n, s:n, s:s, s:s, s:s, s:o}", "id", id, "kind", kind, "label",
                            json_str(body, "label", NULL), "state", "initialized", "context", json_str(body, "context", "backup"),
                            "backup_state", "writer_failure", json_str(body, "writer_failure", "fail"), "snapshot_set_id", "reason",
                            "owner", request->principal->name, "created_at", now, "updated_at", now, "_", own);
    (void)engine;
    return doc;
}

/* A restore session is bound to a stored document: from the catalog, or brought along. */
static int restore_document(struct engine *engine, const struct engine_request *request, json_t *doc, struct err *err)
{
    const char *backup_id = json_str(request->body, "backup_id", NULL);
    json_t *document = json_object_get(request->body, "document");
    if ((backup_id != NULL) == json_is_object(document))
        return err_invalid(err, "/backup_id", "a restore session needs exactly one of backup_id and document");
    if (backup_id) {
        AUTO_JSON json_t *backup = NULL;
        enum store_result result = store_get(engine->store, STORE_BACKUP, backup_id, &backup, NULL, err);
        if (result == STORE_ERROR)
            return -1;
        if (result != STORE_OK || !principal_sees(request->principal, json_str(backup, "owner", "")))
            return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /backups lists what there is.", "backup %s: no such backup", backup_id);
        document = json_object_get(session_private(backup), "document");
        json_put(doc, "backup_id", json_string(backup_id));
    }
    if (!json_is_array(json_object_get(document, "components")))
        return err_set(err, VSS_E_INVALID_XML_DOCUMENT, "Use a document that GET /sessions/{id}/document or the catalog gave.",
                       "the document has no components");
    json_put(session_private(doc), "document", json_deep_copy(document));
    return 0;
}

static void created(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, NULL, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    struct session *session = session_new(task->engine, json_incref(task->draft));
    session_lease_renew(session);
    str_format(task->location, sizeof task->location, "/sessions/%s", session->id);
    task_answer(task, 201, session_view(session));
}

static int lease_allowed(struct engine *engine, const json_t *body, struct err *err)
{
    int64_t most = json_int(json_object_get(engine->config, "limits"), "lease_seconds", 1800);
    int64_t wanted = json_int(body, "lease_seconds", most);
    if (wanted < 5 || wanted > most)
        return err_invalid(err, "/lease_seconds", "must be from 5 to %lld", (long long)most);
    return 0;
}

void engine_session_create(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    const char *kind = json_str(request->body, "kind", "backup");
    if (engine->draining) {
        err_set(&err, E_OUTOFMEMORY, "Try again in a moment.", "the service is stopping");
        answer_error(answer, arg, &err);
        return;
    }
    if (lease_allowed(engine, request->body, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    AUTO_JSON json_t *doc = session_record(engine, request, kind);
    bool restore = str_eq(kind, "restore");
    if (!restore && (json_object_get(request->body, "backup_id") || json_object_get(request->body, "document"))) {
        err_invalid(&err, json_object_get(request->body, "document") ? "/document" : "/backup_id", "only a restore session takes this");
        answer_error(answer, arg, &err);
        return;
    }
    if (restore && restore_document(engine, request, doc, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    task->draft = TAKE_PTR(doc);
    task->committed = created;
    task_commit(task, NULL);
}

/* --- read --- */

void engine_session_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *doc = session_read(engine, request, answer, arg);
    if (!doc)
        return;
    struct session *session = session_find(engine, request->id);
    json_t *view = session ? session_view(session) : session_view_doc(engine, doc);
    if (!session) {
        json_put(view, "pending_job", json_null());
        json_put(view, "lease_expires_at", json_null());
    }
    answer_body(answer, arg, 200, view);
}

static json_t *view_row(struct engine *engine, json_t *doc)
{
    struct session *session = session_find(engine, json_str(doc, "id", ""));
    if (session)
        return session_view(session);
    json_t *view = session_view_doc(engine, doc);
    json_put(view, "pending_job", json_null());
    json_put(view, "lease_expires_at", json_null());
    return view;
}

void engine_session_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_SESSION, .state = json_str(request->query, "state", NULL),
                                .operation = json_str(request->query, "kind", NULL)};
    list_answer(engine, request, answer, arg, &query, view_row);
}

static void answer_private_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg, const char *key)
{
    AUTO_JSON json_t *doc = session_read(engine, request, answer, arg);
    if (!doc)
        return;
    json_t *items = json_object_get(session_private(doc), key);
    if (!json_is_array(items)) {
        struct err err;
        err_set(&err, VSS_E_BAD_STATE, "Gather them first: POST /sessions/{id}/metadata, then /status.",
                "session %s: not gathered yet", request->id);
        AUTO_JSON json_t *extra = json_pack("{s:s}", "session_state", json_str(doc, "state", ""));
        const struct engine_answer refused = {.err = &err, .extra = extra};
        answer(arg, &refused);
        return;
    }
    answer_body(answer, arg, 200, json_pack("{s:O, s:n}", "items", items, "next_cursor"));
}

void engine_session_writers(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    answer_private_list(engine, request, answer, arg, "writers");
}

void engine_session_writer_status(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    answer_private_list(engine, request, answer, arg, "writer_status");
}

void engine_session_document(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *doc = session_read(engine, request, answer, arg);
    if (!doc)
        return;
    json_t *stored = json_object_get(session_private(doc), "document");
    if (stored) {
        answer_body(answer, arg, 200, json_incref(stored));
        return;
    }
    enum session_state state = session_state(doc);
    if (state == SESSION_INITIALIZED || state == SESSION_IDENTIFIED || state == SESSION_SET_OPEN) {
        struct err err;
        err_set(&err, VSS_E_BAD_STATE, "The document exists from PrepareForBackup on.", "SaveAsXML: out of sequence: the session is %s",
                session_state_name(state));
        AUTO_JSON json_t *extra = json_pack("{s:s}", "session_state", session_state_name(state));
        const struct engine_answer refused = {.err = &err, .extra = extra};
        answer(arg, &refused);
        return;
    }
    answer_body(answer, arg, 200, session_document(engine, doc));
}

/* --- change --- */

static void answer_session(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    session_lease_renew(task->session);
    task_answer(task, 200, session_view(task->session));
}

static void commit_session(struct task *task)
{
    task->committed = answer_session;
    task_commit(task, NULL);
}

static void run_backup_state(struct task *task)
{
    if (!session_allow(task, SESSION_OP_SET_BACKUP_STATE, NULL))
        return;
    const json_t *body = task->request->body;
    task->draft = session_draft(task->session);
    json_put(task->draft, "backup_state",
             json_pack("{s:b, s:b, s:s, s:b}", "component_mode", json_bool(body, "component_mode", true), "bootable_system_state",
                       json_bool(body, "bootable_system_state", false), "type", json_str(body, "type", "full"), "partial_files",
                       json_bool(body, "partial_files", false)));
    commit_session(task);
}

void engine_session_backup_state(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_backup_state);
}

static void run_context(struct task *task)
{
    if (!session_allow(task, SESSION_OP_SET_CONTEXT, NULL))
        return;
    task->draft = session_draft(task->session);
    json_put(task->draft, "context", json_string(json_str(task->request->body, "context", "backup")));
    json_put(session_private(task->draft), "context_set", json_true());
    commit_session(task);
}

void engine_session_context(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_context);
}

static void run_writer_filter(struct task *task)
{
    bool ignored;
    if (!session_allow(task, SESSION_OP_WRITER_FILTER, &ignored))
        return;
    if (ignored) { /* VSS accepts a late filter without effect (vss-model 1.2) */
        task_answer(task, 200, session_view(task->session));
        return;
    }
    task->draft = session_draft(task->session);
    static const char *const lists[] = {"enable", "disable", "disable_instances"};
    json_t *filter = session_draft_array(task->draft, "writer_filter");
    if (!json_is_object(filter)) {
        filter = json_object();
        json_put(session_private(task->draft), "writer_filter", filter);
    }
    for (size_t i = 0; i < ELEMENTS(lists); i++) {
        json_t *given = json_object_get(task->request->body, lists[i]);
        json_t *have = json_object_get(filter, lists[i]);
        if (!have)
            json_put(filter, lists[i], have = json_array());
        if (given)
            json_array_extend(have, given);
    }
    commit_session(task);
}

void engine_session_writer_filter(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_writer_filter);
}

static void run_renew(struct task *task)
{
    task_answer(task, 200, session_view(task->session));
}

void engine_session_renew(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_renew);
}

/* --- abort: synchronous (AbortBackup) --- */

static void aborted(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        session_ended(task->session);
        task_fail(task, err);
        return;
    }
    session_ended(task->session);
    json_t *view = session_view(task->session);
    task_answer(task, 200, view);
}

static void abort_undone(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    task->draft = session_draft(task->session);
    session_set_state(task->draft, SESSION_ABORTED);
    json_put(task->draft, "reason", json_string("aborted"));
    if (json_is_array(reply->writers))
        json_put(session_private(task->draft), "writer_status", json_incref(reply->writers));
    else if (json_is_array(json_object_get(reply->result, "writers")))
        json_put(session_private(task->draft), "writer_status", json_incref(json_object_get(reply->result, "writers")));
    struct store_batch *batch = store_batch_new();
    snapshots_batch_remove(task->engine, batch, task->session->doc);
    task->committed = aborted;
    task_commit(task, batch);
}

static void run_abort(struct task *task)
{
    bool ignored;
    struct session *session = task->session;
    if (session->pending) { /* the cancelled job leaves the session aborted; come back when it has ended */
        job_abort_then(task, run_abort);
        return;
    }
    if (!session_allow(task, SESSION_OP_ABORT, &ignored))
        return;
    if (ignored) {
        task_answer(task, 200, session_view(session));
        return;
    }
    static const struct worker_handlers handlers = {.done = abort_undone};
    if (worker_link_alive(session->worker)) {
        worker_link_run(session->worker, "abort", json_pack("{s:s}", "reason", "AbortBackup"), &handlers, task);
    } else {
        const struct worker_reply nothing = {0};
        abort_undone(task, &nothing);
    }
}

static void abort_ended(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    engine_session_get(engine, request, answer, arg); /* nothing under way: 200, ignored */
}

void engine_session_abort(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    if (!session_find(engine, request->id))
        abort_ended(engine, request, answer, arg);
    else
        session_task(engine, request, answer, arg, run_abort);
}

/* --- release: DELETE --- */

static void deleted(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    worker_link_close(TAKE_PTR(task->session->worker));
    session_lease_pause(task->session);
    slot_release(task->session);
    task->session->gone = true;
    task_answer(task, 204, NULL);
}

static void released(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    (void)reply; /* what a release could not remove is an incident of the worker's, and an orphan for the next start */
    struct store_batch *batch = store_batch_new();
    store_batch_delete(batch, STORE_SESSION, task->session->id);
    snapshots_batch_remove(task->engine, batch, task->session->doc);
    AUTO_JSON json_t *data = json_pack("{s:s}", "state", "released");
    store_batch_event(batch, "session.released", task->session->id, NULL, data);
    task->committed = deleted;
    task_commit(task, batch);
}

static void run_delete(struct task *task)
{
    struct session *session = task->session;
    if (session->pending) {
        job_abort_then(task, run_delete);
        return;
    }
    static const struct worker_handlers handlers = {.done = released};
    if (worker_link_alive(session->worker)) {
        if (session_state(session->doc) != SESSION_COMPLETED)
            worker_link_run(session->worker, "abort", json_pack("{s:s}", "reason", "released"), &(struct worker_handlers){.done = abort_ignored}, NULL);
        worker_link_run(session->worker, "release", NULL, &handlers, task);
    } else {
        const struct worker_reply nothing = {0};
        released(task, &nothing);
    }
}

static void stored_deleted(void *arg, const struct err *err)
{
    struct task *task = arg;
    if (err)
        task_fail(task, err);
    else
        task_answer(task, 204, NULL);
}

void engine_session_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    if (session_find(engine, request->id)) {
        session_task(engine, request, answer, arg, run_delete);
        return;
    }
    AUTO_JSON json_t *doc = session_read(engine, request, answer, arg);
    if (!doc)
        return;
    struct err err;
    if (!principal_may_change(request->principal, json_str(doc, "owner", ""))) {
        err_set(&err, E_ACCESSDENIED, NULL, "session %s belongs to another principal", request->id);
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    struct store_batch *batch = store_batch_new();
    store_batch_delete(batch, STORE_SESSION, request->id);
    store_submit(engine->store, batch, stored_deleted, task);
}
