/* quiescectl job …, call, events. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/watch.h"

static int one_id(int argc, const char *what)
{
    return argc == 1 ? 0 : ctl_usage("job %s takes one id", what);
}

static int list(struct ctl *ctl, int argc, char **argv)
{
    static const char *const columns[] = {"id", "operation", "label", "state", "hresult", "@created_at", "session_id", NULL};
    AUTO_JSON json_t *filters = arguments_object(argc, argv, 0);
    return filters ? answer_list(ctl, "/jobs", filters, columns) : CTL_USAGE;
}

static int call_on(struct ctl *ctl, const char *method, const char *id, const char *rest)
{
    AUTO_FREE char *escaped = client_escape(id), *path = str_new("/jobs/%s%s", escaped, rest);
    return answer_call(ctl, method, path, NULL, NULL);
}

static int show(struct ctl *ctl, int argc, char **argv)
{
    return one_id(argc, "show") ? CTL_USAGE : call_on(ctl, "GET", argv[0], "");
}

static int watch(struct ctl *ctl, int argc, char **argv)
{
    AUTO_JSON json_t *job = NULL;
    if (one_id(argc, "watch"))
        return CTL_USAGE;
    int code = watch_job(ctl, argv[0], &job);
    return job ? watch_told(ctl, job) : code;
}

/* A 202 means that it ends cancelled: with --no-wait that is all. */
static int cancel(struct ctl *ctl, int argc, char **argv)
{
    struct err err;
    struct reply reply;
    if (one_id(argc, "cancel"))
        return CTL_USAGE;
    AUTO_FREE char *escaped = client_escape(argv[0]), *path = str_new("/jobs/%s", escaped);
    if (client_call(ctl->client, "DELETE", path, NULL, NULL, &reply, &err) != 0)
        return ctl_unreached(&err);
    int code = answer_check(&reply);
    if (code == CTL_OK && !ctl->wait && ctl->json)
        answer_print(reply.body);
    reply_clear(&reply);
    if (code != CTL_OK || !ctl->wait)
        return code;
    AUTO_JSON json_t *job = NULL;
    code = watch_job(ctl, argv[0], &job);
    if (job)
        watch_told(ctl, job);
    return code == CTL_CANCELLED ? CTL_OK : code;
}

static int release(struct ctl *ctl, int argc, char **argv)
{
    return one_id(argc, "release") ? CTL_USAGE : call_on(ctl, "POST", argv[0], "/release");
}

/* A GET has no body: what is said by name is its query. malloc'ed. */
static char *with_query(const char *path, int argc, char **argv)
{
    char *whole = str_dup(path);
    for (int i = 0; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        if (!equals || equals == argv[i]) {
            ctl_usage("%s: this is not NAME=VALUE", argv[i]);
            free(whole);
            return NULL;
        }
        AUTO_FREE char *value = client_escape(equals + 1), *before = whole;
        whole = str_new("%s%c%.*s=%s", before, strchr(before, '?') ? '&' : '?', (int)(equals - argv[i]), argv[i], value);
    }
    return whole;
}

static int call(struct ctl *ctl, int argc, char **argv)
{
    if (argc < 2 || argv[1][0] != '/')
        return ctl_usage("call takes METHOD /PATH ['HEADER: VALUE'] [NAME=VALUE…]");
    int from = argc > 2 && strcspn(argv[2], ":") < strcspn(argv[2], "=") ? 3 : 2;
    if (from == 3)
        client_header(ctl->client, argv[2]);
    if (str_eq(argv[0], "GET")) {
        AUTO_FREE char *path = with_query(argv[1], argc - from, argv + from);
        return path ? answer_call(ctl, "GET", path, NULL, NULL) : CTL_USAGE;
    }
    AUTO_JSON json_t *body = argc > from ? arguments_object(argc, argv, from) : NULL;
    if (argc > from && !body)
        return CTL_USAGE;
    return answer_call(ctl, argv[0], argv[1], body, NULL);
}

static const struct command rows[] = {
    {"job", "list", "[state=… operation=… session=… sort=…]", "jobs, newest first", list},
    {"job", "show", "JOB", "one job as the API has it", show},
    {"job", "watch", "JOB", "wait for its end; Ctrl-C asks the daemon to cancel it", watch},
    {"job", "cancel", "JOB", "cancel it, and wait until it is undone", cancel},
    {"job", "release", "JOB", "forget an ended job; never stops one", release},
    {"call", NULL, "METHOD /PATH ['HEADER: VALUE'] [NAME=VALUE…]", "any operation of the API", call},
};
const struct command_table commands_jobs = {rows, ELEMENTS(rows)};
