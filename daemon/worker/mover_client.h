#pragma once
/* One mover child: `quiesced-agent --role=mover`, one request, then progress and a last word (docs/architecture.md). */
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

struct worker;

/* Runs one request (borrowed; "verb" and "mover" inside) to its end. Progress goes to core under the name `phase`. When
 * the operation has to stop, the child's standard input is closed; it has 30 s to clean up, then its group is killed.
 * ret_result: new reference. */
int mover_client_run(struct worker *worker, const json_t *request, const char *phase, json_t **ret_result,
                     struct err *err);
/* The same for who waits for the answer of a call, and for no job: after two minutes it is given up as at a cancel, VSS_E_UNEXPECTED. */
int mover_client_ask(struct worker *worker, const json_t *request, const char *phase, json_t **ret_result, struct err *err);
/* Starts a child ahead of its request, which the next mover_client_run finds loaded: most of a short verb is the program's
 * start. Whoever called it calls mover_client_unready when no request comes. */
void mover_client_ready(struct worker *worker);
void mover_client_unready(struct worker *worker);
/* The same of a verb that restores. ret_published: files had begun to go to their places, whatever came afterwards. */
int mover_client_restore(struct worker *worker, const json_t *request, bool *ret_published, json_t **ret_result,
                         struct err *err);
/* The same, but neither a cancel nor a loss ends it: for cleaning up. It has 30 s. */
int mover_client_run_shielded(struct worker *worker, const json_t *request, json_t **ret_result, struct err *err);

/* After a restore that failed: a mover that was killed could not remove its staging directory from the target. restore: its request. */
void mover_client_tidy(struct worker *worker, const json_t *restore);

/* A child that writes data into a pipe: it reads the directory `tree`. Once it runs, its copy of write_end is the only one, and hand_out
 * gets the other end, to send it on and close it (setting it to -1). Ends that are still there afterwards are the caller's. */
struct mover_output {
    int tree, write_end, read_end;
    void (*hand_out)(struct worker *worker, int *read_end);
};
int mover_client_produce(struct worker *worker, const json_t *request, struct mover_output *output, json_t **ret_result, struct err *err);
