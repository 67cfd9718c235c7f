/* The snapshot set: the node's creation slot, the set's volumes. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

struct slot_waiter {
    struct slot_waiter *next;
    struct session *session;
    void (*granted)(void *arg);
    void *arg;
};

bool slot_take(struct session *session)
{
    struct engine *engine = session->engine;
    if (engine->slot && engine->slot != session)
        return false;
    engine->slot = session;
    return true;
}

void slot_wait(struct session *session, void (*granted)(void *arg), void *arg)
{
    if (slot_take(session)) {
        granted(arg);
        return;
    }
    struct slot_waiter *waiter = mem_new(sizeof *waiter), **at = &session->engine->slot_waiters;
    *waiter = (struct slot_waiter){.session = session, .granted = granted, .arg = arg};
    while (*at)
        at = &(*at)->next;
    *at = waiter;
}

void slot_wait_forget(struct session *session)
{
    for (struct slot_waiter **at = &session->engine->slot_waiters; *at;) {
        struct slot_waiter *waiter = *at;
        if (waiter->session != session) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        free(waiter);
    }
}

void slot_clear(struct engine *engine)
{
    while (engine->slot_waiters)
        slot_wait_forget(engine->slot_waiters->session);
}

void slot_release(struct session *session)
{
    struct engine *engine = session->engine;
    if (engine->slot != session)
        return;
    engine->slot = NULL;
    struct slot_waiter *waiter = engine->slot_waiters;
    if (!waiter)
        return;
    engine->slot_waiters = waiter->next;
    engine->slot = waiter->session;
    waiter->granted(waiter->arg);
    free(waiter);
}

/* --- StartSnapshotSet --- */

static void set_started(struct task *task, const struct err *err)
{
    if (err) {
        slot_release(task->session);
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    session_lease_renew(task->session);
    task_answer(task, 201, json_incref(task->body));
}

static void run_start(struct task *task)
{
    struct err err;
    if (!session_allow(task, SESSION_OP_START_SNAPSHOT_SET, NULL))
        return;
    if (str_eq(json_str(task->session->doc, "context", ""), "all")) {
        err_set(&err, VSS_E_BAD_STATE, "This context is for administration only.", "StartSnapshotSet: not possible in context all");
        task_fail(task, &err);
        return;
    }
    if (!slot_take(task->session)) {
        err_set(&err, VSS_E_SNAPSHOT_SET_IN_PROGRESS, "Try again when that set is finished.", "session %s is creating a snapshot set",
                task->engine->slot->id);
        task->retry_after = 5;
        task_fail(task, &err);
        return;
    }
    char id[UUID_SIZE];
    uuid_v7(id);
    task->draft = session_draft(task->session);
    session_set_state(task->draft, SESSION_SET_OPEN);
    json_put(task->draft, "snapshot_set_id", json_string(id));
    task->body = json_pack("{s:s, s:s, s:[]}", "id", id, "session_id", task->session->id, "volumes");
    task->status = 201;
    task->committed = set_started;
    task_commit(task, NULL);
}

void engine_snapshot_set_start(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_start);
}

/* --- AddToSnapshotSet --- */

static void volume_added(struct task *task, const struct err *err)
{
    if (err) {
        incident(task->engine, task->session->id, NULL, NULL, err->hr, err->text);
        task_fail(task, err);
        return;
    }
    session_lease_renew(task->session);
    task_answer(task, 201, json_incref(task->body));
}

static void resolved(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    struct err err;
    if (reply->err) {
        task_fail(task, reply->err);
        return;
    }
    if (task->request->principal->paths && json_bool(reply->result, "outside", false)) { /* it would be frozen until the limit */
        err_set(&err, VSS_E_VOLUME_NOT_SUPPORTED, "Put the data on a file system with snapshots, such as btrfs.",
                "%s: its file system could only be frozen for a snapshot outside", json_str(task->request->body, "path", ""));
        task_fail(task, &err);
        return;
    }
    if (principal_may_have(task->request->principal, reply->result, &err)) {
        task_fail(task, &err);
        return;
    }
    const char *volume = json_str(reply->result, "volume", "");
    task->draft = session_draft(task->session);
    json_t *volumes = session_draft_array(task->draft, "volumes");
    size_t i;
    json_t *have;
    json_array_foreach(volumes, i, have)
    {
        if (str_eq(json_str(have, "volume", ""), volume)) {
            err_set(&err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "volume %s is in the set already", volume);
            task_fail(task, &err);
            return;
        }
    }
    if (snapshots_room(task->engine, volume, &err)) {
        task_fail(task, &err);
        return;
    }
    char id[UUID_SIZE];
    uuid_v7(id);
    const char *requested = json_str(task->request->body, "path", volume);
    json_add(volumes, json_pack("{s:s, s:s, s:s, s:s, s:b}", "snapshot_id", id, "volume", volume, "provider",
                                json_str(reply->result, "provider", ""), "requested", requested, "atomic", json_bool(reply->result, "atomic", false)));
    json_t *excludes = json_object_get(task->request->body, "excludes");
    if (json_array_size(excludes) > 0)
        json_array_extend(session_draft_array(task->draft, "excludes"), excludes);
    task->body = json_pack("{s:s, s:s, s:s}", "snapshot_id", id, "volume", volume, "provider", json_str(reply->result, "provider", ""));
    task->status = 201;
    task->committed = volume_added;
    task_commit(task, NULL);
}

/* How the set's snapshots shall be stored, when the requester said so with SetContext. */
static const char *wanted_storage(const struct task *task)
{
    static const char *const ways[] = {"differential", "plex"};
    for (size_t i = 0; i < ELEMENTS(ways); i++)
        if (json_has_string(json_object_get(task->session->doc, "attributes"), ways[i]))
            return ways[i];
    return NULL;
}

/* What the set leaves out by name, this call's own included; new reference. */
static json_t *all_excludes(const struct task *task)
{
    json_t *excludes = json_array();
    json_array_extend(excludes, json_object_get(session_private(task->session->doc), "excludes"));
    json_array_extend(excludes, json_object_get(task->request->body, "excludes"));
    return excludes;
}

/* A named provider could freeze the file system for as long as the limit is. */
static int provider_is_free(const struct principal *principal, const json_t *body, struct err *err)
{
    if (!principal->paths || !json_str(body, "provider", NULL))
        return 0;
    err_set(err, E_ACCESSDENIED, "Leave it out.", "%s may not choose the provider", principal->name);
    str_copy(err->reason, sizeof err->reason, "paths");
    return -1;
}

static void run_add(struct task *task)
{
    struct err err;
    const json_t *body = task->request->body;
    const char *path = json_str(body, "path", "");
    if (!path_is_canonical(path)) {
        err_invalid(&err, "/path", "must be an absolute path without '.', '..' or empty parts");
        task_fail(task, &err);
        return;
    }
    if (paths_canonical(json_object_get(body, "excludes"), "excludes", &err) || principal_may_snapshot(task->request->principal, path, &err) ||
        provider_is_free(task->request->principal, body, &err)) {
        task_fail(task, &err);
        return;
    }
    if (!session_allow(task, SESSION_OP_ADD_TO_SNAPSHOT_SET, NULL))
        return;
    if (json_array_size(json_object_get(session_private(task->session->doc), "volumes")) >= VOLUMES_PER_SET) {
        err_set(&err, VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED, NULL, "a snapshot set holds at most %d volumes", VOLUMES_PER_SET);
        task_fail(task, &err);
        return;
    }
    if (json_has_string(json_object_get(task->session->doc, "attributes"), "transportable")) {
        err_set(&err, VSS_E_VOLUME_NOT_SUPPORTED, "Take the set without the attribute transportable, and restore the backup on the other machine.",
                "%s: no provider here makes snapshots in a storage array that another machine could import", path);
        task_fail(task, &err);
        return;
    }
    static const struct worker_handlers handlers = {.done = resolved};
    worker_link_run(session_worker(task->session), "resolve",
                    json_pack("{s:s, s:s?, s:s?, s:O?, s:o, s:o}", "path", path, "provider", json_str(body, "provider", NULL), "storage",
                              wanted_storage(task), "volumes", json_object_get(session_private(task->session->doc), "volumes"), "excludes",
                              all_excludes(task), "repositories", repository_paths(task->engine)),
                    &handlers, task);
}

void engine_snapshot_set_add(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    session_task(engine, request, answer, arg, run_add);
}
