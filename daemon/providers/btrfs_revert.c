#include "providers/btrfs_revert.h"

#include <btrfsutil.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "providers/exposure.h"
#include "providers/mark.h"
#include "providers/open_files.h"

enum { NAME_SIZE = UUID_SIZE + 24, BTRFS_UUID = 16, HEX_SIZE = 2 * BTRFS_UUID + 1, LOCK_STEP_US = 50000, LOCK_TRIES = 600 };

/* The subvolume that is to change, and what it changes with. */
struct ground {
    struct place place;
    int tree;   /* the snapshot */
    int volume; /* the subvolume */
    int parent; /* the directory that holds it */
    char name[NAME_MAX + 1];
    int lock;   /* held while the volume may change: whoever asks what happened waits for it */
    char volume_uuid[HEX_SIZE];
    char snapshot_of[HEX_SIZE]; /* what the snapshot was made from */
};

static void ground_clear(struct ground *ground)
{
    place_close(&ground->place);
    fd_cleanup(&ground->tree);
    fd_cleanup(&ground->volume);
    fd_cleanup(&ground->parent);
    fd_cleanup(&ground->lock);
}

#define GROUND_NONE {.place = {.fd = -1}, .tree = -1, .volume = -1, .parent = -1, .lock = -1}

static int util_failed(enum btrfs_util_error code, int errnum, const char *what, struct err *err)
{
    return err_errno(err, provider_hresult(errnum), errnum, NULL, "%s: %s", what, btrfs_util_strerror(code));
}

static void hex(const uint8_t uuid[BTRFS_UUID], char ret[HEX_SIZE])
{
    for (int i = 0; i < BTRFS_UUID; i++)
        str_format(ret + 2 * i, 3, "%02x", uuid[i]);
}

static int uuid_of(int fd, const char *what, char ret_own[HEX_SIZE], char ret_parent[HEX_SIZE], struct err *err)
{
    struct btrfs_util_subvolume_info info;
    enum btrfs_util_error code = btrfs_util_subvolume_info_fd(fd, 0, &info);
    if (code)
        return util_failed(code, errno, what, err);
    hex(info.uuid, ret_own);
    if (ret_parent)
        hex(info.parent_uuid, ret_parent);
    return 0;
}

static void name_of(const char *id, const char *suffix, char ret[NAME_SIZE])
{
    str_format(ret, NAME_SIZE, "%s.revert%s", id, suffix);
}

/* --- the record --- */

static json_t *record_read(const struct place *place, const char *name)
{
    char text[1024];
    AUTO_FD int fd = openat(place->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    return n > 0 ? json_parse_strict(text, (size_t)n, 4, NULL) : NULL;
}

/* The record is the lock, too. Another revert to this snapshot, perhaps of a worker whose core died, is waited for. */
static int record_lock(struct ground *ground, const char *id, struct err *err)
{
    char name[NAME_SIZE];
    name_of(id, ".json", name);
    ground->lock = openat(ground->place.fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    for (int i = 0; ground->lock >= 0 && i < LOCK_TRIES; i++) {
        if (flock(ground->lock, LOCK_EX | LOCK_NB) == 0)
            return 0;
        usleep(LOCK_STEP_US);
    }
    return err_errno(err, provider_hresult(errno), errno, NULL, "cannot lock %s/%s", ground->place.path, name);
}

static int record_write(const struct ground *ground, const char *job, const char *uuid, struct err *err)
{
    AUTO_JSON json_t *record = json_pack("{s:s, s:s}", "job", job, "uuid", uuid);
    AUTO_FREE char *text = json_dumps(record, JSON_COMPACT);
    if (ftruncate(ground->lock, 0) < 0 || pwrite(ground->lock, text, strlen(text), 0) != (ssize_t)strlen(text) || fsync(ground->lock) < 0 ||
        fsync(ground->place.fd) < 0)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot write the record of the revert in %s", ground->place.path);
    return 0;
}

/* Did one of our reverts make the subvolume of this uuid? */
static bool made_by_us(const struct place *place, const char *uuid)
{
    int fd = openat(place->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    bool made = false;
    while (dir && !made && (entry = readdir(dir))) {
        const char *suffix = strstr(entry->d_name, ".revert.json");
        AUTO_JSON json_t *record = suffix && str_eq(suffix, ".revert.json") ? record_read(place, entry->d_name) : NULL;
        made = str_eq(json_str(record, "uuid", NULL), uuid);
    }
    if (dir)
        closedir(dir);
    return made;
}

/* --- what stands in the way --- */

static int open_volume(const struct provider_snapshot *snapshot, struct ground *ret, struct err *err)
{
    char parent[PATH_MAX];
    const char *path = snapshot->volume.path;
    ret->volume = place_open_path(path, O_RDONLY | O_DIRECTORY);
    if (ret->volume < 0)
        return err_errno(err, errno == ENOENT ? (uint32_t)VSS_E_OBJECT_NOT_FOUND : provider_hresult(errno), errno,
                         "Expose the snapshot and copy what is needed.", "the volume %s is not there", path);
    if (btrfs_util_is_subvolume_fd(ret->volume) != BTRFS_UTIL_OK)
        return err_set(err, VSS_E_PROVIDER_VETO, "Expose the snapshot and copy what is needed.", "%s is no subvolume any more", path);
    str_copy(parent, sizeof(parent), path);
    char *slash = strrchr(parent, '/');
    str_copy(ret->name, sizeof(ret->name), slash + 1);
    slash[slash == parent ? 1 : 0] = '\0';
    ret->parent = place_open_path(parent, O_RDONLY | O_DIRECTORY);
    if (ret->parent < 0)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot open %s", parent);
    return 0;
}

static int open_ground(const struct keeper *keeper, const struct provider_environment *env, const struct provider_snapshot *snapshot,
                       struct ground *ret, struct err *err)
{
    char own[HEX_SIZE];
    if (keeper_open(keeper, env, snapshot, &ret->place, &ret->tree, err) < 0 || open_volume(snapshot, ret, err) < 0)
        return -1;
    return uuid_of(ret->volume, snapshot->volume.path, ret->volume_uuid, NULL, err) < 0 ||
                   uuid_of(ret->tree, snapshot->id, own, ret->snapshot_of, err) < 0
               ? -1
               : 0;
}

static void endmntent_cleanup(FILE **file)
{
    if (*file)
        endmntent(*file);
}

/* Whoever mounted the subvolume (or a part of it), or mounted something in it, would keep seeing the old one. */
static int refuse_mounted(const struct ground *ground, const char *path, struct err *err)
{
    char buffer[2 * PATH_MAX];
    struct mntent entry;
    struct stat volume, at;
    CLEANUP(endmntent_cleanup) FILE *mounts = setmntent("/proc/self/mounts", "re");
    if (fstat(ground->volume, &volume) < 0 || !mounts)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot look for mounts of %s", path);
    while (getmntent_r(mounts, &entry, buffer, sizeof(buffer))) {
        bool of_it = str_eq(entry.mnt_type, "btrfs") && stat(entry.mnt_dir, &at) == 0 && at.st_dev == volume.st_dev;
        if (of_it || path_beneath(entry.mnt_dir, path))
            return err_set(err, VSS_E_VOLUME_IN_USE, "Unmount it, and have the subvolume reached through the mount above it.",
                           of_it ? "%s is mounted at %s: what is mounted cannot be exchanged" : "%s has a mount in it, at %s", path, entry.mnt_dir);
    }
    return 0;
}

/* The kernel exchanges names within one mount only. */
static int refuse_elsewhere(const struct ground *ground, const char *path, struct err *err)
{
    struct statx parent, place;
    if (statx(ground->parent, "", AT_EMPTY_PATH, TREE_STATX, &parent) < 0 || statx(ground->place.fd, "", AT_EMPTY_PATH, TREE_STATX, &place) < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "%s", path);
    return parent.stx_mnt_id == place.stx_mnt_id
               ? 0
               : err_set(err, VSS_E_PROVIDER_VETO, NULL, "%s and its snapshots in %s are not on the same mount", path, ground->place.path);
}

static int refuse_nested(const struct ground *ground, const char *path, struct err *err)
{
    struct btrfs_util_subvolume_iterator *iterator = NULL;
    AUTO_FREE char *nested = NULL;
    enum btrfs_util_error code = btrfs_util_create_subvolume_iterator_fd(ground->volume, 0, 0, &iterator);
    if (!code)
        code = btrfs_util_subvolume_iterator_next(iterator, &nested, NULL);
    if (iterator)
        btrfs_util_destroy_subvolume_iterator(iterator);
    if (code == BTRFS_UTIL_ERROR_STOP_ITERATION)
        return 0;
    return code ? util_failed(code, errno, path, err)
                : err_set(err, VSS_E_PROVIDER_VETO, "Move it out of the volume first.", "%s holds the subvolume %s, which is in no snapshot of it: it would be lost",
                          path, nested);
}

/* A mount without a subvol option would go on showing the old one. */
static int refuse_default(const struct ground *ground, const char *path, struct err *err)
{
    uint64_t own = 0, by_default = 0;
    enum btrfs_util_error code = btrfs_util_subvolume_id_fd(ground->volume, &own);
    if (!code)
        code = btrfs_util_get_default_subvolume_fd(ground->volume, &by_default);
    if (code)
        return util_failed(code, errno, path, err);
    return own == by_default ? err_set(err, VSS_E_PROVIDER_VETO, "Make another subvolume the default first (btrfs subvolume set-default).",
                                       "%s is the default subvolume of its file system", path)
                             : 0;
}

static int check(const struct ground *ground, const struct provider_snapshot *snapshot, bool force, struct err *err)
{
    char who[256];
    struct stat stat;
    const char *path = snapshot->volume.path;
    if (refuse_mounted(ground, path, err) < 0 || refuse_elsewhere(ground, path, err) < 0 || refuse_nested(ground, path, err) < 0 ||
        refuse_default(ground, path, err) < 0)
        return -1;
    if (force)
        return 0;
    if (!str_eq(ground->volume_uuid, ground->snapshot_of) && !made_by_us(&ground->place, ground->volume_uuid))
        return err_set(err, VSS_E_VOLUME_IN_USE, "Add \"force\": true if it may be lost.",
                       "%s is not the subvolume any more that snapshot %s was taken of", path, snapshot->id);
    if (fstat(ground->volume, &stat) < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "%s", path);
    size_t users = open_files_find(stat.st_dev, who, sizeof(who));
    return users == 0 ? 0
                      : err_set(err, VSS_E_VOLUME_IN_USE, "End them, or add \"force\": true: they then keep the old files, which nobody else sees.",
                                "%s is in use by %zu process%s: %s", path, users, users == 1 ? "" : "es", who);
}

/* --- the exchange --- */

static int remove_beside(const struct place *place, const char *id, struct err *err)
{
    char name[NAME_SIZE], what[PATH_MAX];
    struct stat stat;
    name_of(id, "", name);
    if (fstatat(place->fd, name, &stat, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
        return 0;
    str_format(what, sizeof(what), "cannot remove %.3000s/%s", place->path, name);
    enum btrfs_util_error code = btrfs_util_delete_subvolume_fd(place->fd, name, 0);
    return code && errno != ENOENT ? util_failed(code, errno, what, err) : 0;
}

static int make_copy(const struct ground *ground, const char *id, const char *job, struct err *err)
{
    char name[NAME_SIZE], uuid[HEX_SIZE];
    name_of(id, "", name);
    if (remove_beside(&ground->place, id, err) < 0) /* of a revert that was killed */
        return -1;
    enum btrfs_util_error code = btrfs_util_create_snapshot_fd2(ground->tree, ground->place.fd, name, 0, NULL, NULL);
    if (code)
        return util_failed(code, errno, "cannot copy the snapshot", err);
    AUTO_FD int copy = openat(ground->place.fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (copy < 0)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot open %s/%s", ground->place.path, name);
    if (uuid_of(copy, name, uuid, NULL, err) < 0 || record_write(ground, job, uuid, err) < 0)
        return -1;
    return syncfs(copy) < 0 ? err_errno(err, provider_hresult(errno), errno, NULL, "cannot write out %s/%s", ground->place.path, name) : 0;
}

static int exchange(const struct ground *ground, const char *id, struct err *err)
{
    char name[NAME_SIZE];
    name_of(id, "", name);
    if (syscall(SYS_renameat2, ground->place.fd, name, ground->parent, ground->name, RENAME_EXCHANGE) < 0)
        return err_errno(err, errno == EBUSY ? (uint32_t)VSS_E_VOLUME_IN_USE : provider_hresult(errno), errno, NULL,
                         "cannot exchange %s with its snapshot", ground->name);
    return 0;
}

int btrfs_revert(const struct keeper *keeper, const struct provider_environment *env, const struct provider_snapshot *snapshot,
                 struct provider_revert *revert, struct err *err)
{
    CLEANUP(ground_clear) struct ground ground = GROUND_NONE;
    struct err left = {0};
    if (!env->root)
        return err_set(err, E_ACCESSDENIED, "Run the daemon as root.", "without root it cannot be seen who uses %s", snapshot->volume.path);
    if (open_ground(keeper, env, snapshot, &ground, err) < 0 || check(&ground, snapshot, revert->force, err) < 0)
        return -1;
    if (revert->only_check)
        return 0;
    if (record_lock(&ground, snapshot->id, err) < 0)
        return -1;
    /* Whoever started this may be gone, and have been told by now that nothing happened. From here on nothing stops it. */
    if (env->cancelled && env->cancelled(env->cancelled_arg))
        return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "%s: stopped before anything was changed", snapshot->volume.path);
    int r = make_copy(&ground, snapshot->id, revert->job, err);
    if (r == 0 && fault("provider.btrfs.revert.copied"))
        r = err_set(err, VSS_E_UNEXPECTED_PROVIDER_ERROR, NULL, "fault point before the exchange");
    if (r < 0 || exchange(&ground, snapshot->id, err) < 0) {
        remove_beside(&ground.place, snapshot->id, NULL); /* what stays is removed by the next one, or with the snapshot */
        return -1;
    }
    /* From here on it has happened, whatever comes. */
    syncfs(ground.place.fd);
    if (fault("provider.btrfs.revert.exchanged"))
        str_copy(left.text, sizeof(left.text), "fault point behind the exchange");
    else
        remove_beside(&ground.place, snapshot->id, &left);
    str_copy(revert->left, sizeof(revert->left), left.text);
    return 0;
}

/* --- afterwards --- */

int btrfs_reverted(const struct keeper *keeper, const struct provider_environment *env, const struct provider_snapshot *snapshot,
                   const char *job, struct err *err)
{
    char name[NAME_SIZE];
    struct err nothing;
    CLEANUP(ground_clear) struct ground ground = GROUND_NONE;
    if (keeper_open(keeper, env, snapshot, &ground.place, &ground.tree, err) < 0 || record_lock(&ground, snapshot->id, err) < 0 ||
        remove_beside(&ground.place, snapshot->id, err) < 0)
        return -1;
    name_of(snapshot->id, ".json", name);
    AUTO_JSON json_t *record = record_read(&ground.place, name);
    return str_eq(json_str(record, "job", NULL), job) && open_volume(snapshot, &ground, &nothing) == 0 &&
           uuid_of(ground.volume, snapshot->volume.path, ground.volume_uuid, NULL, &nothing) == 0 &&
           str_eq(ground.volume_uuid, json_str(record, "uuid", NULL));
}

int btrfs_revert_clear(const struct place *place, const char *id, struct err *err)
{
    char name[NAME_SIZE];
    name_of(id, ".json", name);
    if (remove_beside(place, id, err) < 0)
        return -1;
    return unlinkat(place->fd, name, 0) < 0 && errno != ENOENT
               ? err_errno(err, provider_hresult(errno), errno, NULL, "cannot remove %s/%s", place->path, name)
               : 0;
}
