#pragma once
/* What a token is limited to, beside its role. A scope is `read` (every GET), a path of the contract or the beginning of one
 * (`/backups`: that and all beneath it), `read:` and such a path, or one operation by its operationId (`backupCreate`). */
#include <jansson.h>
#include <stdbool.h>

#include "api/openapi.gen.h"

/* Does one of the scopes cover the operation? No scopes at all limit nothing; GET /whoami is always covered. */
bool scope_covers(const json_t *scopes, const struct api_route *route);
/* Is it part of taking a snapshot, of showing it and of removing it? That is all that a principal confined to paths may do. */
bool scope_is_snapshot(const struct api_route *route);
/* Does the scope cover any operation of the contract? One that does not is a mistake. */
bool scope_known(const char *scope);
