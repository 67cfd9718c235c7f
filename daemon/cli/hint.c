#include "cli/hint.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

/* Operations with a command of their own; every other call is made by `quiescectl call`. "{}" stands for any one name. */
static const struct {
    const char *call, *command;
} known[] = {
    {"GET /whoami", "whoami"},
    {"GET /sessions", "session list"},
    {"POST /sessions", "session create"},
    {"GET /sessions/{}", "session show SESSION"},
    {"DELETE /sessions/{}", "session release SESSION"},
    {"PUT /sessions/{}/backup-state", "session set-state SESSION"},
    {"PUT /sessions/{}/restore-state", "session set-restore-state SESSION"},
    {"PUT /sessions/{}/context", "session set-context SESSION"},
    {"PUT /sessions/{}/writer-filter", "session filter-writers SESSION"},
    {"POST /sessions/{}/metadata", "session metadata SESSION"},
    {"GET /sessions/{}/writers", "session writers SESSION"},
    {"GET /sessions/{}/components", "session components SESSION"},
    {"POST /sessions/{}/components", "session add-component SESSION"},
    {"PATCH /sessions/{}/components/{}", "session set-component SESSION COMPONENT"},
    {"GET /sessions/{}/components/{}", "session show-component SESSION COMPONENT"},
    {"POST /sessions/{}/components/{}/subcomponents", "session add-subcomponent SESSION COMPONENT name=NAME"},
    {"POST /sessions/{}/components/{}/new-targets", "session add-new-target SESSION COMPONENT path=PATH new_path=PATH"},
    {"POST /sessions/{}/components/{}/alternate-locations", "session add-alternate-location SESSION COMPONENT path=PATH alternate_path=PATH"},
    {"POST /sessions/{}/snapshot-set", "session start-set SESSION"},
    {"POST /sessions/{}/snapshot-set/volumes", "session add-volume SESSION path=PATH"},
    {"POST /sessions/{}/snapshot-set/components", "session add-set-components SESSION"},
    {"POST /sessions/{}/snapshot-set/release", "session release-set SESSION"},
    {"POST /sessions/{}/prepare", "session prepare SESSION"},
    {"POST /sessions/{}/snapshot", "session snapshot SESSION"},
    {"POST /sessions/{}/copy", "session copy SESSION repository=NAME"},
    {"POST /sessions/{}/complete", "session complete SESSION"},
    {"POST /sessions/{}/status", "session status SESSION"},
    {"GET /sessions/{}/writer-status", "session writer-status SESSION"},
    {"POST /sessions/{}/pre-restore", "session pre-restore SESSION"},
    {"POST /sessions/{}/restore-files", "session restore-files SESSION"},
    {"POST /sessions/{}/post-restore", "session post-restore SESSION"},
    {"GET /sessions/{}/document", "session document SESSION"},
    {"POST /sessions/{}/renew", "session renew SESSION"},
    {"POST /sessions/{}/abort", "session abort SESSION"},
    {"GET /jobs", "job list"},
    {"GET /jobs/{}", "job show JOB"},
    {"GET /jobs/{}/events", "job log JOB"},
    {"DELETE /jobs/{}", "job cancel JOB"},
    {"POST /jobs/{}/release", "job release JOB"},
    {"GET /backups", "backups"},
    {"POST /backups", "backup"},
    {"GET /backups/{}", "backup show BACKUP"},
    {"GET /backups/{}/files", "backup files BACKUP"},
    {"DELETE /backups/{}", "backup delete BACKUP"},
    {"POST /backups/{}/restore", "restore BACKUP TARGET"},
    {"POST /backups/{}/verify", "verify BACKUP"},
    {"GET /snapshots", "snapshots"},
    {"DELETE /snapshots/{}", "hold delete SNAPSHOT"},
    {"GET /writers", "writers"},
    {"GET /providers", "providers"},
    {"GET /movers", "movers"},
    {"GET /volumes", "volumes"},
    {"GET /volumes/resolve", "hold check PATH"},
    {"GET /repositories", "repositories"},
    {"POST /repositories", "repository create"},
    {"GET /repositories/{}", "repository show REPOSITORY"},
    {"POST /repositories/{}/scan", "repository scan REPOSITORY"},
    {"GET /errors", "errors"},
    {"GET /tokens", "token list"},
    {"POST /tokens", "token create NAME ROLE"},
    {"DELETE /tokens/{}", "token revoke TOKEN"},
    {"GET /certificates", "cert list"},
    {"DELETE /certificates/{}", "cert revoke CERTIFICATE"},
    {"GET /events", "events"},
};

/* What a hint says of a request whose sender is this program, or without the path of a call. The first that fits. */
static const struct {
    const char *said, *told;
} phrases[] = {
    {"See `errors`, and ", "See "}, /* which have been shown: `quiescectl errors` is something else */
    {"errors names each fault by JSON pointer, ?query or header. ", ""},
    {"The header Allow tells the methods that the path has; GET /openapi.yaml, all calls that there are.", "`quiescectl call GET /openapi.yaml` has all calls that there are."},
    {"Use one of the methods that `Allow` names; GET /openapi.yaml says what each does.", "`quiescectl call GET /openapi.yaml` says which methods there are, and what each does."},
    {"GET it, and send its ETag as If-Match: what somebody else has changed since is not overwritten then.",
     "Read it, and repeat the call with its ETag, or with * for whatever is there: `quiescectl call METHOD /PATH 'If-Match: *'`."},
    {"GET it again, and", "Read it again, and"},
    {"after Retry-After seconds", "in a while"},
    {"or cancel it with DELETE", "or cancel it: `quiescectl job cancel JOB`"},
    {"then DELETE the session", "then `quiescectl session release SESSION`"},
    {"PUT backup-state first", "`quiescectl session set-state SESSION` first"},
    {"then /status", "then `quiescectl session status SESSION`"},
    {"DELETE its exposure first", "End its exposure first (`quiescectl call DELETE /snapshots/ID/exposure`)"},
    {"DELETE it again", "Delete it again"},
    {"PATCH it with \"selected\": true", "`quiescectl session set-component SESSION COMPONENT selected=true`"},
    {"PATCH {\"enabled\": true}", "`quiescectl call PATCH /webhooks/ID 'If-Match: *' enabled=true`"},
    {"GET \xe2\x80\xa6/components of the session", "`quiescectl session components SESSION`"},
    {"a GET of the path lists them", "`quiescectl token list` and `quiescectl cert list` show them"},
    {"with \"overwrite\": true", "with --overwrite"},
    {"with \"accept_incomplete\": true", "with --accept-incomplete"},
    {"\"force\": true", "force=true"},
};

/* A call at `at`: "METHOD /path". Its length, without the sentence's own full stop; 0: there is none. */
static size_t call_length(const char *at)
{
    static const char *const methods[] = {"GET /", "POST /", "PUT /", "PATCH /", "DELETE /"};
    for (size_t i = 0; i < ELEMENTS(methods); i++) {
        if (!str_starts(at, methods[i]))
            continue;
        size_t length = strlen(methods[i]) + strcspn(at + strlen(methods[i]), " ,;:)`'\"\n");
        return at[length - 1] == '.' ? length - 1 : length;
    }
    return 0;
}

static bool fits(const char *pattern, const char *call, size_t length)
{
    const char *end = call + length;
    while (*pattern && call < end) {
        if (str_starts(pattern, "{}")) {
            size_t name = strcspn(call, "/?");
            call += name < (size_t)(end - call) ? name : (size_t)(end - call);
            pattern += 2;
        } else if (*pattern++ != *call++) {
            return false;
        }
    }
    return !*pattern && call == end;
}

/* "?volume=&limit=1" -> " volume=VALUE limit=1"; malloc'ed. */
static char *words_of_query(const char *query, size_t length)
{
    char *words = str_dup("");
    for (const char *at = query, *end = query + length; at < end;) {
        size_t one = strcspn(at, "&");
        one = one < (size_t)(end - at) ? one : (size_t)(end - at);
        AUTO_FREE char *before = words;
        words = str_new("%s %.*s%s", before, (int)one, at, at[one - (one > 0)] == '=' ? "VALUE" : "");
        at += one + 1;
    }
    return words;
}

/* The object of a body behind the call: " {"selected":true}" as " selected=true". Its length, 0: there is none. */
static size_t words_of_body(const char *at, char **ret)
{
    const char *end = str_starts(at, " {") ? strchr(at, '}') : NULL, *key;
    json_t *value, *body = end ? json_loadb(at + 1, (size_t)(end - at), 0, NULL) : NULL;
    *ret = str_dup("");
    json_object_foreach(body, key, value)
    {
        AUTO_FREE char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT), *before = *ret;
        *ret = str_new("%s %s=%s", before, key, text);
    }
    size_t length = body ? (size_t)(end - at) + 1 : 0;
    json_decref(body);
    return length;
}

/* "/sessions/{id}/x" -> "/sessions/ID/x": a shell takes braces for its own. In place. */
static void name_ids(char *path)
{
    for (char *open; (open = strchr(path, '{'));) {
        char *close = strchr(open, '}');
        if (!close)
            return;
        open[0] = 'I', open[1] = 'D';
        memmove(open + 2, close + 1, strlen(close + 1) + 1);
    }
}

/* "GET /jobs/{id}?wait=60" waits: that is what `job watch` does. *ret_length grows by the body that is taken, too. */
static char *command_of(const char *call, size_t *ret_length)
{
    size_t length = *ret_length, plain = strcspn(call, "?") < length ? strcspn(call, "?") : length;
    AUTO_FREE char *query = plain < length ? words_of_query(call + plain + 1, length - plain - 1) : str_dup(""), *body = NULL;
    *ret_length += words_of_body(call + length, &body);
    if (str_starts(query, " wait=") && fits("GET /jobs/{}", call, plain))
        return str_new("`quiescectl job watch JOB`");
    for (size_t i = 0; i < ELEMENTS(known); i++)
        if (fits(known[i].call, call, plain))
            return str_new("`quiescectl %s%s%s`", known[i].command, query, body);
    AUTO_FREE char *whole = str_new("%.*s", (int)plain, call);
    name_ids(whole);
    return str_new("`quiescectl call %s%s%s`", whole, query, body);
}

static const char *phrase_at(const char *at, size_t *ret_length)
{
    for (size_t i = 0; i < ELEMENTS(phrases); i++)
        if (str_starts(at, phrases[i].said)) {
            *ret_length = strlen(phrases[i].said);
            return phrases[i].told;
        }
    return NULL;
}

char *hint_as_commands(const char *hint)
{
    char *told = str_dup("");
    for (const char *at = hint; *at;) {
        bool begins = at == hint || strchr(" (`", at[-1]);
        size_t length = 0;
        const char *phrase = begins ? phrase_at(at, &length) : NULL;
        if (!phrase && begins)
            length = call_length(at);
        AUTO_FREE char *before = told, *piece = phrase ? str_dup(phrase) : length ? command_of(at, &length) : str_new("%c", *at);
        told = str_new("%s%s", before, piece);
        at += length ? length : 1;
    }
    return told;
}

void hint_print(FILE *to, const char *hint)
{
    AUTO_FREE char *told = hint_as_commands(hint);
    if (*told)
        fprintf(to, "  hint: %s\n", told);
}
