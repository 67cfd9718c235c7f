#include "worker/stored.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "providers/exposure.h"
#include "providers/place.h"
#include "worker/context.h"
#include "worker/volumes.h"

static const struct provider *provider_of(const json_t *doc, struct err *err)
{
    const char *name = json_str(doc, "provider", "");
    const struct provider *provider = provider_by_name(name);
    if (!provider)
        err_set(err, VSS_E_PROVIDER_NOT_REGISTERED, NULL, "no provider \"%s\"", name);
    return provider;
}

static void fill(const struct provider_environment *env, const struct provider *provider, const json_t *doc, struct provider_snapshot *ret)
{
    const struct provider *ignored = NULL;
    const char *volume = json_str(doc, "volume", "");
    *ret = (struct provider_snapshot){.bytes = -1};
    /* The volume may be gone (unmounted, removed): the provider then goes by the snapshot's own path. */
    volumes_resolve(env, volume, provider->name, &ret->volume, &ignored, NULL);
    str_copy(ret->volume.path, sizeof(ret->volume.path), volume);
    str_copy(ret->id, sizeof(ret->id), json_str(doc, "id", ""));
    str_copy(ret->set_id, sizeof(ret->set_id), json_str(doc, "set_id", ""));
    str_copy(ret->session_id, sizeof(ret->session_id), json_str(doc, "session_id", ""));
    str_copy(ret->path, sizeof(ret->path), json_str(doc, "path", ""));
    str_copy(ret->outside_id, sizeof(ret->outside_id), json_str(doc, "outside_id", ""));
}

/* --- DeleteSnapshots --- */

int stored_remove(struct worker *worker, const struct provider *provider, const json_t *doc, struct err *err)
{
    struct provider_environment env = worker_environment(worker);
    struct provider_snapshot snapshot;
    const char *exposed = json_str(doc, "exposed_path", NULL);
    fill(&env, provider, doc, &snapshot);
    if (worker_fault(worker, "provider.remove"))
        return worker_fault_error(provider->name, err);
    if (exposed && provider->unexpose && provider->unexpose(&env, &snapshot, exposed, err) < 0 && err->hr != (uint32_t)VSS_E_OBJECT_NOT_FOUND)
        return -1;
    return provider->remove(&env, &snapshot, err);
}

int operation_remove_snapshot(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    const json_t *doc = json_object_get(args, "snapshot");
    const struct provider *provider = provider_of(doc, err);
    if (!provider)
        return -1;
    bool forget = provider->outside && json_bool(args, "force", false); /* not ours to remove: nothing is done to it */
    if (!forget && stored_remove(worker, provider, doc, err) < 0)
        return -1;
    json_put(result, "removed", json_pack("[s]", json_str(doc, "id", "")));
    return 0;
}

int stored_open(struct worker *worker, const json_t *doc, struct err *err)
{
    struct provider_environment env = worker_environment(worker);
    struct provider_snapshot snapshot;
    const struct provider *provider = provider_of(doc, err);
    if (!provider)
        return -1;
    if (!provider->open)
        return err_set(err, E_NOTIMPL, "Look into it where it was taken.", "provider %s: its snapshots do not lie on this host", provider->name);
    fill(&env, provider, doc, &snapshot);
    return provider->open(&env, &snapshot, err);
}

/* --- ExposeSnapshot, UnexposeSnapshot --- */

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static bool is_empty(int fd)
{
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(closedir_cleanup) DIR *dir = again < 0 ? NULL : fdopendir(again);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
            return false;
    return dir != NULL;
}

static bool beneath_a_root(const struct worker *worker, const char *path)
{
    size_t i;
    const json_t *root;
    json_array_foreach (json_object_get(json_object_get(worker->config, "expose"), "roots"), i, root)
        if (path_beneath(path, json_string_value(root)) && !str_eq(path, json_string_value(root)))
            return true;
    return false;
}

/* By our own configuration: core's word is not enough to mount anywhere. No symbolic link is followed. */
static int open_target(const struct worker *worker, const char *path, struct err *err)
{
    if (!path_is_canonical(path) || !beneath_a_root(worker, path))
        return err_invalid(err, "/path", "%s is not beneath a directory of expose.roots", path);
    int fd = place_open_path(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        err_invalid(err, "/path", "%s: %s", path, errno == ELOOP ? "leads through a symbolic link" : errno == ENOENT ? "does not exist" : "is no directory");
        str_copy(err->hint, sizeof(err->hint), "Name an empty directory.");
    }
    return fd;
}

static int expose(struct worker *worker, const json_t *doc, const char *path, struct err *err)
{
    struct provider_environment env = worker_environment(worker);
    struct provider_snapshot snapshot;
    const struct provider *provider = provider_of(doc, err);
    if (!provider)
        return -1;
    if (!provider->expose)
        return err_set(err, E_NOTIMPL, "Look into it where it was taken.", "provider %s: its snapshots cannot be exposed on this host", provider->name);
    AUTO_FD int target = open_target(worker, path, err);
    if (target < 0)
        return -1;
    if (!exposure_is_mount(target) && !is_empty(target)) {
        err_invalid(err, "/path", "%s is not empty", path);
        str_copy(err->hint, sizeof(err->hint), "Name an empty directory.");
        return -1;
    }
    fill(&env, provider, doc, &snapshot);
    if (worker_fault(worker, "provider.expose"))
        return worker_fault_error(provider->name, err);
    return provider->expose(&env, &snapshot, target, err);
}

static int unexpose(struct worker *worker, const json_t *doc, const char *path, struct err *err)
{
    struct provider_environment env = worker_environment(worker);
    struct provider_snapshot snapshot;
    const struct provider *provider = provider_of(doc, err);
    if (!provider)
        return -1;
    fill(&env, provider, doc, &snapshot);
    if (worker_fault(worker, "provider.unexpose"))
        return worker_fault_error(provider->name, err);
    return provider->unexpose ? provider->unexpose(&env, &snapshot, path, err) : 0;
}

int operation_expose(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    (void)result;
    return expose(worker, json_object_get(args, "snapshot"), json_str(args, "path", ""), err);
}

int operation_unexpose(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    (void)result;
    return unexpose(worker, json_object_get(args, "snapshot"), json_str(args, "path", ""), err);
}

/* What may not be there any more, or cannot be told to be ours, is not left mounted either: nobody would know of it. */
static json_t *settle_exposure(struct worker *worker, const json_t *doc, const char *path, bool wanted)
{
    struct err err = {0}, again = {0};
    bool exposed = wanted && expose(worker, doc, path, &err) == 0;
    bool stays = !exposed && unexpose(worker, doc, path, &again) < 0 && again.hr != (uint32_t)VSS_E_OBJECT_NOT_FOUND;
    AUTO_FREE char *reason = str_new("%s%s%s", err.text, *err.text && stays ? "; " : "", stays ? again.text : "");
    return json_pack("{s:s, s:b, s:o}", "id", json_str(doc, "id", ""), "exposed", exposed || stays, "reason", json_text(reason));
}

void stored_restore_exposures(struct worker *worker, const json_t *exposures, json_t *result)
{
    size_t i;
    const json_t *one;
    json_put(result, "exposures", json_array());
    json_array_foreach (exposures, i, one)
        json_add(json_object_get(result, "exposures"),
                 settle_exposure(worker, json_object_get(one, "snapshot"), json_str(one, "path", ""), json_bool(one, "wanted", false)));
}

/* --- RevertToSnapshot --- */

static const struct provider *reverting_provider(const json_t *doc, struct err *err)
{
    const struct provider *provider = provider_of(doc, err);
    if (provider && !provider->revert) {
        err_set(err, E_NOTIMPL, "Expose the snapshot and copy what is needed, or restore a backup.",
                "provider %s: a volume cannot be reverted to its snapshots", provider->name);
        return NULL;
    }
    return provider;
}

static int run_revert(struct worker *worker, const json_t *args, bool only_check, json_t *result, struct err *err)
{
    const json_t *doc = json_object_get(args, "snapshot");
    struct provider_environment env = worker_environment(worker);
    struct provider_snapshot snapshot;
    const struct provider *provider = reverting_provider(doc, err);
    if (!provider)
        return -1;
    fill(&env, provider, doc, &snapshot);
    struct provider_revert revert = {.job = json_str(args, "job", ""), .force = json_bool(args, "force", false), .only_check = only_check};
    if (provider->revert(&env, &snapshot, &revert, err) < 0)
        return -1;
    if (*revert.left)
        json_put(result, "cleanup", json_pack("{s:[], s:[], s:[{s:s, s:o}]}", "thawed", "removed", "failed", "object", snapshot.id, "reason",
                                              json_text(revert.left)));
    return 0;
}

int operation_revert_check(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    return run_revert(worker, args, true, result, err);
}

/* Cannot be stopped: neither a cancel nor the loss of core is looked for. */
int operation_revert(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    return run_revert(worker, args, false, result, err);
}

int operation_revert_outcome(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    const json_t *doc = json_object_get(args, "snapshot");
    struct provider_environment env = worker_environment(worker);
    struct provider_snapshot snapshot;
    const struct provider *provider = reverting_provider(doc, err);
    if (!provider)
        return -1;
    fill(&env, provider, doc, &snapshot);
    int reverted = provider->reverted(&env, &snapshot, json_str(args, "job", ""), err);
    if (reverted < 0)
        return -1;
    json_put(result, "reverted", json_boolean(reverted));
    return 0;
}
