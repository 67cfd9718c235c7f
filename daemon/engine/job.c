/* Jobs: the record, the race between cancel and end, the end itself. */
#include "engine/engine_private.h"

#include <search.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"

/* Unreleased records live this long (design, section 5). */
static const int64_t JOB_RETENTION_MS = 30LL * 24 * 3600 * 1000;

static int job_compare(const void *a, const void *b)
{
    return strcmp(((const struct job *)a)->id, ((const struct job *)b)->id);
}

struct job *job_find(struct engine *engine, const char *id)
{
    struct job key;
    if (!id || !str_copy(key.id, sizeof key.id, id))
        return NULL;
    struct job **found = tfind(&key, &engine->jobs, job_compare);
    return found ? *found : NULL;
}

bool engine_job_is_pending(struct engine *engine, const char *job_id)
{
    const struct job *job = job_find(engine, job_id);
    return job && !job_state_terminal(job->state);
}

void engine_observe_jobs(struct engine *engine, engine_job_observer_fn observer, void *arg)
{
    engine->observer = observer;
    engine->observer_arg = arg;
}

void job_notify(struct job *job)
{
    if (job->engine->observer)
        job->engine->observer(job->engine->observer_arg, job->id);
}

struct job *job_new(struct engine *engine, const struct job_kind *kind, struct session *session, json_t *doc)
{
    struct job *job = mem_new(sizeof *job);
    *job = (struct job){.engine = engine, .kind = kind, .session = session, .doc = doc, .refs = 1};
    str_copy(job->id, sizeof job->id, json_str(doc, "id", ""));
    tsearch(job, &engine->jobs, job_compare);
    engine->n_jobs++;
    return job;
}

void job_unref(struct job *job)
{
    if (--job->refs > 0)
        return;
    worker_link_close(job->worker);
    json_decref(job->doc);
    json_decref(job->progress);
    json_decref(job->args);
    json_decref(job->outcome_result);
    json_decref(job->outcome_writers);
    json_decref(job->cleanup);
    free(job);
}

/* --- record and view --- */

json_t *job_record(struct engine *engine, const struct job_kind *kind, const struct session *session, const char *owner)
{
    (void)engine;
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE];
    uuid_v7(id);
    int64_t created = clock_real_ms();
    return json_pack("{s:s, s:s, s:s?, s:s, s:s, s:s, s:n, s:s, s:n, s:n, s:n, s:n, s:n, s:b, s:s, s:{s:I}}", "id", id, "operation",
                     kind->name, "session_id", session ? session->id : NULL, "state", "pending", "hresult", "VSS_S_ASYNC_PENDING", "code",
                     "0x00042309", "progress", "created_at", clock_rfc3339(created, now), "started_at", "finished_at", "expires_at", "result",
                     "error", "cancellable", 1, "owner", owner, "_", "created_ms", (json_int_t)created);
}

static json_t *view_doc(json_t *doc)
{
    json_t *view = json_copy(doc);
    json_object_del(view, "_");
    char self[64];
    str_format(self, sizeof self, "/jobs/%s", json_str(doc, "id", ""));
    json_t *links = json_pack("{s:{s:s}}", "self", "href", self);
    const char *session_id = json_str(doc, "session_id", NULL);
    if (session_id) {
        char href[64];
        str_format(href, sizeof href, "/sessions/%s", session_id);
        json_put(links, "session", json_pack("{s:s}", "href", href));
    }
    json_put(view, "_links", links);
    return view;
}

json_t *job_view(struct job *job)
{
    json_t *view = view_doc(job->doc);
    json_put(view, "state", json_string(job_state_name(job->state)));
    if (job->progress)
        json_put(view, "progress", json_incref(job->progress));
    return view;
}

static json_t *view_row(struct engine *engine, json_t *doc)
{
    struct job *job = job_find(engine, json_str(doc, "id", ""));
    return job ? job_view(job) : view_doc(doc);
}

void job_batch_put(struct store_batch *batch, const json_t *doc)
{
    const json_t *own = session_private(doc);
    const struct store_record record = {
        .id = json_str(doc, "id", ""),
        .session_id = json_str(doc, "session_id", NULL),
        .owner = json_str(doc, "owner", NULL),
        .state = json_str(doc, "state", NULL),
        .operation = json_str(doc, "operation", NULL),
        .created_ms = json_int(own, "created_ms", 0),
        .expires_ms = json_int(own, "expires_ms", 0),
        .hidden = json_bool(own, "released", false),
        .doc = (json_t *)doc,
    };
    store_batch_put(batch, STORE_JOB, &record);
}

void job_put_error(json_t *draft_job, const struct err *err, json_t *writers)
{
    json_t *error = err_to_json(err);
    if (json_is_array(writers))
        json_put(error, "writers", json_incref(writers));
    json_put(draft_job, "error", error);
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
    json_put(draft, "expires_at", json_string(clock_rfc3339(now + JOB_RETENTION_MS, text)));
    json_t *own = json_copy(session_private(draft));
    json_put(own, "expires_ms", json_integer(now + JOB_RETENTION_MS));
    json_put(draft, "_", own);
    if (job->progress)
        json_put(draft, "progress", json_incref(job->progress));
    if (err)
        job_put_error(draft, err, job->outcome_writers);
    if (job->cleanup) {
        if (!json_is_object(json_object_get(draft, "result")))
            json_put(draft, "result", json_object());
        json_put(json_object_get(draft, "result"), "cleanup", json_incref(job->cleanup));
    }
}

void job_progress(struct job *job, json_t *progress)
{
    json_decref(job->progress);
    job->progress = json_incref(progress);
}

/* --- admission and creation --- */

int job_admit(struct engine *engine, struct err *err)
{
    int64_t most = json_int(json_object_get(engine->config, "limits"), "jobs", 1000);
    if (engine->draining)
        return err_set(err, E_OUTOFMEMORY, "Try again in a moment.", "the service is stopping");
    if ((int64_t)engine->n_jobs >= most || fault("engine.jobs.full"))
        return err_set(err, E_OUTOFMEMORY, "Wait until a pending job has ended, or raise limits.jobs.",
                       "the job table is full: %zu jobs are pending", engine->n_jobs);
    return 0;
}

static void job_created(struct task *task, const struct err *err)
{
    struct job *job = task->job;
    if (err) {
        incident(task->engine, task->session ? task->session->id : NULL, job->id, NULL, err->hr, err->text);
        if (task->session)
            task->session->pending = NULL;
        tdelete(job, &task->engine->jobs, job_compare);
        task->engine->n_jobs--;
        job->refs--;
        if (task->session)
            session_lease_renew(task->session);
        task_fail(task, err);
        return;
    }
    char now[CLOCK_RFC3339_SIZE];
    job->state = JOB_RUNNING; /* not durable: a crash makes it interrupted all the same */
    json_put(job->doc, "started_at", json_string(clock_rfc3339(clock_real_ms(), now)));
    str_format(task->location, sizeof task->location, "/jobs/%s", job->id);
    task->retry_after = 1;
    job->refs++;
    task_answer(task, 202, job_view(job));
    void (*started)(struct job *) = job->started;
    started(job);
    job_unref(job);
}

void job_create(struct task *task, const struct job_kind *kind, json_t *args, void (*started)(struct job *job))
{
    struct session *session = task->session;
    json_t *doc = job_record(task->engine, kind, session, task->request->principal->name);
    struct job *job = job_new(task->engine, kind, session, doc);
    job->args = args;
    if (session) {
        session->pending = job;
        session_lease_pause(session);
    }
    task_hold_job(task, job);
    task->draft_job = json_deep_copy(doc);
    job->started = started;
    task->committed = job_created;
    task_commit(task, NULL);
}

/* --- the way to the worker and back --- */

static void worker_progress(void *arg, json_t *progress)
{
    job_progress(arg, progress);
}

static void worker_done(void *arg, const struct worker_reply *reply)
{
    job_finish(arg, reply);
}

static const struct worker_handlers job_handlers = {.progress = worker_progress, .done = worker_done};

void job_run_on_session_worker(struct job *job)
{
    json_t *args = job->kind->args ? job->kind->args(job) : json_object();
    struct worker_link *worker = job->session ? session_worker(job->session) : job->worker;
    if (!worker)
        worker = job->worker = worker_link_new(job->engine->agent, NULL, NULL, NULL);
    worker_link_run(worker, job->kind->worker_operation, args, &job_handlers, job);
}

/* --- the end --- */

void job_ended(struct job *job)
{
    struct engine *engine = job->engine;
    struct session *session = job->session;
    if (session && session->pending == job)
        session->pending = NULL;
    tdelete(job, &engine->jobs, job_compare);
    engine->n_jobs--;
    worker_link_close(TAKE_PTR(job->worker));
    job_notify(job);
    while (job->parked) {
        struct task *task = job->parked;
        job->parked = task->next;
        task_start(task, task->serial, task->run);
    }
    job_unref(job);
}

static void end_committed(struct task *task, const struct err *err)
{
    struct job *job = task->job;
    struct session *session = task->session;
    if (err) {
        /* The store refused: nothing may look better than it is. Memory says failed; housekeeping writes it later. */
        incident(task->engine, session ? session->id : NULL, job->id, NULL, VSS_E_UNEXPECTED, err->text);
        json_t *doc = json_copy(job->doc);
        json_put(doc, "result", json_null());
        job_conclude(job, doc, JOB_FAILED, err);
        json_decref(job->doc);
        job->doc = doc;
        job->state = JOB_FAILED;
        job->unsaved = true;
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
    if (job->unsaved)
        job_notify(job);
    else
        job_ended(job);
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
    bool aborts = (cancelled && kind->cancel_aborts) || (failed && kind->failure_aborts) ||
                  (session && session->worker && !worker_link_alive(session->worker));
    task->draft_job = json_copy(job->doc);
    if (session)
        task->draft = session_draft(session);
    if (session && json_is_array(job->outcome_writers))
        json_put(session_private(task->draft), "writer_status", json_incref(job->outcome_writers));
    if (!cancelled && !failed && kind->apply)
        kind->apply(task, job->outcome_result, batch);
    if (session && aborts) {
        session_set_state(task->draft, SESSION_ABORTED);
        json_put(task->draft, "reason", json_string(cancelled ? "cancelled" : failed ? "failed" : "worker_lost"));
        snapshots_batch_remove(task->engine, batch, session->doc);
        catalog_mark(task->engine, batch, session->doc, false, cancelled ? "BackupComplete was cancelled" : "BackupComplete failed");
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
    const struct log_context context = {.session_id = session ? session->id : NULL, .job_id = job->id};
    if (failed && !cancelled)
        log_err(LOG_LEVEL_WARNING, &context, &job->outcome, "%s failed", kind->name);
    else
        log_line(LOG_LEVEL_INFO, &context, "%s %s", kind->name, cancelled ? "cancelled" : "succeeded");
    job_commit_end(task, batch);
}

static void undone(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    json_t *cleanup = json_object_get(reply->result, "cleanup");
    if (json_is_object(cleanup))
        task->job->cleanup = json_incref(cleanup);
    json_t *writers = reply->writers ? reply->writers : json_object_get(reply->result, "writers");
    if (json_is_array(writers)) {
        json_decref(task->job->outcome_writers);
        task->job->outcome_writers = json_incref(writers);
    }
    conclude(task);
}

/* Under the serial: from here on the outcome is decided, a later DELETE finds it ended. */
static void finish(struct task *task)
{
    struct job *job = task->job;
    bool cancelled = job->state == JOB_CANCELLING;
    bool failed = job->outcome.hr != 0;
    bool undo = (cancelled && job->kind->cancel_aborts) || (!cancelled && failed && job->kind->failure_aborts);
    static const struct worker_handlers handlers = {.done = undone};
    if (undo && task->session && worker_link_alive(task->session->worker))
        worker_link_run(task->session->worker, "abort", json_pack("{s:s}", "reason", cancelled ? "cancelled" : "failed"), &handlers, task);
    else
        conclude(task);
}

void job_finish(struct job *job, const struct worker_reply *reply)
{
    if (job->finishing)
        return;
    job->finishing = true;
    if (reply->err)
        job->outcome = *reply->err;
    json_t *writers = reply->writers ? reply->writers : json_object_get(reply->result, "writers");
    job->outcome_result = json_incref(reply->result);
    job->outcome_writers = json_incref(writers);
    json_t *cleanup = json_object_get(reply->result, "cleanup");
    if (json_is_object(cleanup))
        job->cleanup = json_incref(cleanup);
    struct task *task = task_new(job->engine, NULL, NULL, NULL);
    task->session = job->session;
    task_hold_job(task, job);
    task_start(task, job->session ? &job->session->serial : &job->own, finish);
}

/* --- read --- */

static int job_stored(struct engine *engine, const struct engine_request *request, json_t **ret_doc, bool *ret_released, struct err *err)
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

static void answer_released(const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    err_set(&err, VSS_E_OBJECT_NOT_FOUND, NULL, "job %s was released", request->id);
    const struct engine_answer gone = {.err = &err, .status_override = 410};
    answer(arg, &gone);
}

void engine_job_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct job *job = job_find(engine, request->id);
    if (job && !json_bool(session_private(job->doc), "released", false) &&
        principal_sees(request->principal, json_str(job->doc, "owner", ""))) {
        answer_body(answer, arg, 200, job_view(job));
        return;
    }
    struct err err;
    AUTO_JSON json_t *doc = NULL;
    bool released;
    if (job_stored(engine, request, &doc, &released, &err))
        answer_error(answer, arg, &err);
    else if (released)
        answer_released(request, answer, arg);
    else
        answer_body(answer, arg, 200, view_doc(doc));
}

void engine_job_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_JOB, .state = json_str(request->query, "state", NULL),
                                .operation = json_str(request->query, "operation", NULL),
                                .session_id = json_str(request->query, "session", NULL)};
    list_answer(engine, request, answer, arg, &query, view_row);
}

/* --- cancel --- */

void job_start_cancel(struct job *job)
{
    struct worker_link *worker = job->session ? job->session->worker : job->worker;
    if (job->lifecycle)
        lifecycle_cancel(job);
    if (worker)
        worker_link_cancel(worker);
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
    task_answer(task, 202, cancel_view(job_view(task->job), "S_OK"));
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
    if (job->state == JOB_CANCELLING) {
        task->retry_after = 1;
        task_answer(task, 202, cancel_view(job_view(job), "VSS_S_ASYNC_CANCELLED"));
        return;
    }
    task->draft_job = json_copy(job->doc);
    json_put(task->draft_job, "state", json_string("cancelling"));
    task->committed = cancel_committed;
    task_commit(task, NULL);
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
        answer_released(request, answer, arg);
    } else if (!job) {
        answer_cancel_ended(answer, arg, view_doc(doc));
    } else {
        struct task *task = task_new(engine, request, answer, arg);
        task->session = job->session;
        task_hold_job(task, job);
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

/* --- release (IUnknown::Release) --- */

static void release_committed(struct task *task, const struct err *err)
{
    if (err)
        task_fail(task, err);
    else
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
    json_put(task->draft_job, "state", json_string(job_state_name(task->job->state == JOB_RUNNING ? JOB_PENDING : task->job->state)));
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
    task->committed = release_committed;
    task_commit(task, batch);
}
