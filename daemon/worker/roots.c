/* GetRootAndLogicalPrefixPaths: what a path means to AddToSnapshotSet, and a name for it that does not depend on where it is mounted. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "providers/tree.h"
#include "worker/context.h"
#include "worker/mounts.h"
#include "worker/volumes.h"

static int canonical(const char *path, char ret[PATH_MAX], struct err *err)
{
    static const struct {
        int errnum;
        uint32_t hr;
    } rows[] = {{EACCES, E_ACCESSDENIED}, {ELOOP, E_INVALIDARG}, {ENAMETOOLONG, E_INVALIDARG}};
    if (realpath(path, ret))
        return 0;
    int errnum = errno;
    uint32_t hr = VSS_E_OBJECT_NOT_FOUND;
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (rows[i].errnum == errnum)
            hr = rows[i].hr;
    return err_errno(err, hr, errnum, "Name a path that exists on the host of the daemon and that it may read.", "%.500s", path);
}

/* Of a network file system: "host:/export", "//host/share". */
static bool is_remote(const char *source)
{
    return str_starts(source, "//") || strstr(source, ":/") != NULL;
}

/* FILE-SYSTEM:PATH-WITHIN-IT. The same for every mount, bind mounts too, through which the path can be reached. */
static int logical_prefix(const struct volume *volume, const char *path, char **ret, struct err *err)
{
    struct statx stat;
    AUTO_MOUNTS struct libmnt_table *mounts = mounts_read(err);
    if (!mounts)
        return -1;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, TREE_STATX, &stat) < 0)
        return err_errno(err, VSS_E_OBJECT_NOT_FOUND, errno, NULL, "%.500s", path);
    struct libmnt_fs *fs = mounts_by_id(mounts, stat.stx_mnt_id);
    if (!fs)
        return err_set(err, VSS_E_VOLUME_NOT_SUPPORTED, NULL, "%.500s lies on a mount that this process cannot see", path);
    const char *target = mnt_fs_get_target(fs), *root = mnt_fs_get_root(fs);
    const char *below = str_eq(target, "/") ? path : path + strlen(target);
    bool top = !root || str_eq(root, "/");
    bool empty = str_eq(below, "/") || !*below;
    *ret = str_new("%s:%s%s", is_remote(volume->source) ? volume->source : volume->superblock, top ? "" : root,
                   empty ? (top ? "/" : "") : below);
    return 0;
}

int operation_root(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    struct provider_environment env = worker_environment(worker);
    struct volume volume;
    const struct provider *provider = NULL;
    char path[PATH_MAX];
    struct err why = {0};
    if (canonical(json_str(args, "path", ""), path, err) < 0)
        return -1;
    if (volumes_resolve(&env, path, NULL, &volume, &provider, &why) < 0 && why.hr != (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED) {
        *err = why;
        return -1;
    }
    const char *root = provider ? volume.path : volume.mount_point;
    AUTO_FREE char *prefix = NULL;
    if (!volume.mount_point[0]) { /* on a mount that nobody here can see */
        *err = why;
        return -1;
    }
    if (logical_prefix(&volume, root, &prefix, err) < 0)
        return -1;
    json_put(result, "path", json_text(path));
    json_put(result, "root_path", json_text(root));
    json_put(result, "logical_prefix", json_text(prefix));
    json_put(result, "mount_point", json_text(volume.mount_point));
    json_put(result, "fs_type", json_text(volume.fs_type));
    json_put(result, "superblock", json_text(volume.superblock));
    volumes_put_space(result, &volume);
    json_put(result, "provider", provider ? json_string(provider->name) : json_null());
    json_put(result, "reason", provider ? json_null() : json_text(why.text));
    return 0;
}
