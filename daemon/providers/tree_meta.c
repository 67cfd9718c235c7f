#include "providers/tree_meta.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

/* Other names are views that a file system makes of itself (btrfs.*, system.nfs4_acl, ceph.*): not data. */
static const struct {
    const char *prefix;
    bool privileged; /* only root may set it: left out without root */
} namespaces[] = {
    {"user.", false},   {"system.posix_acl_access", false}, {"system.posix_acl_default", false}, {"security.", true},
    {"trusted.", true},
};

/* Either a descriptor or a path beneath /proc/self/fd (which is not followed at its end). */
struct inode {
    int fd;
    char path[320];
};

static ssize_t attr_list(const struct inode *inode, char *list, size_t size)
{
    return inode->fd >= 0 ? flistxattr(inode->fd, list, size) : llistxattr(inode->path, list, size);
}

static ssize_t attr_get(const struct inode *inode, const char *name, void *value, size_t size)
{
    return inode->fd >= 0 ? fgetxattr(inode->fd, name, value, size) : lgetxattr(inode->path, name, value, size);
}

static int attr_set(const struct inode *inode, const char *name, const void *value, size_t size)
{
    return inode->fd >= 0 ? fsetxattr(inode->fd, name, value, size, 0) : lsetxattr(inode->path, name, value, size, 0);
}

static bool carried(const char *name, bool root)
{
    for (size_t i = 0; i < ELEMENTS(namespaces); i++)
        if (str_starts(name, namespaces[i].prefix))
            return root || !namespaces[i].privileged;
    return false;
}

static int copy_attribute(const struct inode *source, const struct inode *copy, const char *name)
{
    enum { VALUE_MAX = 65536 }; /* XATTR_SIZE_MAX */
    AUTO_FREE char *value = mem_new(VALUE_MAX);
    ssize_t size = attr_get(source, name, value, VALUE_MAX);
    if (size < 0)
        return errno == ENODATA ? 0 : errno; /* removed since it was listed */
    return attr_set(copy, name, value, (size_t)size) < 0 ? errno : 0;
}

static int copy_attributes(const struct inode *source, const struct inode *copy)
{
    enum { LIST_MAX = 65536 }; /* XATTR_LIST_MAX */
    ssize_t size = attr_list(source, NULL, 0);
    if (size <= 0)
        return size == 0 || errno == ENOTSUP ? 0 : errno;
    AUTO_FREE char *list = mem_new(LIST_MAX + 1);
    size = attr_list(source, list, LIST_MAX);
    if (size < 0)
        return errno;
    bool root = geteuid() == 0;
    for (const char *name = list; name < list + size; name += strlen(name) + 1) {
        int r = carried(name, root) ? copy_attribute(source, copy, name) : 0;
        if (r)
            return r;
    }
    return 0;
}

/* A plain user cannot give files away: the content matters more than the name of its owner. */
static int owner_result(int r)
{
    return r < 0 && !(errno == EPERM && geteuid() != 0) ? errno : 0;
}

static void times_of(const struct statx *stat, struct timespec ret[2])
{
    ret[0] = (struct timespec){.tv_sec = stat->stx_atime.tv_sec, .tv_nsec = stat->stx_atime.tv_nsec};
    ret[1] = (struct timespec){.tv_sec = stat->stx_mtime.tv_sec, .tv_nsec = stat->stx_mtime.tv_nsec};
}

int tree_meta_fd(int source_fd, int copy_fd, const struct statx *stat)
{
    struct timespec times[2];
    times_of(stat, times);
    int r = owner_result(fchown(copy_fd, stat->stx_uid, stat->stx_gid));
    if (!r)
        r = copy_attributes(&(struct inode){.fd = source_fd}, &(struct inode){.fd = copy_fd});
    if (!r && fchmod(copy_fd, stat->stx_mode & 07777) < 0)
        r = errno;
    if (!r && futimens(copy_fd, times) < 0)
        r = errno;
    return r;
}

int tree_meta_at(int source_dir, int copy_dir, const char *name, const struct statx *stat)
{
    struct timespec times[2];
    times_of(stat, times);
    int r = owner_result(fchownat(copy_dir, name, stat->stx_uid, stat->stx_gid, AT_SYMLINK_NOFOLLOW));
    if (!r && source_dir >= 0) {
        struct inode source = {.fd = -1}, copy = {.fd = -1};
        str_format(source.path, sizeof(source.path), "/proc/self/fd/%d/%s", source_dir, name);
        str_format(copy.path, sizeof(copy.path), "/proc/self/fd/%d/%s", copy_dir, name);
        r = copy_attributes(&source, &copy);
    }
    /* The copy is no symbolic link here and nobody else can reach it. */
    if (!r && !S_ISLNK(stat->stx_mode) && fchmodat(copy_dir, name, stat->stx_mode & 07777, 0) < 0)
        r = errno;
    if (!r && utimensat(copy_dir, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        r = errno;
    return r;
}
