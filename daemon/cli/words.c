#include "cli/words.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/client.h"

enum { PATIENCE_SECONDS = 3, MEANINGS = 3 }; /* somebody waits at a prompt */

/* fixed: choices that no daemon has to be asked for. */
static const struct kind {
    const char *name, *path, *word, *meanings[MEANINGS], *fixed;
} kinds[] = {
    {"JOB", "/jobs?limit=200", "id", {"operation", "state", "created_at"}, NULL},
    {"SESSION", "/sessions?limit=200", "id", {"label", "kind", "state"}, NULL},
    {"BACKUP", "/backups?limit=200", "id", {"label", "created_at"}, NULL},
    {"SNAPSHOT", "/snapshots?limit=200", "id", {"volume", "created_at"}, NULL},
    {"TOKEN", "/tokens?limit=200", "id", {"name", "role"}, NULL},
    {"CERTIFICATE", "/certificates?limit=200", "id", {"name", "role"}, NULL},
    {"REPOSITORY", "/repositories", "name", {"mover", "path"}, NULL},
    {"WRITER", "/writers", "name", {"type"}, NULL},
    {"LABEL", "/backups?limit=500", "label", {NULL}, NULL},
    {"ROLE", NULL, NULL, {NULL}, "viewer|operator|restorer|auditor|admin"},
    {"TYPE", NULL, NULL, {NULL}, "full|incremental|differential|log|copy"},
    {"GRADE", NULL, NULL, {NULL}, "application|filesystem|crash"},
};

static const struct kind *kind_of(const char *name, size_t length)
{
    for (size_t i = 0; i < ELEMENTS(kinds); i++)
        if (strlen(kinds[i].name) == length && strncmp(kinds[i].name, name, length) == 0)
            return &kinds[i];
    return NULL;
}

/* "PLACE|SNAPSHOT" and "WRITER[/PATH/NAME]" name one as well; "fail|report" are the choices themselves. */
char *words_kind(const char *text)
{
    static const char capitals[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", small[] = "abcdefghijklmnopqrstuvwxyz|";
    for (const char *at = text; *at;) {
        size_t length = strspn(at, capitals);
        const struct kind *kind = kind_of(at, length);
        if (kind)
            return str_dup(kind->name);
        at += length;
        if (*at != '|')
            break;
        at++;
    }
    return *text != '|' && strchr(text, '|') && strspn(text, small) == strlen(text) ? str_dup(text) : NULL;
}

char *words_kind_at(const struct command *command, int place)
{
    for (const char *at = command->arguments; *at;) {
        size_t length = strcspn(at, *at == '[' ? "]" : " ");
        if (*at == '-') /* its options are a matter of their own */
            return NULL;
        if (*at != '[' && place-- == 0) {
            AUTO_FREE char *text = str_new("%.*s", (int)length, at);
            return words_kind(text);
        }
        at += length;
        at += strspn(at, "] ");
    }
    return NULL;
}

/* --- the words --- */

static json_t *choices(const char *fixed)
{
    json_t *words = json_array();
    for (const char *at = fixed; *at;) {
        size_t length = strcspn(at, "|");
        AUTO_FREE char *word = str_new("%.*s", (int)length, at);
        json_add(words, json_pack("{s:s, s:s}", "word", word, "meaning", ""));
        at += length + (at[length] == '|');
    }
    return words;
}

static char *meaning_of(const struct kind *kind, const json_t *item)
{
    char *meaning = str_dup("");
    for (size_t i = 0; i < MEANINGS && kind->meanings[i]; i++) {
        AUTO_FREE char *before = meaning;
        const char *value = json_str(item, kind->meanings[i], "");
        meaning = str_new("%s%s%s", before, *before && *value ? ", " : "", value);
    }
    return meaning;
}

/* CTL_OK with a new reference; else why the daemon does not say, untold. */
static int asked(struct ctl *ctl, const struct kind *kind, json_t **ret)
{
    struct err ignored;
    struct reply reply;
    size_t i;
    const json_t *item;
    client_patience(ctl->client, PATIENCE_SECONDS);
    if (client_call(ctl->client, "GET", kind->path, NULL, NULL, &reply, &ignored) != 0)
        return CTL_UNREACHED;
    int code = answer_exit(reply.status);
    json_t *words = *ret = code == CTL_OK ? json_array() : NULL;
    json_array_foreach(words ? json_object_get(reply.body, "items") : NULL, i, item)
    {
        const char *word = json_str(item, kind->word, "");
        AUTO_FREE char *meaning = meaning_of(kind, item);
        if (*word && !json_find(words, "word", word))
            json_add(words, json_pack("{s:s, s:s}", "word", word, "meaning", meaning));
    }
    reply_clear(&reply);
    return code;
}

int words_print(struct ctl *ctl, const char *name)
{
    const struct kind *kind = kind_of(name, strlen(name));
    size_t i;
    const json_t *word;
    if (!kind && !strchr(name, '|'))
        return ctl_usage("completion words %s: one of JOB, SESSION, BACKUP, SNAPSHOT, TOKEN, CERTIFICATE, REPOSITORY, WRITER, LABEL, ROLE, TYPE, GRADE", name);
    AUTO_JSON json_t *words = !kind ? choices(name) : kind->fixed ? choices(kind->fixed) : NULL;
    int code = words ? CTL_OK : asked(ctl, kind, &words);
    if (ctl->json)
        answer_print(words);
    json_array_foreach(ctl->json ? NULL : words, i, word)
        printf("%s\t%s\n", json_str(word, "word", ""), json_str(word, "meaning", ""));
    return code;
}
