#pragma once
/* Private to the engine: when the audit trail is sealed (audit_seals.c). */
#include "engine/engine_private.h"

struct audit_seals *audit_seals_new(struct engine *engine, struct err *err); /* with what the store knows */
void audit_seals_free(struct audit_seals *seals);                            /* NULL is fine; when the store is closed */
void audit_seals_begin(struct engine *engine);                               /* recovery is done: what has no seal gets one */
void audit_seals_note(struct engine *engine);                                /* a record more is on its way to the store */
const json_t *audit_seals_newest(const struct engine *engine);               /* borrowed; NULL: there is none */
void audit_seals_warn(const struct engine *engine, json_t *warnings);
struct openmetrics;
void audit_seals_metrics(const struct engine *engine, struct openmetrics *text);
