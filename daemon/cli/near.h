#pragma once
/* Which command somebody may have meant who has mistyped one. */
#include <stdbool.h>

/* Is it the first word of commands of two? */
bool command_is_group(const char *word);
/* The name of the nearest command ("job list"), malloc'ed; NULL: none is near. argc > 0. */
char *command_near(int argc, char **argv);
