/* Cursors: what a list has given it takes back, and gives the same place; whatever else comes, whoever made it, is refused or is such a
 * cursor; and none is good for another list, for other filters or in another order. The first byte says whether the rest is a cursor or a place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/cursor.h"
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *what, const char *more)
{
    fprintf(stderr, "%s: %s\n", what, more);
    abort();
}

static const struct api_route *route_of(const char *path)
{
    for (size_t i = 0; i < api_n_routes; i++)
        if (str_eq(api_routes[i].path, path) && str_eq(api_routes[i].method, "GET"))
            return &api_routes[i];
    fail("no such route", path);
    return NULL;
}

static void check_elsewhere(const char *cursor)
{
    AUTO_JSON json_t *filters = json_pack("{s:s}", "state", "aborted");
    AUTO_JSON json_t *none = json_object();
    AUTO_JSON json_t *oldest = json_pack("{s:s}", "sort", "id");
    const struct exchange others[] = {{.match.route = route_of("/jobs"), .query = none},
                                      {.match.route = route_of("/sessions"), .query = filters},
                                      {.match.route = route_of("/sessions"), .query = oldest}};
    for (size_t i = 0; i < ELEMENTS(others); i++) {
        AUTO_FREE char *place = cursor_read(&others[i], cursor);
        if (place)
            fail("good for another list", cursor);
    }
}

static void check_cursor(const struct exchange *exchange, const char *text)
{
    AUTO_FREE char *place = cursor_read(exchange, text);
    if (!place)
        return;
    AUTO_FREE char *again = cursor_make(exchange, place);
    AUTO_FREE char *same = cursor_read(exchange, again);
    if (!*place || !same || !str_eq(same, place))
        fail("read differently again", text);
    check_elsewhere(text);
}

static void check_place(const struct exchange *exchange, const char *place)
{
    AUTO_FREE char *cursor = cursor_make(exchange, place);
    AUTO_FREE char *found = cursor_read(exchange, cursor);
    if (*place ? !found || !str_eq(found, place) : found != NULL)
        fail("a place is lost", place);
    if (*place)
        check_elsewhere(cursor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    AUTO_FREE char *text = str_new("%.*s", (int)(size - 1), (const char *)data + 1); /* up to a NUL, which no query has */
    AUTO_JSON json_t *query = json_pack("{s:i, s:s}", "limit", 7, "fields", "id");
    const struct exchange exchange = {.match.route = route_of("/sessions"), .query = query};
    if (data[0] % 2)
        check_place(&exchange, text);
    else
        check_cursor(&exchange, text);
    return 0;
}
