/* GET /backups/{id}/files: one directory of a stored backup, by its manifest, which a mover fetches. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"

enum { LOOKS_MAX = 8 }; /* at a time: each is a worker, a mover, and its program's look into the repository */

static void listed(void *arg, const struct worker_reply *reply)
{
    struct task *task = arg;
    worker_link_close(TAKE_PTR(task->worker));
    task->engine->n_backup_looks--;
    if (reply->err)
        task_fail(task, reply->err);
    else
        task_answer_page(task, reply->result);
}

static void refuse(engine_answer_fn answer, void *arg)
{
    struct err err;
    const struct engine_answer refused = {.err = &err, .retry_after = 1};
    err_set(&err, E_OUTOFMEMORY, "Try again in a moment.", "%d others look into backups", LOOKS_MAX);
    answer(arg, &refused);
}

void engine_backup_files(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    static const struct worker_handlers handlers = {.done = listed};
    struct err err;
    const char *path = json_str(request->query, "path", "/");
    AUTO_JSON json_t *backup = backup_read(engine, request, answer, arg);
    if (!backup)
        return;
    AUTO_JSON json_t *args = directory_path_check(path, &err) ? NULL : backup_for_worker(engine, backup, &err);
    if (!args) {
        answer_error(answer, arg, &err);
        return;
    }
    if (engine->n_backup_looks >= LOOKS_MAX) {
        refuse(answer, arg);
        return;
    }
    const char *after = json_str(request->query, "cursor", NULL);
    json_put(args, "path", json_string(path));
    json_put(args, "limit", json_integer((json_int_t)json_int(request->query, "limit", 50)));
    if (after)
        json_put(args, "after", json_string(after));
    struct task *task = task_new(engine, request, answer, arg);
    engine->n_backup_looks++;
    task->worker = worker_link_new(engine->agent, NULL, NULL, NULL);
    worker_link_run(task->worker, "list_backup_files", TAKE_PTR(args), &handlers, task);
}
