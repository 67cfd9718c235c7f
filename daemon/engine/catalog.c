/* The catalog of backups, and the jobs on stored backups: restore, verify, remove, scan. */
#include "engine/engine_private.h"

json_t *backup_record(struct job *job, const json_t *session_doc, const json_t *result)
{
    AUTO_JSON json_t *repository = repository_find(job->engine, json_str(job->args, "repository", ""));
    char now[CLOCK_RFC3339_SIZE];
    int64_t at = clock_real_ms();
    const json_t *state = json_object_get(session_doc, "backup_state");
    AUTO_JSON json_t *document = session_document(job->engine, session_doc);
    json_t *own = json_pack("{s:I, s:O}", "created_ms", (json_int_t)at, "document", document);
    return json_pack("{s:s, s:s, s:s?, s:s, s:s, s:s, s:s, s:b, s:s, s:I, s:I, s:s, s:s, s:O?, s:o}", "id", json_str(job->args, "backup_id", ""),
                     "session_id", json_str(session_doc, "id", ""), "label", json_str(session_doc, "label", NULL), "repository",
                     json_str(job->args, "repository", ""), "mover", json_str(repository, "mover", ""), "data_id", json_str(result, "data_id", ""),
                     "type", json_str(state, "type", "full"), "complete", 0, "reason", "BackupComplete has not been called yet", "bytes",
                     (json_int_t)json_int(result, "bytes", 0), "files", (json_int_t)json_int(result, "files", 0), "created_at",
                     clock_rfc3339(at, now), "owner", json_str(session_doc, "owner", ""), "components",
                     json_object_get(session_private(session_doc), "components"), "_", own);
}

void backup_batch_put(struct store_batch *batch, const json_t *doc)
{
    const struct store_record record = {.id = json_str(doc, "id", ""), .session_id = json_str(doc, "session_id", NULL),
                                        .owner = json_str(doc, "owner", NULL), .state = json_bool(doc, "complete", false) ? "complete" : "incomplete",
                                        .created_ms = json_int(session_private(doc), "created_ms", 0), .doc = (json_t *)doc};
    store_batch_put(batch, STORE_BACKUP, &record);
}

void catalog_mark(struct engine *engine, struct store_batch *batch, const json_t *session_doc, bool complete, const char *reason)
{
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(session_private(session_doc), "backups"), i, id)
    {
        AUTO_JSON json_t *backup = NULL;
        if (store_get(engine->store, STORE_BACKUP, json_string_value(id), &backup, NULL, NULL) != STORE_OK)
            continue;
        json_put(backup, "complete", json_boolean(complete));
        json_put(backup, "reason", reason ? json_string(reason) : json_null());
        json_t *components = json_object_get(session_private(session_doc), "components");
        if (components)
            json_put(backup, "components", json_incref(components));
        backup_batch_put(batch, backup);
    }
}

static json_t *view(struct engine *engine, json_t *doc)
{
    (void)engine;
    json_t *shown = json_copy(doc);
    json_object_del(shown, "_");
    char href[64];
    str_format(href, sizeof href, "/backups/%s", json_str(doc, "id", ""));
    json_put(shown, "_links", json_pack("{s:{s:s}}", "self", "href", href));
    return shown;
}

void engine_backup_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct store_query query = {.kind = STORE_BACKUP, .session_id = json_str(request->query, "session", NULL)};
    list_answer(engine, request, answer, arg, &query, view);
}

static json_t *backup_read(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    json_t *doc = NULL;
    enum store_result result = store_get(engine->store, STORE_BACKUP, request->id, &doc, NULL, &err);
    if (result == STORE_OK && principal_sees(request->principal, json_str(doc, "owner", "")))
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

static void removed_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    result_apply(task, result, batch);
    store_batch_delete(batch, STORE_BACKUP, json_str(task->job->args, "backup_id", ""));
}

/* What the repository says it holds comes back into the catalog; what the catalog knows better stays. */
static void scan_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    size_t i;
    json_t *item;
    json_int_t added = 0;
    json_t *damaged = json_array();
    const json_t *repository = json_object_get(task->job->args, "repository");
    json_array_foreach(json_object_get(result, "items"), i, item)
    {
        AUTO_JSON json_t *known = NULL;
        const char *id = json_str(item, "backup_id", "");
        if (json_object_get(item, "damaged")) { /* told, never filed as if it could be restored */
            json_add(damaged, json_pack("{s:s, s:s}", "backup_id", id, "reason", json_str(item, "damaged", "unreadable")));
            continue;
        }
        if (!uuid_valid(id) || store_get(task->engine->store, STORE_BACKUP, id, &known, NULL, NULL) == STORE_OK)
            continue;
        json_t *document = json_object_get(item, "document");
        json_t *own = json_pack("{s:I, s:O?}", "created_ms", (json_int_t)clock_real_ms(), "document", document);
        AUTO_JSON json_t *doc = json_pack(
            "{s:s, s:s?, s:s?, s:s, s:s, s:s, s:s, s:b, s:s, s:I, s:I, s:s?, s:s, s:O?, s:o}", "id", id, "session_id",
            json_str(document, "session_id", NULL), "label", json_str(document, "label", NULL), "repository", json_str(repository, "name", ""),
            "mover", json_str(repository, "mover", ""), "data_id", json_str(item, "data_id", ""), "type",
            json_str(json_object_get(document, "backup_state"), "type", "full"), "complete", 0, "reason",
            "found by a scan: the repository does not tell whether BackupComplete was reached", "bytes", (json_int_t)json_int(item, "bytes", 0), "files",
            (json_int_t)json_int(item, "files", 0), "created_at", json_str(item, "created_at", NULL), "owner",
            json_str(document, "owner", json_str(task->job->doc, "owner", "")), "components", json_object_get(document, "components"), "_", own);
        backup_batch_put(batch, doc);
        added++;
    }
    json_put(task->draft_job, "result", json_pack("{s:I, s:I, s:o}", "found", (json_int_t)json_array_size(json_object_get(result, "items")), "added", added,
                                                  "damaged", damaged));
}

const struct job_kind job_kind_restore = {"Restore", 0, "restore", given_args, result_apply, 0, false, false};
const struct job_kind job_kind_verify = {"Verify", 0, "verify", given_args, result_apply, 0, false, false};
const struct job_kind job_kind_remove_backup = {"RemoveBackup", 0, "remove_backup", given_args, removed_apply, 0, false, false};
const struct job_kind job_kind_scan = {"Scan", 0, "scan", given_args, scan_apply, 0, false, false};

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
    job_create(task_new(engine, request, answer, arg), kind, args, job_run_on_session_worker);
}

/* {"repository","backup_id","data_id"} of a stored backup; answers and returns NULL when it cannot be. */
static json_t *backup_args(struct engine *engine, const json_t *backup, engine_answer_fn answer, void *arg)
{
    const char *name = json_str(backup, "repository", "");
    AUTO_JSON json_t *repository = repository_find(engine, name);
    if (repository)
        return json_pack("{s:O, s:s, s:s}", "repository", repository, "backup_id", json_str(backup, "id", ""), "data_id", json_str(backup, "data_id", ""));
    struct err err;
    err_set(&err, VSS_E_OBJECT_NOT_FOUND, "Add the repository again, under the same name.", "repository %s of this backup is not there", name);
    answer_error(answer, arg, &err);
    return NULL;
}

void engine_backup_verify(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *backup = backup_read(engine, request, answer, arg);
    json_t *args = backup ? backup_args(engine, backup, answer, arg) : NULL;
    if (args)
        start_job(engine, request, answer, arg, &job_kind_verify, args);
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
    json_t *args = backup_args(engine, backup, answer, arg);
    if (args)
        start_job(engine, request, answer, arg, &job_kind_remove_backup, args);
}

static int restore_allowed(struct engine *engine, const struct engine_request *request, const json_t *backup, struct err *err)
{
    const char *target = json_str(request->body, "target", "");
    const json_t *roots = json_object_get(json_object_get(engine->config, "restore"), "roots");
    if (!path_is_canonical(target))
        return err_invalid(err, "/target", "must be an absolute path without '.', '..' or empty parts");
    size_t i;
    json_t *root;
    bool beneath = false;
    json_array_foreach(roots, i, root) beneath = beneath || path_beneath(target, json_string_value(root));
    if (!beneath) {
        err_invalid(err, "/target", "%s is not beneath a restore root", target);
        str_copy(err->hint, sizeof err->hint, "restore.roots in the configuration lists where restores may go.");
        return -1;
    }
    if (!json_bool(backup, "complete", false) && !json_bool(request->body, "accept_incomplete", false))
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
    if (restore_allowed(engine, request, backup, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    json_t *args = backup_args(engine, backup, answer, arg);
    if (!args)
        return;
    json_t *roots = json_object_get(json_object_get(engine->config, "restore"), "roots"), *paths = json_object_get(request->body, "paths");
    json_put(args, "target", json_string(json_str(request->body, "target", "")));
    json_put(args, "roots", json_incref(roots));
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
