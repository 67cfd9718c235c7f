/* DELETE of a session (IUnknown::Release): the pending job is cancelled, auto-release snapshots go, writers hear
 * BackupShutdown. What is quick answers 204; when it takes long a job is announced with 202, and the work goes on. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"

#include "base/loop.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

enum { PATIENCE_MS = 1000 }; /* a caller is kept waiting so long for its 204 */

struct release {
    struct task *task; /* the call: on the session's serial until everything is let go */
    struct loop_timer *patience;
    struct job *job;   /* from its announcement on */
    bool announcing;   /* the job's record is on its way into the store */
    bool let_go;       /* the workers' part ended while announcing */
};

const struct job_kind job_kind_release = {.name = "Release", .uncancellable = true};

void release_free(struct release *release, const struct task *task)
{
    if (!release || release->task != task)
        return;
    loop_timer_free(release->patience);
    free(release);
}

/* --- the end --- */

static void deleted(struct task *task, const struct err *err)
{
    struct session *session = task->session;
    if (session->pending == task->job)
        session->pending = NULL;
    if (err) {
        incident(task->engine, session->id, task->job ? task->job->id : NULL, NULL, err->hr, err->text);
        if (task->job)
            job_end_unsaved(task->job, err);
        session_lease_renew(session);
        task_fail(task, err);
        return;
    }
    freeze_leave(session);
    worker_link_close(TAKE_PTR(session->worker));
    session_lease_pause(session);
    slot_release(session);
    session->gone = session->deleted = true;
    seal_rest(task->engine);
    if (task->job)
        job_ended(task->job);
    task_answer(task, 204, NULL);
}

static void conclude(struct task *task, size_t left)
{
    struct err err;
    err_set(&err, VSS_E_UNEXPECTED, "result.cleanup.failed says what and why; the next start of the service tries again.",
            "Release: the session is gone, but %zu of what it held could not be removed", left);
    str_copy(err.reason, sizeof err.reason, "left_behind");
    task->draft_job = json_copy(task->job->doc);
    job_conclude(task->job, task->draft_job, left ? JOB_FAILED : JOB_SUCCEEDED, left ? &err : NULL);
}

static void commit_release(struct release *release)
{
    struct task *task = release->task;
    struct session *session = task->session;
    struct store_batch *batch = store_batch_new();
    loop_timer_stop(release->patience);
    store_batch_delete(batch, STORE_SESSION, session->id);
    catalog_mark(task->engine, batch, session->doc, "the session was released before BackupComplete had succeeded", NULL);
    if (release->job) {
        task_hold_job(task, release->job);
        release->job->cleanup = TAKE_PTR(task->cleanup);
    }
    size_t left = leftovers_tell(task);
    snapshots_batch_remove(batch, session->doc, json_object_get(*cleanup_of(task), "failed"));
    const struct store_event event = {.type = "session.released", .session_id = session->id, .owner = json_str(session->doc, "owner", NULL)};
    AUTO_JSON json_t *data = json_pack("{s:s}", "state", "released");
    store_batch_event(batch, &event, data);
    if (release->job)
        conclude(task, left);
    task->committed = deleted;
    task_commit(task, batch);
}

/* --- the workers' part --- */

/* What could not be removed is in the cleanup, an incident, and for the next start to find. */
static void released(struct task *task)
{
    struct release *release = task->release;
    if (release->announcing)
        release->let_go = true;
    else
        commit_release(release);
}

/* --- the announcement --- */

static void announced(struct task *step, const struct err *err)
{
    struct release *release = step->release;
    struct task *task = release->task;
    struct job *job = release->job;
    release->announcing = false;
    if (err) {
        incident(step->engine, task->session->id, NULL, NULL, err->hr, err->text);
        release->job = NULL;
        job_forget(job);
        job->refs--; /* the step's own is left */
    } else {
        job_started(job);
        if (!task->session->pending)
            task->session->pending = job;
        AUTO_JSON json_t *view = job_view(job);
        struct engine_answer answer = {.status = 202, .body = view, .retry_after = 1};
        str_format(answer.location, sizeof answer.location, "/jobs/%s", job->id);
        task->answer(task->answer_arg, &answer);
        task->answer = NULL;
        task->request = NULL; /* it ends with its answer */
    }
    task_done(step);
    if (release->let_go)
        commit_release(release);
}

static void announce(void *arg)
{
    struct release *release = arg;
    struct task *task = release->task;
    if (job_admit(task->engine, NULL))
        return; /* no room for a job: the caller waits */
    json_t *doc = job_record(task->engine, &job_kind_release, task->session, task->request->principal->name);
    job_origin(doc, task->request);
    release->job = job_new(task->engine, &job_kind_release, task->session, doc);
    release->announcing = true;
    struct task *step = task_new(task->engine, NULL, NULL, NULL);
    step->release = release;
    task_hold_job(step, release->job);
    step->draft_job = job_draft_started(doc);
    step->committed = announced;
    task_commit(step, NULL);
}

/* --- the call --- */

static void run_delete(struct task *task)
{
    struct session *session = task->session;
    struct release *release = task->release;
    if (!release) {
        release = task->release = mem_new(sizeof *release);
        *release = (struct release){.task = task};
        release->patience = loop_timer_new(task->engine->loop, announce, release);
        loop_timer_set(release->patience, PATIENCE_MS);
    }
    if (session->pending) {
        job_abort_then(task, run_delete); /* comes back when it has ended */
        return;
    }
    if (release->job && !release->announcing)
        session->pending = release->job;
    session_undo(task, NULL, true, released); /* BackupShutdown, and no Abort (vss-model 2.5) */
}

static void stored_deleted(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->request->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    task_answer(task, 204, NULL);
}

void engine_session_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    if (session_find(engine, request->id)) {
        session_cancel_now(engine, request);
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
    task->committed = stored_deleted;
    task_commit(task, batch);
}
