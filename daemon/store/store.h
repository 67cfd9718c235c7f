#pragma once
/* The durable memory. Speaks in records, never SQL. Reads are answered on the calling (loop) thread from committed
 * state; writes are batches, applied in submission order and all-or-nothing by one group-commit thread
 * (SQLite: WAL, synchronous=FULL), which reports on the loop. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

enum store_result { STORE_OK, STORE_NONE, STORE_RETRY, STORE_ERROR };

enum store_kind {
    STORE_SESSION,
    STORE_JOB,
    STORE_SNAPSHOT,
    STORE_BACKUP,
    STORE_REPOSITORY,
    STORE_ERROR_ROW, /* logged VSS_E_UNEXPECTED and VSS_E_UNEXPECTED_WRITER_ERROR: GET /errors */
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
};

struct store;
struct store_batch;

/* Opens (creates, migrates) the store under directory. A store newer than this program is refused. */
struct store *store_open(struct loop *loop, const char *directory, struct err *err);
/* Commits what is submitted, joins the thread. Completions that were not called yet are not called any more (who waits
 * for them is being taken down); failures among them are logged. NULL is fine. */
void store_close(struct store *store);

struct store_batch *store_batch_new(void);
void store_batch_free(struct store_batch *batch); /* an unsubmitted one */
void store_batch_put(struct store_batch *batch, enum store_kind kind, const struct store_record *record); /* insert or replace; serialises doc now */
void store_batch_delete(struct store_batch *batch, enum store_kind kind, const char *id);
/* Appends an event; its id is ever-increasing, in the same transaction. doc borrowed. */
void store_batch_event(struct store_batch *batch, const char *type, const char *session_id, const char *job_id, const json_t *doc);

/* err is NULL when committed. Called on the loop, in submission order. It must not close the store. */
typedef void (*store_done_fn)(void *arg, const struct err *err);
/* Takes the batch. done may be NULL; a failure is then logged here. Fault point: store.commit. */
void store_submit(struct store *store, struct store_batch *batch, store_done_fn done, void *arg);

/* ret_doc: new reference. ret_hidden may be NULL. */
enum store_result store_get(struct store *store, enum store_kind kind, const char *id, json_t **ret_doc, bool *ret_hidden, struct err *err);

struct store_query {
    enum store_kind kind;
    const char *session_id, *job_id, *owner, *state, *operation; /* NULL = any */
    const char *after;   /* keyset cursor: the last id of the page before; NULL = first page. Newest first. */
    int limit;
    bool oldest_first;
};
/* ret_rows: new reference to an array of docs; *ret_more: a further page exists. Hidden records are left out. */
enum store_result store_list(struct store *store, const struct store_query *query, json_t **ret_rows, bool *ret_more, struct err *err);

/* Retention: deletes records of kind whose expires_ms is past, and of kind STORE_JOB the oldest terminal ones beyond keep_at_most
 * (0 = no bound) and the events before the newest 100,000. */
void store_expire(struct store *store, enum store_kind kind, int64_t now_ms, int keep_at_most);
/* Events after id, oldest first: docs {"id","time","type","session_id","job_id","data"}. */
enum store_result store_events(struct store *store, int64_t after, int limit, json_t **ret_rows, struct err *err);
