#include "providers/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

void place_close(struct place *place)
{
    if (place->fd >= 0)
        close(place->fd);
    place->fd = -1;
}

int place_open_path(const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NONBLOCK),
                           .resolve = RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

static bool child_path(const char *directory, const char *name, char ret[PATH_MAX])
{
    return str_format(ret, PATH_MAX, "%s/%s", str_eq(directory, "/") ? "" : directory, name);
}

bool place_staging_top(const struct provider_environment *env, char ret[PATH_MAX])
{
    char *resolved = env->staging && *env->staging ? realpath(env->staging, ret) : NULL;
    if (!resolved && env->staging) /* will be created; a path through a symbolic link is then refused */
        str_copy(ret, PATH_MAX, env->staging);
    return env->staging && *env->staging;
}

bool place_staging(const struct provider_environment *env, char ret[PATH_MAX])
{
    char top[PATH_MAX];
    return place_staging_top(env, top) && child_path(top, PLACE_NAME, ret);
}

int place_locate(const struct provider_environment *env, const struct volume *volume, char ret[PATH_MAX],
                 char reason[256])
{
    struct stat top, own;
    char staging[PATH_MAX];
    if (!child_path(volume->mount_point, PLACE_NAME, ret)) {
        str_copy(reason, 256, "the path is too long");
        return -1;
    }
    if (env->root || access(ret, W_OK | X_OK) == 0 || access(volume->mount_point, W_OK | X_OK) == 0)
        return 0;
    if (place_staging_top(env, staging) && stat(volume->path, &top) == 0 && stat(staging, &own) == 0 &&
        top.st_dev == own.st_dev)
        return child_path(staging, PLACE_NAME, ret) ? 0 : -1;
    str_format(reason, 256,
               "%.120s is not writable without root, and the staging directory lies on another file system",
               volume->mount_point);
    return -1;
}

static int create_place(const char *path, struct err *err)
{
    char parent[PATH_MAX];
    int made = mkdir(path, 0700);
    if (made < 0 && errno == ENOENT) {
        str_copy(parent, sizeof(parent), path);
        *strrchr(parent, '/') = '\0';
        made = mkdir(parent, 0700) < 0 ? -1 : mkdir(path, 0700);
    }
    if (made < 0)
        return errno == EEXIST ? 0
                               : err_errno(err, provider_hresult(errno), errno,
                                           "The daemon keeps its snapshots there and must be able to create it.",
                                           "cannot create %s", path);
    /* Default ACLs that it inherits would change every file copied into it. */
    AUTO_FD int fd = place_open_path(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot open %s", path);
    fremovexattr(fd, "system.posix_acl_default");
    fremovexattr(fd, "system.posix_acl_access");
    if (fchmod(fd, 0700) < 0)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot close %s to others", path);
    return 0;
}

int place_open(const char *path, bool create, struct place *ret, struct err *err)
{
    struct statx stat;
    ret->fd = -1;
    str_copy(ret->path, sizeof(ret->path), path);
    if (create && create_place(path, err) < 0)
        return -1;
    AUTO_FD int fd = place_open_path(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        if (!create && errno == ENOENT)
            return 0;
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot open %s", path);
    }
    if (statx(fd, "", AT_EMPTY_PATH, TREE_STATX, &stat) < 0)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot stat %s", path);
    if (stat.stx_uid != geteuid() || (stat.stx_mode & 022))
        return err_set(err, VSS_E_PROVIDER_VETO, "Remove it, or give it back to the daemon's user with mode 0700.",
                       "%s belongs to another user or can be written by others", path);
    ret->identity =
        (struct tree_identity){.ino = stat.stx_ino, .dev_major = stat.stx_dev_major, .dev_minor = stat.stx_dev_minor};
    ret->fd = TAKE_FD(fd);
    return 0;
}

static size_t add_skip(const char *path, struct tree_identity *ret)
{
    struct statx stat;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, TREE_STATX, &stat) < 0 || !S_ISDIR(stat.stx_mode) ||
        stat.stx_uid != geteuid()) /* what others call so is their data */
        return 0;
    *ret =
        (struct tree_identity){.ino = stat.stx_ino, .dev_major = stat.stx_dev_major, .dev_minor = stat.stx_dev_minor};
    return 1;
}

size_t place_skips(const struct provider_environment *env, const struct volume *volume, struct tree_identity ret[3])
{
    char path[PATH_MAX];
    size_t n = 0;
    if (child_path(volume->mount_point, PLACE_NAME, path))
        n += add_skip(path, &ret[n]);
    if (place_staging_top(env, path))
        n += add_skip(path, &ret[n]);
    return n;
}

void place_directory_of(const char *path, char ret[PATH_MAX])
{
    struct stat stat;
    str_copy(ret, PATH_MAX, path);
    if (lstat(path, &stat) == 0 && S_ISDIR(stat.st_mode))
        return;
    char *slash = strrchr(ret, '/');
    if (slash)
        slash[slash == ret ? 1 : 0] = '\0';
}
