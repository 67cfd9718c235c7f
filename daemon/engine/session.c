/* The session object: its record, its view, its lease, who may touch it. */
#include "engine/engine_private.h"

#include <search.h>
#include <string.h>

#include "base/log.h"

/* Leases (design, section 4, item 5; precedent MS-FSRVP, vss-model 7.4), seconds. */
enum { LEASE_LITTLE_INVESTED = 180 };

static int session_compare(const void *a, const void *b)
{
    return strcmp(((const struct session *)a)->id, ((const struct session *)b)->id);
}

struct session *session_find(struct engine *engine, const char *id)
{
    struct session key;
    if (!str_copy(key.id, sizeof key.id, id))
        return NULL;
    struct session **found = tfind(&key, &engine->sessions, session_compare);
    return found && !(*found)->gone ? *found : NULL;
}

static void lease_expired(void *arg);

struct session *session_new(struct engine *engine, json_t *doc)
{
    struct session *session = mem_new(sizeof *session);
    session->engine = engine;
    session->doc = doc;
    str_copy(session->id, sizeof session->id, json_str(doc, "id", ""));
    session->lease = loop_timer_new(engine->loop, lease_expired, session);
    tsearch(session, &engine->sessions, session_compare);
    return session;
}

void session_free(struct session *session)
{
    tdelete(session, &session->engine->sessions, session_compare);
    slot_wait_forget(session);
    slot_release(session);
    worker_link_close(session->worker);
    loop_timer_free(session->lease);
    json_decref(session->doc);
    free(session);
}

json_t *session_private(const json_t *doc)
{
    return json_object_get(doc, "_");
}

json_t *session_draft(const struct session *session)
{
    json_t *draft = json_copy(session->doc);
    json_put(draft, "_", json_copy(session_private(session->doc)));
    return draft;
}

json_t *session_draft_array(json_t *draft, const char *key)
{
    json_t *own = json_deep_copy(json_object_get(session_private(draft), key));
    if (!own)
        own = json_array();
    json_put(session_private(draft), key, own);
    return own;
}

enum session_state session_state(const json_t *doc)
{
    enum session_state state = SESSION_ABORTED;
    session_state_by_name(json_str(doc, "state", ""), &state);
    return state;
}

void session_set_state(json_t *draft, enum session_state state)
{
    json_put(draft, "state", json_string(session_state_name(state)));
}

json_t *session_view_doc(struct engine *engine, const json_t *doc)
{
    (void)engine;
    json_t *view = json_copy((json_t *)doc);
    json_object_del(view, "_");
    char self[64];
    str_format(self, sizeof self, "/sessions/%s", json_str(doc, "id", ""));
    json_t *links = json_pack("{s:{s:s}}", "self", "href", self);
    static const char *const parts[] = {"components", "writers", "document"};
    for (size_t i = 0; i < ELEMENTS(parts); i++) {
        char href[96];
        str_format(href, sizeof href, "%s/%s", self, parts[i]);
        json_put(links, parts[i], json_pack("{s:s}", "href", href));
    }
    json_put(view, "_links", links);
    return view;
}

json_t *session_view(struct session *session)
{
    json_t *view = session_view_doc(session->engine, session->doc);
    json_put(view, "pending_job", session->pending ? json_string(session->pending->id) : json_null());
    char text[CLOCK_RFC3339_SIZE];
    json_put(view, "lease_expires_at",
             session->lease_expires_ms ? json_string(clock_rfc3339(session->lease_expires_ms, text)) : json_null());
    return view;
}

void session_facts(const struct session *session, struct session_facts *ret)
{
    const json_t *doc = session->doc, *own = session_private(doc);
    const struct session_context *context = session_context_by_name(json_str(doc, "context", "backup"));
    const json_t *volumes = json_object_get(own, "volumes");
    *ret = (struct session_facts){
        .kind = str_eq(json_str(doc, "kind", ""), "restore") ? SESSION_RESTORE : SESSION_BACKUP,
        .state = session_state(doc),
        .writers_involved = context && context->writers,
        .gathered = json_is_array(json_object_get(own, "writers")),
        .context_set = json_bool(own, "context_set", false),
        .backup_state_set = json_is_object(json_object_get(doc, "backup_state")),
        .snapshot_needed = json_array_size(volumes) > 0 || json_array_size(json_object_get(own, "components")) > 0,
        .pending_job = session->pending ? session->pending->id : NULL,
    };
}

bool session_allow(struct task *task, enum session_operation operation, bool *ret_ignored)
{
    struct session_facts facts;
    struct err err;
    session_facts(task->session, &facts);
    switch (session_judge(operation, &facts, &err)) {
    case VERDICT_ALLOWED:
        if (ret_ignored)
            *ret_ignored = false;
        return true;
    case VERDICT_IGNORED:
        if (ret_ignored)
            *ret_ignored = true;
        return true;
    case VERDICT_IN_PROGRESS:
        task->retry_after = 5;
        task_fail(task, &err);
        return false;
    default:
        task_fail(task, &err);
        return false;
    }
}

void session_batch_put(struct store_batch *batch, const json_t *doc)
{
    const struct store_record record = {
        .id = json_str(doc, "id", ""),
        .owner = json_str(doc, "owner", NULL),
        .state = json_str(doc, "state", NULL),
        .operation = json_str(doc, "kind", NULL),
        .created_ms = json_int(session_private(doc), "created_ms", 0),
        .expires_ms = json_int(session_private(doc), "expires_ms", 0),
        .doc = (json_t *)doc,
    };
    store_batch_put(batch, STORE_SESSION, &record);
}

/* --- ownership --- */

bool principal_may_change(const struct principal *principal, const char *owner)
{
    return principal->role == ROLE_ADMIN || str_eq(principal->name, owner);
}

/* Watching is what viewers and auditors are for; operators and restorers see what is theirs. */
bool principal_sees(const struct principal *principal, const char *owner)
{
    return principal->role == ROLE_VIEWER || principal->role == ROLE_AUDITOR || principal_may_change(principal, owner);
}

static void no_such_session(struct err *err, const char *id)
{
    err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /sessions lists what there is.", "session %s: no such session", id);
}

json_t *session_read(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    struct session *session = session_find(engine, request->id);
    if (session) {
        if (principal_sees(request->principal, json_str(session->doc, "owner", "")))
            return json_incref(session->doc);
        no_such_session(&err, request->id);
    } else {
        json_t *doc = NULL;
        enum store_result result = store_get(engine->store, STORE_SESSION, request->id, &doc, NULL, &err);
        if (result == STORE_OK && principal_sees(request->principal, json_str(doc, "owner", "")))
            return doc;
        json_decref(doc);
        if (result != STORE_ERROR)
            no_such_session(&err, request->id);
    }
    answer_error(answer, arg, &err);
    return NULL;
}

/* A session that has left memory has ended: every change is out of sequence. */
static void answer_ended(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *doc = session_read(engine, request, answer, arg);
    if (!doc)
        return;
    struct err err;
    err_set(&err, VSS_E_BAD_STATE, "Create a new session.", "session %s: it has ended (%s)", request->id, json_str(doc, "state", ""));
    AUTO_JSON json_t *extra = json_pack("{s:s}", "session_state", json_str(doc, "state", ""));
    const struct engine_answer refused = {.err = &err, .extra = extra};
    answer(arg, &refused);
}

void session_task(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                  void (*run)(struct task *task))
{
    struct session *session = session_find(engine, request->id);
    if (!session) {
        answer_ended(engine, request, answer, arg);
        return;
    }
    struct err err;
    const char *owner = json_str(session->doc, "owner", "");
    if (!principal_may_change(request->principal, owner)) {
        if (principal_sees(request->principal, owner))
            err_set(&err, E_ACCESSDENIED, NULL, "session %s belongs to another principal", request->id);
        else
            no_such_session(&err, request->id);
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    task->session = session;
    session_lease_renew(session);
    task_start(task, &session->serial, run);
}

/* --- lease --- */

static bool session_terminal(const struct session *session)
{
    enum session_state state = session_state(session->doc);
    return state == SESSION_COMPLETED || state == SESSION_ABORTED;
}

static int64_t lease_seconds(const struct session *session)
{
    int64_t own = json_int(session_private(session->doc), "lease_seconds", 0);
    int64_t most = json_int(json_object_get(session->engine->config, "limits"), "lease_seconds", 1800);
    if (session_terminal(session))
        return LEASE_LITTLE_INVESTED;
    if (own)
        return own;
    enum session_state state = session_state(session->doc);
    bool little = state == SESSION_INITIALIZED || state == SESSION_IDENTIFIED;
    return little && most > LEASE_LITTLE_INVESTED ? LEASE_LITTLE_INVESTED : most;
}

void session_lease_renew(struct session *session)
{
    if (session->pending || session->gone)
        return;
    int64_t ms = lease_seconds(session) * 1000;
    session->lease_expires_ms = clock_real_ms() + ms;
    loop_timer_set(session->lease, ms);
}

void session_lease_pause(struct session *session)
{
    loop_timer_stop(session->lease);
    session->lease_expires_ms = 0;
}

/* The record stays readable until retention; what it held is let go. */
void session_ended(struct session *session)
{
    slot_wait_forget(session);
    slot_release(session);
    if (session_state(session->doc) == SESSION_ABORTED) {
        worker_link_close(TAKE_PTR(session->worker));
        session_lease_pause(session);
        session->gone = true; /* freed by the task that calls this, from its record on reads come from the store */
    } else {
        session_lease_renew(session);
    }
}

static void expired_committed(struct task *task, const struct err *err)
{
    if (err)
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
    session_ended(task->session);
    task->session->gone = true;
    task_done(task);
}

static void expired_released(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    (void)reply;
    if (!session_terminal(task->session)) {
        task->draft = session_draft(task->session);
        session_set_state(task->draft, SESSION_ABORTED);
        json_put(task->draft, "reason", json_string("lease_expired"));
    }
    struct store_batch *batch = store_batch_new();
    snapshots_batch_remove(task->engine, batch, task->session->doc);
    task->committed = expired_committed;
    task_commit(task, batch);
}

static void expire(struct task *task)
{
    struct session *session = task->session;
    if (session->pending || session->gone || session->lease_expires_ms > clock_real_ms() + 500) {
        task_done(task); /* renewed while this waited */
        return;
    }
    const struct log_context context = {.session_id = session->id};
    if (!session_terminal(session))
        log_line(LOG_LEVEL_WARNING, &context, "the session's lease expired: aborting it");
    static const struct worker_handlers handlers = {.done = expired_released};
    if (worker_link_alive(session->worker)) {
        if (!session_terminal(session))
            worker_link_run(session->worker, "abort", json_pack("{s:s}", "reason", "lease_expired"), &(struct worker_handlers){.done = abort_ignored}, NULL);
        worker_link_run(session->worker, "release", NULL, &handlers, task);
    } else {
        const struct worker_reply nothing = {0};
        expired_released(task, &nothing);
    }
}

void abort_ignored(void *arg, const struct worker_reply *reply)
{
    (void)arg;
    (void)reply;
}

static void lease_expired(void *arg)
{
    struct session *session = arg;
    struct task *task = task_new(session->engine, NULL, NULL, NULL);
    task->session = session;
    task_start(task, &session->serial, expire);
}

/* --- worker --- */

static void orphaned_committed(struct task *task, const struct err *err)
{
    if (err)
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
    session_ended(task->session);
    task->session->gone = true;
    task_done(task);
}

/* The worker died while nothing ran: its holds are gone, so is the session. */
static void orphaned(struct task *task)
{
    struct session *session = task->session;
    if (session->gone || worker_link_alive(session->worker)) {
        task_done(task);
        return;
    }
    if (!session_terminal(session)) {
        incident(task->engine, session->id, NULL, NULL, VSS_E_UNEXPECTED, "the session's worker process died; the session is aborted");
        task->draft = session_draft(session);
        session_set_state(task->draft, SESSION_ABORTED);
        json_put(task->draft, "reason", json_string("worker_lost"));
    }
    struct store_batch *batch = store_batch_new();
    snapshots_batch_remove(task->engine, batch, session->doc);
    task->committed = orphaned_committed;
    task_commit(task, batch);
}

static void worker_lost(void *arg, const struct err *err)
{
    struct session *session = arg;
    (void)err;
    struct task *task = task_new(session->engine, NULL, NULL, NULL);
    task->session = session;
    task_start(task, &session->serial, orphaned);
}

struct worker_link *session_worker(struct session *session)
{
    if (!session->worker)
        session->worker = worker_link_new(session->engine->agent, session->id, worker_lost, session);
    return session->worker;
}
