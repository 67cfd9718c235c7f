/* RevertToSnapshot and QueryRevertStatus. What stands in the way is told by the call itself; the job cannot be cancelled, and its end is
 * the truth even if the worker, or everything, was killed in the middle: the disk is asked what happened. */
#include "engine/engine_private.h"

#include <search.h>

#include "base/fault.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

struct look {
    const char *member, *value;
    const struct job *found;
};

static void look_at(const void *node, VISIT visit, void *arg)
{
    struct look *look = arg;
    const struct job *job = *(struct job *const *)node;
    if ((visit == postorder || visit == leaf) && job->kind == &job_kind_revert && !job_state_terminal(job->state) &&
        str_eq(json_str(session_private(job->doc), look->member, ""), look->value))
        look->found = job;
}

static const struct job *pending_revert(struct engine *engine, const char *member, const char *value)
{
    struct look look = {.member = member, .value = value};
    twalk_r(engine->jobs, look_at, &look);
    return look.found;
}

bool snapshot_being_reverted(struct engine *engine, const char *snapshot_id)
{
    return pending_revert(engine, "snapshot_id", snapshot_id) != NULL;
}

/* --- the job --- */

static void revert_keep(json_t *own, const json_t *args)
{
    const json_t *snapshot = json_object_get(args, "snapshot");
    json_put(own, "snapshot_id", json_string(json_str(snapshot, "id", "")));
    json_put(own, "volume", json_string(json_str(snapshot, "volume", "")));
}

static json_t *revert_args(struct job *job)
{
    json_t *args = json_copy(job->args);
    json_put(args, "job", json_string(job->id));
    return args;
}

static json_t *revert_result(const json_t *job_doc)
{
    const json_t *own = session_private(job_doc);
    return json_pack("{s:s, s:s}", "snapshot_id", json_str(own, "snapshot_id", ""), "volume", json_str(own, "volume", ""));
}

static void revert_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)result;
    const json_t *own = session_private(task->draft_job);
    AUTO_JSON json_t *data = json_pack("{s:s, s:s}", "snapshot", json_str(own, "snapshot_id", ""), "volume", json_str(own, "volume", ""));
    json_put(task->draft_job, "result", revert_result(task->draft_job));
    const struct store_event event = {.type = "snapshot.reverted", .job_id = task->job->id, .owner = json_str(task->draft_job, "owner", NULL)};
    store_batch_event(batch, &event, data);
}

static void outcome_known(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    struct err *outcome = &task->job->outcome;
    if (!reply->err && json_bool(reply->result, "reverted", false))
        *outcome = (struct err){0};
    else if (!reply->err)
        err_set(outcome, VSS_E_UNEXPECTED, "Revert again.", "the worker died before the volume was changed: it is as it was");
    worker_link_close(TAKE_PTR(task->worker));
    task->then(task);
}

/* Its worker died: did it happen? */
static bool revert_settle(struct task *task, void (*then)(struct task *task))
{
    static const struct worker_handlers handlers = {.done = outcome_known};
    if (!str_eq(task->job->outcome.reason, "worker_lost"))
        return false;
    task->then = then;
    task->worker = worker_link_new(task->engine->agent, NULL, NULL, NULL);
    worker_link_run(task->worker, "revert_outcome", revert_args(task->job), &handlers, task);
    return true;
}

const struct job_kind job_kind_revert = {
    .name = "RevertToSnapshot", .worker_operation = "revert", .args = revert_args, .apply = revert_apply,
    .uncancellable = true, .keep = revert_keep, .settle = revert_settle,
};

/* --- the calls --- */

/* VSS_E_REVERT_IN_PROGRESS and the job's id, or NULL. New reference. */
static json_t *in_progress(struct engine *engine, const json_t *row, struct err *err)
{
    const char *volume = json_str(row, "volume", "");
    const struct job *pending = pending_revert(engine, "volume", volume);
    if (!pending)
        return NULL;
    err_set(err, VSS_E_REVERT_IN_PROGRESS, "Wait for it: GET /snapshots/{id}/revert.", "volume %s is being reverted", volume);
    return json_pack("{s:s}", "job", pending->id);
}

static void checked(void *arg, const struct worker_reply *reply)
{
    struct snapshot_admin *admin = arg;
    struct err err;
    if (reply->err) {
        snapshot_admin_fail(admin, reply->err);
        return;
    }
    json_t *row = json_incref(snapshot_admin_row(admin));
    struct task *task = snapshot_admin_end(admin);
    json_t *pending = in_progress(task->engine, row, &err); /* begun while we looked, to another snapshot of the volume */
    if (pending) {
        task_fail_extra(task, &err, pending);
    } else if (job_admit(task->engine, &err)) {
        task->retry_after = 5;
        task_fail(task, &err);
    } else {
        job_create(task, &job_kind_revert,
                   json_pack("{s:O, s:b}", "snapshot", row, "force", json_bool(task->request->body, "force", false)), job_run_on_session_worker);
    }
    json_decref(row);
}

void engine_snapshot_revert(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    static const struct worker_handlers handlers = {.done = checked};
    struct err err;
    AUTO_JSON json_t *seen = snapshot_read(engine, request, &err), *extra = seen ? in_progress(engine, seen, &err) : NULL;
    if (extra) {
        const struct engine_answer refused = {.err = &err, .extra = extra};
        answer(arg, &refused);
        return;
    }
    struct snapshot_admin *admin = snapshot_admin_begin(engine, request, answer, arg);
    if (!admin)
        return;
    json_t *row = snapshot_admin_row(admin);
    if (snapshot_usable(row, "RevertToSnapshot", &err))
        snapshot_admin_fail(admin, &err);
    else
        snapshot_admin_ask(admin, "revert_check", json_pack("{s:O, s:b}", "snapshot", row, "force", json_bool(request->body, "force", false)),
                           &handlers, admin);
}

/* Of the snapshot's volume: the revert in hand, or the last one. */
void engine_snapshot_revert_status(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    AUTO_JSON json_t *row = snapshot_read(engine, request, &err), *jobs = NULL;
    const struct store_query query = {.kind = STORE_JOB, .operation = job_kind_revert.name, .job_id = json_str(row, "volume", ""), .limit = 1};
    if (!row || store_list(engine->store, &query, &jobs, NULL, &err) == STORE_ERROR) {
        answer_error(answer, arg, &err);
        return;
    }
    json_t *last = json_array_get(jobs, 0);
    if (!last || !principal_sees(request->principal, json_str(last, "owner", ""))) {
        err_set(&err, VSS_E_OBJECT_NOT_FOUND, NULL, "volume %s has not been reverted", json_str(row, "volume", ""));
        answer_error(answer, arg, &err);
        return;
    }
    struct job *live = job_find(engine, json_str(last, "id", ""));
    answer_body(answer, arg, 200, live ? job_view(live) : job_view_doc(last));
}

/* --- at the next start --- */

void revert_conclude(struct engine *engine, struct store_batch *batch, json_t *job_doc, bool reverted, const struct err *err)
{
    struct err outcome;
    struct job ended = {.engine = engine};
    if (reverted) {
        json_put(job_doc, "result", revert_result(job_doc));
        job_conclude(&ended, job_doc, JOB_SUCCEEDED, NULL);
    } else {
        if (err)
            err_set(&outcome, VSS_E_UNEXPECTED, "Look at the volume before you revert again.",
                    "RevertToSnapshot was interrupted, and whether it had happened cannot be told: %s", err->text);
        else
            err_set(&outcome, VSS_E_UNEXPECTED, "Revert again.", "RevertToSnapshot was interrupted before the volume was changed: it is as it was");
        str_copy(outcome.reason, sizeof outcome.reason, "interrupted");
        job_conclude(&ended, job_doc, JOB_FAILED, &outcome);
    }
    job_batch_put(batch, job_doc);
}
