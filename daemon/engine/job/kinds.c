/* What each kind of session job asks of the worker, and what its success changes. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"
#include "model/selection.h"

json_t *session_document(struct engine *engine, const json_t *doc)
{
    static const char *const members[] = {"label", "context", "backup_state", "snapshot_set_id", "writer_failure", "owner", "created_at", "state"};
    static const char *const lists[] = {"writers", "components", "volumes", "excludes", "snapshots", "writer_status", "freeze", "consistency"};
    json_t *document = json_pack("{s:i, s:s, s:s, s:s}", "version", 1, "kind", "backup-components-document", "session_id",
                                 json_str(doc, "id", ""), "node", engine->node);
    for (size_t i = 0; i < ELEMENTS(members); i++) {
        json_t *value = json_object_get(doc, members[i]);
        if (value)
            json_put(document, members[i], json_incref(value));
    }
    for (size_t i = 0; i < ELEMENTS(lists); i++) {
        json_t *value = json_object_get(session_private(doc), lists[i]);
        if (value)
            json_put(document, lists[i], json_incref(value));
    }
    if (!json_object_get(document, "writers"))
        json_put(document, "writers", json_array());
    return document;
}

/* Does a chosen component, or a member of its set, keep files within this path? Then its file sets say what is copied of it. */
static bool component_within(const json_t *doc, const char *path)
{
    const json_t *own = session_private(doc);
    size_t j, k, m;
    json_t *writer, *component, *set;
    json_array_foreach(json_object_get(own, "writers"), j, writer)
    json_array_foreach(json_object_get(writer, "components"), k, component)
    {
        if (!selection_included(writer, json_object_get(own, "components"), component))
            continue;
        json_array_foreach(json_object_get(component, "file_sets"), m, set)
        {
            if (path_beneath(json_str(set, "path", ""), path) || path_beneath(path, json_str(set, "path", "")))
                return true;
        }
    }
    return false;
}

/* The plain paths of the set: every requested path in which no chosen component keeps files, and those asked for by POST /backups. */
static json_t *plain_paths(const json_t *doc)
{
    json_t *asked = json_object_get(session_private(doc), "paths");
    if (json_is_array(asked))
        return json_deep_copy(asked);
    json_t *paths = json_array();
    size_t i;
    json_t *volume;
    json_array_foreach(json_object_get(session_private(doc), "volumes"), i, volume)
    {
        const char *path = json_str(volume, "requested", json_str(volume, "volume", ""));
        if (!component_within(doc, path))
            json_add(paths, json_string(path));
    }
    return paths;
}

static json_t *set_args(struct job *job)
{
    const json_t *doc = job->session->doc, *own = session_private(doc);
    json_t *state = json_object_get(doc, "backup_state");
    return json_pack("{s:O?, s:s?, s:s, s:s, s:o, s:O?, s:o, s:b, s:O?, s:o}", "backup_state", json_is_object(state) ? state : NULL, "snapshot_set_id",
                     json_str(doc, "snapshot_set_id", NULL), "writer_failure", json_str(doc, "writer_failure", "fail"), "context",
                     json_str(doc, "context", "backup"), "components", components_for_worker(doc), "volumes",
                     json_object_get(own, "volumes"), "paths", plain_paths(doc), "only_paths", json_is_array(json_object_get(own, "paths")), "excludes",
                     json_object_get(own, "excludes"), "repositories", repository_paths(job->engine));
}

static void take_writers(struct task *task, const json_t *result)
{
    json_t *writers = json_object_get(result, "writers");
    if (json_is_array(writers))
        json_put(session_private(task->draft), "writer_status", json_incref(writers));
}

/* Writers edit stamps, metadata and failures of their components in prepare and post_snapshot. */
static void take_components(struct task *task, const json_t *result)
{
    static const char *const members[] = {"backup_stamp", "backup_metadata", "added_files", "failure", "application_code", "application_message"};
    json_t *components = session_draft_array(task->draft, "components");
    size_t i, j;
    json_t *answer, *component;
    json_array_foreach(json_object_get(result, "components"), i, answer)
    json_array_foreach(components, j, component)
    {
        if (!str_eq(json_str(answer, "id", ""), json_str(component, "id", "")))
            continue;
        for (size_t k = 0; k < ELEMENTS(members); k++) {
            json_t *value = json_object_get(answer, members[k]);
            if (value)
                json_put(component, members[k], json_incref(value));
        }
    }
}

/* Each component's grade goes to the component; the record of the whole keeps the rest. */
static void take_grades(struct task *task, const json_t *consistency)
{
    static const struct {
        const char *from, *to;
    } members[] = {{"grade", "grade"}, {"reason", "grade_reason"}, {"freeze", "freeze"}};
    json_t *components = session_draft_array(task->draft, "components");
    size_t i, j;
    json_t *graded, *component;
    json_array_foreach(json_object_get(consistency, "components"), i, graded)
    json_array_foreach(components, j, component)
    {
        if (!str_eq(json_str(graded, "id", ""), json_str(component, "id", "")))
            continue;
        for (size_t k = 0; k < ELEMENTS(members); k++)
            json_put(component, members[k].to, json_incref(json_object_get(graded, members[k].from)));
    }
    if (!consistency)
        return;
    json_t *whole = json_copy((json_t *)consistency);
    json_object_del(whole, "components");
    json_put(session_private(task->draft), "consistency", whole);
}

static json_t *metadata_args(struct job *job)
{
    json_t *filter = json_object_get(session_private(job->session->doc), "writer_filter");
    return json_pack("{s:o}", "filter", json_is_object(filter) ? json_incref(filter) : json_object());
}

static void metadata_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)batch;
    json_t *writers = json_object_get(result, "writers"), *missing = json_object_get(result, "missing");
    json_put(session_private(task->draft), "writers", json_is_array(writers) ? json_incref(writers) : json_array());
    if (session_state(task->draft) == SESSION_INITIALIZED)
        session_set_state(task->draft, SESSION_IDENTIFIED);
    json_put(task->draft_job, "result", json_pack("{s:I, s:o}", "writers", (json_int_t)json_array_size(writers), "missing",
                                                  json_is_array(missing) ? json_incref(missing) : json_array()));
}

static void prepare_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)batch;
    take_writers(task, result);
    take_components(task, result);
    choice_types(json_object_get(session_private(task->draft), "writers"), json_str(json_object_get(task->draft, "backup_state"), "type", "full"),
                 session_draft_array(task->draft, "components"));
    session_set_state(task->draft, SESSION_PREPARED);
    json_put(task->draft_job, "result", json_pack("{s:O?}", "writers", json_object_get(result, "writers")));
}

static void snapshot_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    static const char *const members[] = {"snapshots", "freeze", "consistency"};
    take_writers(task, result);
    take_components(task, result);
    json_t *summary = json_object();
    for (size_t i = 0; i < ELEMENTS(members); i++) {
        json_t *value = json_object_get(result, members[i]);
        if (!value)
            continue;
        json_put(session_private(task->draft), members[i], json_incref(value));
        json_put(summary, members[i], json_incref(value));
    }
    take_grades(task, json_object_get(result, "consistency"));
    session_set_state(task->draft, SESSION_SNAPSHOTTED);
    snapshots_batch_put(task->engine, batch, task->draft, json_object_get(result, "snapshots"));
    json_put(task->draft_job, "result", summary);
}

static json_t *copy_args(struct job *job)
{
    AUTO_JSON json_t *repository = repository_for_copy(job->engine, json_str(job->args, "repository", ""));
    const json_t *doc = job->session->doc;
    return json_pack("{s:s, s:O?, s:o, s:o, s:O?, s:O*}", "backup_id", json_str(job->args, "backup_id", ""), "repository", repository, "document",
                     session_document(job->engine, doc), "paths", plain_paths(doc), "excludes",
                     json_object_get(session_private(doc), "excludes"), "limits", json_object_get(job->args, "limits"));
}

static void copy_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    AUTO_JSON json_t *backup = backup_record(task->job, task->session->doc, result);
    catalog_put(batch, backup, SEAL_NONE);
    json_put(session_private(task->draft), "copied",
             json_pack("{s:O*, s:O*, s:O*}", "files", json_object_get(result, "files"), "bytes", json_object_get(result, "bytes"), "warnings", json_object_get(result, "warnings")));
    json_add(session_draft_array(task->draft, "backups"), json_string(json_str(backup, "id", "")));
    AUTO_JSON json_t *repository = repository_find(task->engine, json_str(task->job->args, "repository", ""));
    if (repository)
        repository_mark(task->engine, batch, repository, json_str(result, "repository_id", ""));
    json_t *summary = json_copy((json_t *)result);
    json_object_del(summary, "repository_id");
    json_put(summary, "backup_id", json_string(json_str(backup, "id", "")));
    json_put(task->draft_job, "result", summary);
}

static json_t *complete_args(struct job *job)
{
    json_t *state = json_object_get(job->session->doc, "backup_state");
    return json_pack("{s:o, s:O?}", "components", components_for_worker(job->session->doc), "backup_state", json_is_object(state) ? state : NULL);
}

static void complete_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    take_writers(task, result);
    session_set_state(task->draft, SESSION_COMPLETED);
    catalog_mark(task->engine, batch, task->draft, NULL, task->job->sealed);
    successes_complete(task, batch);
    json_put(task->draft_job, "result", json_pack("{s:O?}", "writers", json_object_get(result, "writers")));
}

static void status_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)batch;
    take_writers(task, result);
    json_put(task->draft_job, "result", json_pack("{s:O?}", "writers", json_object_get(result, "writers")));
}

const struct job_kind job_kind_metadata = {
    .name = "GatherWriterMetadata", .operation = SESSION_OP_GATHER_METADATA, .worker_operation = "metadata",
    .args = metadata_args, .apply = metadata_apply,
};
const struct job_kind job_kind_prepare = {
    .name = "PrepareForBackup", .operation = SESSION_OP_PREPARE, .worker_operation = "prepare",
    .args = set_args, .apply = prepare_apply, .cancel_aborts = true,
};
const struct job_kind job_kind_snapshot = {
    .name = "DoSnapshotSet", .operation = SESSION_OP_SNAPSHOT, .worker_operation = "snapshot",
    .args = set_args, .apply = snapshot_apply, .on_failure = SESSION_SNAPSHOT_FAILED, .cancel_aborts = true,
};
const struct job_kind job_kind_copy = {
    .name = "Copy", .operation = SESSION_OP_COPY, .worker_operation = "copy",
    .args = copy_args, .apply = copy_apply, .settle = copy_settle,
};
const struct job_kind job_kind_complete = {
    .name = "BackupComplete", .operation = SESSION_OP_COMPLETE, .worker_operation = "complete",
    .args = complete_args, .apply = complete_apply, .cancel_aborts = true, .failure_aborts = true,
    .settle = seal_before_end,
};
const struct job_kind job_kind_status = {
    .name = "GatherWriterStatus", .operation = SESSION_OP_GATHER_STATUS, .worker_operation = "status",
    .apply = status_apply,
};

/* --- the calls --- */

/* Required components, and what components depend on, are all there or PrepareForBackup is not begun: the backup could not be restored. */
static int selection_complete(const struct session *session, struct err *err)
{
    const json_t *own = session_private(session->doc);
    struct selection_missing missing;
    return selection_whole(json_object_get(own, "writers"), json_object_get(own, "components"), &missing) ? 0
                                                                                                        : selection_tell_missing(&missing, err);
}

void job_run_simple(struct task *task, const struct job_kind *kind)
{
    struct err err;
    if (!session_allow(task, kind->operation, NULL))
        return;
    if (kind == &job_kind_prepare && selection_complete(task->session, &err)) {
        task_fail(task, &err);
        return;
    }
    if (job_admit(task->engine, &err)) {
        task->retry_after = 5;
        task_fail(task, &err);
        return;
    }
    job_create(task, kind, NULL, job_run_on_session_worker);
}

static void run_metadata(struct task *task)
{
    job_run_simple(task, &job_kind_metadata);
}
static void run_prepare(struct task *task)
{
    job_run_simple(task, &job_kind_prepare);
}
static void run_snapshot(struct task *task)
{
    job_run_simple(task, &job_kind_snapshot);
}
static void run_complete(struct task *task)
{
    job_run_simple(task, &job_kind_complete);
}
static void run_status(struct task *task)
{
    job_run_simple(task, &job_kind_status);
}

static void run_copy(struct task *task)
{
    struct err err;
    const char *name = json_str(task->request->body, "repository", "");
    AUTO_JSON json_t *repository = repository_find(task->engine, name);
    if (!repository) {
        err_set(&err, VSS_E_OBJECT_NOT_FOUND, "GET /repositories lists what there is.", "repository %s: no such repository", name);
        task_fail(task, &err);
        return;
    }
    AUTO_JSON json_t *limits = NULL;
    if (repository_limits(repository, json_object_get(task->request->body, "limits"), &limits, &err)) {
        task_fail(task, &err);
        return;
    }
    if (!session_allow(task, SESSION_OP_COPY, NULL))
        return;
    if (job_admit(task->engine, &err)) {
        task->retry_after = 5;
        task_fail(task, &err);
        return;
    }
    char backup_id[UUID_SIZE];
    uuid_v7(backup_id);
    job_create(task, &job_kind_copy, json_pack("{s:s, s:s, s:O*}", "repository", name, "backup_id", backup_id, "limits", limits),
               job_run_on_session_worker);
}

#define JOB_CALL(name)                                                                                                     \
    void engine_job_##name(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg) \
    {                                                                                                                      \
        session_task(engine, request, answer, arg, run_##name);                                                            \
    }
JOB_CALL(metadata)
JOB_CALL(prepare)
JOB_CALL(snapshot)
JOB_CALL(copy)
JOB_CALL(complete)
JOB_CALL(status)
