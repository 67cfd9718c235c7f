#pragma once
/* Private to the engine: the audit trail. */
#include "engine/engine_private.h"

/* --- audit.c --- */
/* The intent of an audited call, if it is not written yet, into the batch of its effect. request may be NULL. */
void audit_batch_put(const struct engine_request *request, struct store_batch *batch);
void audits_frozen(struct engine *engine); /* the store has just been parked, or a session's window has opened */
bool audit_thaws(struct engine *engine, const struct engine_request *request); /* an audited call that ends a freeze: it does not wait for the store */
/* Intents whose outcome a crash took: into batch, that it is not known. */
int audits_recover(struct engine *engine, struct store_batch *batch, struct err *err);
/* What gathers is handed to the store now; done is called when it and everything before it is there, or refused. */
void audits_flush(struct engine *engine, store_done_fn done, void *arg);
/* The outcome of a call that has none yet, with `extra` members (borrowed; may be NULL). */
void audit_outcome(struct engine *engine, struct engine_request *request, const struct engine_answer *answer, const json_t *extra);
void audits_end(struct engine *engine);  /* when the engine ends, before the store */
void audits_free(struct engine *engine); /* when the engine ends, after the store */

/* --- audit_refusals.c --- */
void refusals_end(struct engine *engine); /* when the engine ends: what was not told yet goes to the outcomes that gather */
