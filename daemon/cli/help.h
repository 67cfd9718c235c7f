#pragma once
#include <stdbool.h>

/* quiescectl --help. argv: the words that were given, of which the first ones may name a command or a group. json: all of it as one
 * document, from which man pages are made. Returns an exit code: a command that is none is a mistake of usage. */
int help_print(int argc, char **argv, bool json);
