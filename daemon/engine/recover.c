/* The next start after any end: no job says running, no session says open, no snapshot of theirs stays. Idempotent. */
#include "engine/engine_private.h"

#include "base/log.h"

enum { PAGE = 500, HOUSEKEEPING_MS = 60 * 1000 };

static void interrupt_job(struct store_batch *batch, json_t *doc)
{
    struct err err;
    struct job ended = {0};
    err_set(&err, VSS_E_UNEXPECTED, "Start the operation again.", "%s was interrupted: the service stopped while it ran", json_str(doc, "operation", "job"));
    str_copy(err.reason, sizeof err.reason, "interrupted");
    job_conclude(&ended, doc, JOB_FAILED, &err);
    job_batch_put(batch, doc);
}

static int interrupt_jobs(struct engine *engine, struct store_batch *batch, struct err *err)
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
                interrupt_job(batch, row);
                str_copy(after, sizeof after, json_str(row, "id", ""));
            }
        }
    }
    return 0;
}

static void close_session(struct engine *engine, struct store_batch *batch, json_t *doc)
{
    snapshots_batch_remove(engine, batch, doc);
    enum session_state state = session_state(doc);
    if (state == SESSION_COMPLETED || state == SESSION_ABORTED)
        return;
    session_set_state(doc, SESSION_ABORTED);
    json_put(doc, "reason", json_string("interrupted"));
    catalog_mark(engine, batch, doc, false, "the service stopped before BackupComplete");
    session_batch_put(batch, doc);
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

/* Snapshots that outlived their session (core was killed): auto-release ones go, from disk by the worker, from the list here. */
static json_t *known_snapshots(struct engine *engine, struct store_batch *batch)
{
    json_t *known = json_array();
    AUTO_JSON json_t *rows = NULL;
    bool more;
    const struct store_query query = {.kind = STORE_SNAPSHOT, .limit = 10000};
    if (store_list(engine->store, &query, &rows, &more, NULL) != STORE_OK)
        return known;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const struct session_context *context = session_context_by_name(json_str(row, "context", ""));
        if (context && context->persistent)
            json_add(known, json_string(json_str(row, "id", "")));
        else
            store_batch_delete(batch, STORE_SNAPSHOT, json_str(row, "id", ""));
    }
    return known;
}

struct recovery {
    struct engine *engine;
    struct worker_link *worker;
};

static void recovered(void *arg, const struct worker_reply *reply)
{
    struct recovery *recovery = arg;
    size_t removed = json_array_size(json_object_get(reply->result, "removed"));
    if (reply->err)
        log_err(LOG_LEVEL_WARNING, NULL, reply->err, "recovery: leftovers could not be looked for");
    else if (removed)
        log_line(LOG_LEVEL_WARNING, NULL, "recovery: %zu leftover snapshots removed", removed);
    struct engine *engine = recovery->engine;
    engine->recovered = true;
    if (engine->when_recovered)
        engine->when_recovered(engine->when_recovered_arg);
    worker_link_close(recovery->worker);
    free(recovery);
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
    if (interrupt_jobs(engine, batch, err) || close_sessions(engine, batch, err)) {
        store_batch_free(batch);
        return -1;
    }
    json_t *known = known_snapshots(engine, batch);
    store_submit(engine->store, batch, NULL, NULL);
    struct recovery *recovery = mem_new(sizeof *recovery);
    *recovery = (struct recovery){engine, worker_link_new(engine->agent, NULL, NULL, NULL)};
    static const struct worker_handlers handlers = {.done = recovered};
    worker_link_run(recovery->worker, "recover", json_pack("{s:o}", "known", known), &handlers, recovery);
    return 0;
}

void engine_housekeeping(void *arg)
{
    struct engine *engine = arg;
    int64_t now = clock_real_ms();
    const json_t *retention = json_object_get(engine->config, "retention");
    for (int kind = 0; kind < STORE_KIND_COUNT; kind++)
        store_expire(engine->store, (enum store_kind)kind, now, kind == STORE_JOB ? (int)json_int(retention, "jobs", 100000) : 0);
    jobs_save_unsaved(engine);
    loop_timer_set(engine->housekeeping, HOUSEKEEPING_MS);
}
