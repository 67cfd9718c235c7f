#include "cli/options.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

#define WHERE "backup|plan"
static const struct ctl_option all[] = {
    {"", "url", O_URL, "URL", false, "the daemon: https://HOST:PORT"},
    {"", "ca", O_CA, "FILE", true, "the CA that its certificate is checked against"},
    {"", "cert", O_CERT, "FILE", true, "who you are: a client certificate"},
    {"", "key", O_KEY, "FILE", true, "the certificate's key"},
    {"", "token-file", O_TOKEN, "FILE", true, "who you are: a file that holds a token's secret, instead of a certificate"},
    {"", "socket", O_SOCKET, "PATH", true, "the local socket of a daemon on this machine, instead of a URL"},
    {"", "ready", O_READY, "FILE", true, "URL, CA and certificate from what `quiesced serve --ready-file` wrote"},
    {"", "json", O_JSON, NULL, false, "documents instead of text on standard output"},
    {"", "quiet", O_QUIET, NULL, false, "no progress"},
    {"", "wait", O_WAIT, NULL, false, "wait for jobs until they end (the default)"},
    {"", "no-wait", O_NO_WAIT, NULL, false, "do not wait for a job: print its id"},
    {"", "limit", O_LIMIT, "N", false, "the most rows of a list (50)"},
    {"", "help", O_HELP, NULL, false, "this; after a command, more about it; with `--json`, as a document"},
    {"", "version", O_VERSION, NULL, false, "the version"},
    {WHERE, "repository", 'r', "REPOSITORY", false, "where the copy goes: one of `quiescectl repositories`"},
    {WHERE, "component", 'c', "WRITER[/PATH/NAME]", false, "a component of a writer; the writer alone means its component of the same name. May be repeated"},
    {WHERE, "path", 'p', "PATH", true, "a file or directory, beside the components. May be repeated"},
    {WHERE, "exclude", 'x', "PATH", true, "leave this out, with all beneath it. May be repeated"},
    {WHERE, "type", 't', "TYPE", false, "full (the default), incremental, differential, log or copy"},
    {WHERE, "label", 'l', "LABEL", false, "the name of the series: `quiescectl status` judges each label by itself"},
    {WHERE, "writer-failure", 'w', "fail|report", false, "what the failure of a writer means: the job fails (the default), or it is reported alone"},
    {WHERE, "limit", 'L', "NAME=VALUE", false, "of the mover: io_class, io_priority, nice or bandwidth_bytes_per_second. May be repeated"},
    {"restore", "path", 'p', "PATH", false, "only this, by its original path. May be repeated"},
    {"restore", "overwrite", 'o', NULL, false, "replace files that are there"},
    {"restore", "accept-incomplete", 'i', NULL, false, "also from a backup that is not complete"},
    {"hold freeze|hold thaw|hold freezefail|hold check", "name", O_LONG, "NAME", false, "which hold (`default`)"},
    {"hold freeze", "guest", O_LONG, NULL, false, "the applications alone: somebody else freezes the file systems"},
    {"hold freeze", "path", O_LONG, "PATH", true, "a file system to freeze, with the applications that have files there; all of them without it. May be repeated"},
    {"hold freeze|hold create", "exclude", O_LONG, "PATH", true, "leave this out. May be repeated"},
    {"hold thaw", "outside-id", O_LONG, "ID", false, "what the snapshot is called where it was taken"},
    {"hold create", "at", O_LONG, "DIR", true, "show it, read-only, at this empty directory beneath one of `expose.roots`"},
    {"hold create", "label", O_LONG, "LABEL", false, "of its session"},
    {"hold create", "at-least", O_LONG, "GRADE", false, "application, filesystem or crash: fail, and leave nothing, where only less can be had"},
    {"events|job log", "follow", 'f', NULL, false, "go on as it happens"},
};

static bool is_of(const char *commands, const char *command)
{
    size_t length = strlen(command);
    if (!*commands || !length)
        return !*commands && !length;
    for (const char *at = commands; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (strncmp(at, command, length) == 0 && (at[length] == '|' || at[length] == '\0'))
            return true;
    return false;
}

const struct ctl_option *option_next(const char *command, const struct ctl_option *before)
{
    for (const struct ctl_option *row = before ? before + 1 : all; row < all + ELEMENTS(all); row++)
        if (is_of(row->commands, command))
            return row;
    return NULL;
}

void options_getopt(const char *command, struct option ret[OPTIONS_MAX + 1], char ret_letters[2 * OPTIONS_MAX + 2])
{
    size_t n = 0, letters = 0;
    opterr = 0; /* option_refused tells */
    ret_letters[letters++] = ':';
    for (const struct ctl_option *row = option_next(command, NULL); row && n < OPTIONS_MAX; row = option_next(command, row)) {
        ret[n++] = (struct option){row->name, row->value ? required_argument : no_argument, NULL, row->id};
        if (row->id >= 256)
            continue;
        ret_letters[letters++] = (char)row->id;
        if (row->value)
            ret_letters[letters++] = ':';
    }
    ret[n] = (struct option){0};
    ret_letters[letters] = '\0';
}

int option_refused(int result, char **argv)
{
    const char *word = argv[optind - 1];
    if (result == ':')
        return ctl_usage("%s needs a value", word);
    if (optopt && optopt < 256 && !str_starts(word, "--"))
        return ctl_usage("unknown option -%c", optopt);
    return ctl_usage(optopt && strchr(word, '=') ? "%s: this option takes no value" : "unknown option %s", word);
}

#define WORDS(command, text, example) {command, text, example},
static const struct ctl_words words[] = {
#include "cli/manual.def"
};
#undef WORDS

const struct ctl_words *words_of(const char *command)
{
    for (size_t i = 0; i < ELEMENTS(words); i++)
        if (str_eq(words[i].command, command))
            return &words[i];
    return NULL;
}

char *command_name(const struct command *command)
{
    return str_new("%s%s%s", command->group, command->name ? " " : "", command->name ? command->name : "");
}
