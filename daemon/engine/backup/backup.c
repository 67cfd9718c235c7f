/* POST /backups: the whole lifecycle as one job. The same worker operations as the session's verbs, phase after phase; every phase's
 * outcome is folded into the session's record before the next begins. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"

#include "base/fault.h"
#include "base/log.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

enum { PARKED_POLL_MS = 100 };

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
    struct loop_timer *again; /* choose_components waits for a thaw */
};

static void choose_enter(struct lifecycle *life);
static void plan_enter(struct lifecycle *life);
static void slot_enter(struct lifecycle *life);
static void seal_enter(struct lifecycle *life);

static const struct phase phases[] = {
    {"gather_metadata", &job_kind_metadata, NULL},
    {"choose_components", NULL, choose_enter},
    {"plan", NULL, plan_enter},
    {"wait_for_slot", NULL, slot_enter},
    {"prepare", &job_kind_prepare, NULL},
    {"snapshot", &job_kind_snapshot, NULL},
    {"copy", &job_kind_copy, NULL},
    {"complete", &job_kind_complete, NULL},
    {"seal", NULL, seal_enter},
};

static void phase_run(struct lifecycle *life);
static void phase_failed(struct lifecycle *life, const struct err *err);

static void life_progress(void *arg, json_t *progress)
{
    struct lifecycle *life = arg;
    figures_phase(life->job, progress);
    AUTO_JSON json_t *shown = json_copy(progress);
    json_put(shown, "phase", json_string(phases[life->phase].name));
    job_progress(life->job, shown);
}

/* --- the end --- */

void lifecycle_free(struct lifecycle *life)
{
    if (life) {
        json_decref(life->plan);
        loop_timer_free(life->again);
    }
    free(life);
}

static void life_finish(struct lifecycle *life, const struct err *err, json_t *result)
{
    struct job *job = life->job;
    const struct worker_reply reply = {.err = err, .result = result, .writers = job->outcome_writers};
    lifecycle_free(TAKE_PTR(job->lifecycle));
    json_t *writers = TAKE_PTR(job->outcome_writers);
    job_finish(job, &reply);
    json_decref(writers);
}

json_t *lifecycle_result(const struct job *job)
{
    const json_t *own = session_private(job->session->doc);
    json_t *result = json_pack("{s:s?, s:O?, s:O?}", "backup_id", json_string_value(json_array_get(json_object_get(own, "backups"), 0)), "freeze",
                               json_object_get(own, "freeze"), "consistency", json_object_get(own, "consistency"));
    if (json_object_get(own, "copied"))
        json_object_update(result, json_object_get(own, "copied"));
    return result;
}

static void life_released(void *arg, const struct worker_reply *reply)
{
    struct lifecycle *life = arg;
    struct session *session = life->job->session;
    job_take_cleanup(life->job, reply);
    if (reply->err && worker_link_alive(session->worker)) { /* of a dead one job_finish looks for it */
        cleanup_fail(&life->job->cleanup, LEFT_ALL, reply->err->text);
        worker_link_close(TAKE_PTR(session->worker)); /* it undoes everything by itself then, and is gone */
    }
    AUTO_JSON json_t *result = lifecycle_result(life->job);
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
    snapshot_streams_end(life->job->engine, life->job->session->id);
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

static bool is_status_of(const json_t *status, const json_t *component)
{
    return str_eq(json_str(status, "instance_id", ""), json_str(component, "instance_id", ""));
}

/* What SetBackupSucceeded reports: the component is copied, and checked by the mover, and its writer vouches for what was copied. Of a writer that
 * failed (writer_failure "report") nothing is said to have succeeded: it would give up a log, or go on from a stamp, that is still needed. */
static bool component_succeeded(const json_t *own, const json_t *component)
{
    size_t i;
    const json_t *status;
    json_array_foreach(json_object_get(own, "writer_status"), i, status)
    {
        const char *failure = json_str(status, "failure", "S_OK");
        bool whole = str_eq(failure, "S_OK") || str_eq(failure, "VSS_E_WRITERERROR_PARTIAL_FAILURE"); /* then its components say which */
        if (is_status_of(status, component) && !whole)
            return false;
    }
    return str_eq(json_str(component, "failure", "S_OK"), "S_OK");
}

static void set_succeeded(json_t *draft)
{
    size_t i;
    json_t *component;
    json_array_foreach(session_draft_array(draft, "components"), i, component)
        json_put(component, "succeeded", json_boolean(component_succeeded(session_private(draft), component)));
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
    if (phase->kind == &job_kind_copy)
        set_succeeded(task->draft);
    task->committed = phase_committed;
    task_commit(task, batch);
}

static void phase_done(void *arg, const struct worker_reply *reply)
{
    struct lifecycle *life = arg;
    struct job *job = life->job;
    json_t *writers = reply->writers ? reply->writers : json_object_get(reply->result, "writers");
    figures_phase(job, NULL);
    if (phases[life->phase].kind == &job_kind_snapshot)
        figures_snapshot(job, reply->result, reply->err);
    if (json_is_array(writers) && phases[life->phase].kind != &job_kind_metadata) {
        json_decref(job->outcome_writers);
        job->outcome_writers = json_incref(writers);
    }
    if (reply->err) {
        job_take_cleanup(job, reply);
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
    if (fault("engine.phase")) {
        err_set(&err, VSS_E_UNEXPECTED, NULL, "fault injected");
        phase_failed(life, &err);
        return;
    }
    if (phase->enter) {
        phase->enter(life);
        return;
    }
    static const struct worker_handlers handlers = {.progress = life_progress, .done = phase_done};
    json_t *args = phase->kind->args ? phase->kind->args(job) : json_object();
    job_trace(job, args);
    worker_link_run(session_worker(job->session), phase->kind->worker_operation, args, &handlers, life);
}

/* --- phases that the engine does itself --- */

static int choose(struct engine *engine, const json_t *writers, const json_t *asked, json_t *chosen, struct err *err)
{
    const struct choice_chain chain = {
        .engine = engine,
        .writers = writers,
        .type = json_str(asked, "type", "full"),
        .repository = json_str(asked, "repository", ""),
        .owner = json_str(asked, "owner", ""),
        .any_owner = json_bool(asked, "any_owner", false),
    };
    return choice_components(writers, json_object_get(asked, "components"), chosen, err) || choice_previous(&chain, chosen, err) ? -1 : 0;
}

/* What choose needs of the call. New reference. */
static json_t *asked_for(const struct engine_request *request)
{
    json_t *components = json_object_get(request->body, "components");
    return json_pack("{s:o, s:s, s:s, s:s, s:b}", "components", components ? json_incref(components) : json_array(), "repository",
                     json_str(request->body, "repository", ""), "type", json_str(request->body, "type", "full"), "owner", request->principal->name,
                     "any_owner", principal_sees(request->principal, ""));
}

static void choose_again(void *arg)
{
    choose_enter(arg);
}

static void choose_run(struct task *task)
{
    struct lifecycle *life = task->job->lifecycle;
    struct err err;
    if (store_parked(task->engine->store)) { /* somebody else's freeze: the catalog cannot be read, and nothing committed, until its thaw */
        if (!life->again)
            life->again = loop_timer_new(task->engine->loop, choose_again, life);
        loop_timer_set(life->again, PARKED_POLL_MS);
        task_done(task);
        return;
    }
    task->draft = session_draft(task->session);
    json_t *chosen = session_draft_array(task->draft, "components");
    if (choose(task->engine, json_object_get(session_private(task->draft), "writers"), task->job->args, chosen, &err)) {
        task_done(task);
        phase_failed(life, &err);
        return;
    }
    task->committed = phase_committed;
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
    uint32_t hr = (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED;
    if (!refusal)
        return 0;
    hresult_by_name(json_str(refusal, "hresult", ""), &hr);
    err_set(err, hr, json_str(refusal, "hint", ""), "%s: %s", json_str(refusal, "rule", "refused"), json_str(refusal, "detail", ""));
    str_copy(err->reason, sizeof err->reason, json_str(refusal, "rule", ""));
    return -1;
}

static void planned(void *arg, const struct worker_reply *reply)
{
    struct lifecycle *life = arg;
    struct err err;
    if (reply->err)
        phase_failed(life, reply->err);
    else if (plan_refused(reply->result, &err) || snapshots_fit(life->job->engine, json_object_get(reply->result, "volumes"), &err))
        phase_failed(life, &err);
    else
        life_task(life, plan_run, json_incref(reply->result));
}

/* request: what has paths and excludes: the session's own record, or the body of the call. */
static json_t *plan_args(struct engine *engine, const json_t *components, const json_t *request, const char *type)
{
    return json_pack("{s:O?, s:O?, s:O?, s:[s], s:o, s:o, s:s}", "components", components, "paths", json_object_get(request, "paths"), "excludes",
                     json_object_get(request, "excludes"), "own", engine->store_dir, "stores", parking_superblocks(engine->parking),
                     "repositories", repository_paths(engine), "type", type);
}

static void plan_enter(struct lifecycle *life)
{
    static const struct worker_handlers handlers = {.done = planned};
    const json_t *own = session_private(life->job->session->doc);
    worker_link_run(session_worker(life->job->session), "plan",
                    plan_args(life->job->engine, json_object_get(own, "components"), own, json_str(life->job->args, "type", "full")),
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

static void seal_enter(struct lifecycle *life)
{
    seal_after_complete(life->job);
}

void lifecycle_sealed(struct job *job)
{
    phase_next(job->lifecycle);
}

/* A worker in the middle of a phase is told by the caller; only waiting for the slot is ours to end. */
void lifecycle_cancel(struct job *job)
{
    struct lifecycle *life = job->lifecycle;
    if (life->phase >= ELEMENTS(phases)) /* its release, behind the last phase */
        return;
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
    snapshots_batch_remove(batch, task->session->doc, json_object_get(task->job->cleanup, "failed"));
}

const struct job_kind job_kind_backup = {
    .name = "Backup", .operation = SESSION_OP_COPY, .apply = backup_apply,
    .cancel_aborts = true, .failure_aborts = true,
};

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
    json_t *args = asked_for(task->request);
    uuid_v7(backup_id);
    json_put(args, "backup_id", json_string(backup_id));
    AUTO_JSON json_t *repository = repository_find(task->engine, json_str(args, "repository", ""));
    json_t *limits = NULL;
    if (repository_limits(repository, json_object_get(task->request->body, "limits"), &limits, NULL) == 0 && limits)
        json_put(args, "limits", limits);
    job_create(task, &job_kind_backup, args, life_start);
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
    json_t *paths = json_object_get(body, "paths"), *excludes = json_object_get(body, "excludes");
    json_t *own = json_pack("{s:I, s:I, s:[], s:[], s:b, s:o, s:o}", "created_ms", (json_int_t)created, "lease_seconds", (json_int_t)0, "components",
                            "volumes", "context_set", 1, "paths", paths ? json_incref(paths) : json_array(), "excludes",
                            excludes ? json_incref(excludes) : json_array());
    return json_pack("{s:s, s:s, s:s?, s:s, s:s, s:{s:b, s:b, s:s, s:b}, s:s, s:n, s:n, s:s, s:s, s:s, s:o}", "id", id, "kind", "backup", "label",
                     json_str(body, "label", NULL), "state", "initialized", "context", "backup", "backup_state", "component_mode", 1,
                     "bootable_system_state", 0, "type", json_str(body, "type", "full"), "partial_files", 0, "writer_failure",
                     json_str(body, "writer_failure", "fail"), "snapshot_set_id", "reason", "owner", request->principal->name, "created_at", now, "updated_at", now, "_", own);
}

int paths_canonical(const json_t *paths, const char *member, struct err *err)
{
    size_t i;
    json_t *path;
    json_array_foreach(paths, i, path)
    {
        char pointer[48];
        str_format(pointer, sizeof pointer, "/%s/%zu", member, i);
        if (!path_is_canonical(json_string_value(path)))
            return err_invalid(err, pointer, "must be an absolute path without '.', '..' or empty parts");
    }
    return 0;
}

static int backup_arguments(struct engine *engine, const struct engine_request *request, struct err *err)
{
    static const char *const lists[] = {"paths", "excludes"};
    const json_t *body = request->body, *paths = json_object_get(body, "paths");
    if (json_array_size(paths) == 0 && json_array_size(json_object_get(body, "components")) == 0)
        return err_invalid(err, "/components", "name at least one component or one path");
    const char *type = json_str(body, "type", "full");
    if (choice_goes_on(type) && json_array_size(json_object_get(body, "components")) == 0)
        return err_invalid(err, "/type", "of paths alone there is no %s backup: no writer tells what has changed, and files are copied whole; full or copy", type);
    for (size_t k = 0; k < ELEMENTS(lists); k++)
        if (paths_canonical(json_object_get(body, lists[k]), lists[k], err))
            return -1;
    AUTO_JSON json_t *repository = repository_find(engine, json_str(body, "repository", ""));
    AUTO_JSON json_t *limits = NULL;
    if (!repository)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /repositories lists what there is.", "repository %s: no such repository",
                       json_str(body, "repository", ""));
    return repository_limits(repository, json_object_get(body, "limits"), &limits, err);
}

/* --- validate_only: the plan, nothing done --- */

enum { PLANS_MAX = 16 }; /* at once: each is a worker with all the writers of the configuration */

static void plan_end(struct task *task)
{
    worker_link_close(TAKE_PTR(task->worker));
    task->engine->n_plans--;
}

static void validated(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    plan_end(task);
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
    AUTO_JSON json_t *asked = asked_for(task->request);
    if (reply->err || choose(task->engine, json_object_get(reply->result, "writers"), asked, chosen, &err)) {
        if (reply->err)
            err = *reply->err;
        plan_end(task);
        task_fail(task, &err);
        return;
    }
    static const struct worker_handlers handlers = {.done = validated};
    const json_t *body = task->request->body;
    worker_link_run(task->worker, "plan", plan_args(task->engine, chosen, body, json_str(body, "type", "full")), &handlers, task);
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
        if (engine->n_plans >= PLANS_MAX) {
            err_set(&err, E_OUTOFMEMORY, "Try again when one of them has ended.", "validate_only: %d plans are being made already", PLANS_MAX);
            task->retry_after = 5;
            task_fail(task, &err);
            return;
        }
        engine->n_plans++;
        task->worker = worker_link_new(engine->agent, NULL, NULL, NULL);
        worker_link_run(task->worker, "metadata", json_pack("{s:{}}", "filter"), &handlers, task);
        return;
    }
    if (job_admit(engine, &err) || session_admit(engine, &err)) {
        task->retry_after = 5;
        task_fail(task, &err);
        return;
    }
    task->draft = life_session(request);
    task->committed = life_session_created;
    task_commit(task, NULL);
}
