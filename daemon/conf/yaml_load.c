#include "conf/yaml_load.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

struct reader {
    yaml_parser_t parser;
    const char *name;
    json_t *lines;
    size_t nodes;
    struct err *err;
};

__attribute__((format(printf, 4, 5))) static int fail(struct reader *reader, const yaml_mark_t *mark, const char *hint,
                                                      const char *fmt, ...)
{
    char reason[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(reason, sizeof(reason), fmt, args);
    va_end(args);
    return err_set(reader->err, E_INVALIDARG, hint, "%s:%zu: %s", reader->name, mark->line + 1, reason);
}

static int next(struct reader *reader, yaml_event_t *ret)
{
    const yaml_parser_t *parser = &reader->parser;

    if (yaml_parser_parse(&reader->parser, ret))
        return 0;
    yaml_mark_t mark = parser->problem_mark;
    if (parser->error == YAML_READER_ERROR) { /* no mark then, only a byte offset */
        mark = parser->mark;
        return fail(reader, &mark, "The file must be UTF-8 text.", "%s",
                    parser->problem ? parser->problem : "unreadable");
    }
    return fail(reader, &mark, parser->context ? parser->context : "", "%s",
                parser->problem ? parser->problem : "not YAML");
}

char *yaml_pointer_to(const char *parent, const char *part)
{
    char *pointer = mem_new(strlen(parent) + 2 * strlen(part) + 2);
    size_t to = strlen(parent);

    memcpy(pointer, parent, to);
    pointer[to++] = '/';
    for (; *part; part++) {
        if (*part == '~' || *part == '/') {
            pointer[to++] = '~';
            pointer[to++] = *part == '~' ? '0' : '1';
        } else {
            pointer[to++] = *part;
        }
    }
    return pointer;
}

/* --- plain scalars: YAML 1.2, 10.3.2 --- */

static const struct word_row {
    const char *word;
    json_type type;
} word_rows[] = {
    {"", JSON_NULL},       {"~", JSON_NULL},      {"null", JSON_NULL},   {"Null", JSON_NULL},
    {"NULL", JSON_NULL},   {"true", JSON_TRUE},   {"True", JSON_TRUE},   {"TRUE", JSON_TRUE},
    {"false", JSON_FALSE}, {"False", JSON_FALSE}, {"FALSE", JSON_FALSE},
};

static json_t *plain_integer(const char *text)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    int base = str_starts(text, "0x") ? 16 : str_starts(text, "0o") ? 8 : 10;
    const char *number = base == 10 ? text + (*text == '-' || *text == '+') : text + 2;
    size_t length = strlen(number);
    const char *allowed = base == 16 ? digits : base == 8 ? "01234567" : "0123456789";

    if (length == 0 || strspn(number, allowed) != length)
        return NULL;
    errno = 0;
    long long value = strtoll(base == 10 ? text : number, NULL, base);
    return errno == 0 ? json_integer(value) : NULL;
}

static json_t *plain_real(const char *text)
{
    const char *at = text + (*text == '-' || *text == '+');
    size_t whole = strspn(at, "0123456789"), fraction = 0;

    at += whole;
    if (*at == '.')
        at += 1 + (fraction = strspn(at + 1, "0123456789"));
    if (whole + fraction == 0)
        return NULL;
    if (*at == 'e' || *at == 'E') {
        at++;
        at += *at == '-' || *at == '+';
        size_t exponent = strspn(at, "0123456789");
        if (exponent == 0)
            return NULL;
        at += exponent;
    }
    return *at == '\0' ? json_real(strtod(text, NULL)) : NULL; /* json_real refuses infinities: stays a string */
}

static json_t *plain_scalar(const char *text)
{
    json_t *value;

    for (size_t i = 0; i < ELEMENTS(word_rows); i++)
        if (strcmp(word_rows[i].word, text) == 0)
            return word_rows[i].type == JSON_NULL ? json_null() : json_boolean(word_rows[i].type == JSON_TRUE);
    if ((value = plain_integer(text)) || (value = plain_real(text)))
        return value;
    return json_string(text);
}

static int scalar(struct reader *reader, const yaml_event_t *event, json_t **ret)
{
    const char *text = (const char *)event->data.scalar.value;

    if (strlen(text) != event->data.scalar.length)
        return fail(reader, &event->start_mark, NULL, "a NUL character in a value");
    *ret = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_scalar(text) : json_string(text);
    return *ret ? 0 : fail(reader, &event->start_mark, "The file must be UTF-8 text.", "not UTF-8");
}

/* --- collections --- */

static int node(struct reader *reader, const yaml_event_t *event, const char *pointer, int depth, json_t **ret);

static int sequence(struct reader *reader, const char *pointer, int depth, json_t **ret)
{
    AUTO_JSON json_t *array = json_array();

    for (;;) {
        yaml_event_t event;
        if (next(reader, &event) != 0)
            return -1;
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        AUTO_FREE char *index = str_new("%zu", json_array_size(array));
        AUTO_FREE char *below = yaml_pointer_to(pointer, index);
        json_t *item = NULL;
        int result = end ? 0 : node(reader, &event, below, depth + 1, &item);
        yaml_event_delete(&event);
        if (result != 0)
            return -1;
        if (end)
            break;
        json_add(array, item);
    }
    *ret = TAKE_PTR(array);
    return 0;
}

static int mapping_key(struct reader *reader, const yaml_event_t *event, const char *pointer, char **ret_key)
{
    if (event->type != YAML_SCALAR_EVENT || event->data.scalar.anchor || event->data.scalar.tag)
        return fail(reader, &event->start_mark, "Write plain words as names.", "a member's name must be a plain word");
    const char *text = (const char *)event->data.scalar.value;
    if (strlen(text) != event->data.scalar.length)
        return fail(reader, &event->start_mark, NULL, "a NUL character in a name");
    AUTO_FREE char *below = yaml_pointer_to(pointer, text);
    json_t *before = json_object_get(reader->lines, below);
    if (before)
        return fail(reader, &event->start_mark, "Keep one of the two.", "%.100s: given twice, first on line %d", text,
                    (int)json_integer_value(before));
    *ret_key = str_dup(text);
    return 0;
}

static int mapping(struct reader *reader, const char *pointer, int depth, json_t **ret)
{
    AUTO_JSON json_t *object = json_object();

    for (;;) {
        yaml_event_t event;
        AUTO_FREE char *key = NULL;
        if (next(reader, &event) != 0)
            return -1;
        bool end = event.type == YAML_MAPPING_END_EVENT;
        int result = end ? 0 : mapping_key(reader, &event, pointer, &key);
        yaml_mark_t at = event.start_mark;
        yaml_event_delete(&event);
        if (result != 0)
            return -1;
        if (end)
            break;
        AUTO_FREE char *below = yaml_pointer_to(pointer, key);
        json_put(reader->lines, below, json_integer((json_int_t)at.line + 1));
        if (next(reader, &event) != 0)
            return -1;
        json_t *value = NULL;
        result = node(reader, &event, below, depth + 1, &value);
        yaml_event_delete(&event);
        if (result != 0)
            return -1;
        if (json_is_null(value))
            json_decref(value);
        else
            json_put(object, key, value);
    }
    *ret = TAKE_PTR(object);
    return 0;
}

static int node(struct reader *reader, const yaml_event_t *event, const char *pointer, int depth, json_t **ret)
{
    const yaml_mark_t *mark = &event->start_mark;
    const yaml_char_t *anchor = NULL, *tag = NULL;

    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    if (event->type == YAML_ALIAS_EVENT || anchor)
        return fail(reader, mark, "Write the value out.", "anchors and aliases are not supported");
    if (tag)
        return fail(reader, mark, "Leave it out.", "tags are not supported");
    if (depth > YAML_DEPTH_MAX)
        return fail(reader, mark, NULL, "nested deeper than %d levels", YAML_DEPTH_MAX);
    if (++reader->nodes > YAML_NODES_MAX)
        return fail(reader, mark, NULL, "more than %d values", YAML_NODES_MAX);
    if (!json_object_get(reader->lines, pointer))
        json_put(reader->lines, pointer, json_integer((json_int_t)mark->line + 1));
    if (event->type == YAML_SCALAR_EVENT)
        return scalar(reader, event, ret);
    return event->type == YAML_SEQUENCE_START_EVENT ? sequence(reader, pointer, depth, ret)
                                                    : mapping(reader, pointer, depth, ret);
}

/* stream start, document start, one node, document end, stream end */
static int document(struct reader *reader, json_t **ret)
{
    AUTO_JSON json_t *value = NULL;

    for (;;) {
        yaml_event_t event;
        int result = 0;
        if (next(reader, &event) != 0)
            return -1;
        yaml_event_type_t type = event.type;
        if (type == YAML_DOCUMENT_START_EVENT && value)
            result = fail(reader, &event.start_mark, "Use one file for each.", "a second document");
        else if (type != YAML_STREAM_START_EVENT && type != YAML_STREAM_END_EVENT &&
                 type != YAML_DOCUMENT_START_EVENT && type != YAML_DOCUMENT_END_EVENT)
            result = node(reader, &event, "", 0, &value);
        yaml_event_delete(&event);
        if (result != 0)
            return -1;
        if (type == YAML_STREAM_END_EVENT)
            break;
    }
    *ret = value && !json_is_null(value) ? TAKE_PTR(value) : json_object();
    return 0;
}

int yaml_load(const char *text, size_t size, const char *name, json_t **ret, json_t **ret_lines, struct err *err)
{
    struct reader reader = {.name = name, .lines = json_object(), .err = err};

    if (size > YAML_SIZE_MAX) {
        json_decref(reader.lines);
        return err_set(err, E_INVALIDARG, NULL, "%s: larger than %d bytes", name, YAML_SIZE_MAX);
    }
    if (!yaml_parser_initialize(&reader.parser))
        abort();
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, size);
    int result = document(&reader, ret);
    yaml_parser_delete(&reader.parser);
    if (result == 0)
        *ret_lines = reader.lines;
    else
        json_decref(reader.lines);
    return result;
}
