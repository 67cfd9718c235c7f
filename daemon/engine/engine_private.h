#pragma once
/* The engine's own structures. One thread, one loop. Truth in memory is the committed record (`doc`); a change is drafted
 * as a copy, submitted, and swapped in when the store has it. Everything that changes one session runs one after
 * the other on that session's `serial`. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/worker_link.h"
#include "model/job_model.h"
#include "model/session_model.h"
#include "store/store.h"

struct task;
struct session;
struct job;

/* A queue of tasks of which one runs at a time. */
struct serial {
    struct task *running, *first, *last;
};

struct engine {
    struct loop *loop;
    struct store *store;
    json_t *config;
    char node[256];
    char store_dir[4096];
    struct agent_link *agent;
    void *sessions;            /* tsearch tree of struct session by id */
    void *jobs;                /* tsearch tree of struct job by id: those that have not ended */
    size_t n_jobs;
    struct session *slot;      /* holder of the creation slot: one snapshot set in creation per node */
    struct slot_waiter *slot_waiters;
    engine_job_observer_fn observer;
    void *observer_arg;
    struct loop_timer *housekeeping;
    bool draining;
    bool recovered;
    void (*when_recovered)(void *);
    void *when_recovered_arg;
    void (*drained)(void *);
    void *drained_arg;
    struct loop_timer *drain_timer;
};

/* One call, or one internal step, on a serial. */
struct task {
    struct task *next;
    struct engine *engine;
    const struct engine_request *request; /* NULL for internal steps */
    engine_answer_fn answer;
    void *answer_arg;
    void (*run)(struct task *task);
    struct serial *serial;
    struct session *session;
    struct job *job;
    json_t *draft;             /* next session record */
    json_t *draft_job;         /* next job record */
    json_t *body;              /* what will be answered; owned */
    json_t *scratch;           /* between steps; owned */
    struct worker_link *worker;/* of a call that asks a worker of its own */
    void (*committed)(struct task *task, const struct err *err);
    int status;
    char location[128];
    int retry_after;
};

struct session {
    struct engine *engine;
    char id[UUID_SIZE];
    struct serial serial;
    json_t *doc;               /* committed record: public members, and what is ours under "_" */
    struct job *pending;
    struct worker_link *worker;
    struct loop_timer *lease;
    int64_t lease_expires_ms;  /* CLOCK_REALTIME; 0 = paused */
    bool gone;                 /* deleted: freed when its serial is idle */
};

struct job {
    struct engine *engine;
    char id[UUID_SIZE];
    const struct job_kind *kind;
    struct session *session;   /* NULL for jobs without one */
    struct serial own;         /* serial of a job without session */
    enum job_state state;      /* committed, but for pending -> running */
    json_t *doc;               /* committed record */
    json_t *progress;          /* newest, not durable */
    struct worker_link *worker;/* of a job without session */
    json_t *args;              /* of the operation, for jobs without session and for copy */
    bool finishing;            /* the finishing task is queued */
    bool unsaved;              /* ended in memory, but the store refused the record: housekeeping tries again */
    struct err outcome;        /* the worker's word, until the finishing step; hr 0 = success */
    json_t *outcome_result, *outcome_writers;
    json_t *cleanup;           /* what a cancel or a failure undid */
    struct task *parked;       /* tasks that go on when this job has ended */
    int refs;                  /* the engine's, while it has not ended, and one per task */
    struct lifecycle *lifecycle; /* POST /backups */
    void (*started)(struct job *job);
};

/* What sets one kind of job apart. All NULL-able. */
struct job_kind {
    const char *name;                      /* wire name: "BackupComplete" */
    enum session_operation operation;      /* matrix row; unused without session */
    const char *worker_operation;          /* "complete" */
    json_t *(*args)(struct job *job);          /* new reference */
    /* Success: fold result into the drafts (task->draft, task->draft_job's result); may add rows to batch. */
    void (*apply)(struct task *task, const json_t *result, struct store_batch *batch);
    /* Failure of the operation itself. Default: the session's state stays. */
    enum session_state on_failure;         /* SESSION_STATE_COUNT = stays */
    bool cancel_aborts;                    /* cancelling leaves the session aborted */
    bool failure_aborts;
};

/* --- tasks.c --- */
/* Queues run on the serial; it starts at once when the serial is idle. */
struct task *task_new(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);
void task_hold_job(struct task *task, struct job *job);
void task_start(struct task *task, struct serial *serial, void (*run)(struct task *task));
/* Ends: answers (when there is somebody) and lets the next task of the serial run. */
void task_answer(struct task *task, int status, json_t *body /* taken */);
void task_done(struct task *task);
void task_fail(struct task *task, const struct err *err);
void task_fail_extra(struct task *task, const struct err *err, json_t *extra /* taken */);
/* Submits task->draft (session) and task->draft_job (job) with batch (taken, may be NULL); on success swaps them in, then calls
 * task->committed(task, NULL), on failure committed(task, err) with everything as before. committed NULL: answer task->body. */
void task_commit(struct task *task, struct store_batch *batch);
bool serial_idle(const struct serial *serial);
/* Lets the serial go on without ending the task; start it again later. */
void task_park(struct task *task);

/* --- session.c --- */
struct session *session_find(struct engine *engine, const char *id);
struct session *session_new(struct engine *engine, json_t *doc /* taken */);
void session_free(struct session *session);
json_t *session_view(struct session *session);                       /* the wire's session; new reference */
json_t *session_view_doc(struct engine *engine, const json_t *doc);  /* of a session that is no longer live */
json_t *session_private(const json_t *doc);                          /* doc["_"], borrowed */
json_t *session_draft(const struct session *session);                /* shallow copy of doc and of "_" */
json_t *session_draft_array(json_t *draft, const char *key);         /* "_"[key] made the draft's own (deep copy), borrowed */
void session_set_state(json_t *draft, enum session_state state);
enum session_state session_state(const json_t *doc);
void session_facts(const struct session *session, struct session_facts *ret);
/* Judges; on a refusal answers the task and returns false. *ret_ignored set when the call changes nothing. */
bool session_allow(struct task *task, enum session_operation operation, bool *ret_ignored);
void session_batch_put(struct store_batch *batch, const json_t *doc);
void session_lease_renew(struct session *session);
void session_lease_pause(struct session *session);
void abort_ignored(void *arg, const struct worker_reply *reply);
void session_ended(struct session *session);   /* after a terminal commit: slot, worker, lease */
/* Starts the worker if there is none. */
struct worker_link *session_worker(struct session *session);
/* Existence and ownership; answers the task and returns NULL when refused. */
bool principal_sees(const struct principal *principal, const char *owner);
bool principal_may_change(const struct principal *principal, const char *owner);
/* Finds the live session of request->id, checks ownership, queues run on its serial. Sessions that have ended and left memory: dead_run or VSS_E_BAD_STATE. */
void session_task(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                  void (*run)(struct task *task));
/* Loads the record of any session, live or stored, for reading; answers and returns NULL when it is not there. New reference. */
json_t *session_read(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);

/* --- snapshot_set.c --- */
bool slot_take(struct session *session);
void slot_release(struct session *session);
void slot_wait(struct session *session, void (*granted)(void *arg), void *arg);
void slot_wait_forget(struct session *session);
/* The set's auto-release snapshots are gone: their rows go with the same batch. */
void snapshots_batch_remove(struct engine *engine, struct store_batch *batch, const json_t *session_doc);
void snapshots_batch_put(struct engine *engine, struct store_batch *batch, const json_t *session_doc, json_t *snapshots);

/* --- job.c --- */
void job_unref(struct job *job);
struct job *job_find(struct engine *engine, const char *id);
json_t *job_view(struct job *job);
/* Refuses when the table is full (E_OUTOFMEMORY) or the engine drains. */
int job_admit(struct engine *engine, struct err *err);
/* Makes the record, commits it with the session's draft, answers 202, then calls started. The task goes on to end. */
void job_create(struct task *task, const struct job_kind *kind, json_t *args /* taken */, void (*started)(struct job *job));
/* The worker's word: queues the finishing step. */
void job_finish(struct job *job, const struct worker_reply *reply);
void job_run_on_session_worker(struct job *job);
void job_put_error(json_t *draft_job, const struct err *err, json_t *writers /* borrowed, may be NULL */);
void job_batch_put(struct store_batch *batch, const json_t *doc);
void job_progress(struct job *job, json_t *progress /* borrowed */);
void job_notify(struct job *job);
/* The job has ended and is durable: leaves the engine, wakes waiters and parked tasks. */
void job_ended(struct job *job);
void job_start_cancel(struct job *job);
/* Cancels the pending job of task's session and runs `then` on the serial once it has ended. */
void job_abort_then(struct task *task, void (*then)(struct task *task));
/* The job's terminal draft: state, times, hresult, result or error, cleanup. */
void job_conclude(struct job *job, json_t *draft_job, enum job_state state, const struct err *err);
/* Commits task's drafts as the end of its job; handles a store that refuses. Ends the task. */
void job_commit_end(struct task *task, struct store_batch *batch);
json_t *job_record(struct engine *engine, const struct job_kind *kind, const struct session *session, const char *owner);
struct job *job_new(struct engine *engine, const struct job_kind *kind, struct session *session, json_t *doc /* taken */);

void jobs_save_unsaved(struct engine *engine);
void jobs_cancel_all(struct engine *engine);

/* --- backup.c --- */
void lifecycle_cancel(struct job *job);

/* --- kinds.c --- */
extern const struct job_kind job_kind_metadata, job_kind_prepare, job_kind_snapshot, job_kind_copy, job_kind_complete,
    job_kind_status, job_kind_release, job_kind_backup, job_kind_restore, job_kind_verify, job_kind_scan, job_kind_remove_backup;
json_t *components_for_worker(const json_t *doc);
json_t *session_document(struct engine *engine, const json_t *doc); /* Backup Components Document */
json_t *component_record(const json_t *writer, const json_t *component); /* a chosen component; new reference */
json_t *backup_record(struct job *job, const json_t *session_doc, const json_t *result);
void backup_batch_put(struct store_batch *batch, const json_t *doc);

/* --- incidents.c --- */
/* One log line and one row of GET /errors. */
void incident(struct engine *engine, const char *session_id, const char *job_id, const char *writer, uint32_t hr, const char *text);

/* --- catalog.c, repositories.c --- */
json_t *repository_find(struct engine *engine, const char *name); /* new reference, or NULL */
/* Marks the backups of a session complete or not, in a batch. */
void catalog_mark(struct engine *engine, struct store_batch *batch, const json_t *session_doc, bool complete, const char *reason);

/* --- lists.c --- */
/* Answers a page of records: filters and keyset cursor from request->query, each row through view (may be NULL). */
typedef json_t *(*list_view_fn)(struct engine *engine, json_t *doc);
void list_answer(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                 struct store_query *query, list_view_fn view);
void answer_error(engine_answer_fn answer, void *arg, const struct err *err);
void answer_body(engine_answer_fn answer, void *arg, int status, json_t *body /* taken */);

/* --- recover.c --- */
int engine_recover(struct engine *engine, struct err *err);
void engine_housekeeping(void *arg);
void engine_drain_check(struct engine *engine);
