/* quiescectl status: protected, running, frozen, on one screen. */
#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/events.h"
#include "cli/protection.h"

enum { READ = 500 }; /* of each, the newest */

/* 0 with its body, a new reference; else the exit code, told. */
static int get(struct ctl *ctl, const char *path, json_t **ret)
{
    struct err err;
    struct reply reply;
    if (client_call(ctl->client, "GET", path, NULL, NULL, &reply, &err) != 0)
        return ctl_unreached(&err);
    int code = reply.status == 503 && json_object_get(reply.body, "reasons") ? CTL_OK : answer_check(&reply);
    *ret = code == CTL_OK ? json_incref(reply.body) : NULL;
    reply_clear(&reply);
    return code;
}

/* Who is neither reader of everything nor restorer sees what is his own: what is said is said of that. */
static bool sees_all(const json_t *whoami)
{
    static const char *const roles[] = {"viewer", "auditor", "restorer", "admin"};
    for (size_t i = 0; i < ELEMENTS(roles); i++)
        if (str_eq(json_str(whoami, "role", ""), roles[i]))
            return true;
    return false;
}

/* What is true just now: {"frozen":[…],"running":[…]}. */
static bool take_now(void *arg, const json_t *event)
{
    json_t *now = arg;
    bool frozen = str_eq(json_str(event, "type", ""), "session.frozen");
    const json_t *data = json_object_get(event, "data");
    if (json_is_object(data)) {
        json_t *row = json_deep_copy(data);
        json_put(row, frozen ? "session_id" : "job_id", json_text(json_str(event, frozen ? "session_id" : "job_id", "")));
        json_add(json_object_get(now, frozen ? "frozen" : "running"), row);
    }
    return true;
}

static void show(const json_t *status)
{
    static const char *const labels[] = {"label", "@last_good", "late", "@failed_since", "newest_condition", "freeze_ms", "grade", "backup_id", NULL};
    static const char *const running[] = {"job_id", "operation", "state", "progress.phase", "#progress.bytes_done", NULL};
    size_t i, n;
    const json_t *row, *name;
    char age[AGE_SIZE];
    AUTO_FREE char *meant = protection_meant(json_object_get(status, "labels"));
    bool ready = json_array_size(json_object_get(status, "reasons")) == 0;
    printf("%s%s%s\n", json_str(status, "verdict", ""), ready && *meant ? ": " : "", ready ? meant : "");
    json_array_foreach(json_object_get(status, "reasons"), i, row)
        printf("  %s\n", json_string_value(row));
    json_array_foreach(json_object_get(status, "frozen"), i, row)
    {
        const char *stuck = json_str(row, "stuck", NULL);
        printf("\nFROZEN since %s (%s), session %s; ", json_str(row, "since", "?"), age_text(json_str(row, "since", NULL), age), json_str(row, "session_id", ""));
        if (stuck)
            printf("no thaw is known: %s\n ", stuck);
        else
            printf("thaw it: quiescectl session abort %s\n ", json_str(row, "session_id", ""));
        json_array_foreach(json_object_get(row, "file_systems"), n, name) printf(" %s", json_string_value(name));
        json_array_foreach(json_object_get(row, "writers"), n, name) printf(" %s", json_string_value(name));
        puts("");
    }
    if (json_array_size(json_object_get(status, "labels")) > 0) {
        puts("");
        table_print(json_object_get(status, "labels"), labels);
    }
    puts("");
    if (json_array_size(json_object_get(status, "running")) > 0)
        table_print(json_object_get(status, "running"), running);
    else
        puts("nothing runs");
}

static int status(struct ctl *ctl, int argc, char **argv)
{
    struct err err;
    AUTO_JSON json_t *health = NULL, *backups = NULL, *sessions = NULL, *who = NULL;
    AUTO_JSON json_t *found = json_pack("{s:[], s:[]}", "frozen", "running");
    if (argc > 0)
        return ctl_usage("unexpected argument %s: status takes none", argv[0]);
    int code = get(ctl, "/health/ready", &health);
    AUTO_FREE char *catalog = str_new("/backups?limit=%d", READ), *attempts = str_new("/sessions?kind=backup&limit=%d&fields=id,label,state,reason,created_at", READ);
    if (code == CTL_OK)
        code = get(ctl, "/whoami", &who);
    if (code == CTL_OK)
        code = get(ctl, catalog, &backups);
    if (code == CTL_OK)
        code = get(ctl, attempts, &sessions);
    if (code == CTL_OK)
        code = events_read(ctl->client, "/events?follow=false&types=session.frozen&types=job.progress", NULL, take_now, found, &err);
    if (code < 0)
        code = ctl_unreached(&err);
    if (code != CTL_OK)
        return code;
    json_put(found, "labels", protection_labels(json_object_get(backups, "items"), json_object_get(sessions, "items"), clock_real_ms()));
    json_put(found, "reasons", json_deep_copy(json_object_get(health, "reasons")));
    bool ready = json_bool(health, "ready", false);
    const char *words = ready ? protection_words(json_object_get(found, "labels"), sees_all(who)) : "not ready: the daemon takes no new work";
    json_put(found, "verdict", json_string(words));
    json_put(found, "protected", json_boolean(str_starts(words, "protected")));
    if (ctl->json)
        answer_print(found);
    else
        show(found);
    return str_starts(words, "protected") ? CTL_OK : CTL_FAILED;
}

static const struct command rows[] = {
    {"status", NULL, "", "protected? running? frozen? on one screen", status},
};
const struct command_table commands_status = {rows, ELEMENTS(rows)};
