#include "api/request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/reply.h"
#include "base/cleanup.h"
#include "base/str.h"

static void fault_add(struct exchange *exchange, const char *pointer, const char *detail)
{
    if (exchange->n_faults == EXCHANGE_FAULTS_MAX)
        return;
    struct json_fault *fault = &exchange->faults[exchange->n_faults++];
    str_copy(fault->pointer, sizeof(fault->pointer), pointer);
    str_copy(fault->detail, sizeof(fault->detail), detail);
}

/* --- body --- */

static bool media_type_is(const char *header, const char *type)
{
    size_t length = strlen(type);

    return header && strncasecmp(header, type, length) == 0 && header[length + strspn(header + length, " \t")] == '\0';
}

/* "application/json", parameters but charset=utf-8 refused: JSON has none (RFC 8259 11), and curl users write that one.
 */
static bool media_type_taken(const struct api_route *route, const char *header)
{
    char type[128];
    const char *parameter = header ? strchr(header, ';') : NULL;

    if (!header || !str_format(type, sizeof(type), "%.*s", (int)strcspn(header, ";"), header))
        return false;
    if (parameter) {
        parameter += 1 + strspn(parameter + 1, " \t");
        if (strcasecmp(parameter, "charset=utf-8") != 0 && strcasecmp(parameter, "charset=\"utf-8\"") != 0)
            return false;
    }
    return media_type_is(type, "application/json") ||
           (route->merge_patch && media_type_is(type, "application/merge-patch+json"));
}

/* A parse error lies in the whole document (pointer ""). */
static void body_parse(struct exchange *exchange)
{
    struct err err = {0};

    exchange->body = json_parse_strict(exchange->upload, exchange->upload_size, REQUEST_DEPTH_MAX, &err);
    if (!exchange->body)
        fault_add(exchange, err.pointer, err.text);
}

static bool body_check(struct exchange *exchange)
{
    const struct api_route *route = exchange->match.route;
    const char *coding = http_header(exchange->http, "Content-Encoding");

    if (!route->body)
        return true;
    if (exchange->upload_size == 0 && !route->body_required) {
        exchange->body = json_object();
    } else if (exchange->upload_size == 0) {
        fault_add(exchange, "", "a body is required");
        return true;
    } else if (!media_type_taken(route, http_header(exchange->http, "Content-Type")) ||
               (coding && strcasecmp(coding, "identity") != 0)) {
        reply_unsupported_type(exchange);
        return false;
    } else {
        body_parse(exchange);
    }
    if (exchange->body) {
        size_t room = EXCHANGE_FAULTS_MAX - exchange->n_faults;
        size_t found = json_spec_check(route->body, exchange->body, exchange->faults + exchange->n_faults, room);
        exchange->n_faults += found < room ? found : room;
    }
    return true;
}

/* --- query --- */

/* The value by its kind; NULL when it is not of that kind. */
static json_t *query_value(const struct json_spec *spec, const char *text)
{
    int64_t number;

    if (spec->kinds & JSON_KIND_INTEGER)
        return str_to_int(text, INT64_MIN, INT64_MAX, &number) ? json_integer((json_int_t)number) : NULL;
    if (spec->kinds & JSON_KIND_BOOLEAN)
        return str_eq(text, "true") ? json_true() : str_eq(text, "false") ? json_false() : NULL;
    return json_string(text);
}

static const char *kind_text(const struct json_spec *spec)
{
    return spec->kinds & JSON_KIND_INTEGER ? "must be an integer" : "must be true or false";
}

static const struct api_parameter *parameter_by_name(const struct api_route *route, const char *name)
{
    for (size_t i = 0; i < route->n_query; i++)
        if (str_eq(route->query[i].name, name))
            return &route->query[i];
    return NULL;
}

static void query_put(struct exchange *exchange, const char *name, const char *text)
{
    const struct api_parameter *parameter = parameter_by_name(exchange->match.route, name);
    char pointer[160];

    str_format(pointer, sizeof(pointer), "?%.128s", name);
    if (!parameter) {
        fault_add(exchange, pointer, "unknown query parameter");
        return;
    }
    bool many = parameter->spec->kinds & JSON_KIND_ARRAY;
    json_t *value = query_value(many ? parameter->spec->items : parameter->spec, text);
    json_t *before = json_object_get(exchange->query, name);
    if (!value) {
        fault_add(exchange, pointer, kind_text(many ? parameter->spec->items : parameter->spec));
    } else if (!many && before) {
        fault_add(exchange, pointer, "given twice");
        json_decref(value);
    } else if (!many) {
        json_put(exchange->query, name, value);
    } else {
        if (!before)
            json_put(exchange->query, name, before = json_array());
        json_add(before, value);
    }
}

static void query_split(struct exchange *exchange)
{
    const char *at = exchange->match.query;

    while (*at) {
        size_t length = strcspn(at, "&");
        const char *equals = memchr(at, '=', length);
        size_t name_length = equals ? (size_t)(equals - at) : length;
        AUTO_FREE char *name = route_decode(at, name_length, true);
        AUTO_FREE char *text = equals ? route_decode(equals + 1, length - name_length - 1, true) : str_dup("");
        if (!name || !text)
            fault_add(exchange, "?", "the query is not well-formed percent-encoded UTF-8");
        else if (length > 0)
            query_put(exchange, name, text);
        at += length + (at[length] == '&');
    }
}

static void query_check(struct exchange *exchange)
{
    const struct api_route *route = exchange->match.route;

    exchange->query = json_object();
    query_split(exchange);
    for (size_t i = 0; i < route->n_query && exchange->n_faults < EXCHANGE_FAULTS_MAX; i++) {
        const char *name = route->query[i].name;
        const json_t *value = json_object_get(exchange->query, name);
        struct json_fault fault;
        char pointer[160];
        str_format(pointer, sizeof(pointer), "?%s", name);
        if (value && json_spec_check(route->query[i].spec, value, &fault, 1) > 0)
            fault_add(exchange, pointer, fault.detail);
        else if (!value && route->query[i].required)
            fault_add(exchange, pointer, "is required");
    }
}

void request_check(struct exchange *exchange)
{
    if (!body_check(exchange))
        return;
    query_check(exchange);
    if (exchange->n_faults > 0)
        reply_invalid(exchange);
}

/* --- preferences --- */

int request_prefer_wait(const char *prefer, int most)
{
    static const char name[] = "wait";

    while (prefer && *prefer) {
        int64_t seconds;
        char number[24];
        prefer += strspn(prefer, " \t,");
        size_t length = strcspn(prefer, ",;");
        const char *value = memchr(prefer, '=', length);
        if (value && strncasecmp(prefer, name, sizeof(name) - 1) == 0 &&
            prefer + sizeof(name) - 1 + strspn(prefer + sizeof(name) - 1, " \t") == value) {
            value += 1 + strspn(value + 1, " \t\"");
            str_format(number, sizeof(number), "%.*s", (int)strspn(value, "0123456789"), value);
            if (str_to_int(number, 0, INT64_MAX, &seconds))
                return seconds < most ? (int)seconds : most;
        }
        prefer += strcspn(prefer, ",");
    }
    return -1;
}
