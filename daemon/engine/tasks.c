/* Tasks and serials: whatever changes one session, or one job without session, happens one after the other. */
#include "engine/audit/audit.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

struct task *task_new(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct task *task = mem_new(sizeof *task);
    task->engine = engine;
    task->request = request;
    task->answer = answer;
    task->answer_arg = arg;
    task->status = 200;
    LIST_INSERT_HEAD(&engine->tasks, task, every);
    return task;
}

static void task_free(struct task *task)
{
    LIST_REMOVE(task, every);
    json_decref(task->draft);
    json_decref(task->draft_job);
    json_decref(task->body);
    json_decref(task->scratch);
    json_decref(task->cleanup);
    json_decref(task->judged);
    json_decref(task->successes);
    release_free(task->release, task);
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

/* The engine ends with it undone: whoever waits for its answer is told, and lets go of what he kept for it. */
static void task_drop(struct task *task)
{
    if (task->answer) {
        struct err err;
        err_set(&err, VSS_E_UNEXPECTED, "Ask again when the daemon is back.", "the daemon ended before this was done");
        const struct engine_answer answer = {.err = &err};
        task->answer(task->answer_arg, &answer);
    }
    task_free(task);
}

void tasks_clear(struct engine *engine)
{
    while (!LIST_EMPTY(&engine->tasks)) {
        struct task *task = LIST_FIRST(&engine->tasks);
        if (!task->serial)
            task->release = NULL; /* it is the session's own task's, and went with that one */
        task_drop(task);
    }
}

void serial_clear(struct serial *serial)
{
    while (serial->first) {
        struct task *task = serial->first;
        serial->first = task->next;
        task_drop(task);
    }
    if (serial->running)
        task_drop(serial->running);
    *serial = (struct serial){0};
}

/* What is logged on the way belongs to the request. */
static void adopt(const struct task *task)
{
    if (task->request)
        log_adopt(task->request->request_id, task->request->trace_id);
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
    if (task->session && task->session->deleted && task->answer) {
        struct err err;
        err_set(&err, VSS_E_OBJECT_NOT_FOUND, NULL, "session %s was deleted", task->session->id);
        task_fail_extra(task, &err, NULL);
        return;
    }
    if (task->request && task->request->read && !task->checked) { /* a task that comes back has changed it itself */
        struct err err = {0};
        task->checked = true;
        if (precondition_check(task->engine, task->request, &err, &task->fail_status) != 0) {
            task_fail(task, &err);
            return;
        }
    }
    if (task->renews)
        session_lease_renew(task->session);
    adopt(task);
    task->run(task);
    log_adopt(NULL, NULL);
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

void task_answer_page(struct task *task, const json_t *page)
{
    const char *next = json_str(page, "next", NULL);
    json_t *items = json_object_get(page, "items");
    AUTO_JSON json_t *body = json_pack("{s:o, s:s?}", "items", items ? json_incref(items) : json_array(), "next_cursor", next);
    const struct engine_answer answer = {.status = 200, .body = body, .next_cursor = next};
    task->answer(task->answer_arg, &answer);
    task->answer = NULL;
    task_done(task);
}

void task_fail_extra(struct task *task, const struct err *err, json_t *extra)
{
    if (task->answer) {
        const struct engine_answer answer = {.err = err, .extra = extra, .retry_after = task->retry_after, .status_override = task->fail_status};
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

/* The store works: what it refused before goes in now. */
static void catch_up(struct engine *engine)
{
    if (engine->n_refused > 0)
        incidents_save(engine);
    if (engine->n_unsaved > 0)
        jobs_save_unsaved(engine);
}

static void task_committed(void *arg, const struct err *err)
{
    struct task *task = arg;
    adopt(task);
    if (!err) {
        catch_up(task->engine);
        successes_committed(task->engine, task->successes);
        if (task->draft && task->session) {
            json_decref(task->session->doc);
            task->session->doc = json_incref(task->draft);
        }
        if (task->draft_job && task->job) {
            json_decref(task->job->doc);
            task->job->doc = json_incref(task->draft_job);
            enum job_state state = task->job->state;
            if (job_state_by_name(json_str(task->job->doc, "state", ""), &state) && state > task->job->state)
                task->job->state = state; /* never back: a cancel acts in memory while an earlier change is on its way to the store */
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
    log_adopt(NULL, NULL);
}

static void record_answer(struct task *task, struct store_batch *batch)
{
    if (!task->request || !task->request->once || !task->answer)
        return;
    if (task->foretell) {
        json_decref(task->body);
        task->body = task->foretell(task);
    }
    if (!task->body && task->status != 204)
        return;
    struct engine_answer answer = {.status = task->status, .body = task->body, .retry_after = task->retry_after};
    str_copy(answer.location, sizeof answer.location, task->location);
    once_batch_put(task->request, batch, &answer);
}

/* updated_at and the event go with what somebody can see: a value that is set again, or what only we keep, is no change to those who watch. */
static void put_draft(struct task *task, struct store_batch *batch)
{
    const json_t *before = task->session ? task->session->doc : NULL;
    bool changed = !before || !session_shows_same(before, task->draft);
    char now[CLOCK_RFC3339_SIZE];
    if (changed)
        json_put(task->draft, "updated_at", json_string(clock_rfc3339(clock_real_ms(), now)));
    if (changed || !json_equal(before, task->draft))
        session_batch_put(task->engine, batch, task->draft, changed);
}

void task_commit(struct task *task, struct store_batch *batch)
{
    if (!batch)
        batch = store_batch_new();
    if (task->draft)
        put_draft(task, batch);
    if (task->draft_job)
        job_batch_put(batch, task->draft_job);
    successes_batch_put(task, batch);
    record_answer(task, batch);
    audit_batch_put(task->request, batch);
    store_submit(task->engine->store, batch, task_committed, task);
}
