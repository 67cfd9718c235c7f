#include "providers/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "providers/exposure.h"
#include "providers/mark.h"

/* Far longer than the time from PrepareForBackup to DoSnapshotSet. */
enum { DANGLING_S = 24 * 3600 };

static int open_place(const struct keeper *keeper, const struct provider_environment *env, const struct volume *volume,
                      struct place *ret, struct err *err)
{
    char path[PATH_MAX], reason[256] = "";
    ret->fd = -1;
    if (keeper->locate(env, volume, path, reason) < 0)
        return err_set(err, VSS_E_PROVIDER_VETO, NULL, "%s: %s", volume->path, reason);
    return place_open(path, true, ret, err);
}

static int open_volume(const struct volume *volume, struct err *err)
{
    int fd = place_open_path(volume->path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        err_errno(err, errno == ENOENT ? (uint32_t)VSS_E_OBJECT_NOT_FOUND : provider_hresult(errno), errno, NULL,
                  "cannot open the volume %s", volume->path);
    return fd;
}

/* The path that failed is the source's; what is full is the place of the snapshots. */
static int hint_room(const struct place *place, struct err *err)
{
    if (err && err->hr == (uint32_t)VSS_E_INSUFFICIENT_STORAGE && !err->hint[0])
        str_format(err->hint, sizeof(err->hint), "Make room where the snapshot is kept: %s.", place->path);
    return -1;
}

static int prepare_one(const struct keeper *keeper, const struct provider_environment *env,
                       struct provider_snapshot *snapshot, struct err *err)
{
    AUTO_PLACE struct place place;
    if (open_place(keeper, env, &snapshot->volume, &place, err) < 0)
        return -1;
    AUTO_FD int volume = open_volume(&snapshot->volume, err);
    mark_sweep(&place, keeper->provider, env->node, DANGLING_S);
    if (volume < 0)
        return -1;
    if (mark_write(&place, keeper->provider, env->node, snapshot, err) < 0)
        return hint_room(&place, err);
    if (keeper->sync && syncfs(volume) < 0)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot write out %s", snapshot->volume.path);
    return 0;
}

/* Also takes the marks back: nothing of the set is left. */
static void undo(const struct keeper *keeper, const struct provider_environment *env, struct provider_snapshot *set,
                 size_t n, struct err *err)
{
    struct err why;
    for (size_t i = n; i-- > 0;) {
        if (keeper_remove(keeper, env, &set[i], &why) < 0 && err) {
            size_t length = strlen(err->text);
            str_format(err->text + length, sizeof(err->text) - length, "; and left behind: %.300s", why.text);
        }
        set[i].path[0] = '\0';
    }
}

int keeper_prepare(const struct keeper *keeper, const struct provider_environment *env, struct provider_snapshot *set,
                   size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (prepare_one(keeper, env, &set[i], err) < 0) {
            undo(keeper, env, set, i + 1, err);
            return -1;
        }
    }
    return 0;
}

static int create_one(const struct keeper *keeper, const struct provider_environment *env,
                      struct provider_snapshot *snapshot, struct err *err)
{
    AUTO_PLACE struct place place;
    if (env->cancelled && env->cancelled(env->cancelled_arg))
        return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "%s: cancelled", snapshot->volume.path);
    if (open_place(keeper, env, &snapshot->volume, &place, err) < 0)
        return -1;
    AUTO_FD int volume = open_volume(&snapshot->volume, err);
    if (volume < 0)
        return -1;
    if (mark_write(&place, keeper->provider, env->node, snapshot, err) < 0)
        return hint_room(&place, err);
    if (!str_format(snapshot->path, sizeof(snapshot->path), "%s/%s", place.path, snapshot->id))
        return err_set(err, E_INVALIDARG, NULL, "%s: the path is too long", place.path);
    snapshot->atomic = keeper->atomic;
    snapshot->writable = false;
    snapshot->bytes = -1;
    return keeper->make(env, volume, &place, snapshot, err) < 0 ? hint_room(&place, err) : 0;
}

/* Nothing may exist under a new snapshot's id: undoing the set would remove it. */
static int refuse_existing(const struct keeper *keeper, const struct provider_environment *env,
                           const struct provider_snapshot *snapshot, struct err *err)
{
    char path[PATH_MAX], reason[256];
    struct stat stat;
    AUTO_PLACE struct place place = {.fd = -1};
    if (!uuid_valid(snapshot->id))
        return err_set(err, E_INVALIDARG, NULL, "\"%s\" is no snapshot id", snapshot->id);
    if (keeper->locate(env, &snapshot->volume, path, reason) < 0)
        return 0;
    if (place_open(path, false, &place, err) < 0)
        return -1;
    if (place.fd >= 0 && fstatat(place.fd, snapshot->id, &stat, AT_SYMLINK_NOFOLLOW) == 0)
        return err_set(err, VSS_E_OBJECT_ALREADY_EXISTS, NULL, "%s/%s exists already", path, snapshot->id);
    return 0;
}

int keeper_create(const struct keeper *keeper, const struct provider_environment *env, struct provider_snapshot *set,
                  size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (refuse_existing(keeper, env, &set[i], err) < 0)
            return -1;
    for (size_t i = 0; i < n; i++) {
        int r = create_one(keeper, env, &set[i], err);
        if (r == 0 && i == 0 && fault(keeper->fault_create))
            r = err_set(err, VSS_E_UNEXPECTED_PROVIDER_ERROR, NULL, "fault point behind the first snapshot of the set");
        if (r < 0)
            return -1; /* a tree of many files takes its time to remove: not while the applications are held (provider.h) */
    }
    return 0;
}

/* Was this place listed for an earlier volume? */
static bool seen_before(const struct keeper *keeper, const struct provider_environment *env,
                        const struct volume *volumes, size_t i, const char *path)
{
    char other[PATH_MAX], reason[256];
    for (size_t j = 0; j < i; j++)
        if (keeper->locate(env, &volumes[j], other, reason) == 0 && str_eq(other, path))
            return true;
    return false;
}

int keeper_list(const struct keeper *keeper, const struct provider_environment *env, const struct volume *volumes,
                size_t n, json_t **ret, struct err *err)
{
    AUTO_JSON json_t *items = json_array();
    struct err unusable;
    for (size_t i = 0; i < n; i++) {
        char path[PATH_MAX], reason[256];
        AUTO_PLACE struct place place = {.fd = -1};
        if (keeper->locate(env, &volumes[i], path, reason) < 0 || seen_before(keeper, env, volumes, i, path))
            continue;
        /* A place that is not ours holds nothing of ours. */
        if (place_open(path, false, &place, &unusable) < 0 || place.fd < 0)
            continue;
        if (mark_list(&place, keeper->provider, env->node, items, err) < 0)
            return -1;
    }
    *ret = TAKE_PTR(items);
    return 0;
}

/* The place of a snapshot that says where it lies: its parent, if that is one that we would have used. */
static int place_of_snapshot(const struct keeper *keeper, const struct provider_environment *env,
                             const struct provider_snapshot *snapshot, char ret[PATH_MAX], struct err *err)
{
    char reason[256] = "";
    if (!*snapshot->path) {
        if (keeper->locate(env, &snapshot->volume, ret, reason) < 0)
            return err_set(err, VSS_E_PROVIDER_VETO, NULL, "%s: %s", snapshot->volume.path, reason);
        return 0;
    }
    str_copy(ret, PATH_MAX, snapshot->path);
    char *slash = strrchr(ret, '/');
    bool right = path_is_canonical(snapshot->path) && slash && slash != ret && str_eq(slash + 1, snapshot->id);
    if (right) {
        *slash = '\0';
        right = str_eq(strrchr(ret, '/'), "/" PLACE_NAME);
    }
    return right ? 0
                 : err_set(err, VSS_E_PROVIDER_VETO, NULL, "%s is no path of a snapshot %s of ours", snapshot->path,
                           snapshot->id);
}

/* The place that a snapshot lies in: 1 with our mark for it, 0 without one (ret->fd may be -1), -1 with err. */
static int find(const struct keeper *keeper, const struct provider_environment *env,
                const struct provider_snapshot *snapshot, struct place *ret, struct err *err)
{
    char path[PATH_MAX];
    ret->fd = -1;
    if (!uuid_valid(snapshot->id))
        return err_set(err, E_INVALIDARG, NULL, "\"%s\" is no snapshot id", snapshot->id);
    if (place_of_snapshot(keeper, env, snapshot, path, err) < 0 || place_open(path, false, ret, err) < 0)
        return -1;
    return ret->fd < 0 ? 0 : mark_check(ret, keeper->provider, env->node, snapshot->id, err);
}

int keeper_remove(const struct keeper *keeper, const struct provider_environment *env,
                  const struct provider_snapshot *snapshot, struct err *err)
{
    struct stat stat;
    AUTO_PLACE struct place place = {.fd = -1};
    int marked = find(keeper, env, snapshot, &place, err);
    if (marked < 0)
        return -1;
    if (place.fd < 0)
        return 0;
    if (!marked)
        return fstatat(place.fd, snapshot->id, &stat, AT_SYMLINK_NOFOLLOW) < 0
                   ? 0
                   : err_set(err, VSS_E_PROVIDER_VETO, "Remove it by hand if it is not needed.",
                             "%s/%s carries no mark of ours", place.path, snapshot->id);
    if (keeper->unmake(&place, snapshot->id, err) < 0)
        return -1;
    return mark_remove(&place, snapshot->id, err);
}

int keeper_open(const struct keeper *keeper, const struct provider_environment *env,
                const struct provider_snapshot *snapshot, struct place *ret_place, int *ret_tree, struct err *err)
{
    int marked = find(keeper, env, snapshot, ret_place, err);
    if (marked < 0)
        return -1;
    *ret_tree = marked ? openat(ret_place->fd, snapshot->id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (*ret_tree >= 0)
        return 0;
    return marked && errno != ENOENT
               ? err_errno(err, provider_hresult(errno), errno, NULL, "cannot open the snapshot %s/%s", ret_place->path,
                           snapshot->id)
               : err_set(err, VSS_E_OBJECT_NOT_FOUND, NULL, "snapshot %s of %s is not on its disk any more",
                         snapshot->id, snapshot->volume.path);
}

int keeper_open_tree(const struct keeper *keeper, const struct provider_environment *env,
                     const struct provider_snapshot *snapshot, struct err *err)
{
    AUTO_PLACE struct place place = {.fd = -1};
    int tree = -1;
    return keeper_open(keeper, env, snapshot, &place, &tree, err) < 0 ? -1 : tree;
}

int keeper_expose(const struct keeper *keeper, const struct provider_environment *env,
                  const struct provider_snapshot *snapshot, int target, struct err *err)
{
    AUTO_PLACE struct place place = {.fd = -1};
    AUTO_FD int tree = -1;
    if (keeper_open(keeper, env, snapshot, &place, &tree, err) < 0)
        return -1;
    if (exposure_is(target, tree))
        return 0;
    if (exposure_is_mount(target)) {
        err_invalid(err, "/path", "something else is mounted there");
        return -1;
    }
    return exposure_attach(tree, target, snapshot->id, err);
}

int keeper_unexpose(const struct keeper *keeper, const struct provider_environment *env,
                    const struct provider_snapshot *snapshot, const char *path, struct err *err)
{
    AUTO_PLACE struct place place = {.fd = -1};
    AUTO_FD int tree = -1;
    if (keeper_open(keeper, env, snapshot, &place, &tree, err) < 0)
        return -1;
    AUTO_FD int at = place_open_path(path, O_RDONLY | O_DIRECTORY);
    if (at < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return 0;
    if (at < 0)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot open %s", path);
    return exposure_is(at, tree) ? exposure_detach(at, path, err) : 0;
}
