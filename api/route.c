#include "api/route.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "base/utf8.h"

struct span {
    const char *text;
    size_t length;
};

/* --- decoding --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool text_is_clean(const char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        size_t span = utf8_span(text + i, length - i);
        if (span == 0 || (unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
        i += span;
    }
    return true;
}

char *route_decode(const char *text, size_t length, bool plus_is_space)
{
    AUTO_FREE char *out = mem_new(length + 1);
    size_t used = 0;

    for (size_t i = 0; i < length; i++) {
        char c = text[i] == '+' && plus_is_space ? ' ' : text[i];
        if (c == '%') {
            int high = i + 2 < length ? hex_digit(text[i + 1]) : -1;
            int low = i + 2 < length ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0)
                return NULL;
            c = (char)(high * 16 + low);
            i += 2;
        }
        out[used++] = c;
    }
    return text_is_clean(out, used) ? TAKE_PTR(out) : NULL;
}

/* --- paths --- */

/* Does path (of the table, with {names}) match the raw path of that length? Fills params with where they lie. */
static bool path_matches(const char *path, const char *raw, size_t length, struct span ret_params[ROUTE_PARAMS_MAX])
{
    const char *end = raw + length;
    size_t n = 0;

    while (*path) {
        if (*path != '{') {
            if (raw == end || *raw++ != *path++)
                return false;
            continue;
        }
        size_t span = (size_t)(end - raw);
        const char *slash = memchr(raw, '/', span);
        if (slash)
            span = (size_t)(slash - raw);
        if (span == 0)
            return false;
        ret_params[n++] = (struct span){raw, span};
        raw += span;
        path = strchr(path, '}') + 1;
    }
    return raw == end;
}

/* A parameter is one plain name: never a path, never "." or "..". */
static char *param_decode(struct span span)
{
    AUTO_FREE char *text = route_decode(span.text, span.length, false);

    if (!text || strchr(text, '/') || str_eq(text, ".") || str_eq(text, ".."))
        return NULL;
    return TAKE_PTR(text);
}

static void allow_add(struct route_match *match, const char *method)
{
    size_t used = strlen(match->allow);

    str_format(match->allow + used, sizeof(match->allow) - used, "%s%s", used ? ", " : "", method);
    if (str_eq(method, "GET"))
        allow_add(match, "HEAD");
}

/* One with user information is left as it is, and found nowhere: it would only mislead (RFC 9110 4.2.4). */
char *route_origin_form(const char *target)
{
    static const char *const schemes[] = {"https://", "http://"};

    for (size_t i = 0; i < ELEMENTS(schemes); i++) {
        if (strncasecmp(target, schemes[i], strlen(schemes[i])) != 0)
            continue;
        const char *authority = target + strlen(schemes[i]), *path = authority + strcspn(authority, "/?#");
        if (path == authority || memchr(authority, '@', (size_t)(path - authority)))
            break;
        return str_new("%s%s", *path == '/' ? "" : "/", path); /* "https://host?query" has the path / */
    }
    return str_dup(target);
}

bool route_find(const char *target, const char *method, struct route_match *ret)
{
    size_t length = strcspn(target, "?");
    struct span params[ROUTE_PARAMS_MAX] = {0}, found[ROUTE_PARAMS_MAX] = {0};
    bool known = false;

    *ret = (struct route_match){.query = target[length] ? target + length + 1 : ""};
    if (str_eq(method, "HEAD"))
        method = "GET";
    for (size_t i = 0; i < api_n_routes; i++) {
        if (!path_matches(api_routes[i].path, target, length, params))
            continue;
        known = true;
        memcpy(found, params, sizeof(found));
        allow_add(ret, api_routes[i].method);
        if (str_eq(api_routes[i].method, method))
            ret->route = &api_routes[i];
    }
    for (size_t i = 0; known && i < ROUTE_PARAMS_MAX && found[i].text; i++) {
        ret->params[i] = param_decode(found[i]);
        known = ret->params[i] != NULL;
    }
    if (known)
        allow_add(ret, "OPTIONS");
    else
        ret->route = NULL;
    return known;
}

void route_match_clear(struct route_match *match)
{
    for (size_t i = 0; i < ROUTE_PARAMS_MAX; i++)
        free(match->params[i]);
    *match = (struct route_match){0};
}
