#include "api/request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/cursor.h"
#include "api/reply.h"
#include "api/sparse.h"
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

/* --- headers --- */

enum { KEY_MAX = 255 };
static const char key_name[] = "Idempotency-Key";

/* The draft of the HTTP API working group has the key as a string of RFC 9651, in quotes; most clients send it bare. Both are the same
 * key. malloc'ed; NULL: it is not well-formed. */
static char *key_read(const char *text)
{
    size_t length = strlen(text), used = 0;
    bool quoted = text[0] == '"';
    AUTO_FREE char *key = mem_new(length + 1);

    if (quoted && (length < 2 || text[length - 1] != '"'))
        return NULL;
    const char *end = text + length - quoted;
    for (const char *at = text + quoted; at < end; at++) {
        if (quoted && *at == '"')
            return NULL;
        if (quoted && *at == '\\' && (++at == end || (*at != '\\' && *at != '"')))
            return NULL;
        if (*at < 0x20 || *at > 0x7e)
            return NULL;
        key[used++] = *at;
    }
    return used >= 1 && used <= KEY_MAX ? TAKE_PTR(key) : NULL;
}

/* Only calls that are made by POST are done once by their key; PUT, PATCH and DELETE can be repeated as they are. */
static void key_check(struct exchange *exchange)
{
    const char *text = http_header(exchange->http, key_name);

    if (!text || !str_eq(exchange->match.route->method, "POST"))
        return;
    exchange->key = http_header_repeated(exchange->http, key_name) ? NULL : key_read(text);
    if (!exchange->key)
        fault_add(exchange, key_name, "must be there once, with 1 to 255 printable ASCII characters, bare or in quotes");
}

/* Which methods look at which condition: as the contract declares them. */
static void condition_check(struct exchange *exchange, const char *name, const char *methods, char **ret)
{
    const char *list = http_header(exchange->http, name);

    if (!list || !strstr(methods, exchange->match.route->method))
        return;
    if (etag_list_valid(list) && !http_header_repeated(exchange->http, name))
        *ret = str_dup(list);
    else
        fault_add(exchange, name, "must be there once, and be * or entity tags in quotes with commas between them");
}

/* Members of items, and where the page begins: what they may be depends on the operation, and on the other parameters. */
static void page_check(struct exchange *exchange)
{
    const struct api_route *route = exchange->match.route;
    const char *fields = json_str(exchange->query, "fields", NULL), *cursor = json_str(exchange->query, "cursor", NULL);
    char unknown[64], detail[128];

    if (route->fields && fields && sparse_unknown(route, fields, unknown)) {
        str_format(detail, sizeof(detail), "no such member: \"%s\"", unknown);
        fault_add(exchange, "?fields", detail);
    }
    if (!cursor)
        return;
    AUTO_FREE char *place = cursor_read(exchange, cursor);
    AUTO_JSON json_t *text = place ? json_string(place) : NULL; /* NULL when it is not UTF-8 */
    if (text)
        json_put(exchange->query, "cursor", json_incref(text));
    else
        fault_add(exchange, "?cursor", "comes from another list, from other filters or another order: begin without it");
}

void request_check(struct exchange *exchange)
{
    if (!body_check(exchange))
        return;
    query_check(exchange);
    if (exchange->n_faults == 0)
        page_check(exchange);
    key_check(exchange);
    condition_check(exchange, "If-Match", "PUT PATCH DELETE", &exchange->if_match);
    condition_check(exchange, "If-None-Match", "GET PUT", &exchange->if_none_match);
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
