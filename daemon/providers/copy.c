/* A plain copy in the staging directory: the last resort. It works on every file system, file by file, and takes as
 * much room and time as the data; writers must hold still all the while. */
#include <errno.h>
#include <libmount.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "providers/keeper.h"
#include "providers/tree_volume.h"

/* Measured: 10,000 files of 64 KiB in 2.6 s, 14,000 small files of 160 MB in all in 1.9 s: a share per file, one by
 * size. */
enum { FILE_US = 120, BYTES_PER_MS = 500 * 1024 };

static void copy_probe(const struct provider_environment *env, struct provider_availability *ret)
{
    *ret = (struct provider_availability){.available = env->staging && *env->staging};
    if (!ret->available)
        str_copy(ret->reason, sizeof(ret->reason), "no staging directory; set providers.copy.staging");
}

/* File systems that libmount counts as pseudo ones, but that hold files like any other. */
static bool holds_no_files(const char *fs_type)
{
    static const char *const real[] = {"tmpfs", "ramfs", "overlay", "rootfs"};
    for (size_t i = 0; i < ELEMENTS(real); i++)
        if (str_eq(fs_type, real[i]))
            return false;
    return mnt_fstype_is_pseudofs(fs_type);
}

static void copy_match(const struct provider_environment *env, const struct volume *volume, struct provider_match *ret)
{
    char staging[PATH_MAX];
    *ret = (struct provider_match){0};
    place_directory_of(volume->path, ret->volume);
    if (!place_staging_top(env, staging))
        str_copy(ret->reason, sizeof(ret->reason), "no staging directory; set providers.copy.staging");
    else if (holds_no_files(volume->fs_type))
        str_format(ret->reason, sizeof(ret->reason), "%s is a view of the kernel, not data", volume->fs_type);
    else if (path_beneath(ret->volume, staging))
        str_copy(ret->reason, sizeof(ret->reason), "it lies in the staging directory itself");
    else if (access(ret->volume, R_OK | X_OK) < 0)
        str_format(ret->reason, sizeof(ret->reason), "it cannot be read: %s", strerror(errno));
    else
        ret->score = 10;
}

static int copy_plan(const struct provider_environment *env, const struct volume *volume, struct provider_plan *ret,
                     struct err *err)
{
    struct tree_stats stats = {0};
    *ret = (struct provider_plan){.atomic = false, .freeze = FREEZE_NOT_NEEDED};
    if (tree_measure_volume(env, volume, &stats, err) < 0)
        return -1;
    json_decref(stats.nested);
    ret->bytes = stats.bytes;
    ret->window_ms = (stats.files + stats.directories) * FILE_US / 1000 + stats.bytes / BYTES_PER_MS + 1;
    return 0;
}

static int copy_locate(const struct provider_environment *env, const struct volume *volume, char ret[PATH_MAX],
                       char reason[256])
{
    (void)volume;
    if (place_staging(env, ret))
        return 0;
    str_copy(reason, 256, "no staging directory; set providers.copy.staging");
    return -1;
}

static int copy_make(const struct provider_environment *env, int volume_fd, const struct place *place,
                     struct provider_snapshot *snapshot, struct err *err)
{
    return tree_copy_volume(env, volume_fd, place, snapshot, false, err);
}

static const struct keeper keeper = {.provider = "copy",
                                     .fault_create = "provider.copy.create",
                                     .locate = copy_locate,
                                     .make = copy_make,
                                     .unmake = tree_unmake};

static int copy_prepare(const struct provider_environment *env, struct provider_snapshot *set, size_t n,
                        struct err *err)
{
    return keeper_prepare(&keeper, env, set, n, err);
}

static int copy_create(const struct provider_environment *env, struct provider_snapshot *set, size_t n, struct err *err)
{
    return keeper_create(&keeper, env, set, n, err);
}

/* Needs no volume: there is one staging directory. */
static int copy_list(const struct provider_environment *env, const struct volume *volumes, size_t n, json_t **ret,
                     struct err *err)
{
    static const struct volume any;
    (void)volumes;
    (void)n;
    return keeper_list(&keeper, env, &any, 1, ret, err);
}

static int copy_remove(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                       struct err *err)
{
    return keeper_remove(&keeper, env, snapshot, err);
}

static int copy_open(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                      struct err *err)
{
    return keeper_open_tree(&keeper, env, snapshot, err);
}

static int copy_expose(const struct provider_environment *env, const struct provider_snapshot *snapshot, int target,
                        struct err *err)
{
    return keeper_expose(&keeper, env, snapshot, target, err);
}

static int copy_unexpose(const struct provider_environment *env, const struct provider_snapshot *snapshot,
                          const char *path, struct err *err)
{
    return keeper_unexpose(&keeper, env, snapshot, path, err);
}

const struct provider provider_copy = {.abi = PROVIDER_ABI,
                                       .name = "copy",
                                       .title = "Plain copy into the staging directory",
                                       .storage = "plex",
                                       .by_file = true,
                                       .probe = copy_probe,
                                       .match = copy_match,
                                       .plan = copy_plan,
                                       .prepare = copy_prepare,
                                       .create = copy_create,
                                       .list = copy_list,
                                       .remove = copy_remove,
                                       .open = copy_open,
                                       .expose = copy_expose,
                                       .unexpose = copy_unexpose};
PROVIDER_EXPORT(copy);
