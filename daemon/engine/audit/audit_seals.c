/* The audit trail's seals: core says how far the trail is, the signer signs that with a key that core does not have (crypto/audit_seal.h). Nothing waits for
 * a seal, no call and no thaw: it is asked for behind what it seals, by interval and number of records (audit.seal_seconds, audit.seal_records), at the start
 * and at the end. What fails is tried again; it is told once in the log, and in GET /health/ready and /metrics for as long as it lasts. */
#include "engine/audit/audit_seals.h"

#include <search.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/openmetrics.h"
#include "engine/audit/audit.h"
#include "engine/audit/signer_call.h"
#include "engine/session/session.h"

enum {
    GAP_MS = 10 * 1000,        /* by number of records no more often than that: each seal is a process */
    FROZEN_AGAIN_MS = 500,     /* the signer writes to the state directory: not while something is frozen */
    AGAIN_FIRST_MS = 1000,     /* after a failure, doubled each time */
    AGAIN_MOST_MS = 300 * 1000,
    LAST_MS = 3000,            /* the daemon's end waits so long */
};

struct audit_seals {
    struct engine *engine;
    struct loop_timer *due, *last_bound;
    struct signer_call *call;
    json_t *committing;     /* a seal on its way to the store, or NULL */
    bool soon;              /* due is for the number of records */
    json_t *newest;         /* the newest seal, or NULL */
    int64_t sealed;         /* its record's number; 0: none */
    int64_t unsealed;       /* records behind it, as far as is known: counted when they are handed to the store */
    int64_t asked_us;       /* clock_mono_us() of the last time that the signer was asked */
    int64_t again_ms;       /* after the next failure; 0: the last one went well */
    uint64_t failures;
    struct err failure;     /* while again_ms > 0 */
    void (*ended)(void *arg);
    void *ended_arg;
};

static int64_t setting(const struct audit_seals *seals, const char *name, int64_t fallback)
{
    return json_int(json_object_get(seals->engine->config, "audit"), name, fallback);
}

/* --- the newest record --- */

static int newest(struct engine *engine, enum store_kind kind, json_t **ret, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    const struct store_query query = {.kind = kind, .limit = 1};
    if (store_list(engine->store, &query, &rows, NULL, err) == STORE_ERROR)
        return -1;
    *ret = json_incref(json_array_get(rows, 0));
    return 0;
}

static void frozen_one(const void *node, VISIT visit, void *arg)
{
    const struct session *session = *(struct session *const *)node;
    if ((visit == postorder || visit == leaf) && session->frozen)
        *(bool *)arg = true;
}

static bool anything_frozen(struct engine *engine)
{
    bool frozen = store_parked(engine->store) || freezes_stuck(engine) > 0;
    twalk_r(engine->sessions, frozen_one, &frozen);
    return frozen;
}

/* --- what comes of it --- */

static void over(struct audit_seals *seals)
{
    void (*ended)(void *) = seals->ended;
    loop_timer_stop(seals->last_bound);
    seals->ended = NULL;
    if (ended)
        ended(seals->ended_arg);
}

static void failed(struct audit_seals *seals, const struct err *err)
{
    if (seals->again_ms == 0)
        log_err(LOG_LEVEL_ERROR, NULL, err, "the audit trail could not be sealed behind record %lld; it is tried again", (long long)seals->sealed);
    seals->failures++;
    seals->failure = *err;
    seals->again_ms = seals->again_ms == 0 ? AGAIN_FIRST_MS : seals->again_ms * 2 > AGAIN_MOST_MS ? AGAIN_MOST_MS : seals->again_ms * 2;
    loop_timer_set(seals->due, seals->again_ms);
    over(seals);
}

/* As soon as there are so many, or so long after the first of them. */
static void plan(struct audit_seals *seals)
{
    if (seals->unsealed <= 0 || seals->call || seals->committing || seals->again_ms > 0)
        return;
    int64_t since_ms = seals->asked_us ? (clock_mono_us() - seals->asked_us) / 1000 : GAP_MS;
    if (seals->soon)
        return;
    seals->soon = seals->unsealed >= setting(seals, "seal_records", 1000);
    if (seals->soon)
        loop_timer_set(seals->due, since_ms < GAP_MS ? GAP_MS - since_ms : 0);
    else if (!loop_timer_armed(seals->due))
        loop_timer_set(seals->due, 1000 * setting(seals, "seal_seconds", 3600));
}

static void succeeded(struct audit_seals *seals, json_t *seal)
{
    json_decref(seals->newest);
    seals->newest = json_incref(seal);
    int64_t before = seals->sealed;
    seals->sealed = json_int(seal, "seal", 0);
    seals->unsealed -= seals->sealed - before;
    if (seals->again_ms > 0)
        log_line(LOG_LEVEL_INFO, NULL, "the audit trail is sealed again, up to record %lld", (long long)seals->sealed);
    seals->again_ms = 0;
    if (seals->ended && seals->unsealed > 0) { /* it was asked for before the last records */
        loop_timer_set(seals->due, 0);
        return;
    }
    plan(seals);
    over(seals);
}

static void committed(void *arg, const struct err *err)
{
    struct audit_seals *seals = arg;
    AUTO_JSON json_t *seal = TAKE_PTR(seals->committing);
    if (err)
        failed(seals, err);
    else
        succeeded(seals, seal);
}

static void keep(struct audit_seals *seals, json_t *seal)
{
    char id[STORE_AUDIT_ID_SIZE];
    str_format(id, sizeof id, STORE_AUDIT_ID, (long long)json_int(seal, "seal", 0));
    const struct store_record record = {.id = id, .created_ms = clock_real_ms(), .doc = seal};
    struct store_batch *batch = store_batch_new();
    store_batch_put(batch, STORE_SEAL, &record);
    seals->committing = json_incref(seal);
    store_submit(seals->engine->store, batch, committed, seals);
}

static void said(void *arg, const json_t *answer)
{
    struct audit_seals *seals = arg;
    json_t *seal = json_object_get(answer, "seal");
    struct err err = {0};
    seals->call = NULL;
    if (json_is_integer(json_object_get(seal, "seal"))) {
        keep(seals, seal);
        return;
    }
    if (json_is_object(json_object_get(answer, "error")))
        err_from_json(&err, json_object_get(answer, "error"));
    else
        err_set(&err, VSS_E_UNEXPECTED, "The log of the signer says more.", "the signer gave no seal");
    failed(seals, &err);
}

/* --- asking --- */

static int ask(struct audit_seals *seals, const json_t *record, struct err *err)
{
    struct engine *engine = seals->engine;
    int fd = -1;
    AUTO_JSON json_t *request = json_pack("{s:O, s:O}", "seq", json_object_get(record, "seq"), "hash", json_object_get(record, "hash"));
    if (!request)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "the newest record of the audit trail is damaged");
    AUTO_FREE char *text = json_dumps(request, JSON_COMPACT);
    if (engine->seal)
        seals->call = signer_call_new(engine->loop, text, &fd, said, seals);
    if (!seals->call)
        return err_set(err, E_OUTOFMEMORY, NULL, "the signer cannot be reached");
    seals->asked_us = clock_mono_us();
    engine->seal(engine->seal_arg, fd);
    close(fd);
    return 0;
}

static void on_due(void *arg)
{
    struct audit_seals *seals = arg;
    struct engine *engine = seals->engine;
    AUTO_JSON json_t *record = NULL;
    struct err err = {0};
    seals->soon = false;
    if (seals->call || seals->committing)
        return;
    if (anything_frozen(engine)) {
        loop_timer_set(seals->due, FROZEN_AGAIN_MS);
        return;
    }
    if (newest(engine, STORE_AUDIT, &record, &err) != 0) {
        failed(seals, &err);
        return;
    }
    seals->unsealed = json_int(record, "seq", 0) - seals->sealed;
    if (seals->unsealed == 0)
        over(seals);
    else if (ask(seals, record, &err) != 0)
        failed(seals, &err);
}

void audit_seals_note(struct engine *engine)
{
    if (!engine->seals)
        return;
    engine->seals->unsealed++;
    plan(engine->seals);
}

/* --- from start to end --- */

static void on_last_bound(void *arg)
{
    over(arg);
}

struct audit_seals *audit_seals_new(struct engine *engine, struct err *err)
{
    AUTO_JSON json_t *record = NULL;
    json_t *seal = NULL;
    if (newest(engine, STORE_SEAL, &seal, err) != 0)
        return NULL;
    struct audit_seals *seals = mem_new(sizeof *seals);
    *seals = (struct audit_seals){.engine = engine, .newest = seal, .sealed = json_int(seal, "seal", 0)};
    if (newest(engine, STORE_AUDIT, &record, err) == 0)
        seals->unsealed = json_int(record, "seq", 0) - seals->sealed;
    seals->due = loop_timer_new(engine->loop, on_due, seals);
    seals->last_bound = loop_timer_new(engine->loop, on_last_bound, seals);
    return seals;
}

void audit_seals_begin(struct engine *engine)
{
    if (engine->seals->unsealed != 0) /* less than none: the store is older than its seals; the signer says so */
        loop_timer_set(engine->seals->due, 0);
}

static void all_written(void *arg, const struct err *err)
{
    struct audit_seals *seals = arg;
    (void)err; /* what the store does not have is not sealed */
    loop_timer_set(seals->due, 0);
}

void engine_audit_seal_last(struct engine *engine, void (*ended)(void *arg), void *arg)
{
    struct audit_seals *seals = engine->seals;
    if (!seals || seals->ended || seals->unsealed == 0 || anything_frozen(engine)) {
        ended(arg);
        return;
    }
    seals->ended = ended;
    seals->ended_arg = arg;
    loop_timer_set(seals->last_bound, LAST_MS);
    audits_flush(engine, all_written, seals);
}

void audit_seals_free(struct audit_seals *seals)
{
    if (!seals)
        return;
    signer_call_free(seals->call);
    loop_timer_free(seals->due);
    loop_timer_free(seals->last_bound);
    json_decref(seals->newest);
    json_decref(seals->committing);
    free(seals);
}

void engine_on_seal(struct engine *engine, void (*seal)(void *arg, int fd), void *arg)
{
    engine->seal = seal;
    engine->seal_arg = arg;
}

/* --- what is told of it --- */

const json_t *audit_seals_newest(const struct engine *engine)
{
    return engine->seals ? engine->seals->newest : NULL;
}

void audit_seals_warn(const struct engine *engine, json_t *warnings)
{
    const struct audit_seals *seals = engine->seals;
    if (!seals || seals->again_ms == 0)
        return;
    AUTO_FREE char *text = str_new("the audit trail is not sealed, %lld records since the last seal: %s", (long long)seals->unsealed, seals->failure.text);
    json_add(warnings, json_string(text));
}

void audit_seals_metrics(const struct engine *engine, struct openmetrics *text)
{
    const struct audit_seals *seals = engine->seals;
    if (!seals)
        return;
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_audit_unsealed_records", "Records of the audit trail behind its last seal.");
    openmetrics_plain(text, seals->unsealed > 0 ? (double)seals->unsealed : 0);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_audit_sealed_records", "The number of the record that was sealed last.");
    openmetrics_plain(text, (double)seals->sealed);
    openmetrics_family(text, OPENMETRICS_COUNTER, "quiesced_audit_seal_failures", "Attempts to seal the audit trail that failed.");
    openmetrics_plain(text, (double)seals->failures);
}
