/* POST /sessions/{id}/snapshot-set/components: AddComponent for everything that the volumes of the set hold. */
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"
#include "model/selection.h"

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

/* What is chosen already, or comes with what is, stays as it is. */
static void add_each(struct task *task, const json_t *covered, json_t *chosen)
{
    const json_t *writers = json_object_get(session_private(task->draft), "writers"), *item;
    size_t i;
    json_array_foreach(covered, i, item)
    {
        const json_t *writer = selection_writer(writers, json_str(item, "instance_id", ""));
        const json_t *component = selection_component(writer, json_str(item, "logical_path", ""), json_str(item, "name", ""));
        if (component && !selection_included(writer, chosen, component) && selection_may_add(writer, component, NULL) == 0)
            json_add(chosen, component_record(writer, component));
    }
}

/* And what those depend on, as far as somebody here offers it: PrepareForBackup refuses the rest. */
static void add_needed(struct task *task, json_t *chosen)
{
    const json_t *writers = json_object_get(session_private(task->draft), "writers");
    struct selection_missing missing;
    while (!selection_whole(writers, chosen, &missing) && missing.component)
        json_add(chosen, component_record(missing.writer, missing.component));
}

static void told(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    if (reply->err) {
        task_fail(task, reply->err);
        return;
    }
    task->draft = session_draft(task->session);
    json_t *chosen = session_draft_array(task->draft, "components"), *new = json_array();
    size_t before = json_array_size(chosen);
    add_each(task, json_object_get(reply->result, "components"), chosen);
    add_needed(task, chosen);
    for (size_t i = before; i < json_array_size(chosen); i++)
        json_add(new, json_incref(json_array_get(chosen, i)));
    task->body = json_pack("{s:o, s:n}", "items", new, "next_cursor");
    task->status = 200;
    task->committed = added;
    task_commit(task, NULL);
}

static void run_covered(struct task *task)
{
    static const struct worker_handlers handlers = {.done = told};
    struct err err;
    if (!session_allow(task, SESSION_OP_ADD_COMPONENT, NULL))
        return;
    const json_t *doc = task->session->doc, *volumes = json_object_get(session_private(doc), "volumes");
    const json_t *state = json_object_get(doc, "backup_state");
    const char *why = json_array_size(volumes) == 0                                                ? "the snapshot set has no volumes yet"
                      : json_is_object(state) && !json_bool(state, "component_mode", true) ? "the session is not in component mode"
                                                                                            : NULL;
    if (why) {
        err_set(&err, VSS_E_BAD_STATE, "Set component_mode, then StartSnapshotSet and AddToSnapshotSet.", "AddComponent: %s", why);
        task_fail(task, &err);
        return;
    }
    worker_link_run(session_worker(task->session), "covered", json_pack("{s:O}", "volumes", volumes), &handlers, task);
}

void engine_snapshot_set_components(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_covered);
}
