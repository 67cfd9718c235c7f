/* Where backups go: repositories of the configuration (fixed) and of the store (made over the API). */
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
    json_array_foreach(rows, i, row) json_add(items, view(engine, row));
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
    err_set(&err, VSS_E_OBJECT_ALREADY_EXISTS, "Change it in the configuration file, then reload.", "repository %s is part of the configuration", name);
    answer_error(answer, arg, &err);
    return true;
}

/* --- writes: the repository is opened (created) by a worker first, so that a stored one works --- */

static void put_committed(struct task *task, const struct err *err)
{
    if (err)
        task_fail(task, err);
    else
        task_answer(task, task->status, view(task->engine, task->scratch));
}

static void opened(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    worker_link_close(TAKE_PTR(task->worker));
    if (reply->err) {
        task_fail(task, reply->err);
        return;
    }
    const char *name = json_str(task->scratch, "name", "");
    const struct store_record record = {.id = name, .created_ms = clock_real_ms(), .doc = task->scratch};
    struct store_batch *batch = store_batch_new();
    store_batch_put(batch, STORE_REPOSITORY, &record);
    task->committed = put_committed;
    task_commit(task, batch);
}

static void open_first(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg, const char *name, int status)
{
    struct task *task = task_new(engine, request, answer, arg);
    task->status = status;
    task->scratch = json_deep_copy(request->body);
    json_put(task->scratch, "name", json_string(name));
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
        err_set(&err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "repository %s exists already", name);
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
    if (err)
        task_fail(task, err);
    else
        task_answer(task, 204, NULL);
}

void engine_repository_delete(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    AUTO_JSON json_t *doc = found(engine, request, answer, arg);
    if (!doc || refuse_configured(engine, request->id, answer, arg))
        return;
    struct task *task = task_new(engine, request, answer, arg);
    struct store_batch *batch = store_batch_new();
    store_batch_delete(batch, STORE_REPOSITORY, request->id);
    task->committed = delete_committed;
    task_commit(task, batch);
}
