/* One event for one webhook: its record, its body (CloudEvents 1.0, structured), its signature (Standard Webhooks 1.0). */
#include <string.h>

#include "crypto/hash.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/webhook/webhooks.h"
#include "model/webhook_rules.h"

enum {
    ATTEMPTS_SHOWN = 20,
    RETRY_AFTER_MOST_MS = 24 * 3600 * 1000,
};
#define DELIVERY_PENDING "pending"
#define DELIVERY_DELIVERED "delivered"
#define DELIVERY_FAILED "failed"

/* --- the record --- */

/* The event's own members first: they are what a receiver looks for. */
static json_t *cloud_event(const struct engine *engine, const json_t *event, const char *id)
{
    char number[24], source[300], subject[80] = "";
    const char *job = json_str(event, "job_id", NULL), *session = json_str(event, "session_id", NULL);
    const json_t *told = json_object_get(event, "data");
    json_t *data = json_is_object(told) ? json_deep_copy(told) : json_object();
    json_put(data, "session_id", session ? json_string(session) : json_null());
    json_put(data, "job_id", job ? json_string(job) : json_null());
    str_format(number, sizeof number, "%lld", (long long)json_int(event, "id", 0));
    str_format(source, sizeof source, "/nodes/%s", engine->node);
    if (job || session)
        str_format(subject, sizeof subject, "/%s/%s", job ? "jobs" : "sessions", job ? job : session);
    json_t *body = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "specversion", "1.0", "id", json_int(event, "id", 0) ? number : id,
                             "source", source, "type", json_str(event, "type", ""), "time", json_str(event, "time", ""),
                             "datacontenttype", "application/json", "data", data);
    if (*subject)
        json_put(body, "subject", json_string(subject));
    return body;
}

/* How the request that caused it is called elsewhere: of the job's record, when it says so. */
static json_t *cause_of(struct engine *engine, const char *job_id)
{
    static const char *const members[] = {"request_id", "traceparent"};
    json_t *cause = json_object();
    const struct job *job = job_id ? job_find(engine, job_id) : NULL;
    AUTO_JSON json_t *doc = job ? json_incref(job->doc) : NULL;
    if (job_id && !doc && store_get(engine->store, STORE_JOB, job_id, &doc, NULL, NULL) != STORE_OK)
        return cause;
    for (size_t i = 0; i < ELEMENTS(members); i++) {
        const char *value = json_str(doc, members[i], json_str(session_private(doc), members[i], NULL));
        if (value)
            json_put(cause, members[i], json_string(value));
    }
    return cause;
}

json_t *delivery_record(struct engine *engine, const char *webhook_id, const json_t *event)
{
    int64_t now_ms = clock_real_ms(), event_id = json_int(event, "id", 0);
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE];
    uuid_v7(id);
    clock_rfc3339(now_ms, now);
    AUTO_JSON json_t *body = cloud_event(engine, event, id);
    AUTO_FREE char *text = json_dumps(body, JSON_SHOWN);
    json_t *doc = json_pack("{s:s, s:s, s:o, s:s, s:s, s:i, s:[], s:s, s:n, s:s}", "id", id, "webhook_id", webhook_id, "event_id",
                            event_id ? json_integer(event_id) : json_null(), "event_type", json_str(event, "type", ""), "state",
                            DELIVERY_PENDING, "attempt_count", 0, "attempts", "next_attempt_at", now, "delivered_at", "created_at", now);
    json_put(doc, "_", json_pack("{s:I, s:I, s:i, s:b, s:s, s:o}", "created_ms", (json_int_t)now_ms, "due_ms", (json_int_t)now_ms, "tries", 0,
                                 "once", event_id == 0, "body", text, "cause", cause_of(engine, json_str(event, "job_id", NULL))));
    return doc;
}

void delivery_batch_put(const struct engine *engine, struct store_batch *batch, const json_t *doc)
{
    const json_t *own = session_private(doc);
    int64_t kept_ms = 24 * 3600 * 1000 * json_int(webhooks_config(engine), "log_days", 7);
    const struct store_record record = {
        .id = json_str(doc, "id", ""),
        .session_id = json_str(doc, "webhook_id", ""), /* migration: webhooks */
        .state = json_str(doc, "state", ""),
        .operation = json_str(doc, "event_type", ""),
        .created_ms = json_int(own, "created_ms", 0),
        .expires_ms = delivery_pending(doc) ? 0 : clock_real_ms() + kept_ms,
        .doc = (json_t *)(uintptr_t)doc,
    };
    store_batch_put(batch, STORE_DELIVERY, &record);
}

json_t *delivery_view(struct engine *engine, json_t *doc)
{
    (void)engine;
    json_t *shown = json_copy(doc);
    json_object_del(shown, "_");
    return shown;
}

bool delivery_pending(const json_t *doc)
{
    return str_eq(json_str(doc, "state", ""), DELIVERY_PENDING);
}

bool delivery_once(const json_t *doc)
{
    return json_bool(session_private(doc), "once", false);
}

/* --- after an attempt --- */

static void log_attempt(json_t *draft, const struct attempt *attempt)
{
    char at[CLOCK_RFC3339_SIZE];
    json_t *attempts = json_deep_copy(json_object_get(draft, "attempts"));
    if (json_array_size(attempts) >= ATTEMPTS_SHOWN)
        json_array_remove(attempts, 0);
    json_add(attempts, json_pack("{s:s, s:o, s:o, s:I}", "at", clock_rfc3339(attempt->at_ms, at), "status",
                                 attempt->status ? json_integer(attempt->status) : json_null(), "error",
                                 *attempt->error ? json_text(attempt->error) : json_null(), "duration_ms", (json_int_t)attempt->duration_ms));
    json_put(draft, "attempts", attempts);
    json_put(draft, "attempt_count", json_integer(json_int(draft, "attempt_count", 0) + 1));
}

/* -1: none. */
static int64_t next_due_ms(const struct engine *engine, const json_t *draft, const struct attempt *attempt)
{
    uint32_t random;
    hash_random(&random, sizeof random);
    int64_t tries = json_int(session_private(draft), "tries", 0);
    int64_t pause_ms = webhook_pause_ms(json_object_get(webhooks_config(engine), "retry_seconds"), tries, random);
    if (pause_ms < 0 || delivery_once(draft) || attempt->status == 410)
        return -1;
    int64_t asked_ms = attempt->retry_after_ms > RETRY_AFTER_MOST_MS ? RETRY_AFTER_MOST_MS : attempt->retry_after_ms;
    return attempt->at_ms + (asked_ms > pause_ms ? asked_ms : pause_ms);
}

json_t *delivery_after(const struct engine *engine, const struct delivery *delivery)
{
    const struct attempt *attempt = &delivery->attempt;
    char text[CLOCK_RFC3339_SIZE];
    json_t *draft = json_copy(delivery->doc), *own = json_copy(session_private(delivery->doc));
    json_put(draft, "_", own);
    json_put(own, "tries", json_integer(json_int(own, "tries", 0) + 1));
    log_attempt(draft, attempt);
    json_put(draft, "next_attempt_at", json_null());
    if (attempt->status >= 200 && attempt->status < 300) {
        json_put(draft, "state", json_string(DELIVERY_DELIVERED));
        json_put(draft, "delivered_at", json_string(clock_rfc3339(attempt->at_ms, text)));
        return draft;
    }
    int64_t due_ms = next_due_ms(engine, draft, attempt);
    if (due_ms < 0) {
        json_put(draft, "state", json_string(DELIVERY_FAILED));
        return draft;
    }
    json_put(own, "due_ms", json_integer(due_ms));
    json_put(draft, "next_attempt_at", json_string(clock_rfc3339(due_ms, text)));
    return draft;
}

/* --- in memory --- */

struct delivery *delivery_add(struct webhook *webhook, json_t *doc)
{
    struct delivery **at = &webhook->pending, *delivery = mem_new(sizeof *delivery);
    while (*at)
        at = &(*at)->next;
    *delivery = (struct delivery){.doc = doc, .due_ms = json_int(session_private(doc), "due_ms", 0)};
    *at = delivery;
    webhook->n_pending++;
    return delivery;
}

struct delivery *delivery_find(const struct webhook *webhook, const char *id)
{
    for (struct delivery *delivery = webhook->pending; delivery; delivery = delivery->next)
        if (str_eq(json_str(delivery->doc, "id", ""), id))
            return delivery;
    return NULL;
}

void delivery_free(struct delivery *delivery)
{
    json_decref(delivery->doc);
    json_decref(delivery->draft);
    free(delivery);
}

void deliveries_free(struct delivery *first)
{
    while (first) {
        struct delivery *delivery = first;
        first = delivery->next;
        delivery_free(delivery);
    }
}

/* --- for the courier --- */

static void add_signature(const char *key_hex, const char *content, char *ret, size_t size)
{
    uint8_t key[HASH_SIZE], digest[HASH_SIZE];
    if (!hash_from_hex(key_hex, key))
        return;
    hash_hmac_sha256(key, sizeof key, content, strlen(content), digest);
    explicit_bzero(key, sizeof key);
    AUTO_FREE char *coded = hash_base64(digest, sizeof digest);
    size_t used = strlen(ret);
    str_format(ret + used, size - used, "%sv1,%s", used ? " " : "", coded);
}

static void add_header(json_t *headers, const char *name, const char *value)
{
    AUTO_FREE char *line = str_new("%s: %s", name, value);
    if (!strpbrk(value, "\r\n"))
        json_add(headers, json_text(line));
}

/* The former key signs too, while both are good. */
static json_t *headers_of(const struct webhook *webhook, const struct delivery *delivery)
{
    const json_t *own = session_private(webhook->doc), *mine = session_private(delivery->doc), *cause = json_object_get(mine, "cause");
    const char *id = json_str(delivery->doc, "id", "");
    char timestamp[24], signatures[160] = "";
    str_format(timestamp, sizeof timestamp, "%lld", (long long)(clock_real_ms() / 1000));
    AUTO_FREE char *content = str_new("%s.%s.%s", id, timestamp, json_str(mine, "body", ""));
    add_signature(json_str(own, "key", NULL), content, signatures, sizeof signatures);
    if (json_int(own, "former_until_ms", 0) > clock_real_ms())
        add_signature(json_str(own, "former_key", NULL), content, signatures, sizeof signatures);
    json_t *headers = json_array();
    add_header(headers, "Content-Type", "application/cloudevents+json; charset=utf-8");
    add_header(headers, "webhook-id", id);
    add_header(headers, "webhook-timestamp", timestamp);
    add_header(headers, "webhook-signature", signatures);
    if (json_str(cause, "request_id", NULL))
        add_header(headers, "X-Request-Id", json_str(cause, "request_id", ""));
    if (json_str(cause, "traceparent", NULL))
        add_header(headers, "traceparent", json_str(cause, "traceparent", ""));
    return headers;
}

json_t *delivery_message(const struct webhook *webhook, const struct delivery *delivery)
{
    const json_t *config = webhooks_config(webhook->set->engine);
    char id[2 * UUID_SIZE];
    str_format(id, sizeof id, "%s:%s", webhook->id, json_str(delivery->doc, "id", ""));
    return json_pack("{s:s, s:s, s:s, s:o, s:s, s:s?, s:I, s:b, s:O?}", "type", "deliver", "id", id, "url", json_str(webhook->doc, "url", ""),
                     "headers", headers_of(webhook, delivery), "body", json_str(session_private(delivery->doc), "body", ""), "ca",
                     json_str(webhook->doc, "ca_pem", NULL), "timeout_ms", (json_int_t)(1000 * json_int(config, "timeout_seconds", 15)),
                     "allow_http", json_bool(config, "allow_http", false), "allow_private", json_object_get(config, "allow_private"));
}
