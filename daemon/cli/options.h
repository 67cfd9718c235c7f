#pragma once
/* Options and words of the commands. Help, completion, man pages and the manual are made from these tables, and getopt's tables, too. */
#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#include "cli/ctl.h"

enum option_id { O_URL = 256, O_CA, O_CERT, O_KEY, O_TOKEN, O_SOCKET, O_READY, O_JSON, O_QUIET, O_WAIT, O_NO_WAIT, O_LIMIT, O_VERSION, O_LONG /* of a command, without a short form */, O_HELP = 'h' };

struct ctl_option {
    const char *commands; /* "" = every one; else their names, with | between them: "events|job log" */
    const char *name;     /* without its dashes */
    int id;               /* below 256: its short form, too */
    const char *value;    /* word for its value; NULL: it takes none */
    bool file;            /* the value is a path on this machine */
    const char *meaning;
};
/* The next option of that command ("" for those of every command) behind `before` (NULL: the first). NULL at the end. */
const struct ctl_option *option_next(const char *command, const struct ctl_option *before);

enum { OPTIONS_MAX = 16 };
/* What getopt_long takes, for one command: its own options; ret_letters has the short forms. */
void options_getopt(const char *command, struct option ret[OPTIONS_MAX + 1], char ret_letters[2 * OPTIONS_MAX + 2]);

/* Which of a command's options getopt has not taken, said by ctl_usage: result is its '?' or ':' (letters begin with ':', opterr is 0).
 * Returns CTL_USAGE. */
int option_refused(int result, char **argv);

/* More about a command than its one line (manual.def): paragraphs with an empty line between, and an example in shell. */
struct ctl_words {
    const char *command, *text, *example;
};
/* NULL: nothing is written about it, which a test does not let pass. */
const struct ctl_words *words_of(const char *command);

/* "job watch"; malloc'ed. */
char *command_name(const struct command *command);
