/* Tasks and serials: whatever changes one session, or one job without session, happens one after the other. */
#include "engine/engine_private.h"

struct task *task_new(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct task *task = mem_new(sizeof *task);
    task->engine = engine;
    task->request = request;
    task->answer = answer;
    task->answer_arg = arg;
    task->status = 200;
    return task;
}

static void task_free(struct task *task)
{
    json_decref(task->draft);
    json_decref(task->draft_job);
    json_decref(task->body);
    json_decref(task->scratch);
    free(task);
}

void task_hold_job(struct task *task, struct job *job)
{
    job->refs++;
    task->job = job;
}

bool serial_idle(const struct serial *serial)
{
    return !serial->running && !serial->first;
}

static void serial_advance(struct serial *serial)
{
    if (serial->running || !serial->first)
        return;
    struct task *task = serial->first;
    serial->first = task->next;
    if (!serial->first)
        serial->last = NULL;
    serial->running = task;
    task->run(task);
}

void task_start(struct task *task, struct serial *serial, void (*run)(struct task *task))
{
    task->run = run;
    task->serial = serial;
    task->next = NULL;
    if (serial->last)
        serial->last->next = task;
    else
        serial->first = task;
    serial->last = task;
    serial_advance(serial);
}

void task_park(struct task *task)
{
    struct serial *serial = task->serial;
    serial->running = NULL;
    serial_advance(serial);
}

/* The serial goes on; what was kept alive only by it is freed when it is idle. */
static void task_end(struct task *task)
{
    struct serial *serial = task->serial;
    struct engine *engine = task->engine;
    struct session *session = task->session;
    struct job *job = task->job; /* its serial may be the one that runs: let go last */
    task_free(task);
    if (serial) {
        serial->running = NULL;
        if (session && session->gone && !serial->first) {
            session_free(session);
        } else {
            serial_advance(serial);
        }
    }
    if (job)
        job_unref(job);
    if (engine->draining)
        engine_drain_check(engine);
}

void task_done(struct task *task)
{
    if (task->answer) {
        struct engine_answer answer = {.status = task->status, .body = task->body, .retry_after = task->retry_after};
        str_copy(answer.location, sizeof answer.location, task->location);
        task->answer(task->answer_arg, &answer);
    }
    task_end(task);
}

void task_answer(struct task *task, int status, json_t *body)
{
    json_decref(task->body);
    task->body = body;
    task->status = status;
    task_done(task);
}

void task_fail_extra(struct task *task, const struct err *err, json_t *extra)
{
    if (task->answer) {
        const struct engine_answer answer = {.err = err, .extra = extra, .retry_after = task->retry_after};
        task->answer(task->answer_arg, &answer);
    }
    json_decref(extra);
    task_end(task);
}

void task_fail(struct task *task, const struct err *err)
{
    json_t *extra = NULL;
    if (task->session) {
        extra = json_pack("{s:s}", "session_state", session_state_name(session_state(task->session->doc)));
        if (task->session->pending)
            json_put(extra, "job", json_string(task->session->pending->id));
    }
    task_fail_extra(task, err, extra);
}

static void task_committed(void *arg, const struct err *err)
{
    struct task *task = arg;
    if (!err) {
        if (task->draft && task->session) {
            json_decref(task->session->doc);
            task->session->doc = json_incref(task->draft);
        }
        if (task->draft_job && task->job) {
            json_decref(task->job->doc);
            task->job->doc = json_incref(task->draft_job);
            enum job_state state = task->job->state;
            if (job_state_by_name(json_str(task->job->doc, "state", ""), &state) && state != JOB_PENDING)
                task->job->state = state; /* running is memory's alone: its record says pending */
        }
    }
    if (task->committed) {
        task->committed(task, err);
    } else if (err) {
        incident(task->engine, task->session ? task->session->id : NULL, task->job ? task->job->id : NULL, NULL, err->hr, err->text);
        task_fail(task, err);
    } else {
        task_done(task);
    }
}

void task_commit(struct task *task, struct store_batch *batch)
{
    if (!batch)
        batch = store_batch_new();
    if (task->draft) {
        char now[CLOCK_RFC3339_SIZE];
        json_put(task->draft, "updated_at", json_string(clock_rfc3339(clock_real_ms(), now)));
        session_batch_put(batch, task->draft);
        AUTO_JSON json_t *data = json_pack("{s:s}", "state", json_str(task->draft, "state", ""));
        store_batch_event(batch, "session.changed", json_str(task->draft, "id", NULL), NULL, data);
    }
    if (task->draft_job) {
        job_batch_put(batch, task->draft_job);
        AUTO_JSON json_t *data = json_pack("{s:s, s:s}", "state", json_str(task->draft_job, "state", ""), "operation",
                                           json_str(task->draft_job, "operation", ""));
        store_batch_event(batch, "job.changed", json_str(task->draft_job, "session_id", NULL), json_str(task->draft_job, "id", NULL), data);
    }
    store_submit(task->engine->store, batch, task_committed, task);
}
