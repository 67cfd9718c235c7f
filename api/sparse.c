#include "api/sparse.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

static bool names(const char *fields, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = fields; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strcspn(at, ",") == length && memcmp(at, name, length) == 0)
            return true;
    return false;
}

bool sparse_unknown(const struct api_route *route, const char *fields, char ret[64])
{
    for (const char *at = fields;; at++) {
        size_t length = strcspn(at, ",");
        bool known = false;
        for (size_t i = 0; route->fields[i] && !known; i++)
            known = strlen(route->fields[i]) == length && memcmp(route->fields[i], at, length) == 0;
        if (!known) {
            str_format(ret, 64, "%.*s", length < 60 ? (int)length : 60, at);
            return true;
        }
        at += length;
        if (!*at)
            return false;
    }
}

static json_t *item_view(const char *fields, const json_t *item)
{
    json_t *view = json_object(), *value;
    const char *key;

    json_object_foreach((json_t *)(uintptr_t)item, key, value)
        if (names(fields, key))
            json_put(view, key, json_incref(value));
    return view;
}

json_t *sparse_view(const struct api_route *route, const char *fields, const json_t *body)
{
    if (!route->is_list)
        return item_view(fields, body);
    json_t *view = json_copy((json_t *)(uintptr_t)body), *items = json_array(), *item;
    size_t i;
    json_array_foreach(json_object_get(body, "items"), i, item) json_add(items, item_view(fields, item));
    json_put(view, "items", items);
    return view;
}
