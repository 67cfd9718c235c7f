#include "worker/mounts.h"

#include <btrfsutil.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "base/utf8.h"
#include "providers/place.h"
#include "providers/tree.h"
#include "worker/volumes.h"

struct libmnt_table *mounts_read(struct err *err)
{
    struct libmnt_table *table = mnt_new_table();
    int r = table ? mnt_table_parse_mtab(table, "/proc/self/mountinfo") : -ENOMEM;
    if (r == 0)
        return table;
    mnt_unref_table(table);
    err_errno(err, VSS_E_UNEXPECTED, r < 0 ? -r : EIO, NULL, "cannot read /proc/self/mountinfo");
    return NULL;
}

void mounts_cleanup(struct libmnt_table **table)
{
    if (*table)
        mnt_unref_table(*table);
}

struct libmnt_fs *mounts_next(struct libmnt_table *table, struct libmnt_fs *fs)
{
    struct libmnt_fs *next = NULL;
    struct libmnt_iter *iter = mnt_new_iter(MNT_ITER_FORWARD);
    if (iter && fs && mnt_table_set_iter(table, iter, fs) == 0)
        mnt_table_next_fs(table, iter, &next); /* fs itself */
    if (!iter || mnt_table_next_fs(table, iter, &next) != 0)
        next = NULL;
    mnt_free_iter(iter);
    return next;
}

struct libmnt_fs *mounts_by_id(struct libmnt_table *table, uint64_t mount_id)
{
    MOUNTS_EACH(table, fs)
    if ((uint64_t)mnt_fs_get_id(fs) == mount_id)
        return fs;
    return NULL;
}

/* What ExposeSnapshot mounted: its data is somebody else's, as it was. */
static bool is_exposed(struct libmnt_fs *fs)
{
    const char *root = mnt_fs_get_root(fs);
    return root && (strstr(root, "/" PLACE_NAME "/") != NULL);
}

bool mounts_is_real(struct libmnt_fs *fs)
{
    const char *type = mnt_fs_get_fstype(fs);
    if (is_exposed(fs))
        return false;
    return type && (str_eq(type, "overlay") || !mnt_fstype_is_pseudofs(type));
}

/* tmpfs, too, holds what applications put there; proc, sysfs and their like hold nothing that could be missing. */
static bool holds_files(struct libmnt_fs *fs)
{
    const char *type = mnt_fs_get_fstype(fs);
    return mounts_is_real(fs) || (!is_exposed(fs) && (str_eq(type, "tmpfs") || str_eq(type, "ramfs")));
}

bool mounts_is_visible(struct libmnt_fs *fs)
{
    struct statx stat;
    return statx(AT_FDCWD, mnt_fs_get_target(fs), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, TREE_STATX, &stat) == 0 &&
           stat.stx_mnt_id == (uint64_t)mnt_fs_get_id(fs);
}

/* Appends path unless it is the root itself, not beneath it, one of ours, or there already. */
static void add_nested(json_t *paths, const char *root, const char *path)
{
    char escaped[PATH_MAX] = "";
    if (str_eq(path, root) || !path_beneath(path, root) || strstr(path, "/" PLACE_NAME "/"))
        return;
    utf8_escape(escaped, sizeof(escaped), path);
    for (size_t i = 0; i < json_array_size(paths); i++)
        if (str_eq(json_string_value(json_array_get(paths, i)), escaped))
            return;
    json_add(paths, json_string(escaped));
}

static void iterator_cleanup(struct btrfs_util_subvolume_iterator **iterator)
{
    if (*iterator)
        btrfs_util_destroy_subvolume_iterator(*iterator);
}

static int btrfs_failed(enum btrfs_util_error code, const char *path, struct err *err)
{
    return err_errno(err, provider_hresult(errno), errno, NULL, "cannot list the subvolumes beneath %s: %s", path,
                     btrfs_util_strerror(code));
}

/* Subvolumes beneath a path of a btrfs. top: the subvolume or mount directory from which the iteration starts. */
static int add_subvolumes(json_t *paths, const char *root, const char *top, struct err *err)
{
    CLEANUP(iterator_cleanup) struct btrfs_util_subvolume_iterator *iterator = NULL;
    enum btrfs_util_error code = btrfs_util_create_subvolume_iterator(top, 0, 0, &iterator);
    if (code)
        return btrfs_failed(code, top, err);
    for (;;) {
        AUTO_FREE char *relative = NULL;
        code = btrfs_util_subvolume_iterator_next(iterator, &relative, NULL);
        if (code == BTRFS_UTIL_ERROR_STOP_ITERATION)
            return 0;
        if (code)
            return btrfs_failed(code, top, err);
        AUTO_FREE char *path = str_new("%s/%s", str_eq(top, "/") ? "" : top, relative);
        add_nested(paths, root, path);
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static json_t *sorted(const json_t *paths)
{
    size_t n = json_array_size(paths);
    AUTO_FREE const char **all = mem_new((n + 1) * sizeof(*all));
    json_t *ret = json_array();
    for (size_t i = 0; i < n; i++)
        all[i] = json_string_value(json_array_get(paths, i));
    qsort(all, n, sizeof(*all), compare);
    for (size_t i = 0; i < n; i++)
        json_add(ret, json_string(all[i]));
    return ret;
}

/* The subvolume that holds path, or its mount's directory where that is the top of nothing. */
static void subvolume_of(const char *path, const char *mount_point, char ret[PATH_MAX])
{
    str_copy(ret, PATH_MAX, path);
    while (btrfs_util_is_subvolume(ret) != BTRFS_UTIL_OK && !str_eq(ret, mount_point) && strlen(ret) > 1) {
        char *slash = strrchr(ret, '/');
        slash[slash == ret ? 1 : 0] = '\0';
    }
}

/* A mount that shows only a part of a subvolume: libbtrfsutil cannot name what lies in it, so look. */
static int add_by_walk(json_t *paths, const char *root, struct err *err)
{
    struct tree_stats stats = {0};
    AUTO_FD int fd = place_open_path(root, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return errno == ENOTDIR ? 0 : err_errno(err, provider_hresult(errno), errno, NULL, "cannot open %s", root);
    int r = tree_measure(&(struct tree_job){0}, fd, root, &stats, err);
    AUTO_JSON json_t *nested = stats.nested;
    for (size_t i = 0; r == 0 && i < json_array_size(nested); i++)
        add_nested(paths, root, json_string_value(json_array_get(nested, i)));
    return r;
}

int volumes_nested(const char *path, json_t **ret, struct err *err)
{
    struct statx stat;
    char top[PATH_MAX];
    AUTO_JSON json_t *paths = json_array();
    AUTO_MOUNTS struct libmnt_table *mounts = mounts_read(err);
    if (!mounts)
        return -1;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, TREE_STATX, &stat) < 0)
        return err_errno(err, VSS_E_OBJECT_NOT_FOUND, errno, NULL, "%.500s", path);
    MOUNTS_EACH(mounts, fs)
    if (holds_files(fs))
        add_nested(paths, path, mnt_fs_get_target(fs));
    struct libmnt_fs *own = mounts_by_id(mounts, stat.stx_mnt_id);
    if (own && str_eq(mnt_fs_get_fstype(own), "btrfs")) {
        subvolume_of(path, mnt_fs_get_target(own), top);
        bool whole = btrfs_util_is_subvolume(top) == BTRFS_UTIL_OK;
        if ((whole ? add_subvolumes(paths, path, top, err) : add_by_walk(paths, path, err)) < 0)
            return -1;
    }
    *ret = sorted(paths);
    return 0;
}
