#pragma once
/* Freeze sets of earlier runs of this installation that are still marked as frozen: their guardian and agent are gone, and serve's thaw at
 * its start did not reach or thaw them. They are tried again for as long as there are any,
 * each record in a child of its own, since FITHAW may hang. */
#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/loop.h"

struct left_frozen;

/* changed: other sets than before. */
struct left_frozen *left_frozen_new(struct loop *loop, void (*changed)(void *arg), void *arg);
void left_frozen_free(struct left_frozen *left); /* NULL is fine; children that try go on */
/* start: serve's message ("records", "installation"). Looks at once. */
void left_frozen_begin(struct left_frozen *left, const json_t *start);
/* [{"session","set","since_ms","freeze_ms","file_systems":[mount points]}], borrowed. */
json_t *left_frozen_sets(const struct left_frozen *left);
/* Adds them to what guards_figures counts as frozen. */
void left_frozen_figures(const struct left_frozen *left, json_t *figures);
bool left_frozen_own(const struct left_frozen *left, pid_t pid);
