#include "cli/answer.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/hint.h"

enum { COLUMNS_MAX = 12, PAGE = 100, CELL_SIZE = 96 };

int answer_exit(int status)
{
    static const struct {
        int from, to;
        enum ctl_exit code;
    } rows[] = {
        {200, 399, CTL_OK},        {401, 401, CTL_REFUSED},   {403, 403, CTL_REFUSED},   {404, 404, CTL_NOT_THERE},
        {410, 410, CTL_NOT_THERE}, {409, 409, CTL_BAD_STATE}, {412, 412, CTL_BAD_STATE}, {422, 422, CTL_BAD_STATE},
        {428, 428, CTL_BAD_STATE}, {429, 429, CTL_DAEMON},    {500, 599, CTL_DAEMON},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (status >= rows[i].from && status <= rows[i].to)
            return rows[i].code;
    return CTL_BAD_ARGUMENT;
}

/* What a JSON pointer (RFC 6901) names: names of members here have neither "/" nor "~". NULL: nothing. */
static const json_t *pointed_at(const json_t *value, const char *pointer)
{
    while (value && *pointer == '/') {
        size_t length = strcspn(++pointer, "/");
        AUTO_FREE char *name = str_new("%.*s", (int)length, pointer);
        int64_t index = 0;
        value = json_is_array(value) && str_to_int(name, 0, INT32_MAX, &index) ? json_array_get(value, (size_t)index) : json_object_get(value, name);
        pointer += length;
    }
    return value;
}

/* Which of the values was refused: " (VALUE)", or "" when it is no short one, was not there, or may be a secret. */
static char *value_at(const json_t *sent, const char *pointer)
{
    enum { LONGEST = 200 };
    static const char *const secrets[] = {"secret", "password", "code", "key", "environment"};
    const json_t *value = *pointer == '/' ? pointed_at(sent, pointer) : NULL;
    for (size_t i = 0; i < ELEMENTS(secrets); i++)
        if (strstr(pointer, secrets[i]))
            value = NULL;
    if (!value || json_is_object(value) || json_is_array(value))
        return str_dup("");
    AUTO_FREE char *text = json_is_string(value) ? str_dup(json_string_value(value)) : json_dumps(value, JSON_ENCODE_ANY);
    for (char *c = text; *c; c++)
        *c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
    return strlen(text) > LONGEST ? str_dup("") : str_new(" (%s)", text);
}

/* Each fault of the call, with what was given there. */
static bool tell_faults(const struct reply *reply)
{
    const json_t *faults = json_object_get(reply->body, "errors"), *fault;
    size_t i;
    if (json_array_size(faults) > 1)
        fprintf(stderr, "quiescectl: %zu things are not as they should be:\n", json_array_size(faults));
    json_array_foreach(faults, i, fault)
    {
        const char *pointer = json_str(fault, "pointer", "");
        AUTO_FREE char *value = value_at(reply->sent, pointer);
        fprintf(stderr, "%s%s%s%s%s\n", json_array_size(faults) > 1 ? "  " : "quiescectl: ", pointer, value, *pointer ? ": " : "", json_str(fault, "detail", ""));
    }
    return json_array_size(faults) > 0;
}

int answer_check(const struct reply *reply)
{
    int code = answer_exit(reply->status);
    if (code == CTL_OK)
        return code;
    const json_t *body = reply->body;
    if (!tell_faults(reply))
        fprintf(stderr, "quiescectl: %s\n", json_str(body, "detail", reply->text[0] ? reply->text : "the daemon refuses"));
    hint_print(stderr, json_str(body, "hint", ""));
    fprintf(stderr, "  (%d %s, request %s)\n", reply->status, json_str(body, "hresult", ""), json_str(body, "request_id", "unknown"));
    return code;
}

void answer_print(const json_t *body)
{
    AUTO_FREE char *text = body ? json_dumps(body, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15)) : NULL;
    puts(text ? text : "null");
}

int answer_call(struct ctl *ctl, const char *method, const char *path, const json_t *body, answer_show_fn show)
{
    struct err err;
    struct reply reply;
    if (client_call(ctl->client, method, path, body, NULL, &reply, &err) != 0)
        return ctl_unreached(&err);
    int code = answer_check(&reply);
    if (code == CTL_OK && (ctl->json || (reply.body && !show)))
        answer_print(reply.body);
    else if (code == CTL_OK && reply.body)
        show(reply.body);
    reply_clear(&reply);
    return code;
}

/* --- words --- */

const char *amount_text(int64_t bytes, char ret[AMOUNT_SIZE])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double amount = (double)bytes;
    size_t unit = 0;
    while (amount >= 1024 && unit + 1 < ELEMENTS(units)) {
        amount /= 1024;
        unit++;
    }
    if (bytes < 0)
        str_copy(ret, AMOUNT_SIZE, "?");
    else
        str_format(ret, AMOUNT_SIZE, unit == 0 || amount >= 100 ? "%.0f %s" : "%.1f %s", amount, units[unit]);
    return ret;
}

int64_t time_of(const char *rfc3339)
{
    int64_t at = clock_from_rfc3339(rfc3339);
    return at < 0 ? -1 : at / 1000;
}

const char *age_text(const char *rfc3339, char ret[AGE_SIZE])
{
    static const struct {
        int64_t seconds;
        const char *word;
    } units[] = {{86400, "days"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    int64_t at = time_of(rfc3339);
    if (at < 0) {
        str_copy(ret, AGE_SIZE, "-");
        return ret;
    }
    int64_t age = (int64_t)time(NULL) - at, whole = age < 0 ? -age : age;
    size_t unit = 0;
    while (unit + 1 < ELEMENTS(units) && whole < 2 * units[unit].seconds)
        unit++;
    str_format(ret, AGE_SIZE, age < 0 ? "in %lld %s" : "%lld %s ago", (long long)(whole / units[unit].seconds), units[unit].word);
    return ret;
}

/* --- tables --- */

static const json_t *member(const json_t *row, const char *path)
{
    char name[64];
    const char *dot = strchr(path, '.');
    if (!dot)
        return json_object_get(row, path);
    str_format(name, sizeof(name), "%.*s", (int)(dot - path), path);
    return member(json_object_get(row, name), dot + 1);
}

static void cell(const json_t *row, const char *column, char ret[CELL_SIZE])
{
    char words[AMOUNT_SIZE];
    const json_t *value = member(row, column + (*column == '@' || *column == '#'));
    if (*column == '@')
        str_copy(ret, CELL_SIZE, age_text(json_string_value(value), words));
    else if (*column == '#')
        str_copy(ret, CELL_SIZE, json_is_integer(value) ? amount_text(json_integer_value(value), words) : "-");
    else if (json_is_string(value) && json_string_length(value) > 0)
        str_copy(ret, CELL_SIZE, json_string_value(value));
    else if (json_is_boolean(value))
        str_copy(ret, CELL_SIZE, json_is_true(value) ? "yes" : "no");
    else if (json_is_integer(value))
        str_format(ret, CELL_SIZE, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        str_format(ret, CELL_SIZE, json_real_value(value) < 10 ? "%.1f" : "%.0f", json_real_value(value));
    else
        str_copy(ret, CELL_SIZE, "-");
    for (char *c = ret; *c; c++) /* names are other people's: no control characters for the terminal */
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

static const char *heading(const char *column)
{
    const char *name = column + (*column == '@' || *column == '#'), *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

void table_print(const json_t *items, const char *const *columns)
{
    size_t widths[COLUMNS_MAX] = {0}, n = 0, i;
    const json_t *row;
    char text[CELL_SIZE];
    for (; columns[n] && n < COLUMNS_MAX; n++)
        widths[n] = strlen(heading(columns[n]));
    json_array_foreach(items, i, row)
        for (size_t k = 0; k < n; k++) {
            cell(row, columns[k], text);
            widths[k] = strlen(text) > widths[k] ? strlen(text) : widths[k];
        }
    for (size_t k = 0; k < n; k++) {
        str_copy(text, sizeof(text), heading(columns[k]));
        for (char *c = text; *c; c++)
            *c = (char)(*c == '_' ? ' ' : *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
        printf("%-*s%s", k + 1 < n ? (int)widths[k] : 0, text, k + 1 < n ? "  " : "\n");
    }
    json_array_foreach(items, i, row)
        for (size_t k = 0; k < n; k++) {
            cell(row, columns[k], text);
            printf("%-*s%s", k + 1 < n ? (int)widths[k] : 0, text, k + 1 < n ? "  " : "\n");
        }
}

static char *page_path(const char *path, const json_t *filters, const char *cursor, int limit)
{
    const char *key;
    json_t *value;
    char *whole = str_new("%s?limit=%d", path, limit);
    if (limit == 0) { /* a list that has no pages */
        free(whole);
        whole = str_new("%s", path);
    }
    json_object_foreach((json_t *)(uintptr_t)filters, key, value)
    {
        AUTO_FREE char *text = json_is_string(value) ? str_dup(json_string_value(value)) : json_dumps(value, JSON_ENCODE_ANY);
        AUTO_FREE char *escaped = client_escape(text), *before = whole;
        whole = str_new("%s%s%s=%s", before, strchr(before, '?') ? "&" : "?", key, escaped);
    }
    if (cursor) {
        AUTO_FREE char *escaped = client_escape(cursor), *before = whole;
        whole = str_new("%s&cursor=%s", before, escaped);
    }
    return whole;
}

int answer_list(struct ctl *ctl, const char *path, const json_t *filters, const char *const *columns)
{
    AUTO_JSON json_t *all = json_array();
    AUTO_FREE char *cursor = NULL;
    bool paged = path[0] != '=';
    do {
        struct err err;
        struct reply reply;
        int room = ctl->limit - (int)json_array_size(all);
        AUTO_FREE char *page = page_path(path + !paged, filters, cursor, !paged ? 0 : room < PAGE ? room : PAGE);
        if (client_call(ctl->client, "GET", page, NULL, NULL, &reply, &err) != 0)
            return ctl_unreached(&err);
        int code = answer_check(&reply);
        const json_t *items = json_is_array(reply.body) ? reply.body : json_object_get(reply.body, "items");
        json_array_extend(all, (json_t *)(uintptr_t)items);
        free(cursor);
        cursor = str_dup(json_str(reply.body, "next_cursor", NULL));
        reply_clear(&reply);
        if (code != CTL_OK)
            return code;
    } while (cursor && paged && (int)json_array_size(all) < ctl->limit);
    if (ctl->json)
        answer_print(all);
    else if (json_array_size(all) == 0)
        fprintf(stderr, "none\n");
    else
        table_print(all, columns);
    if (cursor && !ctl->json)
        fprintf(stderr, "there are more: --limit N shows them\n");
    return CTL_OK;
}
