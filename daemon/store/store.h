#pragma once
/* The durable memory. Speaks in records, never SQL. Reads are answered on the calling (loop) thread from committed
 * state; writes are batches, applied in submission order and all-or-nothing by one group-commit thread
 * (SQLite: WAL, synchronous=FULL), which reports on the loop. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/histogram.h"
#include "base/loop.h"

enum store_result { STORE_OK, STORE_NONE, STORE_RETRY, STORE_ERROR };

enum store_kind {
    STORE_SESSION,
    STORE_JOB,
    STORE_SNAPSHOT,
    STORE_BACKUP,
    STORE_REPOSITORY,
    STORE_ERROR_ROW, /* logged VSS_E_UNEXPECTED and VSS_E_UNEXPECTED_WRITER_ERROR: GET /errors */
    STORE_TOKEN,     /* of POST /tokens, by the hash of their secrets */
    STORE_CERTIFICATE, /* client certificates that were enrolled, and are good */
    STORE_ENROLMENT,
    STORE_IDEMPOTENCY, /* answers of calls that came with an Idempotency-Key */
    STORE_SUCCESS, /* the last success of each label: /metrics */
    STORE_LOGIN, /* of browsers, by the hash of their cookie */
    STORE_WEBHOOK,
    STORE_DELIVERY,  /* of a webhook; its session_id is the webhook */
    STORE_LINK,      /* what backups go on from; its session_id is the backup */
    STORE_MARK,      /* of a repository that has been seen; its id is the repository's name */
    STORE_AUDIT, /* written by store_batch_audit alone */
    STORE_SEAL, /* of the audit trail; its id is STORE_AUDIT_ID of the record */
    STORE_KIND_COUNT
};

/* One record. doc is the whole truth; the others are its indexed members (each may be NULL). */
struct store_record {
    const char *id;         /* primary key; UUIDv7 or, for repositories, the name */
    const char *session_id;
    const char *job_id;
    const char *owner;
    const char *state;
    const char *operation;
    int64_t created_ms;
    int64_t expires_ms;     /* 0 = kept until deleted */
    bool hidden;            /* released jobs: answers 410, absent from lists */
    json_t *doc;            /* borrowed */
    json_t *rest;           /* borrowed; more of the record's members, nested as in doc, that a brief list does not read. Of sessions and backups; NULL = none */
};

/* err.reason when there is no room: the caller may come back, nothing is wrong with the store. */
#define STORE_REASON_FULL "store_full"

/* The id of the record of the audit trail with this number (long long): they sort as the numbers do. */
#define STORE_AUDIT_ID "%016lld"
enum { STORE_AUDIT_ID_SIZE = 24 };

struct store;
struct store_batch;

/* Opens (creates, migrates) the store under directory. A store newer than this program is refused. */
struct store *store_open(struct loop *loop, const char *directory, struct err *err);
/* Commits what is submitted, joins the thread. Completions that were not called yet are not called any more (who waits
 * for them is being taken down); failures among them are logged. NULL is fine. */
void store_close(struct store *store);

/* Records that could not be read and were moved aside at this start: [{"kind","id"}]. Borrowed. Of a large store these
 * are looked for among the newest records, and among those that the start reads. */
const json_t *store_moved(const struct store *store);
enum store_check { STORE_CHECK_SOUND, STORE_CHECK_RECORDS, STORE_CHECK_DAMAGED };
/* A store of more than 32 MiB is looked through behind the start, by a thread that runs when nothing else does: fn is
 * called, on the loop, when it found records that cannot be read, or the file itself damaged. The next start looks
 * through it first: it moves the records aside, or refuses the file. Call it before the loop runs. */
void store_on_check(struct store *store, void (*fn)(void *arg, enum store_check found, const struct err *err), void *arg);
/* Ids of all records of that kind that ever were; what belongs to them outside of the store is not to be touched. */
int store_quarantined(struct store *store, enum store_kind kind, json_t **ret_ids, struct err *err);

struct store_batch *store_batch_new(void);
void store_batch_free(struct store_batch *batch); /* an unsubmitted one */
void store_batch_put(struct store_batch *batch, enum store_kind kind, const struct store_record *record); /* insert or replace; serialises doc now */
void store_batch_delete(struct store_batch *batch, enum store_kind kind, const char *id);
/* The batch cannot be what it should be (something that it is made from could not be read): it will fail with err. */
void store_batch_fail(struct store_batch *batch, const struct err *err);
/* What happened, and whose it is: those who may not see everybody's things see the events of their own. */
struct store_event {
    int64_t id;     /* ever-increasing; given by the commit */
    int64_t at_ms;  /* CLOCK_REALTIME; given by store_batch_event */
    const char *type, *session_id, *job_id, *owner; /* all but the type may be NULL */
    const char *data;                               /* JSON text; NULL = none */
};
/* Appends an event in the same transaction. Of `event` type, session_id, job_id and owner count; data is borrowed, NULL = none. */
void store_batch_event(struct store_batch *batch, const struct store_event *event, const json_t *data);
/* store_batch_delete, and the event when there was such a record. */
void store_batch_delete_told(struct store_batch *batch, enum store_kind kind, const char *id, const struct store_event *event, const json_t *data);

/* Appends a record to the audit trail: its number, the hash of the one before and its own are added in the transaction, so that the chain has
 * no gap when a batch fails. record: job_id is the call; state "open" is an intent, anything else the outcome that closes it; id and expires_ms
 * do not count. Fault point: store.audit; err.reason is then STORE_REASON_AUDIT. */
#define STORE_REASON_AUDIT "audit"
void store_batch_audit(struct store_batch *batch, const struct store_record *record);

/* err is NULL when committed. Called on the loop, in submission order. It must not close the store. */
typedef void (*store_done_fn)(void *arg, const struct err *err);
/* Called on the loop for each event of a committed batch, in the order of their ids, before the batch's `done`. It must not submit. */
typedef void (*store_event_fn)(void *arg, const struct store_event *event);
void store_on_event(struct store *store, store_event_fn fn, void *arg);
/* Takes the batch. done may be NULL; a failure is then logged here. Fault point: store.commit. */
void store_submit(struct store *store, struct store_batch *batch, store_done_fn done, void *arg);

/* Parking: the store's file system is about to be frozen. From `parked` (called once, on the loop, when what was being
 * written is durable) until store_resume nothing of it is read or written: batches wait their turn, reads are refused
 * with STORE_ERROR, E_OUTOFMEMORY, instead of blocking. store_close commits what waits, parked or not. */
void store_park(struct store *store, void (*parked)(void *arg), void *arg);
/* `parked` is not called any more. Nothing happens when the store is not parked. */
void store_resume(struct store *store);
bool store_parked(const struct store *store);

/* Of memory alone: also while the store is parked. */
struct store_figures {
    struct histogram commits; /* seconds from store_submit to its completion, by histogram_latency_bounds; parked time counts */
    uint64_t failures;        /* batches that were refused */
    uint64_t transactions;    /* of them one may carry many batches */
    size_t waiting;           /* batches that are not in a transaction yet */
    bool parked;
};
void store_figures(struct store *store, struct store_figures *ret);

/* Does it do its duty? Of memory alone, too. */
struct store_condition {
    bool refuses;       /* the last change that it was given to write */
    struct err refusal;
    bool unreadable;    /* the last read failed, other than while parked */
    struct err unread;
    int64_t busy_ms;    /* how long the transaction in hand has been going on; 0 = none is */
};
void store_condition(struct store *store, struct store_condition *ret);

/* ret_doc: new reference. ret_hidden may be NULL. */
enum store_result store_get(struct store *store, enum store_kind kind, const char *id, json_t **ret_doc, bool *ret_hidden, struct err *err);

/* A reader's text of a record, kept until the record changes (a bounded table, so it may be gone sooner). Of visible records
 * only; the owner is for the check of who may see it. */
void store_keep(struct store *store, enum store_kind kind, const char *id, const char *owner, const char *text);
/* NULL = none; *ret_owner and the text are valid until the loop turns or store_keep is called. */
const char *store_kept(const struct store *store, enum store_kind kind, const char *id, const char **ret_owner);

struct store_query {
    enum store_kind kind;
    const char *session_id, *job_id, *owner, *state, *operation; /* NULL = any */
    const char *after;   /* keyset cursor: the last id of the page before; NULL = first page. */
    int limit;
    bool oldest_first;   /* by id; else newest first. Both read the same index */
    bool brief;          /* the rows' docs without what was put beside them as `rest`: to be shown, never to be put again */
};
/* ret_rows: new reference to an array of docs; *ret_more: a further page exists. Hidden records are left out. */
enum store_result store_list(struct store *store, const struct store_query *query, json_t **ret_rows, bool *ret_more, struct err *err);

/* Retention: deletes records of kind whose expires_ms is past, and of kind STORE_JOB the oldest terminal ones beyond keep_at_most
 * (0 = no bound); a thousand rows in one commit, until none is left. */
void store_expire(struct store *store, enum store_kind kind, int64_t now_ms, int keep_at_most);
/* The same of events: those before before_ms, and those beyond the newest keep_at_most. */
void store_expire_events(struct store *store, int64_t before_ms, int keep_at_most);

enum { STORE_EVENTS_LOOKED_AT = 2000 };
struct store_event_query {
    int64_t after;                           /* id */
    const char *session_id, *job_id, *owner; /* NULL = any */
    const char *others;                      /* beside the owner's: events whose type matches this GLOB, whoever's; NULL = none */
    int limit;
};
struct store_event_page {
    json_t *rows;   /* oldest first: {"id","time","type","session_id","job_id","owner","data"}; new reference */
    int64_t to;     /* there is nothing else up to this id: where the next page goes on */
    int64_t oldest; /* the first that is still kept; newest + 1 when there is none */
    int64_t newest; /* the last that there ever was; 0 = none */
};
/* Bounded work: without job_id at most STORE_EVENTS_LOOKED_AT events are looked at (a millisecond or two). */
enum store_result store_events(struct store *store, const struct store_event_query *query, struct store_event_page *ret, struct err *err);
