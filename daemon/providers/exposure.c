#include "providers/exposure.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "providers/tree_walk.h"

/* By descriptors alone: nobody can slip another directory in between what was checked and what is mounted. */
int exposure_attach(int tree_fd, int target_fd, const char *name, struct err *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    AUTO_FD int clone = open_tree(tree_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (clone < 0 || mount_setattr(clone, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ||
        move_mount(clone, "", target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return err_errno(err, errno == EPERM ? E_ACCESSDENIED : VSS_E_UNEXPECTED_PROVIDER_ERROR, errno, "Mounting needs root.",
                         "cannot mount the snapshot %s", name);
    return 0;
}

bool exposure_is_mount(int fd)
{
    struct statx at;
    return statx(fd, "", AT_EMPTY_PATH, TREE_STATX, &at) == 0 && (at.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

bool exposure_is(int fd, int tree_fd)
{
    struct statx at, tree;
    if (statx(fd, "", AT_EMPTY_PATH, TREE_STATX, &at) < 0 || statx(tree_fd, "", AT_EMPTY_PATH, TREE_STATX, &tree) < 0)
        return false;
    return (at.stx_attributes & STATX_ATTR_MOUNT_ROOT) && at.stx_ino == tree.stx_ino && at.stx_dev_major == tree.stx_dev_major &&
           at.stx_dev_minor == tree.stx_dev_minor && at.stx_mnt_id != tree.stx_mnt_id;
}

int exposure_detach(int fd, const char *path, struct err *err)
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (umount2(link, MNT_DETACH) < 0)
        return err_errno(err, errno == EPERM ? E_ACCESSDENIED : VSS_E_UNEXPECTED_PROVIDER_ERROR, errno, NULL, "cannot unmount %s", path);
    return 0;
}
