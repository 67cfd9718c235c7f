#pragma once
/* Words for a shell's completion: of what is named in a command's line (JOB, SESSION, REPOSITORY, ...), as the daemon knows it just now. */
#include "cli/ctl.h"

/* The kind that stands at that place of a command's arguments, 0 = the first that is no option; of an option: what its value's word says. NULL:
 * nothing is known of it. malloc'ed. Either one of the known names, or choices with | between. */
char *words_kind_at(const struct command *command, int place);
char *words_kind(const char *text);
/* `quiescectl completion words KIND`: a line each, WORD<TAB>MEANING. Says nothing when the daemon does not answer within three seconds. */
int words_print(struct ctl *ctl, const char *kind);
