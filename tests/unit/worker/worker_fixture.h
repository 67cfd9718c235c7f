#pragma once
/* A real worker_main in a forked child, with the test's ends of both channels, and the Python writers of tests/writers.
 */
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/worker.h"

enum { FIXTURE_PATIENCE_MS = 30000 };

struct fixture {
    pid_t pid;
    int core, agent; /* the test's ends */
    char dir[64], record[128];
    json_t *writers; /* configuration */
    json_t *limits;
    json_t *restore_roots;
    json_t *metadata; /* result of the last metadata operation */
    json_t *incidents;
    int next_id;
};

#define SET_ID "0193b5a0-0000-7000-8000-00000000beef"

static inline int fixture_setup(void **state)
{
    struct fixture *f = mem_new(sizeof(*f));
    str_copy(f->dir, sizeof(f->dir), "/tmp/quiesced-worker-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    str_format(f->record, sizeof(f->record), "%s/record", f->dir);
    f->writers = json_array();
    f->limits = json_object();
    f->restore_roots = json_array();
    f->incidents = json_array();
    f->core = f->agent = -1;
    *state = f;
    return 0;
}

/* name, executable of tests/writers, then pairs of environment variables, NULL. */
static inline void add_writer(struct fixture *f, const char *name, const char *program, ...)
{
    const char *source = getenv("QUIESCED_SOURCE");
    AUTO_FREE char *path = str_new("%s/tests/writers/%s", source ? source : ".", program);
    json_t *environment =
        json_pack("{s:s, s:s, s:s}", "RECORD", f->record, "NAME", name, "PYTHONDONTWRITEBYTECODE", "1");
    va_list pairs;
    va_start(pairs, program);
    for (const char *key; (key = va_arg(pairs, const char *));)
        json_put(environment, key, json_string(va_arg(pairs, const char *)));
    va_end(pairs);
    json_add(f->writers, json_pack("{s:s, s:s, s:[s], s:o}", "name", name, "type", "exec", "command", path,
                                   "environment", environment));
}

static inline void fixture_start(struct fixture *f)
{
    int core[2], agent[2];
    assert_int_equal(ipc_pair(core, NULL), 0);
    assert_int_equal(ipc_pair(agent, NULL), 0);
    fflush(NULL);
    f->pid = fork();
    assert_true(f->pid >= 0);
    if (f->pid == 0) {
        int child_core = fcntl(core[1], F_DUPFD, 100), child_agent = fcntl(agent[1], F_DUPFD, 100);
        dup2(child_core, 3);
        dup2(child_agent, 4);
        closefrom(5);
        setpgid(0, 0);
        exit(worker_main()); /* exit, not _exit: a sanitizer reports its leaks then */
    }
    close(core[1]);
    close(agent[1]);
    f->core = core[0];
    f->agent = agent[0];
    AUTO_FREE char *staging = str_new("%s/staging", f->dir);
    mkdir(staging, 0711);
    AUTO_JSON json_t *start =
        json_pack("{s:s, s:{s:O, s:O, s:{s:O}}, s:s, s:s, s:s}", "type", "start", "config", "writers", f->writers, "limits",
                  f->limits, "restore", "roots", f->restore_roots, "node", "testhost", "staging", staging, "session", "0193b5a0-0000-7000-8000-000000000001");
    assert_int_equal(ipc_send(f->agent, start, NULL, 0, NULL), 0);
}

static inline int fixture_send(struct fixture *f, const char *operation, json_t *args /* taken, may be NULL */)
{
    int id = ++f->next_id;
    AUTO_JSON json_t *run = json_pack("{s:s, s:i, s:s, s:o}", "type", "run", "id", id, "operation", operation, "args",
                                      args ? args : json_object());
    assert_int_equal(ipc_send(f->core, run, NULL, 0, NULL), 0);
    return id;
}

static inline void fixture_cancel(struct fixture *f, int id)
{
    AUTO_JSON json_t *cancel = json_pack("{s:s, s:i}", "type", "cancel", "id", id);
    assert_int_equal(ipc_send(f->core, cancel, NULL, 0, NULL), 0);
}

/* Waits for the end of operation id; keeps incidents. New reference. */
static inline json_t *fixture_done(struct fixture *f, int id)
{
    for (;;) {
        json_t *message = NULL;
        size_t n_fds = 0;
        struct err err = {0};
        int got = ipc_recv(f->core, FIXTURE_PATIENCE_MS, &message, NULL, &n_fds, &err);
        if (got != 1)
            fail_msg("no answer from the worker: %d %s", got, err.text);
        const char *type = json_str(message, "type", "");
        if (str_eq(type, "done") && json_int(message, "id", 0) == id)
            return message;
        if (str_eq(type, "incident"))
            json_add(f->incidents, json_incref(message));
        json_decref(message);
    }
}

static inline json_t *fixture_run(struct fixture *f, const char *operation, json_t *args)
{
    return fixture_done(f, fixture_send(f, operation, args));
}

static inline const char *error_name(const json_t *done)
{
    return json_str(json_object_get(done, "error"), "hresult", "S_OK");
}

#define assert_succeeded(done)                                                                                         \
    do {                                                                                                               \
        if (json_object_get(done, "error"))                                                                            \
            fail_msg("%s: %s", error_name(done), json_str(json_object_get(done, "error"), "detail", ""));              \
    } while (0)

static inline void gather(struct fixture *f)
{
    AUTO_JSON json_t *done = fixture_run(f, "metadata", NULL);
    assert_succeeded(done);
    json_decref(f->metadata);
    f->metadata = json_incref(json_object_get(done, "result"));
}

/* args of prepare and snapshot: every component of every writer that was gathered. */
static inline json_t *set_args(struct fixture *f, const char *writer_failure)
{
    json_t *components = json_array();
    size_t i, k;
    const json_t *writer, *component;
    json_array_foreach (json_object_get(f->metadata, "writers"), i, writer)
        json_array_foreach (json_object_get(writer, "components"), k, component) {
            AUTO_FREE char *id = str_new("%zu-%zu", i, k);
            json_add(components, json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "id", id, "instance_id",
                                           json_str(writer, "instance_id", ""), "type", "filegroup", "logical_path",
                                           json_str(component, "logical_path", ""), "name",
                                           json_str(component, "name", ""), "succeeded", 1));
        }
    return json_pack("{s:{s:b, s:s}, s:s, s:s, s:s, s:o, s:[], s:[]}", "backup_state", "component_mode", 1, "type",
                     "full", "snapshot_set_id", SET_ID, "writer_failure", writer_failure, "context", "backup",
                     "components", components, "volumes", "paths");
}

/* STATUS of one writer within an array of them; borrowed. */
static inline const json_t *status_of(const json_t *statuses, const char *name)
{
    size_t i;
    const json_t *status;
    json_array_foreach (statuses, i, status)
        if (str_eq(json_str(status, "name", ""), name))
            return status;
    fail_msg("no status of %s", name);
    return NULL;
}

#define assert_status(done, name, want_state, want_failure)                                                            \
    do {                                                                                                               \
        const json_t *status_ = status_of(json_object_get(json_object_get(done, "result"), "writers"), name);          \
        assert_string_equal(json_str(status_, "state", ""), want_state);                                               \
        assert_string_equal(json_str(status_, "failure", ""), want_failure);                                           \
    } while (0)

/* What the writers wrote down: array of {"t","writer","event","request"}. New reference. */
static inline json_t *recorded(const struct fixture *f)
{
    json_t *events = json_array();
    FILE *file = fopen(f->record, "re");
    char *line = NULL;
    size_t room = 0;
    while (file && getline(&line, &room, file) > 0) {
        json_t *event = json_loads(line, 0, NULL);
        if (event)
            json_add(events, event);
    }
    free(line);
    if (file)
        fclose(file);
    return events;
}

/* Position of the first such event, or -1. */
static inline int position(const struct fixture *f, const char *writer, const char *event)
{
    AUTO_JSON json_t *events = recorded(f);
    size_t i;
    const json_t *item;
    json_array_foreach (events, i, item)
        if (str_eq(json_str(item, "writer", ""), writer) && str_eq(json_str(item, "event", ""), event))
            return (int)i;
    return -1;
}

static inline bool saw(const struct fixture *f, const char *writer, const char *event)
{
    return position(f, writer, event) >= 0;
}

static inline void await_event(const struct fixture *f, const char *writer, const char *event)
{
    for (int64_t end = clock_mono_ms() + FIXTURE_PATIENCE_MS; clock_mono_ms() < end; usleep(2000))
        if (saw(f, writer, event))
            return;
    fail_msg("writer %s never saw %s", writer, event);
}

/* Ends the worker by closing one channel (NULL = it ends by itself) and returns its exit status. */
static inline int fixture_wait(struct fixture *f)
{
    int status = 0;
    assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
    f->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

static inline void remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    fd_cleanup(&f->core);
    fd_cleanup(&f->agent);
    if (f->pid > 0)
        fixture_wait(f);
    remove_tree(f->dir);
    json_decref(f->writers);
    json_decref(f->limits);
    json_decref(f->restore_roots);
    json_decref(f->metadata);
    json_decref(f->incidents);
    free(f);
    return 0;
}

/* Brings a session to the point before `operation` ("prepare", "snapshot", "complete"). */
static inline void bring_to(struct fixture *f, const char *operation)
{
    gather(f);
    static const char *const order[] = {"prepare", "snapshot", "complete"};
    for (size_t i = 0; i < 3 && !str_eq(order[i], operation); i++) {
        AUTO_JSON json_t *done = fixture_run(f, order[i], set_args(f, "fail"));
        assert_succeeded(done);
    }
}

#define worker_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
