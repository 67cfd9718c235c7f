#include "worker/volumes.h"

#include <errno.h>
#include <fcntl.h>
#include <libmount.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "base/superblock.h"
#include "base/utf8.h"
#include "providers/place.h"
#include "worker/btrfs_room.h"
#include "worker/mounts.h"

static int check_path(const char *path, struct err *err)
{
    char resolved[PATH_MAX];
    if (!path || !path_is_canonical(path))
        return err_set(err, E_INVALIDARG, "Give an absolute path without \".\", \"..\" and trailing slash.",
                       "%.500s is no canonical path", path ? path : "(none)");
    if (!realpath(path, resolved))
        return err_errno(err, errno == EACCES ? E_ACCESSDENIED : VSS_E_OBJECT_NOT_FOUND, errno,
                         "Name a path that exists on the host of the daemon and that it may read.", "%.500s", path);
    if (!str_eq(path, resolved))
        return err_set(err, E_INVALIDARG, "Give the path that it leads to.",
                       "%.300s leads through a symbolic link to %.300s", path, resolved);
    return 0;
}

/* Only btrfs needs to be asked (base/superblock.h): opening a directory on a dead network file system could hang. */
static void name_superblock(const char *path, const char *fs_type, dev_t device, char ret[SUPERBLOCK_NAME_SIZE])
{
    AUTO_FD int fd = str_eq(fs_type, "btrfs") ? place_open_path(path, O_RDONLY) : -1;
    if (fd < 0 || !superblock_name(fd, ret))
        str_format(ret, SUPERBLOCK_NAME_SIZE, "%u:%u", major(device), minor(device));
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
    if (env->storage && !str_eq(env->storage, provider->storage))
        str_format(ret->reason, sizeof(ret->reason), "its snapshots are not %s, as the session's context wants them", env->storage);
    else if (may.available)
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
        if (providers_all[i]->by_name)
            continue;
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

char *volumes_name_in(const char *volume, const char *path)
{
    size_t length = str_eq(volume, "/") ? 0 : strlen(volume);
    const char *rest = path_beneath(path, volume) && path[length] == '/' ? path + length + 1 : "";
    return str_new("%.*s", (int)strcspn(rest, "/"), rest);
}

void volumes_put_space(json_t *item, const struct volume *volume)
{
    static const char *const elsewhere[] = {"nfs", "cifs", "smb", "fuse", "ceph", "9p", "afs", "gfs", "ocfs"};
    struct statvfs space;
    bool asked = true;
    for (size_t i = 0; i < ELEMENTS(elsewhere); i++)
        asked = asked && !str_starts(volume->fs_type, elsewhere[i]);
    asked = asked && statvfs(volume->mount_point, &space) == 0;
    json_put(item, "bytes", asked ? json_integer((json_int_t)(space.f_blocks * space.f_frsize)) : json_null());
    /* Coarse: what changes with each write would make every answer another one, and its ETag worth nothing. */
    uint64_t usable = asked ? space.f_blocks - space.f_bfree + space.f_bavail : 0;
    json_put(item, "free_percent", usable ? json_integer((json_int_t)(100 * space.f_bavail / usable)) : json_null());
    int metadata = str_eq(volume->fs_type, "btrfs") ? btrfs_metadata_free_percent(volume->mount_point) : -1;
    json_put(item, "metadata_free_percent", metadata >= 0 ? json_integer(metadata) : json_null());
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
        utf8_escape(path, sizeof(path), provider ? match.volume : volumes[i].path);
        utf8_escape(mount_point, sizeof(mount_point), volumes[i].mount_point);
        utf8_escape(source, sizeof(source), volumes[i].source);
        json_t *item = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s?, s:s}", "path", path, "mount_point", mount_point,
                                 "fs_type", volumes[i].fs_type, "source", source, "superblock", volumes[i].superblock,
                                 "provider", provider ? provider->name : NULL, "reason", why);
        if (item)
            volumes_put_space(item, &volumes[i]);
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

static bool in_memory(int fd)
{
    struct statfs stat;
    return fstatfs(fd, &stat) == 0 && (stat.f_type == TMPFS_MAGIC || stat.f_type == RAMFS_MAGIC);
}

/* A frozen superblock is captured as a whole, its subvolumes and bind mounts included; what lies in memory no disk outside could hold. */
static void drop_captured(struct volumes_fact *fact)
{
    for (size_t i = json_array_size(fact->nested); i-- > 0;) {
        char name[SUPERBLOCK_NAME_SIZE];
        AUTO_FD int fd = place_open_path(json_string_value(json_array_get(fact->nested, i)), O_RDONLY | O_DIRECTORY);
        if (fd >= 0 && (in_memory(fd) || (superblock_name(fd, name) && str_eq(name, fact->volume.superblock))))
            json_array_remove(fact->nested, i);
    }
}

/* Where the provider has to write within the window: on the volume's own file system, or, when it copies, in staging. */
static void find_writes(const struct provider_environment *env, struct volumes_fact *fact, int freeze)
{
    char staging[PATH_MAX];
    if (freeze == FREEZE_FORBIDDEN)
        str_copy(fact->writes, sizeof(fact->writes), fact->volume.superblock);
    if (freeze != FREEZE_NOT_NEEDED || !place_staging_top(env, staging))
        return;
    AUTO_FD int fd = place_open_path(staging, O_RDONLY | O_DIRECTORY);
    if (fd >= 0)
        superblock_name(fd, fact->writes);
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
                                                 [FREEZE_WANTED] = PLANNER_FREEZE_WANTED,
                                                 [FREEZE_LENT] = PLANNER_FREEZE_WANTED};
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
        size_t named = strlen(ret->volume.path); /* who tells the reason names the path itself */
        bool repeats = str_starts(why.text, ret->volume.path) && str_starts(why.text + named, ": ");
        str_copy(ret->reason, sizeof(ret->reason), why.text + (repeats ? named + 2 : 0));
    } else if (ret->provider->plan(env, &ret->volume, &plan, err) < 0 ||
               volumes_nested(ret->volume.path, &ret->nested, err) < 0) {
        return -1;
    }
    if (ret->provider)
        find_writes(env, ret, (int)plan.freeze);
    if (plan.freeze == FREEZE_WANTED)
        drop_captured(ret);
    if (plan.freeze == FREEZE_LENT)
        json_array_clear(ret->nested); /* which disks are in it, the outside knows */
    ret->planner = (struct planner_volume){.path = ret->volume.path,
                                           .mount_point = ret->volume.mount_point,
                                           .fs_type = ret->volume.fs_type,
                                           .superblock = ret->volume.superblock,
                                           .provider = ret->provider ? ret->provider->name : NULL,
                                           .reason = ret->provider ? NULL : ret->reason,
                                           .atomic = plan.atomic,
                                           .freeze = freeze[plan.freeze],
                                           .window_ms = plan.window_ms,
                                           .writes = ret->writes[0] ? ret->writes : NULL};
    view_nested(ret);
    return 0;
}

int volumes_fact_narrow(const struct provider_environment *env, json_t *only, struct volumes_fact *fact, struct err *err)
{
    struct provider_plan plan = {0};
    fact->volume.only = fact->only = only;
    if (fact->provider->plan(env, &fact->volume, &plan, err) < 0)
        return -1;
    fact->planner.window_ms = plan.window_ms;
    /* What is mounted beside them is not asked for; a file that is a mount itself (a container's /etc/hosts) is. */
    size_t kept = 0;
    for (size_t i = 0; i < fact->planner.n_nested; i++) {
        AUTO_FREE char *name = volumes_name_in(fact->volume.path, fact->nested_paths[i]);
        if (json_has_string(only, name))
            fact->nested_paths[kept++] = fact->nested_paths[i];
    }
    fact->planner.n_nested = kept;
    return 0;
}

void volumes_fact_clear(struct volumes_fact *fact)
{
    json_decref(fact->only);
    json_decref(fact->nested);
    free(fact->nested_paths);
    *fact = (struct volumes_fact){0};
}

void volumes_private_dir(const struct volume *volume, char ret[PATH_MAX])
{
    str_format(ret, PATH_MAX, "%s/%s", str_eq(volume->mount_point, "/") ? "" : volume->mount_point, PLACE_NAME);
}
