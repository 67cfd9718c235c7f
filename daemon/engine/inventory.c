/* What is there: writers, providers, movers, volumes, asked of a short-lived worker; and health, events. */
#include "engine/engine_private.h"


static void answered(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    worker_link_close(TAKE_PTR(task->worker));
    if (reply->err) {
        task_fail(task, reply->err);
        return;
    }
    json_t *items = json_object_get(reply->result, json_string_value(task->scratch));
    task_answer(task, 200, json_pack("{s:O, s:n}", "items", items ? items : json_array(), "next_cursor"));
}

static void ask(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg, const char *key)
{
    struct task *task = task_new(engine, request, answer, arg);
    task->scratch = json_string(key);
    task->worker = worker_link_new(engine->agent, NULL, NULL, NULL);
    static const struct worker_handlers handlers = {.done = answered};
    worker_link_run(task->worker, "inventory", NULL, &handlers, task);
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

void engine_event_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    json_t *rows = NULL;
    if (store_events(engine->store, json_int(request->query, "after", 0), (int)json_int(request->query, "limit", 50), &rows, &err) == STORE_ERROR)
        answer_error(answer, arg, &err);
    else
        answer_body(answer, arg, 200, json_pack("{s:o, s:n}", "items", rows ? rows : json_array(), "next_cursor"));
}

void engine_health(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    (void)request;
    json_t *reasons = json_array();
    if (engine->draining)
        json_add(reasons, json_string("the service is stopping"));
    if (!engine->recovered)
        json_add(reasons, json_string("recovery after the last stop is still under way"));
    bool ready = json_array_size(reasons) == 0;
    answer_body(answer, arg, ready ? 200 : 503, json_pack("{s:b, s:o}", "ready", ready, "reasons", reasons));
}
