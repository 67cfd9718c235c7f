#include "worker/volumes.h"

#include <errno.h>
#include <fcntl.h>
#include <libmount.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "providers/place.h"
#include "worker/mounts.h"

static int check_path(const char *path, struct err *err)
{
    char resolved[PATH_MAX];
    if (!path || !path_is_canonical(path))
        return err_set(err, E_INVALIDARG, "Give an absolute path without \".\", \"..\" and trailing slash.",
                       "%.500s is no canonical path", path ? path : "(none)");
    if (!realpath(path, resolved))
        return err_errno(err, errno == EACCES ? E_ACCESSDENIED : VSS_E_OBJECT_NOT_FOUND, errno, NULL, "%.500s", path);
    if (!str_eq(path, resolved))
        return err_set(err, E_INVALIDARG, "Give the path that it leads to.",
                       "%.300s leads through a symbolic link to %.300s", path, resolved);
    return 0;
}

/* What a freeze would freeze: the device; for btrfs, which shows a device number of its own per subvolume, the UUID. */
static void name_superblock(const char *path, const char *fs_type, dev_t device, char ret[64])
{
    struct btrfs_ioctl_fs_info_args info;
    AUTO_FD int fd = str_eq(fs_type, "btrfs") ? place_open_path(path, O_RDONLY) : -1;
    memset(&info, 0, sizeof(info));
    if (fd < 0 || ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0) {
        str_format(ret, 64, "%u:%u", major(device), minor(device));
        return;
    }
    const uint8_t *u = info.fsid;
    str_format(ret, 64, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3],
               u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static void fill_from_mount(struct libmnt_fs *fs, const char *path, struct volume *ret)
{
    const char *source = mnt_fs_get_srcpath(fs) ? mnt_fs_get_srcpath(fs) : mnt_fs_get_source(fs);
    *ret = (struct volume){0};
    str_copy(ret->path, sizeof(ret->path), path);
    str_copy(ret->requested, sizeof(ret->requested), path);
    str_copy(ret->mount_point, sizeof(ret->mount_point), mnt_fs_get_target(fs));
    str_copy(ret->source, sizeof(ret->source), source ? source : "none");
    str_copy(ret->fs_type, sizeof(ret->fs_type), mnt_fs_get_fstype(fs));
    name_superblock(path, ret->fs_type, mnt_fs_get_devno(fs), ret->superblock);
}

static int find_mount(const char *path, struct volume *ret, struct err *err)
{
    struct statx stat;
    AUTO_MOUNTS struct libmnt_table *mounts = mounts_read(err);
    if (!mounts)
        return -1;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, TREE_STATX, &stat) < 0)
        return err_errno(err, VSS_E_OBJECT_NOT_FOUND, errno, NULL, "%.500s", path);
    struct libmnt_fs *fs = mounts_by_id(mounts, stat.stx_mnt_id);
    if (!fs)
        return err_set(err, VSS_E_VOLUME_NOT_SUPPORTED, NULL, "%.500s lies on a mount that this process cannot see",
                       path);
    fill_from_mount(fs, path, ret);
    return 0;
}

/* One provider's word on one volume; the reason says why when the score is 0. */
static void ask(const struct provider *provider, const struct provider_environment *env, const struct volume *volume,
                struct provider_match *ret)
{
    struct provider_availability may = {0};
    *ret = (struct provider_match){0};
    provider->probe(env, &may);
    if (may.available)
        provider->match(env, volume, ret);
    else
        str_copy(ret->reason, sizeof(ret->reason), may.reason);
}

/* The best of all; NULL with every provider's reason in ret_why. */
static const struct provider *best_provider(const struct provider_environment *env, const struct volume *volume,
                                            struct provider_match *ret, char *ret_why, size_t size)
{
    const struct provider *best = NULL;
    *ret_why = '\0';
    for (size_t i = 0; providers_all[i]; i++) {
        struct provider_match match;
        ask(providers_all[i], env, volume, &match);
        if (match.score > (best ? ret->score : 0)) {
            best = providers_all[i];
            *ret = match;
        }
        size_t length = strlen(ret_why);
        if (match.score == 0)
            str_format(ret_why + length, size - length, "%s%s: %s", length ? "; " : "", providers_all[i]->name,
                       match.reason);
    }
    return best;
}

int volumes_resolve(const struct provider_environment *env, const char *path, const char *provider,
                    struct volume *ret_volume, const struct provider **ret_provider, struct err *err)
{
    struct provider_match match = {0};
    const struct provider *chosen = provider_by_name(provider);
    *ret_provider = NULL;
    if (check_path(path, err) < 0)
        return -1;
    if (provider && !chosen)
        return err_set(err, VSS_E_PROVIDER_NOT_REGISTERED, "GET /providers lists them.", "no provider is called %.100s",
                       provider);
    if (find_mount(path, ret_volume, err) < 0)
        return -1;
    if (chosen) {
        ask(chosen, env, ret_volume, &match);
        if (match.score == 0)
            return err_set(err, VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER,
                           "Leave the provider out to get the best one that fits.", "%.300s: provider %s: %s", path,
                           provider, match.reason);
    } else {
        char why[600];
        chosen = best_provider(env, ret_volume, &match, why, sizeof(why));
        if (!chosen)
            return err_set(err, VSS_E_VOLUME_NOT_SUPPORTED, NULL, "%.150s: %s", path, why);
    }
    str_copy(ret_volume->path, sizeof(ret_volume->path), match.volume);
    *ret_provider = chosen;
    return 0;
}

int volumes_list(const struct provider_environment *env, json_t **ret, struct err *err)
{
    AUTO_FREE struct volume *volumes = NULL;
    size_t n = 0;
    if (volumes_mounted(&volumes, &n, err) < 0)
        return -1;
    AUTO_JSON json_t *items = json_array();
    for (size_t i = 0; i < n; i++) {
        struct provider_match match = {0};
        char why[600], path[PATH_MAX] = "", mount_point[PATH_MAX] = "", source[PATH_MAX] = "";
        const struct provider *provider = best_provider(env, &volumes[i], &match, why, sizeof(why));
        tree_escape(path, sizeof(path), provider ? match.volume : volumes[i].path);
        tree_escape(mount_point, sizeof(mount_point), volumes[i].mount_point);
        tree_escape(source, sizeof(source), volumes[i].source);
        json_t *item = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s?, s:s}", "path", path, "mount_point", mount_point,
                                 "fs_type", volumes[i].fs_type, "source", source, "superblock", volumes[i].superblock,
                                 "provider", provider ? provider->name : NULL, "reason", why);
        if (item)
            json_add(items, item);
    }
    *ret = TAKE_PTR(items);
    return 0;
}

int volumes_mounted(struct volume **ret, size_t *ret_n, struct err *err)
{
    AUTO_MOUNTS struct libmnt_table *mounts = mounts_read(err);
    if (!mounts)
        return -1;
    struct volume *volumes = mem_new((size_t)(mnt_table_get_nents(mounts) + 1) * sizeof(*volumes));
    size_t n = 0;
    MOUNTS_EACH(mounts, fs)
    if (mounts_is_real(fs) && mounts_is_visible(fs))
        fill_from_mount(fs, mnt_fs_get_target(fs), &volumes[n++]);
    *ret = volumes;
    *ret_n = n;
    return 0;
}

static void view_nested(struct volumes_fact *fact)
{
    size_t n = json_array_size(fact->nested);
    fact->nested_paths = mem_new((n + 1) * sizeof(*fact->nested_paths));
    for (size_t i = 0; i < n; i++)
        fact->nested_paths[i] = json_string_value(json_array_get(fact->nested, i));
    fact->planner.nested = fact->nested_paths;
    fact->planner.n_nested = n;
}

int volumes_fact_init(const struct provider_environment *env, const char *path, const char *provider,
                      struct volumes_fact *ret, struct err *err)
{
    static const enum planner_freeze freeze[] = {[FREEZE_NOT_NEEDED] = PLANNER_FREEZE_NOT_NEEDED,
                                                 [FREEZE_FORBIDDEN] = PLANNER_FREEZE_FORBIDDEN,
                                                 [FREEZE_WANTED] = PLANNER_FREEZE_WANTED};
    struct err why = {0};
    struct provider_plan plan = {0};
    *ret = (struct volumes_fact){0};
    if (volumes_resolve(env, path, provider, &ret->volume, &ret->provider, &why) < 0) {
        if (why.hr != (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED &&
            why.hr != (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER) {
            if (err)
                *err = why;
            return -1;
        }
        str_copy(ret->reason, sizeof(ret->reason), why.text);
    } else if (ret->provider->plan(env, &ret->volume, &plan, err) < 0 ||
               volumes_nested(ret->volume.path, &ret->nested, err) < 0) {
        return -1;
    }
    ret->planner = (struct planner_volume){.path = ret->volume.path,
                                           .mount_point = ret->volume.mount_point,
                                           .fs_type = ret->volume.fs_type,
                                           .superblock = ret->volume.superblock,
                                           .provider = ret->provider ? ret->provider->name : NULL,
                                           .reason = ret->provider ? NULL : ret->reason,
                                           .atomic = plan.atomic,
                                           .freeze = freeze[plan.freeze],
                                           .window_ms = plan.window_ms};
    view_nested(ret);
    return 0;
}

void volumes_fact_clear(struct volumes_fact *fact)
{
    json_decref(fact->nested);
    free(fact->nested_paths);
    *fact = (struct volumes_fact){0};
}

void volumes_private_dir(const struct volume *volume, char ret[PATH_MAX])
{
    str_format(ret, PATH_MAX, "%s/%s", str_eq(volume->mount_point, "/") ? "" : volume->mount_point, PLACE_NAME);
}
