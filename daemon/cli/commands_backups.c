/* quiescectl backup, plan, backups, restore, verify. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/hint.h"
#include "cli/options.h"
#include "cli/watch.h"

/* --- what is asked for --- */

/* "WRITER" or "WRITER/PATH/COMPONENT": without a component the writer has one of its own name, or the daemon says which it has. */
static json_t *component(const char *text)
{
    const char *first = strchr(text, '/'), *last = strrchr(text, '/');
    if (!first)
        return json_pack("{s:s, s:s}", "writer", text, "name", text);
    AUTO_FREE char *writer = str_new("%.*s", (int)(first - text), text);
    AUTO_FREE char *logical = first == last ? str_dup("") : str_new("%.*s", (int)(last - first - 1), first + 1);
    return json_pack("{s:s, s:s, s:s}", "writer", writer, "logical_path", logical, "name", last + 1);
}

static void append(json_t *object, const char *key, json_t *value)
{
    json_t *list = json_object_get(object, key);
    if (!list)
        json_put(object, key, list = json_array());
    json_add(list, value);
}

/* "nice=10" */
static bool limit(json_t *body, const char *text)
{
    json_t *limits = json_object_get(body, "limits");
    if (!limits)
        json_put(body, "limits", limits = json_object());
    return argument_put(limits, text);
}

/* argv[0] stands for the command's name. NULL after ctl_usage. */
static json_t *backup_request(int argc, char **argv)
{
    struct option options[OPTIONS_MAX + 1];
    char letters[2 * OPTIONS_MAX + 2];
    json_t *body = json_pack("{s:[], s:[]}", "components", "paths");
    int option;
    optind = 0;
    options_getopt("backup", options, letters);
    while ((option = getopt_long(argc, argv, letters, options, NULL)) != -1) {
        const char *single = option == 'r' ? "repository" : option == 't' ? "type" : option == 'l' ? "label" : option == 'w' ? "writer_failure" : NULL;
        if (option == 'c')
            append(body, "components", component(optarg));
        else if (option == 'p' || option == 'x')
            append(body, option == 'p' ? "paths" : "excludes", argument_path(optarg));
        else if (single)
            json_put(body, single, json_text(optarg));
        else if (option == 'L' ? !limit(body, optarg) : option_refused(option, argv) != 0)
            break;
    }
    if (option == 'L')
        ctl_usage("--limit %s: this is not NAME=VALUE", optarg);
    else if (option == -1 && optind < argc)
        ctl_usage("unexpected argument %s: what is backed up is named by --path or --component", argv[optind]);
    else if (option == -1 && !json_object_get(body, "repository"))
        ctl_usage("--repository NAME is missing: `quiescectl repositories` lists them");
    else if (option == -1)
        return body;
    json_decref(body);
    return NULL;
}

static int backup(struct ctl *ctl, int argc, char **argv)
{
    AUTO_JSON json_t *body = backup_request(argc + 1, argv - 1);
    return body ? watch_call(ctl, "POST", "/backups", body) : CTL_USAGE;
}

/* --- the plan --- */

static void show_rules(const char *word, const json_t *rules)
{
    size_t i;
    const json_t *rule;
    json_array_foreach(rules, i, rule)
    {
        AUTO_FREE char *hint = hint_as_commands(json_str(rule, "hint", ""));
        printf("%s %s: %s\n  %s\n", word, json_str(rule, "rule", ""), json_str(rule, "detail", ""), hint);
    }
}

static void show_plan(const json_t *plan)
{
    static const char *const volumes[] = {"path", "provider", "atomic", "reason", NULL};
    static const char *const freeze[] = {"mount_point", "fs_type", "sync_ms", "#dirty_bytes", "freeze_ms", NULL};
    table_print(json_object_get(plan, "volumes"), volumes);
    if (json_array_size(json_object_get(plan, "freeze")) > 0) {
        puts("\nfrozen, in this order:");
        table_print(json_object_get(plan, "freeze"), freeze);
    }
    printf("\nfreeze window: about %lld ms of %lld ms allowed%s\n", (long long)json_int(plan, "budget_ms", 0), (long long)json_int(plan, "limit_ms", 0),
           json_bool(plan, "parked", false) ? "; the daemon's own store is parked meanwhile" : "");
    show_rules("warning", json_object_get(plan, "warnings"));
    show_rules("refused", json_object_get(plan, "refusals"));
}

static int plan(struct ctl *ctl, int argc, char **argv)
{
    AUTO_JSON json_t *body = backup_request(argc + 1, argv - 1);
    struct err err;
    struct reply reply;
    if (!body)
        return CTL_USAGE;
    json_put(body, "validate_only", json_true());
    if (client_call(ctl->client, "POST", "/backups", body, NULL, &reply, &err) != 0)
        return ctl_unreached(&err);
    AUTO_JSON json_t *answer = json_incref(reply.body);
    int code = answer_check(&reply);
    reply_clear(&reply);
    if (code != CTL_OK)
        return code;
    if (ctl->json)
        answer_print(answer);
    else
        show_plan(answer);
    return json_array_size(json_object_get(answer, "refusals")) > 0 ? CTL_FAILED : CTL_OK;
}

/* --- the catalog --- */

static int list(struct ctl *ctl, int argc, char **argv)
{
    static const char *const columns[] = {"id", "label", "type", "@created_at", "complete", "condition", "files", "#bytes", "repository", "consistency.grade", NULL};
    AUTO_JSON json_t *filters = arguments_object(argc, argv, 0);
    return filters ? answer_list(ctl, "/backups", filters, columns) : CTL_USAGE;
}

static int on_one(struct ctl *ctl, const char *method, const char *id, const char *rest, bool job)
{
    AUTO_FREE char *escaped = client_escape(id), *path = str_new("/backups/%s%s", escaped, rest);
    return job ? watch_call(ctl, method, path, NULL) : answer_call(ctl, method, path, NULL, NULL);
}

static int show(struct ctl *ctl, int argc, char **argv)
{
    return argc == 1 ? on_one(ctl, "GET", argv[0], "", false) : ctl_usage("backup show takes one id");
}

static int files(struct ctl *ctl, int argc, char **argv)
{
    static const char *const columns[] = {"type", "mode", "uid", "gid", "#bytes", "@modified_at", "name", "target", NULL};
    if (argc < 1 || argc > 2)
        return ctl_usage(argc ? "unexpected argument %s: backup files takes BACKUP [PATH]" : "BACKUP is missing: backup files takes BACKUP [PATH]", argc ? argv[2] : "");
    AUTO_FREE char *escaped = client_escape(argv[0]), *path = str_new("/backups/%s/files", escaped);
    AUTO_JSON json_t *filters = json_pack("{s:s}", "path", argc == 2 ? argv[1] : "/");
    return answer_list(ctl, path, filters, columns);
}

static int drop(struct ctl *ctl, int argc, char **argv)
{
    return argc == 1 ? on_one(ctl, "DELETE", argv[0], "", true) : ctl_usage("backup delete takes one id");
}

static int verify(struct ctl *ctl, int argc, char **argv)
{
    return argc == 1 ? on_one(ctl, "POST", argv[0], "/verify", true) : ctl_usage("verify takes one id");
}

static int restore(struct ctl *ctl, int argc, char **argv)
{
    struct option options[OPTIONS_MAX + 1];
    char letters[2 * OPTIONS_MAX + 2];
    AUTO_JSON json_t *body = json_pack("{s:[]}", "paths");
    int option;
    optind = 0;
    options_getopt("restore", options, letters);
    while ((option = getopt_long(argc + 1, argv - 1, letters, options, NULL)) != -1) {
        if (option == 'p')
            append(body, "paths", argument_path(optarg));
        else if (option == 'o' || option == 'i')
            json_put(body, option == 'o' ? "overwrite" : "accept_incomplete", json_true());
        else
            return option_refused(option, argv - 1);
    }
    int words = argc + 1 - optind;
    if (words != 2)
        return words > 2 ? ctl_usage("unexpected argument %s: restore takes BACKUP TARGET", argv[optind + 1])
                         : ctl_usage("%s is missing: restore takes BACKUP TARGET", words == 1 ? "TARGET" : "BACKUP");
    json_put(body, "target", argument_path(argv[optind]));
    AUTO_FREE char *escaped = client_escape(argv[optind - 1]), *path = str_new("/backups/%s/restore", escaped);
    return watch_call(ctl, "POST", path, body);
}

#define WHAT "--repository NAME [--component WRITER[/PATH/NAME]]… [--path PATH]… [--label L] [--type T] [--limit NAME=VALUE]…"
static const struct command rows[] = {
    {"backups", NULL, "[NAME=VALUE…]", "the catalog, newest first", list},
    {"backup", "show", "BACKUP", "one backup", show},
    {"backup", "files", "BACKUP [PATH]", "what one directory of it holds (without PATH, the top): what restore --path can name", files},
    {"backup", "delete", "BACKUP", "remove one from its repository", drop},
    {"backup", NULL, WHAT, "make a backup: frozen, snapshot, thawed, copied, completed", backup},
    {"plan", NULL, "as backup", "what a backup would do, and its freeze window; nothing is run", plan},
    {"restore", NULL, "BACKUP TARGET [--path PATH]… [--overwrite]", "restore beneath restore.roots, and verify", restore},
    {"verify", NULL, "BACKUP", "read it all, and compare it with its manifest", verify},
};
const struct command_table commands_backups = {rows, ELEMENTS(rows)};
