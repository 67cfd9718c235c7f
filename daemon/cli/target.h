#pragma once
/* Where the daemon is and who calls. In this order: options, environment, the file that `quiescectl login` wrote, the local socket.
 * An object of text members: url, ca, cert, key, token_file, or socket. */
#include <jansson.h>

#include "base/err.h"

/* given: of the options; taken over. NULL with err. */
json_t *target_find(json_t *given, struct err *err);
/* Members of a --ready-file that are not given yet. -1 with err. */
int target_ready(json_t *given, const char *file, struct err *err);
