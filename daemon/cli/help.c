#include "cli/help.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/options.h"

enum { COLUMN = 46 };

static const struct {
    enum ctl_exit code;
    const char *meaning;
} exits[] = {
    {CTL_OK, "done"},
    {CTL_FAILED, "the operation was done, and failed; `plan`: it was refused; `doctor`: something is bad; `status`: not protected"},
    {CTL_USAGE, "usage: nothing was asked of the daemon"},
    {CTL_UNREACHED, "the daemon was not reached, or cannot be trusted, or how a job ends is not known"},
    {CTL_REFUSED, "refused: 401, 403"},
    {CTL_NOT_THERE, "not there: 404, 410"},
    {CTL_BAD_STATE, "the state does not allow it: 409, 412, 422, 428"},
    {CTL_CANCELLED, "the operation ended cancelled (`job cancel`: 0)"},
    {CTL_DAEMON, "the daemon cannot just now: 429, 5xx"},
    {CTL_BAD_ARGUMENT, "the daemon refuses an argument: 400 and other 4xx"},
};

/* --- as text --- */

static void print_row(const char *left, const char *right)
{
    int letters = 0; /* printf counts bytes, and "…" has three of them */
    for (const char *c = left; *c; c++)
        letters += ((unsigned char)*c & 0xc0) != 0x80;
    if (letters > COLUMN - 2)
        printf("  %s\n  %-*s%s\n", left, COLUMN, "", right);
    else
        printf("  %s%-*s%s\n", left, COLUMN - letters, "", right);
}

static void print_command(const struct command *command)
{
    AUTO_FREE char *name = command_name(command), *line = str_new("%s%s%s", name, *command->arguments ? " " : "", command->arguments);
    print_row(line, command->summary);
}

static void print_options(const char *command)
{
    for (const struct ctl_option *row = option_next(command, NULL); row; row = option_next(command, row)) {
        AUTO_FREE char *letter = row->id < 256 ? str_new("-%c, ", row->id) : str_dup("");
        AUTO_FREE char *left = str_new("%s--%s%s%s", letter, row->name, row->value ? " " : "", row->value ? row->value : "");
        print_row(left, row->meaning);
    }
}

/* group NULL: all. Returns how many there are. */
static size_t print_commands(const char *group, const struct command *but)
{
    size_t n = 0;
    for (size_t t = 0; command_tables[t]; t++)
        for (size_t i = 0; i < command_tables[t]->n; i++) {
            const struct command *row = &command_tables[t]->rows[i];
            if (row == but || (group && !str_eq(group, row->group)))
                continue;
            if (n++ == 0 && but)
                puts("\nas well:");
            print_command(row);
        }
    return n;
}

static void print_common(void)
{
    puts("\noptions:");
    print_options("");
    puts("\nURL, CA, CERT, KEY, TOKEN_FILE and SOCKET can stand in the environment, too, as QUIESCED_URL, QUIESCED_CA and so on; `quiescectl login` keeps them.\n\nexit:");
    for (size_t i = 0; i < ELEMENTS(exits); i++)
        printf("  %d  %s\n", exits[i].code, exits[i].meaning);
}

static void print_page(const struct command *command)
{
    AUTO_FREE char *name = command_name(command);
    const struct ctl_words *more = words_of(name);
    printf("usage: quiescectl [OPTIONS] %s%s%s\n\n%s\n", name, *command->arguments ? " " : "", command->arguments, command->summary);
    if (more)
        printf("\n%s\n", more->text);
    if (option_next(name, NULL)) {
        puts("\noptions:");
        print_options(name);
    }
    if (more && *more->example)
        printf("\nexample:\n  %s\n", more->example);
    if (!command->name)
        print_commands(command->group, command);
    puts("\n`quiescectl --help` has the options of every command, and the exit codes.");
}

/* --- as a document --- */

static json_t *options_document(const char *command)
{
    json_t *list = json_array();
    for (const struct ctl_option *row = option_next(command, NULL); row; row = option_next(command, row)) {
        const char letter[2] = {(char)(row->id < 256 ? row->id : 0), '\0'};
        json_add(list, json_pack("{s:s, s:s*, s:s*, s:b, s:s}", "name", row->name, "letter", *letter ? letter : NULL, "value", row->value, "file", row->file, "meaning",
                                 row->meaning));
    }
    return list;
}

static json_t *command_document(const struct command *command)
{
    AUTO_FREE char *name = command_name(command);
    const struct ctl_words *more = words_of(name);
    return json_pack("{s:s, s:s, s:s*, s:s, s:s, s:s, s:s, s:o}", "command", name, "group", command->group, "name", command->name, "arguments", command->arguments,
                     "summary", command->summary, "text", more ? more->text : "", "example", more ? more->example : "", "options", options_document(name));
}

static void print_document(void)
{
    json_t *commands = json_array(), *codes = json_array();
    for (size_t t = 0; command_tables[t]; t++)
        for (size_t i = 0; i < command_tables[t]->n; i++)
            json_add(commands, command_document(&command_tables[t]->rows[i]));
    for (size_t i = 0; i < ELEMENTS(exits); i++)
        json_add(codes, json_pack("{s:i, s:s}", "code", (int)exits[i].code, "meaning", exits[i].meaning));
    AUTO_JSON json_t *document = json_pack("{s:s, s:o, s:o, s:o}", "version", QUIESCED_VERSION, "options", options_document(""), "commands", commands, "exits", codes);
    answer_print(document);
}

int help_print(int argc, char **argv, bool json)
{
    int names = 0;
    const struct command *command = command_find(argc, argv, &names);
    if (json) {
        print_document();
    } else if (command) {
        print_page(command);
    } else if (argc > 0) {
        if (print_commands(argv[0], NULL) == 0)
            return ctl_usage("%s: no such command", argv[0]);
        puts("\n`quiescectl COMMAND --help` has more about each.");
    } else {
        puts("usage: quiescectl [OPTIONS] COMMAND ...\n");
        print_commands(NULL, NULL);
        print_common();
    }
    return CTL_OK;
}
