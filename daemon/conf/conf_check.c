/* The validator: the tables of conf_spec.c, and the rules between members that no table can say. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "conf/conf.h"
#include "conf/conf_spec.h"
#include "conf/known_tokens.h"
#include "conf/listen.h"
#include "conf/yaml_load.h"
#include "model/addresses.h"

enum { FAULTS_AT_ONCE = 64 };

struct check {
    const json_t *config;
    const json_t *lines;
    const char *file;
    json_t *faults;
    struct err *first; /* NULL, or the first of them, with its pointer */
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
    if (check->first && json_array_size(check->faults) == 0) {
        err_invalid(check->first, pointer, "%s", reason);
        str_copy(check->first->hint, sizeof(check->first->hint), hint ? hint : "");
    }
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
    if (json_object_get(tls, "client_crl") && !json_object_get(tls, "client_ca"))
        report(check, "/tls/client_crl", "needs tls.client_ca", "the private CA's certificates are revoked over the API");
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
        bool reached = !json_object_get(writer, "socket") != !json_object_get(writer, "host");
        const char *type = json_str(writer, "type", "");
        if ((str_eq(type, "mariadb") || str_eq(type, "redis")) && !reached) {
            AUTO_FREE char *pointer = str_new("/writers/%zu", i);
            report(check, pointer, "needs exactly one of socket and host",
                   "a server of this machine is best reached by its socket");
        }
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

/* "rest:http://user:secret@host/": is there something between colon and at? */
static bool holds_password(const char *url)
{
    const char *place = strstr(url, "://");
    if (!place)
        return false;
    place += 3;
    const char *at = memrchr(place, '@', strcspn(place, "/"));
    return at && memchr(place, ':', (size_t)(at - place));
}

static void check_restic(struct check *check, const json_t *repository, const char *pointer)
{
    static const char *const places[] = {"path", "url", "url_file"};
    size_t given = 0;
    for (size_t i = 0; i < ELEMENTS(places); i++)
        given += json_object_get(repository, places[i]) != NULL;
    if (given != 1)
        report(check, pointer, "needs exactly one of path, url and url_file", "url: what follows restic's -r; url_file: a file that holds it");
}

static void check_borg(struct check *check, const json_t *repository, const char *pointer)
{
    const char *url = json_str(repository, "url", NULL);
    AUTO_FREE char *at_url = str_new("%s/url", pointer);
    AUTO_FREE char *at_rate = str_new("%s/limits/bandwidth_bytes_per_second", pointer);
    if (!json_object_get(repository, "path") == !json_object_get(repository, "url"))
        report(check, pointer, "needs exactly one of path and url", "url: ssh://user@host/path");
    if (url && !str_starts(url, "ssh://"))
        report(check, at_url, "must be ssh://[user@]host[:port]/path", "a repository on this host is a path");
    if (!url && json_object_get(json_object_get(repository, "limits"), "bandwidth_bytes_per_second"))
        report(check, at_rate, "needs a url", "borg limits only what it sends elsewhere; for a disk of this host there is io_class");
}

/* What quiesced itself would have to encrypt, it does not: docs/movers/archive.md. */
static void check_encrypt(struct check *check, const json_t *repository, const char *pointer)
{
    const json_t *encrypt = json_object_get(repository, "encrypt");
    bool archive = str_eq(json_str(repository, "mover", ""), "archive");
    AUTO_FREE char *below = str_new("%s/encrypt", pointer);
    if (archive && json_is_true(encrypt))
        report(check, below, "archives are not encrypted", "use the mover restic or borg: they encrypt all that they store");
    if (!archive && json_is_false(encrypt))
        report(check, below, "restic and borg encrypt always", "the mover archive does not");
}

const char *conf_repository_place(const json_t *repository)
{
    const char *path = json_str(repository, "path", NULL), *url = json_str(repository, "url", NULL);
    if (!path && url && str_starts(url, "local:")) /* restic's word for a path */
        url += strlen("local:");
    if (!path)
        path = url;
    return path && path_is_canonical(path) ? path : NULL;
}

const json_t *conf_repository_shares(const json_t *repository, const json_t *others, size_t n)
{
    const char *path = conf_repository_place(repository);
    for (size_t i = 0; path && i < n; i++) {
        const json_t *other = json_array_get(others, i);
        const char *theirs = conf_repository_place(other);
        if (theirs && !str_eq(json_str(other, "name", ""), json_str(repository, "name", "")) &&
            (path_beneath(path, theirs) || path_beneath(theirs, path)))
            return other;
    }
    return NULL;
}

const char *conf_root_within(const json_t *roots, const json_t *repository)
{
    const char *path = conf_repository_place(repository);
    size_t i;
    const json_t *root;
    json_array_foreach(roots, i, root)
        if (path && json_is_string(root) && path_beneath(json_string_value(root), path))
            return json_string_value(root);
    return NULL;
}

/* Two in one place, or one within another, would take each other's files for their own; a restore would write over backups. */
static void check_places(struct check *check, const json_t *repository, size_t at)
{
    const json_t *repositories = json_object_get(check->config, "repositories");
    const json_t *roots = json_object_get(json_object_get(check->config, "restore"), "roots");
    const json_t *other = conf_repository_shares(repository, repositories, at);
    size_t i;
    const json_t *root;
    if (other) {
        AUTO_FREE char *pointer = str_new("/repositories/%zu/%s", at, json_object_get(repository, "path") ? "path" : "url");
        AUTO_FREE char *reason = str_new("%s and %s, the path of repository %s, are the same or one within the other", conf_repository_place(repository),
                                         conf_repository_place(other), json_str(other, "name", ""));
        report(check, pointer, reason, "each repository needs a directory of its own");
    }
    json_array_foreach(roots, i, root)
    {
        const char *path = conf_repository_place(repository);
        if (!path || !json_is_string(root) || !path_beneath(json_string_value(root), path))
            continue;
        AUTO_FREE char *pointer = str_new("/restore/roots/%zu", i);
        AUTO_FREE char *reason = str_new("%s lies in the repository %s", json_string_value(root), json_str(repository, "name", ""));
        report(check, pointer, reason, "a restore would write among the backups: name another directory");
    }
}

static void check_repositories(struct check *check)
{
    size_t i;
    json_t *repository;

    json_array_foreach(json_object_get(check->config, "repositories"), i, repository)
    {
        const char *mover = json_str(repository, "mover", "");
        const json_t *limits = json_object_get(repository, "limits");
        AUTO_FREE char *pointer = str_new("/repositories/%zu", i);
        AUTO_FREE char *at_url = str_new("%s/url", pointer);
        AUTO_FREE char *at_priority = str_new("%s/limits/io_priority", pointer);
        if (str_eq(mover, "restic"))
            check_restic(check, repository, pointer);
        if (str_eq(mover, "borg"))
            check_borg(check, repository, pointer);
        check_encrypt(check, repository, pointer);
        check_places(check, repository, i);
        if (holds_password(json_str(repository, "url", "")))
            report(check, at_url, "must hold no password", "secrets only by reference: restic's url_file, or ssh keys");
        if (str_eq(json_str(limits, "io_class", ""), "idle") && json_object_get(limits, "io_priority"))
            report(check, at_priority, "means nothing with io_class idle", "leave it out, or take best-effort");
    }
}

static void check_hash(struct check *check, const char *principal, const char *hash)
{
    AUTO_FREE char *pointer = str_new("%s/token_sha256", principal);
    const char *word = known_token(hash);
    if (strspn(hash, "0123456789abcdefABCDEF") != strlen(hash))
        report(check, pointer, "must be hexadecimal", "printf %s TOKEN | sha256sum");
    if (!word)
        return;
    AUTO_FREE char *reason = *word ? str_new("is the SHA-256 of the word \"%s\": anybody would guess this token", word)
                                   : str_new("is the SHA-256 of nothing at all");
    report(check, pointer, reason, "make a token with openssl rand -hex 32 | tr -d '\\n' > FILE, and its hash with sha256sum FILE");
}

static void check_principals(struct check *check)
{
    static const char *const credentials[] = {"token_sha256", "certificate", "user", "group"};
    size_t i;
    json_t *principal;

    json_array_foreach(json_object_get(check->config, "principals"), i, principal)
    {
        size_t given = 0;
        for (size_t k = 0; k < ELEMENTS(credentials); k++)
            given += json_object_get(principal, credentials[k]) != NULL;
        const char *hash = json_str(principal, "token_sha256", NULL);
        AUTO_FREE char *pointer = str_new("/principals/%zu", i);
        if (json_is_object(principal) && given != 1)
            report(check, pointer, "needs exactly one of token_sha256, certificate, user and group", NULL);
        if (json_object_get(principal, "paths") && !str_eq(json_str(principal, "role", ""), "operator")) {
            AUTO_FREE char *below = str_new("%s/paths", pointer);
            report(check, below, "is for the role operator alone", "Who is confined to paths may take snapshots of these, and nothing else.");
        }
        if (hash)
            check_hash(check, pointer, hash);
    }
}

static void check_run_as(struct check *check)
{
    static const char *const refused[] = {"root", "nobody"};
    const json_t *run_as = json_object_get(check->config, "run_as");
    const char *front = json_str(run_as, "front", NULL), *core = json_str(run_as, "core", NULL);
    const char *courier = json_str(run_as, "courier", NULL);

    if (front && str_eq(front, core))
        report(check, "/run_as/core", "is the same user as run_as.front", "each role needs a user of its own");
    if (courier && (str_eq(courier, front) || str_eq(courier, core)))
        report(check, "/run_as/courier", "is the user of another role", "each role needs a user of its own");
    for (size_t i = 0; i < ELEMENTS(refused); i++) {
        if (str_eq(front, refused[i]))
            report(check, "/run_as/front", "must be a system user of its own", "for example quiesced-front");
        if (str_eq(core, refused[i]))
            report(check, "/run_as/core", "must be a system user of its own", "for example quiesced");
        if (str_eq(courier, refused[i]))
            report(check, "/run_as/courier", "must be a system user of its own", "for example quiesced-courier");
    }
}

static void check_webhooks(struct check *check)
{
    size_t i;
    const json_t *block;

    json_array_foreach(json_object_get(json_object_get(check->config, "webhooks"), "allow_private"), i, block)
    {
        char below[64];
        str_format(below, sizeof(below), "/webhooks/allow_private/%zu", i);
        if (json_is_string(block) && !address_block_valid(json_string_value(block)))
            report(check, below, "must be an address or a block of addresses", "for example 10.0.0.0/8");
    }
}

static void check_names(struct check *check)
{
    static const char *const lists[] = {"writers", "repositories"};

    for (size_t i = 0; i < ELEMENTS(lists); i++)
        check_unique(check, lists[i]);
}

int conf_repository_check(const json_t *repository, struct err *err)
{
    static const char list[] = "/repositories/0";
    struct err first = {0};
    AUTO_JSON json_t *config = json_pack("{s:[O]}", "repositories", repository);
    AUTO_JSON json_t *faults = json_array();
    struct check check = {.config = config, .faults = faults, .first = &first};

    for (size_t i = 0; i < conf_n_kinds; i++)
        check_kinds(&check, &conf_kinds[i]);
    check_repositories(&check);
    if (json_array_size(faults) == 0)
        return 0;
    const char *below = first.pointer + (str_starts(first.pointer, list) ? strlen(list) : 0);
    err_invalid(err, below, "repository %s: %s%s%s", json_str(repository, "name", ""), *below ? below + 1 : "", *below ? ": " : "", first.text);
    if (err)
        str_copy(err->hint, sizeof(err->hint), first.hint);
    return -1;
}

json_t *conf_faults(const json_t *config, const json_t *lines, const char *file)
{
    static void (*const rules[])(struct check *) = {check_names,        check_listen,     check_tls,   check_writers,
                                                    check_repositories, check_principals, check_run_as, check_webhooks};
    struct check check = {.config = config, .lines = lines, .file = file, .faults = json_array()};

    check_table(&check, &conf_spec, config, "");
    for (size_t i = 0; i < conf_n_kinds; i++)
        check_kinds(&check, &conf_kinds[i]);
    for (size_t i = 0; i < ELEMENTS(rules); i++)
        rules[i](&check);
    return check.faults;
}

json_t *conf_file_faults(const json_t *config, const json_t *lines, const char *file)
{
    static const char *const names[] = {"certificate", "key", "client_ca", "client_crl"};
    struct check check = {.config = config, .lines = lines, .file = file, .faults = json_array()};

    for (size_t i = 0; i < ELEMENTS(names); i++) {
        const char *path = json_str(json_object_get(config, "tls"), names[i], NULL);
        AUTO_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
        if (!path || fd >= 0)
            continue;
        int why = errno;
        AUTO_FREE char *reason = str_new("cannot open %s: %s", path, strerror(why));
        AUTO_FREE char *pointer = str_new("/tls/%s", names[i]);
        report(&check, pointer, reason, why == EACCES ? "check it as the user who runs the daemon" : "");
    }
    return check.faults;
}

/* A member of an entry that names a file which is read at each use, and is not there. */
static void look_for(struct check *check, const char *list, size_t at, const char *member)
{
    const char *path = json_str(json_array_get(json_object_get(check->config, list), at), member, NULL);
    if (!path || access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR))
        return;
    AUTO_FREE char *pointer = str_new("/%s/%zu/%s", list, at, member);
    AUTO_FREE char *reason = str_new("warning: there is no file %s", path);
    report(check, pointer, reason, "the daemon starts without it, and whatever needs it fails");
}

json_t *conf_file_warnings(const json_t *config, const json_t *lines, const char *file)
{
    static const char *const lists[] = {"writers", "repositories"}, *const members[] = {"password_file", "url_file"};
    struct check check = {.config = config, .lines = lines, .file = file, .faults = json_array()};

    for (size_t l = 0; l < ELEMENTS(lists); l++)
        for (size_t i = 0; i < json_array_size(json_object_get(config, lists[l])); i++)
            for (size_t m = 0; m < ELEMENTS(members); m++)
                look_for(&check, lists[l], i, members[m]);
    return check.faults;
}
