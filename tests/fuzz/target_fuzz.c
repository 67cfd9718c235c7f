/* Request targets: a route's parameters are plain names, HEAD finds what GET finds, and a decoded query is clean text.
 * The first byte chooses the method. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/route.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"};

static void fail(const char *what, const char *more)
{
    fprintf(stderr, "%s: %s\n", what, more);
    abort();
}

static void check_clean(const char *text)
{
    for (size_t i = 0, length = strlen(text); i < length;) {
        size_t span = utf8_span(text + i, length - i);
        if (span == 0 || (unsigned char)text[i] < 0x20)
            fail("unclean", text);
        i += span;
    }
}

static void check_match(const struct route_match *match)
{
    for (size_t i = 0; i < ROUTE_PARAMS_MAX; i++) {
        const char *name = match->params[i];
        if (!name)
            continue;
        check_clean(name);
        if (!name[0] || strchr(name, '/') || str_eq(name, ".") || str_eq(name, ".."))
            fail("no plain name", name);
    }
    if (!match->allow[0] || !strstr(match->allow, "OPTIONS"))
        fail("Allow", match->allow);
}

/* The absolute form of a target is the target. */
static void check_absolute(const char *target)
{
    AUTO_FREE char *itself = route_origin_form(target);
    AUTO_FREE char *absolute = str_new("https://h:1%s", target);
    AUTO_FREE char *origin = route_origin_form(absolute);
    if (target[0] == '/' && (!str_eq(itself, target) || !str_eq(origin, target)))
        fail("another target", origin);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct route_match match, head;
    if (size < 2)
        return 0;
    const char *method = methods[data[0] % ELEMENTS(methods)];
    AUTO_FREE char *target = str_new("%.*s", (int)(size - 1), (const char *)data + 1); /* a NUL never comes through the gate */
    check_absolute(target);
    if (route_find(target, method, &match)) {
        check_match(&match);
        AUTO_FREE char *query = route_decode(match.query, strlen(match.query), true);
        if (query)
            check_clean(query);
        if (str_eq(method, "GET") && (!route_find(target, "HEAD", &head) || head.route != match.route))
            fail("HEAD finds another route", target);
        if (str_eq(method, "GET"))
            route_match_clear(&head);
    }
    route_match_clear(&match);
    return 0;
}
