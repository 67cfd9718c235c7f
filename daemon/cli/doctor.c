/* quiescectl doctor: is this installation fit to make a backup, and if not, what is to be done? */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/hint.h"

/* Below these a file system is full, or will be soon: told, with what to do (manual.def, docs/operations.md). */
enum { FULL_PERCENT = 2, LITTLE_PERCENT = 10 };

struct visit {
    struct ctl *ctl;
    json_t *findings;
    int bad;
};

static void find(struct visit *visit, const char *verdict, const char *what, const char *hint)
{
    AUTO_FREE char *told = hint_as_commands(hint);
    json_add(visit->findings, json_pack("{s:s, s:s, s:s}", "verdict", verdict, "what", what, "hint", told));
    visit->bad += str_eq(verdict, "bad");
    if (!visit->ctl->json)
        printf("%-4s  %s%s%s\n", verdict, what, *told ? "\n      " : "", told);
}

/* New reference, or NULL when it could not be asked, which is told. */
static json_t *ask(struct visit *visit, const char *path)
{
    struct err err;
    struct reply reply;
    if (client_call(visit->ctl->client, "GET", path, NULL, NULL, &reply, &err) != 0) {
        find(visit, "bad", err.text, err.hint);
        return NULL;
    }
    json_t *body = json_incref(reply.body);
    if (reply.status >= 400 && reply.status != 503) {
        find(visit, "bad", json_str(body, "detail", path), json_str(body, "hint", ""));
        json_decref(body);
        body = NULL;
    }
    reply_clear(&reply);
    return body;
}

/* What the daemon says of itself (GET /health/ready), by a part of it. */
#define IN_STATE "the store's file system"
static const char *cure_of(const char *reason)
{
    static const struct {
        const char *part, *cure;
    } rows[] = {
        {IN_STATE " is mounted read-only", "Its kernel's log tells why; mount the file system of the state directory read-write again."},
        {IN_STATE, "Make room on the file system of the state directory (/var/lib/quiesced), or enlarge it; less to keep: `retention` and `log` of the configuration."},
        {"the store has been writing", "The kernel's log may tell what is wrong with its disk."},
        {"limits.sessions", "`quiescectl session list` shows them; end those that are done with: `quiescectl session release SESSION`."},
        {"certificate", "It should have been renewed: the daemon's log tells why it was not."},
        {"thaw", "`quiesced thaw-all` on that machine tries it again; `quiescectl status` tells what is frozen."},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (strstr(reason, rows[i].part))
            return rows[i].cure;
    return "";
}

static void readiness(struct visit *visit)
{
    size_t i;
    const json_t *reason;
    AUTO_JSON json_t *health = ask(visit, "/health/ready");
    if (!health)
        return;
    if (json_bool(health, "ready", false))
        find(visit, "ok", "the daemon takes new work", "");
    bool room = true;
    json_array_foreach(json_object_get(health, "reasons"), i, reason)
    {
        find(visit, "bad", json_string_value(reason), cure_of(json_string_value(reason)));
        room = room && !strstr(json_string_value(reason), IN_STATE);
    }
    json_array_foreach(json_object_get(health, "warnings"), i, reason)
    {
        find(visit, "warn", json_string_value(reason), cure_of(json_string_value(reason)));
        room = room && !strstr(json_string_value(reason), IN_STATE);
    }
    if (room)
        find(visit, "ok", "the file system of the state directory has room", "");
}

/* Each of a list that says `available` and why not; page: of the manual, the folder that has one for each member of that name. */
static size_t availability(struct visit *visit, const char *path, const char *noun, const char *bad, const char *page, const char *member)
{
    size_t i, good = 0;
    const json_t *row;
    AUTO_JSON json_t *list = ask(visit, path);
    json_array_foreach(json_object_get(list, "items"), i, row)
    {
        bool available = json_bool(row, "available", true);
        AUTO_FREE char *what = str_new("%s %s%s%s", noun, json_str(row, "name", "?"), available ? "" : ": ", available ? "" : json_str(row, "reason", "not available"));
        AUTO_FREE char *cure = available ? str_dup("") : str_new("What it needs: docs/%s/%s.md.", page, json_str(row, member, "?"));
        find(visit, available ? "ok" : bad, what, cure);
        good += available;
    }
    return good;
}

/* The file system that a repository's path lies on, as the daemon finds it: GET /volumes lists no tmpfs. New reference; NULL: it does not say. */
static json_t *volume_of(struct visit *visit, const char *path)
{
    struct err err;
    struct reply reply;
    AUTO_FREE char *escaped = client_escape(path), *call = str_new("/volumes/resolve?path=%s", escaped);
    if (client_call(visit->ctl->client, "GET", call, NULL, NULL, &reply, &err) != 0)
        return NULL;
    json_t *volume = reply.status == 200 ? json_incref(reply.body) : NULL;
    reply_clear(&reply);
    return volume;
}

/* Is there room where the backups go? The share that is free is of what the daemon can use; the size is the whole file system's. */
static void room(struct visit *visit, const json_t *repositories)
{
    size_t i;
    const json_t *repository;
    json_array_foreach(repositories, i, repository)
    {
        char amount[AMOUNT_SIZE];
        const char *path = json_str(repository, "path", NULL), *name = json_str(repository, "name", "?");
        AUTO_JSON json_t *volume = path ? volume_of(visit, path) : NULL;
        int64_t left = json_int(volume, "free_percent", -1);
        bool full = left < FULL_PERCENT, little = left < LITTLE_PERCENT;
        AUTO_FREE char *what =
            left < 0 ? str_new("repository %s: how much room is left for it is not known", name)
                     : str_new("repository %s: of the usable space at %s (%s, %s in all) %lld %% are free%s", name, json_str(volume, "mount_point", "?"),
                               json_str(volume, "fs_type", "?"), amount_text(json_int(volume, "bytes", -1), amount), (long long)left, full ? ": it is full" : "");
        if (left < 0)
            find(visit, "ok", what, "");
        else
            find(visit, full ? "bad" : little ? "warn" : "ok", what, little ? "Remove backups that are not needed any more (quiescectl backup delete), or enlarge the file system." : "");
    }
}

/* What snapshots need of one volume. Returns whether there was something to tell. */
static bool volume_room(struct visit *visit, const json_t *volume)
{
    const char *at = json_str(volume, "mount_point", "?");
    int64_t left = json_int(volume, "free_percent", 100), metadata = json_int(volume, "metadata_free_percent", 100);
    if (metadata < LITTLE_PERCENT) {
        AUTO_FREE char *what = str_new("volume %s (btrfs): of the room that its metadata can have %lld %% are free%s", at, (long long)metadata,
                                       metadata < FULL_PERCENT ? ": soon no snapshot can be made or removed there" : "");
        AUTO_FREE char *cure = str_new("Give back what is allotted and empty: btrfs balance start -dusage=50 %s; remove snapshots that are not needed any more, or add a disk.", at);
        find(visit, metadata < FULL_PERCENT ? "bad" : "warn", what, cure);
    }
    if (left < FULL_PERCENT) {
        AUTO_FREE char *what = str_new("volume %s (%s): %lld %% are free: a snapshot there fails, or what is written while it is kept", at, json_str(volume, "fs_type", "?"), (long long)left);
        find(visit, "warn", what, "Remove files, or snapshots that are not needed any more (`quiescectl snapshots`), or enlarge it.");
    }
    return metadata < LITTLE_PERCENT || left < FULL_PERCENT;
}

/* Those whose snapshots share their room: once for each file system, however often it is mounted. */
static void volumes(struct visit *visit)
{
    size_t i;
    bool told = false;
    const json_t *volume;
    AUTO_JSON json_t *list = ask(visit, "/volumes"), *seen = json_object();
    json_array_foreach(json_object_get(list, "items"), i, volume)
    {
        const char *provider = json_str(volume, "provider", ""), *superblock = json_str(volume, "superblock", "");
        if (json_object_get(seen, superblock) || (!str_eq(provider, "btrfs") && !str_eq(provider, "reflink")))
            continue;
        json_put(seen, superblock, json_true());
        told = volume_room(visit, volume) || told;
    }
    if (list && !told)
        find(visit, "ok", "no file system that snapshots are made on is full", "");
}

/* What went wrong within a day. */
static void failures(struct visit *visit)
{
    enum { DAY = 86400, READ = 100 };
    static const struct {
        const char *path, *at, *text, *what[2], *hint;
    } lists[] = {{"/jobs?state=failed&limit=100", "finished_at", "operation", {"job failed", "jobs failed"}, "quiescectl job list state=failed; quiescectl job show JOB says why."},
                 {"/errors?limit=100", "time", "text", {"error was logged", "errors were logged"}, "quiescectl errors shows them."}};
    for (size_t i = 0; i < ELEMENTS(lists); i++) {
        char age[AGE_SIZE];
        AUTO_JSON json_t *list = ask(visit, lists[i].path);
        const json_t *items = json_object_get(list, "items"), *newest = json_array_get(items, 0), *row;
        size_t k, n = 0;
        json_array_foreach(items, k, row)
            n += time_of(json_str(row, lists[i].at, NULL)) >= (int64_t)time(NULL) - DAY;
        if (!list)
            continue;
        AUTO_FREE char *what = n ? str_new("%zu%s %s within a day; the newest, %s: %s", n, n == READ ? " or more" : "", lists[i].what[n > 1],
                                           age_text(json_str(newest, lists[i].at, NULL), age), json_str(newest, lists[i].text, "?"))
                                 : str_new("no %s within a day", lists[i].what[0]);
        find(visit, n ? "warn" : "ok", what, n ? lists[i].hint : "");
    }
}

/* The reason why the mover of that name cannot work; NULL: it can, or the daemon does not say. */
static const char *lacking(const json_t *movers, const char *name)
{
    const json_t *mover = json_find(movers, "name", name);
    return json_bool(mover, "available", true) ? NULL : json_str(mover, "reason", "not available");
}

/* Can what carries data there work? A mover that no repository uses may lack what it likes. */
static void carried(struct visit *visit, const json_t *repositories)
{
    size_t i;
    const json_t *repository;
    AUTO_JSON json_t *movers = ask(visit, "/movers");
    json_array_foreach(repositories, i, repository)
    {
        const char *name = json_str(repository, "name", "?"), *mover = json_str(repository, "mover", "?"), *reason = lacking(json_object_get(movers, "items"), mover);
        AUTO_FREE char *what = str_new("repository %s: no backup can go there or come back: its mover %s cannot work: %s", name, mover, reason ? reason : "");
        AUTO_FREE char *cure = str_new("Install %s in a version that fits (docs/movers/%s.md), or back up into a repository with another mover.", mover, mover);
        if (reason)
            find(visit, "bad", what, cure);
    }
}

static void repositories(struct visit *visit)
{
    AUTO_JSON json_t *list = ask(visit, "/repositories");
    size_t n = json_array_size(json_object_get(list, "items"));
    AUTO_FREE char *what = str_new("%zu %s", n, n == 1 ? "repository" : "repositories");
    if (list)
        find(visit, n ? "ok" : "bad", n ? what : "no repository: a backup has nowhere to go",
             n ? "" : "Add one to `repositories` in the configuration, or make one: `quiescectl repository create name=NAME mover=archive path=PATH`.");
    if (n) {
        carried(visit, json_object_get(list, "items"));
        room(visit, json_object_get(list, "items"));
    }
}

static void last_backup(struct visit *visit)
{
    char age[AGE_SIZE];
    AUTO_JSON json_t *list = ask(visit, "/backups?limit=1");
    const json_t *last = json_array_get(json_object_get(list, "items"), 0);
    if (!list)
        return;
    AUTO_FREE char *what = str_new("the newest backup is of %s%s", age_text(json_str(last, "created_at", NULL), age),
                                   json_bool(last, "complete", true) ? "" : ", and not complete");
    find(visit, last && json_bool(last, "complete", true) ? "ok" : "warn", last ? what : "no backup yet",
         last ? "" : "quiescectl plan --repository NAME --path PATH shows what one would do; quiescectl backup makes it.");
}

static int doctor(struct ctl *ctl, int argc, char **argv)
{
    struct visit visit = {.ctl = ctl};
    if (argc > 0)
        return ctl_usage("unexpected argument %s: doctor takes none", argv[0]);
    AUTO_JSON json_t *findings = visit.findings = json_array();
    AUTO_JSON json_t *who = ask(&visit, "/whoami");
    if (who) {
        AUTO_FREE char *what = str_new("reached, as %s (%s)", json_str(who, "principal", "?"), json_str(who, "role", "?"));
        find(&visit, "ok", what, "");
        readiness(&visit);
        if (availability(&visit, "/writers", "writer", "bad", "writers", "type") == 0)
            find(&visit, "warn", "no writer is available: files are backed up, databases not brought to a consistent point", "docs/writers names each.");
        if (availability(&visit, "/providers", "provider", "warn", "providers", "name") == 0)
            find(&visit, "bad", "no snapshot provider is available", "Each says above what it lacks; docs/providers/copy.md is of the one that needs no special file system.");
        repositories(&visit);
        volumes(&visit);
        last_backup(&visit);
        failures(&visit);
    }
    if (ctl->json)
        answer_print(findings);
    return visit.bad ? CTL_FAILED : CTL_OK;
}

static const struct command rows[] = {
    {"doctor", NULL, "", "look at everything a backup needs, and say what to do", doctor},
};
const struct command_table commands_doctor = {rows, ELEMENTS(rows)};
