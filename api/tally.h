#pragma once
/* How many requests of each operation were answered, and how. */
#include <stdint.h>

#include "api/openapi.gen.h"
#include "base/openmetrics.h"

struct tally;

struct tally *tally_new(void);
void tally_free(struct tally *tally); /* NULL is fine */
/* route: NULL for what belongs to no operation. */
void tally_count(struct tally *tally, const struct api_route *route, int status);
void tally_write(const struct tally *tally, struct openmetrics *text);
