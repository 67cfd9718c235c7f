/* The step of a webhook: what came of attempts, and what happened since, in one commit. */
#include "base/fault.h"
#include "base/log.h"
#include "engine/session/session.h"
#include "engine/webhook/webhooks.h"
#include "model/webhook_rules.h"

enum {
    EVENTS_AT_ONCE = 200,
    LAZY_EVENTS = 1000,  /* the cursor past so many events that nobody wants is saved all the same */
    REFUSED_REST_MS = 5000,
};

struct step {
    struct webhook *webhook;
    struct engine *engine;
    struct store_batch *batch;
    json_t *draft;
    size_t changes;
};

/* --- what came of attempts --- */

static int64_t since_ms(const json_t *doc)
{
    return json_int(session_private(doc), "failing_since_ms", 0);
}

static void failed_again(struct step *step, const struct attempt *attempt)
{
    json_t *draft = step->draft;
    char at[CLOCK_RFC3339_SIZE], reason[512];
    int64_t bound_ms = 1000 * json_int(webhooks_config(step->engine), "disable_after_seconds", 432000);
    if (!since_ms(draft)) {
        json_put(session_private(draft), "failing_since_ms", json_integer(attempt->at_ms));
        json_put(draft, "failing_since", json_string(clock_rfc3339(attempt->at_ms, at)));
    }
    if (!json_bool(draft, "enabled", false))
        return;
    if (attempt->status == 410) {
        webhook_disable(step->batch, draft, "the receiver answered 410 Gone");
    } else if (attempt->at_ms - since_ms(draft) >= bound_ms) {
        str_format(reason, sizeof reason, "no delivery has succeeded since %s; the last one: %s", json_str(draft, "failing_since", ""), attempt->error);
        webhook_disable(step->batch, draft, reason);
    }
}

static void succeeded(json_t *draft)
{
    json_object_del(session_private(draft), "failing_since_ms");
    json_put(draft, "failing_since", json_null());
}

static void settle(struct step *step)
{
    for (struct delivery *delivery = step->webhook->pending; delivery; delivery = delivery->next) {
        const struct attempt *attempt = &delivery->attempt;
        if (!delivery->settled || delivery->draft)
            continue;
        fault("engine.webhook.settle");
        delivery->draft = delivery_after(step->engine, delivery);
        delivery_batch_put(step->engine, step->batch, delivery->draft);
        step->changes++;
        if (attempt->status >= 200 && attempt->status < 300)
            succeeded(step->draft);
        else if (!delivery_once(delivery->doc))
            failed_again(step, attempt);
    }
}

/* --- what happened since --- */

static void arrive(struct step *step, const json_t *event)
{
    struct delivery **at = &step->webhook->arriving, *delivery = mem_new(sizeof *delivery);
    while (*at)
        at = &(*at)->next;
    delivery->doc = delivery_record(step->engine, step->webhook->id, event);
    *at = delivery;
    delivery_batch_put(step->engine, step->batch, delivery->doc);
    step->changes++;
}

/* Events that retention has dropped before they were dealt with: told, since nobody will be. Returns the cursor behind them. */
static int64_t skip_dropped(struct step *step, int64_t cursor, int64_t oldest)
{
    int64_t missed = oldest - cursor - 1;
    if (missed <= 0)
        return cursor;
    json_put(step->draft, "missed_events", json_integer(json_int(step->draft, "missed_events", 0) + missed));
    log_line(LOG_LEVEL_WARNING, NULL, "webhook %s: %lld events were dropped by retention before they could be delivered", step->webhook->id,
             (long long)missed);
    step->changes++;
    return oldest - 1;
}

/* Those that are wanted arrive, as long as there is room; returns the cursor behind what was dealt with. */
static int64_t take_page(struct step *step, const json_t *rows, int64_t cursor)
{
    struct webhook *webhook = step->webhook;
    size_t i, room = WEBHOOK_PENDING_MOST - webhook->n_pending;
    const json_t *event;
    json_array_foreach(rows, i, event)
    {
        bool wanted = webhook_wants(json_object_get(step->draft, "events"), json_str(event, "type", ""));
        if (wanted && room == 0) {
            webhook->woken = true;
            break;
        }
        cursor = json_int(event, "id", 0);
        if (!wanted)
            continue;
        arrive(step, event);
        room--;
    }
    return cursor;
}

static void take_events(struct step *step)
{
    struct webhook *webhook = step->webhook;
    struct store_event_page page;
    const struct store_event_query query = {.after = webhook->cursor, .limit = EVENTS_AT_ONCE};
    if (!webhook->woken || webhook->n_pending >= WEBHOOK_PENDING_MOST || !json_bool(step->draft, "enabled", false))
        return;
    struct err err = {0};
    if (store_events(step->engine->store, &query, &page, &err) != STORE_OK) {
        if (err.hr)
            log_err(LOG_LEVEL_WARNING, NULL, &err, "webhook %s: events wait", webhook->id);
        webhook->rest_until_ms = clock_mono_ms() + REFUSED_REST_MS; /* it stays woken: without a rest it would ask in every turn */
        return;
    }
    AUTO_JSON json_t *rows = page.rows;
    webhook->woken = json_array_size(rows) == EVENTS_AT_ONCE;
    int64_t cursor = take_page(step, rows, skip_dropped(step, webhook->cursor, page.oldest));
    if (step->changes == 0)
        webhook->cursor = cursor; /* of memory alone: nothing is lost when it is looked at again */
    if (cursor - json_int(session_private(webhook->doc), "cursor", 0) >= LAZY_EVENTS)
        step->changes++;
    json_put(session_private(step->draft), "cursor", json_integer(cursor));
}

/* --- the commit --- */

static void drop_drafts(struct webhook *webhook)
{
    deliveries_free(TAKE_PTR(webhook->arriving));
    for (struct delivery *delivery = webhook->pending; delivery; delivery = delivery->next)
        if (delivery->draft)
            json_decref(TAKE_PTR(delivery->draft));
}

/* Drafts become records; what has ended leaves memory. */
static void take_over(struct webhook *webhook)
{
    for (struct delivery **at = &webhook->pending; *at;) {
        struct delivery *delivery = *at;
        if (delivery->draft) {
            json_decref(delivery->doc);
            delivery->doc = TAKE_PTR(delivery->draft);
            delivery->due_ms = json_int(session_private(delivery->doc), "due_ms", 0);
            delivery->settled = false;
        }
        if (delivery_pending(delivery->doc)) {
            at = &delivery->next;
            continue;
        }
        *at = delivery->next;
        webhook->n_pending--;
        delivery_free(delivery);
    }
    while (webhook->arriving) {
        struct delivery *delivery = webhook->arriving;
        webhook->arriving = delivery->next;
        delivery_add(webhook, json_incref(delivery->doc));
        delivery_free(delivery);
    }
}

static void stepped(struct task *task, const struct err *err)
{
    struct webhook *webhook = (struct webhook *)(void *)task->serial;
    webhook->stepping = false;
    if (err) {
        log_err(LOG_LEVEL_WARNING, NULL, err, "webhook %s: deliveries wait", webhook->id);
        drop_drafts(webhook);
        webhook->woken = true;
        webhook->rest_until_ms = clock_mono_ms() + REFUSED_REST_MS;
    } else {
        webhook_commit(webhook, json_incref(task->scratch));
        take_over(webhook);
    }
    webhooks_turn_soon(webhook->set);
    task_done(task);
}

static void run(struct task *task)
{
    struct webhook *webhook = (struct webhook *)(void *)task->serial;
    struct engine *engine = task->engine;
    if (webhook->gone || store_parked(engine->store)) {
        webhook->stepping = false;
        task_done(task);
        return;
    }
    struct step step = {.webhook = webhook, .engine = engine, .batch = store_batch_new(), .draft = webhook_draft(webhook)};
    settle(&step);
    take_events(&step);
    if (step.changes == 0) {
        webhook->stepping = false;
        store_batch_free(step.batch);
        json_decref(step.draft);
        webhooks_turn_soon(webhook->set);
        task_done(task);
        return;
    }
    webhook_batch_put(step.batch, step.draft);
    task->scratch = step.draft;
    task->committed = stepped;
    task_commit(task, step.batch);
}

void webhook_step(struct webhook *webhook)
{
    struct task *task = task_new(webhook->set->engine, NULL, NULL, NULL);
    webhook->stepping = true;
    task_start(task, &webhook->serial, run);
}
