/* Streams of what happens: GET /events, GET /jobs/{id}/events. */
#include <stdlib.h>

#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "api/stream.h"
#include "base/cleanup.h"
#include "base/str.h"

/* Where to go on: what a client brings back comes before the address that it began with. false: refused. */
static bool read_after(struct exchange *exchange, int64_t *ret)
{
    const char *header = http_header(exchange->http, "Last-Event-ID");

    *ret = json_int(exchange->query, "after", -1);
    if (!header || !*header || stream_read_id(header, ret))
        return true;
    struct json_fault *fault = &exchange->faults[exchange->n_faults++];
    str_copy(fault->pointer, sizeof(fault->pointer), "Last-Event-ID");
    str_copy(fault->detail, sizeof(fault->detail), "must be the id of an event");
    reply_invalid(exchange);
    exchange_send(exchange);
    return false;
}

/* Who comes back while the daemon ends is to find the next one. */
static bool stopping(struct exchange *exchange)
{
    if (!exchange->api->draining)
        return false;
    reply_draining(exchange);
    exchange_send(exchange);
    return true;
}

/* The head alone, of HEAD. */
static bool head_only(struct exchange *exchange)
{
    if (!str_eq(http_method(exchange->http), "HEAD"))
        return false;
    reply_text_copy(exchange, "text/event-stream", "");
    exchange_send(exchange);
    return true;
}

static void event_stream(struct exchange *exchange)
{
    int64_t after;

    if (!stopping(exchange) && read_after(exchange, &after) && !head_only(exchange))
        stream_begin(exchange, &(struct stream_spec){.after = after});
}

/* --- of one job --- */

static void reply_all_told(struct exchange *exchange)
{
    reply_empty(exchange, 204);
    exchange_send(exchange);
}

/* A job that has ended, and a client that comes back: 204 tells an EventSource that this was all. */
static void rest_answered(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;
    int64_t after = json_int(exchange->query, "after", 0);

    if (!exchange->http)
        ;
    else if (answer->err)
        reply_engine(exchange, answer, NULL);
    else if (json_array_size(json_object_get(answer->body, "items")) == 0 && after >= json_int(answer->body, "oldest", 0) - 1)
        reply_all_told(exchange);
    else
        stream_begin(exchange, &(struct stream_spec){.job_id = exchange->match.params[0], .after = after});
    exchange_unref(exchange);
}

static void job_answered(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;
    const char *id = exchange->match.params[0];
    int64_t after = json_int(exchange->query, "after", -1);
    AUTO_JSON json_t *kept = !answer->body && answer->text ? json_loads(answer->text, 0, NULL) : NULL;
    const json_t *job = answer->body ? answer->body : kept;

    if (answer->err)
        reply_engine(exchange, answer, NULL);
    else if (!exchange->http || head_only(exchange))
        ;
    else if (after >= 0 && !engine_job_is_pending(exchange->api->engine, id))
        exchange_call(exchange, engine_event_list, rest_answered);
    else
        stream_begin(exchange, &(struct stream_spec){.job_id = id, .job = after < 0 ? job : NULL, .after = after});
    exchange_unref(exchange);
}

static void job_event_stream(struct exchange *exchange)
{
    int64_t after;

    if (stopping(exchange) || !read_after(exchange, &after))
        return;
    json_put(exchange->query, "job", json_string(exchange->match.params[0]));
    if (after >= 0)
        json_put(exchange->query, "after", json_integer(after));
    exchange_call(exchange, engine_job_get, job_answered);
}

static const struct handler rows[] = {
    {"eventStream", .own = event_stream},
    {"jobEventStream", .own = job_event_stream},
};
const struct handler_table handlers_events = {rows, ELEMENTS(rows)};
