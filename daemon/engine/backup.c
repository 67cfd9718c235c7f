/* POST /backups: the whole lifecycle as one job. The same worker operations as the session's verbs, phase after phase; every phase's
 * outcome is folded into the session's record before the next begins. */
#include "engine/engine_private.h"
#include "model/selection.h"

#include "base/log.h"

struct lifecycle;

struct phase {
    const char *name;                        /* progress.phase */
    const struct job_kind *kind;             /* its args and apply; NULL: enter does it all */
    void (*enter)(struct lifecycle *life);   /* NULL: run the kind's operation */
};

struct lifecycle {
    struct job *job;
    size_t phase;
    bool told;        /* PrepareForBackup was begun: an Abort is owed */
    json_t *plan;
};

static void choose_enter(struct lifecycle *life);
static void plan_enter(struct lifecycle *life);
static void slot_enter(struct lifecycle *life);

static const struct phase phases[] = {
    {"gather_metadata", &job_kind_metadata, NULL},
    {"choose_components", NULL, choose_enter},
    {"plan", NULL, plan_enter},
    {"wait_for_slot", NULL, slot_enter},
    {"prepare", &job_kind_prepare, NULL},
    {"snapshot", &job_kind_snapshot, NULL},
    {"copy", &job_kind_copy, NULL},
    {"complete", &job_kind_complete, NULL},
};

static void phase_run(struct lifecycle *life);
static void phase_failed(struct lifecycle *life, const struct err *err);

static void life_progress(void *arg, json_t *progress)
{
    struct lifecycle *life = arg;
    AUTO_JSON json_t *shown = json_copy(progress);
    json_put(shown, "phase", json_string(phases[life->phase].name));
    job_progress(life->job, shown);
}

/* --- the end --- */

static void life_finish(struct lifecycle *life, const struct err *err, json_t *result)
{
    struct job *job = life->job;
    const struct worker_reply reply = {.err = err, .result = result, .writers = job->outcome_writers};
    job->lifecycle = NULL;
    json_decref(life->plan);
    free(life);
    json_t *writers = TAKE_PTR(job->outcome_writers);
    job_finish(job, &reply);
    json_decref(writers);
}

static void life_released(void *arg, const struct worker_reply *reply)
{
    (void)reply;
    struct lifecycle *life = arg;
    const json_t *backups = json_object_get(session_private(life->job->session->doc), "backups");
    AUTO_JSON json_t *result = json_pack("{s:s?, s:O?}", "backup_id", json_string_value(json_array_get(backups, 0)), "freeze",
                                         json_object_get(session_private(life->job->session->doc), "freeze"));
    life_finish(life, NULL, result);
}

/* A phase failed or was cancelled: job_finish's own undo (abort) clears up, since the kind aborts. */
static void phase_failed(struct lifecycle *life, const struct err *err)
{
    struct err told = *err;
    if (life->job->state != JOB_CANCELLING)
        err_prefix(&told, "%s", phases[life->phase].name);
    life_finish(life, &told, NULL);
}

/* --- one phase --- */

static void phase_next(struct lifecycle *life)
{
    life->phase++;
    if (life->phase < ELEMENTS(phases)) {
        phase_run(life);
        return;
    }
    static const struct worker_handlers handlers = {.done = life_released};
    worker_link_run(session_worker(life->job->session), "release", NULL, &handlers, life);
}

static void phase_committed(struct task *task, const struct err *err)
{
    struct lifecycle *life = task->job->lifecycle;
    struct err cause;
    if (err)
        cause = *err;
    if (!err && life->job->state == JOB_CANCELLING)
        err_set(&cause, (uint32_t)VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
    bool stop = err || life->job->state == JOB_CANCELLING;
    task_done(task);
    if (stop)
        phase_failed(life, &cause);
    else
        phase_next(life);
}

/* Under the serial: the phase's outcome into the record. */
static void phase_apply(struct task *task)
{
    struct job *job = task->job;
    const struct phase *phase = &phases[job->lifecycle->phase];
    struct store_batch *batch = store_batch_new();
    task->draft = session_draft(task->session);
    task->draft_job = json_copy(job->doc);
    phase->kind->apply(task, task->scratch, batch);
    json_put(task->draft_job, "result", json_null());
    if (phase->kind == &job_kind_snapshot)
        slot_release(task->session);
    if (phase->kind == &job_kind_copy) { /* copied and checked by the mover: what SetBackupSucceeded reports */
        size_t i;
        json_t *component;
        json_array_foreach(session_draft_array(task->draft, "components"), i, component) json_put(component, "succeeded", json_true());
    }
    task->committed = phase_committed;
    task_commit(task, batch);
}

static void phase_done(void *arg, const struct worker_reply *reply)
{
    struct lifecycle *life = arg;
    struct job *job = life->job;
    json_t *writers = reply->writers ? reply->writers : json_object_get(reply->result, "writers");
    if (json_is_array(writers) && phases[life->phase].kind != &job_kind_metadata) {
        json_decref(job->outcome_writers);
        job->outcome_writers = json_incref(writers);
    }
    if (reply->err) {
        phase_failed(life, reply->err);
        return;
    }
    struct task *task = task_new(job->engine, NULL, NULL, NULL);
    task->session = job->session;
    task_hold_job(task, job);
    task->scratch = json_incref(reply->result);
    task_start(task, &job->session->serial, phase_apply);
}

static void phase_run(struct lifecycle *life)
{
    const struct phase *phase = &phases[life->phase];
    struct job *job = life->job;
    struct err err;
    if (job->state == JOB_CANCELLING) {
        err_set(&err, (uint32_t)VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
        phase_failed(life, &err);
        return;
    }
    AUTO_JSON json_t *progress = json_object();
    life_progress(life, progress);
    if (phase->enter) {
        phase->enter(life);
        return;
    }
    static const struct worker_handlers handlers = {.progress = life_progress, .done = phase_done};
    worker_link_run(session_worker(job->session), phase->kind->worker_operation, phase->kind->args ? phase->kind->args(job) : json_object(),
                    &handlers, life);
}

/* --- phases that the engine does itself --- */

/* The components that the body names, and the required ones of every writer that takes part. */
static int choose(const json_t *writers, const json_t *wanted, json_t *chosen, struct err *err)
{
    size_t i, j, k;
    json_t *want, *writer, *component, *have;
    json_array_foreach(wanted, i, want)
    {
        bool found = false;
        json_array_foreach(writers, j, writer)
        {
            if (!str_eq(json_str(want, "writer", ""), json_str(writer, "name", "")) &&
                !str_eq(json_str(want, "writer", ""), json_str(writer, "instance_name", "")))
                continue;
            json_array_foreach(json_object_get(writer, "components"), k, component)
            {
                const char *name = json_str(want, "name", NULL);
                bool named = name ? str_eq(name, json_str(component, "name", "")) && str_eq(json_str(want, "logical_path", ""),
                                                                                             json_str(component, "logical_path", ""))
                                  : selection_may_add(writer, component, NULL) == 0;
                if (!named && !selection_required(writer, component))
                    continue;
                found = found || named;
                json_add(chosen, component_record(writer, component));
            }
        }
        if (!found)
            return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /writers lists what there is.", "/components/%zu: writer %s offers no component %s", i,
                           json_str(want, "writer", ""), json_str(want, "name", "(any)"));
    }
    /* named twice, or required and named: once is enough */
    for (size_t a = 0; a < json_array_size(chosen); a++) {
        json_array_foreach(chosen, i, have)
        {
            const json_t *first = json_array_get(chosen, a);
            if (i > a && str_eq(json_str(have, "instance_id", ""), json_str(first, "instance_id", "")) &&
                str_eq(json_str(have, "logical_path", ""), json_str(first, "logical_path", "")) &&
                str_eq(json_str(have, "name", ""), json_str(first, "name", "")))
                json_array_remove(chosen, i--);
        }
    }
    return 0;
}

static void choose_committed(struct task *task, const struct err *err)
{
    phase_committed(task, err);
}

static void choose_run(struct task *task)
{
    struct lifecycle *life = task->job->lifecycle;
    struct err err;
    task->draft = session_draft(task->session);
    json_t *chosen = session_draft_array(task->draft, "components");
    if (choose(json_object_get(session_private(task->draft), "writers"), json_object_get(task->job->args, "components"), chosen, &err)) {
        task_done(task);
        phase_failed(life, &err);
        return;
    }
    task->committed = choose_committed;
    task_commit(task, NULL);
}

static void life_task(struct lifecycle *life, void (*run)(struct task *task), json_t *scratch /* taken */)
{
    struct task *task = task_new(life->job->engine, NULL, NULL, NULL);
    task->session = life->job->session;
    task_hold_job(task, life->job);
    task->scratch = scratch;
    task_start(task, &life->job->session->serial, run);
}

static void choose_enter(struct lifecycle *life)
{
    life_task(life, choose_run, NULL);
}

/* The plan's volumes become the set. */
static void plan_run(struct task *task)
{
    task->draft = session_draft(task->session);
    json_t *volumes = session_draft_array(task->draft, "volumes"), *volume;
    size_t i;
    char id[UUID_SIZE];
    json_array_foreach(json_object_get(task->scratch, "volumes"), i, volume)
    {
        uuid_v7(id);
        json_add(volumes, json_pack("{s:s, s:s, s:s, s:s, s:b}", "snapshot_id", id, "volume", json_str(volume, "path", ""), "provider",
                                    json_str(volume, "provider", ""), "requested", json_str(volume, "path", ""), "atomic",
                                    json_bool(volume, "atomic", false)));
    }
    uuid_v7(id);
    json_put(task->draft, "snapshot_set_id", json_string(id));
    session_set_state(task->draft, SESSION_SET_OPEN);
    task->committed = phase_committed;
    task_commit(task, NULL);
}

static int plan_refused(const json_t *result, struct err *err)
{
    const json_t *refusal = json_array_get(json_object_get(result, "refusals"), 0);
    if (!refusal)
        return 0;
    return err_set(err, VSS_E_VOLUME_NOT_SUPPORTED, json_str(refusal, "hint", ""), "%s: %s", json_str(refusal, "rule", "refused"),
                   json_str(refusal, "detail", ""));
}

static void planned(void *arg, const struct worker_reply *reply)
{
    struct lifecycle *life = arg;
    struct err err;
    if (reply->err)
        phase_failed(life, reply->err);
    else if (plan_refused(reply->result, &err))
        phase_failed(life, &err);
    else
        life_task(life, plan_run, json_incref(reply->result));
}

static json_t *plan_args(const json_t *components, const json_t *paths)
{
    return json_pack("{s:O?, s:O?}", "components", components, "paths", paths);
}

static void plan_enter(struct lifecycle *life)
{
    static const struct worker_handlers handlers = {.done = planned};
    const json_t *own = session_private(life->job->session->doc);
    worker_link_run(session_worker(life->job->session), "plan", plan_args(json_object_get(own, "components"), json_object_get(own, "paths")),
                    &handlers, life);
}

static void slot_granted(void *arg)
{
    phase_next(arg);
}

static void slot_enter(struct lifecycle *life)
{
    slot_wait(life->job->session, slot_granted, life);
}

/* A worker in the middle of a phase is told by the caller; only waiting for the slot is ours to end. */
void lifecycle_cancel(struct job *job)
{
    struct lifecycle *life = job->lifecycle;
    if (phases[life->phase].enter != slot_enter || job->engine->slot == job->session)
        return;
    slot_wait_forget(job->session);
    struct err err;
    err_set(&err, (uint32_t)VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
    phase_failed(life, &err);
}

/* --- the call --- */

static void backup_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)batch;
    session_set_state(task->draft, SESSION_COMPLETED);
    json_put(task->draft_job, "result", json_is_object(result) ? json_incref((json_t *)result) : json_object());
    snapshots_batch_remove(task->engine, batch, task->session->doc);
}

const struct job_kind job_kind_backup = {"Backup", SESSION_OP_COPY, NULL, NULL, backup_apply, 0, true, true};

static void life_start(struct job *job)
{
    struct lifecycle *life = mem_new(sizeof *life);
    life->job = job;
    job->lifecycle = life;
    phase_run(life);
}

static void life_begin(struct task *task)
{
    char backup_id[UUID_SIZE];
    const json_t *body = task->request->body;
    uuid_v7(backup_id);
    json_t *components = json_object_get(body, "components");
    job_create(task, &job_kind_backup,
               json_pack("{s:s, s:s, s:o}", "repository", json_str(body, "repository", ""), "backup_id", backup_id, "components",
                         components ? json_incref(components) : json_array()),
               life_start);
}

static void life_session_created(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, NULL, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    struct session *session = session_new(task->engine, TAKE_PTR(task->draft));
    task->session = session;
    task->committed = NULL;
    task_start(task, &session->serial, life_begin);
}

static json_t *life_session(const struct engine_request *request)
{
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE];
    int64_t created = clock_real_ms();
    uuid_v7(id);
    clock_rfc3339(created, now);
    const json_t *body = request->body;
    json_t *paths = json_object_get(body, "paths");
    json_t *own = json_pack("{s:I, s:I, s:[], s:[], s:b, s:o}", "created_ms", (json_int_t)created, "lease_seconds", (json_int_t)0, "components",
                            "volumes", "context_set", 1, "paths", paths ? json_incref(paths) : json_array());
    return json_pack("{s:s, s:s, s:s?, s:s, s:s, s:{s:b, s:b, s:s, s:b}, s:s, s:n, s:n, s:s, s:s, s:s, s:o}", "id", id, "kind", "backup", "label",
                     json_str(body, "label", NULL), "state", "initialized", "context", "backup", "backup_state", "component_mode", 1,
                     "bootable_system_state", 0, "type", json_str(body, "type", "full"), "partial_files", 0, "writer_failure", "fail",
                     "snapshot_set_id", "reason", "owner", request->principal->name, "created_at", now, "updated_at", now, "_", own);
}

static int backup_arguments(struct engine *engine, const struct engine_request *request, struct err *err)
{
    const json_t *body = request->body, *paths = json_object_get(body, "paths");
    if (json_array_size(paths) == 0 && json_array_size(json_object_get(body, "components")) == 0)
        return err_invalid(err, "/components", "name at least one component or one path");
    size_t i;
    json_t *path;
    json_array_foreach(paths, i, path)
    {
        char pointer[32];
        str_format(pointer, sizeof pointer, "/paths/%zu", i);
        if (!path_is_canonical(json_string_value(path)))
            return err_invalid(err, pointer, "must be an absolute path without '.', '..' or empty parts");
    }
    AUTO_JSON json_t *repository = repository_find(engine, json_str(body, "repository", ""));
    if (!repository)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /repositories lists what there is.", "repository %s: no such repository",
                       json_str(body, "repository", ""));
    return 0;
}

/* --- validate_only: the plan, nothing done --- */

static void validated(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    worker_link_close(TAKE_PTR(task->worker));
    if (reply->err)
        task_fail(task, reply->err);
    else
        task_answer(task, 200, json_incref(reply->result));
}

static void validate_metadata(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    struct err err;
    AUTO_JSON json_t *chosen = json_array();
    if (reply->err || choose(json_object_get(reply->result, "writers"), json_object_get(task->request->body, "components"), chosen, &err)) {
        if (reply->err)
            err = *reply->err;
        worker_link_close(TAKE_PTR(task->worker));
        task_fail(task, &err);
        return;
    }
    static const struct worker_handlers handlers = {.done = validated};
    worker_link_run(task->worker, "plan", plan_args(chosen, json_object_get(task->request->body, "paths")), &handlers, task);
}

void engine_backup_create(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    if (backup_arguments(engine, request, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    if (json_bool(request->body, "validate_only", false)) {
        static const struct worker_handlers handlers = {.done = validate_metadata};
        task->worker = worker_link_new(engine->agent, NULL, NULL, NULL);
        worker_link_run(task->worker, "metadata", json_pack("{s:{}}", "filter"), &handlers, task);
        return;
    }
    if (job_admit(engine, &err)) {
        task->retry_after = 5;
        task_fail(task, &err);
        return;
    }
    task->draft = life_session(request);
    task->committed = life_session_created;
    task_commit(task, NULL);
}
