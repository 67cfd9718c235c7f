#pragma once
/* Sessions, jobs, catalog: what the API's handlers call. Every call answers exactly once, perhaps later (after the
 * commit, after a worker's word), on the loop; until then `request` and what it points to must stay alive.
 * Checks run in the order: arguments (shape: by the API before the call), existence, ownership, state. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ident.h"
#include "base/loop.h"
#include "model/role.h"
#include "store/store.h"

struct principal {
    char name[128];
    enum role role;
    char token[UUID_SIZE];     /* id of the token of POST /tokens that was presented, "" = another credential */
    char certificate[UUID_SIZE]; /* the same of an enrolled certificate */
    char login[UUID_SIZE];     /* id of the browser's login whose cookie was presented; the others are those of what it was made with */
    int64_t expires_ms;        /* of that token, or of the enrolled certificate; 0 = of neither */
    json_t *scopes;            /* of that token; NULL or empty: all that the role allows. Whoever fills it in keeps it alive. */
    json_t *paths;             /* of the configuration: it may take snapshots of these, and nothing else; NULL: not confined. As scopes. */
};

struct engine;
struct engine_answer;
struct engine_request;
typedef void (*engine_answer_fn)(void *arg, const struct engine_answer *answer);
typedef void (*engine_call_fn)(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);

struct once;
struct audit;

struct engine_request {
    const struct principal *principal;
    const char *request_id;
    const char *traceparent, *trace_id; /* W3C Trace Context: what goes on to writers and webhooks, and its trace; "" or NULL = none */
    const char *id;        /* first path parameter (session, job, backup, repository name...), or NULL */
    const char *sub_id;    /* second path parameter (component), or NULL */
    json_t *body;          /* checked against the contract; NULL when there is none. Borrowed. */
    json_t *query;         /* checked query parameters by name: strings, integers, booleans. Never NULL. Borrowed. */
    const char *path, *key; /* of engine_call_once: the path, its parameters not filled in, and the Idempotency-Key */
    struct once *once;      /* the engine's own */
    /* Of engine_call_audited. */
    const char *operation, *from; /* operationId; the caller's address, or NULL */
    struct audit *audit;          /* the engine's own */
    /* Of a call that changes something, if it must be as the caller knows it. Looked at when the call's turn has come. */
    engine_call_fn read;                      /* GET of it; NULL = without precondition */
    const char *if_match, *if_none_match;     /* checked (etag_list_valid), or NULL */
    bool must_match;                          /* 428 without if_match, when it is there */
    bool creates;                             /* it need not be there */
};

struct engine_stream;

struct engine_answer {
    int status;                    /* HTTP status of a success: 200, 201, 202, 204 */
    json_t *body;                  /* borrowed for the call; NULL with 204 and on failure */
    const char *text;              /* the body as compact JSON, where it is at hand (body may be NULL then), borrowed; or NULL */
    char location[128];            /* "" = none */
    int retry_after;               /* seconds; 0 = none */
    const struct err *err;         /* failure: status, hresult and problem body follow from it (hresult_http) */
    int status_override;           /* failure with a status that is not its code's usual one (410, 412); 0 = none */
    json_t *extra;                 /* further members of a problem body ("session_state", "job"), borrowed, or NULL */
    const char *next_cursor;       /* lists: set when a further page exists */
    bool replayed;                 /* the answer that the same call got before (engine_call_once) */
    struct engine_stream *stream;  /* bytes instead of a body: the receiver's to close */
};

/* The way in for every call: at once, or, while the store is parked (docs/architecture.md), after the thaw. What memory
 * alone can do (reading live sessions and jobs, cancel, abort, release) is done at once and answered when it is durable. */
void engine_call(struct engine *engine, engine_call_fn call, const struct engine_request *request, engine_answer_fn answer,
                 void *arg);

/* The same, done once for each principal, path and key within IDEMPOTENCY_MS, whatever ends the daemon meanwhile. Another call gets
 * the first one's answer (`replayed`); 409 while that is not there yet; 422 when its body or query is another one. Failures are
 * not kept: a call that failed may be made again with its key. */
enum { IDEMPOTENCY_MS = 24 * 3600 * 1000 };
void engine_call_once(struct engine *engine, engine_call_fn call, struct engine_request *request, engine_answer_fn answer, void *arg);

/* The same (by engine_call_once if request has a key) for a call that changes something: the audit trail has its intent before anything
 * happens, and gets its outcome. When the intent cannot be written the call is refused, reason STORE_REASON_AUDIT, and nothing changes. */
void engine_call_audited(struct engine *engine, engine_call_fn call, struct engine_request *request, engine_answer_fn answer, void *arg);
/* One that did not come so far: its caller may not make it. */
void engine_audit_refused(struct engine *engine, struct engine_request *request, const struct engine_answer *answer);
/* The same of somebody who is not known, or not believed: the first such call from an address within a minute is recorded at once, the others are counted, and
 * told as one record (`repeated`) when the minute is over. So who floods us writes two records a minute. */
void engine_audit_turned_away(struct engine *engine, struct engine_request *request, const struct engine_answer *answer);
/* HTTP status of a failed call. */
int engine_failure_status(const struct engine_answer *answer);
void engine_audit_list(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: limit, cursor, principal, operation, object, call, format */

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
void engine_snapshot_set_components(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* AddComponent for all on its volumes */
void engine_hold_list(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: label */
void engine_snapshot_set_release(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_session_restore_state(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_component_subcomponent(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* AddRestoreSubcomponent */
void engine_component_new_target(struct engine *, const struct engine_request *, engine_answer_fn, void *);   /* AddNewTarget */
void engine_component_mapping(struct engine *, const struct engine_request *, engine_answer_fn, void *);      /* AddAlternativeLocationMapping */
/* Jobs of a session: 202 */
void engine_job_metadata(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_prepare(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_snapshot(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_copy(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_complete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_status(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_pre_restore(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_restore_files(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_post_restore(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* Jobs */
void engine_job_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_list(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: limit, cursor, state, operation, session */
void engine_job_cancel(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_job_release(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* Snapshots and catalog */
void engine_snapshot_list(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: limit, cursor, session, set, volume, context */
void engine_snapshot_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_snapshot_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: force */
void engine_snapshot_expose(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_snapshot_unexpose(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_snapshot_files(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: path, limit, cursor */
void engine_snapshot_archive(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: path, format; only_head */
void engine_snapshot_revert(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_snapshot_revert_status(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_snapshot_set_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_snapshot_set_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: force */
void engine_backup_create(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_backup_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_backup_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_backup_files(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: path, limit, cursor */
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
void engine_volume_resolve(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_error_list(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: session, job, limit, cursor */
/* Tokens */
void engine_token_create(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_token_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_token_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_token_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* Enrolments, and the certificates that they give */
void engine_enrolment_create(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_enrolment_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_enrolment_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_enrolment_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_certificate_create(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_certificate_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_certificate_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_certificate_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* Webhooks, and their deliveries */
void engine_webhook_create(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_webhook_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_webhook_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_webhook_patch(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_webhook_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_webhook_rotate(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_webhook_test(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_delivery_list(struct engine *, const struct engine_request *, engine_answer_fn, void *); /* query: state, limit, cursor */
void engine_delivery_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_delivery_redeliver(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* Has the courier started (daemon/courier) with fd (borrowed) as its channel; asked for only when there is something to deliver. */
void engine_on_courier(struct engine *engine, void (*start)(void *arg, int fd), void *arg);
/* Has the signer started on fd (borrowed): it reads a CSR in PEM there until the end, and writes one JSON text: {"certificate",
 * "sha256","serial","expires_ms"} or {"error"}. */
typedef void (*engine_sign_fn)(void *arg, const char *principal, int days, int fd);
void engine_on_sign(struct engine *engine, engine_sign_fn sign, void *arg);
/* Has the signer started on fd (borrowed) for a seal of the audit trail: {"seq","hash"} there, {"seal"} or {"error"} back. */
void engine_on_seal(struct engine *engine, void (*seal)(void *arg, int fd), void *arg);
/* The daemon ends: what has no seal yet gets one. ended is called when it has it, or none is to be had within a few seconds. */
void engine_audit_seal_last(struct engine *engine, void (*ended)(void *arg), void *arg);

enum credential_verdict {
    CREDENTIAL_UNKNOWN,
    CREDENTIAL_EXPIRED,
    CREDENTIAL_GOOD,
    CREDENTIAL_PERSONAL, /* good as long as its principal still has its role by the configuration: the caller looks */
};
/* Whose secret, or certificate, has this SHA-256? Of memory alone: answers while the store is parked, too. ret is filled unless
 * unknown; its scopes are borrowed. from: the caller's address, for last_used_from; NULL: this is no use of it. */
enum credential_verdict engine_token_check(struct engine *engine, const uint8_t sha256[32], const char *from, struct principal *ret);
enum credential_verdict engine_certificate_check(struct engine *engine, const uint8_t sha256[32], const char *from, struct principal *ret);
/* Writes its families. Of memory alone: also while the store is parked. labels: with those that callers gave to their sessions. */
struct openmetrics;
/* Does he see everybody's sessions and jobs? */
bool engine_sees_all(const struct principal *principal);
void engine_metrics(struct engine *engine, struct openmetrics *text, bool labels);
/* A browser's login, by the SHA-256 of its cookie: what it stands for must still be good, and is for the caller to check. */
struct engine_login {
    char id[UUID_SIZE], principal[128];
    bool by_token;      /* else by a certificate, which must be presented with the cookie */
    uint8_t digest[32]; /* of that token or certificate */
};
enum credential_verdict engine_login_check(struct engine *engine, const uint8_t sha256[32], const char *from, struct engine_login *ret);
/* create: the body is {"by":"token"|"certificate","of":sha256}; the answer has the secret, as `cookie`. delete: this login (of
 * principal.login), or with `everywhere` all of the principal. */
void engine_login_create(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_login_get(struct engine *, const struct engine_request *, engine_answer_fn, void *);
void engine_login_delete(struct engine *, const struct engine_request *, engine_answer_fn, void *);
/* {"ready":bool,"reasons":[],"warnings":[]}: 200 or 503 by `ready`. */
void engine_health(struct engine *, const struct engine_request *, engine_answer_fn, void *);

/* Called on the loop whenever a job's committed state changed (waiters wake) . */
typedef void (*engine_job_observer_fn)(void *arg, const char *job_id);
void engine_observe_jobs(struct engine *engine, engine_job_observer_fn observer, void *arg);
/* What is true just now, and is not kept: `job.progress` of each pending job, `session.frozen` from the first Freeze of a session to its
 * last Thaw. Told again under its key when it changes, data NULL when it is over. All borrowed. */
struct engine_notice {
    const char *type, *key, *session_id, *job_id, *owner; /* ids and owner may be NULL */
    json_t *data;
};
struct engine_watcher {
    store_event_fn event; /* each durable event, in the order of ids */
    void (*notice)(void *arg, const struct engine_notice *notice);
};
void engine_watch(struct engine *engine, const struct engine_watcher *watcher, void *arg);
/* May the principal see such an event or notice? As with the lists: viewers, auditors and administrators all of them, others their own,
 * restorers those of backups and snapshots, too. */
bool engine_event_visible(const struct principal *principal, const char *type, const char *owner);
/* query: after, session, job, limit. 200 {"items","to","oldest","newest"}: struct store_event_page, of what the principal may see. */
void engine_event_list(struct engine *, const struct engine_request *, engine_answer_fn, void *);
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

/* --- a body that a producer writes into a pipe --- */

const char *engine_archive_type(const char *format); /* media type of ?format= of the archive; the last one of an unknown format */
const char *engine_stream_type(const struct engine_stream *stream); /* its media type */
const char *engine_stream_name(const struct engine_stream *stream); /* a file name for it, of letters, digits, "." and "-" */
/* The reading end of the pipe, the caller's; -1 when only the head was asked for. ended comes once, after the producer's end, unless the
 * stream is closed first: whole is true only when it has succeeded and what it read was there to the end. */
int engine_stream_start(struct engine_stream *stream, void (*ended)(void *arg, bool whole), void *arg);
/* Ends the producer when it still runs. NULL is fine. */
void engine_stream_close(struct engine_stream *stream);
