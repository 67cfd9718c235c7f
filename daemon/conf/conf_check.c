/* The validator: the tables of conf_spec.c, and the rules between members that no table can say. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "conf/conf.h"
#include "conf/conf_spec.h"
#include "conf/listen.h"
#include "conf/yaml_load.h"

enum { FAULTS_AT_ONCE = 64 };

struct check {
    const json_t *config;
    const json_t *lines;
    const char *file;
    json_t *faults;
};

/* --- reporting --- */

/* "/writers/0/command" -> "writers[0].command" */
static void member_text(const char *pointer, char *ret, size_t size)
{
    size_t to = 0;

    for (const char *at = pointer; *at && to + 4 < size;) {
        const char *part = at + 1;
        size_t length = strcspn(part, "/");
        bool index = length > 0 && strspn(part, "0123456789") == length;
        if (!index && to > 0)
            ret[to++] = '.';
        if (index)
            ret[to++] = '[';
        for (size_t i = 0; i < length && to + 3 < size; i++) {
            bool escape = part[i] == '~' && i + 1 < length;
            ret[to++] = !escape ? part[i] : part[++i] == '1' ? '/' : '~';
        }
        if (index)
            ret[to++] = ']';
        at = part + length;
    }
    ret[to] = '\0';
}

static int line_of(const json_t *lines, const char *pointer)
{
    char at[512];

    str_copy(at, sizeof(at), pointer);
    for (;;) { /* what is missing has no line of its own: its parent's */
        json_t *line = json_object_get(lines, at);
        if (line)
            return (int)json_integer_value(line);
        char *slash = strrchr(at, '/');
        if (!slash)
            return 1;
        *slash = '\0';
    }
}

static void report(struct check *check, const char *pointer, const char *reason, const char *hint)
{
    char member[512], place[1024] = "";

    member_text(pointer, member, sizeof(member));
    if (check->file && check->lines)
        str_format(place, sizeof(place), "%s:%d: ", check->file, line_of(check->lines, pointer));
    else if (check->file)
        str_format(place, sizeof(place), "%s: ", check->file);
    AUTO_FREE char *text = str_new("%s%s%s%s%s%s%s", place, member, *member ? ": " : "", reason,
                                   hint && *hint ? " (" : "", hint ? hint : "", hint && *hint ? ")" : "");
    json_t *fault = json_string(text);
    json_add(check->faults, fault ? fault : json_string("a member's name is not UTF-8"));
}

/* --- hints --- */

/* Levenshtein distance, with a bound on the length (names are short). */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 48 };
    size_t row[LONGEST + 1], a_length = strlen(a), b_length = strlen(b);

    if (a_length > LONGEST || b_length > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[b_length];
}

static void known_members(const struct json_spec *spec, const char *unknown, char *ret, size_t size)
{
    const char *nearest = NULL;
    size_t least = strlen(unknown) / 3 + 2;

    for (size_t i = 0; i < spec->n_members; i++) {
        size_t d = distance(unknown, spec->members[i].name);
        if (d < least) {
            least = d;
            nearest = spec->members[i].name;
        }
    }
    if (nearest) {
        str_format(ret, size, "did you mean \"%s\"?", nearest);
        return;
    }
    str_copy(ret, size, "known are:");
    for (size_t i = 0; i < spec->n_members; i++) {
        size_t used = strlen(ret);
        str_format(ret + used, size - used, "%s %s", i ? "," : "", spec->members[i].name);
    }
}

static const struct json_spec *spec_below(const struct json_spec *spec, const char *part)
{
    if (spec->items)
        return spec->items;
    for (size_t i = 0; i < spec->n_members; i++)
        if (strcmp(spec->members[i].name, part) == 0)
            return spec->members[i].spec;
    return spec->values;
}

/* What to do about a fault of a table: the spec at the pointer tells. */
static void table_hint(const struct json_spec *spec, const json_t *value, const char *pointer, char *ret, size_t size)
{
    char parts[sizeof(((struct json_fault *)0)->pointer)];
    char *state = NULL;

    ret[0] = '\0';
    str_copy(parts, sizeof(parts), pointer);
    for (char *part = strtok_r(parts, "/", &state); part; part = strtok_r(NULL, "/", &state)) {
        const struct json_spec *below = spec_below(spec, part);
        int64_t index;
        if (!below) {
            if (!spec->open)
                known_members(spec, part, ret, size);
            return;
        }
        if (json_is_array(value))
            value = str_to_int(part, 0, INT32_MAX, &index) ? json_array_get(value, (size_t)index) : NULL;
        else
            value = json_object_get(value, part);
        spec = below;
    }
    if ((spec->kinds & JSON_KIND_STRING) && (json_is_number(value) || json_is_boolean(value)))
        str_copy(ret, size, "write it in quotes");
    else if ((spec->kinds & JSON_KIND_ARRAY) && value && !json_is_array(value))
        str_copy(ret, size, "write a list: [a, b]");
    else if (spec->format == JSON_FORMAT_PATH && json_is_string(value) && json_string_value(value)[0] != '/')
        str_copy(ret, size, "paths start with /");
}

static void check_table(struct check *check, const struct json_spec *spec, const json_t *value, const char *prefix)
{
    struct json_fault faults[FAULTS_AT_ONCE];
    size_t n = json_spec_check(spec, value, faults, FAULTS_AT_ONCE);

    for (size_t i = 0; i < n && i < FAULTS_AT_ONCE; i++) {
        char hint[256];
        table_hint(spec, value, faults[i].pointer, hint, sizeof(hint));
        AUTO_FREE char *pointer = str_new("%s%s", prefix, faults[i].pointer);
        report(check, pointer, faults[i].detail, hint);
    }
}

static const struct json_spec *kind_spec(const struct conf_kinds *kinds, const json_t *entry)
{
    for (size_t i = 0; i < kinds->n_kinds; i++)
        if (str_eq(kinds->kinds[i].name, json_str(entry, kinds->key, "")))
            return kinds->kinds[i].spec;
    return kinds->unknown;
}

static void check_kinds(struct check *check, const struct conf_kinds *kinds)
{
    size_t i;
    json_t *entry;

    json_array_foreach(json_object_get(check->config, kinds->list), i, entry)
    {
        AUTO_FREE char *prefix = str_new("/%s/%zu", kinds->list, i);
        check_table(check, kind_spec(kinds, entry), entry, prefix);
    }
}

/* --- rules between members; each looks only at what has the right type --- */

static void check_unique(struct check *check, const char *list)
{
    AUTO_JSON json_t *seen = json_object();
    size_t i;
    json_t *entry;

    json_array_foreach(json_object_get(check->config, list), i, entry)
    {
        const char *name = json_str(entry, "name", NULL);
        if (!name)
            continue;
        AUTO_FREE char *pointer = str_new("/%s/%zu/name", list, i);
        if (json_object_get(seen, name))
            report(check, pointer, "the name is taken by an entry above", "names must be unique");
        json_put(seen, name, json_true());
    }
}

static void check_listen(struct check *check)
{
    size_t i;
    json_t *address;

    json_array_foreach(json_object_get(check->config, "listen"), i, address)
    {
        struct listen_address parsed;
        struct err err = {0};
        AUTO_FREE char *pointer = str_new("/listen/%zu", i);
        if (json_is_string(address) && listen_parse(json_string_value(address), &parsed, &err) != 0)
            report(check, pointer, err.text, err.hint);
    }
}

static void check_tls(struct check *check)
{
    const json_t *tls = json_object_get(check->config, "tls");
    const char *certificate = json_str(tls, "certificate", NULL), *key = json_str(tls, "key", NULL);
    size_t i;
    json_t *name;

    if (!certificate != !key)
        report(check, certificate ? "/tls/certificate" : "/tls/key",
               certificate ? "needs tls.key" : "needs tls.certificate", "give both, or neither to use the private CA");
    json_array_foreach(json_object_get(tls, "hostnames"), i, name)
    {
        AUTO_FREE char *pointer = str_new("/tls/hostnames/%zu", i);
        const char *text = json_is_string(name) ? json_string_value(name) : "a";
        if (strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_*:") != strlen(text))
            report(check, pointer, "not a host name", "a DNS name or a numeric address, without a port");
    }
}

static void check_writers(struct check *check)
{
    size_t i;
    json_t *writer;

    json_array_foreach(json_object_get(check->config, "writers"), i, writer)
    {
        const char *connection = json_str(writer, "connection", "");
        const json_t *command = json_array_get(json_object_get(writer, "command"), 0);
        if (json_is_string(command) && !path_is_canonical(json_string_value(command))) {
            AUTO_FREE char *pointer = str_new("/writers/%zu/command/0", i);
            report(check, pointer, "must be an absolute path", "no shell and no PATH search is involved");
        }
        if (strstr(connection, "password") || strstr(connection, "://")) {
            AUTO_FREE char *pointer = str_new("/writers/%zu/connection", i);
            report(check, pointer, "must hold no password and be no URL",
                   "use keywords; secrets only by reference: passfile=/path, or peer authentication with user");
        }
    }
}

static void check_repositories(struct check *check)
{
    size_t i;
    json_t *repository;

    json_array_foreach(json_object_get(check->config, "repositories"), i, repository)
    {
        AUTO_FREE char *pointer = str_new("/repositories/%zu", i);
        if (str_eq(json_str(repository, "mover", ""), "restic") &&
            !json_object_get(repository, "path") == !json_object_get(repository, "url"))
            report(check, pointer, "needs exactly one of path and url", "url: what follows restic's -r");
    }
}

static void check_principals(struct check *check)
{
    size_t i;
    json_t *principal;

    json_array_foreach(json_object_get(check->config, "principals"), i, principal)
    {
        const char *hash = json_str(principal, "token_sha256", NULL);
        AUTO_FREE char *pointer = str_new("/principals/%zu", i);
        if (json_is_object(principal) && !hash == !json_object_get(principal, "certificate"))
            report(check, pointer, "needs exactly one of token_sha256 and certificate", NULL);
        if (hash && strspn(hash, "0123456789abcdefABCDEF") != strlen(hash)) {
            AUTO_FREE char *below = str_new("%s/token_sha256", pointer);
            report(check, below, "must be hexadecimal", "printf %s TOKEN | sha256sum");
        }
    }
}

static void check_run_as(struct check *check)
{
    static const char *const refused[] = {"root", "nobody"};
    const json_t *run_as = json_object_get(check->config, "run_as");
    const char *front = json_str(run_as, "front", NULL), *core = json_str(run_as, "core", NULL);

    if (front && str_eq(front, core))
        report(check, "/run_as/core", "is the same user as run_as.front", "each role needs a user of its own");
    for (size_t i = 0; i < ELEMENTS(refused); i++) {
        if (str_eq(front, refused[i]))
            report(check, "/run_as/front", "must be a system user of its own", "for example quiesced-front");
        if (str_eq(core, refused[i]))
            report(check, "/run_as/core", "must be a system user of its own", "for example quiesced");
    }
}

static void check_names(struct check *check)
{
    static const char *const lists[] = {"writers", "repositories"};

    for (size_t i = 0; i < ELEMENTS(lists); i++)
        check_unique(check, lists[i]);
}

json_t *conf_faults(const json_t *config, const json_t *lines, const char *file)
{
    static void (*const rules[])(struct check *) = {check_names,        check_listen,     check_tls,   check_writers,
                                                    check_repositories, check_principals, check_run_as};
    struct check check = {.config = config, .lines = lines, .file = file, .faults = json_array()};

    check_table(&check, &conf_spec, config, "");
    for (size_t i = 0; i < conf_n_kinds; i++)
        check_kinds(&check, &conf_kinds[i]);
    for (size_t i = 0; i < ELEMENTS(rules); i++)
        rules[i](&check);
    return check.faults;
}
