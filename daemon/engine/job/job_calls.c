/* Jobs as resources: read, list, release. */
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

int job_stored(struct engine *engine, const struct engine_request *request, json_t **ret_doc, bool *ret_released, struct err *err)
{
    *ret_released = false;
    enum store_result result = store_get(engine->store, STORE_JOB, request->id, ret_doc, ret_released, err);
    if (result == STORE_ERROR)
        return -1;
    if (result == STORE_OK && principal_sees(request->principal, json_str(*ret_doc, "owner", "")))
        return 0;
    json_decref(*ret_doc);
    *ret_doc = NULL;
    return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /jobs lists what there is.", "job %s: no such job", request->id);
}

void answer_job_released(const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    err_set(&err, VSS_E_OBJECT_NOT_FOUND, "A released job cannot be asked any more; GET /jobs lists those that can.", "job %s was released", request->id);
    const struct engine_answer gone = {.err = &err, .status_override = 410};
    answer(arg, &gone);
}

/* Written out once until it changes: ended jobs are asked for again and again. */
static void answer_stored(struct engine *engine, json_t *doc, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *view = job_view_doc(doc);
    AUTO_FREE char *text = json_dumps(view, JSON_SHOWN);
    if (text)
        store_keep(engine->store, STORE_JOB, json_str(doc, "id", ""), json_str(doc, "owner", ""), text);
    const struct engine_answer done = {.status = 200, .body = view, .text = text};
    answer(arg, &done);
}

void engine_job_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct job *job = job_find(engine, request->id);
    bool gone = job && job_state_terminal(job->state) && json_bool(session_private(job->doc), "released", false);
    if (job && !gone && principal_sees(request->principal, json_str(job->doc, "owner", ""))) {
        answer_body(answer, arg, 200, job_view(job));
        return;
    }
    const char *owner = NULL, *kept = job ? NULL : store_kept(engine->store, STORE_JOB, request->id, &owner);
    if (kept && principal_sees(request->principal, owner)) {
        const struct engine_answer ready = {.status = 200, .text = kept};
        answer(arg, &ready);
        return;
    }
    struct err err;
    AUTO_JSON json_t *doc = NULL;
    bool released;
    if (job_stored(engine, request, &doc, &released, &err))
        answer_error(answer, arg, &err);
    else if (released)
        answer_job_released(request, answer, arg);
    else
        answer_stored(engine, doc, answer, arg);
}

static json_t *view_row(struct engine *engine, json_t *doc)
{
    struct job *job = job_find(engine, json_str(doc, "id", ""));
    return job ? job_view(job) : job_view_doc(doc);
}

void engine_job_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_JOB, .state = json_str(request->query, "state", NULL),
                                .operation = json_str(request->query, "operation", NULL),
                                .session_id = json_str(request->query, "session", NULL)};
    list_answer(engine, request, answer, arg, &query, view_row);
}

/* --- release (IUnknown::Release) --- */

static void release_committed(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session ? task->session->id : NULL, task->request->id, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    task_answer(task, 204, NULL);
}

static json_t *released_record(const json_t *doc)
{
    json_t *draft = json_copy((json_t *)doc);
    json_t *own = json_copy(session_private(doc));
    json_put(own, "released", json_true());
    json_put(draft, "_", own);
    return draft;
}

static void run_release(struct task *task)
{
    task->draft_job = released_record(task->job->doc);
    json_put(task->draft_job, "state", json_string(job_state_name(task->job->state)));
    task->status = 204;
    task->committed = release_committed;
    task_commit(task, NULL);
}

void engine_job_release(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
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
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    if (job) {
        task->session = job->session;
        task_hold_job(task, job);
        task_start(task, job->session ? &job->session->serial : &job->own, run_release);
        return;
    }
    if (released) {
        task_answer(task, 204, NULL);
        return;
    }
    AUTO_JSON json_t *draft = released_record(doc);
    struct store_batch *batch = store_batch_new();
    job_batch_put(batch, draft);
    task->status = 204;
    task->committed = release_committed;
    task_commit(task, batch);
}
