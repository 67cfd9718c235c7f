/* The calls on webhooks and their deliveries. */
#include <string.h>

#include "crypto/hash.h"
#include "crypto/pki.h"
#include "engine/session/session.h"
#include "engine/webhook/webhooks.h"
#include "model/webhook_rules.h"

#define SECRET_PREFIX "whsec_" /* Standard Webhooks: and the key in base64 */

enum { OVERLAP_SECONDS = 24 * 3600 };

static struct webhook *webhook_of(const struct task *task)
{
    return (struct webhook *)(void *)task->serial;
}

static void no_webhook(const struct engine_request *request, struct err *err)
{
    err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /webhooks lists what there is.", "webhook %s: no such webhook", request->id);
}

static void no_delivery(const struct engine_request *request, struct err *err)
{
    err_set(err, VSS_E_OBJECT_NOT_FOUND, "Delivered ones are kept for webhooks.log_days.", "delivery %s: no such delivery of webhook %s",
            request->sub_id, request->id);
}

static struct webhook *found(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    struct webhook *webhook = webhook_find(engine->webhooks, request->id);
    if (!webhook) {
        no_webhook(request, &err);
        answer_error(answer, arg, &err);
    }
    return webhook;
}

/* Queues run on the webhook's serial; when it runs the webhook is there. */
static void on_serial(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                      void (*run)(struct task *task))
{
    struct webhook *webhook = found(engine, request, answer, arg);
    if (webhook)
        task_start(task_new(engine, request, answer, arg), &webhook->serial, run);
}

static bool gone(struct task *task)
{
    struct err err;
    if (!webhook_of(task)->gone)
        return false;
    no_webhook(task->request, &err);
    task_fail(task, &err);
    return true;
}

static void refused_by_store(struct task *task, const struct err *err)
{
    incident(task->engine, NULL, NULL, NULL, err->hr, err->text);
    task_fail(task, err);
}

/* --- POST --- */

static int check(const struct engine *engine, const json_t *body, struct err *err)
{
    const json_t *config = webhooks_config(engine);
    const struct webhook_bounds bounds = {.allow_http = json_bool(config, "allow_http", false),
                                          .allow_private = json_object_get(config, "allow_private")};
    const char *url = json_str(body, "url", NULL), *ca = json_str(body, "ca_pem", NULL);
    if (url && webhook_url_check(url, &bounds, err))
        return -1;
    if (!ca || pki_certificates_valid(ca))
        return 0;
    err_set(err, E_INVALIDARG, NULL, "must be one or more certificates in PEM");
    str_copy(err->pointer, sizeof err->pointer, "/ca_pem");
    return -1;
}

/* A new key in own; the secret is the caller's to free. */
static char *make_secret(json_t *own)
{
    uint8_t key[HASH_SIZE];
    char hex[HASH_HEX_SIZE];
    hash_random(key, sizeof key);
    AUTO_FREE char *coded = hash_base64(key, sizeof key);
    char *secret = str_new(SECRET_PREFIX "%s", coded);
    json_put(own, "key", json_string(hash_hex(key, hex)));
    explicit_bzero(key, sizeof key);
    explicit_bzero(coded, strlen(coded));
    explicit_bzero(hex, sizeof hex);
    return secret;
}

static json_t *record(const struct engine_request *request, int64_t cursor)
{
    static const char *const nulls[] = {"disabled_at", "disabled_reason", "failing_since"};
    int64_t now_ms = clock_real_ms();
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE];
    const json_t *events = json_object_get(request->body, "events");
    clock_rfc3339(now_ms, now);
    json_t *doc = json_pack("{s:s, s:s, s:s, s:o, s:b, s:s?, s:s, s:s, s:s, s:s, s:i}", "id", uuid_v7(id), "name",
                            json_str(request->body, "name", ""), "url", json_str(request->body, "url", ""), "events",
                            events ? json_deep_copy(events) : json_array(), "enabled", json_bool(request->body, "enabled", true), "ca_pem",
                            json_str(request->body, "ca_pem", NULL), "created_at", now, "updated_at", now, "made_by",
                            request->principal->name, "secret_made_at", now, "missed_events", 0);
    for (size_t i = 0; i < ELEMENTS(nulls); i++)
        json_put(doc, nulls[i], json_null());
    json_put(doc, "_", json_pack("{s:I, s:I}", "created_ms", (json_int_t)now_ms, "cursor", (json_int_t)cursor));
    return doc;
}

/* What Idempotency-Key keeps of the answer has no secret. */
static void foretell(struct task *task, int status)
{
    task->status = status;
    task->body = webhook_view(json_object_get(task->scratch, "doc"));
    json_put(task->body, "secret", json_null());
}

static void answer_secret(struct task *task)
{
    json_put(task->body, "secret", json_incref(json_object_get(task->scratch, "secret")));
    task_answer(task, task->status, json_incref(task->body));
}

static void created(struct task *task, const struct err *err)
{
    if (err) {
        refused_by_store(task, err);
        return;
    }
    webhook_add(task->engine->webhooks, json_incref(json_object_get(task->scratch, "doc")));
    answer_secret(task);
}

/* What happened before is not its business. */
static int newest_event(struct engine *engine, int64_t *ret, struct err *err)
{
    const struct store_event_query query = {.limit = 1};
    struct store_event_page page;
    if (store_events(engine->store, &query, &page, err) != STORE_OK)
        return -1;
    json_decref(page.rows);
    *ret = page.newest;
    return 0;
}

void engine_webhook_create(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    int64_t newest;
    if (engine->webhooks->n >= WEBHOOKS_MOST)
        err_set(&err, E_OUTOFMEMORY, "Delete some (GET /webhooks lists them).", "there are %d webhooks", WEBHOOKS_MOST);
    if (engine->webhooks->n >= WEBHOOKS_MOST || check(engine, request->body, &err) || newest_event(engine, &newest, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    json_t *doc = record(request, newest);
    AUTO_FREE char *secret = make_secret(session_private(doc));
    task->scratch = json_pack("{s:o, s:s}", "doc", doc, "secret", secret);
    explicit_bzero(secret, strlen(secret));
    struct store_batch *batch = store_batch_new();
    webhook_batch_put(batch, doc);
    foretell(task, 201);
    str_format(task->location, sizeof task->location, "/webhooks/%s", json_str(doc, "id", ""));
    task->committed = created;
    task_commit(task, batch);
}

/* --- GET --- */

void engine_webhook_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    const struct webhook *webhook = found(engine, request, answer, arg);
    if (webhook)
        answer_body(answer, arg, 200, webhook_view(webhook->doc));
}

static json_t *listed(struct engine *engine, json_t *doc)
{
    const struct webhook *webhook = webhook_find(engine->webhooks, json_str(doc, "id", ""));
    return webhook ? webhook_view(webhook->doc) : NULL;
}

void engine_webhook_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_WEBHOOK};
    list_answer(engine, request, answer, arg, &query, listed);
}

/* --- PATCH --- */

/* Enabled again: it goes on where it stopped, at once. */
static void enable(struct webhook *webhook, json_t *draft)
{
    static const char *const nulls[] = {"disabled_at", "disabled_reason", "failing_since"};
    for (size_t i = 0; i < ELEMENTS(nulls); i++)
        json_put(draft, nulls[i], json_null());
    json_object_del(session_private(draft), "failing_since_ms");
    for (struct delivery *delivery = webhook->pending; delivery; delivery = delivery->next)
        delivery->due_ms = clock_real_ms();
}

static void patched(struct task *task, const struct err *err)
{
    struct webhook *webhook = webhook_of(task);
    if (err) {
        refused_by_store(task, err);
        return;
    }
    webhook_commit(webhook, json_incref(task->scratch));
    webhook->woken = true;
    webhooks_turn_soon(webhook->set);
    task_answer(task, 200, webhook_view(webhook->doc));
}

static void patch_run(struct task *task)
{
    static const char *const members[] = {"name", "url", "events", "enabled", "ca_pem"};
    struct webhook *webhook = webhook_of(task);
    const json_t *body = task->request->body;
    char now[CLOCK_RFC3339_SIZE];
    if (gone(task))
        return;
    json_t *draft = webhook_draft(webhook);
    for (size_t i = 0; i < ELEMENTS(members); i++)
        if (json_object_get(body, members[i]))
            json_put(draft, members[i], json_deep_copy(json_object_get(body, members[i])));
    json_put(draft, "updated_at", json_string(clock_rfc3339(clock_real_ms(), now)));
    bool enabled = json_bool(draft, "enabled", false);
    if (enabled && !webhook_enabled(webhook))
        enable(webhook, draft);
    if (!enabled && webhook_enabled(webhook)) {
        json_put(draft, "disabled_at", json_string(now));
        json_put(draft, "disabled_reason", json_string("by an administrator"));
    }
    task->scratch = draft;
    struct store_batch *batch = store_batch_new();
    webhook_batch_put(batch, draft);
    task->committed = patched;
    task_commit(task, batch);
}

void engine_webhook_patch(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    if (check(engine, request->body, &err))
        answer_error(answer, arg, &err);
    else
        on_serial(engine, request, answer, arg, patch_run);
}

/* --- POST …/rotate --- */

static void rotated(struct task *task, const struct err *err)
{
    struct webhook *webhook = webhook_of(task);
    if (err) {
        refused_by_store(task, err);
        return;
    }
    webhook_commit(webhook, json_incref(json_object_get(task->scratch, "doc")));
    answer_secret(task);
}

static void rotate_run(struct task *task)
{
    if (gone(task))
        return;
    json_t *draft = webhook_draft(webhook_of(task)), *own = session_private(draft);
    int64_t now_ms = clock_real_ms();
    char now[CLOCK_RFC3339_SIZE];
    json_put(own, "former_key", json_incref(json_object_get(own, "key")));
    json_put(own, "former_until_ms", json_integer(now_ms + 1000 * json_int(task->request->body, "overlap_seconds", OVERLAP_SECONDS)));
    AUTO_FREE char *secret = make_secret(own);
    clock_rfc3339(now_ms, now);
    json_put(draft, "secret_made_at", json_string(now));
    json_put(draft, "updated_at", json_string(now));
    task->scratch = json_pack("{s:o, s:s}", "doc", draft, "secret", secret);
    explicit_bzero(secret, strlen(secret));
    struct store_batch *batch = store_batch_new();
    webhook_batch_put(batch, draft);
    foretell(task, 200);
    task->committed = rotated;
    task_commit(task, batch);
}

void engine_webhook_rotate(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    on_serial(engine, request, answer, arg, rotate_run);
}

/* --- DELETE --- */

static void deleted(struct task *task, const struct err *err)
{
    if (err) {
        refused_by_store(task, err);
        return;
    }
    webhook_remove(webhook_of(task));
    task_answer(task, 204, NULL);
}

/* The log of what has ended goes with retention; nobody can ask for it any more. */
static void delete_run(struct task *task)
{
    const struct webhook *webhook = webhook_of(task);
    if (gone(task))
        return;
    struct store_batch *batch = store_batch_new();
    store_batch_delete(batch, STORE_WEBHOOK, webhook->id);
    for (const struct delivery *delivery = webhook->pending; delivery; delivery = delivery->next)
        store_batch_delete(batch, STORE_DELIVERY, json_str(delivery->doc, "id", ""));
    task->committed = deleted;
    task_commit(task, batch);
}

void engine_webhook_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    on_serial(engine, request, answer, arg, delete_run);
}

/* --- deliveries --- */

void engine_delivery_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    if (!found(engine, request, answer, arg))
        return;
    struct store_query query = {.kind = STORE_DELIVERY, .session_id = request->id, .state = json_str(request->query, "state", NULL)};
    list_answer(engine, request, answer, arg, &query, delivery_view);
}

/* The record of a delivery of that webhook; NULL with err. New reference. */
static json_t *delivery_read(struct engine *engine, const struct engine_request *request, struct err *err)
{
    AUTO_JSON json_t *doc = NULL;
    enum store_result result = store_get(engine->store, STORE_DELIVERY, request->sub_id, &doc, NULL, err);
    if (result == STORE_OK && str_eq(json_str(doc, "webhook_id", ""), request->id))
        return TAKE_PTR(doc);
    if (result == STORE_OK || result == STORE_NONE)
        no_delivery(request, err);
    return NULL;
}

void engine_delivery_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    if (!found(engine, request, answer, arg))
        return;
    AUTO_JSON json_t *doc = delivery_read(engine, request, &err);
    if (doc)
        answer_body(answer, arg, 200, delivery_view(engine, doc));
    else
        answer_error(answer, arg, &err);
}

static bool has_room(struct task *task)
{
    struct err err;
    if (webhook_of(task)->n_pending < 2 * WEBHOOK_PENDING_MOST)
        return true;
    err_set(&err, E_OUTOFMEMORY, "Wait until some have ended, or disable the webhook.", "webhook %s has %zu deliveries pending",
            webhook_of(task)->id, webhook_of(task)->n_pending);
    task->retry_after = 60;
    task_fail(task, &err);
    return false;
}

/* One that is to be sent at once: task->scratch is its record. */
static void enqueued(struct task *task, const struct err *err)
{
    struct webhook *webhook = webhook_of(task);
    if (err) {
        refused_by_store(task, err);
        return;
    }
    delivery_add(webhook, json_incref(task->scratch));
    webhooks_turn_soon(webhook->set);
    task_done(task);
}

static void enqueue(struct task *task, json_t *doc)
{
    task->scratch = doc;
    task->status = 202;
    task->body = delivery_view(task->engine, doc);
    str_format(task->location, sizeof task->location, "/webhooks/%s/deliveries/%s", webhook_of(task)->id, json_str(doc, "id", ""));
    struct store_batch *batch = store_batch_new();
    delivery_batch_put(task->engine, batch, doc);
    task->committed = enqueued;
    task_commit(task, batch);
}

static void test_run(struct task *task)
{
    char now[CLOCK_RFC3339_SIZE];
    if (gone(task) || !has_room(task))
        return;
    const char *id = webhook_of(task)->id;
    AUTO_JSON json_t *event = json_pack("{s:i, s:s, s:s, s:{s:s}}", "id", 0, "time", clock_rfc3339(clock_real_ms(), now), "type",
                                        "webhook.test", "data", "webhook", id);
    enqueue(task, delivery_record(task->engine, id, event));
}

void engine_webhook_test(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    on_serial(engine, request, answer, arg, test_run);
}

static void redeliver_run(struct task *task)
{
    struct webhook *webhook = webhook_of(task);
    struct err err;
    char now[CLOCK_RFC3339_SIZE];
    if (gone(task))
        return;
    struct delivery *pending = delivery_find(webhook, task->request->sub_id);
    AUTO_JSON json_t *doc = pending ? json_incref(pending->doc) : delivery_read(task->engine, task->request, &err);
    if (!doc) {
        task_fail(task, &err);
        return;
    }
    if (!webhook_enabled(webhook)) {
        err_set(&err, VSS_E_BAD_STATE, "Enable it: PATCH {\"enabled\": true}.", "webhook %s is disabled", webhook->id);
        task_fail(task, &err);
        return;
    }
    if (pending) {
        pending->due_ms = clock_real_ms();
        webhooks_turn_soon(webhook->set);
        str_format(task->location, sizeof task->location, "/webhooks/%s/deliveries/%s", webhook->id, task->request->sub_id);
        task_answer(task, 202, delivery_view(task->engine, doc));
        return;
    }
    if (!has_room(task))
        return;
    json_t *draft = json_copy(doc), *own = json_copy(session_private(doc));
    json_put(own, "tries", json_integer(0));
    json_put(own, "due_ms", json_integer(clock_real_ms()));
    json_put(draft, "_", own);
    json_put(draft, "state", json_string("pending"));
    json_put(draft, "next_attempt_at", json_string(clock_rfc3339(clock_real_ms(), now)));
    enqueue(task, draft);
}

void engine_delivery_redeliver(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    on_serial(engine, request, answer, arg, redeliver_run);
}
