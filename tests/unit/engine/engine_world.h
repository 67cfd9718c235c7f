#pragma once
/* An engine with a store in a temporary directory, and an agent and workers that do what the test says, all on one loop.
 * Include after cmocka.h. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ident.h"
#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "engine/engine.h"

enum { WORLD_WORKERS = 16, WORLD_PATIENCE_MS = 60000 };

/* The test's end of one worker: the operation that it was given last, and whether it was told to stop. */
struct fake_worker {
    char id[UUID_SIZE];
    struct ipc_channel *channel; /* NULL: not launched, or ended */
    char session[64];
    char run[64], operation[64]; /* id and name of the operation in hand; "" = none */
    bool cancelled;
    json_t *parked; /* id of the last `parked` */
};

static struct world {
    char directory[64], store[96];
    struct loop *loop;
    struct engine *engine;
    struct ipc_channel *agent;
    struct fake_worker workers[WORLD_WORKERS];
    size_t n_workers;
    struct loop_timer *patience;
    const char *by_hand; /* an operation that the test answers itself, though on_worker would */
    bool ready;
} world;

static const struct principal world_principal = {.name = "admin", .role = ROLE_ADMIN};

/* One call of the engine and its answer. */
struct asked {
    struct engine_request request;
    json_t *request_body, *query, *body;
    bool answered, replayed;
    int status;
    uint32_t hr;
};

static inline void turn(void)
{
    loop_quit(world.loop, 0);
}

#define UNTIL(condition)                                                                                               \
    do {                                                                                                               \
        while (!(condition))                                                                                           \
            assert_int_equal(loop_run(world.loop), 0);                                                                 \
    } while (0)

static inline void on_time(void *arg)
{
    *(bool *)arg = true;
    turn();
}

/* Long enough for a commit, also for one that ought not to happen. */
static inline void some_turns(void)
{
    bool over = false;
    struct loop_timer *timer = loop_timer_new(world.loop, on_time, &over);
    loop_timer_set(timer, 100);
    UNTIL(over);
    loop_timer_free(timer);
}

static inline void out_of_patience(void *arg)
{
    (void)arg;
    loop_quit(world.loop, 99);
}

static inline void worker_done_with(struct fake_worker *worker, const char *hresult, const char *result)
{
    AUTO_JSON json_t *msg = json_pack("{s:s, s:s, s:o}", "type", "done", "id", worker->run, "result",
                                      result ? json_loads(result, 0, NULL) : json_object());
    if (hresult)
        json_put(msg, "error", json_pack("{s:s, s:s}", "hresult", hresult, "detail", "as the test says"));
    worker->run[0] = worker->operation[0] = '\0';
    ipc_channel_send(worker->channel, msg, NULL, 0);
}

static inline void worker_says(struct fake_worker *worker, const char *type, const char *superblock)
{
    AUTO_JSON json_t *msg = json_pack("{s:s, s:s}", "type", type, "id", worker->run);
    if (superblock)
        json_put(msg, "superblocks", json_pack("[s]", superblock));
    ipc_channel_send(worker->channel, msg, NULL, 0);
}

static inline void on_worker(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct fake_worker *worker = arg;
    const char *type = json_str(msg, "type", "");
    (void)fds;
    (void)n_fds;
    if (str_eq(type, "run")) {
        str_copy(worker->run, sizeof(worker->run), json_str(msg, "id", ""));
        str_copy(worker->operation, sizeof(worker->operation), json_str(msg, "operation", ""));
        worker->cancelled = false;
        /* What every test needs and none is about. */
        if (!str_eq(worker->operation, world.by_hand) &&
            (str_eq(worker->operation, "recover") || str_eq(worker->operation, "abort") ||
             str_eq(worker->operation, "release")))
            worker_done_with(worker, NULL, NULL);
    } else if (str_eq(type, "cancel")) {
        worker->cancelled = true;
    } else if (str_eq(type, "parked")) {
        json_decref(worker->parked);
        worker->parked = json_incref(json_object_get(msg, "id"));
    }
    turn();
}

static inline void worker_ends(struct fake_worker *worker)
{
    ipc_channel_free(TAKE_PTR(worker->channel));
}

static inline void on_worker_closed(void *arg, const struct err *err)
{
    (void)err;
    worker_ends(arg);
    turn();
}

/* The agent's word: set NULL: nothing that this worker left holds anything; else that freeze set is thawed. */
static inline void agent_says_settled(const struct fake_worker *worker, const char *set)
{
    AUTO_JSON json_t *msg = json_pack("{s:s, s:s, s:s*}", "type", set ? "thawed" : "settled", "worker", worker->id, "set", set);
    ipc_channel_send(world.agent, msg, NULL, 0);
}

static inline void on_agent(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    (void)arg;
    (void)fds;
    (void)n_fds;
    if (!str_eq(json_str(msg, "type", ""), "launch"))
        return;
    int pair[2];
    assert_int_equal(ipc_pair(pair, NULL), 0);
    assert_true(world.n_workers < WORLD_WORKERS);
    struct fake_worker *worker = &world.workers[world.n_workers++];
    str_copy(worker->session, sizeof(worker->session), json_str(msg, "session", ""));
    str_copy(worker->id, sizeof(worker->id), json_str(msg, "worker", ""));
    worker->channel = ipc_channel_new(world.loop, pair[0], on_worker, on_worker_closed, worker);
    AUTO_JSON json_t *launched =
        json_pack("{s:s, s:s, s:i}", "type", "launched", "worker", json_str(msg, "worker", ""), "pid", 1);
    ipc_channel_send(world.agent, launched, &pair[1], 1);
    close(pair[1]);
}

static inline void on_agent_closed(void *arg, const struct err *err)
{
    (void)arg;
    (void)err;
}

static inline void on_ready(void *arg)
{
    (void)arg;
    world.ready = true;
    turn();
}

static inline void on_job(void *arg, const char *job_id)
{
    (void)arg;
    (void)job_id;
    turn();
}

static inline void world_start(int freeze_seconds)
{
    int pair[2];
    struct err err = {0};
    AUTO_JSON json_t *start = json_pack("{s:{s:{s:i}}, s:s, s:s}", "config", "limits", "freeze_seconds", freeze_seconds,
                                        "node", "testhost", "store_dir", world.store);
    assert_int_equal(ipc_pair(pair, NULL), 0);
    world.n_workers = 0;
    world.ready = false;
    world.agent = ipc_channel_new(world.loop, pair[0], on_agent, on_agent_closed, NULL);
    world.engine = engine_new(world.loop, start, pair[1], &err);
    if (!world.engine)
        fail_msg("%s", err.text);
    engine_observe_jobs(world.engine, on_job, NULL);
    engine_when_recovered(world.engine, on_ready, NULL);
    UNTIL(world.ready);
}

static inline void world_stop(void)
{
    engine_free(world.engine);
    world.engine = NULL;
    ipc_channel_free(world.agent);
    for (size_t i = 0; i < world.n_workers; i++) {
        worker_ends(&world.workers[i]);
        json_decref(world.workers[i].parked);
        world.workers[i] = (struct fake_worker){0};
    }
}

static inline int world_begin(void **state)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    str_copy(world.directory, sizeof(world.directory), "/tmp/engine-test-XXXXXX");
    if (!mkdtemp(world.directory))
        return -1;
    str_format(world.store, sizeof(world.store), "%s/store", world.directory);
    if (mkdir(world.store, 0700) < 0)
        return -1;
    world.loop = loop_new();
    world.patience = loop_timer_new(world.loop, out_of_patience, NULL);
    loop_timer_set(world.patience, WORLD_PATIENCE_MS);
    return 0;
}

static inline int world_end(void **state)
{
    (void)state;
    if (world.engine)
        world_stop();
    loop_timer_free(world.patience);
    loop_free(world.loop);
    DIR *directory = opendir(world.store);
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory)
        closedir(directory);
    rmdir(world.store);
    return rmdir(world.directory);
}

static inline void on_answer(void *arg, const struct engine_answer *answer)
{
    struct asked *asked = arg;
    assert_false(asked->answered);
    asked->answered = true;
    asked->status = answer->status;
    asked->replayed = answer->replayed;
    asked->hr = answer->err ? answer->err->hr : 0;
    asked->body = answer->body ? json_deep_copy(answer->body) : NULL;
    turn();
}

/* asked must stay where it is until it is answered; release with asked_clear. */
static inline void ask(struct asked *asked, engine_call_fn call, const char *id, json_t *body /* taken */)
{
    *asked = (struct asked){.request_body = body, .query = json_object()};
    asked->request = (struct engine_request){.principal = &world_principal,
                                             .request_id = "test",
                                             .id = id,
                                             .body = asked->request_body,
                                             .query = asked->query};
    engine_call(world.engine, call, &asked->request, on_answer, asked);
}

/* The same with an Idempotency-Key. */
static inline void ask_once(struct asked *asked, engine_call_fn call, const char *id, const char *key)
{
    *asked = (struct asked){.query = json_object()};
    asked->request = (struct engine_request){
        .principal = &world_principal, .request_id = "test", .id = id, .query = asked->query, .path = "/path/{id}", .key = key};
    engine_call_once(world.engine, call, &asked->request, on_answer, asked);
}

static inline void asked_clear(struct asked *asked)
{
    json_decref(asked->request_body);
    json_decref(asked->query);
    json_decref(asked->body);
}
#define AUTO_ASKED __attribute__((cleanup(asked_clear))) struct asked

/* Asks and waits; copies the string member of the answer into ret. */
static inline void ask_for(engine_call_fn call, const char *id, json_t *body, const char *member, char ret[64])
{
    AUTO_ASKED asked;
    ask(&asked, call, id, body);
    UNTIL(asked.answered);
    assert_int_equal(asked.hr, 0);
    str_copy(ret, 64, json_str(asked.body, member, ""));
}

static inline struct fake_worker *worker_of(const char *session)
{
    for (size_t i = 0; i < world.n_workers; i++)
        if (world.workers[i].channel && str_eq(world.workers[i].session, session))
            return &world.workers[i];
    return NULL;
}
