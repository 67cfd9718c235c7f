#include "movers/mover_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "movers/mount_view.h"
#include "movers/mover.h"

enum { REQUEST_MAX = 16 * 1024 * 1024, PROGRESS_EVERY_MS = 200 };

struct child {
    int64_t last_progress_ms;
    struct mover_progress progress; /* the latest, and whether it was told */
    bool untold, cancelled;
};

static void say(json_t *line /* taken */)
{
    char *text = json_dumps(line, JSON_COMPACT);
    if (text) {
        fputs(text, stdout);
        fputc('\n', stdout);
        fflush(stdout);
    }
    free(text);
    json_decref(line);
}

static void tell_progress(struct child *child)
{
    const struct mover_progress *progress = &child->progress;
    child->untold = false;
    say(json_pack("{s:s, s:I, s:I, s:I, s:I}", "type", "progress", "bytes_done", (json_int_t)progress->bytes_done,
                  "bytes_total", (json_int_t)progress->bytes_total, "files_done", (json_int_t)progress->files_done,
                  "files_total", (json_int_t)progress->files_total));
}

static void on_progress(void *arg, const struct mover_progress *progress)
{
    struct child *child = arg;
    int64_t now = clock_mono_ms();
    child->progress = *progress;
    child->untold = true;
    if (now - child->last_progress_ms < PROGRESS_EVERY_MS)
        return;
    child->last_progress_ms = now;
    tell_progress(child);
}

static bool on_cancelled(void *arg)
{
    struct child *child = arg;
    char byte;
    sigset_t waiting;
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    if (!sigpending(&waiting) && sigismember(&waiting, SIGTERM))
        child->cancelled = true;
    if (!child->cancelled && poll(&in, 1, 0) > 0)
        child->cancelled = read(STDIN_FILENO, &byte, 1) <= 0;
    return child->cancelled;
}

/* --- request --- */

/* Nothing follows the line but the end of the input, which cancels. */
static int read_request(json_t **ret_request, struct err *err)
{
    size_t length = 0, room = 65536;
    AUTO_FREE char *text = mem_new(room);
    const char *end = NULL;
    while (!end) {
        if (length == REQUEST_MAX)
            return err_set(err, E_INVALIDARG, NULL, "the request is longer than %d bytes", REQUEST_MAX);
        if (length == room) {
            room = 2 * room < REQUEST_MAX ? 2 * room : REQUEST_MAX;
            text = mem_resize(text, room);
        }
        ssize_t n = read(STDIN_FILENO, text + length, room - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "the request ended before its line did");
        end = memchr(text + length, '\n', (size_t)n);
        length += (size_t)n;
    }
    *ret_request = json_parse_strict(text, (size_t)(end - text), 64, err);
    return *ret_request ? 0 : -1;
}

/* --- verbs --- */

struct call {
    const struct mover *mover;
    const json_t *request, *repository;
    const char *backup_id, *data_id;
    const struct mover_host *host;
};

static const char **strings(const json_t *array)
{
    const char **list = mem_new((json_array_size(array) + 1) * sizeof *list);
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item) list[i] = json_string_value(item);
    return list;
}

static int verb_run(const struct call *call, json_t **ret, struct err *err)
{
    const json_t *items = json_object_get(call->request, "items");
    AUTO_FREE struct mover_item *list = mem_new((json_array_size(items) + 1) * sizeof *list);
    AUTO_FREE const char **excludes = strings(json_object_get(call->request, "excludes"));
    size_t i;
    json_t *item;
    json_array_foreach(items, i, item) list[i] =
        (struct mover_item){json_str(item, "path", ""), json_str(item, "source", ""), json_str(item, "spec", "*"),
                            json_bool(item, "recursive", true)};
    const struct mover_request request = {.repository = call->repository,
                                          .backup_id = call->backup_id,
                                          .document = json_object_get(call->request, "document"),
                                          .items = list,
                                          .n_items = json_array_size(items),
                                          .excludes = excludes};
    const json_t *binds = json_object_get(call->request, "binds");
    if (call->mover->needs_original_path ? mount_view_make(binds, list, request.n_items, err)
                                         : mount_view_bind(binds, err))
        return -1;
    if (call->mover->open(call->repository, true, err))
        return -1;
    return call->mover->run(&request, call->host, ret, err);
}

/* One part of the target, made when it is missing, never through a symbolic link. */
static int open_part(int dir, const char *part, bool last)
{
    if (mkdirat(dir, part, 0755) && errno != EEXIST)
        return -1;
    return openat(dir, part, (last ? O_RDONLY : O_PATH) | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The target is made below one of the allowed roots. */
static int open_target(const char *target, const json_t *roots, struct err *err)
{
    size_t i;
    const json_t *root;
    bool allowed = false;
    json_array_foreach(roots, i, root) allowed =
        allowed || (json_is_string(root) && path_beneath(target, json_string_value(root)));
    if (!path_is_canonical(target) || !allowed)
        return err_invalid(err, "/target", "%s is not beneath a restore root", target);
    int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_FREE char *parts = str_dup(target);
    char *rest = NULL;
    for (char *part = strtok_r(parts, "/", &rest); dir >= 0 && part; part = strtok_r(NULL, "/", &rest)) {
        int next = open_part(dir, part, *rest == '\0');
        if (next < 0)
            err_errno(err, errno == ELOOP || errno == ENOTDIR ? (uint32_t)E_ACCESSDENIED : (uint32_t)VSS_E_UNEXPECTED,
                      errno, "Every part of the target must be a folder and no symbolic link.", "cannot open %s of %s",
                      part, target);
        close(dir);
        dir = next;
    }
    return dir;
}

static int verb_restore(const struct call *call, json_t **ret, struct err *err)
{
    const char *target = json_str(call->request, "target", "");
    AUTO_FD int dir = open_target(target, json_object_get(call->request, "roots"), err);
    if (dir < 0)
        return -1;
    AUTO_FREE const char **paths = strings(json_object_get(call->request, "paths"));
    const struct mover_restore restore = {.repository = call->repository,
                                          .backup_id = call->backup_id,
                                          .data_id = call->data_id,
                                          .target_dir_fd = dir,
                                          .target = target,
                                          .paths = paths,
                                          .overwrite = json_bool(call->request, "overwrite", false)};
    if (call->mover->open(call->repository, false, err) || call->mover->restore(&restore, call->host, ret, err))
        return -1;
    json_put(*ret, "target", json_string(target));
    return 0;
}

static int verb_verify(const struct call *call, json_t **ret, struct err *err)
{
    return call->mover->open(call->repository, false, err) ||
                   call->mover->verify(call->repository, call->backup_id, call->data_id, call->host, ret, err)
               ? -1
               : 0;
}

static int verb_list(const struct call *call, json_t **ret, struct err *err)
{
    json_t *items = NULL;
    if (call->mover->open(call->repository, false, err) || call->mover->list(call->repository, call->host, &items, err))
        return -1;
    *ret = json_pack("{s:o}", "items", items);
    return 0;
}

static int verb_remove(const struct call *call, json_t **ret, struct err *err)
{
    (void)ret;
    return call->mover->open(call->repository, false, err) ||
                   call->mover->remove(call->repository, call->backup_id, call->data_id, call->host, err)
               ? -1
               : 0;
}

static int verb_open(const struct call *call, json_t **ret, struct err *err)
{
    (void)ret;
    return call->mover->open(call->repository, json_bool(call->request, "create", false), err);
}

static int verb_probe(const struct call *call, json_t **ret, struct err *err)
{
    char reason[256] = "";
    (void)err;
    call->mover->probe(reason);
    *ret = json_pack("{s:b, s:s}", "available", !*reason, "reason", reason);
    return 0;
}

static const struct {
    const char *name;
    int (*fn)(const struct call *call, json_t **ret, struct err *err);
} verbs[] = {{"run", verb_run},       {"restore", verb_restore}, {"verify", verb_verify}, {"list", verb_list},
             {"remove", verb_remove}, {"open", verb_open},       {"probe", verb_probe}};

static int serve_request(struct child *child, json_t **ret, struct err *err)
{
    AUTO_JSON json_t *request = NULL;
    if (read_request(&request, err))
        return -1;
    const struct mover_host host = {
        .progress = on_progress, .cancelled = on_cancelled, .cancel_fd = STDIN_FILENO, .arg = child};
    struct call call = {.request = request,
                        .repository = json_object_get(request, "repository"),
                        .host = &host,
                        .backup_id = json_str(request, "backup_id", ""),
                        .data_id = json_str(request, "data_id", "")};
    const char *name = json_str(request, "mover", json_str(call.repository, "mover", "")),
               *verb = json_str(request, "verb", "");
    call.mover = mover_by_name(name);
    if (!call.mover)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /movers lists what there is.", "mover %s: no such mover",
                       name);
    for (size_t i = 0; i < ELEMENTS(verbs); i++) {
        if (str_eq(verb, verbs[i].name))
            return verbs[i].fn(&call, ret, err);
    }
    return err_set(err, VSS_E_UNEXPECTED, NULL, "mover: unknown verb %s", verb);
}

/* A descriptor per item and per level of depth: the soft limit is for programs that select(2). */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int mover_main(void)
{
    struct child child = {0};
    struct err err = {0};
    json_t *result = NULL;
    log_init("mover", LOG_LEVEL_INFO);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    sigset_t term; /* blocked, and asked for with the cancel: a mover always cleans up */
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    if (serve_request(&child, &result, &err)) {
        json_decref(result);
        if (child.untold)
            tell_progress(&child);
        say(json_pack("{s:s, s:o}", "type", "done", "error", err_to_json(&err)));
        return 1;
    }
    if (child.untold)
        tell_progress(&child);
    say(json_pack("{s:s, s:o}", "type", "done", "result", result ? result : json_object()));
    return 0;
}
