/* The seal: the repository itself says whether BackupComplete was reached, so that a scan can rebuild a lost catalog
 * truthfully. Order: every writer was told, the seal says complete, the store says complete, the client hears it. So
 * "succeeded" is never ahead of the repository unless that could not be reached; then, and for whatever ended otherwise,
 * the catalog's row says that the seal is due, and it is written in the background, after a restart too. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"

#include "base/fault.h"
#include "base/log.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

enum {
    AT_ONCE = 64,
    PATIENCE_MS = 5000,        /* a job's end waits so long for its repositories; then the seal stays due */
    WAIT_FIRST_MS = 60 * 1000, /* after a repository could not be reached, doubled each time */
    WAIT_MOST_MS = 3600 * 1000,
};

/* --- what is asked, and what comes of it --- */

static json_t *seal_of(const json_t *backup)
{
    char now[CLOCK_RFC3339_SIZE];
    return json_pack("{s:i, s:s, s:b, s:s?, s:s, s:O?}", "version", 1, "backup_id", json_str(backup, "id", ""), "complete",
                     json_bool(backup, "complete", false), "reason", json_str(backup, "reason", NULL), "sealed_at",
                     clock_rfc3339(clock_real_ms(), now), "document", json_object_get(session_private(backup), "document"));
}

/* Arguments of the worker's operation; NULL when no repository of these rows is known. */
static json_t *seal_args(struct engine *engine, const json_t *rows)
{
    AUTO_JSON json_t *backups = json_array();
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        struct err err;
        json_t *one = backup_for_worker(engine, row, &err);
        if (!one)
            continue;
        json_put(one, "seal", seal_of(row));
        json_add(backups, one);
    }
    return json_array_size(backups) ? json_pack("{s:O}", "backups", backups) : NULL;
}

static size_t tell_failures(const struct worker_reply *reply)
{
    size_t i;
    const json_t *failed, *list = json_object_get(reply->result, "failed");
    json_array_foreach(list, i, failed)
        log_line(LOG_LEVEL_WARNING, NULL, "backup %s: its repository does not know yet how it ended; trying again later: %s",
                 json_str(failed, "backup_id", ""), json_str(failed, "reason", ""));
    if (reply->err)
        log_err(LOG_LEVEL_WARNING, NULL, reply->err, "repositories do not know yet how their backups ended; trying again later");
    return json_array_size(list) + (reply->err != NULL);
}

/* A row that says what was sealed is done; one that was removed or changed meanwhile is left alone. */
static void note_sealed(struct engine *engine, struct store_batch *batch, const json_t *rows, const json_t *sealed)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        AUTO_JSON json_t *now = NULL;
        const char *id = json_str(row, "id", "");
        if (!json_has_string(sealed, id) || backup_being_removed(engine, id) ||
            store_get(engine->store, STORE_BACKUP, id, &now, NULL, NULL) != STORE_OK ||
            json_bool(now, "complete", false) != json_bool(row, "complete", false) ||
            !str_eq(json_str(now, "reason", ""), json_str(row, "reason", "")))
            continue;
        catalog_put(batch, now, SEAL_WRITTEN);
    }
}

/* --- before a BackupComplete job ends --- */

static void sealed_before_end(void *arg, const struct worker_reply *reply)
{
    struct job *job = arg;
    struct task *task = TAKE_PTR(job->seal_task);
    loop_timer_stop(job->seal_patience);
    tell_failures(reply);
    (void)fault("engine.sealed");
    job->sealed = json_incref(json_object_get(reply->result, "sealed"));
    task->then(task);
}

static void impatient(void *arg)
{
    struct job *job = arg;
    struct task *task = TAKE_PTR(job->seal_task);
    const struct log_context context = job_log_context(job);
    log_line(LOG_LEVEL_WARNING, &context, "the repository does not answer: the job ends, and how it ended is told there later");
    worker_link_abandon(task->session->worker);
    task->then(task);
}

void seal_hurry(struct job *job)
{
    if (job->seal_task)
        loop_timer_set(job->seal_patience, 0);
}

/* The session as it will be once this job has succeeded. */
static json_t *completed_session(const struct task *task)
{
    json_t *draft = session_draft(task->session);
    if (json_is_array(task->job->outcome_writers))
        json_put(session_private(draft), "writer_status", json_incref(task->job->outcome_writers));
    session_set_state(draft, SESSION_COMPLETED);
    return draft;
}

bool seal_before_end(struct task *task, void (*then)(struct task *task))
{
    struct worker_link *worker = task->session->worker;
    if (task->job->state == JOB_CANCELLING || task->job->outcome.hr || !worker_link_alive(worker))
        return false;
    AUTO_JSON json_t *draft = completed_session(task);
    struct err err;
    AUTO_JSON json_t *rows = catalog_rows(task->engine, draft, &err); /* unreadable: the job's end will fail by it */
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) catalog_judge(task->engine, row, draft, NULL);
    json_t *args = seal_args(task->engine, rows);
    if (!args)
        return false;
    static const struct worker_handlers handlers = {.done = sealed_before_end};
    task->then = then;
    task->job->seal_task = task;
    task->job->seal_patience = loop_timer_new(task->engine->loop, impatient, task->job);
    loop_timer_set(task->job->seal_patience, PATIENCE_MS);
    worker_link_run(worker, "seal", args, &handlers, task->job);
    return true;
}

/* --- a phase of POST /backups --- */

static void sealed_after_complete(void *arg, const struct worker_reply *reply)
{
    struct job *job = arg;
    struct store_batch *batch = store_batch_new();
    tell_failures(reply);
    note_sealed(job->engine, batch, job->seal_rows, json_object_get(reply->result, "sealed"));
    store_submit(job->engine->store, batch, NULL, NULL); /* in order: before the job's end */
    lifecycle_sealed(job);
}

void seal_after_complete(struct job *job)
{
    struct err err;
    job->seal_rows = catalog_rows(job->engine, job->session->doc, &err); /* unreadable: the seal stays due */
    json_t *args = seal_args(job->engine, job->seal_rows);
    if (!args) {
        lifecycle_sealed(job);
        return;
    }
    static const struct worker_handlers handlers = {.done = sealed_after_complete};
    worker_link_run(session_worker(job->session), "seal", args, &handlers, job);
}

/* --- in the background --- */

struct sealer {
    struct engine *engine;
    struct worker_link *worker;
    json_t *rows;
};

static void rest_noted(void *arg, const struct err *err)
{
    struct engine *engine = arg;
    if (err)
        log_err(LOG_LEVEL_WARNING, NULL, err, "the catalog cannot note what was sealed");
    else if (!engine->seal_wait_ms)
        seal_rest(engine); /* there may be more */
}

static void rest_sealed(void *arg, const struct worker_reply *reply)
{
    struct sealer *sealer = arg;
    struct engine *engine = sealer->engine;
    struct store_batch *batch = store_batch_new();
    note_sealed(engine, batch, sealer->rows, json_object_get(reply->result, "sealed"));
    if (tell_failures(reply)) {
        engine->seal_wait_ms = engine->seal_wait_ms ? 2 * engine->seal_wait_ms : WAIT_FIRST_MS;
        if (engine->seal_wait_ms > WAIT_MOST_MS)
            engine->seal_wait_ms = WAIT_MOST_MS;
        engine->seal_again_ms = clock_mono_ms() + engine->seal_wait_ms;
    } else {
        engine->seal_wait_ms = 0;
    }
    seal_stop(engine);
    store_submit(engine->store, batch, rest_noted, engine);
}

/* A row whose session still works on it is the session's. */
static bool may_seal(struct engine *engine, const json_t *row)
{
    const char *session_id = json_str(row, "session_id", NULL);
    const struct session *session = session_id ? session_find(engine, session_id) : NULL;
    return !(session && session->pending) && !backup_being_removed(engine, json_str(row, "id", ""));
}

static json_t *rows_due(struct engine *engine)
{
    json_t *due = json_array();
    char after[UUID_SIZE] = "";
    for (bool more = true; more && json_array_size(due) < AT_ONCE;) {
        AUTO_JSON json_t *rows = NULL;
        const struct store_query query = {.kind = STORE_BACKUP, .state = "unsealed", .limit = AT_ONCE, .after = *after ? after : NULL};
        if (store_list(engine->store, &query, &rows, &more, NULL) != STORE_OK)
            break;
        size_t i;
        json_t *row;
        json_array_foreach(rows, i, row)
        {
            if (may_seal(engine, row))
                json_add(due, json_incref(row));
            str_copy(after, sizeof after, json_str(row, "id", ""));
        }
    }
    return due;
}

void seal_rest(struct engine *engine)
{
    if (engine->sealer || !engine->recovered || engine->draining || clock_mono_ms() < engine->seal_again_ms)
        return;
    json_t *rows = rows_due(engine);
    json_t *args = seal_args(engine, rows);
    if (!args) {
        json_decref(rows);
        return;
    }
    struct sealer *sealer = engine->sealer = mem_new(sizeof *sealer);
    *sealer = (struct sealer){engine, worker_link_new(engine->agent, NULL, NULL, NULL), rows};
    static const struct worker_handlers handlers = {.done = rest_sealed};
    worker_link_run(sealer->worker, "seal", args, &handlers, sealer);
}

void seal_stop(struct engine *engine)
{
    if (!engine->sealer)
        return;
    worker_link_close(engine->sealer->worker);
    json_decref(engine->sealer->rows);
    free(TAKE_PTR(engine->sealer));
}
