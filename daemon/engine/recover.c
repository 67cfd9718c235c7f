/* The next start after any end: no job says running, no session says open, no snapshot of theirs stays. Idempotent. */
#include "engine/access/access.h"
#include "engine/audit/audit.h"
#include "engine/audit/audit_seals.h"
#include "engine/backup/backup.h"
#include "engine/engine_private.h"

#include "base/fault.h"
#include "base/log.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

enum { PAGE = 500, HOUSEKEEPING_MS = 60 * 1000 };

struct recovery {
    struct engine *engine;
    struct worker_link *worker;
    json_t *known, *exposures;
    json_t *reverts; /* open jobs */
    json_t *interrupted; /* {"session","job","text"} of those that ended */
    size_t at;       /* the one whose outcome is being looked for */
};

/* interrupted: gets what GET /errors is to tell of it, once the record is kept. */
static void interrupt_job(struct engine *engine, struct store_batch *batch, json_t *doc, json_t *interrupted)
{
    struct err err;
    struct job ended = {.engine = engine};
    err_set(&err, VSS_E_UNEXPECTED, "Start the operation again.", "%s was interrupted: %s", json_str(doc, "operation", "job"),
            *engine->previous_end ? engine->previous_end : "the service stopped while it ran");
    json_add(interrupted, json_pack("{s:s?, s:s, s:s}", "session", json_str(doc, "session_id", NULL), "job", json_str(doc, "id", ""), "text", err.text));
    str_copy(err.reason, sizeof err.reason, "interrupted");
    job_conclude(&ended, doc, JOB_FAILED, &err);
    job_batch_put(batch, doc);
}

/* A revert may have happened all the same: recovery->reverts gets those jobs, and the disk is asked first. */
static int interrupt_jobs(struct engine *engine, struct store_batch *batch, struct recovery *recovery, struct err *err)
{
    static const char *const open_states[] = {"pending", "running", "cancelling"};
    for (size_t s = 0; s < ELEMENTS(open_states); s++) {
        char after[UUID_SIZE] = "";
        for (bool more = true; more;) {
            AUTO_JSON json_t *rows = NULL;
            const struct store_query query = {.kind = STORE_JOB, .state = open_states[s], .limit = PAGE, .after = *after ? after : NULL};
            if (store_list(engine->store, &query, &rows, &more, err) == STORE_ERROR)
                return -1;
            size_t i;
            json_t *row;
            json_array_foreach(rows, i, row)
            {
                if (str_eq(json_str(row, "operation", ""), job_kind_revert.name))
                    json_add(recovery->reverts, json_incref(row));
                else
                    interrupt_job(engine, batch, row, recovery->interrupted);
                str_copy(after, sizeof after, json_str(row, "id", ""));
            }
        }
    }
    return 0;
}

static void close_session(struct engine *engine, struct store_batch *batch, json_t *doc)
{
    snapshots_batch_remove(batch, doc, NULL);
    enum session_state state = session_state(doc);
    if (state == SESSION_COMPLETED || state == SESSION_ABORTED)
        return;
    session_set_state(doc, SESSION_ABORTED);
    json_put(doc, "reason", json_string("interrupted"));
    catalog_mark(engine, batch, doc, "the service stopped before BackupComplete had succeeded", NULL);
    session_batch_put(engine, batch, doc, true);
}

static int close_sessions(struct engine *engine, struct store_batch *batch, struct err *err)
{
    for (int s = 0; s < SESSION_ABORTED; s++) {
        char after[UUID_SIZE] = "";
        for (bool more = true; more;) {
            AUTO_JSON json_t *rows = NULL;
            const struct store_query query = {.kind = STORE_SESSION, .state = session_state_name((enum session_state)s), .limit = PAGE,
                                              .after = *after ? after : NULL};
            if (s == SESSION_COMPLETED)
                break;
            if (store_list(engine->store, &query, &rows, &more, err) == STORE_ERROR)
                return -1;
            size_t i;
            json_t *row;
            json_array_foreach(rows, i, row)
            {
                close_session(engine, batch, row);
                str_copy(after, sizeof after, json_str(row, "id", ""));
            }
        }
    }
    return 0;
}

/* Snapshots that outlived their session (core was killed): auto-release ones go, from disk by the worker, from the list here.
 * The list of those that stay must be whole: the worker removes every other one. */
static int known_snapshots(struct engine *engine, struct store_batch *batch, json_t **ret_known, json_t **ret_exposures, struct err *err)
{
    AUTO_JSON json_t *known = NULL, *exposures = json_array();
    char after[UUID_SIZE] = "";
    if (store_quarantined(engine->store, STORE_SNAPSHOT, &known, err) != 0)
        return -1;
    for (bool more = true; more;) {
        AUTO_JSON json_t *rows = NULL;
        const struct store_query query = {.kind = STORE_SNAPSHOT, .limit = PAGE, .after = *after ? after : NULL};
        if (store_list(engine->store, &query, &rows, &more, err) == STORE_ERROR)
            return -1;
        size_t i;
        json_t *row;
        json_array_foreach(rows, i, row)
        {
            const struct session_context *context = session_context_by_name(json_str(row, "context", ""));
            str_copy(after, sizeof after, json_str(row, "id", ""));
            bool deleting = str_eq(json_str(row, "state", ""), SNAPSHOT_DELETING);
            bool wanted;
            const char *path = exposure_of(row, &wanted);
            if (path)
                json_add(exposures, json_pack("{s:O, s:s, s:b}", "snapshot", row, "path", path, "wanted", wanted && !deleting));
            if (!deleting && (!context || context->persistent))
                json_add(known, json_string(after));
            else
                snapshot_batch_delete(batch, row);
        }
    }
    *ret_known = TAKE_PTR(known);
    *ret_exposures = TAKE_PTR(exposures);
    return 0;
}

static void tell_moved(struct engine *engine)
{
    size_t i;
    const json_t *moved;
    json_array_foreach(store_moved(engine->store), i, moved)
    {
        char text[256];
        str_format(text, sizeof text, "store: a damaged record of %s, %s, was moved to the table quarantine", json_str(moved, "kind", ""),
                   json_str(moved, "id", ""));
        incident(engine, NULL, NULL, NULL, VSS_E_UNEXPECTED, text);
    }
}


/* The engine owns it while it runs. */
void recovery_free(struct engine *engine)
{
    struct recovery *recovery = TAKE_PTR(engine->recovery);
    if (!recovery)
        return;
    worker_link_close(recovery->worker);
    json_decref(recovery->known);
    json_decref(recovery->exposures);
    json_decref(recovery->reverts);
    json_decref(recovery->interrupted);
    free(recovery);
}

static void swept(void *arg, const struct worker_reply *reply)
{
    struct recovery *recovery = arg;
    size_t i;
    const json_t *failed;
    if (reply->err)
        log_err(LOG_LEVEL_WARNING, NULL, reply->err, "recovery: repositories");
    json_array_foreach(json_object_get(reply->result, "failed"), i, failed)
        log_line(LOG_LEVEL_WARNING, NULL, "recovery: repository %s was not looked through: %s", json_str(failed, "object", ""),
                 json_str(failed, "reason", ""));
    recovery_free(recovery->engine);
}

static void serve_now(struct recovery *recovery)
{
    struct engine *engine = recovery->engine;
    engine->recovered = true;
    seal_rest(engine);
    audit_seals_begin(engine);
    if (engine->when_recovered)
        engine->when_recovered(engine->when_recovered_arg);
    /* A repository may be far away and slow: nobody waits for it. */
    static const struct worker_handlers handlers = {.done = swept};
    worker_link_run(recovery->worker, "sweep", json_pack("{s:o}", "repositories", repositories_all(engine)), &handlers, recovery);
}

static void next_revert(struct recovery *recovery);

static void revert_committed(void *arg, const struct err *err)
{
    struct recovery *recovery = arg;
    if (err) {
        log_err(LOG_LEVEL_ERROR, NULL, err, "recovery");
        loop_quit(recovery->engine->loop, 1);
        return;
    }
    recovery->at++;
    next_revert(recovery);
}

static void revert_known(void *arg, const struct worker_reply *reply)
{
    struct recovery *recovery = arg;
    struct store_batch *batch = store_batch_new();
    revert_conclude(recovery->engine, batch, json_array_get(recovery->reverts, recovery->at), json_bool(reply->result, "reverted", false),
                    reply->err);
    store_submit(recovery->engine->store, batch, revert_committed, recovery);
}

static void next_revert(struct recovery *recovery)
{
    static const struct worker_handlers handlers = {.done = revert_known};
    json_t *job = json_array_get(recovery->reverts, recovery->at), *row = NULL;
    if (!job) {
        serve_now(recovery);
        return;
    }
    store_get(recovery->engine->store, STORE_SNAPSHOT, json_str(session_private(job), "snapshot_id", ""), &row, NULL, NULL);
    worker_link_run(recovery->worker, "revert_outcome",
                    json_pack("{s:o, s:s}", "snapshot", row ? row : json_object(), "job", json_str(job, "id", "")), &handlers, recovery);
}

static void recovered(void *arg, const struct worker_reply *reply)
{
    struct recovery *recovery = arg;
    struct engine *engine = recovery->engine;
    size_t i, removed = json_array_size(json_object_get(reply->result, "removed"));
    const json_t *failed;
    if (reply->err)
        incident(engine, NULL, NULL, NULL, VSS_E_UNEXPECTED, reply->err->text);
    json_array_foreach(json_object_get(reply->result, "failed"), i, failed)
    {
        char text[512];
        str_format(text, sizeof text, "recovery: %s is left behind: %s", json_str(failed, "object", ""), json_str(failed, "reason", ""));
        incident(engine, NULL, NULL, NULL, VSS_E_UNEXPECTED, text);
    }
    if (removed)
        log_line(LOG_LEVEL_WARNING, NULL, "recovery: %zu leftovers removed", removed);
    exposures_settled(engine, json_object_get(reply->result, "exposures"));
    next_revert(recovery);
}

/* A role that ended unasked, and each job that ended of it: what was unexpected is in GET /errors, whoever reads it later. */
static void tell_interrupted(struct recovery *recovery)
{
    struct engine *engine = recovery->engine;
    size_t i;
    const json_t *job;
    if (*engine->previous_end) {
        AUTO_FREE char *text = str_new("%s; all roles were started again", engine->previous_end);
        incident(engine, NULL, NULL, NULL, VSS_E_UNEXPECTED, text);
    }
    json_array_foreach(recovery->interrupted, i, job)
        incident(engine, json_str(job, "session", NULL), json_str(job, "job", NULL), NULL, VSS_E_UNEXPECTED, json_str(job, "text", ""));
}

/* What the records say comes first: a kill from here on finds nothing that claims to run. */
static void recovery_committed(void *arg, const struct err *err)
{
    struct recovery *recovery = arg;
    struct engine *engine = recovery->engine;
    static const struct worker_handlers handlers = {.done = recovered};
    if (err) { /* jobs that ended would be said to run: rather no service; serve tries again */
        log_err(LOG_LEVEL_ERROR, NULL, err, "recovery");
        recovery_free(engine);
        loop_quit(engine->loop, 1);
        return;
    }
    tell_interrupted(recovery);
    recovery->worker = worker_link_new(engine->agent, NULL, NULL, NULL);
    worker_link_run(recovery->worker, "recover", json_pack("{s:O, s:O}", "known", recovery->known, "exposures", recovery->exposures), &handlers, recovery);
}

void engine_when_recovered(struct engine *engine, void (*fn)(void *arg), void *arg)
{
    if (engine->recovered) {
        fn(arg);
        return;
    }
    engine->when_recovered = fn;
    engine->when_recovered_arg = arg;
}

int engine_recover(struct engine *engine, struct err *err)
{
    struct store_batch *batch = store_batch_new();
    struct recovery *recovery = mem_new(sizeof *recovery);
    *recovery = (struct recovery){.engine = engine, .reverts = json_array(), .interrupted = json_array()};
    engine->recovery = recovery;
    tell_moved(engine);
    int result = fault("engine.recover") ? err_set(err, VSS_E_UNEXPECTED, NULL, "recovery: fault injected") : 0;
    if (result || interrupt_jobs(engine, batch, recovery, err) || close_sessions(engine, batch, err) ||
        known_snapshots(engine, batch, &recovery->known, &recovery->exposures, err) || audits_recover(engine, batch, err)) {
        store_batch_free(batch);
        recovery_free(engine);
        return -1;
    }
    store_submit(engine->store, batch, recovery_committed, recovery);
    return 0;
}

void engine_housekeeping(void *arg)
{
    struct engine *engine = arg;
    int64_t now = clock_real_ms();
    const json_t *retention = json_object_get(engine->config, "retention");
    for (int kind = 0; kind < STORE_KIND_COUNT; kind++)
        if (kind != STORE_AUDIT && kind != STORE_SEAL) /* these are kept for good */
            store_expire(engine->store, (enum store_kind)kind, now, kind == STORE_JOB ? (int)json_int(retention, "jobs", 100000) : 0);
    struct credentials *const sets[] = {engine->tokens, engine->certificates, engine->enrolments, engine->logins};
    for (size_t i = 0; i < ELEMENTS(sets); i++)
        credentials_forget_old(engine, sets[i]);
    jobs_save_unsaved(engine);
    incidents_save(engine);
    store_expire_events(engine->store, now - retention_ms(engine), (int)json_int(retention, "events", 100000));
    seal_rest(engine);
    repositories_look(engine);
    loop_timer_set(engine->housekeeping, HOUSEKEEPING_MS);
}
