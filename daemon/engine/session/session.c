/* The session object: its record, its view, its lease, who may touch it. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"
#include "model/selection.h"

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
    json_decref(session->hold);
    json_decref(session->held);
    json_decref(session->frozen);
    free(session);
}

void sessions_free(struct engine *engine)
{
    while (engine->sessions) {
        struct session *session = *(struct session **)engine->sessions; /* a node of tsearch begins with its item */
        serial_clear(&session->serial);
        session_free(session);
    }
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
    json_t *view = json_copy((json_t *)doc);
    json_t *filter = json_object_get(session_private(doc), "writer_filter");
    json_put(view, "writer_filter", json_is_object(filter) ? json_incref(filter) : json_null());
    json_object_del(view, "_");
    json_put(view, "hold", json_null());
    json_t *stuck = freeze_shown(engine, json_str(doc, "id", ""));
    json_put(view, "frozen", stuck ? json_incref(stuck) : json_null());
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
    if (session->frozen)
        json_put(view, "frozen", json_incref(session->frozen));
    if (session->hold)
        json_put(view, "hold", json_incref(session->hold));
    json_put(view, "pending_job", session->pending ? json_string(session->pending->id) : json_null());
    char text[CLOCK_RFC3339_SIZE];
    json_put(view, "lease_expires_at",
             session->lease_ends_ms ? json_string(clock_rfc3339(session->lease_expires_ms, text)) : json_null());
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
        .snapshot_needed = json_array_size(volumes) > 0 ||
                           selection_any_snapshot(json_object_get(own, "writers"), json_object_get(own, "components"),
                                                  json_str(json_object_get(doc, "backup_state"), "type", "full")),
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

int64_t retention_ms(const struct engine *engine)
{
    return json_int(json_object_get(engine->config, "retention"), "days", 30) * 24 * 3600 * 1000;
}

/* From its end on a session is there to be read, until retention. */
static void put_expiry(const struct engine *engine, json_t *doc)
{
    enum session_state state = session_state(doc);
    if ((state != SESSION_COMPLETED && state != SESSION_ABORTED) || json_int(session_private(doc), "expires_ms", 0))
        return;
    json_t *own = json_copy(session_private(doc));
    json_put(own, "expires_ms", json_integer(clock_real_ms() + retention_ms(engine)));
    json_put(doc, "_", own);
}

static bool same_members(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)a, key, value)
    {
        bool aside = str_eq(key, "_") || str_eq(key, "updated_at");
        if (!aside && !json_equal(value, json_object_get(b, key)))
            return false;
    }
    return true;
}

bool session_shows_same(const json_t *a, const json_t *b)
{
    static const char *const shown[] = {"components", "writers", "writer_status", "writer_filter", "volumes", "excludes", "snapshots", "freeze", "consistency", "document"};
    for (size_t i = 0; i < ELEMENTS(shown); i++) {
        json_t *one = json_object_get(session_private(a), shown[i]), *other = json_object_get(session_private(b), shown[i]);
        if (one != other && !json_equal(one, other))
            return false;
    }
    return same_members(a, b) && same_members(b, a);
}

/* Of the private part; a session with a hundred components has a hundred kilobytes of them. */
static const char *const rest_path[] = {"_", NULL};
static const char *const rest_names[] = {"writers", "components", "writer_status", "document", "chains", NULL};

void session_batch_put(const struct engine *engine, struct store_batch *batch, json_t *doc, bool told)
{
    put_expiry(engine, doc);
    AUTO_JSON json_t *brief = json_copy(doc), *own = json_copy(session_private(doc));
    AUTO_JSON json_t *rest = rest_take(own, rest_path, rest_names, true);
    json_put(brief, "_", json_incref(own));
    const struct store_record record = {
        .id = json_str(doc, "id", ""),
        .owner = json_str(doc, "owner", NULL),
        .state = json_str(doc, "state", NULL),
        .operation = json_str(doc, "kind", NULL),
        .job_id = json_str(doc, "label", NULL),
        .created_ms = json_int(session_private(doc), "created_ms", 0),
        .expires_ms = json_int(session_private(doc), "expires_ms", 0),
        .doc = brief,
        .rest = rest,
    };
    store_batch_put(batch, STORE_SESSION, &record);
    if (told)
        event_session(batch, doc);
}

/* --- ownership --- */

bool principal_may_change(const struct principal *principal, const char *owner)
{
    return principal->role == ROLE_ADMIN || str_eq(principal->name, owner);
}

/* Exactly its paths: what lies beneath one could lead elsewhere by a link or a mount that its user has made. */
int principal_may_snapshot(const struct principal *principal, const char *path, struct err *err)
{
    if (!principal->paths || json_has_string(principal->paths, path))
        return 0;
    err_set(err, E_ACCESSDENIED, "GET /whoami shows its paths.", "%s may not take snapshots of %.300s", principal->name, path);
    str_copy(err->reason, sizeof err->reason, "paths");
    return -1;
}

/* A tree in full, once more for each call, would let whoever may only take snapshots fill the staging disk and keep it busy. A reflink shares its blocks. */
int principal_may_have(const struct principal *principal, const json_t *resolved, struct err *err)
{
    if (!principal->paths || !str_eq(json_str(resolved, "provider", ""), "copy"))
        return 0;
    return err_set(err, VSS_E_VOLUME_NOT_SUPPORTED, "Put the data on a file system with snapshots or reflinks, such as btrfs or XFS.",
                   "%s: its file system could only be copied in full, which %s may not have done", json_str(resolved, "volume", json_str(resolved, "root_path", "")),
                   principal->name);
}

/* Watching is what viewers and auditors are for; operators and restorers see what is theirs. */
bool principal_sees(const struct principal *principal, const char *owner)
{
    return principal->role == ROLE_VIEWER || principal->role == ROLE_AUDITOR || principal_may_change(principal, owner);
}

bool engine_sees_all(const struct principal *principal)
{
    return principal_sees(principal, "");
}

/* Who restores has to find what others backed up, and their snapshots. */
bool principal_sees_backup(const struct principal *principal, const char *owner)
{
    return principal->role == ROLE_RESTORER || principal_sees(principal, owner);
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
    task->renews = true;
    task_start(task, &session->serial, run);
}

/* --- lease --- */

static bool session_terminal(const struct session *session)
{
    enum session_state state = session_state(session->doc);
    return state == SESSION_COMPLETED || state == SESSION_ABORTED;
}

/* What has a worker, or will want one. A completed one without is a record that can still be read. */
static void count_open(const void *node, VISIT visit, void *arg)
{
    const struct session *session = *(struct session *const *)node;
    int64_t *open = arg;
    if ((visit == postorder || visit == leaf) && (session->worker || !session_terminal(session)))
        (*open)++;
}

int session_admit(struct engine *engine, struct err *err)
{
    int64_t open = 0, most = json_int(json_object_get(engine->config, "limits"), "sessions", 500);
    twalk_r(engine->sessions, count_open, &open);
    if (open < most)
        return 0;
    return err_set(err, E_OUTOFMEMORY, "Release a session that is done with (DELETE /sessions/{id}), or raise limits.sessions.",
                   "%lld sessions are open", (long long)open);
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

json_t *session_foretell(const struct task *task)
{
    struct session ahead = {.engine = task->engine, .doc = task->draft};
    if (session_state(task->draft) != SESSION_ABORTED) {
        ahead.lease_ends_ms = 1;
        ahead.lease_expires_ms = clock_real_ms() + lease_seconds(&ahead) * 1000;
    }
    return session_view(&ahead);
}

void session_lease_renew(struct session *session)
{
    if (session->pending || session->gone)
        return;
    int64_t ms = lease_seconds(session) * 1000;
    session->lease_ends_ms = clock_mono_ms() + ms;
    session->lease_expires_ms = clock_real_ms() + ms;
    loop_timer_set(session->lease, ms);
}

void session_lease_pause(struct session *session)
{
    loop_timer_stop(session->lease);
    session->lease_ends_ms = 0;
}

/* The record stays readable until retention; what it held is let go. */
void session_ended(struct session *session)
{
    slot_wait_forget(session);
    slot_release(session);
    seal_rest(session->engine);
    if (session_state(session->doc) == SESSION_ABORTED) {
        freeze_leave(session);
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

static void expired_released(struct task *task)
{
    leftovers_tell(task);
    if (!session_terminal(task->session)) {
        task->draft = session_draft(task->session);
        session_set_state(task->draft, SESSION_ABORTED);
        json_put(task->draft, "reason", json_string("lease_expired"));
    }
    struct store_batch *batch = store_batch_new();
    catalog_mark(task->engine, batch, task->session->doc, "the session's lease expired before BackupComplete had succeeded", NULL);
    snapshots_batch_remove(batch, task->session->doc, json_object_get(*cleanup_of(task), "failed"));
    task->committed = expired_committed;
    task_commit(task, batch);
}

static void expire(struct task *task)
{
    struct session *session = task->session;
    int64_t left = session->lease_ends_ms - clock_mono_ms();
    if (session->pending || session->gone || left > 0) {
        if (left > 0) /* renewed while this waited */
            loop_timer_set(session->lease, left);
        task_done(task);
        return;
    }
    const struct log_context context = {.session_id = session->id};
    if (!session_terminal(session))
        figures_lease_expired(session->engine);
    if (!session_terminal(session))
        log_line(LOG_LEVEL_WARNING, &context, "the session's lease expired: aborting it");
    session_undo(task, session_terminal(session) ? NULL : "lease_expired", true, expired_released);
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

static void orphaned_cleared(struct task *task)
{
    struct session *session = task->session;
    leftovers_tell(task);
    if (!session_terminal(session)) {
        incident(task->engine, session->id, NULL, NULL, VSS_E_UNEXPECTED, "the session's worker process died; the session is aborted");
        task->draft = session_draft(session);
        session_set_state(task->draft, SESSION_ABORTED);
        json_put(task->draft, "reason", json_string("worker_lost"));
    }
    struct store_batch *batch = store_batch_new();
    snapshots_batch_remove(batch, session->doc, json_object_get(*cleanup_of(task), "failed"));
    if (task->draft)
        catalog_mark(task->engine, batch, session->doc, "the session's worker process died before BackupComplete had succeeded", NULL);
    task->committed = orphaned_committed;
    task_commit(task, batch);
}

/* The worker died while nothing ran: its holds are gone, so is the session. A job between two of its phases finds it dead at the next
 * one, and ends the session itself. */
static void orphaned(struct task *task)
{
    if (task->session->pending || task->session->gone || worker_link_alive(task->session->worker))
        task_done(task);
    else
        leftovers_clear(task, orphaned_cleared);
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
