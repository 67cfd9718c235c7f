#pragma once
/* Has the caller seen this repository before? Then its request's repository has the member "seen": the id that a result told as repository_id,
 * or "" where none is known. Such a one is not made again, and another one at its place is not taken for it. */
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

bool seen_before(const json_t *repository);
/* It was seen, and is not there: VSS_E_OBJECT_NOT_FOUND that names the place. Always -1. */
int seen_missing(const json_t *repository, struct err *err);
/* id: of the one that is there; "" = not known, which is fine, as is one that was not seen before. VSS_E_OBJECT_NOT_FOUND: it is another one. */
int seen_check(const json_t *repository, const char *id, struct err *err);
