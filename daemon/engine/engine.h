#pragma once
/* Sessions, jobs, catalog: what the API's handlers call. Every call answers exactly once, perhaps later (after the
 * commit, after a worker's word), on the loop; until then `request` and what it points to must stay alive.
 * Checks run in the order: arguments (shape: by the API before the call), existence, ownership, state. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

enum role { ROLE_NONE, ROLE_VIEWER, ROLE_AUDITOR, ROLE_RESTORER, ROLE_OPERATOR, ROLE_ADMIN };

struct principal {
    char name[128];
    enum role role;
};

struct engine_request {
    const struct principal *principal;
    const char *request_id;
    const char *id;        /* first path parameter (session, job, backup, repository name...), or NULL */
    const char *sub_id;    /* second path parameter (component), or NULL */
    json_t *body;          /* checked against the contract; NULL when there is none. Borrowed. */
    json_t *query;         /* checked query parameters by name: strings, integers, booleans. Never NULL. Borrowed. */
};

struct engine_answer {
    int status;                    /* HTTP status of a success: 200, 201, 202, 204 */
    json_t *body;                  /* borrowed for the call; NULL with 204 and on failure */
    char location[128];            /* "" = none */
    int retry_after;               /* seconds; 0 = none */
    const struct err *err;         /* failure: status, hresult and problem body follow from it (hresult_http) */
    int status_override;           /* failure with a status that is not its code's usual one (410, 412); 0 = none */
    json_t *extra;                 /* further members of a problem body ("session_state", "job"), borrowed, or NULL */
    const char *next_cursor;       /* lists: set when a further page exists */
};
typedef void (*engine_answer_fn)(void *arg, const struct engine_answer *answer);

struct engine;
typedef void (*engine_call_fn)(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);

/* Sessions */
void engine_session_create(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_list(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: limit, cursor, state, kind, label */
void engine_session_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_backup_state(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_context(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_writer_filter(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_writers(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_writer_status(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_document(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_renew(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_abort(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_component_add(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_component_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_component_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_component_patch(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_snapshot_set_start(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_snapshot_set_add(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* Jobs of a session: 202 */
void engine_job_metadata(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_prepare(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_snapshot(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_copy(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_complete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_status(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* Jobs */
void engine_job_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_list(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: limit, cursor, state, operation, session */
void engine_job_cancel(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_release(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* Snapshots and catalog */
void engine_snapshot_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_snapshot_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_backup_create(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_backup_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_backup_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_backup_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_backup_restore(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_backup_verify(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* What is there */
void engine_repository_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_repository_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_repository_create(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_repository_put(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_repository_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_repository_scan(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_writer_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_provider_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_mover_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_volume_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_error_list(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: session, job, limit, cursor */
void engine_event_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* {"ready":bool,"reasons":[]}: 200 or 503 by `ready`. */
void engine_health(struct engine *, const struct engine_request *, engine_answer_fn, void *);

/* Called on the loop whenever a job's committed state changed (waiters wake) . */
typedef void (*engine_job_observer_fn)(void *arg, const char *job_id);
void engine_observe_jobs(struct engine *engine, engine_job_observer_fn observer, void *arg);
/* Has the job ended (or is it unknown)? For waiters. */
bool engine_job_is_pending(struct engine *engine, const char *job_id);

/* start: the supervisor's start message to core (docs/architecture.md); agent_fd: channel to the agent, owned. */
struct engine *engine_new(struct loop *loop, const json_t *start, int agent_fd, struct err *err);
/* Calls fn once leftovers of the last run are cleared (at once when they are): only then is the node ready for work. */
void engine_when_recovered(struct engine *engine, void (*fn)(void *arg), void *arg);
void engine_reload(struct engine *engine, const json_t *config);
/* No new work; done(arg) is called when nothing is pending any more (running jobs get limits.drain_seconds, then are cancelled). */
void engine_drain(struct engine *engine, void (*done)(void *arg), void *arg);
void engine_free(struct engine *engine);
