#include "base/jsonspec.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/ident.h"
#include "base/str.h"
#include "base/utf8.h"

struct check {
    struct json_fault *faults;
    size_t room, count;
};

/* A pointer on its way down the document; a part that does not fit is left out, so that it names the parent. */
struct pointer {
    char text[sizeof(((struct json_fault *)0)->pointer)];
};

static struct pointer pointer_to(const struct pointer *parent, const char *part)
{
    struct pointer child = *parent;
    size_t at = strlen(child.text);
    char escaped[sizeof(child.text)];
    size_t to = 0;
    escaped[to++] = '/';
    for (; *part && to + 2 < sizeof(escaped); part++) {
        if (*part == '~' || *part == '/') {
            escaped[to++] = '~';
            escaped[to++] = *part == '~' ? '0' : '1';
        } else {
            escaped[to++] = *part;
        }
    }
    if (*part == '\0' && at + to < sizeof(child.text)) {
        memcpy(child.text + at, escaped, to);
        child.text[at + to] = '\0';
    }
    return child;
}

__attribute__((format(printf, 3, 4))) static void report(struct check *check, const struct pointer *at, const char *fmt,
                                                         ...)
{
    if (check->count < check->room) {
        struct json_fault *fault = &check->faults[check->count];
        memcpy(fault->pointer, at->text, sizeof(fault->pointer));
        va_list args;
        va_start(args, fmt);
        if (vsnprintf(fault->detail, sizeof(fault->detail), fmt, args) < 0)
            fault->detail[0] = '\0';
        va_end(args);
    }
    check->count++;
}

static const struct kind_row {
    unsigned kind;
    const char *words;
} kind_rows[] = {
    {JSON_KIND_STRING, "a string"},   {JSON_KIND_INTEGER, "an integer"}, {JSON_KIND_NUMBER, "a number"},
    {JSON_KIND_BOOLEAN, "a boolean"}, {JSON_KIND_OBJECT, "an object"},   {JSON_KIND_ARRAY, "an array"},
    {JSON_KIND_NULL, "null"},
};

static unsigned kind_of(const json_t *value)
{
    static const unsigned kinds[] = {
        [JSON_OBJECT] = JSON_KIND_OBJECT,
        [JSON_ARRAY] = JSON_KIND_ARRAY,
        [JSON_STRING] = JSON_KIND_STRING,
        [JSON_INTEGER] = JSON_KIND_INTEGER | JSON_KIND_NUMBER,
        [JSON_REAL] = JSON_KIND_NUMBER,
        [JSON_TRUE] = JSON_KIND_BOOLEAN,
        [JSON_FALSE] = JSON_KIND_BOOLEAN,
        [JSON_NULL] = JSON_KIND_NULL,
    };
    return kinds[json_typeof(value)];
}

/* "from 5 to 86400", "of at least 5", "" when there is no bound. */
static void bounds_text(const struct json_spec *spec, char *ret, size_t size)
{
    ret[0] = '\0';
    if (!spec->bounded)
        return;
    if (spec->min == INT64_MIN && spec->max != INT64_MAX)
        str_format(ret, size, " of at most %" PRId64, spec->max);
    else if (spec->max == INT64_MAX && spec->min != INT64_MIN)
        str_format(ret, size, " of at least %" PRId64, spec->min);
    else if (spec->max != INT64_MAX)
        str_format(ret, size, " from %" PRId64 " to %" PRId64, spec->min, spec->max);
}

static void report_kind(struct check *check, const struct json_spec *spec, const struct pointer *at)
{
    char words[sizeof(((struct json_fault *)0)->detail)] = "";
    const char *join = "";
    for (size_t i = 0; i < ELEMENTS(kind_rows); i++) {
        if (!(spec->kinds & kind_rows[i].kind))
            continue;
        char bounds[64] = "";
        if (kind_rows[i].kind & (JSON_KIND_INTEGER | JSON_KIND_NUMBER))
            bounds_text(spec, bounds, sizeof(bounds));
        size_t used = strlen(words);
        str_format(words + used, sizeof(words) - used, "%s%s%s", join, kind_rows[i].words, bounds);
        join = " or ";
    }
    report(check, at, "must be %s", words);
}

static void check_number(struct check *check, const struct json_spec *spec, const json_t *value,
                         const struct pointer *at)
{
    bool fits = true;
    if (spec->bounded && json_is_integer(value))
        fits = json_integer_value(value) >= spec->min && json_integer_value(value) <= spec->max;
    else if (spec->bounded)
        fits = json_real_value(value) >= (double)spec->min && json_real_value(value) <= (double)spec->max;
    if (!fits)
        report_kind(check, spec, at);
}

/* Lengths: (0, 0) and an upper bound of 0 above a lower one mean that there is none. */
static void check_length(struct check *check, const struct json_spec *spec, int64_t length, const char *unit,
                         const struct pointer *at)
{
    if (!spec->bounded)
        return;
    int64_t min = spec->min > 0 ? spec->min : 0;
    int64_t max = spec->max > 0 ? spec->max : INT64_MAX;
    if (length >= min && length <= max)
        return;
    if (max == INT64_MAX)
        report(check, at, "must have at least %" PRId64 " %s", min, unit);
    else if (min == 0)
        report(check, at, "must have at most %" PRId64 " %s", max, unit);
    else
        report(check, at, "must have from %" PRId64 " to %" PRId64 " %s", min, max, unit);
}

static bool is_name(const char *text)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return *text != '\0' && text[strspn(text, allowed)] == '\0';
}

static const struct format_row {
    bool (*valid)(const char *text);
    const char *detail;
} format_rows[] = {
    [JSON_FORMAT_UUID] = {uuid_valid, "must be a UUID in lower-case canonical form"},
    [JSON_FORMAT_PATH] = {path_is_canonical, "must be an absolute path without \".\", \"..\" or empty parts"},
    [JSON_FORMAT_NAME] = {is_name, "must consist of letters, digits, \".\", \"_\" and \"-\""},
};

static void check_choice(struct check *check, const char *const *choices, const char *text, const struct pointer *at)
{
    char list[sizeof(((struct json_fault *)0)->detail) - 32] = "";
    for (size_t i = 0; choices[i]; i++) {
        if (strcmp(choices[i], text) == 0)
            return;
        size_t used = strlen(list);
        if (used + strlen(choices[i]) + sizeof(", ...") < sizeof(list))
            str_format(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", choices[i]);
        else if (used + sizeof(", ...") <= sizeof(list) && !strstr(list, ", ..."))
            str_format(list + used, sizeof(list) - used, ", ...");
    }
    report(check, at, "must be one of: %s", list);
}

static void check_string(struct check *check, const struct json_spec *spec, const json_t *value,
                         const struct pointer *at)
{
    const char *text = json_string_value(value);
    size_t bytes = json_string_length(value);
    if (strlen(text) != bytes) {
        report(check, at, "must not contain NUL");
        return;
    }
    if (spec->choices) {
        check_choice(check, spec->choices, text, at);
        return;
    }
    int64_t characters = 0;
    for (size_t i = 0; i < bytes; i++)
        characters += (text[i] & 0xc0) != 0x80;
    check_length(check, spec, characters, "characters", at);
    const struct format_row *format = (size_t)spec->format < ELEMENTS(format_rows) ? &format_rows[spec->format] : NULL;
    if (format && format->valid && !format->valid(text))
        report(check, at, "%s", format->detail);
}

static void check_value(struct check *check, const struct json_spec *spec, const json_t *value,
                        const struct pointer *at);

static void check_object(struct check *check, const struct json_spec *spec, const json_t *value,
                         const struct pointer *at)
{
    bool open = spec->open || (spec->n_members == 0 && spec->kinds == JSON_KIND_ANY);
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        struct pointer below = pointer_to(at, key);
        const struct json_spec *member_spec = spec->values;
        bool known = false;
        for (size_t i = 0; i < spec->n_members && !known; i++)
            if (strcmp(spec->members[i].name, key) == 0) {
                known = true;
                member_spec = spec->members[i].spec;
            }
        if (member_spec)
            check_value(check, member_spec, member, &below);
        else if (!known && !open)
            report(check, &below, "unknown member");
    }
    for (size_t i = 0; i < spec->n_members; i++)
        if (spec->members[i].required && !json_object_get(value, spec->members[i].name)) {
            struct pointer below = pointer_to(at, spec->members[i].name);
            report(check, &below, "is required");
        }
}

static void check_array(struct check *check, const struct json_spec *spec, const json_t *value,
                        const struct pointer *at)
{
    check_length(check, spec, (int64_t)json_array_size(value), "items", at);
    for (size_t i = 0; spec->items && i < json_array_size(value); i++) {
        char index[24];
        str_format(index, sizeof(index), "%zu", i);
        struct pointer below = pointer_to(at, index);
        check_value(check, spec->items, json_array_get(value, i), &below);
    }
}

static const struct checker_row {
    unsigned kind;
    void (*check)(struct check *check, const struct json_spec *spec, const json_t *value, const struct pointer *at);
} checker_rows[] = {
    {JSON_KIND_NUMBER, check_number},
    {JSON_KIND_STRING, check_string},
    {JSON_KIND_OBJECT, check_object},
    {JSON_KIND_ARRAY, check_array},
};

static void check_value(struct check *check, const struct json_spec *spec, const json_t *value,
                        const struct pointer *at)
{
    unsigned kind = kind_of(value);
    if (!(spec->kinds & kind)) {
        report_kind(check, spec, at);
        return;
    }
    for (size_t i = 0; i < ELEMENTS(checker_rows); i++)
        if (kind & checker_rows[i].kind)
            checker_rows[i].check(check, spec, value, at);
}

size_t json_spec_check(const struct json_spec *spec, const json_t *value, struct json_fault *ret_faults, size_t room)
{
    struct check check = {.faults = ret_faults, .room = room};
    struct pointer root = {.text = ""};
    check_value(&check, spec, value, &root);
    return check.count;
}
