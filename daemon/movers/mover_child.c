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
#include "base/fault.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "movers/limits.h"
#include "movers/mount_view.h"
#include "movers/mover.h"
#include "movers/payload/listing.h"
#include "movers/payload/stage.h"
#include "movers/read_out/read_out.h"
#include "movers/seen.h"

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
    if (fault("mover.progress"))
        child->cancelled = true;
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

static void on_publishing(void *arg)
{
    struct child *child = arg;
    if (child->untold)
        tell_progress(child);
    say(json_pack("{s:s, s:s}", "type", "progress", "phase", "publish"));
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
    const json_t *request, *repository, *limits;
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
                                          .bandwidth = json_int(call->limits, "bandwidth_bytes_per_second", 0),
                                          .document = json_object_get(call->request, "document"),
                                          .items = list,
                                          .n_items = json_array_size(items),
                                          .excludes = excludes};
    if (call->mover->prepare && call->mover->prepare(call->repository, err))
        return -1;
    CLEANUP(mount_view_clear) struct mount_view view = {0};
    if (call->mover->needs_original_path &&
        mount_view_make(&view, json_object_get(call->request, "binds"), list, request.n_items, err))
        return -1;
    if (!call->mover->run_opens && call->mover->open(call->repository, !seen_before(call->repository), err))
        return -1;
    return call->mover->run(&request, call->host, ret, err);
}

static int open_for(const struct call *call, struct err *err)
{
    return call->mover->verbs_open ? 0 : call->mover->open(call->repository, false, err);
}

/* One part of the target, made when it is missing and wanted, never through a symbolic link. */
static int open_part(int dir, const char *part, bool last, bool make)
{
    if (make && mkdirat(dir, part, 0755) && errno != EEXIST)
        return -1;
    return openat(dir, part, (last ? O_RDONLY : O_PATH) | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The target is made below one of the allowed roots. */
static int open_target(const char *target, const json_t *roots, bool make, struct err *err)
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
        int next = open_part(dir, part, *rest == '\0', make);
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
    AUTO_FD int dir = open_target(target, json_object_get(call->request, "roots"), true, err);
    if (dir < 0)
        return -1;
    AUTO_FREE const char **paths = strings(json_object_get(call->request, "paths"));
    AUTO_FREE const char **excepts = strings(json_object_get(call->request, "excepts"));
    const json_t *sets = json_object_get(call->request, "sets"), *set;
    AUTO_FREE struct mover_file_set *list = mem_new((json_array_size(sets) + 1) * sizeof *list);
    size_t i;
    json_array_foreach(sets, i, set) list[i] =
        (struct mover_file_set){json_str(set, "path", ""), json_str(set, "spec", "*"), json_bool(set, "recursive", true)};
    const struct mover_restore restore = {.repository = call->repository,
                                          .backup_id = call->backup_id,
                                          .data_id = call->data_id,
                                          .target_dir_fd = dir,
                                          .target = target,
                                          .paths = paths,
                                          .overwrite = json_bool(call->request, "overwrite", false),
                                          .sets = list,
                                          .n_sets = json_array_size(sets),
                                          .excepts = excepts,
                                          .strip = json_str(call->request, "strip", NULL),
                                          .rename = json_str(call->request, "rename", NULL)};
    if (open_for(call, err) || call->mover->restore(&restore, call->host, ret, err))
        return -1;
    json_put(*ret, "target", json_string(target));
    return 0;
}

/* After a restore that was killed. A target that is not there holds nothing. */
static int verb_tidy(const struct call *call, json_t **ret, struct err *err)
{
    (void)ret, (void)err;
    AUTO_FD int dir = open_target(json_str(call->request, "target", ""), json_object_get(call->request, "roots"), false, NULL);
    if (dir >= 0)
        stage_sweep(dir);
    return 0;
}

static int verb_verify(const struct call *call, json_t **ret, struct err *err)
{
    return open_for(call, err) ||
                   call->mover->verify(call->repository, call->backup_id, call->data_id, call->host, ret, err)
               ? -1
               : 0;
}

/* One directory of what the backup holds. */
static int verb_files(const struct call *call, json_t **ret, struct err *err)
{
    CLEANUP(manifest_clear) struct manifest manifest = {0};
    const struct listing asked = {.path = json_str(call->request, "path", "/"),
                                  .after = json_str(call->request, "after", NULL),
                                  .limit = json_int(call->request, "limit", 50)};
    return open_for(call, err) || call->mover->manifest(call->repository, call->backup_id, call->host, &manifest, err) ||
                   listing_page(&manifest, &asked, ret, err)
               ? -1
               : 0;
}

static int verb_list(const struct call *call, json_t **ret, struct err *err)
{
    json_t *items = NULL;
    if (open_for(call, err) || call->mover->list(call->repository, call->host, &items, err))
        return -1;
    *ret = json_pack("{s:o}", "items", items);
    return 0;
}

static int verb_remove(const struct call *call, json_t **ret, struct err *err)
{
    (void)ret;
    return open_for(call, err) ||
                   call->mover->remove(call->repository, call->backup_id, call->data_id, call->host, err)
               ? -1
               : 0;
}

static int verb_seal(const struct call *call, json_t **ret, struct err *err)
{
    (void)ret;
    const json_t *seal = json_object_get(call->request, "seal");
    return open_for(call, err) ||
                   call->mover->seal(call->repository, call->backup_id, seal, call->host, err)
               ? -1
               : 0;
}

/* Whoever asks has just named place and password: what cannot be opened with them is his to look at, and nothing unexpected. */
static int verb_open(const struct call *call, json_t **ret, struct err *err)
{
    struct err cause = {0};
    (void)ret;
    if (call->mover->open(call->repository, json_bool(call->request, "create", false), &cause) == 0)
        return 0;
    if (cause.hr == (uint32_t)VSS_E_UNEXPECTED || cause.hr == (uint32_t)VSS_E_NOT_SUPPORTED)
        cause.hr = (uint32_t)E_INVALIDARG;
    if (err)
        *err = cause;
    return -1;
}

/* A repository that is not there yet holds nothing to sweep. */
static int verb_sweep(const struct call *call, json_t **ret, struct err *err)
{
    struct err cause = {0};
    (void)ret;
    if (call->mover->open(call->repository, false, &cause)) {
        if (err)
            *err = cause;
        return cause.hr == (uint32_t)VSS_E_OBJECT_NOT_FOUND ? 0 : -1;
    }
    if (call->mover->sweep)
        call->mover->sweep(call->repository);
    return 0;
}

static int verb_probe(const struct call *call, json_t **ret, struct err *err)
{
    char reason[256] = "";
    (void)err;
    call->mover->probe(reason);
    *ret = json_pack("{s:b, s:s}", "available", !*reason, "reason", reason);
    return 0;
}

struct verb {
    const char *name;
    int (*fn)(const struct call *call, json_t **ret, struct err *err);
    bool limited; /* the repository's or the backup's limits hold: for the rest somebody waits */
};
static const struct verb verbs[] = {{"run", verb_run, true},   {"restore", verb_restore, false}, {"verify", verb_verify, true},
                                    {"list", verb_list, false}, {"remove", verb_remove, false},   {"open", verb_open, false},
                                    {"probe", verb_probe, false}, {"sweep", verb_sweep, false},   {"seal", verb_seal, false},
                                    {"tidy", verb_tidy, false},    {"files", verb_files, false}};

/* A backup's limits come in the request, whole: the worker has put them together with the repository's. */
static int run_verb(const struct verb *verb, struct call *call, json_t **ret, struct err *err)
{
    const json_t *own = json_object_get(call->request, "limits");
    call->limits = verb->limited ? json_is_object(own) ? own : json_object_get(call->repository, "limits") : NULL;
    if (mover_limits_apply(call->limits, err) || verb->fn(call, ret, err))
        return -1;
    return fault("mover.end") ? err_set(err, VSS_E_UNEXPECTED, NULL, "mover %s: fault injected", call->mover->name) : 0;
}

/* Of a snapshot, not of a repository: no mover is asked. */
static int verb_archive(const json_t *request, json_t **ret, struct err *err)
{
    const struct read_out read_out = {.tree = MOVER_TREE_FD, .path = json_str(request, "path", "/"), .pipe = MOVER_OUTPUT_FD,
                                      .cancel = STDIN_FILENO, .zstd = str_eq(json_str(request, "format", "tar"), "tar.zst")};
    return read_out_run(&read_out, ret, err);
}

static int serve_request(struct child *child, json_t **ret, struct err *err)
{
    AUTO_JSON json_t *request = NULL;
    if (read_request(&request, err))
        return -1;
    const struct mover_host host = {.progress = on_progress,
                                    .cancelled = on_cancelled,
                                    .publishing = on_publishing,
                                    .cancel_fd = STDIN_FILENO,
                                    .arg = child};
    struct call call = {.request = request,
                        .repository = json_object_get(request, "repository"),
                        .host = &host,
                        .backup_id = json_str(request, "backup_id", ""),
                        .data_id = json_str(request, "data_id", "")};
    const char *state_dir = json_str(request, "state_dir", NULL);
    if (state_dir && json_is_object(call.repository))
        json_put(json_object_get(request, "repository"), "state_dir", json_string(state_dir));
    const char *name = json_str(request, "mover", json_str(call.repository, "mover", "")),
               *verb = json_str(request, "verb", "");
    if (str_eq(verb, "archive"))
        return verb_archive(request, ret, err);
    call.mover = mover_by_name(name);
    if (!call.mover)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "GET /movers lists what there is.", "mover %s: no such mover",
                       name);
    if (fault("mover.start"))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "mover %s: fault injected", name);
    for (size_t i = 0; i < ELEMENTS(verbs); i++)
        if (str_eq(verb, verbs[i].name))
            return run_verb(&verbs[i], &call, ret, err);
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
