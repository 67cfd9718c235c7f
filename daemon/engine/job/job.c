/* Jobs: the record and its view, admission, creation, the way to the worker. */
#include "engine/engine_private.h"

#include <search.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

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
    notice_job(job);
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

void job_forget(struct job *job)
{
    tdelete(job, &job->engine->jobs, job_compare);
    job->engine->n_jobs--;
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
    json_decref(job->seal_rows);
    loop_timer_free(job->seal_patience);
    json_decref(job->sealed);
    free(job);
}

/* --- record and view --- */

json_t *job_record(struct engine *engine, const struct job_kind *kind, const struct session *session, const char *owner)
{
    (void)engine;
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE];
    uuid_v7(id);
    int64_t created = clock_real_ms();
    return json_pack("{s:s, s:s, s:s?, s:s?, s:s, s:s, s:s, s:n, s:s, s:n, s:n, s:n, s:n, s:n, s:b, s:s, s:{s:I}}", "id", id, "operation",
                     kind->name, "session_id", session ? session->id : NULL, "label", session ? json_str(session->doc, "label", NULL) : NULL, "state", "pending", "hresult", "VSS_S_ASYNC_PENDING", "code",
                     "0x00042309", "progress", "created_at", clock_rfc3339(created, now), "started_at", "finished_at", "expires_at", "result",
                     "error", "cancellable", !kind->uncancellable, "owner", owner, "_", "created_ms", (json_int_t)created);
}

static const char *const origins[] = {"request_id", "traceparent", "trace_id"};

void job_origin(json_t *doc, const struct engine_request *request)
{
    const char *const values[] = {request->request_id, request->traceparent, request->trace_id};
    for (size_t i = 0; i < ELEMENTS(origins); i++)
        if (values[i] && *values[i])
            json_put(session_private(doc), origins[i], json_string(values[i]));
}

void job_trace(const struct job *job, json_t *args)
{
    json_t *trace = json_object(), *value;
    for (size_t i = 0; i < ELEMENTS(origins); i++)
        if ((value = json_object_get(session_private(job->doc), origins[i])))
            json_put(trace, origins[i], json_incref(value));
    json_put(args, "trace", trace);
}

struct log_context job_log_context(const struct job *job)
{
    const json_t *own = session_private(job->doc);
    return (struct log_context){.session_id = job->session ? job->session->id : NULL, .job_id = job->id,
                                .request_id = json_str(own, "request_id", NULL), .trace_id = json_str(own, "trace_id", NULL)};
}

json_t *job_view_doc(json_t *doc)
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
    json_t *view = job_view_doc(job->doc);
    json_put(view, "state", json_string(job_state_name(job->state)));
    if (job->progress && !job_state_terminal(job->state))
        json_put(view, "progress", json_incref(job->progress));
    return view;
}

/* An event is told once: the record keeps which one was the last, so that a commit that changes nothing of it tells nothing. */
static bool is_news(json_t *doc, const char *type)
{
    AUTO_FREE char *told = str_new("%s %s %s", type, json_str(doc, "state", ""), json_str(doc, "hresult", ""));
    if (str_eq(told, json_str(session_private(doc), "told", "")))
        return false;
    json_t *own = json_copy(session_private(doc)); /* it may be the committed record's, too */
    json_put(own, "told", json_string(told));
    json_put(doc, "_", own);
    return true;
}

void job_batch_put(struct store_batch *batch, json_t *doc)
{
    const json_t *own = session_private(doc);
    enum job_state state;
    bool hidden = json_bool(own, "released", false) && job_state_by_name(json_str(doc, "state", ""), &state) && job_state_terminal(state);
    const char *type = hidden ? "job.released" : "job.changed";
    bool news = is_news(doc, type);
    own = session_private(doc);
    const struct store_record record = {
        .id = json_str(doc, "id", ""),
        .session_id = json_str(doc, "session_id", NULL),
        .job_id = json_str(own, "volume", NULL),
        .owner = json_str(doc, "owner", NULL),
        .state = json_str(doc, "state", NULL),
        .operation = json_str(doc, "operation", NULL),
        .created_ms = json_int(own, "created_ms", 0),
        .expires_ms = json_int(own, "expires_ms", 0),
        .hidden = hidden,
        .doc = doc,
    };
    store_batch_put(batch, STORE_JOB, &record);
    if (news)
        event_job(batch, doc, type);
}

void job_progress(struct job *job, json_t *progress)
{
    json_decref(job->progress);
    job->progress = json_incref(progress);
    job->published = job->published || str_eq(json_str(progress, "phase", ""), "publish");
    notice_job(job);
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

void job_started(struct job *job)
{
    job->started_us = clock_mono_us();
    notice_job(job);
}

json_t *job_draft_started(const json_t *doc)
{
    char now[CLOCK_RFC3339_SIZE];
    json_t *draft = json_deep_copy(doc);
    json_put(draft, "state", json_string(job_state_name(JOB_RUNNING)));
    json_put(draft, "started_at", json_string(clock_rfc3339(clock_real_ms(), now)));
    return draft;
}

static void job_created(struct task *task, const struct err *err)
{
    struct job *job = task->job;
    if (err) {
        incident(task->engine, task->session ? task->session->id : NULL, job->id, NULL, err->hr, err->text);
        if (task->session)
            task->session->pending = NULL;
        job_forget(job);
        job->refs--;
        task->retry_after = 0;
        if (task->session)
            session_lease_renew(task->session);
        task_fail(task, err);
        return;
    }
    job_started(job);
    job->refs++;
    task_answer(task, task->status, task->body ? json_incref(task->body) : job_view(job));
    job->started(job);
    job_unref(job);
}

/* What job_created will answer. */
static json_t *job_foretell(const struct task *task)
{
    return job_view_doc(task->draft_job);
}

void job_create(struct task *task, const struct job_kind *kind, json_t *args, void (*started)(struct job *job))
{
    struct session *session = task->session;
    json_t *doc = job_record(task->engine, kind, session, task->request->principal->name);
    job_origin(doc, task->request);
    if (kind->keep)
        kind->keep(session_private(doc), args);
    if (json_object_get(args, "limits"))
        json_put(doc, "limits", json_incref(json_object_get(args, "limits")));
    struct job *job = job_new(task->engine, kind, session, doc);
    job->args = args;
    if (session) {
        session->pending = job;
        session_lease_pause(session);
    }
    task_hold_job(task, job);
    task->draft_job = job_draft_started(doc);
    job->started = started;
    task->status = 202;
    task->retry_after = 1;
    str_format(task->location, sizeof task->location, "/jobs/%s", job->id);
    task->foretell = job_foretell;
    task->committed = job_created;
    task_commit(task, NULL);
}

/* --- the way to the worker and back --- */

static void worker_progress(void *arg, json_t *progress)
{
    figures_phase(arg, progress);
    job_progress(arg, progress);
}

static void worker_done(void *arg, const struct worker_reply *reply)
{
    struct job *job = arg;
    figures_phase(job, NULL);
    if (job->kind == &job_kind_snapshot)
        figures_snapshot(job, reply->result, reply->err);
    job_finish(job, reply);
}

static const struct worker_handlers job_handlers = {.progress = worker_progress, .done = worker_done};

void job_run_on_session_worker(struct job *job)
{
    json_t *args = job->kind->args ? job->kind->args(job) : json_object();
    struct worker_link *worker = job->session ? session_worker(job->session) : job->worker;
    if (!worker)
        worker = job->worker = worker_link_new(job->engine->agent, NULL, NULL, NULL);
    job_trace(job, args);
    worker_link_run(worker, job->kind->worker_operation, args, &job_handlers, job);
}
