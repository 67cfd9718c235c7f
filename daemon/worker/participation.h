#pragma once
/* From the chosen components to what each writer is asked about, and to the files that they mean. */
#include <jansson.h>

#include "base/err.h"

struct worker;

/* Takes args.components, backup_state and writer_failure over: each writer's request components; writers without any
 * take no part (in component mode; else all take part with all that they have). */
int participation_take(struct worker *worker, const json_t *args, struct err *err);
/* The same of a restore: args.components come from the document that was stored with the backup. Their writers must be
 * here; whether they still offer such a component does not matter, since it may be what was lost. */
int participation_take_restore(struct worker *worker, const json_t *args, struct err *err);
/* Per chosen component what writers answered: [{"id","backup_stamp","backup_metadata","failure",...}]. New reference.
 */
json_t *participation_answers(const struct worker *worker);

/* What the writer answered about this one, or NULL. Borrowed. */
const json_t *participation_answer(const struct worker *worker, const json_t *chosen);

/* The session's backup type. Borrowed. */
const char *participation_type(const struct worker *worker);

struct participation_file_set {
    const struct writer_entry *entry;
    const json_t *component; /* the API's shape */
    const json_t *set;
};
/* Calls fn for every file set of every chosen component, implicit members included, that this backup type needs; stops
 * at the first -1. components: as in prepare (NULL = those that prepare took). */
int participation_file_sets(const struct worker *worker, const json_t *components,
                            int (*fn)(void *arg, const struct participation_file_set *found, struct err *err),
                            void *arg, struct err *err);
