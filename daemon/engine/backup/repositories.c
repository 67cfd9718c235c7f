/* Where backups go: repositories of the configuration (fixed) and of the store (made over the API). */
#include "conf/conf.h"
#include "engine/backup/backup.h"
#include "engine/engine_private.h"

static json_t *configured(struct engine *engine, const char *name)
{
    size_t i;
    json_t *repository;
    json_array_foreach(json_object_get(engine->config, "repositories"), i, repository)
    {
        if (str_eq(json_str(repository, "name", ""), name))
            return repository;
    }
    return NULL;
}

json_t *repository_find(struct engine *engine, const char *name)
{
    json_t *doc = configured(engine, name);
    if (doc)
        return json_incref(doc);
    doc = NULL;
    return store_get(engine->store, STORE_REPOSITORY, name, &doc, NULL, NULL) == STORE_OK ? doc : NULL;
}

json_t *repositories_all(struct engine *engine)
{
    json_t *all = json_array(), *row;
    AUTO_JSON json_t *rows = NULL;
    const struct store_query query = {.kind = STORE_REPOSITORY, .limit = 1000};
    size_t i;
    json_array_foreach(json_object_get(engine->config, "repositories"), i, row) json_add(all, json_incref(row));
    if (store_list(engine->store, &query, &rows, NULL, NULL) == STORE_OK)
        json_array_foreach(rows, i, row)
        {
            if (!configured(engine, json_str(row, "name", ""))) /* the configuration's of that name is the one in force */
                json_add(all, json_incref(row));
        }
    return all;
}

json_t *repository_paths(struct engine *engine)
{
    AUTO_JSON json_t *all = repositories_all(engine);
    json_t *paths = json_array(), *repository;
    size_t i;
    json_array_foreach(all, i, repository)
        if (conf_repository_place(repository))
            json_add(paths, json_string(conf_repository_place(repository)));
    return paths;
}

/* A backup's own limits over its repository's, member by member. */
int repository_limits(const json_t *repository, const json_t *asked, json_t **ret_limits, struct err *err)
{
    const json_t *own = json_object_get(repository, "limits");
    AUTO_JSON json_t *limits = json_is_object(own) ? json_deep_copy(own) : json_object();
    bool idle = str_eq(json_str(asked, "io_class", ""), "idle");
    if (idle && json_object_get(asked, "io_priority"))
        return err_invalid(err, "/limits/io_priority", "means nothing with io_class idle: leave it out, or take best-effort");
    if (json_object_get(asked, "bandwidth_bytes_per_second") && str_eq(json_str(repository, "mover", ""), "borg") && !json_object_get(repository, "url"))
        return err_invalid(err, "/limits/bandwidth_bytes_per_second", "repository %s is a path: borg limits only what it sends elsewhere",
                           json_str(repository, "name", ""));
    if (json_is_object(asked))
        json_object_update(limits, (json_t *)(uintptr_t)asked);
    if (str_eq(json_str(limits, "io_class", ""), "idle"))
        json_object_del(limits, "io_priority");
    *ret_limits = json_object_size(limits) > 0 ? TAKE_PTR(limits) : NULL;
    return 0;
}

static json_t *view(struct engine *engine, const json_t *doc)
{
    json_t *shown = json_copy((json_t *)doc);
    json_object_del(shown, "environment"); /* may name secrets */
    json_put(shown, "configured", json_boolean(configured(engine, json_str(doc, "name", "")) != NULL));
    return shown;
}

void engine_repository_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    AUTO_JSON json_t *rows = NULL;
    bool more;
    const struct store_query query = {.kind = STORE_REPOSITORY, .limit = 1000};
    (void)request;
    if (store_list(engine->store, &query, &rows, &more, &err) == STORE_ERROR) {
        answer_error(answer, arg, &err);
        return;
    }
    json_t *items = json_array(), *row;
    size_t i;
    json_array_foreach(json_object_get(engine->config, "repositories"), i, row) json_add(items, view(engine, row));
    json_array_foreach(rows, i, row)
    {
        if (!configured(engine, json_str(row, "name", "")))
            json_add(items, view(engine, row));
    }
    answer_body(answer, arg, 200, json_pack("{s:o, s:n}", "items", items, "next_cursor"));
}

static json_t *found(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    json_t *doc = repository_find(engine, request->id);
    if (!doc) {
        struct err err;
        err_set(&err, VSS_E_OBJECT_NOT_FOUND, "GET /repositories lists what there is.", "repository %s: no such repository", request->id);
        answer_error(answer, arg, &err);
    }
    return doc;
}

void engine_repository_get(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *doc = found(engine, request, answer, arg);
    if (doc)
        answer_body(answer, arg, 200, view(engine, doc));
}

static bool refuse_configured(struct engine *engine, const char *name, engine_answer_fn answer, void *arg)
{
    if (!configured(engine, name))
        return false;
    struct err err;
    err_set(&err, VSS_E_BAD_STATE, "Change or remove it in the configuration file, then reload.", "repository %s is part of the configuration", name);
    str_copy(err.reason, sizeof err.reason, "configured");
    answer_error(answer, arg, &err);
    return true;
}

/* --- what a reload brings: the configuration is serve's, who cannot ask the store --- */

static void clash(const json_t *config, const json_t *stored, json_t *clashes)
{
    const json_t *configured_ones = json_object_get(config, "repositories");
    const char *name = json_str(stored, "name", ""), *place = conf_repository_place(stored);
    const json_t *other = conf_repository_shares(stored, configured_ones, json_array_size(configured_ones));
    const char *root = conf_root_within(json_object_get(json_object_get(config, "restore"), "roots"), stored);
    AUTO_FREE char *text = other ? str_new("%s and %s, the path of repository %s of the configuration, are the same or one within the other", place, conf_repository_place(other),
                                           json_str(other, "name", ""))
                           : root ? str_new("%s, beneath which restores write (restore.roots), lies in it", root)
                                  : NULL;
    if (text)
        json_add(clashes, json_sprintf("repository %s, made over the API: %s", name, text));
}

void repositories_look(struct engine *engine)
{
    AUTO_JSON json_t *rows = NULL, *clashes = json_array();
    const struct store_query query = {.kind = STORE_REPOSITORY, .limit = 1000};
    size_t i;
    json_t *row;
    if (store_list(engine->store, &query, &rows, NULL, NULL) != STORE_OK)
        return; /* it is looked again */
    json_array_foreach(rows, i, row)
    {
        if (configured(engine, json_str(row, "name", "")))
            json_add(clashes, json_sprintf("repository %s of the configuration stands before the one of that name that was made over the API", json_str(row, "name", "")));
        else
            clash(engine->config, row, clashes);
    }
    json_array_foreach(clashes, i, row)
        if (!json_has_string(engine->clashes, json_string_value(row)))
            log_line(LOG_LEVEL_WARNING, NULL, "%s", json_string_value(row));
    json_decref(engine->clashes);
    engine->clashes = json_incref(clashes);
}

/* --- writes: the repository is opened (created) by a worker first, so that a stored one works; records follow one another, so that
 * nobody overwrites what he has not seen --- */

static void put_committed(struct task *task, const struct err *err)
{
    if (err) {
        task_fail(task, err);
        return;
    }
    repositories_look(task->engine);
    task_answer(task, task->status, json_incref(task->body));
}

/* Two repositories in one place, or one within the other, would take each other's files for their own. */
static int place_is_free(struct engine *engine, const json_t *repository, struct err *err)
{
    AUTO_JSON json_t *all = repositories_all(engine);
    const char *path = conf_repository_place(repository), *pointer = json_object_get(repository, "path") ? "/path" : "/url";
    const json_t *other = conf_repository_shares(repository, all, json_array_size(all));
    const char *root = conf_root_within(json_object_get(json_object_get(engine->config, "restore"), "roots"), repository);
    if (other)
        err_invalid(err, pointer, "%s and %s, the path of repository %s, are the same or one within the other", path, conf_repository_place(other),
                    json_str(other, "name", ""));
    else if (root)
        err_invalid(err, pointer, "%s, beneath which restores write (restore.roots), lies in %s", root, path);
    if (err && (other || root))
        str_copy(err->hint, sizeof(err->hint), "Each repository needs a directory of its own.");
    return other || root ? -1 : 0;
}

static void run_put(struct task *task)
{
    struct err err;
    if (place_is_free(task->engine, task->scratch, &err)) { /* taken while ours was opened */
        task_fail(task, &err);
        return;
    }
    const char *name = json_str(task->scratch, "name", "");
    const struct store_record record = {.id = name, .created_ms = clock_real_ms(), .doc = task->scratch};
    struct store_batch *batch = store_batch_new();
    store_batch_put(batch, STORE_REPOSITORY, &record);
    repository_mark(task->engine, batch, task->scratch, ""); /* whichever is there now */
    task->body = view(task->engine, task->scratch);
    task->committed = put_committed;
    task_commit(task, batch);
}

static void opened(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    worker_link_close(TAKE_PTR(task->worker));
    if (reply->err) {
        task_fail(task, reply->err);
        return;
    }
    task_start(task, &task->engine->repositories, run_put);
}

static void open_first(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg, const char *name, int status)
{
    struct err err;
    AUTO_JSON json_t *asked = json_deep_copy(request->body);
    json_put(asked, "name", json_string(name));
    if (conf_repository_check(asked, &err) || place_is_free(engine, asked, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    task->status = status;
    task->scratch = TAKE_PTR(asked);
    if (status == 201)
        str_format(task->location, sizeof task->location, "/repositories/%s", name);
    static const struct worker_handlers handlers = {.done = opened};
    task->worker = worker_link_new(engine->agent, NULL, NULL, NULL);
    worker_link_run(task->worker, "open_repository", json_pack("{s:O, s:b}", "repository", task->scratch, "create", 1), &handlers, task);
}

void engine_repository_create(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    const char *name = json_str(request->body, "name", "");
    AUTO_JSON json_t *have = repository_find(engine, name);
    if (have) {
        struct err err;
        err_set(&err, VSS_E_OBJECT_ALREADY_EXISTS, "Choose another name; GET /repositories lists what there is.", "repository %s exists already", name);
        answer_error(answer, arg, &err);
        return;
    }
    open_first(engine, request, answer, arg, name, 201);
}

void engine_repository_put(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    if (refuse_configured(engine, request->id, answer, arg))
        return;
    AUTO_JSON json_t *have = repository_find(engine, request->id);
    open_first(engine, request, answer, arg, request->id, have ? 200 : 201);
}

static void delete_committed(struct task *task, const struct err *err)
{
    if (err) {
        task_fail(task, err);
        return;
    }
    repositories_look(task->engine);
    task_answer(task, 204, NULL);
}

static void run_delete(struct task *task)
{
    struct store_batch *batch = store_batch_new();
    store_batch_delete(batch, STORE_REPOSITORY, task->request->id);
    store_batch_delete(batch, STORE_MARK, task->request->id);
    task->committed = delete_committed;
    task_commit(task, batch);
}

void engine_repository_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *doc = found(engine, request, answer, arg);
    if (!doc || refuse_configured(engine, request->id, answer, arg))
        return;
    task_start(task_new(engine, request, answer, arg), &engine->repositories, run_delete);
}
