#pragma once
/* The engine's own structures. One thread, one loop. Truth in memory is the committed record (`doc`); a change is drafted
 * as a copy, submitted, and swapped in when the store has it. Everything that changes one session runs one after
 * the other on that session's `serial`. */
#include <sys/queue.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/worker_link.h"
#include "model/job_model.h"
#include "model/session_model.h"
#include "store/store.h"

struct task;
struct session;
struct job;
struct sealer;
struct refusals;
struct audit_seals;
struct figures;
struct successes;
struct openmetrics;

/* A queue of tasks of which one runs at a time. */
struct serial {
    struct task *running, *first, *last;
};

struct engine {
    struct loop *loop;
    struct store *store;
    json_t *config;
    char node[256];
    char previous_end[160]; /* which role of the generation before ended, and how; "" = it was asked to, or nobody knows */
    char store_dir[4096];
    struct agent_link *agent;
    void *sessions;            /* tsearch tree of struct session by id */
    void *jobs;                /* tsearch tree of struct job by id: those that have not ended */
    size_t n_jobs;
    size_t n_unsaved;          /* jobs that ended while the store refused */
    struct incident_row *incidents; /* that the store does not have yet */
    size_t n_refused;          /* of them, those that it has refused */
    struct session *slot;      /* holder of the creation slot: one snapshot set in creation per node */
    struct slot_waiter *slot_waiters;
    engine_job_observer_fn observer;
    void *observer_arg;
    struct engine_watcher watcher;
    void *watcher_arg;
    struct parking *parking;
    struct stuck_freeze *stuck_freezes; /* of which no thaw is known; they outlive their sessions */
    void *onces;               /* tsearch tree: calls with an Idempotency-Key in hand */
    struct figures *figures;
    struct successes *successes; /* the last one of each label */
    struct audit *audits;      /* calls in hand that change something */
    struct store_batch *outcomes; /* of the audit trail, until outcomes_due */
    struct loop_timer *outcomes_due;
    struct refusals *refusals; /* callers that were turned away lately, or NULL */
    struct audit_seals *seals;
    void (*seal)(void *arg, int fd); /* starts the signer */
    void *seal_arg;
    struct credentials *tokens, *certificates, *enrolments, *logins;
    struct webhooks *webhooks;
    struct signing *signings;  /* at the signer */
    engine_sign_fn sign;
    void *sign_arg;
    struct loop_timer *housekeeping;
    struct sealer *sealer;     /* seals in the background, or NULL */
    int64_t seal_again_ms;     /* CLOCK_MONOTONIC: not before, after a repository could not be reached */
    int64_t seal_wait_ms;
    bool draining;
    bool recovered;
    struct recovery *recovery; /* while it runs */
    struct leftovers *leftovers; /* of dead workers, being removed */
    struct worker_link *inventory; /* looks at what is there, for all who wait for it (inventory.c) */
    struct task *inventory_waiters;
    LIST_HEAD(, task) tasks;   /* every one in hand, on a serial or not */
    struct serial repositories;/* writes of their records */
    json_t *clashes;           /* in words: of those made over the API, what is in the way of the configuration's; or NULL */
    struct snapshot_admin *admins; /* calls that have snapshots in hand */
    size_t n_plans;            /* validate_only in hand: each has a worker */
    size_t n_backup_looks;     /* GET /backups/{id}/files in hand: the same */
    size_t n_roots;            /* GetRootAndLogicalPrefixPaths in hand: the same */
    void (*when_recovered)(void *);
    void *when_recovered_arg;
    void (*drained)(void *);
    void *drained_arg;
    struct loop_timer *drain_timer;
};

/* One call, or one internal step, on a serial. */
struct task {
    LIST_ENTRY(task) every;
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
    json_t *cleanup;           /* of session_undo, when there is no job that keeps it; owned */
    struct worker_link *worker;/* of a call that asks a worker of its own */
    struct release *release;   /* DELETE of a session */
    /* Of a call with an Idempotency-Key: the body of the answer, from the drafts, when the commit is about to be submitted; it becomes
     * task->body. NULL: task->body and task->status are what will be answered, if they say something. */
    json_t *(*foretell)(const struct task *task);
    void (*committed)(struct task *task, const struct err *err);
    void (*then)(struct task *task); /* when a settle is done */
    json_t *judged;            /* by id: backups that come to count, or no longer do (successes.c); owned */
    json_t *successes;         /* of labels, once this is committed; owned */
    int status, fail_status;   /* of a failure: 0 = by its code */
    bool checked;              /* its precondition was looked at on its turn */
    bool renews;               /* the session's lease, on its turn: not before, the precondition knows the lease */
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
    int64_t lease_ends_ms;     /* CLOCK_MONOTONIC: the clock may be set meanwhile; 0 = paused */
    int64_t lease_expires_ms;  /* CLOCK_REALTIME of the last renewal, to be shown */
    json_t *hold;              /* {"since","deadline"} while file systems are held for an outside snapshot, else NULL */
    json_t *frozen;            /* {"since","deadline","file_systems","writers"} from the first Freeze to the last Thaw, else NULL */
    char frozen_by[UUID_SIZE], frozen_set[UUID_SIZE]; /* its worker; the freeze set, if there is one */
    bool hold_released;        /* ... and the release is on its way */
    json_t *held;              /* the last hold, while it lasts and after it */
    bool gone;                 /* has left memory for its record: freed when its serial is idle */
    bool deleted;              /* its record is gone, too: whoever still waits on the serial gets 404 */
};

struct job {
    struct engine *engine;
    char id[UUID_SIZE];
    const struct job_kind *kind;
    struct session *session;   /* NULL for jobs without one */
    struct serial own;         /* serial of a job without session */
    enum job_state state;      /* committed, but for cancelling while something is frozen */
    json_t *doc;               /* committed record */
    json_t *progress;          /* newest, not durable */
    bool published;            /* of a restore: files have begun to go to their places */
    struct worker_link *worker;/* of a job without session */
    json_t *args;              /* of the operation, for jobs without session and for copy */
    bool finishing;            /* the finishing task is queued */
    bool cancel_started;       /* the worker has been told */
    bool cancel_unrecorded;    /* cancelling in memory; nobody has been answered S_OK for it yet */
    bool unsaved;              /* ended in memory, but the store refused the record: housekeeping tries again */
    struct err outcome;        /* the worker's word, until the finishing step; hr 0 = success */
    json_t *outcome_result, *outcome_writers;
    json_t *cleanup;           /* what a cancel or a failure undid */
    json_t *seal_rows;         /* of the catalog, while they are being sealed */
    struct task *seal_task;    /* waits for the seal before its end */
    struct loop_timer *seal_patience;
    json_t *sealed;            /* ids of the backups whose repository has this outcome already */
    struct task *parked;       /* tasks that go on when this job has ended */
    int64_t started_us;        /* clock_mono_us */
    int64_t frozen_us;         /* its worker has applications frozen since then (clock_mono_us), or 0 */
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
    /* Whatever the end: what the worker did come to say goes into task->draft. result may be NULL. */
    void (*fold)(struct task *task, const json_t *result);
    /* Failure of the operation itself, not its cancel: what is known all the same goes into task->draft_job or rows of batch. result may be NULL. */
    void (*failed)(struct task *task, const json_t *result, struct store_batch *batch);
    /* Failure of the operation itself. Default: the session's state stays. */
    enum session_state on_failure;         /* 0 = stays */
    bool cancel_aborts;                    /* cancelling leaves the session aborted */
    bool failure_aborts;
    bool uncancellable;                    /* stopping half-way would leave things held */
    /* What of a new job's arguments its record keeps under "_"; its `volume` can be asked for. */
    void (*keep)(json_t *own, const json_t *args);
    /* The outcome is decided (a later DELETE finds the job ended) and not committed yet. What else it takes; true: `then`
     * will be called. */
    bool (*settle)(struct task *task, void (*then)(struct task *task));
};

/* --- tasks.c --- */
/* Queues run on the serial; it starts at once when the serial is idle. */
struct task *task_new(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);
void task_hold_job(struct task *task, struct job *job);
void task_start(struct task *task, struct serial *serial, void (*run)(struct task *task));
/* Ends: answers (when there is somebody) and lets the next task of the serial run. */
void task_answer(struct task *task, int status, json_t *body /* taken */);
void task_answer_page(struct task *task, const json_t *page); /* 200 with a worker's {"items","next"?}; somebody waits for it */
void task_done(struct task *task);
void task_fail(struct task *task, const struct err *err);
void task_fail_extra(struct task *task, const struct err *err, json_t *extra /* taken */);
/* Submits task->draft (session) and task->draft_job (job) with batch (taken, may be NULL); on success swaps them in, then calls
 * task->committed(task, NULL), on failure committed(task, err) with everything as before. committed NULL: answer task->body.
 * A call with an Idempotency-Key whose answer can be told now (foretell) has it recorded with this: task->body must then be answered,
 * with the status and location that task has here. */
void task_commit(struct task *task, struct store_batch *batch);
bool serial_idle(const struct serial *serial);
void tasks_clear(struct engine *engine); /* when the engine ends: those that waited for a worker of their own are told so */
void serial_clear(struct serial *serial); /* when the engine ends: its tasks are dropped, unanswered */
/* Lets the serial go on without ending the task; start it again later. */
void task_park(struct task *task);

/* --- events.c --- */
/* Appends what the record, as it is after the change, is told as. Each put of a session, a job or a backup does so by itself. */
void event_session(struct store_batch *batch, const json_t *doc);
void event_job(struct store_batch *batch, const json_t *doc, const char *type);
void event_snapshot(struct store_batch *batch, const char *type, const json_t *doc);
void event_backup(struct store_batch *batch, const char *type, const json_t *doc);
void snapshot_batch_delete(struct store_batch *batch, const json_t *doc); /* its record, and the event when there was one */
void events_tell(struct engine *engine); /* each committed event, to whoever waits for it */
/* How a job is doing, or that it has ended, for those who watch. */
void notice_job(const struct job *job);
void notice_frozen(const struct engine *engine, const char *session_id, const char *job_id, const char *owner, json_t *frozen /* NULL: it is over */);

/* --- incidents.c --- */
/* One log line and one row of GET /errors. */
void incident(struct engine *engine, const char *session_id, const char *job_id, const char *writer, uint32_t hr, const char *text);
/* Rows that the store refused are kept and offered again when it works. */
void incidents_save(struct engine *engine);
void incidents_free(struct engine *engine);

/* --- figures.c --- */
struct figures *figures_new(void);
void figures_free(struct figures *figures);                          /* NULL is fine */
/* What a worker says of its progress, and the end of an operation (NULL): are applications frozen? */
void figures_phase(struct job *job, const json_t *progress);
/* What came of DoSnapshotSet, whoever asked for it: result as of the worker. */
void figures_snapshot(struct job *job, const json_t *result, const struct err *err);
void figures_job_ended(const struct job *job);
void figures_lease_expired(struct engine *engine);
void figures_incident(struct engine *engine);

/* --- successes.c --- */
struct successes *successes_new(struct engine *engine, struct err *err); /* with what the store knows */
void successes_free(struct successes *successes);                        /* NULL is fine */
/* BackupComplete has succeeded: counts from the commit of task's batch on. */
void successes_complete(struct task *task, struct store_batch *batch);
/* From the commit of task on the backup, which did or did not, counts as one to rely on, or does not: its label is judged anew with the commit. */
void successes_judge(struct task *task, const json_t *backup, bool counts);
void successes_batch_put(struct task *task, struct store_batch *batch); /* what came of successes_judge */
void successes_committed(struct engine *engine, const json_t *changes);
void successes_write(const struct successes *successes, struct openmetrics *text);

/* --- apart.c --- */
/* Moves members out of object into a new one, beneath the path ("_", "document"; NULL-ended) that leads to object: a record's rest, as the store takes
 * it (struct store_record). those: the ones that names (NULL-ended) has; else all but them. NULL when there is none. */
json_t *rest_take(json_t *object, const char *const *path, const char *const *names, bool those);

/* --- lists.c --- */
/* ?path= of a call that looks into a snapshot or a backup: E_INVALIDARG when it is none. */
int directory_path_check(const char *path, struct err *err);
/* Answers a page of records: filters and keyset cursor from request->query, each row through view (may be NULL). */
typedef json_t *(*list_view_fn)(struct engine *engine, json_t *doc);
void list_answer(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                 struct store_query *query, list_view_fn view);
void answer_error(engine_answer_fn answer, void *arg, const struct err *err);
void answer_body(engine_answer_fn answer, void *arg, int status, json_t *body /* taken */);

/* --- once.c --- */
/* The answer that is about to be given, into the batch that makes it true. Nothing happens without an Idempotency-Key. */
void once_batch_put(const struct engine_request *request, struct store_batch *batch, const struct engine_answer *answer);
/* It has turned out not to be true. */
void once_batch_drop(const struct engine_request *request, struct store_batch *batch);
engine_call_fn once_call(const struct engine_request *request, engine_call_fn call); /* what it is that engine_call was asked for */
void onces_free(struct engine *engine); /* when the engine ends */

/* --- precondition.c --- */
/* 0, or -1 with err and its status (0 = by its code). */
int precondition_check(struct engine *engine, const struct engine_request *request, struct err *err, int *ret_status);
/* call, or the refusal. */
void precondition_call(struct engine *engine, engine_call_fn call, const struct engine_request *request, engine_answer_fn answer, void *arg);

/* --- parking.c --- */
struct parking *parking_new(struct engine *engine);
bool parking_in_memory(struct engine *engine, engine_call_fn call, const struct engine_request *request); /* can it be done while the store is parked? */
void parking_free(struct parking *parking); /* before the store; NULL is fine */
json_t *parking_superblocks(const struct parking *parking); /* on which the store lies; new reference */

/* --- recover.c --- */
void recovery_free(struct engine *engine);
