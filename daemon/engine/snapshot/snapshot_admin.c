/* What is done to snapshots after they were taken. A snapshot is in the hands of one call at a time (VSS leaves it to callers to
 * serialize); a second one is told so. */
#include "engine/engine_private.h"

#include "base/fault.h"
#include "engine/session/session.h"
#include "engine/snapshot/snapshot.h"

struct snapshot_admin {
    struct snapshot_admin *next;
    struct engine *engine;
    struct task *task;
    struct worker_link *worker;
    json_t *rows;    /* records in hand */
    size_t at;       /* the one that is being worked at */
    json_t *removed; /* ids */
    bool force;
    enum admin_use use;
    struct engine_stream *stream; /* ADMIN_STREAMS */
    struct err err;  /* the answer, while the record is put right */
};

/* --- in hand --- */

static bool used(struct engine *engine, const char *id, enum admin_use use)
{
    size_t i;
    const json_t *row;
    for (const struct snapshot_admin *admin = engine->admins; admin; admin = admin->next)
        json_array_foreach(admin->rows, i, row)
            if (admin->use == use && str_eq(json_str(row, "id", ""), id))
                return true;
    return false;
}

bool snapshot_in_hand(struct engine *engine, const char *id)
{
    return used(engine, id, ADMIN_CHANGES) || snapshot_being_reverted(engine, id);
}

static int refuse_busy(struct engine *engine, const json_t *rows, enum admin_use use, struct err *err)
{
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *id = json_str(row, "id", "");
        if (snapshot_in_hand(engine, id))
            return err_set(err, VSS_E_BAD_STATE, "Calls on one snapshot come one after the other.", "snapshot %s is in the hands of another call", id);
        if (use == ADMIN_CHANGES && used(engine, id, ADMIN_STREAMS))
            return err_set(err, VSS_E_BAD_STATE, "Wait for its end, or end it.", "snapshot %s is being read out as an archive", id);
    }
    return 0;
}

/* Takes the rows in hand, or answers why not. */
static struct snapshot_admin *admin_new(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                                        json_t *rows /* taken */, enum admin_use use)
{
    struct err err;
    if (refuse_busy(engine, rows, use, &err)) {
        json_decref(rows);
        answer_error(answer, arg, &err);
        return NULL;
    }
    struct snapshot_admin *admin = mem_new(sizeof *admin);
    *admin = (struct snapshot_admin){.next = engine->admins, .engine = engine, .task = task_new(engine, request, answer, arg),
                                     .rows = rows, .removed = json_array(), .use = use, .force = json_bool(request->query, "force", false)};
    engine->admins = admin;
    return admin;
}

static struct task *admin_free(struct snapshot_admin *admin)
{
    struct task *task = admin->task;
    for (struct snapshot_admin **at = &admin->engine->admins; *at; at = &(*at)->next) {
        if (*at == admin) {
            *at = admin->next;
            break;
        }
    }
    if (admin->stream)
        snapshot_stream_orphan(admin->stream);
    worker_link_close(admin->worker);
    json_decref(admin->rows);
    json_decref(admin->removed);
    free(admin);
    return task;
}

void snapshot_admins_free(struct engine *engine)
{
    while (engine->admins)
        serial_clear(&(struct serial){.first = admin_free(engine->admins)});
}

static void admin_fail(struct snapshot_admin *admin, const struct err *err, json_t *extra /* taken */)
{
    const struct err cause = *err;
    if (cause.hr == (uint32_t)VSS_E_UNEXPECTED || cause.hr == (uint32_t)VSS_E_UNEXPECTED_PROVIDER_ERROR)
        incident(admin->engine, NULL, NULL, NULL, cause.hr, cause.text);
    task_fail_extra(admin_free(admin), &cause, extra);
}

static json_t *current(const struct snapshot_admin *admin)
{
    return json_array_get(admin->rows, admin->at);
}

static void ask_worker(struct snapshot_admin *admin, const char *operation, json_t *args /* taken */, const struct worker_handlers *handlers)
{
    snapshot_admin_ask(admin, operation, args, handlers, admin);
}

/* Commits the row in hand, changed; then(admin, err). */
static void put_row_with(struct snapshot_admin *admin, json_t *row /* taken */, struct store_batch *batch /* taken */, const char *event,
                         store_done_fn then)
{
    json_array_set_new(admin->rows, admin->at, row);
    snapshot_batch_row(batch, row);
    if (event)
        event_snapshot(batch, event, row);
    store_submit(admin->engine->store, batch, then, admin);
}

static void put_row(struct snapshot_admin *admin, json_t *row /* taken */, const char *event, store_done_fn then)
{
    put_row_with(admin, row, store_batch_new(), event, then);
}

/* --- DeleteSnapshots: one after the other; the first failure ends it, what was deleted before stays deleted --- */

static void delete_next(struct snapshot_admin *admin);

static void delete_failed(struct snapshot_admin *admin, const struct err *err)
{
    json_t *extra = json_pack("{s:I, s:O, s:s}", "deleted", (json_int_t)json_array_size(admin->removed), "snapshot_ids", admin->removed,
                              "nondeleted_snapshot_id", json_str(current(admin), "id", ""));
    const struct session *session = session_find(admin->engine, json_str(current(admin), "session_id", ""));
    if (session && session->pending) {
        json_put(extra, "session_state", json_string(session_state_name(session_state(session->doc))));
        json_put(extra, "job", json_string(session->pending->id));
    }
    admin_fail(admin, err, extra);
}

static void delete_put_right(void *arg, const struct err *err)
{
    struct snapshot_admin *admin = arg;
    (void)err;
    delete_failed(admin, &admin->err);
}

static void row_deleted(void *arg, const struct err *err)
{
    struct snapshot_admin *admin = arg;
    if (err) {
        delete_failed(admin, err);
        return;
    }
    json_add(admin->removed, json_string(json_str(current(admin), "id", "")));
    admin->at++;
    delete_next(admin);
}

static void removed(void *arg, const struct worker_reply *reply)
{
    struct snapshot_admin *admin = arg;
    const json_t *row = current(admin);
    if (!reply->err) {
        struct store_batch *batch = store_batch_new();
        snapshot_batch_delete(batch, row);
        store_submit(admin->engine->store, batch, row_deleted, admin);
        return;
    }
    admin->err = *reply->err;
    /* What goes in one step is still whole; a tree may have lost files. */
    if (json_bool(row, "atomic", false)) {
        json_t *whole = json_copy((json_t *)row);
        json_put(whole, "state", json_string(SNAPSHOT_CREATED));
        put_row(admin, whole, NULL, delete_put_right);
    } else {
        delete_put_right(admin, NULL);
    }
}

static void delete_marked(void *arg, const struct err *err)
{
    struct snapshot_admin *admin = arg;
    static const struct worker_handlers handlers = {.done = removed};
    if (err)
        delete_failed(admin, err);
    else
        ask_worker(admin, "remove_snapshot", json_pack("{s:O, s:b}", "snapshot", current(admin), "force", admin->force), &handlers);
}

static int deletable(struct snapshot_admin *admin, struct err *err)
{
    const json_t *row = current(admin);
    const char *id = json_str(row, "id", ""), *exposed = exposure_of(row, NULL);
    struct session *session = session_find(admin->engine, json_str(row, "session_id", ""));
    if (session && session->pending)
        return err_set(err, VSS_E_BAD_STATE, "Wait for the job, or cancel it with DELETE.", "snapshot %s: job %s of its session is pending", id,
                       session->pending->id);
    if (exposed && !admin->force)
        return err_set(err, VSS_E_BAD_STATE, "DELETE its exposure first, or add force=true.", "snapshot %s is exposed at %s", id, exposed);
    return 0;
}

static void delete_next(struct snapshot_admin *admin)
{
    struct err err;
    if (admin->at >= json_array_size(admin->rows)) {
        json_t *body = json_pack("{s:I, s:O, s:n}", "deleted", (json_int_t)json_array_size(admin->removed), "snapshot_ids", admin->removed,
                                 "nondeleted_snapshot_id");
        task_answer(admin_free(admin), 200, body);
    } else if (deletable(admin, &err)) {
        delete_failed(admin, &err);
    } else {
        json_t *row = json_copy(current(admin));
        json_put(row, "state", json_string(SNAPSHOT_DELETING));
        put_row(admin, row, NULL, delete_marked);
    }
}

/* The rows when the caller may change them, or answers. rows is taken; NULL: err tells why. To look into a snapshot and to go back to
 * it is to restore: whose it is does not matter to a restorer. */
static json_t *changeable(const struct engine_request *request, engine_answer_fn answer, void *arg, json_t *rows, bool restores,
                          struct err *err)
{
    const struct principal *who = request->principal;
    if (rows && (principal_may_change(who, json_str(json_array_get(rows, 0), "owner", "")) || (restores && who->role == ROLE_RESTORER)))
        return rows;
    if (rows)
        err_set(err, E_ACCESSDENIED, NULL, "%s belongs to another principal", request->id);
    json_decref(rows);
    answer_error(answer, arg, err);
    return NULL;
}

static json_t *one_row(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg, bool restores)
{
    struct err err;
    json_t *doc = snapshot_read(engine, request, &err);
    return changeable(request, answer, arg, doc ? json_pack("[o]", doc) : NULL, restores, &err);
}

struct snapshot_admin *snapshot_admin_begin(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    json_t *rows = one_row(engine, request, answer, arg, true);
    return rows ? admin_new(engine, request, answer, arg, rows, ADMIN_CHANGES) : NULL;
}

json_t *snapshot_admin_row(const struct snapshot_admin *admin)
{
    return current(admin);
}

void snapshot_admin_ask(struct snapshot_admin *admin, const char *operation, json_t *args, const struct worker_handlers *handlers, void *arg)
{
    if (!admin->worker)
        admin->worker = worker_link_new(admin->engine->agent, NULL, NULL, NULL);
    worker_link_run(admin->worker, operation, args, handlers, arg);
}

void snapshot_admin_answer(struct snapshot_admin *admin, const struct engine_answer *answer)
{
    struct task *task = admin->task;
    engine_answer_fn tell = task->answer;
    task->answer = NULL;
    task->request = NULL; /* it ends with its answer */
    tell(task->answer_arg, answer);
}

void snapshot_admin_set_stream(struct snapshot_admin *admin, struct engine_stream *stream)
{
    admin->stream = stream;
}

void snapshot_streams_end(struct engine *engine, const char *session_id)
{
    struct err err;
    struct snapshot_admin *admin = engine->admins;
    err_set(&err, VSS_E_BAD_STATE, NULL, "its session has let go of the snapshot");
    while (admin) {
        const struct session_context *context = session_context_by_name(json_str(current(admin), "context", ""));
        if (admin->stream && !(context && context->persistent) && str_eq(json_str(current(admin), "session_id", ""), session_id)) {
            snapshot_stream_fail(admin->stream, &err);
            admin = engine->admins; /* the list is another one now */
        } else {
            admin = admin->next;
        }
    }
}

void snapshot_admin_fail(struct snapshot_admin *admin, const struct err *err)
{
    admin_fail(admin, err, NULL);
}

struct task *snapshot_admin_end(struct snapshot_admin *admin)
{
    return admin_free(admin);
}

static void delete_rows(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg, json_t *rows)
{
    struct snapshot_admin *admin = rows ? admin_new(engine, request, answer, arg, rows, ADMIN_CHANGES) : NULL;
    if (admin)
        delete_next(admin);
}

void engine_snapshot_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    delete_rows(engine, request, answer, arg, one_row(engine, request, answer, arg, false));
}

void engine_snapshot_set_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    json_t *rows = snapshot_set_read(engine, request, &err);
    delete_rows(engine, request, answer, arg, changeable(request, answer, arg, rows, false, &err));
}

/* --- ExposeSnapshot, UnexposeSnapshot --- */

/* Written before the mount: a kill in between is cleaned up at the next start. */
#define EXPOSING "exposing"

static json_t *row_exposed(const json_t *row, const char *path, const char *exposing)
{
    json_t *changed = json_copy((json_t *)row), *own = json_copy(session_private(row));
    json_put(changed, "exposed_path", path ? json_string(path) : json_null());
    if (!own)
        own = json_object();
    json_object_del(own, EXPOSING);
    if (exposing)
        json_put(own, EXPOSING, json_string(exposing));
    json_put(changed, "_", own);
    return changed;
}

static void expose_answer(void *arg, const struct err *err)
{
    struct snapshot_admin *admin = arg;
    if (err) {
        admin_fail(admin, err, NULL);
        return;
    }
    json_t *view = snapshot_view(admin->engine, current(admin));
    struct task *task = admin_free(admin);
    task_answer(task, 201, view);
}

static void expose_done(struct snapshot_admin *admin, json_t *row /* taken */)
{
    struct task *task = admin->task;
    struct store_batch *batch = store_batch_new();
    AUTO_JSON json_t *view = snapshot_view(admin->engine, row);
    str_format(task->location, sizeof task->location, "/snapshots/%s", json_str(view, "id", ""));
    struct engine_answer answer = {.status = 201, .body = view};
    str_copy(answer.location, sizeof answer.location, task->location);
    once_batch_put(task->request, batch, &answer);
    put_row_with(admin, row, batch, "snapshot.exposed", expose_answer);
}

/* With or without the store: what failed first is the answer. */
static void put_right(void *arg, const struct err *err)
{
    struct snapshot_admin *admin = arg;
    (void)err;
    admin_fail(admin, &admin->err, NULL);
}

static void exposed(void *arg, const struct worker_reply *reply)
{
    struct snapshot_admin *admin = arg;
    const char *path = json_str(admin->task->request->body, "path", "");
    struct err err;
    if (!reply->err && fault("engine.exposed")) {
        err_set(&err, VSS_E_UNEXPECTED, NULL, "snapshot %s: fault injected", json_str(current(admin), "id", ""));
        admin_fail(admin, &err, NULL);
    } else if (!reply->err) {
        expose_done(admin, row_exposed(current(admin), path, NULL));
    } else if (str_eq(reply->err->reason, "worker_lost")) {
        admin_fail(admin, reply->err, NULL); /* it may be mounted: the intent stays, for DELETE and for the next start */
    } else {
        admin->err = *reply->err;
        put_row(admin, row_exposed(current(admin), NULL, NULL), NULL, put_right);
    }
}

static void expose_marked(void *arg, const struct err *err)
{
    struct snapshot_admin *admin = arg;
    static const struct worker_handlers handlers = {.done = exposed};
    if (err)
        admin_fail(admin, err, NULL);
    else
        ask_worker(admin, "expose", json_pack("{s:O, s:s}", "snapshot", current(admin), "path", json_str(admin->task->request->body, "path", "")),
                   &handlers);
}

int snapshot_usable(const json_t *row, const char *what, struct err *err)
{
    const char *id = json_str(row, "id", "");
    const struct session_context *context = session_context_by_name(json_str(row, "context", ""));
    if (!context || !context->persistent)
        return err_set(err, VSS_E_UNSUPPORTED_CONTEXT, "Take it in a persistent context, such as nas_rollback or app_rollback.",
                       "snapshot %s is released with its session (context %s): %s is not possible", id, json_str(row, "context", ""), what);
    if (!str_eq(json_str(row, "state", ""), SNAPSHOT_CREATED))
        return err_set(err, VSS_E_BAD_STATE, "DELETE it again.", "snapshot %s is not whole: its removal did not end well", id);
    return 0;
}

static int exposable(const json_t *row, struct err *err)
{
    const char *exposed_path = exposure_of(row, NULL);
    if (snapshot_usable(row, "ExposeSnapshot", err))
        return -1;
    return exposed_path ? err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, "DELETE its exposure first.", "snapshot %s is exposed at %s already",
                                  json_str(row, "id", ""), exposed_path)
                        : 0;
}

static int exposure_allowed(struct engine *engine, const char *path, struct err *err)
{
    const json_t *roots = json_object_get(json_object_get(engine->config, "expose"), "roots"), *root;
    size_t i;
    if (!path_is_canonical(path))
        return err_invalid(err, "/path", "must be an absolute path without '.', '..' or empty parts");
    json_array_foreach(roots, i, root)
        if (path_beneath(path, json_string_value(root)) && !str_eq(path, json_string_value(root)))
            return 0;
    err_invalid(err, "/path", "%s is not beneath a directory of expose.roots", path);
    if (json_array_size(roots))
        str_format(err->hint, sizeof err->hint, "Snapshots may be exposed beneath %s: see expose.roots in the configuration.",
                   json_string_value(json_array_get(roots, 0)));
    else
        str_copy(err->hint, sizeof err->hint, "Set expose.roots in the configuration: it names where snapshots may be exposed.");
    return -1;
}

void engine_snapshot_expose(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    const char *path = json_str(request->body, "path", "");
    if (exposure_allowed(engine, path, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    struct snapshot_admin *admin = snapshot_admin_begin(engine, request, answer, arg);
    if (!admin)
        return;
    if (exposable(current(admin), &err))
        admin_fail(admin, &err, NULL);
    else
        put_row(admin, row_exposed(current(admin), NULL, path), NULL, expose_marked);
}

static void unexpose_answer(void *arg, const struct err *err)
{
    struct snapshot_admin *admin = arg;
    if (err)
        admin_fail(admin, err, NULL);
    else
        task_answer(admin_free(admin), 204, NULL);
}

static void unexposed(void *arg, const struct worker_reply *reply)
{
    struct snapshot_admin *admin = arg;
    /* One that is no longer on its disk is not mounted either, as far as we can tell. */
    if (reply->err && reply->err->hr != (uint32_t)VSS_E_OBJECT_NOT_FOUND)
        admin_fail(admin, reply->err, NULL);
    else
        put_row(admin, row_exposed(current(admin), NULL, NULL), "snapshot.unexposed", unexpose_answer);
}

void engine_snapshot_unexpose(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    static const struct worker_handlers handlers = {.done = unexposed};
    struct err err;
    struct snapshot_admin *admin = snapshot_admin_begin(engine, request, answer, arg);
    if (!admin)
        return;
    const char *path = exposure_of(current(admin), NULL);
    if (!path) {
        err_set(&err, VSS_E_OBJECT_NOT_FOUND, "GET /snapshots tells which are exposed.", "snapshot %s is not exposed", request->id);
        admin_fail(admin, &err, NULL);
        return;
    }
    ask_worker(admin, "unexpose", json_pack("{s:O, s:s}", "snapshot", current(admin), "path", path), &handlers);
}

/* --- looking into one --- */

static const struct {
    size_t most; /* at a time: each is a worker */
    const char *what;
} readers[ADMIN_USES] = {[ADMIN_LISTS] = {16, "look into snapshots"}, [ADMIN_STREAMS] = {8, "read snapshots out"}};

struct snapshot_admin *snapshot_admin_read(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                                           enum admin_use use)
{
    size_t n = 0;
    json_t *rows = one_row(engine, request, answer, arg, true);
    if (!rows)
        return NULL;
    for (const struct snapshot_admin *one = engine->admins; one; one = one->next)
        n += one->use == use;
    if (n < readers[use].most)
        return admin_new(engine, request, answer, arg, rows, use);
    struct err err;
    const struct engine_answer refused = {.err = &err, .retry_after = 1};
    err_set(&err, E_OUTOFMEMORY, "Try again in a moment.", "%zu others %s", n, readers[use].what);
    answer(arg, &refused);
    json_decref(rows);
    return NULL;
}

static void listed(void *arg, const struct worker_reply *reply)
{
    struct snapshot_admin *admin = arg;
    if (reply->err)
        admin_fail(admin, reply->err, NULL);
    else
        task_answer_page(admin_free(admin), reply->result);
}

void engine_snapshot_files(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    static const struct worker_handlers handlers = {.done = listed};
    struct err err;
    const char *path = json_str(request->query, "path", "/");
    if (directory_path_check(path, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    struct snapshot_admin *admin = snapshot_admin_read(engine, request, answer, arg, ADMIN_LISTS);
    if (!admin)
        return;
    ask_worker(admin, "list_files",
               json_pack("{s:O, s:s, s:s?, s:I}", "snapshot", current(admin), "path", path, "after", json_str(request->query, "cursor", NULL),
                         "limit", (json_int_t)json_int(request->query, "limit", 50)),
               &handlers);
}

/* --- at the next start --- */

const char *exposure_of(const json_t *row, bool *ret_wanted)
{
    const char *path = json_str(row, "exposed_path", NULL);
    if (ret_wanted)
        *ret_wanted = path != NULL;
    return path ? path : json_str(session_private(row), EXPOSING, NULL);
}

static void exposure_settled(struct engine *engine, const json_t *one, const json_t *row)
{
    const char *reason = json_str(one, "reason", "");
    bool exposed = json_bool(one, "exposed", false);
    if (!exposed && exposure_of(row, NULL)) {
        AUTO_JSON json_t *changed = row_exposed(row, NULL, NULL);
        struct store_batch *batch = store_batch_new();
        snapshot_batch_row(batch, changed);
        store_submit(engine->store, batch, NULL, NULL);
    }
    if (!*reason)
        return;
    AUTO_FREE char *text = str_new("recovery: snapshot %s %s: %s", json_str(one, "id", ""),
                                   exposed ? "is still mounted where it was exposed" : "is not exposed any more", reason);
    incident(engine, json_str(row, "session_id", NULL), NULL, NULL, VSS_E_UNEXPECTED, text);
}

void exposures_settled(struct engine *engine, const json_t *exposures)
{
    size_t i;
    const json_t *one;
    json_array_foreach(exposures, i, one)
    {
        AUTO_JSON json_t *row = NULL;
        if (store_get(engine->store, STORE_SNAPSHOT, json_str(one, "id", ""), &row, NULL, NULL) == STORE_OK)
            exposure_settled(engine, one, row);
    }
}
