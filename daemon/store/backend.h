#pragma once
/* What a store keeps its records in. The front (store.c) owns the queue, the commit thread and the order of
 * completions; a back end applies batches and answers queries. */
#include <stddef.h>

#include "store/store.h"

enum store_op_kind { STORE_OP_PUT, STORE_OP_DELETE, STORE_OP_EVENT, STORE_OP_EXPIRE, STORE_OP_EXPIRE_EVENTS, STORE_OP_AUDIT };

/* One write, with texts of its own: it is applied on another thread. */
struct store_op {
    enum store_op_kind op;
    enum store_kind kind;
    char *id, *session_id, *job_id, *owner, *state, *operation; /* an event's type is its operation */
    int64_t event_id;   /* given by the commit; 0 = there is none */
    int64_t created_ms; /* of an event: when; of an expiry: now; of an expiry of events: before when */
    int64_t expires_ms;
    int keep_at_most;
    bool hidden;
    bool if_deleted; /* an event: when the op before it, a deletion, has found its record */
    bool more; /* of an expiry: the back end took a part, the rest is for later commits */
    char *doc; /* compact JSON text, NULL when it could not be written */
    char *rest; /* the same; NULL = none */
};

struct store_batch {
    struct store_batch *next;
    struct store_op *ops;
    size_t n_ops, room;
    store_done_fn done;
    void *arg;
    int64_t submitted_us; /* clock_mono_us */
    bool failed; /* before the commit: never to be applied */
    struct err err; /* when failed */
};

struct store_backend {
    /* NULL with err. The state is used by two threads at once: commit on one, everything else on the other. */
    void *(*open)(const char *where, struct err *err);
    void (*close)(void *state);
    /* Applies the batches in order; each is all-or-nothing and has failed and err set when it failed. */
    void (*commit)(void *state, struct store_batch *const *batches, size_t n);
    enum store_result (*get)(void *state, enum store_kind kind, const char *id, json_t **ret_doc, bool *ret_hidden,
                             struct err *err);
    enum store_result (*list)(void *state, const struct store_query *query, json_t **ret_rows, bool *ret_more,
                              struct err *err);
    enum store_result (*events)(void *state, const struct store_event_query *query, struct store_event_page *ret, struct err *err);
    /* At open, before the commit thread runs: moves records that cannot be read aside. *ret_moved: [{"kind","id"}]. */
    int (*quarantine)(void *state, json_t **ret_moved, struct err *err);
    int (*quarantined)(void *state, enum store_kind kind, json_t **ret_ids, struct err *err);
    /* Did open leave a look through the whole store to be done behind the start? check then does it, on a thread of its
     * own, until check_stop is called from another one; its err is set when something was found. */
    bool (*check_due)(void *state);
    enum store_check (*check)(void *state, struct err *err);
    void (*check_stop)(void *state);
};

extern const struct store_backend store_sqlite;
