/* What is there: writers, providers, movers, volumes, asked of a short-lived worker; and health. */
#include "engine/engine_private.h"
#include "engine/session/session.h"

/* However many ask at once, one worker looks: all get its answer. Otherwise every request would be a process. */
static void answered(void *arg, const struct worker_reply *reply)
{
    struct engine *engine = arg;
    worker_link_close(TAKE_PTR(engine->inventory));
    struct task *task = TAKE_PTR(engine->inventory_waiters);
    while (task) {
        struct task *next = task->next;
        task->next = NULL;
        json_t *items = json_object_get(reply->result, json_string_value(task->scratch));
        if (reply->err)
            task_fail(task, reply->err);
        else
            task_answer(task, 200, json_pack("{s:o, s:n}", "items", items ? json_incref(items) : json_array(), "next_cursor"));
        task = next;
    }
}

static void ask(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg, const char *key)
{
    struct task *task = task_new(engine, request, answer, arg);
    task->scratch = json_string(key);
    task->next = engine->inventory_waiters;
    engine->inventory_waiters = task;
    if (engine->inventory)
        return;
    static const struct worker_handlers handlers = {.done = answered};
    engine->inventory = worker_link_new(engine->agent, NULL, NULL, NULL);
    worker_link_run(engine->inventory, "inventory", NULL, &handlers, engine);
}

void engine_writer_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    ask(engine, request, answer, arg, "writers");
}
void engine_provider_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    ask(engine, request, answer, arg, "providers");
}
void engine_mover_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    ask(engine, request, answer, arg, "movers");
}
void engine_volume_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    ask(engine, request, answer, arg, "volumes");
}

/* --- GetRootAndLogicalPrefixPaths: of one path, by a worker of its own --- */

enum { ROOTS_MAX = 16 }; /* at once: each is a process */

static void root_told(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    worker_link_close(TAKE_PTR(task->worker));
    task->engine->n_roots--;
    struct err err;
    if (reply->err)
        task_fail(task, reply->err);
    else if (principal_may_have(task->request->principal, reply->result, &err))
        task_fail(task, &err);
    else
        task_answer(task, 200, json_incref(reply->result));
}

void engine_volume_resolve(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    static const struct worker_handlers handlers = {.done = root_told};
    const char *path = json_str(request->query, "path", "");
    struct err err;
    if (path[0] != '/') {
        err_invalid(&err, "?path", "must be an absolute path");
        answer_error(answer, arg, &err);
        return;
    }
    if (principal_may_snapshot(request->principal, path, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    struct task *task = task_new(engine, request, answer, arg);
    if (engine->n_roots >= ROOTS_MAX) {
        err_set(&err, E_OUTOFMEMORY, "Try again when one of them has ended.", "%d paths are being looked at already", ROOTS_MAX);
        task->retry_after = 5;
        task_fail(task, &err);
        return;
    }
    engine->n_roots++;
    task->worker = worker_link_new(engine->agent, NULL, NULL, NULL);
    worker_link_run(task->worker, "root", json_pack("{s:s}", "path", path), &handlers, task);
}
