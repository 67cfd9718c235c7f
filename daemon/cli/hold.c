#include "cli/hold.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/client.h"
#include "cli/hint.h"
#include "cli/watch.h"

/* Of a session whose quiescectl was killed half-way: it has the node's creation slot. A job in hand pauses it. */
enum { LEASE_SECONDS = 120 };

char *hold_label(const char *name)
{
    return str_new("hold:%s", name);
}

/* --- interrupts --- */

/* An interrupt waits for the call in hand, whose answer names what has to be released: PATIENCE_SECONDS, or until the second one. A call
 * that begins after it lets go of something, and has its own time: no further interrupt breaks that off. */
enum { PATIENCE_SECONDS = 10 };
static volatile sig_atomic_t interrupted, releases;
static volatile int given_up; /* the call in hand */
static struct sigaction before_int, before_term, before_alarm;

static void on_interrupt(int signal)
{
    if ((interrupted && !releases) || signal == SIGALRM)
        given_up = 1;
    interrupted = 1;
    alarm(PATIENCE_SECONDS);
}

void hold_signals_begin(void)
{
    const struct sigaction catch = {.sa_handler = on_interrupt};
    interrupted = releases = given_up = 0;
    sigaction(SIGINT, &catch, &before_int);
    sigaction(SIGTERM, &catch, &before_term);
    sigaction(SIGALRM, &catch, &before_alarm);
}

void hold_signals_end(void)
{
    alarm(0);
    sigaction(SIGINT, &before_int, NULL);
    sigaction(SIGTERM, &before_term, NULL);
    sigaction(SIGALRM, &before_alarm, NULL);
}

bool hold_interrupted(void)
{
    return interrupted != 0;
}

/* --- calls --- */

/* CTL_OK with the reply, or CTL_UNREACHED, told. */
static int ask(struct ctl *ctl, const char *method, const char *path, const json_t *body, struct reply *ret)
{
    struct err err;
    alarm(0);
    given_up = 0;
    releases = interrupted;
    client_patience(ctl->client, releases ? PATIENCE_SECONDS : 0);
    int called = client_call(ctl->client, method, path, body, &given_up, ret, &err);
    client_patience(ctl->client, 0);
    if (called == 0)
        return CTL_OK;
    if (given_up)
        err_set(&err, VSS_E_UNEXPECTED, "It lets go by itself, of what is frozen at `limits.freeze_seconds`, of the session with its lease: `quiescectl session list` shows it.",
                "%s %s: the daemon did not answer in time", method, path);
    return ctl_unreached(&err);
}

int hold_ask(struct ctl *ctl, const char *method, const char *path, const json_t *body, json_t **ret)
{
    struct reply reply;
    *ret = NULL;
    if (ask(ctl, method, path, body, &reply) != CTL_OK)
        return -1;
    int status = reply.status;
    *ret = reply.body ? json_incref(reply.body) : NULL;
    reply_clear(&reply);
    return status;
}

int hold_call(struct ctl *ctl, const char *method, const char *path, const json_t *body, json_t **ret)
{
    struct reply reply;
    if (ask(ctl, method, path, body, &reply) != CTL_OK)
        return CTL_UNREACHED;
    int code = answer_check(&reply);
    if (ret)
        *ret = code == CTL_OK && reply.body ? json_incref(reply.body) : NULL;
    reply_clear(&reply);
    return code;
}

void hold_tell_job(const json_t *job)
{
    const json_t *error = json_object_get(job, "error"), *writer;
    size_t i;
    fprintf(stderr, "quiescectl: %s %s%s%s\n", json_str(job, "operation", "job"), json_str(job, "state", ""), json_is_object(error) ? ": " : "",
            json_str(error, "detail", ""));
    hint_print(stderr, json_str(error, "hint", ""));
    json_array_foreach(json_object_get(error, "writers"), i, writer)
        fprintf(stderr, "  writer %s: %s %s\n", json_str(writer, "name", "?"), json_str(writer, "failure", ""), json_str(writer, "application_message", ""));
}

int hold_job(struct ctl *ctl, const char *path, json_t **ret)
{
    AUTO_JSON json_t *started = NULL;
    AUTO_JSON json_t *job = NULL;
    if (ret)
        *ret = NULL;
    if (interrupted) /* nothing is begun any more */
        return CTL_CANCELLED;
    int code = hold_call(ctl, "POST", path, NULL, &started);
    if (code == CTL_OK)
        code = watch_job(ctl, json_str(started, "id", ""), &job);
    if (watch_was_interrupted()) /* it counts for what would follow, however the job ended; of a daemon that hangs, no release waits for long */
        interrupted = 1;
    if (job && code != CTL_OK)
        hold_tell_job(job);
    if (ret)
        *ret = TAKE_PTR(job);
    return code;
}

int hold_release(struct ctl *ctl, const char *session)
{
    AUTO_FREE char *path = str_new("/sessions/%s", session);
    AUTO_JSON json_t *answer = NULL;
    int code = hold_call(ctl, "DELETE", path, NULL, &answer);
    const char *job = json_str(answer, "id", NULL);
    if (code == CTL_OK && job) {
        AUTO_JSON json_t *ended = NULL;
        code = watch_job(ctl, job, &ended);
        if (ended && code != CTL_OK)
            hold_tell_job(ended);
    }
    return code;
}

/* --- the set --- */

static int begin(struct ctl *ctl, const struct hold_set *set, char **ret_session)
{
    AUTO_JSON json_t *body = json_pack("{s:s, s:s, s:s, s:i}", "kind", "backup", "label", set->label, "context", set->context, "lease_seconds", LEASE_SECONDS);
    AUTO_JSON json_t *answer = NULL;
    int status = hold_ask(ctl, "POST", "/sessions", body, &answer);
    if (status == 400) { /* the configuration allows less */
        json_decref(TAKE_PTR(answer));
        json_object_del(body, "lease_seconds");
        status = 0;
    }
    if (status < 0)
        return CTL_UNREACHED;
    int code = status == 201 ? CTL_OK : hold_call(ctl, "POST", "/sessions", body, &answer);
    if (code == CTL_OK)
        *ret_session = str_dup(json_str(answer, "id", ""));
    return code;
}

static int gather(struct ctl *ctl, const char *session)
{
    AUTO_FREE char *state = str_new("/sessions/%s/backup-state", session), *metadata = str_new("/sessions/%s/metadata", session);
    AUTO_JSON json_t *job = NULL;
    /* A copy: no writer takes it for the backup on which the next incremental one, or the truncation of a log, may stand. */
    AUTO_JSON json_t *body = json_pack("{s:b, s:b, s:s, s:b}", "component_mode", 1, "bootable_system_state", 0, "type", "copy", "partial_files", 0);
    int code = hold_call(ctl, "PUT", state, body, NULL);
    if (code == CTL_OK)
        code = hold_job(ctl, metadata, &job);
    size_t i;
    const json_t *missing;
    json_array_foreach(json_object_get(json_object_get(job, "result"), "missing"), i, missing)
        fprintf(stderr, "quiescectl: writer %s does not take part: %s\n", json_str(missing, "name", "?"),
                json_str(json_object_get(missing, "error"), "detail", "it did not answer"));
    return code;
}

static json_t *volume_body(const struct hold_set *set, const char *path)
{
    json_t *body = json_pack("{s:s, s:s?}", "path", path, "provider", set->provider);
    if (json_array_size(set->excludes) > 0)
        json_put(body, "excludes", json_deep_copy(set->excludes));
    return body;
}

static int add_named(struct ctl *ctl, const struct hold_set *set, const char *volumes)
{
    size_t i;
    const json_t *path;
    json_array_foreach(set->paths, i, path)
    {
        AUTO_JSON json_t *body = volume_body(set, json_string_value(path));
        int code = hold_call(ctl, "POST", volumes, body, NULL);
        if (code != CTL_OK)
            return code;
    }
    return CTL_OK;
}

/* One mount point of each file system: the shortest, which no mount beneath another one hides. New reference. */
static json_t *file_systems(const json_t *volumes)
{
    json_t *by_superblock = json_object();
    size_t i;
    json_t *volume;
    json_array_foreach(volumes, i, volume)
    {
        const char *superblock = json_str(volume, "superblock", ""), *mount_point = json_str(volume, "mount_point", "");
        const char *known = json_str(json_object_get(by_superblock, superblock), "mount_point", NULL);
        if (!known || strlen(mount_point) < strlen(known))
            json_put(by_superblock, superblock, json_incref(volume));
    }
    return by_superblock;
}

/* Whatever the provider can freeze; what it cannot is told. */
static int add_all(struct ctl *ctl, const struct hold_set *set, const char *volumes)
{
    AUTO_JSON json_t *list = NULL;
    const char *superblock;
    json_t *volume;
    int code = hold_call(ctl, "GET", "/volumes", NULL, &list), added = 0;
    AUTO_JSON json_t *all = file_systems(json_object_get(list, "items"));
    if (code != CTL_OK)
        return code;
    json_object_foreach(all, superblock, volume)
    {
        AUTO_JSON json_t *body = volume_body(set, json_str(volume, "mount_point", ""));
        AUTO_JSON json_t *answer = NULL;
        int status = hold_ask(ctl, "POST", volumes, body, &answer);
        if (status < 0)
            return CTL_UNREACHED;
        if (status == 201)
            added++;
        else
            fprintf(stderr, "quiescectl: %s (%s) is not held: %s\n", json_str(volume, "mount_point", ""), json_str(volume, "fs_type", ""), json_str(answer, "detail", ""));
    }
    if (added > 0)
        return CTL_OK;
    fprintf(stderr, "quiescectl: there is no file system here that could be held\n");
    return CTL_FAILED;
}

static int open_set(struct ctl *ctl, const struct hold_set *set, const char *session)
{
    AUTO_FREE char *start = str_new("/sessions/%s/snapshot-set", session), *volumes = str_new("%s/volumes", start);
    AUTO_FREE char *components = str_new("%s/components", start);
    AUTO_JSON json_t *nothing = json_object();
    int code = hold_call(ctl, "POST", start, nothing, NULL);
    if (code == CTL_OK)
        code = set->paths ? add_named(ctl, set, volumes) : add_all(ctl, set, volumes);
    return code == CTL_OK ? hold_call(ctl, "POST", components, NULL, NULL) : code;
}

int hold_prepare(struct ctl *ctl, const struct hold_set *set, char **ret_session)
{
    AUTO_FREE char *session = NULL;
    int code = begin(ctl, set, &session);
    if (code != CTL_OK)
        return code;
    AUTO_FREE char *prepare = str_new("/sessions/%s/prepare", session);
    code = gather(ctl, session);
    if (code == CTL_OK && !hold_interrupted())
        code = open_set(ctl, set, session);
    if (code == CTL_OK && !hold_interrupted())
        code = hold_job(ctl, prepare, NULL);
    if (code == CTL_OK && !hold_interrupted()) {
        *ret_session = TAKE_PTR(session);
        return CTL_OK;
    }
    hold_release(ctl, session);
    return code == CTL_OK ? CTL_CANCELLED : code;
}
