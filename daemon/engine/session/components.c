/* Explicit components: AddComponent, options, stamps, SetBackupSucceeded. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/restore/restore.h"
#include "engine/session/session.h"
#include "model/selection.h"

json_t *component_record(const json_t *writer, const json_t *component)
{
    char id[UUID_SIZE];
    uuid_v7(id);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:n, s:n, s:n, s:n, s:n, s:b, s:n, s:n, s:n, s:n, s:n, s:n}", "id", id, "instance_id",
                     json_str(writer, "instance_id", ""), "class_id", json_str(writer, "class_id", ""), "writer", json_str(writer, "name", ""),
                     "type", json_str(component, "type", "filegroup"), "logical_path", json_str(component, "logical_path", ""), "name",
                     json_str(component, "name", ""), "succeeded", 0, "backup_options", "backup_stamp", "previous_stamp",
                     "backup_type", "previous_backup_id", "selected", 0,
                     "restore_options", "file_restore_status", "failure", "grade", "grade_reason", "freeze");
}

json_t *components_for_worker(const json_t *doc)
{
    return json_deep_copy(json_object_get(session_private(doc), "components"));
}

json_t *component_of(const json_t *components, const char *id)
{
    return json_find(components, "id", id);
}

static void added(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    session_lease_renew(task->session);
    task_answer(task, task->status, json_incref(task->body));
}

static int chosen(struct task *task, const json_t **ret_writer, const json_t **ret_component, struct err *err)
{
    const json_t *body = task->request->body, *own = session_private(task->session->doc);
    const json_t *writer = selection_writer(json_object_get(own, "writers"), json_str(body, "instance_id", ""));
    if (!writer)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /sessions/{id}/writers lists what there is.", "no writer with instance_id %s",
                       json_str(body, "instance_id", ""));
    const json_t *component = selection_component(writer, json_str(body, "logical_path", ""), json_str(body, "name", ""));
    if (!component)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /sessions/{id}/writers lists what there is.", "writer %s has no component %s",
                       json_str(writer, "name", ""), json_str(body, "name", ""));
    if (selection_may_add(writer, component, err) || selection_fits(writer, json_object_get(own, "components"), component, err))
        return -1;
    *ret_writer = writer;
    *ret_component = component;
    return 0;
}

static void run_add(struct task *task)
{
    struct err err;
    const json_t *writer = NULL, *component = NULL;
    if (!session_allow(task, SESSION_OP_ADD_COMPONENT, NULL))
        return;
    const json_t *state = json_object_get(task->session->doc, "backup_state");
    if (json_is_object(state) && !json_bool(state, "component_mode", true)) {
        err_set(&err, VSS_E_BAD_STATE, "Set component_mode to true.", "AddComponent: the session is not in component mode");
        task_fail(task, &err);
        return;
    }
    if (chosen(task, &writer, &component, &err)) {
        task_fail(task, &err);
        return;
    }
    task->draft = session_draft(task->session);
    json_t *record = component_record(writer, component);
    json_add(session_draft_array(task->draft, "components"), json_incref(record));
    task->body = record;
    task->status = 201;
    str_format(task->location, sizeof task->location, "/sessions/%s/components/%s", task->session->id, json_str(record, "id", ""));
    task->committed = added;
    task_commit(task, NULL);
}

void engine_component_add(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_add);
}

void engine_component_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *doc = session_read(engine, request, answer, arg);
    if (doc)
        answer_body(answer, arg, 200, json_pack("{s:O, s:n}", "items", json_object_get(session_private(doc), "components"), "next_cursor"));
}

void component_missing(const struct engine_request *request, struct err *err)
{
    err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /sessions/{id}/components lists what there is.", "component %s: no such component", request->sub_id);
}

void engine_component_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *doc = session_read(engine, request, answer, arg);
    if (!doc)
        return;
    json_t *component = component_of(json_object_get(session_private(doc), "components"), request->sub_id);
    struct err err;
    if (component) {
        answer_body(answer, arg, 200, json_incref(component));
    } else {
        component_missing(request, &err);
        answer_error(answer, arg, &err);
    }
}

/* Which call a member of PATCH stands for. */
static const struct {
    const char *member;
    enum session_operation operation;
    bool own; /* it is no plain member of the component: restore_patch_apply */
} patches[] = {
    {"succeeded", SESSION_OP_SET_SUCCEEDED, false},
    {"backup_options", SESSION_OP_SET_OPTIONS, false},
    {"previous_stamp", SESSION_OP_SET_OPTIONS, false},
    {"selected", SESSION_OP_SELECT, false},
    {"instance_id", SESSION_OP_SELECT, true},
    {"restore_options", SESSION_OP_SET_RESTORE_OPTIONS, false},
    {"additional_restores", SESSION_OP_SET_RESTORE_OPTIONS, false},
    {"authoritative_restore", SESSION_OP_SET_RESTORE_OPTIONS, false},
    {"roll_forward", SESSION_OP_SET_RESTORE_OPTIONS, false},
    {"restore_name", SESSION_OP_SET_RESTORE_OPTIONS, false},
    {"ranges_file_path", SESSION_OP_SET_RANGES_FILE, true},
    {"file_restore_status", SESSION_OP_SET_FILE_STATUS, false},
};

/* What is going away is nothing to go on from. The other way round chain_check_session sees to it. */
static int check_previous(struct engine *engine, const json_t *component, const json_t *stamp, struct err *err)
{
    AUTO_JSON json_t *ids = json_array();
    size_t i;
    const json_t *id;
    if (!json_is_string(stamp))
        return 0;
    if (chain_find_stamp(engine, component, json_string_value(stamp), "", ids, err))
        return -1;
    json_array_foreach(ids, i, id)
    {
        if (!backup_being_removed(engine, json_string_value(id)))
            continue;
        err_set(err, VSS_E_BAD_STATE, "Take a full backup, or go on from another one.", "previous_stamp: backup %s, which bears it, is being removed",
                json_string_value(id));
        str_copy(err->reason, sizeof err->reason, "no_previous_backup");
        return -1;
    }
    return 0;
}

static void run_patch(struct task *task)
{
    struct err err;
    const json_t *before = component_of(json_object_get(session_private(task->session->doc), "components"), task->request->sub_id);
    if (!before) {
        component_missing(task->request, &err);
        task_fail(task, &err);
        return;
    }
    for (size_t i = 0; i < ELEMENTS(patches); i++) {
        if (json_object_get(task->request->body, patches[i].member) && !session_allow(task, patches[i].operation, NULL))
            return;
    }
    if (restore_patch_check(task->session->doc, before, task->request->body, &err) ||
        check_previous(task->engine, before, json_object_get(task->request->body, "previous_stamp"), &err)) {
        task_fail(task, &err);
        return;
    }
    task->draft = session_draft(task->session);
    json_t *component = component_of(session_draft_array(task->draft, "components"), task->request->sub_id);
    for (size_t i = 0; i < ELEMENTS(patches); i++) {
        json_t *value = json_object_get(task->request->body, patches[i].member);
        if (value && !patches[i].own)
            json_put(component, patches[i].member, json_incref(value));
    }
    restore_patch_apply(component, task->request->body);
    task->body = json_incref(component);
    task->status = 200;
    task->committed = added;
    task_commit(task, NULL);
}

bool component_ended_without(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    if (session_find(engine, request->id))
        return false;
    AUTO_JSON json_t *doc = session_read(engine, request, answer, arg);
    if (!doc)
        return true;
    if (component_of(json_object_get(session_private(doc), "components"), request->sub_id))
        return false;
    struct err err;
    component_missing(request, &err);
    answer_error(answer, arg, &err);
    return true;
}

void engine_component_patch(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    if (component_ended_without(engine, request, answer, arg))
        return;
    session_task(engine, request, answer, arg, run_patch);
}
