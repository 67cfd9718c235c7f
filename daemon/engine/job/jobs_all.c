/* Walks over every job in hand: cancelling all at the end of a drain, saving what the store refused, who removes a backup. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

#include <search.h>

struct walk {
    struct job **jobs; /* room for all */
    size_t n;
    bool unsaved;
};

static void collect(const void *node, VISIT visit, void *arg)
{
    struct walk *walk = arg;
    struct job *job = *(struct job *const *)node;
    if ((visit == postorder || visit == leaf) && job->unsaved == walk->unsaved) {
        job->refs++;
        walk->jobs[walk->n++] = job;
    }
}

struct removal {
    const char *backup_id;
    bool found;
};

static void look_for_removal(const void *node, VISIT visit, void *arg)
{
    struct removal *removal = arg;
    const struct job *job = *(struct job *const *)node;
    if ((visit == postorder || visit == leaf) && job->kind == &job_kind_remove_backup &&
        str_eq(json_str(job->args, "backup_id", ""), removal->backup_id))
        removal->found = true;
}

bool backup_being_removed(struct engine *engine, const char *backup_id)
{
    struct removal removal = {.backup_id = backup_id};
    twalk_r(engine->jobs, look_for_removal, &removal);
    return removal.found;
}

static void cancel_committed(struct task *task, const struct err *err)
{
    if (!err)
        job_start_cancel(task->job);
    task_done(task);
}

static void run_cancel(struct task *task)
{
    if (job_state_terminal(task->job->state) || task->job->state == JOB_CANCELLING || task->job->kind->uncancellable) {
        task_done(task);
        return;
    }
    task->draft_job = json_copy(task->job->doc);
    json_put(task->draft_job, "state", json_string("cancelling"));
    task->committed = cancel_committed;
    task_commit(task, NULL);
}

void jobs_cancel_all(struct engine *engine)
{
    AUTO_FREE struct job **jobs = mem_new((engine->n_jobs + 1) * sizeof *jobs);
    struct walk walk = {.jobs = jobs};
    twalk_r(engine->jobs, collect, &walk);
    for (size_t i = 0; i < walk.n; i++) {
        struct job *job = walk.jobs[i];
        struct task *task = task_new(engine, NULL, NULL, NULL);
        task->session = job->session;
        task_hold_job(task, job);
        job_cancel_now(job);
        task_start(task, job->session ? &job->session->serial : &job->own, run_cancel);
        job_unref(job);
    }
}

static void saved(void *arg, const struct err *err)
{
    struct job *job = arg;
    if (!err && job->unsaved) {
        if (job->session && session_find(job->engine, json_str(job->doc, "session_id", "")) != job->session)
            job->session = NULL; /* it was deleted meanwhile */
        job->unsaved = false;
        job->engine->n_unsaved--;
        job_ended(job);
    }
    job_unref(job);
}

void jobs_save_unsaved(struct engine *engine)
{
    AUTO_FREE struct job **jobs = mem_new((engine->n_jobs + 1) * sizeof *jobs);
    struct walk walk = {.jobs = jobs, .unsaved = true};
    twalk_r(engine->jobs, collect, &walk);
    for (size_t i = 0; i < walk.n; i++) {
        struct store_batch *batch = store_batch_new();
        AUTO_JSON json_t *record = json_copy(walk.jobs[i]->doc); /* refused again, its event is still to be told */
        job_batch_put(batch, record);
        struct session *session = session_find(engine, json_str(walk.jobs[i]->doc, "session_id", ""));
        if (session)
            session_batch_put(engine, batch, session->doc, true);
        if (session && session_state(session->doc) == SESSION_ABORTED) /* a seal may say more than was recorded */
            catalog_mark(engine, batch, session->doc, "the store could not record how BackupComplete ended", NULL);
        store_submit(engine->store, batch, saved, walk.jobs[i]);
    }
}

void jobs_free(struct engine *engine)
{
    while (engine->jobs) {
        struct job *job = *(struct job **)engine->jobs; /* a node of tsearch begins with its item */
        serial_clear(&job->own);
        serial_clear(&(struct serial){.first = TAKE_PTR(job->parked)});
        lifecycle_free(TAKE_PTR(job->lifecycle));
        job_forget(job);
        job->refs = 1; /* the tasks are gone */
        job_unref(job);
    }
}
