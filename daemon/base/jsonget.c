#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "base/utf8.h"

const char *json_str(const json_t *object, const char *key, const char *fallback)
{
    const json_t *value = key ? json_object_get(object, key) : NULL;
    return json_is_string(value) ? json_string_value(value) : fallback;
}

int64_t json_int(const json_t *object, const char *key, int64_t fallback)
{
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? (int64_t)json_integer_value(value) : fallback;
}

bool json_bool(const json_t *object, const char *key, bool fallback)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

bool json_has_string(const json_t *array, const char *text)
{
    size_t i;
    const json_t *item;
    json_array_foreach(array, i, item)
        if (json_is_string(item) && strcmp(json_string_value(item), text) == 0)
            return true;
    return false;
}

json_t *json_find(const json_t *array, const char *key, const char *text)
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item)
        if (str_eq(json_str(item, key, ""), text))
            return item;
    return NULL;
}

/* NULL when text is well-formed as it is; otherwise a repaired copy that the caller frees. */
static char *text_repaired(const char *text)
{
    size_t length = strlen(text), bad = 0;
    for (size_t at = 0; at < length;) {
        size_t span = utf8_span(text + at, length - at);
        bad += span == 0;
        at += span ? span : 1;
    }
    if (bad == 0)
        return NULL;
    char *repaired = mem_new(length + 2 * bad + 1); /* U+FFFD is three bytes for one */
    size_t to = 0;
    for (size_t at = 0; at < length;) {
        size_t span = utf8_span(text + at, length - at);
        memcpy(repaired + to, span ? text + at : "\xef\xbf\xbd", span ? span : 3);
        to += span ? span : 3;
        at += span ? span : 1;
    }
    return repaired;
}

json_t *json_text(const char *text)
{
    if (!text)
        return json_null();
    AUTO_FREE char *repaired = text_repaired(text);
    json_t *value = json_string_nocheck(repaired ? repaired : text);
    if (!value)
        abort();
    return value;
}

void json_put(json_t *object, const char *key, json_t *value)
{
    AUTO_FREE char *repaired = text_repaired(key);
    if (json_object_set_new_nocheck(object, repaired ? repaired : key, value ? value : json_null()) != 0)
        abort();
}

void json_add(json_t *array, json_t *value)
{
    if (json_array_append_new(array, value ? value : json_null()) != 0)
        abort();
}

char *json_line(const json_t *value)
{
    size_t size = json_dumpb(value, NULL, 0, JSON_SHOWN);
    char *text = mem_new(size + 2);

    json_dumpb(value, text, size, JSON_SHOWN);
    text[size] = '\n'; /* for people with curl */
    return text;
}
