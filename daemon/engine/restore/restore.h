#pragma once
/* Private to the engine: restore sessions. */
#include "engine/engine_private.h"

/* --- restore_chain.c --- */
/* Is it a log backup of a writer that restores the whole chain at once? */
bool chain_rolls(const json_t *session_doc, const json_t *component);
/* ret, new reference: {"links": oldest first [{"backup_id" (null: the session's own, made from a document),"backup_type","backup_stamp",
 * "previous_stamp","previous_backup_id","backup_metadata"}], "file_sets": those of the first}. -1: VSS_E_BAD_STATE, reason chain_gap, names
 * the link that is missing; E_ACCESSDENIED: the first one's files may not come back where they were. */
int chain_of(struct task *task, const json_t *component, json_t **ret, struct err *err);
struct chain_files {
    json_t *items, *links; /* appended to: what RestoreFiles is asked for; an item's `from` counts links */
    const char *target;    /* where logs go: as the writer said in PreRestore */
};
int chain_files(struct task *task, const json_t *component, const json_t *chain, const json_t *own, struct chain_files *ret, struct err *err);

/* --- restore.c, restore_document.c --- */
/* VSS_E_INVALID_XML_DOCUMENT names what is wrong. */
int restore_document_check(const json_t *document, struct err *err);
json_t *restore_components(const json_t *document); /* of a document that was checked; new reference */
/* The members of PATCH that only a restore has: may they be set, and setting those that are no plain members of the component. */
int restore_patch_check(const json_t *doc, const json_t *component, const json_t *body, struct err *err);
void restore_patch_apply(json_t *component, const json_t *body);
