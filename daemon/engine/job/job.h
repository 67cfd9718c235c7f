#pragma once
/* Private to the engine: jobs: the record, its way to the worker, its end, its cancel, what each kind asks. */
#include "engine/engine_private.h"

/* --- job.c --- */
void job_unref(struct job *job);
void job_forget(struct job *job);           /* no longer among the engine's pending ones */
struct job *job_find(struct engine *engine, const char *id);
json_t *job_view(struct job *job);          /* the wire's job; new reference */
json_t *job_view_doc(json_t *doc);          /* of a job that has ended; new reference */
/* Refuses when the table is full (E_OUTOFMEMORY) or the engine drains. */
int job_admit(struct engine *engine, struct err *err);
/* Makes the record, commits it with the session's draft, answers 202, then calls started. The task goes on to end. */
void job_create(struct task *task, const struct job_kind *kind, json_t *args /* taken */, void (*started)(struct job *job));
void job_started(struct job *job);          /* its record, made by job_draft_started, is durable */
json_t *job_draft_started(const json_t *doc); /* a new job's record, running from its commit on; new reference */
void job_run_on_session_worker(struct job *job);
/* The record, and its event when that says anything new; doc remembers which one was told. */
void job_batch_put(struct store_batch *batch, json_t *doc);
void job_progress(struct job *job, json_t *progress /* borrowed */);
void job_notify(struct job *job);
json_t *job_record(struct engine *engine, const struct job_kind *kind, const struct session *session, const char *owner);
/* Keeps in a new record which request it comes from. */
void job_origin(json_t *doc, const struct engine_request *request);
/* Tells the worker, and through it the writers. */
void job_trace(const struct job *job, json_t *args);
struct log_context job_log_context(const struct job *job);
struct job *job_new(struct engine *engine, const struct job_kind *kind, struct session *session, json_t *doc /* taken */);

/* --- job_end.c --- */
/* The worker's word: queues the finishing step. */
void job_finish(struct job *job, const struct worker_reply *reply);
/* Adds to job->cleanup what the operation, and later its undoing, cleaned up. */
void job_take_cleanup(struct job *job, const struct worker_reply *reply);
/* The job's terminal draft: state, times, hresult, result or error, cleanup. */
void job_conclude(struct job *job, json_t *draft_job, enum job_state state, const struct err *err);
/* The store refused the end: nothing may look better than it is. Failed in memory, and written when the store works again. */
void job_end_unsaved(struct job *job, const struct err *err);
/* Commits task's drafts as the end of its job; handles a store that refuses. Ends the task. */
void job_commit_end(struct task *task, struct store_batch *batch);
/* The job has ended and is durable: leaves the engine, wakes waiters and parked tasks. */
void job_ended(struct job *job);

/* --- job_cancel.c --- */
void job_start_cancel(struct job *job);
/* While a freeze is going on a cancel does not wait for its commit, which may wait for that freeze, or for a disk that hangs: it acts
 * in memory, ahead of the serial; the record follows. Nothing happens when nothing is frozen and the store is not parked, or the
 * outcome is decided. */
void job_cancel_now(struct job *job);
/* Cancels the pending job of task's session and runs `then` on the serial once it has ended. */
void job_abort_then(struct task *task, void (*then)(struct task *task));

/* --- job_calls.c --- */
/* The record of a job that may have ended: 0, or -1 with *err when there is none that the caller may see. */
int job_stored(struct engine *engine, const struct engine_request *request, json_t **ret_doc /* new reference */, bool *ret_released,
               struct err *err);
void answer_job_released(const struct engine_request *request, engine_answer_fn answer, void *arg); /* 410 */

/* --- jobs_all.c --- */
void jobs_save_unsaved(struct engine *engine);
void jobs_cancel_all(struct engine *engine);
void jobs_free(struct engine *engine);         /* when the engine ends */

/* --- kinds.c --- */
void job_run_simple(struct task *task, const struct job_kind *kind); /* a call that only starts a job */
extern const struct job_kind job_kind_metadata, job_kind_prepare, job_kind_snapshot, job_kind_copy, job_kind_complete,
    job_kind_status, job_kind_pre_restore, job_kind_restore_files, job_kind_post_restore, job_kind_release, job_kind_revert, job_kind_backup,
    job_kind_restore, job_kind_verify, job_kind_scan, job_kind_remove_backup;
json_t *components_for_worker(const json_t *doc);
json_t *session_document(struct engine *engine, const json_t *doc); /* Backup Components Document */
json_t *component_record(const json_t *writer, const json_t *component); /* a chosen component; new reference */
json_t *backup_record(struct job *job, const json_t *session_doc, const json_t *result);

/* --- leftovers.c --- */
#define LEFT_ALL "snapshots" /* the object in failed when nobody could look what is left */
/* {"thawed","removed","failed"} of task: its job's, or its own; created by the first word. */
json_t **cleanup_of(struct task *task);
/* Adds what another cleanup (NULL: none) tells. */
void cleanup_take(json_t **cleanup, const json_t *more);
void cleanup_fail(json_t **cleanup, const char *object, const char *reason);
/* Takes out of `failed` what may be removed in a moment (what still cannot is told again); what others took and keep ("outside") stays told.
 * Returns whether there was any. */
bool cleanup_try_again(json_t *cleanup);
/* Lets go of all that task's session holds: AbortBackup (reason; NULL: none), then Release if wanted. What a worker that fails or
 * dies at it leaves is looked for by another. then(task) runs afterwards: cleanup_of tells what came of it, task->scratch the
 * writers' states if they were told. */
void session_undo(struct task *task, const char *reason, bool release, void (*then)(struct task *task));
/* Has what the dead worker of task's session left removed from disk; then(task) runs afterwards, as above. */
void leftovers_clear(struct task *task, void (*then)(struct task *task));
/* One incident for each thing that is left behind; the return value is how many, of cleanup_of. */
size_t leftovers_tell(struct task *task);
void leftovers_free(struct engine *engine);
int engine_recover(struct engine *engine, struct err *err);
void engine_housekeeping(void *arg);
void engine_drain_check(struct engine *engine);
