#pragma once
/* The daemon's hints speak of calls of the API ("GET /whoami shows ..."). Who sits before quiescectl is told the command that makes the call. */
#include <stdio.h>

/* malloc'ed. */
char *hint_as_commands(const char *hint);
/* A line of its own, "  hint: …"; nothing when there is none. */
void hint_print(FILE *to, const char *hint);
