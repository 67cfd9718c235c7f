#pragma once
/* Private to the engine: POST /backups, the catalog, the chains of backups, repositories and their seal. */
#include "engine/engine_private.h"

/* --- backup.c --- */
void lifecycle_cancel(struct job *job);
int paths_canonical(const json_t *paths, const char *member, struct err *err); /* E_INVALIDARG at /member/N */
void lifecycle_sealed(struct job *job);
json_t *lifecycle_result(const struct job *job); /* what it made, as far as it came; new reference */
void lifecycle_free(struct lifecycle *life); /* NULL is fine */

/* --- choice.c --- */
/* Appends to chosen the components that wanted names ([{"writer","logical_path","name"}]), the required ones of their writers, and
 * what any of these depends on. writers: as GatherWriterMetadata gave them. */
int choice_components(const json_t *writers, const json_t *wanted, json_t *chosen, struct err *err);
/* What the session's type is to each chosen component: its member backup_type. */
void choice_types(const json_t *writers, const char *type, json_t *chosen);
/* Incremental, differential, log: of what has been before. */
bool choice_goes_on(const char *type);
/* The type of a backup as a whole, of its backup_state and the components with their backup_type: what goes on from nothing in any of its parts
 * (paths alone; writers that do not know the type) is full, whatever was asked for (vss-model 4.10). */
const char *choice_type_done(const json_t *state, const json_t *components);
struct choice_chain {
    struct engine *engine;
    const json_t *writers;
    const char *type, *repository, *owner;
    bool any_owner; /* the caller sees everybody's backups */
};
/* choice_types, and for an incremental, differential or log backup where each component goes on from, by the catalog: its members
 * previous_stamp and previous_backup_id. VSS_E_BAD_STATE, reason no_previous_backup, when one cannot. */
int choice_previous(const struct choice_chain *chain, json_t *chosen, struct err *err);

/* --- chain.c --- */
/* The rows by which the backup's place among those that go on from one another is found, with the record and away with it. */
void chain_batch_put(struct store_batch *batch, const json_t *backup);
void chain_batch_delete(struct store_batch *batch, const json_t *backup);
/* 0, or -1 with VSS_E_BAD_STATE, reason has_dependents: other backups (ret_dependents: their ids, new reference; NULL when it is none of the
 * catalog) go on from it, or a session is making one. */
int chain_check_unused(struct engine *engine, const json_t *backup, json_t **ret_dependents, struct err *err);
/* Only whether a session is making one that goes on from it; the same error. */
int chain_check_session(struct engine *engine, const json_t *backup, struct err *err);
bool chain_same_component(const json_t *a, const json_t *b); /* of the same writer, the same name */
/* Appends to ids the backups, newest first, in which the component bears the stamp; but for one. */
int chain_find_stamp(struct engine *engine, const json_t *component, const char *stamp, const char *but, json_t *ids, struct err *err);

/* --- catalog.c, repositories.c --- */
json_t *repository_find(struct engine *engine, const char *name); /* new reference, or NULL */
/* --- repository_marks.c --- */
/* The same for a worker's copy: has "seen" when it was there before (movers/seen.h). */
json_t *repository_for_copy(struct engine *engine, const char *name);
/* It is there, as the one with that id ("" = not known: the next copy's counts). */
void repository_mark(struct engine *engine, struct store_batch *batch, const json_t *repository, const char *repository_id);

/* What holds for one copy into it. *ret_limits NULL: nothing does. E_INVALIDARG when the two cannot be had together. */
int repository_limits(const json_t *repository, const json_t *asked, json_t **ret_limits, struct err *err);
json_t *repositories_all(struct engine *engine);
/* Do those made over the API and the configuration of now get along? What does not is logged, and told by GET /health/ready. */
void repositories_look(struct engine *engine);
/* The places of those that lie on this host, configured or made over the API. New reference. */
json_t *repository_paths(struct engine *engine); /* new reference to an array of those that can be read */
/* Marks the backups of a session in a batch: complete (reason NULL), or why they are not; one that is complete stays so.
 * sealed: ids whose repository knows it already, or NULL. */
void catalog_mark(struct engine *engine, struct store_batch *batch, const json_t *session_doc, const char *reason, const json_t *sealed);
/* New reference: the rows of a session's backups; NULL with err when one cannot be read. */
json_t *catalog_rows(struct engine *engine, const json_t *session_doc, struct err *err);
/* What BackupComplete made of one row: complete, reason, components, document. */
void catalog_judge(struct engine *engine, json_t *backup, const json_t *session_doc, const char *reason);
/* Does the repository know what the row says? A copy of which nothing is decided needs no seal: without one it counts as incomplete. */
enum seal_state { SEAL_NONE, SEAL_DUE, SEAL_WRITTEN };
void catalog_put(struct store_batch *batch, json_t *backup, enum seal_state seal);
/* Is path canonical and beneath a restore root? E_INVALIDARG at pointer. */
int restore_path_allowed(struct engine *engine, const char *path, const char *pointer, struct err *err);
/* An incomplete backup is restored only when its caller accepts that. */
int restore_accepts(const json_t *backup, bool accepted, struct err *err);
/* The record that the call names, as far as its caller may see it. New reference; answers and returns NULL when there is none. */
json_t *backup_read(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);
/* {"repository","backup_id","data_id"} for a worker; NULL with err when the repository is not known. */
json_t *backup_for_worker(struct engine *engine, const json_t *backup, struct err *err);
/* Is a job under way that removes it? */
bool backup_being_removed(struct engine *engine, const char *backup_id);
/* A Copy that was cancelled after its data was out: the data goes, or is told. settle of job_kind_copy. */
bool copy_settle(struct task *task, void (*then)(struct task *task));

/* --- condition.c --- */
/* 0 when there is none; else -1 with ERROR_FILE_CORRUPT that counts them and names the first. damaged: [{"path","reason"}]. */
int damage_refuse(const json_t *damaged, struct err *err);
/* What a verify, a restore or a scan has found out about a backup, in its record: members condition, condition_reason, checked_at. */
enum condition { CONDITION_UNKNOWN, CONDITION_GOOD, CONDITION_DAMAGED, CONDITION_MISSING };
bool condition_bad(const json_t *backup); /* damaged or missing: nothing to rely on */
bool condition_counts(const json_t *backup); /* as one to rely on: complete, of every component, with files in it, and not known to be bad */
/* Into batch, unless the record is gone or going. reason NULL: none. */
void condition_mark(struct task *task, struct store_batch *batch, const char *backup_id, enum condition condition, const char *reason);
/* By what reading the backup failed with: damaged, missing, or nothing known. */
void condition_of_failure(struct task *task, struct store_batch *batch, const char *backup_id, const struct err *err);
/* Holds the catalog of the job's repository against what a scan has listed; the return value is how many are missing. */
json_int_t condition_scanned(struct task *task, const json_t *items, struct store_batch *batch);

/* --- seal.c --- */
/* BackupComplete has succeeded: the repositories are told before anybody else is. settle of job_kind_complete. */
bool seal_before_end(struct task *task, void (*then)(struct task *task));
/* Somebody waits for the job's end: it no longer waits for a repository that does not answer. */
void seal_hurry(struct job *job);
/* POST /backups, after its complete phase; lifecycle_sealed follows. */
void seal_after_complete(struct job *job);
/* Seals in the background what the catalog knows and the repositories do not. */
void seal_rest(struct engine *engine);
void seal_stop(struct engine *engine);
