#include "api/reply.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

/* A client that was told to come back without being told when. */
enum { RETRY_SECONDS = 1, RETRY_DRAINING_SECONDS = 5 };

/* --- the parts of a reply --- */

void reply_header(struct exchange *exchange, const char *name, const char *fmt, ...)
{
    struct http_reply *reply = &exchange->reply;
    char *value = NULL;
    va_list list;

    va_start(list, fmt);
    if (vasprintf(&value, fmt, list) < 0 || reply->n_headers == HTTP_HEADERS_MAX)
        abort(); /* out of memory, or a reply with more headers than any of ours has */
    va_end(list);
    reply->headers[reply->n_headers++] = (struct http_header){name, value};
}

/* Takes body unless it is static. */
static void finish(struct exchange *exchange, int status, const char *content_type, char *body, size_t size)
{
    struct http_reply *reply = &exchange->reply;

    reply->status = status;
    reply->body = body;
    reply->size = size;
    if (content_type)
        reply_header(exchange, "Content-Type", "%s", content_type);
    reply_header(exchange, "X-Request-Id", "%s", exchange->request_id);
    reply_header(exchange, "Cache-Control", "no-store");
    reply_header(exchange, "X-Content-Type-Options", "nosniff");
    exchange->replied = true;
}

char *reply_text(const json_t *body)
{
    size_t size = json_dumpb(body, NULL, 0, JSON_COMPACT);
    char *text = mem_new(size + 2);

    json_dumpb(body, text, size, JSON_COMPACT);
    text[size] = '\n'; /* for people with curl */
    return text;
}

static void finish_json(struct exchange *exchange, int status, const char *content_type, const json_t *body)
{
    char *text = reply_text(body);

    finish(exchange, status, content_type, text, strlen(text));
}

void reply_json(struct exchange *exchange, int status, const json_t *body)
{
    finish_json(exchange, status, "application/json", body);
}

void reply_static(struct exchange *exchange, const char *content_type, const char *body, size_t size)
{
    exchange->reply.body_static = true;
    finish(exchange, 200, content_type, (char *)(uintptr_t)body, size);
}

void reply_text_copy(struct exchange *exchange, const char *content_type, const char *text)
{
    finish(exchange, 200, content_type, str_dup(text), strlen(text));
}

/* --- problems --- */

static json_t *faults_array(const struct exchange *exchange, const struct err *err)
{
    json_t *faults = json_array();

    for (size_t i = 0; i < exchange->n_faults; i++)
        json_add(faults,
                 json_pack("{s:s, s:s}", "pointer", exchange->faults[i].pointer, "detail", exchange->faults[i].detail));
    if (exchange->n_faults == 0 && err->pointer[0])
        json_add(faults, json_pack("{s:s, s:s}", "pointer", err->pointer, "detail", err->text));
    return faults;
}

/* text as a JSON string; what is not UTF-8 (a file name in an error) is shown with '?'. */
static json_t *lenient_string(const char *text)
{
    json_t *value = json_string(text);

    if (value)
        return value;
    AUTO_FREE char *ascii = str_dup(text);
    for (char *c = ascii; *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return json_string(ascii);
}

static void problem(struct exchange *exchange, int status, const struct err *err, const json_t *extra)
{
    char hex[11], type[96];
    AUTO_JSON json_t *body = json_object();

    if (status == 0)
        status = hresult_http(err->hr);
    if (status < 400) /* a success code as a failure is somebody's mistake, and no reason to say "succeeded" */
        status = 500;
    hresult_hex(err->hr, hex);
    str_format(type, sizeof(type), "urn:quiesced:problem:%s", hresult_name(err->hr));
    json_put(body, "type", json_string(type));
    json_put(body, "title", json_string(hresult_meaning(err->hr)));
    json_put(body, "status", json_integer(status));
    json_put(body, "detail", lenient_string(err->text));
    json_put(body, "instance", lenient_string(exchange->instance));
    json_put(body, "hresult", json_string(hresult_name(err->hr)));
    json_put(body, "code", json_string(hex));
    json_put(body, "hint", lenient_string(err->hint));
    json_put(body, "request_id", json_string(exchange->request_id));
    if (err->reason[0])
        json_put(body, "reason", json_string(err->reason));
    json_put(body, "errors", faults_array(exchange, err));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)extra, key, value) json_put(body, key, json_incref(value));
    finish_json(exchange, status, "application/problem+json", body);
}

void reply_invalid(struct exchange *exchange)
{
    struct err err = {0};
    const struct json_fault *first = &exchange->faults[0];

    err_set(&err, E_INVALIDARG, "See `errors`, and GET /openapi.yaml for what is taken.", "%s%s%s", first->pointer,
            first->pointer[0] ? ": " : "", first->detail);
    problem(exchange, 400, &err, NULL);
}

void reply_no_body(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_INVALIDARG, "Send no body.", "this operation takes no body");
    problem(exchange, 400, &err, NULL);
}

void reply_unauthorized(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_ACCESSDENIED, "Present a client certificate, or send: Authorization: Bearer TOKEN.",
            "no valid client certificate or token");
    reply_header(exchange, "WWW-Authenticate", "Bearer realm=\"quiesced\"");
    problem(exchange, 401, &err, NULL);
}

void reply_forbidden(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_ACCESSDENIED, NULL, "%s has the role %s; this needs %s", exchange->principal.name,
            role_name(exchange->principal.role), role_name(exchange->match.route->role));
    problem(exchange, 403, &err, NULL);
}

void reply_not_found(struct exchange *exchange, const char *what)
{
    struct err err = {0};

    err_set(&err, VSS_E_OBJECT_NOT_FOUND, NULL, "%s", what);
    problem(exchange, 404, &err, NULL);
}

void reply_no_path(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, VSS_E_OBJECT_NOT_FOUND, "GET /openapi.yaml lists the paths.", "%s: no such path", exchange->instance);
    problem(exchange, 404, &err, NULL);
}

void reply_no_method(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_NOTIMPL, NULL, "%s takes %s", exchange->instance, exchange->match.allow);
    reply_header(exchange, "Allow", "%s", exchange->match.allow);
    problem(exchange, 405, &err, NULL);
}

void reply_options(struct exchange *exchange)
{
    reply_header(exchange, "Allow", "%s", exchange->match.allow);
    finish(exchange, 204, NULL, NULL, 0);
}

void reply_too_large(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_INVALIDARG, NULL, "the body is larger than %zu bytes", exchange->match.route->body_max);
    problem(exchange, 413, &err, NULL);
}

void reply_head_too_large(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_INVALIDARG, NULL, "target and headers are larger than %d bytes", HTTP_HEAD_MAX);
    problem(exchange, 431, &err, NULL);
}

void reply_unsupported_type(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_INVALIDARG, "Send: Content-Type: application/json.", "the body is not declared as %s",
            exchange->match.route->merge_patch ? "application/json or application/merge-patch+json"
                                               : "application/json");
    problem(exchange, 415, &err, NULL);
}

void reply_draining(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, VSS_E_WRITER_INFRASTRUCTURE, "Try again when it is back.",
            "the daemon is stopping and takes no new work");
    str_copy(err.reason, sizeof(err.reason), "draining");
    reply_header(exchange, "Retry-After", "%d", RETRY_DRAINING_SECONDS);
    problem(exchange, 503, &err, NULL);
}

/* --- the engine's answers --- */

/* The same request with the next cursor, without the one it came with. */
static void link_next(struct exchange *exchange, const char *cursor)
{
    AUTO_FREE char *link = str_new("<%s?", exchange->instance);
    const char *at = exchange->match.query;

    while (*at) {
        size_t length = strcspn(at, "&");
        if (length > 0 && !str_starts(at, "cursor=")) {
            AUTO_FREE char *before = TAKE_PTR(link);
            link = str_new("%s%.*s&", before, (int)length, at);
        }
        at += length + (at[length] == '&');
    }
    reply_header(exchange, "Link", "%scursor=%s>; rel=\"next\"", link, cursor);
}

static void engine_failure(struct exchange *exchange, const struct engine_answer *answer)
{
    int status = answer->status_override ? answer->status_override : hresult_http(answer->err->hr);
    int retry = answer->retry_after > 0 ? answer->retry_after : status == 503 ? RETRY_SECONDS : 0;

    if (retry)
        reply_header(exchange, "Retry-After", "%d", retry);
    problem(exchange, status, answer->err, answer->extra);
}

static void engine_success(struct exchange *exchange, const struct engine_answer *answer, const char *text)
{
    int status = answer->status ? answer->status : exchange->match.route->success;
    int retry = answer->retry_after > 0 ? answer->retry_after : status == 202 ? RETRY_SECONDS : 0;
    const char *cursor = answer->next_cursor;

    if (answer->location[0])
        reply_header(exchange, "Location", "%s", answer->location);
    if (retry)
        reply_header(exchange, "Retry-After", "%d", retry);
    if (!cursor && answer->body)
        cursor = json_str(answer->body, "next_cursor", NULL);
    if (cursor)
        link_next(exchange, cursor);
    if (!answer->body || status == 204) {
        finish(exchange, status, NULL, NULL, 0);
        return;
    }
    char *copy = text ? str_dup(text) : reply_text(answer->body);
    finish(exchange, status, "application/json", copy, strlen(copy));
}

void reply_engine(struct exchange *exchange, const struct engine_answer *answer, const char *text)
{
    if (answer->err)
        engine_failure(exchange, answer);
    else
        engine_success(exchange, answer, text);
    exchange_send(exchange);
}
