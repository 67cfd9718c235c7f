/* The audit trail: each call that changes something has an intent before its effect and an outcome after it (docs/audit.md). What changes
 * the store and nothing else before has its intent in the very batch of its effect, so that it costs no commit; every other call
 * waits until its intent is durable. A store that does not take the intent takes no effect: the call is refused. What ends a freeze waits for
 * nothing, whatever becomes of its intent: applications stand still. */
#include "engine/audit/audit.h"
#include "engine/audit/audit_seals.h"
#include "engine/engine_private.h"

#include "base/fault.h"
#include "base/log.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

enum { OPEN_PAGE = 500, GATHER_MS = 25 };

/* From the call to its answer, and until the store has said what became of its intent. */
struct audit {
    struct audit *next, **link;
    struct engine *engine;
    char call[UUID_SIZE];
    engine_call_fn fn;
    struct engine_request *request;
    engine_answer_fn answer;
    void *arg;
    bool intended; /* the intent is in a batch that was submitted */
    bool waiting;  /* ... and the call for it */
    bool answered; /* nobody waits any more, but the store has not answered */
    bool submitted_alone;
};

static void audit_free(struct audit *audit)
{
    *audit->link = audit->next;
    if (audit->next)
        audit->next->link = audit->link;
    free(audit);
}

void audits_end(struct engine *engine)
{
    refusals_end(engine);
    loop_timer_free(TAKE_PTR(engine->outcomes_due));
    if (engine->outcomes)
        store_submit(engine->store, TAKE_PTR(engine->outcomes), NULL, NULL);
}

void audits_free(struct engine *engine)
{
    while (engine->audits)
        audit_free(engine->audits);
}

/* --- the records --- */

/* What of a body is told: names, places and choices. Everything else stays out, since a secret may be in it. */
static json_t *asked(const json_t *body)
{
    static const char *const members[] = {"label",      "kind",    "context",     "backup_id", "writer_failure", "lease_seconds",     "type",
                                          "repository", "target",  "paths",       "excludes",  "overwrite",      "accept_incomplete", "validate_only",
                                          "name",       "role",    "scopes",      "path",      "provider",       "force",             "succeeded",
                                          "principal",  "expires_in_seconds", "instance_id", "logical_path", "selected", "mover", "days", "by",
                                          "limits"};
    json_t *told = json_object();
    for (size_t i = 0; i < ELEMENTS(members); i++) {
        json_t *value = json_object_get(body, members[i]);
        if (value && !json_is_null(value))
            json_put(told, members[i], json_incref(value));
    }
    return told;
}

static json_t *record_new(const struct audit *audit, const char *kind)
{
    const struct engine_request *request = audit->request;
    char now[CLOCK_RFC3339_SIZE];
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s?, s:s?}", "time", clock_rfc3339(clock_real_ms(), now), "kind", kind, "call", audit->call,
                     "principal", request->principal->name, "from", request->from ? request->from : "", "operation", request->operation, "path", request->path,
                     "id", request->id, "sub_id", request->sub_id);
}

static void tell_asked(const struct audit *audit, json_t *record)
{
    const struct engine_request *request = audit->request;
    json_put(record, "role", json_string(role_name(request->principal->role)));
    json_put(record, "request_id", json_string(request->request_id));
    json_put(record, "asked", asked(request->body));
}

static void batch_put(struct store_batch *batch, const struct audit *audit, json_t *doc, const char *state)
{
    const struct engine_request *request = audit->request;
    const struct store_record record = {.session_id = request->id, .job_id = audit->call, .owner = request->principal->name, .state = state,
                                        .operation = request->operation, .created_ms = clock_real_ms(), .doc = doc};
    store_batch_audit(batch, &record);
    audit_seals_note(audit->engine);
}

void audit_batch_put(const struct engine_request *request, struct store_batch *batch)
{
    struct audit *audit = request ? request->audit : NULL;
    if (!audit || audit->intended)
        return;
    AUTO_JSON json_t *doc = record_new(audit, "intent");
    tell_asked(audit, doc);
    batch_put(batch, audit, doc, "open");
    audit->intended = true;
}

static void flush(void *arg)
{
    struct engine *engine = arg;
    if (engine->outcomes)
        store_submit(engine->store, TAKE_PTR(engine->outcomes), NULL, NULL);
}

void audits_flush(struct engine *engine, store_done_fn done, void *arg)
{
    struct store_batch *batch = TAKE_PTR(engine->outcomes);
    store_submit(engine->store, batch ? batch : store_batch_new(), done, arg);
}

/* Outcomes gather for a moment: a transaction for each would be what the next call waits for. */
static struct store_batch *outcomes(struct engine *engine)
{
    if (!engine->outcomes_due)
        engine->outcomes_due = loop_timer_new(engine->loop, flush, engine);
    if (!engine->outcomes) {
        engine->outcomes = store_batch_new();
        loop_timer_set(engine->outcomes_due, GATHER_MS);
    }
    return engine->outcomes;
}

int engine_failure_status(const struct engine_answer *answer)
{
    const struct err *err = answer->err;
    if (str_eq(err->reason, STORE_REASON_FULL) || str_eq(err->reason, STORE_REASON_AUDIT))
        return 503; /* it passes; VSS_E_UNEXPECTED alone would say that something is broken */
    int status = answer->status_override ? answer->status_override : hresult_http(err->hr);
    return status < 400 ? 500 : status; /* a success code as a failure is somebody's mistake, and no reason to say "succeeded" */
}

/* The answer does not wait for it. Lost by a crash, the next start writes that it is not known. */
static void tell_outcome(struct audit *audit, const struct engine_answer *answer, const json_t *extra)
{
    AUTO_JSON json_t *doc = record_new(audit, "outcome");
    if (!audit->intended || answer->err)
        tell_asked(audit, doc);
    json_put(doc, "succeeded", json_boolean(!answer->err));
    json_put(doc, "status", json_integer(answer->err ? engine_failure_status(answer) : answer->status));
    json_put(doc, "hresult", json_string(answer->err ? hresult_name(answer->err->hr) : "S_OK"));
    if (answer->err && answer->err->reason[0])
        json_put(doc, "reason", json_string(answer->err->reason));
    if (answer->location[0])
        json_put(doc, "location", json_string(answer->location));
    if (answer->replayed)
        json_put(doc, "replayed", json_true());
    json_object_update(doc, (json_t *)(uintptr_t)extra);
    batch_put(outcomes(audit->engine), audit, doc, "outcome");
}

void audit_outcome(struct engine *engine, struct engine_request *request, const struct engine_answer *answer, const json_t *extra)
{
    struct audit audit = {.engine = engine, .request = request};
    uuid_v7(audit.call);
    tell_outcome(&audit, answer, extra);
}

/* --- the call --- */

static void finish(struct audit *audit, const struct engine_answer *answer)
{
    engine_answer_fn fn = audit->answer;
    void *arg = audit->arg;
    (void)fault("engine.audit");
    tell_outcome(audit, answer, NULL);
    audit->request->audit = NULL;
    audit->answered = true;
    if (!audit->submitted_alone)
        audit_free(audit);
    fn(arg, answer);
}

static void answered(void *arg, const struct engine_answer *answer)
{
    finish(arg, answer);
}

static void go_on(struct audit *audit)
{
    audit->waiting = false;
    if (audit->request->key)
        engine_call_once(audit->engine, audit->fn, audit->request, answered, audit);
    else
        engine_call(audit->engine, audit->fn, audit->request, answered, audit);
}

static void intent_ended(void *arg, const struct err *err)
{
    struct audit *audit = arg;
    audit->submitted_alone = false;
    if (err && !audit->waiting) { /* it went on, for the sake of a freeze: its outcome says what was asked */
        log_err(LOG_LEVEL_ERROR, NULL, err, "audit: the intent of call %s, which went on at once, is lost", audit->call);
        audit->intended = false;
    }
    if (audit->answered) {
        audit_free(audit);
    } else if (!audit->waiting) {
        return;
    } else if (err) {
        struct err told = *err;
        err_prefix(&told, "audit");
        str_copy(told.reason, sizeof told.reason, str_eq(err->reason, STORE_REASON_FULL) ? STORE_REASON_FULL : STORE_REASON_AUDIT);
        const struct engine_answer refused = {.err = &told};
        audit->intended = false;
        finish(audit, &refused);
    } else {
        go_on(audit);
    }
}

/* Nothing happens before these have committed what they change, and their intent is in that batch. */
static bool rides(engine_call_fn call)
{
    static const engine_call_fn calls[] = {
        engine_session_create, engine_session_backup_state, engine_session_context, engine_session_writer_filter, engine_session_restore_state,
        engine_component_add, engine_component_patch, engine_component_subcomponent, engine_component_new_target, engine_component_mapping,
        engine_snapshot_set_start, engine_snapshot_set_add, engine_job_metadata, engine_job_prepare, engine_job_snapshot, engine_job_copy,
        engine_job_complete, engine_job_status, engine_job_pre_restore, engine_job_restore_files, engine_job_post_restore, engine_backup_create,
    };
    for (size_t i = 0; i < ELEMENTS(calls); i++)
        if (calls[i] == call)
            return true;
    return false;
}

/* Does it end a freeze of applications or file systems that is going on? */
static bool thaws(struct engine *engine, engine_call_fn call, const struct engine_request *request)
{
    static const engine_call_fn of_session[] = {engine_snapshot_set_release, engine_session_abort, engine_session_delete};
    if (call == engine_job_cancel) {
        const struct job *job = job_find(engine, request->id);
        return job && job->session && job->session->frozen;
    }
    for (size_t i = 0; i < ELEMENTS(of_session); i++) {
        if (of_session[i] == call) {
            const struct session *session = session_find(engine, request->id);
            return session && session->frozen;
        }
    }
    return false;
}

bool audit_thaws(struct engine *engine, const struct engine_request *request)
{
    return request->audit && thaws(engine, request->audit->fn, request);
}

void engine_call_audited(struct engine *engine, engine_call_fn call, struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct audit *audit = mem_new(sizeof *audit);
    *audit = (struct audit){.next = engine->audits, .link = &engine->audits, .engine = engine, .fn = call, .request = request, .answer = answer, .arg = arg};
    if (audit->next)
        audit->next->link = &audit->next;
    engine->audits = audit;
    uuid_v7(audit->call);
    request->audit = audit;
    if (rides(call)) {
        go_on(audit);
        return;
    }
    struct store_batch *batch = store_batch_new();
    audit_batch_put(request, batch);
    audit->waiting = audit->submitted_alone = true;
    store_submit(engine->store, batch, intent_ended, audit);
    audits_frozen(engine);
}

static bool goes_on(const struct audit *audit)
{
    struct engine *engine = audit->engine;
    return thaws(engine, audit->fn, audit->request) ||
           (store_parked(engine->store) && parking_in_memory(engine, audit->fn, audit->request));
}

/* What may end a freeze waits neither for what waits for its end, nor for the store's disk. */
void audits_frozen(struct engine *engine)
{
    struct audit *next;
    for (struct audit *audit = engine->audits; audit; audit = next) {
        next = audit->next;
        if (audit->waiting && goes_on(audit)) {
            go_on(audit);
            next = engine->audits; /* whatever that ended: those that went on do not wait any more */
        }
    }
}

void engine_audit_refused(struct engine *engine, struct engine_request *request, const struct engine_answer *answer)
{
    audit_outcome(engine, request, answer, NULL);
}

/* --- the next start --- */

static void close_one(struct engine *engine, struct store_batch *batch, const json_t *intent)
{
    static const char *const members[] = {"call", "principal", "from", "operation", "path", "id", "sub_id"};
    char now[CLOCK_RFC3339_SIZE];
    AUTO_JSON json_t *doc = json_pack("{s:s, s:s}", "time", clock_rfc3339(clock_real_ms(), now), "kind", "outcome");
    for (size_t i = 0; i < ELEMENTS(members); i++)
        json_put(doc, members[i], json_incref(json_object_get(intent, members[i])));
    json_put(doc, "succeeded", json_null());
    json_put(doc, "status", json_null());
    json_put(doc, "hresult", json_null());
    json_put(doc, "reason", json_string("interrupted"));
    const struct store_record record = {.session_id = json_str(intent, "id", NULL), .job_id = json_str(intent, "call", ""), .owner = json_str(intent, "principal", ""),
                                        .state = "outcome", .operation = json_str(intent, "operation", ""), .created_ms = clock_real_ms(), .doc = doc};
    store_batch_audit(batch, &record);
    audit_seals_note(engine);
}

int audits_recover(struct engine *engine, struct store_batch *batch, struct err *err)
{
    char after[STORE_AUDIT_ID_SIZE] = "";
    for (bool more = true; more;) {
        AUTO_JSON json_t *rows = NULL;
        const struct store_query query = {.kind = STORE_AUDIT, .state = "open", .limit = OPEN_PAGE, .after = *after ? after : NULL};
        size_t i;
        const json_t *row;
        if (store_list(engine->store, &query, &rows, &more, err) == STORE_ERROR)
            return -1;
        json_array_foreach(rows, i, row)
        {
            close_one(engine, batch, row);
            str_format(after, sizeof after, STORE_AUDIT_ID, (long long)json_int(row, "seq", 0));
        }
    }
    return 0;
}
