#include "worker/btrfs_room.h"

#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "providers/place.h"

enum { DEVICES_MAX = 1024 };

/* What no block group has yet, of all devices. -1: not known. */
static int64_t unallocated(int fd)
{
    struct btrfs_ioctl_fs_info_args info;
    int64_t sum = 0;
    memset(&info, 0, sizeof(info));
    if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) < 0)
        return -1;
    for (uint64_t id = 0, found = 0; found < info.num_devices && id <= info.max_id && id < DEVICES_MAX; id++) {
        struct btrfs_ioctl_dev_info_args device;
        memset(&device, 0, sizeof(device));
        device.devid = id;
        if (ioctl(fd, BTRFS_IOC_DEV_INFO, &device) < 0)
            continue; /* ids have gaps */
        sum += (int64_t)(device.total_bytes - device.bytes_used);
        found++;
    }
    return sum;
}

/* How many times each byte is kept. */
static int64_t copies(uint64_t flags)
{
    static const struct {
        uint64_t flag;
        int copies;
    } rows[] = {{BTRFS_BLOCK_GROUP_DUP, 2}, {BTRFS_BLOCK_GROUP_RAID1, 2}, {BTRFS_BLOCK_GROUP_RAID10, 2}, {BTRFS_BLOCK_GROUP_RAID1C3, 3}, {BTRFS_BLOCK_GROUP_RAID1C4, 4}};
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (flags & rows[i].flag)
            return rows[i].copies;
    return 1;
}

/* The caller's; NULL: not known. */
static struct btrfs_ioctl_space_args *spaces(int fd)
{
    struct btrfs_ioctl_space_args count;
    memset(&count, 0, sizeof(count));
    if (ioctl(fd, BTRFS_IOC_SPACE_INFO, &count) < 0)
        return NULL;
    size_t slots = (size_t)count.total_spaces + 2; /* one may be added meanwhile */
    struct btrfs_ioctl_space_args *all = mem_new(sizeof(*all) + slots * sizeof(all->spaces[0]));
    all->space_slots = slots;
    if (ioctl(fd, BTRFS_IOC_SPACE_INFO, all) == 0)
        return all;
    free(all);
    return NULL;
}

int btrfs_metadata_free_percent(const char *mount_point)
{
    AUTO_FD int fd = place_open_path(mount_point, O_RDONLY | O_DIRECTORY);
    AUTO_FREE struct btrfs_ioctl_space_args *all = fd < 0 ? NULL : spaces(fd);
    int64_t spare = all ? unallocated(fd) : -1, given = 0, used = 0, reserved = 0, times = 1;
    for (uint64_t i = 0; all && i < all->total_spaces; i++) {
        const struct btrfs_ioctl_space_info *space = &all->spaces[i];
        if (space->flags & BTRFS_SPACE_INFO_GLOBAL_RSV) {
            reserved += (int64_t)space->total_bytes; /* kept back for deleting when nothing else is left */
        } else if (space->flags & BTRFS_BLOCK_GROUP_METADATA) {
            given += (int64_t)space->total_bytes;
            used += (int64_t)space->used_bytes;
            times = copies(space->flags);
        }
    }
    int64_t whole = spare < 0 || given == 0 ? 0 : given + spare / times, left = whole - used - reserved;
    return whole <= 0 ? -1 : left <= 0 ? 0 : (int)(100 * left / whole);
}
