/* How a job ends: the worker's word, what is undone, one durable terminal record. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"

#include "base/fault.h"
#include "base/log.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

static void put_error(json_t *draft_job, const struct err *err, json_t *writers)
{
    json_t *error = err_to_json(err);
    if (json_is_array(writers))
        json_put(error, "writers", json_incref(writers));
    json_put(draft_job, "error", error);
}

/* The newest word of the worker is up to a fifth of a second old: what succeeded has done all of it. Of other ends it tells how far it came. */
static json_t *final_progress(const struct job *job, const json_t *result, enum job_state state)
{
    static const char *const counts[] = {"bytes", "files"};
    json_t *progress = json_copy(job->progress);
    for (size_t i = 0; state == JOB_SUCCEEDED && i < ELEMENTS(counts); i++) {
        char done[16], all[16];
        str_format(done, sizeof done, "%s_done", counts[i]);
        str_format(all, sizeof all, "%s_total", counts[i]);
        json_t *told = json_object_get(result, counts[i]), *count = json_is_integer(told) ? told : json_object_get(progress, all);
        if (!count || !(json_object_get(progress, done) || json_object_get(progress, all)))
            continue;
        json_put(progress, done, json_incref(count));
        if (json_object_get(progress, all))
            json_put(progress, all, json_incref(count));
    }
    return progress;
}

void job_conclude(struct job *job, json_t *draft, enum job_state state, const struct err *err)
{
    char text[CLOCK_RFC3339_SIZE], hex[11];
    int64_t now = clock_real_ms();
    uint32_t hr = job_hresult(state, err ? err->hr : (uint32_t)VSS_E_UNEXPECTED);
    hresult_hex(hr, hex);
    json_put(draft, "state", json_string(job_state_name(state)));
    json_put(draft, "hresult", json_string(hresult_name(hr)));
    json_put(draft, "code", json_string(hex));
    json_put(draft, "cancellable", json_false());
    json_put(draft, "finished_at", json_string(clock_rfc3339(now, text)));
    int64_t expires = now + retention_ms(job->engine);
    json_put(draft, "expires_at", json_string(clock_rfc3339(expires, text)));
    json_t *own = json_copy(session_private(draft));
    json_put(own, "expires_ms", json_integer(expires));
    json_put(draft, "_", own);
    if (job->progress)
        json_put(draft, "progress", final_progress(job, json_object_get(draft, "result"), state));
    if (err)
        put_error(draft, err, job->outcome_writers);
    if (job->cleanup) {
        if (!json_is_object(json_object_get(draft, "result")))
            json_put(draft, "result", json_object());
        json_put(json_object_get(draft, "result"), "cleanup", json_incref(job->cleanup));
    }
}

static void wake_parked(struct job *job)
{
    while (job->parked) {
        struct task *task = job->parked;
        job->parked = task->next;
        task_start(task, task->serial, task->run);
    }
}

void job_ended(struct job *job)
{
    struct session *session = job->session;
    if (session && session->pending == job)
        session->pending = NULL;
    figures_job_ended(job);
    job_forget(job);
    worker_link_close(TAKE_PTR(job->worker));
    job_notify(job);
    wake_parked(job);
    job_unref(job);
}

void job_end_unsaved(struct job *job, const struct err *err)
{
    json_t *doc = json_copy(job->doc);
    json_put(doc, "result", json_null());
    job_conclude(job, doc, JOB_FAILED, err);
    json_decref(job->doc);
    job->doc = doc;
    job->state = JOB_FAILED;
    job->unsaved = true;
    job->engine->n_unsaved++;
    job_notify(job);
}

static void end_committed(struct task *task, const struct err *err)
{
    struct job *job = task->job;
    struct session *session = task->session;
    if (err) {
        incident(task->engine, session ? session->id : NULL, job->id, NULL, VSS_E_UNEXPECTED, err->text);
        job_end_unsaved(job, err);
        if (session && (job->kind->failure_aborts || job->kind->cancel_aborts)) {
            json_t *aborted = session_draft(session);
            session_set_state(aborted, SESSION_ABORTED);
            json_put(aborted, "reason", json_string("store_failed"));
            json_decref(session->doc);
            session->doc = aborted;
        }
    }
    if (session) {
        session->pending = NULL;
        enum session_state state = session_state(session->doc);
        if (state != SESSION_SET_OPEN && state != SESSION_PREPARED)
            slot_release(session);
        if (!job->unsaved && (state == SESSION_ABORTED || state == SESSION_COMPLETED))
            session_ended(session);
        else
            session_lease_renew(session); /* what the store does not have yet stays readable here */
    }
    if (!job->unsaved)
        job_ended(job);
    else
        wake_parked(job); /* whoever waits is told what is known: the store may refuse for long, and the session be gone by then */
    task_done(task);
}

void job_commit_end(struct task *task, struct store_batch *batch)
{
    task->committed = end_committed;
    task_commit(task, batch);
}

static void conclude(struct task *task)
{
    struct job *job = task->job;
    const struct job_kind *kind = job->kind;
    struct session *session = task->session;
    struct store_batch *batch = store_batch_new();
    bool cancelled = job->state == JOB_CANCELLING;
    bool failed = job->outcome.hr != 0;
    bool lost = session && session->worker && !worker_link_alive(session->worker);
    freeze_cleanup(task);
    task->draft_job = json_copy(job->doc);
    if (session)
        task->draft = session_draft(session);
    if (session && json_is_array(job->outcome_writers))
        json_put(session_private(task->draft), "writer_status", json_incref(job->outcome_writers));
    if (session && kind->fold)
        kind->fold(task, job->outcome_result);
    if (!cancelled && !failed && kind->apply)
        kind->apply(task, job->outcome_result, batch);
    if (!cancelled && failed && kind->failed)
        kind->failed(task, job->outcome_result, batch);
    /* A worker that dies after BackupComplete was reached undoes nothing that was promised. */
    bool aborts = (cancelled && kind->cancel_aborts) || (failed && kind->failure_aborts) ||
                  (lost && session_state(task->draft) != SESSION_COMPLETED);
    if (session && aborts && session_state(session->doc) == SESSION_COMPLETED) { /* POST /backups, behind its complete phase */
        json_put(task->draft_job, "result", lifecycle_result(job));
        snapshots_batch_remove(batch, session->doc, json_object_get(job->cleanup, "failed"));
    } else if (session && aborts) {
        session_set_state(task->draft, SESSION_ABORTED);
        json_put(task->draft, "reason", json_string(cancelled ? "cancelled" : failed ? "failed" : "worker_lost"));
        snapshots_batch_remove(batch, session->doc, json_object_get(job->cleanup, "failed"));
        catalog_mark(task->engine, batch, session->doc, cancelled ? "the backup was cancelled before BackupComplete had succeeded"
                                                                  : "the backup failed before BackupComplete had succeeded", NULL);
    } else if (session && failed && !cancelled && kind->on_failure != SESSION_INITIALIZED) {
        session_set_state(task->draft, kind->on_failure);
    }
    if (cancelled) {
        struct err err;
        err_set(&err, (uint32_t)VSS_S_ASYNC_CANCELLED, NULL, "%s was cancelled", kind->name);
        job_conclude(job, task->draft_job, JOB_CANCELLED, &err);
    } else {
        job_conclude(job, task->draft_job, failed ? JOB_FAILED : JOB_SUCCEEDED, failed ? &job->outcome : NULL);
    }
    const struct log_context context = job_log_context(job);
    if (failed && !cancelled)
        log_err(LOG_LEVEL_WARNING, &context, &job->outcome, "%s failed", kind->name);
    else
        log_line(LOG_LEVEL_INFO, &context, "%s %s", kind->name, cancelled ? "cancelled" : "succeeded");
    leftovers_tell(task);
    job_commit_end(task, batch);
}

void job_take_cleanup(struct job *job, const struct worker_reply *reply)
{
    cleanup_take(&job->cleanup, json_object_get(reply->result, "cleanup"));
}

/* A worker lets go of persistent snapshots when it says that they are taken. A cancel that comes just then makes them nobody's. */
static bool left_snapshots(const struct job *job)
{
    const struct session_context *context = session_context_by_name(json_str(job->session->doc, "context", ""));
    return job->kind == &job_kind_snapshot && !job->outcome.hr && context && context->persistent;
}

static void undone(struct task *task)
{
    if (task->scratch) {
        json_decref(task->job->outcome_writers);
        task->job->outcome_writers = TAKE_PTR(task->scratch);
    }
    if (left_snapshots(task->job))
        leftovers_clear(task, conclude);
    else
        conclude(task);
}

static void settle(struct task *task)
{
    if (!task->job->kind->settle || !task->job->kind->settle(task, conclude))
        conclude(task);
}

/* Under the serial: from here on the outcome is decided, a later DELETE finds it ended. */
static void finish(struct task *task)
{
    struct job *job = task->job;
    bool cancelled = job->state == JOB_CANCELLING;
    bool failed = job->outcome.hr != 0;
    bool undo = (cancelled && job->kind->cancel_aborts) || (!cancelled && failed && job->kind->failure_aborts);
    bool dead = task->session && task->session->worker && !worker_link_alive(task->session->worker);
    bool left = task->session && !undo && cleanup_try_again(job->cleanup);
    if (dead || left)
        leftovers_clear(task, settle);
    else if (undo && task->session && worker_link_alive(task->session->worker))
        session_undo(task, cancelled ? "cancelled" : "failed", false, undone);
    else
        settle(task);
}

void job_finish(struct job *job, const struct worker_reply *reply)
{
    if (job->finishing)
        return;
    job->finishing = true;
    if (reply->err)
        job->outcome = *reply->err;
    else if (fault("engine.finish"))
        err_set(&job->outcome, VSS_E_UNEXPECTED, NULL, "%s: fault injected", job->kind->name);
    /* What GatherWriterMetadata calls writers are their documents, not their states. */
    json_t *writers = reply->writers || job->kind == &job_kind_metadata ? reply->writers : json_object_get(reply->result, "writers");
    job->outcome_result = json_incref(reply->result);
    job->outcome_writers = json_incref(writers);
    job_take_cleanup(job, reply);
    struct task *task = task_new(job->engine, NULL, NULL, NULL);
    task->session = job->session;
    task_hold_job(task, job);
    task_start(task, job->session ? &job->session->serial : &job->own, finish);
}
