/* A restore session's synchronous calls: what is restored, how, and where to. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/restore/restore.h"
#include "engine/session/session.h"
#include "model/restore_rules.h"

/* --- SetRestoreState --- */

static void answer_session(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    session_lease_renew(task->session);
    task_answer(task, 200, session_view(task->session));
}

static void run_state(struct task *task)
{
    if (!session_allow(task, SESSION_OP_SET_RESTORE_STATE, NULL))
        return;
    task->draft = session_draft(task->session);
    json_put(task->draft, "restore_state", json_pack("{s:s}", "type", json_str(task->request->body, "type", "by_copy")));
    task->committed = answer_session;
    task_commit(task, NULL);
}

void engine_session_restore_state(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_state);
}

/* --- members of PATCH --- */

/* What a writer must have said that it can (vss-model 4.6) before a requester may ask for it. */
static const struct {
    const char *member, *schema;
} gated[] = {
    {"authoritative_restore", "authoritative"},
    {"roll_forward", "roll_forward"},
    {"restore_name", "restore_rename"},
};

static int check_ranges(const json_t *component, const json_t *given, struct err *err)
{
    int64_t n = json_int(given, "partial_file", 0);
    if (given && (size_t)n >= json_array_size(json_object_get(component, "partial_files")))
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, NULL, "component %s has no partial file %lld", json_str(component, "name", ""), (long long)n);
    return 0;
}

int restore_patch_check(const json_t *doc, const json_t *component, const json_t *body, struct err *err)
{
    const json_t *own = session_private(doc), *document = json_object_get(own, "document");
    const json_t *selected = json_object_get(body, "selected"), *instance = json_object_get(body, "instance_id");
    if (instance && !json_is_true(selected))
        return err_invalid(err, "/instance_id", "goes with \"selected\": true (SetSelectedForRestoreEx)");
    if (json_is_true(selected) &&
        restore_may_select(document, json_object_get(own, "writers"), component, json_str(body, "instance_id", NULL), err))
        return -1;
    for (size_t i = 0; i < ELEMENTS(gated); i++) {
        const json_t *value = json_object_get(body, gated[i].member);
        if (!value || json_is_null(value) || json_is_false(value) || restore_schema(document, component, gated[i].schema))
            continue;
        char pointer[64];
        str_format(pointer, sizeof pointer, "/%s", gated[i].member);
        return err_invalid(err, pointer, "writer %s cannot do this (%s is not in its backup_schema)", json_str(component, "writer", ""),
                           gated[i].schema);
    }
    return check_ranges(component, json_object_get(body, "ranges_file_path"), err);
}

void restore_patch_apply(json_t *component, const json_t *body)
{
    const json_t *selected = json_object_get(body, "selected"), *ranges = json_object_get(body, "ranges_file_path");
    const char *instance = json_str(body, "instance_id", NULL);
    if (selected) /* each call says it anew: without an instance the component goes back to its own writer */
        json_put(component, "restore_instance_id",
                 instance && !str_eq(instance, json_str(component, "instance_id", "")) ? json_string(instance) : json_null());
    if (json_is_false(selected))
        json_put(component, "subcomponents", json_array());
    if (ranges)
        json_put(json_array_get(json_object_get(component, "partial_files"), (size_t)json_int(ranges, "partial_file", 0)), "ranges_file_path",
                 json_string(json_str(ranges, "path", "")));
}

/* --- what is added to a component --- */

struct addition {
    const char *list;                /* member of the component */
    enum session_operation operation;
    /* The row to add; NULL with err. New reference. */
    json_t *(*row)(const struct task *task, const json_t *component, struct err *err);
};

static json_t *subcomponent_row(const struct task *task, const json_t *component, struct err *err)
{
    const json_t *own = session_private(task->session->doc), *body = task->request->body;
    if (!json_bool(component, "selected", false)) {
        err_set(err, VSS_E_BAD_STATE, "Select the component first: PATCH it with \"selected\": true.",
                "AddRestoreSubcomponent: component %s is not selected", json_str(component, "name", ""));
        return NULL;
    }
    if (restore_may_add_subcomponent(json_object_get(own, "document"), json_object_get(own, "components"), component, body, err))
        return NULL;
    return json_pack("{s:s, s:s}", "logical_path", json_str(body, "logical_path", ""), "name", json_str(body, "name", ""));
}

static json_t *set_row(const struct task *task, const json_t *component, const char *to, struct err *err)
{
    const json_t *body = task->request->body, *document = json_object_get(session_private(task->session->doc), "document");
    if (restore_has_file_set(document, component, body))
        return json_pack("{s:s, s:s, s:b, s:s}", "path", json_str(body, "path", ""), "spec", json_str(body, "spec", "*"), "recursive",
                         json_bool(body, "recursive", true), to, json_str(body, to, ""));
    err_set(err, VSS_E_OBJECT_NOT_FOUND, "Path, spec and recursive must be those of one of the component's file sets.",
            "component %s has no file set %s, %s", json_str(component, "name", ""), json_str(body, "path", ""), json_str(body, "spec", "*"));
    return NULL;
}

static json_t *new_target_row(const struct task *task, const json_t *component, struct err *err)
{
    const json_t *document = json_object_get(session_private(task->session->doc), "document");
    if (restore_path_allowed(task->engine, json_str(task->request->body, "new_path", ""), "/new_path", err))
        return NULL;
    if (!restore_schema(document, component, "new_target")) {
        err_invalid(err, "/new_path", "writer %s takes no new targets (new_target is not in its backup_schema)", json_str(component, "writer", ""));
        return NULL;
    }
    const char *new_path = json_str(task->request->body, "new_path", ""), *living = restore_lives_at(document, component, new_path);
    if (living) {
        err_invalid(err, "/new_path", "component %s lives at %s: its writer would not stop what works there", json_str(component, "name", ""), living);
        str_copy(err->hint, sizeof err->hint, "Restore in place, without a new target; or name a folder apart.");
        return NULL;
    }
    return set_row(task, component, "new_path", err);
}

static json_t *mapping_row(const struct task *task, const json_t *component, struct err *err)
{
    return set_row(task, component, "alternate_path", err);
}

static const struct addition subcomponents = {"subcomponents", SESSION_OP_SELECT, subcomponent_row};
static const struct addition new_targets = {"new_targets", SESSION_OP_ADD_NEW_TARGET, new_target_row};
static const struct addition mappings = {"alternate_location_mappings", SESSION_OP_SET_FILE_STATUS, mapping_row};

static void added(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    session_lease_renew(task->session);
    task_answer(task, 201, json_incref(task->body));
}

/* The same file set, or the same subcomponent, once. */
static bool known(const json_t *list, const json_t *row)
{
    size_t i;
    const json_t *have;
    json_array_foreach(list, i, have)
    {
        if (json_object_get(row, "name") ? str_eq(json_str(have, "name", ""), json_str(row, "name", "")) &&
                                               str_eq(json_str(have, "logical_path", ""), json_str(row, "logical_path", ""))
                                         : restore_same_set(have, row))
            return true;
    }
    return false;
}

static void run_add(struct task *task, const struct addition *addition)
{
    struct err err;
    const json_t *component = component_of(json_object_get(session_private(task->session->doc), "components"), task->request->sub_id);
    if (!component) {
        component_missing(task->request, &err);
        task_fail(task, &err);
        return;
    }
    if (!session_allow(task, addition->operation, NULL))
        return;
    AUTO_JSON json_t *row = addition->row(task, component, &err);
    if (row && known(json_object_get(component, addition->list), row)) {
        err_set(&err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "component %s has it already", json_str(component, "name", ""));
        json_decref(TAKE_PTR(row));
    }
    if (!row) {
        task_fail(task, &err);
        return;
    }
    task->draft = session_draft(task->session);
    json_t *drafted = component_of(session_draft_array(task->draft, "components"), task->request->sub_id);
    json_add(json_object_get(drafted, addition->list), TAKE_PTR(row));
    task->body = json_incref(drafted);
    task->status = 201;
    task->committed = added;
    task_commit(task, NULL);
}

static void run_subcomponent(struct task *task)
{
    run_add(task, &subcomponents);
}
static void run_new_target(struct task *task)
{
    run_add(task, &new_targets);
}
static void run_mapping(struct task *task)
{
    run_add(task, &mappings);
}

#define COMPONENT_CALL(name)                                                                                                \
    void engine_component_##name(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg) \
    {                                                                                                                       \
        if (!component_ended_without(engine, request, answer, arg))                                                         \
            session_task(engine, request, answer, arg, run_##name);                                                         \
    }
COMPONENT_CALL(subcomponent)
COMPONENT_CALL(new_target)
COMPONENT_CALL(mapping)
