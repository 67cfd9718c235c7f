#include "api/stream.h"

#include <stdlib.h>
#include <string.h>

#include "api/exchange.h"
#include "api/login.h"
#include "api/recent.h"
#include "api/reply.h"
#include "api/quota.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "model/job_model.h"

enum {
    TICK_MS = 1000,       /* credentials, heartbeats, progress for streams of everything */
    PROGRESS_MS = 200,    /* progress for the streams of one job */
    RETRY_MS = 2000,      /* what clients are told to wait before they come back */
    PAGE_EVENTS = 50,     /* of the past, in memory for one stream */
    PAGES_AT_ONCE = 4     /* on one turn of the loop, and waiting for a parked store */
};

enum phase { PAST, PRESENT, OVER, BROKEN };

struct stream {
    struct stream *next, **link;
    struct streams *streams;
    struct exchange *exchange;
    struct quota_entry *counted;
    const char *job_id;       /* the exchange's */
    enum phase phase;
    bool ends_now;            /* once the rest is sent: its job has ended, or it shall not follow */
    bool idle;                /* everything is sent: it waits to be woken */
    bool wants_page, has_asked;
    int64_t at;               /* the last event that was taken, or passed over */
    uint64_t seen;            /* the same of notices */
    int64_t beat_ms;          /* CLOCK_MONOTONIC: when the next heartbeat is due */
    char *text;               /* on its way */
    size_t size, sent;
};

struct streams {
    struct loop *loop;
    struct engine *engine;
    struct recent *recent;
    struct stream *first;
    struct quota *quota;
    struct loop_timer *wake, *progress, *tick, *pump;
    size_t n, n_asked; /* n_asked: pages that the engine owes */
    size_t most, most_per_principal;
    int64_t heartbeat_ms;
    bool draining;
};

/* --- what a stream is about --- */

static bool wanted(const struct stream *stream, const char *type, const char *session_id, const char *job_id)
{
    const json_t *query = stream->exchange->query, *types = json_object_get(query, "types");
    const char *session = json_str(query, "session", NULL);

    return (!stream->job_id || str_eq(stream->job_id, job_id)) && (!session || str_eq(session, session_id)) &&
           (!types || json_has_string(types, type));
}

static bool matches(const struct stream *stream, const struct recent_item *item)
{
    return wanted(stream, item->type, item->session_id, item->job_id) &&
           engine_event_visible(&stream->exchange->principal, item->type, item->owner);
}

static bool is_end(const char *type, const char *state)
{
    enum job_state known;

    return (str_eq(type, "job.changed") || str_eq(type, "job.released")) && state && job_state_by_name(state, &known) && job_state_terminal(known);
}

/* --- what it sends next --- */

static void send_text(struct stream *stream, char *text /* taken */)
{
    free(stream->text);
    stream->text = text;
    stream->size = strlen(text);
    stream->sent = 0;
    stream->beat_ms = clock_mono_ms() + stream->streams->heartbeat_ms;
}

static void wake(struct stream *stream)
{
    stream->idle = false;
    if (stream->exchange->http)
        http_wake(stream->exchange->http);
}

static void finish(struct stream *stream, enum phase phase)
{
    stream->phase = phase;
    wake(stream);
}

/* Moves on over what is not for this stream. */
static const struct recent_item *next_event(struct stream *stream)
{
    const struct recent_item *item;

    while ((item = recent_event_after(stream->streams->recent, stream->at))) {
        if (matches(stream, item))
            return item;
        stream->at = item->id;
    }
    return NULL;
}

static const struct recent_item *next_notice(struct stream *stream, bool progress_too)
{
    const struct recent_item *item;
    uint64_t seen = stream->seen;

    while ((item = recent_notice_after(stream->streams->recent, seen))) {
        seen = item->version;
        if ((progress_too || !item->is_progress) && matches(stream, item))
            return item;
    }
    return NULL;
}

static bool take_present(struct stream *stream)
{
    const struct recent_item *item = next_event(stream);

    if (item) {
        stream->at = item->id;
        if (stream->job_id && is_end(item->type, item->state))
            stream->phase = OVER;
        send_text(stream, str_dup(item->frame));
        return true;
    }
    item = next_notice(stream, true);
    if (!item)
        return false;
    stream->seen = item->version;
    send_text(stream, str_dup(item->frame));
    return true;
}

static void ask_for_page(struct stream *stream)
{
    stream->wants_page = true;
    loop_timer_set(stream->streams->pump, 0);
}

/* The id goes with a heartbeat, so that a stream that was sent little comes back near the end of the past. */
static bool take_heartbeat(struct stream *stream)
{
    if (clock_mono_ms() < stream->beat_ms)
        return false;
    if (stream->phase == PRESENT)
        send_text(stream, str_new(": heartbeat\nid: %lld\n\n", (long long)stream->at));
    else
        send_text(stream, str_dup(": heartbeat\n\n"));
    return true;
}

/* false: there is nothing now. */
static bool take_next(struct stream *stream)
{
    if (stream->phase == PRESENT && take_present(stream))
        return true;
    if (stream->phase == PRESENT && (stream->streams->draining || stream->ends_now))
        stream->phase = OVER;
    if (stream->phase == PAST && !stream->wants_page && !stream->has_asked)
        ask_for_page(stream);
    return stream->phase <= PRESENT && take_heartbeat(stream);
}

static size_t take_text(struct stream *stream, char *buffer, size_t room)
{
    size_t n = stream->size - stream->sent < room ? stream->size - stream->sent : room;

    if (n > 0)
        memcpy(buffer, stream->text + stream->sent, n);
    stream->sent += n;
    if (stream->sent == stream->size) {
        free(TAKE_PTR(stream->text));
        stream->size = stream->sent = 0;
    }
    return n;
}

/* reply_live. What it may see is asked anew each time: nothing is told to a credential that was revoked. */
static long stream_read(void *state, char *buffer, size_t room)
{
    struct exchange *exchange = state;
    struct stream *stream = exchange->events;
    size_t n = 0;

    if (stream->phase <= PRESENT && !login_holds(exchange))
        stream->phase = OVER;
    do {
        n += take_text(stream, buffer + n, room - n);
    } while (n < room && take_next(stream));
    if (n > 0)
        return (long)n;
    stream->idle = stream->phase <= PRESENT;
    return stream->idle ? 0 : stream->phase == OVER ? HTTP_END : HTTP_BREAK;
}

/* --- the past --- */

struct page_call {
    struct engine_request request;
    struct exchange *exchange;
    struct streams *streams;
};

/* The store does not have, or never had, what comes after that id. */
static void reset(struct stream *stream, const char *reason, int64_t oldest)
{
    char when[CLOCK_RFC3339_SIZE];
    int64_t newest = recent_newest(stream->streams->recent);
    AUTO_JSON json_t *row = json_pack("{s:I, s:s, s:s, s:n, s:s?, s:{s:s, s:I, s:I}}", "id", (json_int_t)newest, "time",
                                      clock_rfc3339(clock_real_ms(), when), "type", "reset", "session_id", "job_id", stream->job_id, "data",
                                      "reason", reason, "asked_after", (json_int_t)stream->at, "oldest", (json_int_t)oldest);

    stream->at = newest;
    stream->phase = PRESENT;
    send_text(stream, recent_frame_of_row(row));
}

static void take_page(struct stream *stream, const json_t *page)
{
    AUTO_FREE char *text = str_dup("");
    size_t i;
    json_t *row;

    json_array_foreach(json_object_get(page, "items"), i, row)
    {
        const char *type = json_str(row, "type", "");
        if (!wanted(stream, type, json_str(row, "session_id", NULL), json_str(row, "job_id", NULL)))
            continue;
        AUTO_FREE char *frame = recent_frame_of_row(row), *before = TAKE_PTR(text);
        text = str_new("%s%s", before, frame);
        if (stream->job_id && is_end(type, json_str(json_object_get(row, "data"), "state", NULL)))
            stream->phase = OVER;
    }
    stream->at = json_int(page, "to", stream->at);
    if (stream->phase == PAST && stream->at >= recent_reaches_back_to(stream->streams->recent))
        stream->phase = PRESENT;
    if (*text)
        send_text(stream, TAKE_PTR(text));
    else if (stream->phase == PAST)
        ask_for_page(stream);
}

static void page_answered(void *arg, const struct engine_answer *answer)
{
    struct page_call *call = arg;
    struct stream *stream = call->exchange->events;

    call->streams->n_asked--;
    if (stream && stream->phase == PAST) {
        int64_t oldest = json_int(answer->body, "oldest", 0);
        stream->has_asked = false;
        if (answer->err)
            stream->phase = BROKEN; /* it comes back with its id */
        else if (stream->at < oldest - 1)
            reset(stream, "expired", oldest);
        else
            take_page(stream, answer->body);
        wake(stream);
    }
    loop_timer_set(call->streams->pump, 0);
    json_decref(call->request.query);
    exchange_unref(call->exchange);
    free(call);
}

static void page_ask(struct stream *stream)
{
    struct streams *streams = stream->streams;
    struct page_call *call = mem_new(sizeof(*call));

    *call = (struct page_call){.exchange = exchange_ref(stream->exchange), .streams = streams};
    call->request = (struct engine_request){
        .principal = &stream->exchange->principal,
        .request_id = stream->exchange->request_id,
        .query = json_pack("{s:I, s:i, s:s?, s:s?}", "after", (json_int_t)stream->at, "limit", PAGE_EVENTS, "session",
                           json_str(stream->exchange->query, "session", NULL), "job", stream->job_id),
    };
    stream->wants_page = false;
    stream->has_asked = true;
    streams->n_asked++;
    engine_call(streams->engine, engine_event_list, &call->request, page_answered, call);
}

/* A few pages at a time: a thousand clients that come back at once do not hold the loop. */
static void on_pump(void *arg)
{
    struct streams *streams = arg;
    struct stream *next;
    size_t n = 0;

    for (struct stream *stream = streams->first; stream && streams->n_asked < PAGES_AT_ONCE && n < PAGES_AT_ONCE; stream = next) {
        next = stream->next;
        if (!stream->wants_page)
            continue;
        page_ask(stream);
        n++;
    }
    if (n == PAGES_AT_ONCE)
        loop_timer_set(streams->pump, 0);
}

/* --- waking --- */

/* It was sent nothing for so long that the events are gone from memory. Who was ready for them reads the store; who was not is dropped. */
static bool is_lost(struct stream *stream)
{
    if (stream->phase != PRESENT || stream->at >= recent_reaches_back_to(stream->streams->recent))
        return false;
    if (stream->idle) {
        stream->phase = PAST;
        wake(stream);
        return true;
    }
    const struct log_context context = {.request_id = stream->exchange->request_id};
    log_line(LOG_LEVEL_INFO, &context, "a stream of events is dropped: its client does not take them");
    stream->phase = BROKEN;
    http_drop(stream->exchange->http);
    return true;
}

static void wake_if(struct stream *stream, bool progress_too)
{
    if (!is_lost(stream) && stream->idle && stream->phase == PRESENT && (next_event(stream) || next_notice(stream, progress_too)))
        wake(stream);
}

static void on_wake(void *arg)
{
    struct streams *streams = arg;

    for (struct stream *stream = streams->first; stream; stream = stream->next)
        wake_if(stream, false);
}

static void on_progress(void *arg)
{
    struct streams *streams = arg;

    for (struct stream *stream = streams->first; stream; stream = stream->next)
        if (stream->job_id)
            wake_if(stream, true);
}

static void on_tick(void *arg)
{
    struct streams *streams = arg;
    int64_t now = clock_mono_ms();

    for (struct stream *stream = streams->first; stream; stream = stream->next) {
        if (stream->phase <= PRESENT && !login_holds(stream->exchange))
            finish(stream, OVER);
        else if (stream->idle && now >= stream->beat_ms)
            wake(stream);
        else
            wake_if(stream, true);
    }
    loop_timer_set(streams->pump, 0);
    if (streams->first)
        loop_timer_set(streams->tick, TICK_MS);
}

static void on_event(void *arg, const struct store_event *event)
{
    struct streams *streams = arg;

    recent_event(streams->recent, event);
    if (streams->first)
        loop_timer_set(streams->wake, 0);
}

static void on_notice(void *arg, const struct engine_notice *notice)
{
    struct streams *streams = arg;
    bool progress = str_eq(notice->type, "job.progress");

    recent_notice(streams->recent, notice);
    if (!streams->first || !notice->data)
        return;
    if (!progress)
        loop_timer_set(streams->wake, 0);
    else if (!loop_timer_armed(streams->progress))
        loop_timer_set(streams->progress, PROGRESS_MS);
}

/* --- begin and end --- */

bool stream_read_id(const char *text, int64_t *ret)
{
    const int64_t most = ((int64_t)1 << 53) - 1;

    return *text && text[strspn(text, "0123456789")] == '\0' && str_to_int(text, 0, most, ret);
}

static char *first_text(const struct stream *stream, const json_t *job)
{
    char when[CLOCK_RFC3339_SIZE];
    AUTO_FREE char *frame = NULL;

    if (job) {
        AUTO_JSON json_t *row = json_pack("{s:n, s:s, s:s, s:s?, s:s, s:O}", "id", "time", clock_rfc3339(clock_real_ms(), when), "type", "job",
                                          "session_id", json_str(job, "session_id", NULL), "job_id", stream->job_id, "data", job);
        frame = recent_frame_of_row(row);
    }
    return str_new("retry: %d\nid: %lld\n\n%s", RETRY_MS, (long long)stream->at, frame ? frame : "");
}

static void place(struct stream *stream, int64_t after)
{
    int64_t newest = recent_newest(stream->streams->recent);

    stream->at = after < 0 ? newest : after;
    stream->phase = stream->at < recent_reaches_back_to(stream->streams->recent) ? PAST : PRESENT;
    if (stream->at > newest)
        reset(stream, "unknown", newest + 1);
}

void stream_begin(struct exchange *exchange, const struct stream_spec *spec)
{
    struct streams *streams = exchange->api->streams;
    bool full = streams->n >= streams->most;
    struct quota_entry *counted = full ? NULL : quota_take(streams->quota, exchange->principal.name, streams->most_per_principal);

    if (!counted) {
        reply_crowded(exchange, full ? 503 : 429, "streams");
        return;
    }
    struct stream *stream = mem_new(sizeof(*stream));
    *stream = (struct stream){.streams = streams, .exchange = exchange, .counted = counted, .next = streams->first, .link = &streams->first,
                              .job_id = spec->job_id, .ends_now = !json_bool(exchange->query, "follow", true) ||
                                              (spec->job_id && !engine_job_is_pending(streams->engine, spec->job_id))};
    if (stream->next)
        stream->next->link = &stream->next;
    streams->first = stream;
    streams->n++;
    place(stream, spec->after);
    AUTO_FREE char *said = TAKE_PTR(stream->text), *first = first_text(stream, spec->job);
    send_text(stream, str_new("%s%s", first, said ? said : ""));
    exchange->events = stream;
    if (!loop_timer_armed(streams->tick))
        loop_timer_set(streams->tick, TICK_MS);
    reply_live(exchange, "text/event-stream", stream_read);
}

void stream_left(struct stream *stream)
{
    finish(stream, BROKEN);
}

void stream_free(struct stream *stream)
{
    if (!stream)
        return;
    *stream->link = stream->next;
    if (stream->next)
        stream->next->link = stream->link;
    stream->streams->n--;
    quota_give(stream->counted);
    free(stream->text);
    free(stream);
}

void streams_drain(struct streams *streams)
{
    streams->draining = true;
    for (struct stream *stream = streams->first; stream; stream = stream->next) {
        if (stream->phase == PAST)
            stream->phase = OVER;
        wake(stream);
    }
}

/* --- life --- */

/* What is new in memory goes on where the past in memory ends. */
struct loading {
    struct streams *streams;
    int64_t after;
    struct err err;
};

static void loaded(void *arg, const struct engine_answer *answer)
{
    struct loading *loading = arg;
    size_t i;
    json_t *row;

    if (answer->err) {
        loading->err = *answer->err;
        return;
    }
    int64_t newest = json_int(answer->body, "newest", 0);
    if (loading->after == INT64_MAX) {
        loading->after = newest > RECENT_EVENTS / 2 ? newest - RECENT_EVENTS / 2 : 0;
        int64_t oldest = json_int(answer->body, "oldest", 0);
        if (loading->after < oldest - 1)
            loading->after = oldest - 1;
        recent_begin(loading->streams->recent, loading->after);
        return;
    }
    json_array_foreach(json_object_get(answer->body, "items"), i, row) recent_row(loading->streams->recent, row);
}

static int load(struct streams *streams, struct err *err)
{
    static const struct principal everybody = {.name = "", .role = ROLE_ADMIN};
    struct loading loading = {.streams = streams, .after = INT64_MAX};

    for (int round = 0; round < 2 && !loading.err.hr; round++) {
        AUTO_JSON json_t *query = json_pack("{s:I, s:i}", "after", (json_int_t)loading.after, "limit", RECENT_EVENTS);
        const struct engine_request request = {.principal = &everybody, .request_id = "", .query = query};
        engine_event_list(streams->engine, &request, loaded, &loading);
    }
    if (!loading.err.hr)
        return 0;
    *err = loading.err;
    return err_prefix(err, "events");
}

struct streams *streams_new(struct loop *loop, struct engine *engine, struct err *err)
{
    static const struct engine_watcher watcher = {on_event, on_notice};
    struct streams *streams = mem_new(sizeof(*streams));

    *streams = (struct streams){.loop = loop, .engine = engine, .recent = recent_new(), .quota = quota_new()};
    streams->wake = loop_timer_new(loop, on_wake, streams);
    streams->progress = loop_timer_new(loop, on_progress, streams);
    streams->tick = loop_timer_new(loop, on_tick, streams);
    streams->pump = loop_timer_new(loop, on_pump, streams);
    streams_reload(streams, NULL);
    if (load(streams, err) != 0) {
        streams_free(streams);
        return NULL;
    }
    engine_watch(engine, &watcher, streams);
    return streams;
}

void streams_reload(struct streams *streams, const json_t *limits)
{
    streams->most = (size_t)json_int(limits, "streams", 4096);
    streams->most_per_principal = (size_t)json_int(limits, "streams_per_principal", 256);
    streams->heartbeat_ms = json_int(limits, "heartbeat_seconds", 15) * 1000;
}

size_t streams_count(const struct streams *streams)
{
    return streams->n;
}

void streams_free(struct streams *streams)
{
    if (!streams)
        return;
    engine_watch(streams->engine, &(struct engine_watcher){0}, NULL);
    loop_timer_free(streams->wake);
    loop_timer_free(streams->progress);
    loop_timer_free(streams->tick);
    loop_timer_free(streams->pump);
    quota_free(streams->quota);
    recent_free(streams->recent);
    free(streams);
}
