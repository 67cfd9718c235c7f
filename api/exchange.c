#include "api/exchange.h"

#include <stdlib.h>
#include <string.h>

#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "api/request.h"
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
    http_reply_clear(&exchange->reply);
    route_match_clear(&exchange->match);
    free(exchange->upload);
    free(exchange);
}

/* --- answers --- */

void exchange_send(struct exchange *exchange)
{
    if (exchange->sent || !exchange->http)
        return;
    exchange->sent = true;
    const struct log_context context = {.request_id = exchange->request_id};
    log_line(LOG_LEVEL_DEBUG, &context, "%s %s: %d", http_method(exchange->http), exchange->instance,
             exchange->reply.status);
    http_answer(exchange->http, &exchange->reply);
}

void exchange_call(struct exchange *exchange, engine_call_fn call, engine_answer_fn answer)
{
    exchange->call = (struct engine_request){
        .principal = &exchange->principal,
        .request_id = exchange->request_id,
        .id = exchange->match.params[0],
        .sub_id = exchange->match.params[1],
        .body = exchange->body,
        .query = exchange->query,
    };
    call(exchange->api->engine, &exchange->call, answer, exchange_ref(exchange));
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

/* Order: authentication, then whether there is such a thing. What needs no authentication is public by its route. */
static void check_head(struct exchange *exchange, int64_t content_length)
{
    struct route_match *match = &exchange->match;
    bool known = route_find(http_target(exchange->http), http_method(exchange->http), match);

    if (!(match->route && match->route->is_public)) {
        exchange->auth_kind = auth_check(exchange->api->auth, http_preface(exchange->http),
                                         http_header(exchange->http, "Authorization"), &exchange->principal);
        if (exchange->auth_kind == AUTH_NONE) {
            reply_unauthorized(exchange);
            return;
        }
    }
    if (!known)
        reply_no_path(exchange);
    else if (method_is(exchange, "OPTIONS"))
        reply_options(exchange);
    else if (!match->route)
        reply_no_method(exchange);
    else if (refused_while_draining(exchange))
        reply_draining(exchange);
    else if (match->route->body && content_length > (int64_t)match->route->body_max)
        reply_too_large(exchange);
}

static bool sane_request_id(const char *id)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";

    return id && *id && strlen(id) < REQUEST_ID_SIZE && strspn(id, allowed) == strlen(id);
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
    str_format(exchange->instance, sizeof(exchange->instance), "%.*s", (int)strcspn(target, "?#"), target);
    if (http_head_size(http) > HTTP_HEAD_MAX)
        reply_head_too_large(exchange);
    else
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

/* Arguments come before the role, so that a wrong request is told so to everybody; the role before anything that
 * exists. */
static void on_end(void *state)
{
    struct exchange *exchange = state;

    if (!exchange->replied)
        request_check(exchange);
    if (!exchange->replied && !role_allows(exchange->principal.role, exchange->match.route->role))
        reply_forbidden(exchange);
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
