#pragma once
/* Private to the engine: sessions: the object and its calls, what they hold of the host, what is frozen. */
#include "engine/engine_private.h"

/* --- session.c --- */
struct session *session_find(struct engine *engine, const char *id);
struct session *session_new(struct engine *engine, json_t *doc /* taken */);
/* Each open session has a worker: limits.sessions bounds them. -1 with E_OUTOFMEMORY. */
int session_admit(struct engine *engine, struct err *err);
void session_free(struct session *session);
void sessions_free(struct engine *engine);     /* when the engine ends */
json_t *session_view(struct session *session);                       /* the wire's session; new reference */
json_t *session_foretell(const struct task *task);                   /* of one without a job, once task->draft is committed; new reference */
json_t *session_view_doc(struct engine *engine, const json_t *doc);  /* of a session that is no longer live */
json_t *session_private(const json_t *doc);                          /* doc["_"], borrowed */
json_t *session_draft(const struct session *session);                /* shallow copy of doc and of "_" */
json_t *session_draft_array(json_t *draft, const char *key);         /* "_"[key] made the draft's own (deep copy), borrowed */
void session_set_state(json_t *draft, enum session_state state);
enum session_state session_state(const json_t *doc);
void session_facts(const struct session *session, struct session_facts *ret);
/* Judges; on a refusal answers the task and returns false. *ret_ignored set when the call changes nothing. */
bool session_allow(struct task *task, enum session_operation operation, bool *ret_ignored);
/* Would no GET of the session, or of what lies beneath it, tell the two records apart? updated_at aside. */
bool session_shows_same(const json_t *a, const json_t *b);
/* told: with the event session.changed. */
void session_batch_put(const struct engine *engine, struct store_batch *batch, json_t *doc, bool told);
/* How long ended sessions, unreleased jobs and logged errors can be read (retention.days). */
int64_t retention_ms(const struct engine *engine);
void session_lease_renew(struct session *session);
void session_lease_pause(struct session *session);
void session_ended(struct session *session);   /* after a terminal commit: slot, worker, lease */
/* Starts the worker if there is none. */
struct worker_link *session_worker(struct session *session);
/* Existence and ownership; answers the task and returns NULL when refused. */
bool principal_sees(const struct principal *principal, const char *owner);
bool principal_sees_backup(const struct principal *principal, const char *owner);
/* May it have the provider that a path was resolved to? VSS_E_VOLUME_NOT_SUPPORTED for one that is confined, where only a full copy could be made. */
int principal_may_have(const struct principal *principal, const json_t *resolved, struct err *err);
/* May it have a snapshot of path taken? E_ACCESSDENIED, reason paths, for one that is confined to others. */
int principal_may_snapshot(const struct principal *principal, const char *path, struct err *err);
bool principal_may_change(const struct principal *principal, const char *owner);
/* Finds the live session of request->id, checks ownership, queues run on its serial. Sessions that have ended and left memory: dead_run or VSS_E_BAD_STATE. */
void session_task(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                  void (*run)(struct task *task));
/* Loads the record of any session, live or stored, for reading; answers and returns NULL when it is not there. New reference. */
json_t *session_read(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);

/* --- session_ops.c --- */
/* Begins the cancel of the pending job of the session that request names: its own turn on the serial may come only after the thaw. */
void session_cancel_now(struct engine *engine, const struct engine_request *request);

/* --- session_release.c --- */
void release_free(struct release *release, const struct task *task); /* when task is the one that owns it; NULL is fine */

/* --- hold.c --- */
void hold_begun(void *engine, struct worker_link *worker, const json_t *message); /* freeze_handlers.holding */
void hold_over(struct engine *engine, const struct worker_link *worker);

/* --- freezes.c --- */
void freeze_window(void *engine, struct worker_link *worker, const json_t *message); /* freeze_handlers.window */
void freeze_settled(void *engine, const char *worker, const char *set);              /* freeze_handlers.settled */
void freeze_left(void *engine, const json_t *sets);                                  /* freeze_handlers.left */
void freeze_leave(struct session *session); /* it leaves, or its worker does: what is frozen stays shown until its thaw is known */
json_t *freeze_shown(const struct engine *engine, const char *session_id); /* of which no thaw is known; borrowed, or NULL */
void freeze_cleanup(struct task *task); /* what may still be frozen into the cleanup of task's job */
size_t freezes_stuck(const struct engine *engine);
void freezes_free(struct engine *engine); /* when the engine ends, after the agent's link */

/* --- components.c --- */
json_t *component_of(const json_t *components, const char *id); /* borrowed, or NULL */
void component_missing(const struct engine_request *request, struct err *err);
/* Existence before state, of a session that has ended too: answers and returns true when its record has no such component. */
bool component_ended_without(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);
