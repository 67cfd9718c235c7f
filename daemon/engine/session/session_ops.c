/* The session's synchronous calls. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/restore/restore.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

#include <string.h>

/* --- create --- */

enum { CONFINED_LEASE_SECONDS = 120 }; /* a set that is open and left alone is in the way of everybody's backups */

/* Seconds; 0: the usual one. */
static int64_t lease_of_its_own(const struct engine *engine, const struct engine_request *request)
{
    int64_t wanted = json_int(request->body, "lease_seconds", 0);
    int64_t most = json_int(json_object_get(engine->config, "limits"), "lease_seconds", 1800);
    if (!request->principal->paths)
        return wanted;
    most = most < CONFINED_LEASE_SECONDS ? most : CONFINED_LEASE_SECONDS;
    return wanted && wanted < most ? wanted : most;
}

static json_t *session_record(struct engine *engine, const struct engine_request *request, const char *kind)
{
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE];
    int64_t created = clock_real_ms();
    uuid_v7(id);
    clock_rfc3339(created, now);
    const json_t *body = request->body;
    json_t *own = json_pack("{s:I, s:I, s:[], s:[], s:b}", "created_ms", (json_int_t)created, "lease_seconds",
                            (json_int_t)lease_of_its_own(engine, request), "components", "volumes", "context_set",
                            json_object_get(body, "context") != NULL);
    json_t *doc = json_pack("{s:s, s:s, s:s?, s:s, s:s, s:n, s:n, s:n, s:s, s:n, s:n, s:s, s:s, s:s, s:o}", "id", id, "kind", kind, "label",
                            json_str(body, "label", NULL), "state", "initialized", "context", json_str(body, "context", "backup"),
                            "backup_state", "restore_state", "backup_id", "writer_failure", json_str(body, "writer_failure", "fail"), "snapshot_set_id", "reason",
                            "owner", request->principal->name, "created_at", now, "updated_at", now, "_", own);
    return doc;
}

/* A restore session is bound to a stored document: from the catalog, or brought along. */
static int restore_document(struct engine *engine, const struct engine_request *request, json_t *doc, struct err *err)
{
    const char *backup_id = json_str(request->body, "backup_id", NULL);
    json_t *document = json_object_get(request->body, "document");
    AUTO_JSON json_t *backup = NULL; /* the document is its */
    if ((backup_id != NULL) == json_is_object(document))
        return err_invalid(err, "/backup_id", "a restore session needs exactly one of backup_id and document");
    if (backup_id) {
        enum store_result result = store_get(engine->store, STORE_BACKUP, backup_id, &backup, NULL, err);
        if (result == STORE_ERROR)
            return -1;
        if (result != STORE_OK || !principal_sees_backup(request->principal, json_str(backup, "owner", "")))
            return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /backups lists what there is.", "backup %s: no such backup", backup_id);
        bool accepted = json_bool(request->body, "accept_incomplete", false);
        if (restore_accepts(backup, accepted, err))
            return -1;
        document = json_object_get(session_private(backup), "document");
        json_put(doc, "backup_id", json_string(backup_id));
        json_put(session_private(doc), "accept_incomplete", json_boolean(accepted));
    }
    if (restore_document_check(document, err)) {
        if (!backup_id)
            return -1;
        struct err fault = *err; /* nobody has brought it along: ours is damaged */
        return err_set(err, VSS_E_CORRUPT_XML_DOCUMENT, hresult_cure((uint32_t)VSS_E_CORRUPT_XML_DOCUMENT), "backup %s: the catalog's document is damaged: %s", backup_id, fault.text);
    }
    json_put(session_private(doc), "document", json_deep_copy(document));
    json_put(session_private(doc), "components", restore_components(document));
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
    task_answer(task, task->status, task->body ? json_incref(task->body) : session_view(session));
}

static int lease_allowed(struct engine *engine, const json_t *body, struct err *err)
{
    int64_t most = json_int(json_object_get(engine->config, "limits"), "lease_seconds", 1800);
    int64_t wanted = json_int(body, "lease_seconds", most);
    if (wanted < 5 || wanted > most)
        return err_invalid(err, "/lease_seconds", "must be from 5 to %lld", (long long)most);
    return 0;
}

/* The operation is open to both roles; what for is in the body. */
static int kind_allowed(const struct principal *who, bool restore, struct err *err)
{
    enum role needed = restore ? ROLE_RESTORER : ROLE_OPERATOR;
    if (role_allows(who->role, needed))
        return 0;
    return err_set(err, E_ACCESSDENIED, NULL, "%s has the role %s; a %s session needs %s", who->name, role_name(who->role),
                   restore ? "restore" : "backup", role_name(needed));
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
    static const char *const restore_members[] = {"/document", "/backup_id", "/accept_incomplete"};
    for (size_t i = 0; !restore && i < ELEMENTS(restore_members); i++) {
        if (!json_object_get(request->body, restore_members[i] + 1))
            continue;
        err_invalid(&err, restore_members[i], "only a restore session takes this");
        answer_error(answer, arg, &err);
        return;
    }
    if (kind_allowed(request->principal, restore, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    if (restore && restore_document(engine, request, doc, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    if (session_admit(engine, &err)) {
        task->retry_after = 5;
        task_fail(task, &err);
        return;
    }
    task->draft = TAKE_PTR(doc);
    task->status = 201;
    str_format(task->location, sizeof task->location, "/sessions/%s", json_str(task->draft, "id", ""));
    task->foretell = session_foretell;
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
                                .job_id = json_str(request->query, "label", NULL),
                                .operation = json_str(request->query, "kind", NULL), .brief = true};
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
    if (stored) { /* a restore: with what requester and writers said of its components since */
        json_t *document = json_copy(stored);
        json_put(document, "components", json_incref(json_object_get(session_private(doc), "components")));
        answer_body(answer, arg, 200, document);
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

/* Autorecovery would have writers write into the snapshot: here nobody ever does. */
static int attributes_possible(const json_t *attributes, struct err *err)
{
    static const char *const impossible[] = {"rollback_recovery", "txf_recovery"};
    for (size_t i = 0; i < ELEMENTS(impossible); i++)
        if (json_has_string(attributes, impossible[i]))
            return err_set(err, VSS_E_UNSUPPORTED_CONTEXT, "Leave it out: a snapshot here is never written to.",
                           "SetContext: attribute %s: snapshots are not recovered in place here", impossible[i]);
    return 0;
}

static void run_context(struct task *task)
{
    if (!session_allow(task, SESSION_OP_SET_CONTEXT, NULL))
        return;
    struct err err;
    const json_t *attributes = json_object_get(task->request->body, "attributes");
    if (attributes_possible(attributes, &err)) {
        task_fail(task, &err);
        return;
    }
    task->draft = session_draft(task->session);
    json_put(task->draft, "context", json_string(json_str(task->request->body, "context", "backup")));
    json_put(task->draft, "attributes", attributes ? json_deep_copy(attributes) : json_array());
    json_put(session_private(task->draft), "context_set", json_true());
    commit_session(task);
}

void engine_session_context(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    const json_t *attributes = json_object_get(request->body, "attributes");
    if (json_has_string(attributes, "differential") && json_has_string(attributes, "plex")) {
        struct err err;
        err_invalid(&err, "/attributes", "differential and plex exclude each other");
        answer_error(answer, arg, &err);
        return;
    }
    session_task(engine, request, answer, arg, run_context);
}

/* Of a session that has ended and left memory: 200 with the session as it is. */
static void answer_ignored(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    engine_session_get(engine, request, answer, arg);
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
    if (!session_find(engine, request->id)) {
        answer_ignored(engine, request, answer, arg);
        return;
    }
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
    task_answer(task, 200, task->body ? json_incref(task->body) : session_view(task->session));
}

static void abort_undone(struct task *task)
{
    task->draft = session_draft(task->session);
    session_set_state(task->draft, SESSION_ABORTED);
    json_put(task->draft, "reason", json_string("aborted"));
    if (task->scratch)
        json_put(session_private(task->draft), "writer_status", TAKE_PTR(task->scratch));
    leftovers_tell(task);
    struct store_batch *batch = store_batch_new();
    catalog_mark(task->engine, batch, task->session->doc, "the session was aborted before BackupComplete had succeeded", NULL);
    snapshots_batch_remove(batch, task->session->doc, json_object_get(*cleanup_of(task), "failed"));
    task->foretell = session_foretell;
    task->committed = aborted;
    task_commit(task, batch);
}

/* There is no Abort in a restore (vss-model 2.4): the call is ignored, whatever is under way. */
static bool is_restore(const struct session *session)
{
    return str_eq(json_str(session->doc, "kind", ""), "restore");
}

static void run_abort(struct task *task)
{
    bool ignored;
    struct session *session = task->session;
    if (session->pending && !is_restore(session)) { /* the cancelled job leaves the session aborted; come back when it has ended */
        job_abort_then(task, run_abort);
        return;
    }
    if (!session_allow(task, SESSION_OP_ABORT, &ignored))
        return;
    if (ignored) {
        task_answer(task, 200, session_view(session));
        return;
    }
    session_undo(task, "AbortBackup", false, abort_undone);
}

void session_cancel_now(struct engine *engine, const struct engine_request *request)
{
    struct session *session = session_find(engine, request->id);
    if (session->pending && principal_may_change(request->principal, json_str(session->doc, "owner", "")))
        job_cancel_now(session->pending);
}

void engine_session_abort(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    if (!session_find(engine, request->id)) {
        answer_ignored(engine, request, answer, arg);
        return;
    }
    if (!is_restore(session_find(engine, request->id)))
        session_cancel_now(engine, request);
    session_task(engine, request, answer, arg, run_abort);
}
