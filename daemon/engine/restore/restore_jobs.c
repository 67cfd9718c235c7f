/* A restore session's jobs: PreRestore, RestoreFiles (ours), PostRestore. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/restore/restore.h"
#include "engine/session/session.h"
#include "model/restore_plan.h"
#include "model/restore_rules.h"

/* The selected components, each addressed to the writer that restores it. */
static json_t *selected_components(const json_t *doc)
{
    json_t *selected = json_array();
    size_t i;
    json_t *component;
    json_array_foreach(json_object_get(session_private(doc), "components"), i, component)
    {
        if (!json_bool(component, "selected", false))
            continue;
        json_t *copy = json_deep_copy(component);
        const char *moved = json_str(component, "restore_instance_id", NULL);
        if (moved)
            json_put(copy, "instance_id", json_string(moved));
        json_add(selected, copy);
    }
    return selected;
}

/* What writers are told of: with the file sets of the backup, which may lie elsewhere than those of today. */
static json_t *components_for_writers(const json_t *doc)
{
    const json_t *own = session_private(doc), *document = json_object_get(own, "document");
    json_t *selected = selected_components(doc), *component;
    size_t i;
    json_array_foreach(selected, i, component)
    {
        const char *id = json_str(component, "id", "");
        const json_t *chain = json_object_get(json_object_get(own, "chains"), id);
        json_put(component, "file_sets", chain ? json_deep_copy(json_object_get(chain, "file_sets"))
                                               : restore_plan_sets(document, component_of(json_object_get(own, "components"), id)));
        if (chain)
            json_put(component, "chain", json_deep_copy(json_object_get(chain, "links")));
    }
    return selected;
}

static json_t *event_args(struct job *job)
{
    const json_t *doc = job->session->doc;
    json_t *state = json_object_get(json_object_get(session_private(doc), "document"), "backup_state");
    return json_pack("{s:o, s:o, s:s, s:s}", "components", components_for_writers(doc), "backup_state",
                     json_is_object(state) ? json_deep_copy(state) : json_object(), "restore_type",
                     json_str(json_object_get(doc, "restore_state"), "type", "by_copy"), "writer_failure",
                     json_str(doc, "writer_failure", "fail"));
}

/* What writers said of their components in PreRestore and PostRestore, whether the job succeeded or not. */
static void event_fold(struct task *task, const json_t *result)
{
    static const char *const members[] = {"restore_target", "directed_targets", "chain_target", "restore_metadata", "failure",
                                          "application_code", "application_message"};
    json_t *components = session_draft_array(task->draft, "components"), *writers = json_object_get(result, "writers");
    size_t i;
    json_t *answer;
    json_array_foreach(json_object_get(result, "components"), i, answer)
    {
        json_t *component = component_of(components, json_str(answer, "id", ""));
        for (size_t k = 0; component && k < ELEMENTS(members); k++) {
            json_t *value = json_object_get(answer, members[k]);
            if (value)
                json_put(component, members[k], json_incref(value));
        }
    }
    if (json_is_array(writers))
        json_put(session_private(task->draft), "writer_status", json_incref(writers));
}

static void event_apply(struct task *task, const json_t *result, enum session_state state)
{
    session_set_state(task->draft, state);
    json_put(task->draft_job, "result", json_pack("{s:O?}", "writers", json_object_get(result, "writers")));
}

static void keep_left(struct job *job, json_t *left /* taken */)
{
    if (!job->cleanup)
        job->cleanup = json_pack("{s:[], s:[], s:[]}", "thawed", "removed", "failed");
    json_put(job->cleanup, "left_behind", left);
}

/* The session goes on, and so do the writers that had done what they were told; a cancelled job ends it, and with it their work. */
static bool pre_settle(struct task *task, void (*then)(struct task *task))
{
    json_t *left = json_object_get(task->job->outcome_result, "left_behind");
    (void)then;
    if (json_array_size(left) && task->job->state != JOB_CANCELLING)
        keep_left(task->job, json_incref(left));
    return false;
}

static void pre_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)batch;
    event_apply(task, result, SESSION_PRE_RESTORED);
}

static void post_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)batch;
    event_apply(task, result, SESSION_COMPLETED);
}

/* --- files --- */

static json_t *files_args(struct job *job)
{
    return json_deep_copy(job->args);
}

/* AddAlternativeLocationMapping, for the mappings that were used. */
static void note_mappings(json_t *component, const json_t *items)
{
    size_t i;
    json_t *item;
    json_t *used = json_object_get(component, "alternate_location_mappings");
    json_array_foreach(items, i, item)
    {
        json_t *mapping = json_object_get(item, "mapping");
        size_t k;
        const json_t *have;
        bool there = !json_is_object(mapping) || !str_eq(json_str(item, "component", ""), json_str(component, "id", ""));
        json_array_foreach(used, k, have) there = there || json_equal((json_t *)have, mapping);
        if (!there)
            json_add(used, json_incref(mapping));
    }
}

/* SetFileRestoreStatus, by what came of it. A worker that died says nothing: then nothing is there, or not all. */
static void files_fold(struct task *task, const json_t *result)
{
    const json_t *args = task->job->args, *told = json_object_get(result, "components");
    json_t *components = session_draft_array(task->draft, "components");
    size_t i, k;
    json_t *id, *row;
    json_array_foreach(json_object_get(args, "components"), i, id)
    {
        json_t *component = component_of(components, json_string_value(id));
        const char *status = task->job->published ? "failed" : "none";
        json_array_foreach(told, k, row)
        {
            if (str_eq(json_str(row, "id", ""), json_string_value(id)))
                status = json_str(row, "file_restore_status", status);
        }
        json_put(component, "file_restore_status", json_string(status));
        if (!str_eq(status, "none"))
            note_mappings(component, json_object_get(args, "items"));
    }
}

static void files_apply(struct task *task, const json_t *result, struct store_batch *batch)
{
    (void)batch;
    json_t *summary = json_copy((json_t *)result);
    json_object_del(summary, "left_behind");
    if (json_array_size(json_object_get(summary, "warnings")) == 0)
        json_object_del(summary, "warnings");
    json_put(summary, "verified", json_true());
    json_put(task->draft_job, "result", summary);
}

/* Of a chain any one may be what cannot be read, and each of them may; the others have told nothing about themselves. */
static void files_failed(struct task *task, const json_t *result, struct store_batch *batch)
{
    size_t i;
    const json_t *unread;
    json_array_foreach(json_object_get(result, "unread"), i, unread)
    {
        struct err err;
        err_from_json(&err, json_object_get(unread, "error"));
        condition_of_failure(task, batch, json_str(unread, "backup_id", ""), &err);
    }
}

/* A worker that died while files moved cannot say where: then all the places may have some. */
static json_t *maybe_there(const json_t *items)
{
    json_t *left = json_array();
    AUTO_JSON json_t *seen = json_object();
    size_t i;
    const json_t *item;
    json_array_foreach(items, i, item)
    {
        const char *to = json_str(item, "to", "");
        if (json_object_get(seen, to))
            continue;
        json_put(seen, to, json_true());
        json_add(left, json_pack("{s:s, s:s}", "object", to, "reason", "some of the restored files may be at their places, each of them whole"));
    }
    return left;
}

static bool files_settle(struct task *task, void (*then)(struct task *task))
{
    struct job *job = task->job;
    json_t *left = json_object_get(job->outcome_result, "left_behind");
    (void)then;
    bool told = json_object_get(job->outcome_result, "components") != NULL;
    if (told ? json_array_size(left) == 0 : !job->published)
        return false;
    keep_left(job, told ? json_incref(left) : maybe_there(json_object_get(job->args, "items")));
    return false;
}

const struct job_kind job_kind_pre_restore = {
    .name = "PreRestore", .operation = SESSION_OP_PRE_RESTORE, .worker_operation = "pre_restore",
    .args = event_args, .apply = pre_apply, .fold = event_fold, .settle = pre_settle, .cancel_aborts = true,
};
const struct job_kind job_kind_restore_files = {
    .name = "RestoreFiles", .operation = SESSION_OP_RESTORE_FILES, .worker_operation = "restore_files",
    .args = files_args, .apply = files_apply, .fold = files_fold, .failed = files_failed, .settle = files_settle,
};
const struct job_kind job_kind_post_restore = {
    .name = "PostRestore", .operation = SESSION_OP_POST_RESTORE, .worker_operation = "post_restore",
    .args = event_args, .apply = post_apply, .fold = event_fold, .cancel_aborts = true, .failure_aborts = true,
};

/* --- the calls --- */

/* The document says where files go, and may be one that was brought along; the writer of now says what it stops for them. */
static int confined(struct task *task, const json_t *document, const json_t *components, struct err *err)
{
    AUTO_JSON json_t *items = restore_plan_unspoken(document, components);
    return restore_plan_confined(items, json_object_get(json_object_get(task->engine->config, "restore"), "roots"), err);
}

/* A new target was looked at before it was known which writer restores the component. */
static int apart(const json_t *running, const json_t *component, struct err *err)
{
    size_t i;
    const json_t *target;
    json_array_foreach(json_object_get(component, "new_targets"), i, target)
    {
        const char *new_path = json_str(target, "new_path", ""), *living = restore_lives_at(running, component, new_path);
        if (living)
            return err_set(err, VSS_E_BAD_STATE, "Begin a restore session anew, with another target or none.",
                           "component %s: its new target %s is where its writer lives now (%s), and it would not be stopped",
                           json_str(component, "name", ""), new_path, living);
    }
    return 0;
}

/* Before anything is stopped: may its files come back at all? What writers answer is looked at by RestoreFiles. */
static int may_be_restored(struct task *task, struct err *err)
{
    const json_t *own = session_private(task->session->doc), *document = json_object_get(own, "document");
    AUTO_JSON json_t *selected = selected_components(task->session->doc), *described = json_array(), *here = json_array();
    AUTO_JSON json_t *running = json_pack("{s:O?, s:O?}", "writers", json_object_get(own, "writers"), "backup_state",
                                          json_object_get(document, "backup_state"));
    size_t i;
    json_t *component;
    json_array_foreach(selected, i, component)
    {
        json_add(described, json_incref(component_of(json_object_get(own, "components"), json_str(component, "id", ""))));
        if (apart(running, component, err))
            return -1;
        if (json_array_size(json_object_get(component, "new_targets")) == 0 && restore_described(running, component))
            json_add(here, json_incref(component));
    }
    return confined(task, document, described, err) || confined(task, running, here, err);
}

/* What the selected components are restored with, by their ids; NULL with err. */
static json_t *chains_of(struct task *task, struct err *err)
{
    AUTO_JSON json_t *chains = json_object(), *selected = selected_components(task->session->doc);
    const json_t *components = json_object_get(session_private(task->session->doc), "components");
    size_t i;
    json_t *item, *chain;
    json_array_foreach(selected, i, item)
    {
        const char *id = json_str(item, "id", "");
        if (!chain_rolls(task->session->doc, component_of(components, id)))
            continue;
        if (chain_of(task, component_of(components, id), &chain, err))
            return NULL;
        json_put(chains, id, chain);
    }
    return TAKE_PTR(chains);
}

static void run_pre_restore(struct task *task)
{
    struct err err;
    if (!session_allow(task, SESSION_OP_PRE_RESTORE, NULL))
        return;
    AUTO_JSON json_t *chains = may_be_restored(task, &err) ? NULL : chains_of(task, &err);
    if (!chains || job_admit(task->engine, &err)) {
        task->retry_after = chains ? 5 : 0;
        task_fail(task, &err);
        return;
    }
    task->draft = session_draft(task->session);
    json_put(session_private(task->draft), "chains", TAKE_PTR(chains));
    job_create(task, &job_kind_pre_restore, NULL, job_run_on_session_worker);
}

static void run_post_restore(struct task *task)
{
    job_run_simple(task, &job_kind_post_restore);
}

/* The backup whose data is restored: the session's own, or the one named with a document that was brought along. */
static json_t *backup_to_restore(struct task *task, struct err *err)
{
    const char *own = json_str(task->session->doc, "backup_id", NULL), *given = json_str(task->request->body, "backup_id", own);
    bool accepted = json_bool(task->request->body, "accept_incomplete", json_bool(session_private(task->session->doc), "accept_incomplete", false));
    AUTO_JSON json_t *backup = NULL;
    if (!given) {
        err_invalid(err, "/backup_id", "is needed: the session was made from a document");
        return NULL;
    }
    if (own && !str_eq(own, given)) {
        err_invalid(err, "/backup_id", "the session restores backup %s", own);
        return NULL;
    }
    enum store_result result = store_get(task->engine->store, STORE_BACKUP, given, &backup, NULL, err);
    if (result == STORE_ERROR)
        return NULL;
    if (result != STORE_OK || !principal_sees_backup(task->request->principal, json_str(backup, "owner", ""))) {
        err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /backups lists what there is.", "backup %s: no such backup", given);
        return NULL;
    }
    return restore_accepts(backup, accepted, err) ? NULL : TAKE_PTR(backup);
}

/* Did its writer fail in PreRestore (writer_failure report)? Then its application may be at work on those very files. */
static bool is_refused(const json_t *doc, const json_t *component)
{
    const char *instance_id = json_str(component, "instance_id", "");
    size_t i;
    const json_t *status;
    json_array_foreach(json_object_get(session_private(doc), "writer_status"), i, status)
    {
        const char *failure = json_str(status, "failure", "S_OK");
        if (str_eq(json_str(status, "instance_id", ""), instance_id) && !str_eq(failure, "S_OK"))
            return !str_eq(failure, "VSS_E_WRITERERROR_PARTIAL_FAILURE") || json_str(component, "failure", NULL);
    }
    return false;
}

static json_t *not_refused(const struct task *task, const json_t *selected, struct err *err)
{
    AUTO_JSON json_t *left = json_array();
    size_t i;
    json_t *component;
    json_array_foreach(selected, i, component) if (!is_refused(task->session->doc, component)) json_add(left, json_incref(component));
    if (json_array_size(left) > 0)
        return TAKE_PTR(left);
    if (json_array_size(selected) == 0) {
        err_set(err, VSS_E_BAD_STATE, "Select what to restore in a session anew: PATCH /sessions/{id}/components/{id} {\"selected\":true} before PreRestore.",
                "no component is selected: there is nothing to restore");
        return NULL;
    }
    err_set(err, VSS_E_BAD_STATE, "Name them in \"components\" to restore them all the same.",
            "the writers of all selected components failed in PreRestore: their applications may be using the files");
    return NULL;
}

/* The selected components, or those of them that the body names. */
static json_t *components_to_restore(struct task *task, struct err *err)
{
    AUTO_JSON json_t *selected = selected_components(task->session->doc), *named = json_array();
    const json_t *ids = json_object_get(task->request->body, "components"), *id;
    size_t i;
    if (json_array_size(ids) == 0)
        return not_refused(task, selected, err);
    json_array_foreach(ids, i, id)
    {
        json_t *component = component_of(selected, json_string_value(id));
        if (!component) {
            char pointer[64];
            str_format(pointer, sizeof pointer, "/components/%zu", i);
            err_invalid(err, pointer, "%s is no selected component of this session", json_string_value(id));
            return NULL;
        }
        json_add(named, json_incref(component));
    }
    return TAKE_PTR(named);
}

/* The plan is made of the document's metadata, so that a component that was redirected goes by its old writer's. A component whose writer
 * said where its chain goes has the files of several backups: links. */
static json_t *files_plan(struct task *task, const json_t *chosen, const json_t *backup, json_t *links, struct err *err)
{
    const json_t *own = session_private(task->session->doc);
    const json_t *roots = json_object_get(json_object_get(task->engine->config, "restore"), "roots");
    AUTO_JSON json_t *components = json_array(), *rolled = json_array();
    size_t i;
    json_t *item;
    json_array_foreach(chosen, i, item)
    {
        json_t *component = component_of(json_object_get(own, "components"), json_str(item, "id", ""));
        const json_t *chain = json_object_get(json_object_get(own, "chains"), json_str(item, "id", ""));
        struct chain_files files = {.items = rolled, .links = links, .target = json_str(component, "chain_target", NULL)};
        if (!chain || !files.target)
            json_add(components, json_incref(component));
        else if (chain_files(task, component, chain, backup, &files, err))
            return NULL;
    }
    AUTO_JSON json_t *items = restore_plan(json_object_get(own, "document"), components, err);
    if (items)
        json_array_extend(items, rolled);
    return items && restore_plan_confined(items, roots, err) == 0 ? TAKE_PTR(items) : NULL;
}

static json_t *files_request(struct task *task, struct err *err)
{
    AUTO_JSON json_t *backup = backup_to_restore(task, err);
    AUTO_JSON json_t *chosen = backup ? components_to_restore(task, err) : NULL;
    AUTO_JSON json_t *links = json_array(), *items = chosen ? files_plan(task, chosen, backup, links, err) : NULL;
    json_t *args = items ? backup_for_worker(task->engine, backup, err) : NULL;
    if (!args)
        return NULL;
    json_t *ids = json_array(), *component;
    size_t i;
    json_array_foreach(chosen, i, component) json_add(ids, json_string(json_str(component, "id", "")));
    json_put(args, "components", ids);
    json_put(args, "items", TAKE_PTR(items));
    json_put(args, "links", TAKE_PTR(links));
    return args;
}

/* Until the job's end nobody knows; a status of an earlier call must not outlive a daemon that dies meanwhile. */
static void forget_statuses(struct task *task, const json_t *ids)
{
    task->draft = session_draft(task->session);
    json_t *components = session_draft_array(task->draft, "components");
    size_t i;
    const json_t *id;
    json_array_foreach(ids, i, id) json_put(component_of(components, json_string_value(id)), "file_restore_status", json_null());
}

static void run_restore_files(struct task *task)
{
    struct err err;
    if (!session_allow(task, SESSION_OP_RESTORE_FILES, NULL))
        return;
    AUTO_JSON json_t *args = files_request(task, &err);
    if (!args || job_admit(task->engine, &err)) {
        if (err.hr == (uint32_t)VSS_E_UNEXPECTED_WRITER_ERROR)
            incident(task->engine, task->session->id, NULL, NULL, err.hr, err.text);
        task->retry_after = args ? 5 : 0;
        task_fail(task, &err);
        return;
    }
    forget_statuses(task, json_object_get(args, "components"));
    job_create(task, &job_kind_restore_files, TAKE_PTR(args), job_run_on_session_worker);
}

#define JOB_CALL(name)                                                                                                     \
    void engine_job_##name(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg) \
    {                                                                                                                      \
        session_task(engine, request, answer, arg, run_##name);                                                            \
    }
JOB_CALL(pre_restore)
JOB_CALL(restore_files)
JOB_CALL(post_restore)
