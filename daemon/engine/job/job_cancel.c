/* DELETE of a job, and abort of a session whose job is pending: the race with the end is decided on the serial. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

void job_start_cancel(struct job *job)
{
    if (job->cancel_started)
        return;
    job->cancel_started = true;
    struct worker_link *worker = job->session ? job->session->worker : job->worker;
    if (job->lifecycle)
        lifecycle_cancel(job);
    if (worker)
        worker_link_cancel(worker);
}

void job_cancel_now(struct job *job)
{
    seal_hurry(job);
    bool frozen = job->session && job->session->frozen;
    if ((!frozen && !store_parked(job->engine->store)) || job->state != JOB_RUNNING || job->finishing || job->kind->uncancellable)
        return;
    job->state = JOB_CANCELLING;
    job->cancel_unrecorded = true;
    job_start_cancel(job);
}

static json_t *cancel_view(json_t *view, const char *cancel)
{
    json_put(view, "cancel", json_string(cancel));
    return view;
}

/* The table of DELETE for a job that has ended. */
static void answer_cancel_ended(engine_answer_fn answer, void *arg, json_t *view /* taken */)
{
    enum job_state state = JOB_FAILED;
    job_state_by_name(json_str(view, "state", ""), &state);
    if (state == JOB_CANCELLED) {
        answer_body(answer, arg, 200, cancel_view(view, "VSS_S_ASYNC_CANCELLED"));
        return;
    }
    struct err err;
    uint32_t hr = (uint32_t)VSS_E_UNEXPECTED;
    hresult_by_name(json_str(view, "hresult", ""), &hr);
    err_set(&err, hr, "Nothing was cancelled: the job had ended before.", "job %s has ended: %s", json_str(view, "id", ""),
            json_str(view, "state", ""));
    AUTO_JSON json_t *extra = json_pack("{s:s, s:s}", "job", json_str(view, "id", ""), "state", json_str(view, "state", ""));
    const struct engine_answer refused = {.err = &err, .status_override = 409, .extra = extra};
    answer(arg, &refused);
    json_decref(view);
}

static void cancel_committed(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session ? task->session->id : NULL, task->job->id, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    job_start_cancel(task->job);
    job_notify(task->job);
    task->retry_after = 1;
    task_answer(task, 202, cancel_view(job_view(task->job), json_string_value(task->scratch)));
}

static void run_cancel(struct task *task)
{
    struct job *job = task->job;
    if (job_state_terminal(job->state)) {
        engine_answer_fn answer = task->answer;
        answer_cancel_ended(answer, task->answer_arg, job_view(job));
        task->answer = NULL;
        task_done(task);
        return;
    }
    bool first = job->state != JOB_CANCELLING || job->cancel_unrecorded;
    if (!first && !store_parked(job->engine->store)) {
        task->retry_after = 1;
        task_answer(task, 202, cancel_view(job_view(job), "VSS_S_ASYNC_CANCELLED"));
        return;
    }
    job->cancel_unrecorded = false;
    task->scratch = json_string(first ? "S_OK" : "VSS_S_ASYNC_CANCELLED");
    task->draft_job = json_copy(job->doc);
    json_put(task->draft_job, "state", json_string("cancelling"));
    task->committed = cancel_committed;
    task_commit(task, NULL);
}

static void answer_not_cancellable(engine_answer_fn answer, void *arg, const struct job *job)
{
    struct err err;
    err_set(&err, VSS_S_ASYNC_PENDING, "Wait for it: GET /jobs/{id}?wait=60.", "job %s: %s cannot be cancelled", job->id, job->kind->name);
    const struct engine_answer refused = {.err = &err, .status_override = 409};
    answer(arg, &refused);
}

void engine_job_cancel(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    struct job *job = job_find(engine, request->id);
    AUTO_JSON json_t *doc = NULL;
    bool released = false;
    if (job && principal_sees(request->principal, json_str(job->doc, "owner", ""))) {
        doc = json_incref(job->doc);
    } else if (job_stored(engine, request, &doc, &released, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    if (!principal_may_change(request->principal, json_str(doc, "owner", ""))) {
        err_set(&err, E_ACCESSDENIED, NULL, "job %s belongs to another principal", request->id);
        answer_error(answer, arg, &err);
    } else if (released) {
        answer_job_released(request, answer, arg);
    } else if (!job) {
        answer_cancel_ended(answer, arg, job_view_doc(doc));
    } else if (job->kind->uncancellable && !job_state_terminal(job->state)) {
        answer_not_cancellable(answer, arg, job);
    } else {
        struct task *task = task_new(engine, request, answer, arg);
        task->session = job->session;
        task_hold_job(task, job);
        job_cancel_now(job);
        task_start(task, job->session ? &job->session->serial : &job->own, run_cancel);
    }
}

/* --- abort of a session whose job is pending --- */

static void abort_cancel_committed(struct task *task, const struct err *err)
{
    struct job *job = task->job;
    if (err) {
        incident(task->engine, task->session->id, job->id, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    json_decref(TAKE_PTR(task->draft_job));
    job_start_cancel(job);
    task->job = NULL;
    task->committed = NULL;
    task->next = job->parked;
    job->parked = task;
    task_park(task);
    job_unref(job);
}

void job_abort_then(struct task *task, void (*then)(struct task *task))
{
    struct job *job = task->session->pending;
    task->run = then;
    task_hold_job(task, job);
    if (job->state == JOB_CANCELLING || job_state_terminal(job->state)) {
        job->cancel_unrecorded = false; /* this call is the one that cancelled it */
        task->job = NULL;
        task->next = job->parked;
        job->parked = task;
        job->refs--;
        task_park(task);
        return;
    }
    task->draft_job = json_copy(job->doc);
    json_put(task->draft_job, "state", json_string("cancelling"));
    task->committed = abort_cancel_committed;
    task_commit(task, NULL);
}
