/* What lists do not show is put beside its record: neither read nor parsed for a page. */
#include "engine/engine_private.h"

static bool is_among(const char *const *names, const char *name)
{
    while (*names && !str_eq(*names, name))
        names++;
    return *names != NULL;
}

json_t *rest_take(json_t *object, const char *const *path, const char *const *names, bool those)
{
    json_t *taken = json_object();
    const char *key;
    void *next;
    json_t *value;
    json_object_foreach_safe(object, next, key, value)
    {
        if (is_among(names, key) != those)
            continue;
        json_put(taken, key, json_incref(value));
        json_object_del(object, key);
    }
    if (json_object_size(taken) == 0) {
        json_decref(taken);
        return NULL;
    }
    size_t depth = 0;
    while (path[depth])
        depth++;
    while (depth > 0) {
        json_t *around = json_object();
        json_put(around, path[--depth], taken);
        taken = around;
    }
    return taken;
}
