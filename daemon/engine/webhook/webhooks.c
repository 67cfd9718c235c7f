/* Webhooks: all of them live in memory, with the deliveries that have not ended. A turn of the set looks who has something to
 * record, and what is due; it never waits for a receiver. */
#include "engine/webhook/webhooks.h"

#include <string.h>

#include "base/log.h"
#include "base/openmetrics.h"
#include "engine/session/session.h"

enum {
    TICK_MS = 1000,
    SOON_MS = 5,              /* what is committed together is looked at once */
    COURIER_MARGIN_MS = 20000, /* beyond a delivery's time: then the courier is taken for stuck */
};

/* --- records --- */

const json_t *webhooks_config(const struct engine *engine)
{
    return json_object_get(engine->config, "webhooks");
}

struct webhook *webhook_find(const struct webhooks *set, const char *id)
{
    for (size_t i = 0; i < set->n; i++)
        if (!set->all[i]->gone && str_eq(set->all[i]->id, id))
            return set->all[i];
    return NULL;
}

struct webhook *webhook_add(struct webhooks *set, json_t *doc)
{
    struct webhook *webhook = mem_new(sizeof *webhook);
    webhook->set = set;
    webhook->doc = doc;
    webhook->cursor = json_int(session_private(doc), "cursor", 0);
    webhook->woken = true;
    str_copy(webhook->id, sizeof webhook->id, json_str(doc, "id", ""));
    set->all = mem_resize(set->all, (set->n + 1) * sizeof(struct webhook *));
    set->all[set->n++] = webhook;
    webhooks_turn_soon(set);
    return webhook;
}

static void webhook_free(struct webhook *webhook)
{
    serial_clear(&webhook->serial);
    deliveries_free(webhook->pending);
    deliveries_free(webhook->arriving);
    json_decref(webhook->doc);
    free(webhook);
}

void webhook_remove(struct webhook *webhook)
{
    webhook->gone = true;
    webhooks_turn_soon(webhook->set);
}

void webhook_batch_put(struct store_batch *batch, const json_t *doc)
{
    const struct store_record record = {.id = json_str(doc, "id", ""),
                                        .created_ms = json_int(session_private(doc), "created_ms", 0),
                                        .doc = (json_t *)(uintptr_t)doc};
    store_batch_put(batch, STORE_WEBHOOK, &record);
}

json_t *webhook_draft(const struct webhook *webhook)
{
    json_t *draft = json_copy(webhook->doc), *own = json_copy(session_private(webhook->doc));
    json_put(own, "cursor", json_integer(webhook->cursor));
    json_put(draft, "_", own);
    return draft;
}

void webhook_commit(struct webhook *webhook, json_t *draft)
{
    json_decref(webhook->doc);
    webhook->doc = draft;
    webhook->cursor = json_int(session_private(draft), "cursor", 0);
}

bool webhook_enabled(const struct webhook *webhook)
{
    return json_bool(webhook->doc, "enabled", false);
}

static const char *webhook_state(const json_t *doc)
{
    return !json_bool(doc, "enabled", false) ? "disabled" : json_is_string(json_object_get(doc, "failing_since")) ? "failing" : "active";
}

json_t *webhook_view(const json_t *doc)
{
    char until[CLOCK_RFC3339_SIZE];
    int64_t former_ms = json_int(session_private(doc), "former_until_ms", 0);
    json_t *view = json_copy((json_t *)(uintptr_t)doc);
    json_object_del(view, "_");
    json_put(view, "state", json_string(webhook_state(doc)));
    json_put(view, "former_secret_until", former_ms > clock_real_ms() ? json_string(clock_rfc3339(former_ms, until)) : json_null());
    return view;
}

void webhook_disable(struct store_batch *batch, json_t *draft, const char *reason)
{
    char now[CLOCK_RFC3339_SIZE];
    json_put(draft, "enabled", json_false());
    json_put(draft, "disabled_at", json_string(clock_rfc3339(clock_real_ms(), now)));
    json_put(draft, "disabled_reason", json_text(reason));
    AUTO_JSON json_t *data = json_pack("{s:s, s:o}", "webhook", json_str(draft, "id", ""), "reason", json_text(reason));
    const struct store_event event = {.type = "webhook.disabled", .owner = json_str(draft, "made_by", NULL)};
    store_batch_event(batch, &event, data);
    log_line(LOG_LEVEL_WARNING, NULL, "webhook %s is disabled: %s", json_str(draft, "id", ""), reason);
}

/* --- the courier's word --- */

static void settled(struct webhook *webhook, struct delivery *delivery, const struct attempt *attempt)
{
    webhook->set->attempts[attempt->status >= 200 && attempt->status < 300]++;
    delivery->attempt = *attempt;
    delivery->settled = true;
    delivery->sent_ms = 0;
    webhook->n_sent--;
}

static void answered(void *arg, const json_t *answer)
{
    struct webhooks *set = arg;
    char id[UUID_SIZE];
    const char *name = json_str(answer, "id", ""), *colon = strchr(name, ':');
    if (!colon || (size_t)(colon - name) >= sizeof id)
        return;
    memcpy(id, name, (size_t)(colon - name));
    id[colon - name] = '\0';
    struct webhook *webhook = webhook_find(set, id);
    struct delivery *delivery = webhook ? delivery_find(webhook, colon + 1) : NULL;
    if (!delivery || !delivery->sent_ms)
        return; /* deleted meanwhile */
    struct attempt attempt = {.status = (int)json_int(answer, "status", 0),
                              .retry_after_ms = 1000 * json_int(answer, "retry_after", 0),
                              .duration_ms = json_int(answer, "duration_ms", 0),
                              .at_ms = clock_real_ms()};
    if (attempt.status >= 300 && attempt.status < 400)
        str_format(attempt.error, sizeof attempt.error, "HTTP %d: redirects are not followed", attempt.status);
    else if (attempt.status >= 400)
        str_format(attempt.error, sizeof attempt.error, "HTTP %d", attempt.status);
    else if (attempt.status == 0)
        str_copy(attempt.error, sizeof attempt.error, json_str(answer, "error", "no answer"));
    settled(webhook, delivery, &attempt);
    webhooks_turn_soon(set);
}

static void lost(void *arg)
{
    struct webhooks *set = arg;
    const struct attempt attempt = {.error = "the courier ended before there was an answer", .at_ms = clock_real_ms()};
    for (size_t i = 0; i < set->n; i++)
        for (struct delivery *delivery = set->all[i]->pending; delivery; delivery = delivery->next)
            if (delivery->sent_ms)
                settled(set->all[i], delivery, &attempt);
    webhooks_turn_soon(set);
}

static const struct courier_handlers courier_handlers = {answered, lost};

/* --- turns --- */

static bool has_settled(const struct webhook *webhook)
{
    for (const struct delivery *delivery = webhook->pending; delivery; delivery = delivery->next)
        if (delivery->settled)
            return true;
    return false;
}

static bool wants_step(const struct webhook *webhook)
{
    if (webhook->stepping || webhook->gone || clock_mono_ms() < webhook->rest_until_ms || store_parked(webhook->set->engine->store))
        return false;
    return has_settled(webhook) || (webhook->woken && webhook_enabled(webhook) && webhook->n_pending < WEBHOOK_PENDING_MOST);
}

/* Sends what is due; false: there is no courier. *ret_due_ms: the least time (CLOCK_REALTIME) at which more is. */
static bool send_due(struct webhook *webhook, int64_t *ret_due_ms)
{
    size_t most = json_is_string(json_object_get(webhook->doc, "failing_since")) ? 1 : WEBHOOK_AT_ONCE;
    int64_t now_ms = clock_real_ms();
    for (struct delivery *delivery = webhook->pending; delivery; delivery = delivery->next) {
        bool once = delivery_once(delivery->doc);
        if (delivery->sent_ms || delivery->settled || (!webhook_enabled(webhook) && !once) || (webhook->n_sent >= most && !once))
            continue;
        if (delivery->due_ms > now_ms) {
            *ret_due_ms = delivery->due_ms < *ret_due_ms ? delivery->due_ms : *ret_due_ms;
            continue;
        }
        AUTO_JSON json_t *message = delivery_message(webhook, delivery);
        if (!courier_link_send(webhook->set->courier, message))
            return false;
        delivery->sent_ms = clock_mono_ms();
        webhook->n_sent++;
    }
    return true;
}

static bool overdue(const struct webhooks *set)
{
    int64_t bound_ms = 1000 * json_int(webhooks_config(set->engine), "timeout_seconds", 15) + COURIER_MARGIN_MS;
    for (size_t i = 0; i < set->n; i++)
        for (const struct delivery *delivery = set->all[i]->pending; delivery; delivery = delivery->next)
            if (delivery->sent_ms && clock_mono_ms() - delivery->sent_ms > bound_ms)
                return true;
    return false;
}

static void bury(struct webhooks *set)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (set->all[i]->gone && serial_idle(&set->all[i]->serial))
            webhook_free(set->all[i]);
        else
            set->all[kept++] = set->all[i];
    }
    set->n = kept;
}

static void on_turn(void *arg)
{
    struct webhooks *set = arg;
    int64_t now_ms = clock_real_ms(), due_ms = now_ms + TICK_MS;
    set->soon = false;
    bury(set);
    if (set->n == 0) {
        courier_link_rest(set->courier);
        return;
    }
    if (overdue(set)) {
        log_line(LOG_LEVEL_WARNING, NULL, "the courier does not answer: it is replaced");
        courier_link_reset(set->courier);
    }
    for (size_t i = 0; i < set->n; i++)
        if (wants_step(set->all[i]))
            webhook_step(set->all[i]);
    bool courier = true;
    for (size_t i = 0; courier && i < set->n; i++)
        courier = set->all[i]->gone || send_due(set->all[i], &due_ms);
    if (!set->soon) /* a step that was done at once wants another turn */
        loop_timer_set(set->turn, due_ms > now_ms ? due_ms - now_ms : SOON_MS);
}

void webhooks_turn_soon(struct webhooks *set)
{
    if (!set->soon)
        loop_timer_set(set->turn, SOON_MS);
    set->soon = true;
}

void webhooks_wake(struct engine *engine)
{
    struct webhooks *set = engine->webhooks;
    if (!set || set->n == 0)
        return;
    for (size_t i = 0; i < set->n; i++)
        set->all[i]->woken = true;
    webhooks_turn_soon(set);
}

/* --- life --- */

static int each_row(struct engine *engine, struct store_query *query, void (*take)(struct webhooks *set, json_t *row), struct err *err)
{
    char after[UUID_SIZE] = "";
    bool more = true;
    query->limit = 500;
    query->oldest_first = true;
    while (more) {
        AUTO_JSON json_t *rows = NULL;
        size_t i;
        json_t *row;
        query->after = *after ? after : NULL;
        if (store_list(engine->store, query, &rows, &more, err) == STORE_ERROR)
            return -1;
        json_array_foreach(rows, i, row)
        {
            str_copy(after, sizeof after, json_str(row, "id", ""));
            take(engine->webhooks, row);
        }
    }
    return 0;
}

static void take_webhook(struct webhooks *set, json_t *row)
{
    webhook_add(set, json_incref(row));
}

static void take_delivery(struct webhooks *set, json_t *row)
{
    struct webhook *webhook = webhook_find(set, json_str(row, "webhook_id", ""));
    if (webhook)
        delivery_add(webhook, json_incref(row));
}

int webhooks_open(struct engine *engine, struct err *err)
{
    struct webhooks *set = mem_new(sizeof *set);
    engine->webhooks = set;
    set->engine = engine;
    set->turn = loop_timer_new(engine->loop, on_turn, set);
    set->courier = courier_link_new(engine->loop, &courier_handlers, set);
    struct store_query all = {.kind = STORE_WEBHOOK}, pending = {.kind = STORE_DELIVERY, .state = "pending"};
    return each_row(engine, &all, take_webhook, err) || each_row(engine, &pending, take_delivery, err) ? -1 : 0;
}

void webhooks_free(struct engine *engine)
{
    struct webhooks *set = TAKE_PTR(engine->webhooks);
    if (!set)
        return;
    courier_link_free(set->courier);
    loop_timer_free(set->turn);
    for (size_t i = 0; i < set->n; i++)
        webhook_free(set->all[i]);
    free(set->all);
    free(set);
}

void engine_on_courier(struct engine *engine, void (*start)(void *arg, int fd), void *arg)
{
    courier_link_on_start(engine->webhooks->courier, start, arg);
    webhooks_turn_soon(engine->webhooks);
}

void webhooks_metrics(const struct engine *engine, struct openmetrics *text)
{
    static const char *const states[] = {"active", "failing", "disabled"}, *const outcomes[] = {"failed", "delivered"};
    const struct webhooks *set = engine->webhooks;
    size_t counts[ELEMENTS(states)] = {0}, pending = 0;
    for (size_t i = 0; i < set->n; i++) {
        for (size_t k = 0; k < ELEMENTS(states); k++)
            counts[k] += str_eq(states[k], webhook_state(set->all[i]->doc));
        pending += set->all[i]->n_pending;
    }
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_webhooks", "Webhooks, by state.");
    for (size_t k = 0; k < ELEMENTS(states); k++)
        openmetrics_one(text, "state", states[k], (double)counts[k]);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_webhook_deliveries_pending", "Deliveries of webhooks that have not ended.");
    openmetrics_plain(text, (double)pending);
    openmetrics_family(text, OPENMETRICS_COUNTER, "quiesced_webhook_attempts", "Attempts to deliver to webhooks, by outcome.");
    for (size_t k = 0; k < ELEMENTS(outcomes); k++)
        openmetrics_one(text, "outcome", outcomes[k], (double)set->attempts[k]);
}
