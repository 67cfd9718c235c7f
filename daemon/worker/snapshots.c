#include "worker/snapshots.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/session_model.h"
#include "providers/place.h"
#include "worker/context.h"
#include "worker/participation.h"
#include "worker/superblocks.h"
#include "worker/volumes.h"

void snapshots_clear(struct snapshot_set *set)
{
    free(set->items);
    free(set->providers);
    free(set->held);
    json_decref(set->only);
    *set = (struct snapshot_set){0};
}

/* Keeps each provider's snapshots together: create gets a contiguous group. */
static void insert(struct snapshot_set *set, const struct provider_snapshot *item, const struct provider *provider)
{
    size_t at = set->n;
    for (size_t i = 0; i < set->n; i++)
        if (set->providers[i] == provider)
            at = i + 1;
    memmove(set->items + at + 1, set->items + at, (set->n - at) * sizeof(*set->items));
    memmove(set->providers + at + 1, set->providers + at, (set->n - at) * sizeof(*set->providers));
    set->items[at] = *item;
    set->providers[at] = provider;
    set->n++;
}

struct wanting {
    const char *volume;
    json_t *names; /* NULL: all of it */
};

static void want(struct wanting *wanting, const char *path)
{
    if (!wanting->names || !path_beneath(path, wanting->volume))
        return;
    AUTO_FREE char *name = volumes_name_in(wanting->volume, path);
    if (*name && !json_has_string(wanting->names, name))
        json_add(wanting->names, json_text(name));
    else if (!*name)
        json_decref(TAKE_PTR(wanting->names));
}

static int want_file_set(void *arg, const struct participation_file_set *found, struct err *err)
{
    (void)err;
    want(arg, json_str(found->set, "alternate_path", json_str(found->set, "path", "")));
    return 0;
}

/* The names at a volume's top in which everything lies that is wanted of it: a file alone, then, and not its directory. A component's file set is
 * a directory: its neighbours, such as the -wal of a database, come with it. New reference; NULL: all of it. */
static json_t *names_wanted(struct worker *worker, const json_t *args, const char *volume)
{
    struct wanting wanting = {volume, json_array()};
    size_t i;
    const json_t *path;
    struct err ignored;
    if (participation_file_sets(worker, NULL, want_file_set, &wanting, &ignored) < 0 && wanting.names) /* not all are known */
        json_decref(TAKE_PTR(wanting.names));
    json_array_foreach(json_object_get(args, "paths"), i, path)
        want(&wanting, json_string_value(path));
    if (wanting.names && json_array_size(wanting.names) == 0) /* nothing that is known: a whole volume, then */
        json_decref(TAKE_PTR(wanting.names));
    return wanting.names;
}

static int add_volume(struct worker *worker, const json_t *args, const json_t *named, struct err *err)
{
    struct provider_snapshot item = {.bytes = -1};
    const struct provider *provider = NULL;
    struct provider_environment env = worker_environment(worker);
    const char *path = json_str(named, "volume", "");
    if (volumes_resolve(&env, path, json_str(named, "provider", NULL), &item.volume, &provider, err) < 0)
        return err_prefix(err, "volume %s", path);
    str_copy(item.volume.requested, sizeof(item.volume.requested), json_str(named, "requested", path));
    char id[UUID_SIZE];
    str_copy(item.id, sizeof(item.id), json_str(named, "snapshot_id", uuid_v7(id)));
    str_copy(item.set_id, sizeof(item.set_id), worker->set.id);
    str_copy(item.session_id, sizeof(item.session_id), worker->session);
    json_t *only = provider->by_file && json_bool(args, "only_paths", false) ? names_wanted(worker, args, item.volume.path) : NULL;
    if (only)
        json_put(worker->set.only, item.volume.path, only);
    item.volume.only = only;
    struct provider_plan plan = {0};
    if (worker_fault(worker, "provider.plan"))
        return worker_fault_error(provider->name, err);
    if (provider->plan(&env, &item.volume, &plan, err) < 0)
        return err_prefix(err, "volume %s", path);
    item.atomic = plan.atomic;
    item.flushed = plan.flushed;
    item.bytes = plan.bytes;
    item.freeze = plan.freeze;
    insert(&worker->set, &item, provider);
    return 0;
}

int snapshots_open(struct worker *worker, const json_t *args, struct err *err)
{
    struct snapshot_set *set = &worker->set;
    const json_t *volumes = json_object_get(args, "volumes");
    size_t i, n = json_array_size(volumes);
    const json_t *named;
    snapshots_clear(set);
    set->items = mem_new((n + 1) * sizeof(*set->items));
    set->providers = mem_new((n + 1) * sizeof(*set->providers));
    set->held = mem_new((n + 1) * sizeof(*set->held));
    set->only = json_object();
    str_copy(set->id, sizeof(set->id), json_str(args, "snapshot_set_id", ""));
    const struct session_context *context = session_context_by_name(json_str(args, "context", "backup"));
    set->auto_release = !context || context->auto_release;
    json_array_foreach (volumes, i, named)
        if (add_volume(worker, args, named, err) < 0)
            return -1;
    return 0;
}

/* The end of the run of equal providers that begins at i. */
static size_t group_end(const struct snapshot_set *set, size_t i)
{
    size_t end = i + 1;
    while (end < set->n && set->providers[end] == set->providers[i])
        end++;
    return end;
}

static const json_t *options(const struct worker *worker, const struct provider *provider)
{
    return json_object_get(json_object_get(worker->config, "providers"), provider->name);
}

int snapshots_prepare(struct worker *worker, struct err *err)
{
    struct snapshot_set *set = &worker->set;
    struct provider_environment env = worker_environment(worker);
    for (size_t i = 0, end; i < set->n; i = end) {
        end = group_end(set, i);
        if (wait_look(&worker->wait))
            return worker_stopped(worker, err);
        env.options = options(worker, set->providers[i]);
        if (worker_fault(worker, "provider.prepare"))
            return worker_fault_error(set->providers[i]->name, err);
        if (set->providers[i]->prepare && set->providers[i]->prepare(&env, set->items + i, end - i, err) < 0)
            return err_prefix(err, "provider %s", set->providers[i]->name);
        for (size_t k = i; k < end; k++) /* it may have left marks on disk: they go with the set, made or not */
            set->held[k] = true;
    }
    return 0;
}

void snapshots_settle(struct worker *worker)
{
    const struct snapshot_set *set = &worker->set;
    for (size_t i = 0; i < set->n; i++) {
        AUTO_FD int fd = set->items[i].freeze == FREEZE_FORBIDDEN ? place_open_path(set->items[i].volume.path, O_RDONLY) : -1;
        if (fd >= 0)
            syncfs(fd); /* one that fails, failed in prepare or fails in create: it costs nothing but time here */
    }
}

int snapshots_create(struct worker *worker, struct err *err)
{
    struct snapshot_set *set = &worker->set;
    struct provider_environment env = worker_environment(worker);
    for (size_t i = 0, end; i < set->n; i = end) {
        end = group_end(set, i);
        if (wait_look(&worker->wait))
            return worker_stopped(worker, err);
        env.options = options(worker, set->providers[i]);
        if (worker_fault(worker, "provider.create"))
            return worker_fault_error(set->providers[i]->name, err);
        if (set->providers[i]->create(&env, set->items + i, end - i, err) < 0)
            return wait_stopped(&worker->wait) ? worker_stopped(worker, err)
                                               : err_prefix(err, "provider %s", set->providers[i]->name);
        for (size_t k = i; k < end; k++)
            set->held[k] = true;
    }
    set->created = true;
    return 0;
}

static void note_end(void *arg, int fd, short revents)
{
    (void)fd;
    (void)revents;
    *(bool *)arg = true;
}

/* 0, errno, or -1: the operation in hand has to stop, and the child is left to the disk that it waits for. */
static int write_out(struct worker *worker, int fd)
{
    int pidfd = -1, status = 0;
    bool ended = false;
    pid_t pid = superblocks_sync(fd, &pidfd);
    if (pid < 0)
        return syncfs(fd) == 0 ? 0 : errno;
    AUTO_FD int watched = pidfd;
    const struct wait_source source = {.fd = watched, .events = POLLIN, .ready = note_end, .arg = &ended};
    while (!ended && !wait_stopped(&worker->wait))
        wait_turn(&worker->wait, &source, 1, INT64_MAX);
    if (!ended)
        kill(pid, SIGKILL);
    pid_t reaped = waitpid(pid, &status, ended ? 0 : WNOHANG);
    if (!ended)
        return -1;
    return reaped == pid && WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

int snapshots_make_durable(struct worker *worker, struct err *err)
{
    const struct snapshot_set *set = &worker->set;
    for (size_t i = 0; i < set->n; i++) {
        const char *path = set->items[i].path;
        if (set->providers[i]->outside || !*path)
            continue;
        AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int failed = fd < 0 ? errno : write_out(worker, fd);
        if (failed < 0)
            return worker_stopped(worker, err);
        if (failed > 0)
            return err_errno(err, provider_hresult(failed), failed, NULL, "the snapshot %s cannot be written out", path);
    }
    return 0;
}

void snapshots_let_go(struct snapshot_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->providers[i]->outside)
            set->held[i] = false;
}

json_t *snapshots_for_writers(const struct snapshot_set *set)
{
    json_t *volumes = json_array();
    for (size_t i = 0; i < set->n; i++)
        json_add(volumes, json_pack("{s:s, s:s, s:b}", "volume", set->items[i].volume.path, "provider",
                                    set->providers[i]->name, "atomic", set->items[i].atomic));
    return volumes;
}

json_t *snapshots_result(const struct snapshot_set *set)
{
    json_t *snapshots = json_array();
    for (size_t i = 0; i < set->n; i++) {
        const struct provider_snapshot *item = &set->items[i];
        json_add(snapshots,
                 json_pack("{s:s, s:s, s:s, s:s, s:s?, s:s, s:b, s:I, s:s, s:s?}", "id", item->id, "set_id", item->set_id, "volume",
                           item->volume.path, "provider", set->providers[i]->name, "storage", set->providers[i]->storage, "path", item->path,
                           "atomic", item->atomic, "bytes", (json_int_t)item->bytes, "requested", item->volume.requested,
                           "outside_id", item->outside_id[0] ? item->outside_id : NULL));
    }
    return snapshots;
}

const struct provider_snapshot *snapshots_cover(const struct snapshot_set *set, const char *path,
                                                char ret_source[PATH_MAX])
{
    const struct provider_snapshot *best = NULL;
    for (size_t i = 0; i < set->n; i++) {
        const struct provider_snapshot *item = &set->items[i];
        if (path_beneath(path, item->volume.path) && (!best || strlen(item->volume.path) > strlen(best->volume.path)))
            best = item;
    }
    if (!best)
        return NULL;
    const char *root = str_eq(best->volume.path, "/") ? "" : best->volume.path;
    return str_format(ret_source, PATH_MAX, "%s%s", best->path, path + strlen(root)) ? best : NULL;
}

/* An undo is not left half way. */
static bool never(void *arg)
{
    (void)arg;
    return false;
}

void snapshots_remove(struct worker *worker, json_t *cleanup)
{
    struct snapshot_set *set = &worker->set;
    struct provider_environment env = worker_environment(worker);
    env.cancelled = never;
    for (size_t i = set->n; i-- > 0;) {
        struct err err = {0};
        if (!set->held[i])
            continue;
        set->held[i] = false;
        bool fails = worker_fault(worker, "provider.remove") && worker_fault_error(set->providers[i]->name, &err);
        if (!fails && set->providers[i]->remove(&env, &set->items[i], &err) == 0)
            json_add(json_object_get(cleanup, "removed"), json_string(set->items[i].id));
        else
            json_add(json_object_get(cleanup, "failed"), json_pack("{s:s, s:s, s:b}", "object", set->items[i].id, "reason", err.text,
                                                                   "outside", set->providers[i]->outside));
    }
    set->created = false;
}
