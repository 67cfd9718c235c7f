/* quiescectl: the API for people and scripts. Options, then a command of the tables below. */
#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/client.h"
#include "cli/ctl.h"
#include "cli/help.h"
#include "cli/hint.h"
#include "cli/near.h"
#include "cli/options.h"
#include "cli/target.h"

const struct command_table *const command_tables[] = {
    &commands_status, &commands_doctor, &commands_backups, &commands_jobs,   &commands_events,     &commands_sessions,
    &commands_lists,  &commands_repositories, &commands_access, &commands_hold, &commands_target, &commands_completion, NULL,
};

/* What the words named, for ctl_usage: whose help has more. */
static const struct command *meant;

int ctl_usage(const char *fmt, ...)
{
    AUTO_FREE char *name = meant ? command_name(meant) : NULL;
    va_list list;
    va_start(list, fmt);
    fputs("quiescectl: ", stderr);
    vfprintf(stderr, fmt, list);
    if (name)
        fprintf(stderr, "\n  `quiescectl %s --help` has more\n", name);
    else
        fputs("\n  `quiescectl --help` lists the commands\n", stderr);
    va_end(list);
    return CTL_USAGE;
}

int ctl_unreached(const struct err *err)
{
    fprintf(stderr, "quiescectl: %s\n", err->text);
    hint_print(stderr, err->hint);
    return CTL_UNREACHED;
}

const char *argument_trim(char *path)
{
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/'; length--)
        path[length - 1] = '\0';
    return path;
}

json_t *argument_path(const char *path)
{
    AUTO_FREE char *plain = str_dup(path);
    return json_text(argument_trim(plain));
}

bool argument_put(json_t *object, const char *argument)
{
    const char *equals = strchr(argument, '=');
    if (!equals || equals == argument)
        return false;
    AUTO_FREE char *key = str_new("%.*s", (int)(equals - argument), argument);
    json_t *value = strchr("{[tfn-0123456789", equals[1]) && equals[1] ? json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (!value)
        value = str_eq(key, "path") && equals[1] == '/' ? argument_path(equals + 1) : json_string(equals + 1);
    if (!value)
        return false;
    json_put(object, key, value);
    return true;
}

json_t *arguments_object(int argc, char **argv, int from)
{
    json_t *object = json_object();
    for (int i = from; i < argc; i++) {
        if (argument_put(object, argv[i]))
            continue;
        ctl_usage("%s: this is not NAME=VALUE", argv[i]);
        json_decref(object);
        return NULL;
    }
    return object;
}

/* --- options --- */

/* 0 = go on, else an exit code + 1. */
static int take_option(struct ctl *ctl, json_t *given, int option, const char *value)
{
    static const char *const members[] = {"url", "ca", "cert", "key", "token_file", "socket"};
    struct err err;
    int64_t limit;
    if (option >= O_URL && option <= O_SOCKET)
        json_put(given, members[option - O_URL], json_text(value));
    if (option == O_READY && target_ready(given, value, &err) != 0)
        return 1 + ctl_unreached(&err);
    if (option == O_LIMIT) {
        if (!str_to_int(value, 1, 1000000, &limit))
            return 1 + ctl_usage("--limit %s: a number from 1 to 1000000", value);
        ctl->limit = (int)limit;
        ctl->limited = true;
    }
    ctl->json = ctl->json || option == O_JSON;
    ctl->quiet = ctl->quiet || option == O_QUIET;
    if (option == O_WAIT || option == O_NO_WAIT)
        ctl->wait = option == O_WAIT;
    if (option == O_VERSION)
        puts("quiescectl " QUIESCED_VERSION);
    return option == O_VERSION ? 1 + CTL_OK : 0;
}

static const struct ctl_option *option_of(const char *argument)
{
    size_t length = strcspn(argument, "=");
    for (const struct ctl_option *row = option_next("", NULL); row; row = option_next("", row))
        if (str_starts(argument, "--") && strlen(row->name) == length - 2 && strncmp(row->name, argument + 2, length - 2) == 0)
            return row;
    return NULL;
}

/* Has the command of the words so far an option of that name? Then it is meant. */
static bool is_commands_own(int n_words, char **words, const char *name)
{
    int names = 0;
    const struct command *command = command_find(n_words, words, &names);
    if (!command)
        return false;
    AUTO_FREE char *command_is = command_name(command);
    for (const struct ctl_option *row = option_next(command_is, NULL); row; row = option_next(command_is, row))
        if (str_eq(row->name, name))
            return true;
    return false;
}

/* Ours may stand anywhere, also after the command, whose own stay. Returns as take_option; *argc and argv are what is left. */
static int take_options(struct ctl *ctl, json_t *given, int *argc, char **argv, bool *ret_help)
{
    int kept = 0, code = 0;
    for (int i = 1; i < *argc && code == 0; i++) {
        const struct ctl_option *row = option_of(argv[i]);
        char *equals = strchr(argv[i], '=');
        if (row && is_commands_own(kept, argv, row->name))
            row = NULL;
        if (str_eq(argv[i], "-h") || (row && row->id == O_HELP)) {
            *ret_help = true;
        } else if (!row) {
            argv[kept++] = argv[i];
        } else if (!row->value && equals) {
            code = 1 + ctl_usage("--%s takes no value", row->name);
        } else if (row->value && !equals && i + 1 >= *argc) {
            code = 1 + ctl_usage("--%s needs a value", row->name);
        } else {
            code = take_option(ctl, given, row->id, !row->value ? NULL : equals ? equals + 1 : argv[++i]);
        }
    }
    *argc = kept;
    argv[kept] = NULL;
    return code;
}

const struct command *command_find(int argc, char **argv, int *ret_names)
{
    for (size_t t = 0; command_tables[t]; t++)
        for (size_t i = 0; i < command_tables[t]->n; i++) {
            const struct command *row = &command_tables[t]->rows[i];
            *ret_names = row->name ? 2 : 1;
            if (argc >= *ret_names && str_eq(row->group, argv[0]) && (!row->name || str_eq(row->name, argv[1])))
                return row;
        }
    return NULL;
}

/* A word that is of the command's own options is read by the command; of one that has none it is none of anybody's. */
static const char *option_of_nobody(const struct command *command, int argc, char **argv)
{
    AUTO_FREE char *name = command_name(command);
    for (int i = 0; !option_next(name, NULL) && i < argc; i++)
        if (argv[i][0] == '-' && argv[i][1])
            return argv[i];
    return NULL;
}

static int no_command(int argc, char **argv)
{
    if (argv[0][0] == '-')
        return ctl_usage("unknown option %s", argv[0]);
    AUTO_FREE char *near = command_near(argc, argv);
    bool group = command_is_group(argv[0]);
    const char *second = group && argc > 1 ? argv[1] : "";
    if (group && !*second)
        return ctl_usage("%s: what of it? `quiescectl %s --help` lists what there is", argv[0], argv[0]);
    return ctl_usage("%s%s%s: no such command%s%s%s", argv[0], *second ? " " : "", second, near ? "; did you mean `quiescectl " : "", near ? near : "", near ? "`?" : "");
}

static int run(struct ctl *ctl, json_t *given, int argc, char **argv)
{
    struct err err;
    int names = 0;
    const struct command *command = meant = command_find(argc, argv, &names);
    if (!command)
        return no_command(argc, argv);
    const char *unknown = option_of_nobody(command, argc - names, argv + names);
    if (unknown)
        return ctl_usage("unknown option %s", unknown);
    ctl->target = target_find(json_incref(given), &err);
    ctl->client = ctl->target ? client_new(ctl->target, &err) : NULL;
    if (!ctl->client)
        return ctl_unreached(&err);
    if (!ctl->json)
        client_for_people(ctl->client);
    return command->run(ctl, argc - names, argv + names);
}

int main(int argc, char **argv)
{
    struct ctl ctl = {.wait = true, .limit = 50};
    AUTO_JSON json_t *given = json_object();
    bool help = false;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int code = take_options(&ctl, given, &argc, argv, &help);
    if (code != 0) {
        code--;
    } else if (help) {
        code = help_print(argc, argv, ctl.json);
    } else if (argc > 0) {
        code = run(&ctl, given, argc, argv);
    } else {
        help_print(0, argv, false);
        code = CTL_USAGE;
    }
    client_free(ctl.client);
    json_decref(ctl.target);
    curl_global_cleanup();
    return code;
}
