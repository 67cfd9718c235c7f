/* The catalog of backups, and the jobs on stored backups: restore, verify, remove, scan. */
#include <string.h>

#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

json_t *backup_record(struct job *job, const json_t *session_doc, const json_t *result)
{
    AUTO_JSON json_t *repository = repository_find(job->engine, json_str(job->args, "repository", ""));
    char now[CLOCK_RFC3339_SIZE];
    int64_t at = clock_real_ms();
    const json_t *components = json_object_get(session_private(session_doc), "components");
    AUTO_JSON json_t *document = session_document(job->engine, session_doc);
    json_t *own = json_pack("{s:I, s:O}", "created_ms", (json_int_t)at, "document", document);
    return json_pack("{s:s, s:s, s:s?, s:s, s:s, s:s, s:s, s:b, s:s, s:I, s:I, s:s, s:s, s:O?, s:o}", "id", json_str(job->args, "backup_id", ""),
                     "session_id", json_str(session_doc, "id", ""), "label", json_str(session_doc, "label", NULL), "repository",
                     json_str(job->args, "repository", ""), "mover", json_str(repository, "mover", ""), "data_id", json_str(result, "data_id", ""),
                     "type", choice_type_done(json_object_get(session_doc, "backup_state"), components), "complete", 0, "reason", "BackupComplete has not been called yet", "bytes",
                     (json_int_t)json_int(result, "bytes", 0), "files", (json_int_t)json_int(result, "files", 0), "created_at",
                     clock_rfc3339(at, now), "owner", json_str(session_doc, "owner", ""), "components",
                     components, "_", own);
}

/* What of its document a backup shows: with the rest of it a scan finds it again. */
static const char *const of_document[] = {"freeze", "consistency", NULL};
static const char *const rest_path[] = {"_", "document", NULL};

void catalog_put(struct store_batch *batch, json_t *backup, enum seal_state seal)
{
    json_t *own = json_copy(session_private(backup));
    json_put(own, "unsealed", json_boolean(seal == SEAL_DUE));
    json_put(own, "sealed", json_boolean(seal == SEAL_WRITTEN));
    json_put(backup, "_", own);
    AUTO_JSON json_t *brief = json_copy(backup), *brief_own = json_copy(own), *document = json_copy(json_object_get(own, "document"));
    AUTO_JSON json_t *rest = rest_take(document, rest_path, of_document, false);
    if (document)
        json_put(brief_own, "document", json_incref(document));
    json_put(brief, "_", json_incref(brief_own));
    const char *state = seal == SEAL_DUE ? "unsealed" : json_bool(backup, "complete", false) ? "complete" : "incomplete";
    const struct store_record record = {.id = json_str(backup, "id", ""), .session_id = json_str(backup, "session_id", NULL),
                                        .job_id = json_str(backup, "label", NULL), .operation = json_str(backup, "repository", NULL),
                                        .owner = json_str(backup, "owner", NULL), .state = state,
                                        .created_ms = json_int(own, "created_ms", 0), .doc = brief, .rest = rest};
    store_batch_put(batch, STORE_BACKUP, &record);
    chain_batch_put(batch, backup);
    event_backup(batch, "backup.changed", backup);
}

json_t *catalog_rows(struct engine *engine, const json_t *session_doc, struct err *err)
{
    AUTO_JSON json_t *rows = json_array();
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(session_private(session_doc), "backups"), i, id)
    {
        json_t *backup = NULL;
        if (backup_being_removed(engine, json_string_value(id)))
            continue;
        enum store_result result = store_get(engine->store, STORE_BACKUP, json_string_value(id), &backup, NULL, err);
        if (result == STORE_ERROR)
            return NULL;
        if (result == STORE_OK) /* or deleted meanwhile */
            json_add(rows, backup);
    }
    return TAKE_PTR(rows);
}

void catalog_judge(struct engine *engine, json_t *backup, const json_t *session_doc, const char *reason)
{
    json_t *components = json_object_get(session_private(session_doc), "components"), *own = json_copy(session_private(backup));
    json_put(backup, "complete", json_boolean(!reason));
    json_put(backup, "reason", reason ? json_string(reason) : json_null());
    if (components)
        json_put(backup, "components", json_incref(components));
    json_put(own, "document", session_document(engine, session_doc));
    json_put(backup, "_", own);
}

void catalog_mark(struct engine *engine, struct store_batch *batch, const json_t *session_doc, const char *reason, const json_t *sealed)
{
    struct err err;
    AUTO_JSON json_t *rows = catalog_rows(engine, session_doc, &err);
    size_t i;
    json_t *backup;
    if (!rows && !reason) /* a job may not succeed while its backup stays incomplete; otherwise it says so since it was made */
        store_batch_fail(batch, &err);
    json_array_foreach(rows, i, backup)
    {
        if (reason && json_bool(backup, "complete", false))
            continue; /* every writer was told, and may have dropped its logs: it stays true */
        catalog_judge(engine, backup, session_doc, reason);
        catalog_put(batch, backup, json_has_string(sealed, json_str(backup, "id", "")) ? SEAL_WRITTEN : SEAL_DUE);
    }
}

static json_t *view(struct engine *engine, json_t *doc)
{
    (void)engine;
    json_t *shown = json_copy(doc);
    for (size_t i = 0; of_document[i]; i++) {
        json_t *value = json_object_get(json_object_get(session_private(doc), "document"), of_document[i]);
        json_put(shown, of_document[i], value ? json_incref(value) : json_null());
    }
    static const char *const checked[] = {"condition", "condition_reason", "checked_at"};
    for (size_t i = 0; i < ELEMENTS(checked); i++)
        if (!json_object_get(shown, checked[i]))
            json_put(shown, checked[i], json_null());
    json_put(shown, "sealed", json_boolean(json_bool(session_private(doc), "sealed", false)));
    json_object_del(shown, "_");
    char href[64];
    str_format(href, sizeof href, "/backups/%s", json_str(doc, "id", ""));
    json_put(shown, "_links", json_pack("{s:{s:s}}", "self", "href", href));
    return shown;
}

void engine_backup_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_BACKUP, .session_id = json_str(request->query, "session", NULL),
                                .job_id = json_str(request->query, "label", NULL),
                                .operation = json_str(request->query, "repository", NULL), .brief = true};
    list_answer(engine, request, answer, arg, &query, view);
}

json_t *backup_read(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    json_t *doc = NULL;
    enum store_result result = store_get(engine->store, STORE_BACKUP, request->id, &doc, NULL, &err);
    if (result == STORE_OK && principal_sees_backup(request->principal, json_str(doc, "owner", "")))
        return doc;
    json_decref(doc);
    if (result != STORE_ERROR)
        err_set(&err, VSS_E_OBJECT_NOT_FOUND, "GET /backups lists what there is.", "backup %s: no such backup", request->id);
    answer_error(answer, arg, &err);
    return NULL;
}

void engine_backup_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *doc = backup_read(engine, request, answer, arg);
    if (doc)
        answer_body(answer, arg, 200, view(engine, doc));
}

/* --- jobs without a session --- */

static json_t *given_args(struct job *job)
{
    return json_deep_copy(job->args);
}

static void result_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)batch;
    json_put(task->draft_job, "result", json_is_object(result) ? json_incref((json_t *)result) : json_object());
}

/* "Nothing damaged" is what a verify succeeds with: whatever it found makes it fail. The list stays in the job's result. */
static bool verify_settle(struct task *task, void (*then)(struct task *task))
{
    struct job *job = task->job;
    (void)then;
    if (job->state != JOB_CANCELLING && !job->outcome.hr)
        damage_refuse(json_object_get(job->outcome_result, "damaged"), &job->outcome);
    return false;
}

static void verify_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    result_apply(task, result, batch);
    condition_mark(task, batch, json_str(task->job->args, "backup_id", ""), CONDITION_GOOD, NULL);
}

/* Only what the mover has counted and found: an operation that did not come so far has no result. */
static void verify_failed(struct task *task, const json_t *result, struct store_batch *batch)
{
    if (json_array_size(json_object_get(result, "damaged")) > 0)
        result_apply(task, result, batch);
    condition_of_failure(task, batch, json_str(task->job->args, "backup_id", ""), &task->job->outcome);
}

static void restore_failed(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)result;
    condition_of_failure(task, batch, json_str(task->job->args, "backup_id", ""), &task->job->outcome);
}

static void removed_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    result_apply(task, result, batch);
    const char *id = json_str(task->job->args, "backup_id", "");
    AUTO_JSON json_t *row = NULL;
    if (store_get(task->engine->store, STORE_BACKUP, id, &row, NULL, NULL) == STORE_OK) {
        event_backup(batch, "backup.deleted", row);
        chain_batch_delete(batch, row);
        if (condition_counts(row))
            successes_judge(task, row, false);
    }
    store_batch_delete(batch, STORE_BACKUP, id);
}

/* What a repository tells of one backup, as a row of the catalog. Complete is only what is sealed so. */
static json_t *scanned_row(const json_t *item, const json_t *repository, const char *owner)
{
    const json_t *seal = json_object_get(item, "seal");
    bool complete = json_bool(seal, "complete", false);
    json_t *document = json_object_get(seal, "document");
    if (!json_is_object(document))
        document = json_object_get(item, "document");
    const char *reason = json_str(seal, "reason", "found by a scan: the repository does not tell that BackupComplete was reached");
    return json_pack("{s:s, s:s?, s:s?, s:s, s:s, s:s, s:s, s:b, s:s?, s:I, s:I, s:s?, s:s, s:O?, s:{s:I, s:O?}}", "id",
                     json_str(item, "backup_id", ""), "session_id", json_str(document, "session_id", NULL), "label",
                     json_str(document, "label", NULL), "repository", json_str(repository, "name", ""), "mover",
                     json_str(repository, "mover", ""), "data_id", json_str(item, "data_id", ""), "type",
                     choice_type_done(json_object_get(document, "backup_state"), json_object_get(document, "components")), "complete", complete, "reason",
                     complete ? NULL : reason, "bytes", (json_int_t)json_int(item, "bytes", 0), "files",
                     (json_int_t)json_int(item, "files", 0), "created_at", json_str(item, "created_at", NULL), "owner",
                     json_str(document, "owner", owner), "components", json_object_get(document, "components"), "_", "created_ms",
                     (json_int_t)clock_real_ms(), "document", document);
}

/* True when the row is new to the catalog. What the catalog knows better stays, and the repository is told again. */
static bool take_scanned(struct task *task, const json_t *item, struct store_batch *batch)
{
    AUTO_JSON json_t *known = NULL;
    const json_t *seal = json_object_get(item, "seal");
    const char *id = json_str(item, "backup_id", "");
    enum store_result have = store_get(task->engine->store, STORE_BACKUP, id, &known, NULL, NULL);
    if (have == STORE_NONE) {
        AUTO_JSON json_t *row = scanned_row(item, json_object_get(task->job->args, "repository"), json_str(task->job->doc, "owner", ""));
        catalog_put(batch, row, json_is_object(seal) ? SEAL_WRITTEN : SEAL_NONE);
        if (condition_counts(row))
            successes_judge(task, row, true);
        return true;
    }
    if (have == STORE_OK && json_bool(known, "complete", false) && !json_bool(seal, "complete", false) &&
        !backup_being_removed(task->engine, id))
        catalog_put(batch, known, SEAL_DUE);
    return false;
}

static void scan_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    size_t i;
    json_t *item;
    json_int_t added = 0;
    json_t *damaged = json_array();
    json_array_foreach(json_object_get(result, "items"), i, item)
    {
        const char *id = json_str(item, "backup_id", "");
        if (json_object_get(item, "damaged")) /* told, never filed as if it could be restored */
            json_add(damaged, json_pack("{s:s, s:s}", "backup_id", id, "reason", json_str(item, "damaged", "unreadable")));
        else if (uuid_valid(id) && take_scanned(task, item, batch))
            added++;
    }
    repository_mark(task->engine, batch, json_object_get(task->job->args, "repository"), ""); /* who scans it wants it as it is */
    json_int_t gone = condition_scanned(task, json_object_get(result, "items"), batch);
    json_put(task->draft_job, "result", json_pack("{s:I, s:I, s:I, s:o}", "found", (json_int_t)json_array_size(json_object_get(result, "items")), "added", added,
                                                  "gone", gone, "damaged", damaged));
}

/* A restore that did not end well after its files had begun to go to their places says what is there. The worker's word
 * that it began (progress.phase) is older than the first of them, so that this holds for a mover or worker that died, too. */
static bool restore_settle(struct task *task, void (*then)(struct task *task))
{
    struct job *job = task->job;
    (void)then;
    bool succeeds = job->state != JOB_CANCELLING && !job->outcome.hr;
    if (succeeds || !str_eq(json_str(job->progress, "phase", ""), "publish"))
        return false;
    bool whole = json_bool(job->outcome_result, "verified", false);
    if (!job->cleanup)
        job->cleanup = json_pack("{s:[], s:[], s:[]}", "thawed", "removed", "failed");
    json_put(job->cleanup, "left_behind",
             json_pack("[{s:s, s:s}]", "object", json_str(job->args, "target", ""), "reason",
                       whole ? "everything restored is at its place, and verified: the end came after the last file was moved"
                             : "some of the restored files may be at their places, each of them whole: the end came while they were moved"));
    return false;
}

const struct job_kind job_kind_restore = {
    .name = "Restore", .worker_operation = "restore", .args = given_args,
    .apply = result_apply, .failed = restore_failed, .settle = restore_settle,
};
const struct job_kind job_kind_verify = {
    .name = "Verify", .worker_operation = "verify", .args = given_args,
    .apply = verify_apply, .failed = verify_failed, .settle = verify_settle,
};
const struct job_kind job_kind_remove_backup = {
    .name = "RemoveBackup", .worker_operation = "remove_backup", .args = given_args,
    .apply = removed_apply,
};
const struct job_kind job_kind_scan = {.name = "Scan", .worker_operation = "scan", .args = given_args, .apply = scan_apply};

/* --- a Copy that was cancelled, or failed here, after its data was out --- */

/* It could not be removed: it is told in the catalog, so that it can be removed (or used) later. */
static void keep_remains(struct task *task, const struct err *err)
{
    AUTO_JSON json_t *row = backup_record(task->job, task->session->doc, task->job->outcome_result);
    AUTO_FREE char *reason = str_new("the copy did not end well, and its data could not be removed: %s", err->text);
    struct store_batch *batch = store_batch_new();
    json_put(row, "reason", json_text(reason));
    catalog_put(batch, row, SEAL_DUE);
    store_submit(task->engine->store, batch, NULL, NULL);
}

static void taken_back(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    const char *id = json_str(task->job->args, "backup_id", "");
    if (!task->job->cleanup)
        task->job->cleanup = json_pack("{s:[], s:[], s:[]}", "thawed", "removed", "failed");
    if (reply->err) {
        json_add(json_object_get(task->job->cleanup, "failed"), json_pack("{s:s, s:o}", "object", id, "reason", json_text(reply->err->text)));
        keep_remains(task, reply->err);
    } else {
        json_add(json_object_get(task->job->cleanup, "removed"), json_string(id));
    }
    worker_link_close(TAKE_PTR(task->worker));
    task->then(task);
}

bool copy_settle(struct task *task, void (*then)(struct task *task))
{
    struct job *job = task->job;
    AUTO_JSON json_t *repository = repository_find(task->engine, json_str(job->args, "repository", ""));
    bool succeeds = job->state != JOB_CANCELLING && !job->outcome.hr;
    if (succeeds || !json_str(job->outcome_result, "data_id", NULL) || !repository)
        return false;
    struct worker_link *worker = task->session->worker;
    task->then = then;
    if (!worker_link_alive(worker))
        worker = task->worker = worker_link_new(task->engine->agent, NULL, NULL, NULL);
    static const struct worker_handlers handlers = {.done = taken_back};
    worker_link_run(worker, "remove_backup",
                    json_pack("{s:O, s:s, s:s}", "repository", repository, "backup_id", json_str(job->args, "backup_id", ""), "data_id",
                              json_str(job->outcome_result, "data_id", "")), &handlers, task);
    return true;
}

/* --- the calls --- */

/* Since the call was looked at a session may have chosen the backup to go on from; from now on none does (backup_being_removed). */
static void remove_started(struct job *job)
{
    AUTO_JSON json_t *backup = NULL;
    struct err err;
    const struct worker_reply refused = {.err = &err};
    if (store_get(job->engine->store, STORE_BACKUP, json_str(job->args, "backup_id", ""), &backup, NULL, &err) == STORE_OK &&
        chain_check_session(job->engine, backup, &err))
        job_finish(job, &refused);
    else
        job_run_on_session_worker(job);
}

static void start_job(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg, const struct job_kind *kind,
                      json_t *args /* taken */)
{
    struct err err;
    if (job_admit(engine, &err)) {
        const struct engine_answer refused = {.err = &err, .retry_after = 5};
        answer(arg, &refused);
        json_decref(args);
        return;
    }
    job_create(task_new(engine, request, answer, arg), kind, args, kind == &job_kind_remove_backup ? remove_started : job_run_on_session_worker);
}

json_t *backup_for_worker(struct engine *engine, const json_t *backup, struct err *err)
{
    const char *name = json_str(backup, "repository", "");
    AUTO_JSON json_t *repository = repository_find(engine, name);
    if (repository)
        return json_pack("{s:O, s:s, s:s}", "repository", repository, "backup_id", json_str(backup, "id", ""), "data_id", json_str(backup, "data_id", ""));
    err_set(err, VSS_E_OBJECT_NOT_FOUND, "Add the repository again, under the same name.", "repository %s of this backup is not there", name);
    return NULL;
}

/* The same; answers and returns NULL when it cannot be. */
static json_t *backup_args(struct engine *engine, const json_t *backup, engine_answer_fn answer, void *arg)
{
    struct err err;
    json_t *args = backup_for_worker(engine, backup, &err);
    if (!args)
        answer_error(answer, arg, &err);
    return args;
}

void engine_backup_verify(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *backup = backup_read(engine, request, answer, arg);
    json_t *args = backup ? backup_args(engine, backup, answer, arg) : NULL;
    if (args)
        start_job(engine, request, answer, arg, &job_kind_verify, args);
}

/* Answers, and returns true, when it must stay. */
static bool refuse_dependents(struct engine *engine, const json_t *backup, engine_answer_fn answer, void *arg)
{
    struct err err;
    AUTO_JSON json_t *dependents = NULL;
    if (chain_check_unused(engine, backup, &dependents, &err) == 0)
        return false;
    AUTO_JSON json_t *extra = dependents ? json_pack("{s:O}", "dependents", dependents) : NULL;
    const struct engine_answer refused = {.err = &err, .extra = extra};
    answer(arg, &refused);
    return true;
}

void engine_backup_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *backup = backup_read(engine, request, answer, arg);
    if (!backup)
        return;
    struct err err;
    if (!principal_may_change(request->principal, json_str(backup, "owner", ""))) {
        err_set(&err, E_ACCESSDENIED, NULL, "backup %s belongs to another principal", request->id);
        answer_error(answer, arg, &err);
        return;
    }
    if (refuse_dependents(engine, backup, answer, arg))
        return;
    json_t *args = backup_for_worker(engine, backup, &err);
    if (args) {
        start_job(engine, request, answer, arg, &job_kind_remove_backup, args);
        return;
    }
    str_copy(err.hint, sizeof err.hint,
             "Add the repository again under the same name (POST /repositories), then delete the backup. Where its data is lost, an empty new "
             "repository of that name does: what is not in it is deleted from the catalog alone.");
    answer_error(answer, arg, &err);
}

int restore_path_allowed(struct engine *engine, const char *path, const char *pointer, struct err *err)
{
    const json_t *roots = json_object_get(json_object_get(engine->config, "restore"), "roots");
    if (!path_is_canonical(path))
        return err_invalid(err, pointer, "must be an absolute path without '.', '..' or empty parts");
    size_t i;
    json_t *root;
    bool beneath = false;
    json_array_foreach(roots, i, root) beneath = beneath || path_beneath(path, json_string_value(root));
    if (!beneath) {
        err_invalid(err, pointer, "%s is not beneath a restore root", path);
        str_copy(err->hint, sizeof err->hint, json_array_size(roots) ? "By restore.roots, restores may go beneath"
                                                                     : "Set restore.roots in the configuration: it names where restores may go.");
        json_array_foreach(roots, i, root)
        { /* what does not fit is left out */
            size_t length = strlen(err->hint);
            str_format(err->hint + length, sizeof err->hint - length, "%s %s", i ? ", or beneath" : "", json_string_value(root));
        }
        return -1;
    }
    return 0;
}

int restore_accepts(const json_t *backup, bool accepted, struct err *err)
{
    if (!json_bool(backup, "complete", false) && !accepted)
        return err_set(err, VSS_E_BAD_STATE, "Restore it all the same with \"accept_incomplete\": true.", "backup %s is not complete: %s",
                       json_str(backup, "id", ""), json_str(backup, "reason", "unknown reason"));
    return 0;
}

void engine_backup_restore(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    AUTO_JSON json_t *backup = backup_read(engine, request, answer, arg);
    if (!backup)
        return;
    if (restore_path_allowed(engine, json_str(request->body, "target", ""), "/target", &err) ||
        restore_accepts(backup, json_bool(request->body, "accept_incomplete", false), &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    json_t *args = backup_args(engine, backup, answer, arg);
    if (!args)
        return;
    json_t *paths = json_object_get(request->body, "paths");
    json_put(args, "target", json_string(json_str(request->body, "target", "")));
    json_put(args, "paths", paths ? json_incref(paths) : json_array());
    json_put(args, "overwrite", json_boolean(json_bool(request->body, "overwrite", false)));
    start_job(engine, request, answer, arg, &job_kind_restore, args);
}

void engine_repository_scan(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *repository = repository_find(engine, request->id);
    if (!repository) {
        struct err err;
        err_set(&err, VSS_E_OBJECT_NOT_FOUND, "GET /repositories lists what there is.", "repository %s: no such repository", request->id);
        answer_error(answer, arg, &err);
        return;
    }
    start_job(engine, request, answer, arg, &job_kind_scan, json_pack("{s:O}", "repository", repository));
}
