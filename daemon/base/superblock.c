#include "base/superblock.h"

#include <linux/btrfs.h>
#include <linux/magic.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "base/str.h"

static bool btrfs_uuid(int fd, char ret[SUPERBLOCK_NAME_SIZE])
{
    struct btrfs_ioctl_fs_info_args info;
    memset(&info, 0, sizeof(info));
    if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0)
        return false;
    const uint8_t *u = info.fsid;
    return str_format(ret, SUPERBLOCK_NAME_SIZE, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                      u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
                      u[15]);
}

bool superblock_name(int fd, char ret[SUPERBLOCK_NAME_SIZE])
{
    struct statfs fs;
    struct stat stat;
    ret[0] = '\0';
    if (fstatfs(fd, &fs) < 0 || fstat(fd, &stat) < 0)
        return false;
    if (fs.f_type == BTRFS_SUPER_MAGIC && btrfs_uuid(fd, ret))
        return true;
    return str_format(ret, SUPERBLOCK_NAME_SIZE, "%u:%u", major(stat.st_dev), minor(stat.st_dev));
}
