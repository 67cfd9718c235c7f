#pragma once
/* Am I protected? The rule of docs/monitoring.md, over what GET /backups and GET /sessions list, newest first. The dashboard's is webui/src/model/protection.ts;
 * tests/protection.json holds both to the same answers. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* By label, in the order of their newest backups: {"label" ("": none),"last_good" (a time),"backup_id","freeze_ms","grade","unsound" (the id of the newest complete
 * one, when it is damaged or missing),"newest_condition","late","failed_since"?}. New reference. */
json_t *protection_labels(const json_t *backups, const json_t *sessions, int64_t now_ms);

/* In words, by the worst that any label says: "protected…", "at risk: …" or "not protected: …". all: they are those of everybody. */
const char *protection_words(const json_t *labels, bool all);
/* Which labels those words are about, with commas between them; "" where they are of no one. The caller frees it. */
char *protection_meant(const json_t *labels);
