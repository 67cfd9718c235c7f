#include "api/exchange.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/assets.h"
#include "api/accept.h"
#include "api/handlers/handlers.h"
#include "api/login.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/scope.h"
#include "api/stream.h"
#include "api/tally.h"
#include "api/waiters.h"
#include "base/cleanup.h"
#include "base/ident.h"
#include "base/log.h"
#include "base/str.h"

/* A refused request's body up to this size is read and dropped, so that the connection can go on; beyond it the
 * connection is closed: 64 KiB is what a socket buffer holds anyway, 1 MiB bounds chunked ones, which cannot be
 * answered before their end. */
enum { SWALLOW_DECLARED = 64 * 1024, SWALLOW_CHUNKED = 1024 * 1024 };

struct exchange *exchange_ref(struct exchange *exchange)
{
    exchange->refs++;
    return exchange;
}

void exchange_unref(struct exchange *exchange)
{
    if (--exchange->refs > 0)
        return;
    json_decref(exchange->body);
    json_decref(exchange->query);
    json_decref(exchange->principal.scopes);
    json_decref(exchange->principal.paths);
    http_reply_clear(&exchange->reply);
    route_match_clear(&exchange->match);
    free(exchange->upload);
    free(exchange->key);
    free(exchange->if_match);
    free(exchange->if_none_match);
    free(exchange);
}

/* --- answers --- */

void exchange_send(struct exchange *exchange)
{
    if (exchange->sent || !exchange->http)
        return;
    exchange->sent = true;
    tally_count(exchange->api->tally, exchange->match.route, exchange->reply.status);
    const struct log_context context = {.request_id = exchange->request_id, .trace_id = exchange->trace_id};
    log_line(LOG_LEVEL_DEBUG, &context, "%s %s: %d", http_method(exchange->http), exchange->instance,
             exchange->reply.status);
    http_answer(exchange->http, &exchange->reply);
}

/* A call that changes something, and must find it as the caller knows it. */
static void guard(struct exchange *exchange)
{
    const struct api_route *route = exchange->match.route, *resource = handler_resource(route);

    if (str_eq(route->method, "GET") || !resource || !(exchange->if_match || exchange->if_none_match || route->must_match))
        return;
    exchange->call.read = handler_of(resource)->call;
    exchange->call.if_match = exchange->if_match;
    exchange->call.if_none_match = exchange->if_none_match;
    exchange->call.must_match = route->must_match;
    exchange->call.creates = str_eq(route->method, "PUT");
}

static void describe_call(struct exchange *exchange)
{
    exchange->call = (struct engine_request){
        .principal = &exchange->principal,
        .request_id = exchange->request_id,
        .traceparent = exchange->traceparent,
        .trace_id = exchange->trace_id,
        .id = exchange->match.params[0],
        .sub_id = exchange->match.params[1],
        .body = exchange->body,
        .query = exchange->query,
        .path = exchange->match.route->path,
        .key = exchange->key,
        .operation = exchange->match.route->operation_id,
        .from = exchange->from,
    };
}

static bool changes_something(const struct exchange *exchange)
{
    return !str_eq(exchange->match.route->method, "GET");
}

/* Who tries what he may not is as worth knowing as who does what he may. */
static void audit_forbidden(struct exchange *exchange)
{
    struct err err = {0};

    if (!changes_something(exchange))
        return;
    describe_call(exchange);
    err_set(&err, E_ACCESSDENIED, NULL, "role or scope");
    str_copy(err.reason, sizeof(err.reason), "forbidden");
    const struct engine_answer refused = {.err = &err};
    engine_audit_refused(exchange->api->engine, &exchange->call, &refused);
}

/* The rate of requests is no matter of who somebody is. */
void exchange_turned_away(struct exchange *exchange)
{
    struct err err = {.hr = exchange->refused_hr};

    if (!exchange->match.route || !changes_something(exchange) || exchange->refused_hr != (uint32_t)E_ACCESSDENIED)
        return;
    describe_call(exchange);
    str_copy(err.text, sizeof(err.text), "credentials");
    str_copy(err.reason, sizeof(err.reason), *exchange->refused_reason ? exchange->refused_reason : "unauthorized");
    const struct engine_answer refused = {.err = &err, .status_override = (int)exchange->reply.status};
    engine_audit_turned_away(exchange->api->engine, &exchange->call, &refused);
}

void exchange_call(struct exchange *exchange, engine_call_fn call, engine_answer_fn answer)
{
    describe_call(exchange);
    guard(exchange);
    log_adopt(exchange->request_id, exchange->trace_id);
    if (changes_something(exchange))
        engine_call_audited(exchange->api->engine, call, &exchange->call, answer, exchange_ref(exchange));
    else if (exchange->key)
        engine_call_once(exchange->api->engine, call, &exchange->call, answer, exchange_ref(exchange));
    else
        engine_call(exchange->api->engine, call, &exchange->call, answer, exchange_ref(exchange));
    log_adopt(NULL, NULL);
}

static void engine_answered(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;

    reply_engine(exchange, answer, NULL);
    exchange_unref(exchange);
}

/* --- checks by headers alone --- */

static bool method_is(const struct exchange *exchange, const char *method)
{
    return str_eq(http_method(exchange->http), method);
}

/* Reads and cancels are served to the end: who waits for a job learns its end. */
static bool refused_while_draining(const struct exchange *exchange)
{
    static const char *const taken[] = {"GET", "HEAD", "OPTIONS", "DELETE"};

    for (size_t i = 0; i < ELEMENTS(taken); i++)
        if (method_is(exchange, taken[i]))
            return false;
    return exchange->api->draining;
}

static bool acceptable(const struct exchange *exchange)
{
    static const char name[] = "Accept";
    const struct api_route *route = exchange->match.route;
    const char *accept = http_header(exchange->http, name);

    return !route->produces || !accept || http_header_repeated(exchange->http, name) || accept_allows(accept, route->produces);
}

/* RFC 9110 10.1.1: there is nothing else that one could expect. */
static bool expects_more(const struct exchange *exchange)
{
    static const char name[] = "Expect";
    const char *expect = http_header(exchange->http, name);

    return expect && (http_header_repeated(exchange->http, name) || strcasecmp(expect, "100-continue") != 0);
}

/* Order: how much the address asks for, authentication, then whether there is such a thing. What needs no authentication is public by its route. */
static void check_head(struct exchange *exchange, int64_t content_length)
{
    struct route_match *match = &exchange->match;
    bool known = route_find(http_target(exchange->http), http_method(exchange->http), match);

    if (!login_address(exchange) || assets_answer(exchange))
        return;
    if (!login_same_site(exchange) || (!(match->route && match->route->is_public) && !login(exchange))) {
        exchange_turned_away(exchange);
        return;
    }
    if (!known)
        reply_no_path(exchange);
    else if (method_is(exchange, "OPTIONS"))
        reply_options(exchange);
    else if (!match->route)
        reply_no_method(exchange);
    else if (refused_while_draining(exchange))
        reply_draining(exchange);
    else if (expects_more(exchange))
        reply_expectation_failed(exchange);
    else if (!acceptable(exchange))
        reply_not_acceptable(exchange);
    else if (match->route->body && content_length > (int64_t)match->route->body_max)
        reply_too_large(exchange);
}

static bool sane_request_id(const char *id)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";

    return id && *id && strlen(id) < REQUEST_ID_SIZE && strspn(id, allowed) == strlen(id);
}

/* Without the port; "" for what has no address. */
static void peer_text(const struct sockaddr *peer, char ret[INET6_ADDRSTRLEN])
{
    *ret = '\0';
    if (peer && peer->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)peer)->sin_addr, ret, INET6_ADDRSTRLEN);
    else if (peer && peer->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)peer)->sin6_addr, ret, INET6_ADDRSTRLEN);
}

static void *on_begin(void *arg, struct http_request *http, int64_t content_length)
{
    struct exchange *exchange = mem_new(sizeof(*exchange));
    const char *id = http_header(http, "X-Request-Id"), *target = http_target(http);

    exchange->api = arg;
    exchange->http = http;
    exchange->refs = 1;
    if (sane_request_id(id)) {
        str_copy(exchange->request_id, sizeof(exchange->request_id), id);
    } else {
        char made[UUID_SIZE];
        str_copy(exchange->request_id, sizeof(exchange->request_id), uuid_v7(made));
    }
    if (!http_header_repeated(http, "traceparent"))
        trace_take(http_header(http, "traceparent"), exchange->traceparent);
    trace_id(exchange->traceparent, exchange->trace_id);
    str_format(exchange->instance, sizeof(exchange->instance), "%.*s", (int)strcspn(target, "?#"), target);
    const struct preface *preface = http_preface(http);
    if (preface && preface->has_credentials)
        str_format(exchange->from, sizeof(exchange->from), "uid:%u", preface->uid);
    else
        peer_text(http_peer(http), exchange->from);
    check_head(exchange, content_length);
    /* A refusal that finds a large body on its way does not wait for it. */
    if (exchange->replied && content_length > SWALLOW_DECLARED)
        exchange_send(exchange);
    return exchange;
}

/* --- the body --- */

static void keep(struct exchange *exchange, const char *data, size_t size)
{
    if (exchange->upload_size + size > exchange->upload_room) {
        exchange->upload_room = (exchange->upload_size + size) * 2;
        exchange->upload = mem_resize(exchange->upload, exchange->upload_room);
    }
    memcpy(exchange->upload + exchange->upload_size, data, size);
    exchange->upload_size += size;
}

static bool on_upload(void *state, const char *data, size_t size)
{
    struct exchange *exchange = state;
    size_t most = exchange->match.route ? exchange->match.route->body_max : 0;

    if (!exchange->replied && exchange->upload_size + size > most) {
        if (exchange->match.route->body)
            reply_too_large(exchange);
        else
            reply_no_body(exchange);
    }
    if (!exchange->replied) {
        keep(exchange, data, size);
        return true;
    }
    exchange->swallowed += size;
    return exchange->swallowed <= SWALLOW_CHUNKED;
}

bool exchange_permitted(const struct exchange *exchange)
{
    const struct api_route *route = exchange->match.route;

    return route->is_public || (role_allows_any(exchange->principal.role, route->roles) &&
                                scope_covers(exchange->principal.scopes, route) &&
                                (!exchange->principal.paths || scope_is_snapshot(route)));
}

/* Arguments come before the role, so that a wrong request is told so to everybody; the role before anything that
 * exists. */
static void on_end(void *state)
{
    struct exchange *exchange = state;

    /* A body takes its time: what was revoked meanwhile is not good any more. */
    if (!exchange->replied && exchange->upload_size > 0 && !exchange->match.route->is_public && !login_again(exchange))
        exchange_turned_away(exchange);
    if (!exchange->replied)
        request_check(exchange);
    if (!exchange->replied && !exchange_permitted(exchange)) {
        audit_forbidden(exchange);
        reply_forbidden(exchange);
    }
    if (exchange->replied) {
        exchange_send(exchange);
        return;
    }
    const struct handler *handler = handler_of(exchange->match.route);
    if (handler->own)
        handler->own(exchange);
    else
        exchange_call(exchange, handler->call, engine_answered);
}

static void on_left(void *state)
{
    handlers_left(state);
}

static void on_done(void *state)
{
    struct exchange *exchange = state;

    if (exchange->waiter)
        waiter_remove(TAKE_PTR(exchange->waiter));
    engine_stream_close(TAKE_PTR(exchange->stream));
    stream_free(TAKE_PTR(exchange->events));
    exchange->http = NULL;
    exchange_unref(exchange);
}

const struct http_events exchange_events = {
    .begin = on_begin,
    .upload = on_upload,
    .end = on_end,
    .left = on_left,
    .done = on_done,
};
