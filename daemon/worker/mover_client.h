#pragma once
/* One mover child: `quiesced --role=mover`, one request, then progress and a last word (docs/architecture.md). */
#include <jansson.h>

#include "base/err.h"

struct worker;

/* Runs one request (borrowed; "verb" and "mover" inside) to its end. Progress goes to core under the name `phase`. When
 * the operation has to stop, the child's standard input is closed; it has 30 s to clean up, then its group is killed.
 * ret_result: new reference. */
int mover_client_run(struct worker *worker, const json_t *request, const char *phase, json_t **ret_result,
                     struct err *err);
/* The same, but neither a cancel nor a loss ends it: for cleaning up. */
int mover_client_run_shielded(struct worker *worker, const json_t *request, json_t **ret_result, struct err *err);
