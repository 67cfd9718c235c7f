#pragma once
/* Checks a JSON value against a table generated from openapi.yaml (or written by hand for the configuration):
 * unknown members, missing members, types, ranges, lengths, enums, formats. Reports every fault with its pointer. */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_kind {
    JSON_KIND_STRING = 1 << 0,
    JSON_KIND_INTEGER = 1 << 1,
    JSON_KIND_NUMBER = 1 << 2,
    JSON_KIND_BOOLEAN = 1 << 3,
    JSON_KIND_OBJECT = 1 << 4,
    JSON_KIND_ARRAY = 1 << 5,
    JSON_KIND_NULL = 1 << 6,
    JSON_KIND_ANY = 127,
};

enum json_format { JSON_FORMAT_NONE, JSON_FORMAT_UUID, JSON_FORMAT_PATH /* absolute, canonical */, JSON_FORMAT_NAME /* [A-Za-z0-9._-]+ */ };

struct json_spec;
struct json_member {
    const char *name;
    bool required;
    const struct json_spec *spec;
};
struct json_spec {
    unsigned kinds;                    /* or of enum json_kind */
    int64_t min, max;                  /* integers: value; strings: length in characters; arrays: item count (0,0 = no bound) */
    bool bounded;                      /* min and max are in force */
    enum json_format format;
    const char *const *choices;        /* NULL-ended list of allowed strings */
    const struct json_member *members; /* objects */
    size_t n_members;
    bool open;                         /* objects: unknown members allowed (additionalProperties) */
    const struct json_spec *items;     /* arrays */
    const struct json_spec *values;    /* objects used as maps: spec of every unknown member (implies open) */
};

struct json_fault {
    char pointer[160]; /* RFC 6901, "" = the whole document */
    char detail[200];  /* "unknown member", "must be an integer from 5 to 86400" */
};

/* Returns the number of faults found (stored up to room). 0 = valid. */
size_t json_spec_check(const struct json_spec *spec, const json_t *value, struct json_fault *ret_faults, size_t room);
/* Parses text strictly: one value, duplicate keys refused, depth at most max_depth, NUL refused. New reference or NULL with err (pointer ""). */
#include "base/err.h"
json_t *json_parse_strict(const char *text, size_t length, size_t max_depth, struct err *err);

/* Getters that never fail: absent or wrong kind gives the default. Borrowed strings. */
const char *json_str(const json_t *object, const char *key, const char *fallback);
int64_t json_int(const json_t *object, const char *key, int64_t fallback);
bool json_bool(const json_t *object, const char *key, bool fallback);
bool json_has_string(const json_t *array, const char *text);
/* The first object of the array whose member key is that text ("" is also that of one without it); NULL when there is none. Borrowed. */
json_t *json_find(const json_t *array, const char *key, const char *text);
/* object[key] = value, value's reference is taken; aborts on out of memory. The only setter that the house uses. */
void json_put(json_t *object, const char *key, json_t *value);
void json_add(json_t *array, json_t *value);
/* Both setters: a NULL value (json_string refuses text that is not UTF-8) is stored as null. Use json_text for
 * text that comes from outside (file names, messages of other programs): bytes that are not UTF-8 become U+FFFD. */
json_t *json_text(const char *text);
/* Compact JSON and a newline, as replies carry it; malloc'ed. */
char *json_line(const json_t *value);
/* How what is shown is written: 0.922, and not 0.92200000000000004. */
#define JSON_SHOWN (JSON_COMPACT | JSON_REAL_PRECISION(15))
