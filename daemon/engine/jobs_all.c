/* Walks over every job in hand: cancelling all at the end of a drain, saving what the store refused. */
#include "engine/engine_private.h"

#include <search.h>

struct walk {
    struct job *jobs[1024];
    size_t n;
    bool unsaved;
};

static void collect(const void *node, VISIT visit, void *arg)
{
    struct walk *walk = arg;
    struct job *job = *(struct job *const *)node;
    if ((visit == postorder || visit == leaf) && walk->n < ELEMENTS(walk->jobs) && job->unsaved == walk->unsaved) {
        job->refs++;
        walk->jobs[walk->n++] = job;
    }
}

static void cancel_committed(struct task *task, const struct err *err)
{
    if (!err)
        job_start_cancel(task->job);
    task_done(task);
}

static void run_cancel(struct task *task)
{
    if (job_state_terminal(task->job->state) || task->job->state == JOB_CANCELLING) {
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
    struct walk walk = {0};
    twalk_r(engine->jobs, collect, &walk);
    for (size_t i = 0; i < walk.n; i++) {
        struct job *job = walk.jobs[i];
        struct task *task = task_new(engine, NULL, NULL, NULL);
        task->session = job->session;
        task_hold_job(task, job);
        task_start(task, job->session ? &job->session->serial : &job->own, run_cancel);
        job_unref(job);
    }
}

static void saved(void *arg, const struct err *err)
{
    struct job *job = arg;
    if (!err && job->unsaved) {
        job->unsaved = false;
        job_ended(job);
    }
    job_unref(job);
}

void jobs_save_unsaved(struct engine *engine)
{
    struct walk walk = {.unsaved = true};
    twalk_r(engine->jobs, collect, &walk);
    for (size_t i = 0; i < walk.n; i++) {
        struct store_batch *batch = store_batch_new();
        job_batch_put(batch, walk.jobs[i]->doc);
        struct session *session = session_find(engine, json_str(walk.jobs[i]->doc, "session_id", ""));
        if (session)
            session_batch_put(batch, session->doc);
        store_submit(engine->store, batch, saved, walk.jobs[i]);
    }
}
