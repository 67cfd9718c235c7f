#include "api/reply.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/cursor.h"
#include "api/handlers/handlers.h"
#include "api/scope.h"
#include "api/sparse.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "store/store.h"

/* A client that was told to come back without being told when. */
enum { RETRY_SECONDS = 1, RETRY_DRAINING_SECONDS = 5, RETRY_CROWDED_SECONDS = 5 };

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

static bool has_header(const struct http_reply *reply, const char *name)
{
    for (size_t i = 0; i < reply->n_headers; i++)
        if (str_eq(reply->headers[i].name, name))
            return true;
    return false;
}

/* Is the body what GET of the path answers? */
static bool is_representation(const struct exchange *exchange, int status)
{
    const struct api_route *route = exchange->match.route;

    if (!route || !route->tagged || !handler_resource(route) || !str_eq(handler_resource(route)->path, route->path))
        return false;
    return (status == 200 && !str_eq(route->method, "DELETE") && !str_eq(route->method, "POST")) ||
           (status == 201 && str_eq(route->method, "PUT"));
}

/* The caller has it already: nothing but its tag is sent. */
static bool unchanged(const struct exchange *exchange)
{
    return str_eq(exchange->match.route->method, "GET") && exchange->if_none_match &&
           etag_listed(exchange->if_none_match, exchange->etag, false);
}

/* Takes body unless it is static. */
static void finish(struct exchange *exchange, int status, const char *content_type, char *body, size_t size)
{
    struct http_reply *reply = &exchange->reply;

    if (body && is_representation(exchange, status)) {
        if (!exchange->etag[0])
            etag_make(body, size, exchange->etag);
        reply_header(exchange, "ETag", "%s", exchange->etag);
        if (unchanged(exchange)) {
            if (!reply->body_static)
                free(body);
            body = NULL;
            size = 0;
            content_type = NULL;
            status = 304;
        }
    }
    reply->status = status;
    reply->body = body;
    reply->size = size;
    if (content_type)
        reply_header(exchange, "Content-Type", "%s", content_type);
    reply_header(exchange, "X-Request-Id", "%s", exchange->request_id);
    if (!has_header(reply, "Cache-Control"))
        reply_header(exchange, "Cache-Control", "no-store");
    reply_header(exchange, "X-Content-Type-Options", "nosniff");
    exchange->replied = true;
}

char *reply_text(const json_t *body)
{
    return json_line(body);
}

char *reply_answer_text(const struct engine_answer *answer)
{
    if (!answer->text)
        return answer->body ? reply_text(answer->body) : NULL;
    size_t size = strlen(answer->text);
    char *text = mem_new(size + 2);

    memcpy(text, answer->text, size);
    text[size] = '\n';
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

void reply_empty(struct exchange *exchange, int status)
{
    finish(exchange, status, NULL, NULL, 0);
}

void reply_live(struct exchange *exchange, const char *content_type, long (*read)(void *exchange, char *buffer, size_t room))
{
    exchange->reply.read = read;
    reply_header(exchange, "X-Accel-Buffering", "no"); /* nginx would gather it */
    finish(exchange, 200, content_type, NULL, 0);
    exchange_send(exchange);
}

void reply_text_copy(struct exchange *exchange, const char *content_type, const char *text)
{
    finish(exchange, 200, content_type, str_dup(text), strlen(text));
}

void reply_owned(struct exchange *exchange, const char *content_type, char *body, size_t size)
{
    finish(exchange, 200, content_type, body, size);
}

void reply_stream(struct exchange *exchange, const char *content_type, int pipe)
{
    exchange->reply.stream = true;
    exchange->reply.pipe = pipe;
    finish(exchange, 200, content_type, NULL, 0);
    exchange_send(exchange);
}

/* --- problems --- */

static json_t *faults_array(const struct exchange *exchange, const struct err *err)
{
    json_t *faults = json_array();

    /* json_text: long names of a caller's are cut, perhaps inside a character. */
    for (size_t i = 0; i < exchange->n_faults; i++)
        json_add(faults, json_pack("{s:o, s:o}", "pointer", json_text(exchange->faults[i].pointer), "detail",
                                   json_text(exchange->faults[i].detail)));
    if (exchange->n_faults == 0 && err->pointer[0])
        json_add(faults, json_pack("{s:o, s:o}", "pointer", json_text(err->pointer), "detail", json_text(err->text)));
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
    if (status < 400) /* as engine_failure_status */
        status = 500;
    exchange->refused_hr = err->hr;
    str_copy(exchange->refused_reason, sizeof(exchange->refused_reason), err->reason);
    hresult_hex(err->hr, hex);
    str_format(type, sizeof(type), "/problems/%s", hresult_name(err->hr));
    json_put(body, "type", json_string(type));
    json_put(body, "title", json_string(hresult_meaning(err->hr)));
    json_put(body, "status", json_integer(status));
    json_put(body, "detail", lenient_string(err->text));
    json_put(body, "instance", lenient_string(exchange->instance));
    json_put(body, "hresult", json_string(hresult_name(err->hr)));
    json_put(body, "code", json_string(hex));
    json_put(body, "hint", lenient_string(err->hint[0] ? err->hint : hresult_cure(err->hr))); /* never none: what helps in general, then */
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

static void too_many(struct exchange *exchange, int wait, const char *reason, struct err *err)
{
    str_copy(err->reason, sizeof(err->reason), reason);
    reply_header(exchange, "Retry-After", "%d", wait);
    problem(exchange, 429, err, NULL);
}

void reply_locked_out(struct exchange *exchange, int wait)
{
    struct err err = {0};

    err_set(&err, E_ACCESSDENIED, "Wait, then try with a valid client certificate or token.",
            "too many wrong credentials; the next one is looked at in %d s", wait);
    too_many(exchange, wait, "locked_out", &err);
}

void reply_too_many(struct exchange *exchange, int wait, const char *who)
{
    struct err err = {0};

    err_set(&err, E_OUTOFMEMORY, "Ask less often; a long-poll (?wait=) spares most requests.",
            "%s sends more requests per second than the configuration allows", who);
    too_many(exchange, wait, "rate_limit", &err);
}

void reply_crowded(struct exchange *exchange, int status, const char *what)
{
    struct err err = {0};

    err_set(&err, E_OUTOFMEMORY, "Close some, or raise the limit in the configuration.", "%s has as many %s as limits.%s%s allows",
            status == 429 ? exchange->principal.name : "this node", what, what, status == 429 ? "_per_principal" : "");
    str_copy(err.reason, sizeof(err.reason), what);
    reply_header(exchange, "Retry-After", "%d", RETRY_CROWDED_SECONDS);
    problem(exchange, status, &err, NULL);
    exchange_send(exchange);
}

void reply_forbidden(struct exchange *exchange)
{
    const struct principal *who = &exchange->principal;
    unsigned needed = exchange->match.route->roles;
    struct err err = {0};

    if (!role_allows_any(who->role, needed)) {
        char names[64] = "";
        for (enum role role = ROLE_VIEWER; role <= ROLE_ADMIN; role++) {
            size_t used = strlen(names);
            if (needed & ROLE_BIT(role))
                str_format(names + used, sizeof(names) - used, "%s%s", used ? " or " : "", role_name(role));
        }
        err_set(&err, E_ACCESSDENIED, "Present a credential with such a role, or have an administrator make one: POST /tokens.",
                "%s has the role %s; this needs %s", who->name, role_name(who->role), names);
    } else if (who->paths && !scope_is_snapshot(exchange->match.route)) {
        err_set(&err, E_ACCESSDENIED, "GET /whoami shows its paths.", "%s is confined to snapshots of its paths", who->name);
        str_copy(err.reason, sizeof(err.reason), "paths");
    } else {
        err_set(&err, E_ACCESSDENIED, "GET /whoami shows its scopes.",
                "the token of %s is limited by scopes, and none of them covers this", who->name);
        str_copy(err.reason, sizeof(err.reason), "scope");
    }
    problem(exchange, 403, &err, NULL);
}

void reply_foreign_page(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_ACCESSDENIED, "Use the daemon's own pages, or a program that is no browser.",
            "a page of another site asks for this");
    str_copy(err.reason, sizeof(err.reason), "cross_site");
    problem(exchange, 403, &err, NULL);
}

void reply_csrf(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_ACCESSDENIED, "Send the `csrf_token` of GET /login as X-CSRF-Token.",
            "a call by cookie that changes something needs the header X-CSRF-Token, and this one has not the right one");
    str_copy(err.reason, sizeof(err.reason), "csrf");
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

    err_set(&err, E_NOTIMPL, "Use one of the methods that `Allow` names; GET /openapi.yaml says what each does.", "%s takes %s", exchange->instance,
            exchange->match.allow);
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

    err_set(&err, E_INVALIDARG, "Send a smaller body.", "the body is larger than %zu bytes", exchange->match.route->body_max);
    problem(exchange, 413, &err, NULL);
}

void reply_unsupported_type(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_INVALIDARG, "Send: Content-Type: application/json.", "the body is not declared as %s",
            exchange->match.route->merge_patch ? "application/json or application/merge-patch+json"
                                               : "application/json");
    problem(exchange, 415, &err, NULL);
}

void reply_expectation_failed(struct exchange *exchange)
{
    struct err err = {0};

    err_set(&err, E_INVALIDARG, "Send no Expect, or Expect: 100-continue.", "Expect asks for something that is not done here");
    problem(exchange, 417, &err, NULL);
}

void reply_not_acceptable(struct exchange *exchange)
{
    reply_other_type(exchange, exchange->match.route->produces);
}

void reply_other_type(struct exchange *exchange, const char *const *types)
{
    struct err err = {0};

    err_set(&err, E_INVALIDARG, "Send no Accept, or one that allows it.", "Accept allows none of what this answers: %s%s%s", types[0],
            types[1] ? ", " : "", types[1] ? types[1] : "");
    problem(exchange, 406, &err, NULL);
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
    int status = engine_failure_status(answer);
    int retry = answer->retry_after > 0 ? answer->retry_after : status == 503 ? RETRY_SECONDS : 0;

    if (retry)
        reply_header(exchange, "Retry-After", "%d", retry);
    problem(exchange, status, answer->err, answer->extra);
}

/* The body as this caller wants it: with a cursor of his own list, and the fields that he named. New reference. */
static json_t *shaped(struct exchange *exchange, const struct engine_answer *answer)
{
    const struct api_route *route = exchange->match.route;
    const char *place = answer->next_cursor ? answer->next_cursor : json_str(answer->body, "next_cursor", NULL);
    const char *fields = route->fields ? json_str(exchange->query, "fields", NULL) : NULL;
    json_t *body = json_incref(answer->body);

    if (!body && fields && answer->text)
        body = json_loads(answer->text, 0, NULL);
    if (place) {
        AUTO_FREE char *cursor = cursor_make(exchange, place);
        AUTO_JSON json_t *whole = body;
        body = json_copy(whole);
        json_put(body, "next_cursor", json_string(cursor));
        link_next(exchange, cursor);
    }
    if (fields) {
        AUTO_JSON json_t *whole = body;
        body = sparse_view(route, fields, whole);
        exchange->etag[0] = '\0'; /* of the whole one */
    }
    return body;
}

static void engine_success(struct exchange *exchange, const struct engine_answer *answer, const char *text)
{
    int status = answer->status ? answer->status : exchange->match.route->success;
    int retry = answer->retry_after > 0 ? answer->retry_after : status == 202 ? RETRY_SECONDS : 0;
    AUTO_JSON json_t *shown = shaped(exchange, answer);

    if (answer->location[0])
        reply_header(exchange, "Location", "%s", answer->location);
    if (retry)
        reply_header(exchange, "Retry-After", "%d", retry);
    if (answer->replayed)
        reply_header(exchange, "Idempotent-Replayed", "true");
    if ((!answer->body && !answer->text) || status == 204) {
        finish(exchange, status, NULL, NULL, 0);
        return;
    }
    char *copy = shown != answer->body ? reply_text(shown) : text ? str_dup(text) : reply_answer_text(answer);
    finish(exchange, status, "application/json", copy, strlen(copy));
}

void reply_lines(struct exchange *exchange, const struct engine_answer *answer)
{
    AUTO_JSON json_t *shown = shaped(exchange, answer);
    size_t i, size = 0;
    const json_t *item;
    char *text = NULL;
    FILE *lines = open_memstream(&text, &size);

    json_array_foreach(json_object_get(shown, "items"), i, item)
    {
        json_dumpf(item, lines, JSON_COMPACT);
        fputc('\n', lines);
    }
    if (fclose(lines) != 0)
        abort(); /* out of memory */
    exchange->etag[0] = '\0';
    finish(exchange, 200, "application/x-ndjson", text, size);
    exchange_send(exchange);
}

void reply_engine(struct exchange *exchange, const struct engine_answer *answer, const char *text)
{
    if (answer->err)
        engine_failure(exchange, answer);
    else
        engine_success(exchange, answer, text);
    exchange_send(exchange);
}
