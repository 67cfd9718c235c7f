#pragma once
/* Private to the engine: webhooks and their deliveries. Whatever changes a webhook's record runs on its serial; a delivery is
 * durable, with the cursor behind its event, before anything of it is sent, and so is sent at least once. */
#include "engine/webhook/courier_link.h"
#include "engine/engine_private.h"

enum {
    WEBHOOKS_MOST = 100,
    WEBHOOK_PENDING_MOST = 500, /* deliveries; beyond that the cursor waits: the events themselves are the queue */
    WEBHOOK_AT_ONCE = 4,        /* deliveries to one receiver; 1 to one that fails */
};

/* What came of an attempt. */
struct attempt {
    int status;       /* 0: no answer */
    char error[256];  /* "" = none */
    int64_t retry_after_ms, duration_ms, at_ms;
};

struct delivery {
    struct delivery *next;
    json_t *doc;     /* committed record */
    json_t *draft;   /* being committed */
    int64_t due_ms;  /* CLOCK_REALTIME */
    int64_t sent_ms; /* CLOCK_MONOTONIC; 0: not with the courier */
    bool settled;    /* `attempt` is to be recorded */
    struct attempt attempt;
};

struct webhook {
    struct serial serial; /* first: a task's serial is its webhook */
    struct webhooks *set;
    char id[UUID_SIZE];
    json_t *doc;               /* committed record */
    struct delivery *pending;  /* oldest first */
    struct delivery *arriving; /* of the step that is being committed */
    size_t n_pending, n_sent;
    int64_t cursor;            /* every event up to this id is dealt with */
    int64_t rest_until_ms;     /* CLOCK_MONOTONIC: the store refused a step */
    bool stepping;             /* a step is queued or being committed */
    bool woken;                /* there may be events behind the cursor */
    bool gone;                 /* deleted; freed when its serial is idle */
};

struct webhooks {
    struct engine *engine;
    struct webhook **all; /* oldest first */
    size_t n;
    struct courier_link *courier;
    struct loop_timer *turn;
    uint64_t attempts[2];  /* failed, delivered */
    bool soon;            /* the timer is set for a moment */
};

/* --- webhooks.c --- */
const json_t *webhooks_config(const struct engine *engine); /* section `webhooks`; borrowed */
struct webhook *webhook_find(const struct webhooks *set, const char *id); /* NULL: none, or deleted */
struct webhook *webhook_add(struct webhooks *set, json_t *doc /* taken */);
/* It is deleted: out of the set; freed later. */
void webhook_remove(struct webhook *webhook);
void webhook_batch_put(struct store_batch *batch, const json_t *doc);
json_t *webhook_draft(const struct webhook *webhook); /* copy of the record, with the cursor of now */
void webhook_commit(struct webhook *webhook, json_t *draft /* taken */); /* the store has it */
/* Of a record, or a draft of one: without secrets, and without what changes with each delivery (its ETag stays). New reference. */
json_t *webhook_view(const json_t *doc);
bool webhook_enabled(const struct webhook *webhook);
/* draft becomes disabled, with an event. */
void webhook_disable(struct store_batch *batch, json_t *draft, const char *reason);
void webhooks_turn_soon(struct webhooks *set);

/* --- webhook_step.c --- */
/* Records what came of attempts, and makes deliveries of events behind the cursor: one commit for all that is there. */
void webhook_step(struct webhook *webhook);

/* --- deliveries.c --- */
/* Of an event {"id","time","type","session_id","job_id","data"}; an id of 0 is a test. New reference. */
json_t *delivery_record(struct engine *engine, const char *webhook_id, const json_t *event);
void delivery_batch_put(const struct engine *engine, struct store_batch *batch, const json_t *doc);
json_t *delivery_view(struct engine *engine, json_t *doc);
/* A copy of the record with the attempt in its log, and what follows from it. */
json_t *delivery_after(const struct engine *engine, const struct delivery *delivery);
bool delivery_pending(const json_t *doc);
bool delivery_once(const json_t *doc); /* a test: no second attempt, and it says nothing of the webhook */
struct delivery *delivery_add(struct webhook *webhook, json_t *doc /* taken */); /* a committed, pending one */
struct delivery *delivery_find(const struct webhook *webhook, const char *id);
void delivery_free(struct delivery *delivery);
void deliveries_free(struct delivery *first);
/* "deliver" for the courier, signed for this moment; new reference. */
json_t *delivery_message(const struct webhook *webhook, const struct delivery *delivery);

/* --- webhooks.c --- */
int webhooks_open(struct engine *engine, struct err *err);
void webhooks_wake(struct engine *engine);   /* something has happened */
struct openmetrics;
void webhooks_metrics(const struct engine *engine, struct openmetrics *text);
void webhooks_free(struct engine *engine);   /* before the store; deliveries in hand are sent again at the next start */
