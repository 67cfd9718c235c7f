/* Read-only btrfs snapshots: one instant per subvolume, by the file system itself. Never FIFREEZE around it: the call
 * would hang until the thaw and leave an orphan (measured). Several subvolumes are several instants. */
#include <btrfsutil.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "providers/btrfs_revert.h"

/* Measured on loop devices: 6 ms idle, 57 ms (93 at worst) under fio. */
enum { WINDOW_MS = 60 };

static const char need_root[] = "a plain user can remove btrfs snapshots only where the file system is mounted with "
                                "user_subvol_rm_allowed; run as root or mount it so";

static int btrfs_error(enum btrfs_util_error code, int errnum, const char *path, struct err *err)
{
    return err_errno(err, provider_hresult(errnum), errnum, NULL, "%s: %s", path, btrfs_util_strerror(code));
}

static void endmntent_cleanup(FILE **file)
{
    if (*file)
        endmntent(*file);
}

/* Is a btrfs mounted (at mount_point, or anywhere when NULL) where users may remove subvolumes? */
static bool users_may_remove(const char *mount_point)
{
    char buffer[2 * PATH_MAX];
    struct mntent entry;
    bool found = false;
    CLEANUP(endmntent_cleanup) FILE *mounts = setmntent("/proc/self/mounts", "re");
    while (mounts && getmntent_r(mounts, &entry, buffer, sizeof(buffer)))
        if (str_eq(entry.mnt_type, "btrfs") && (!mount_point || str_eq(entry.mnt_dir, mount_point)))
            found = hasmntopt(&entry, "user_subvol_rm_allowed") != NULL || (!mount_point && found);
    return found;
}

static void btrfs_probe(const struct provider_environment *env, struct provider_availability *ret)
{
    *ret = (struct provider_availability){.available = true};
    if (env->root || users_may_remove(NULL))
        return;
    ret->available = false;
    str_copy(ret->reason, sizeof(ret->reason), need_root);
}

/* The subvolume that holds path, as far as this mount shows it. */
static bool find_subvolume(const struct volume *volume, char ret[PATH_MAX])
{
    place_directory_of(volume->path, ret);
    while (btrfs_util_is_subvolume(ret) != BTRFS_UTIL_OK) {
        if (str_eq(ret, volume->mount_point) || !path_beneath(ret, volume->mount_point))
            return false;
        char *slash = strrchr(ret, '/');
        slash[slash == ret ? 1 : 0] = '\0';
    }
    return true;
}

static void btrfs_match(const struct provider_environment *env, const struct volume *volume, struct provider_match *ret)
{
    struct statvfs fs;
    struct stat stat_of;
    char path[PATH_MAX];
    *ret = (struct provider_match){0};
    if (!str_eq(volume->fs_type, "btrfs"))
        str_format(ret->reason, sizeof(ret->reason), "%s is no btrfs", volume->fs_type);
    else if (!find_subvolume(volume, ret->volume))
        str_format(ret->reason, sizeof(ret->reason), "the subvolume's top is not visible beneath the mount %.150s",
                   volume->mount_point);
    else if (statvfs(ret->volume, &fs) == 0 && (fs.f_flag & ST_RDONLY))
        str_copy(ret->reason, sizeof(ret->reason), "the file system is mounted read-only");
    else if (!env->root && !users_may_remove(volume->mount_point))
        str_copy(ret->reason, sizeof(ret->reason), need_root);
    else if (!env->root && (stat(ret->volume, &stat_of) < 0 || stat_of.st_uid != geteuid()))
        str_format(ret->reason, sizeof(ret->reason), "the subvolume %.150s belongs to another user", ret->volume);
    else if (place_locate(env, volume, path, ret->reason) == 0)
        ret->score = 100;
}

static int btrfs_plan(const struct provider_environment *env, const struct volume *volume, struct provider_plan *ret,
                      struct err *err)
{
    (void)env;
    (void)volume;
    (void)err;
    *ret = (struct provider_plan){.atomic = true, .flushed = true, .bytes = 0, .window_ms = WINDOW_MS, .freeze = FREEZE_FORBIDDEN};
    return 0;
}

static int btrfs_make(const struct provider_environment *env, int volume_fd, const struct place *place,
                      struct provider_snapshot *snapshot, struct err *err)
{
    (void)env;
    enum btrfs_util_error code = btrfs_util_create_snapshot_fd2(volume_fd, place->fd, snapshot->id,
                                                                BTRFS_UTIL_CREATE_SNAPSHOT_READ_ONLY, NULL, NULL);
    return code ? btrfs_error(code, errno, snapshot->volume.path, err) : 0;
}

static int btrfs_unmake(const struct place *place, const char *id, struct err *err)
{
    struct stat stat_of;
    char path[PATH_MAX];
    if (btrfs_revert_clear(place, id, err) < 0)
        return -1;
    if (fstatat(place->fd, id, &stat_of, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
        return 0;
    if (!str_format(path, sizeof(path), "%s/%s", place->path, id))
        return err_set(err, E_INVALIDARG, NULL, "%s: the path is too long", place->path);
    if (geteuid() != 0) { /* the kernel lets a plain user remove a subvolume only while it is writable */
        AUTO_FD int fd = openat(place->fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0)
            btrfs_util_set_subvolume_read_only_fd(fd, false);
    }
    enum btrfs_util_error code = btrfs_util_delete_subvolume_fd(place->fd, id, 0);
    return code && errno != ENOENT ? btrfs_error(code, errno, path, err) : 0;
}

static const struct keeper keeper = {.provider = "btrfs",
                                     .fault_create = "provider.btrfs.create",
                                     .atomic = true,
                                     .sync = true,
                                     .locate = place_locate,
                                     .make = btrfs_make,
                                     .unmake = btrfs_unmake};

static int btrfs_prepare(const struct provider_environment *env, struct provider_snapshot *set, size_t n,
                         struct err *err)
{
    return keeper_prepare(&keeper, env, set, n, err);
}

static int btrfs_create(const struct provider_environment *env, struct provider_snapshot *set, size_t n,
                        struct err *err)
{
    return keeper_create(&keeper, env, set, n, err);
}

static int btrfs_list(const struct provider_environment *env, const struct volume *volumes, size_t n, json_t **ret,
                      struct err *err)
{
    return keeper_list(&keeper, env, volumes, n, ret, err);
}

static int btrfs_remove(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                        struct err *err)
{
    return keeper_remove(&keeper, env, snapshot, err);
}

static int btrfs_open(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                      struct err *err)
{
    return keeper_open_tree(&keeper, env, snapshot, err);
}

static int btrfs_expose(const struct provider_environment *env, const struct provider_snapshot *snapshot, int target,
                        struct err *err)
{
    return keeper_expose(&keeper, env, snapshot, target, err);
}

static int btrfs_unexpose(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                          const char *path, struct err *err)
{
    return keeper_unexpose(&keeper, env, snapshot, path, err);
}

static int revert(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                  struct provider_revert *wish, struct err *err)
{
    return btrfs_revert(&keeper, env, snapshot, wish, err);
}

static int reverted(const struct provider_environment *env, const struct provider_snapshot *snapshot, const char *job,
                    struct err *err)
{
    return btrfs_reverted(&keeper, env, snapshot, job, err);
}

const struct provider provider_btrfs = {.abi = PROVIDER_ABI,
                                        .name = "btrfs",
                                        .title = "btrfs read-only snapshots, atomic per subvolume",
                                        .storage = "differential",
                                        .probe = btrfs_probe,
                                        .match = btrfs_match,
                                        .plan = btrfs_plan,
                                        .prepare = btrfs_prepare,
                                        .create = btrfs_create,
                                        .list = btrfs_list,
                                        .remove = btrfs_remove,
                                        .open = btrfs_open,
                                        .expose = btrfs_expose,
                                        .unexpose = btrfs_unexpose,
                                        .revert = revert,
                                        .reverted = reverted};
PROVIDER_EXPORT(btrfs);
