#include "worker/superblocks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libmount.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "base/superblock.h"
#include "providers/place.h"
#include "providers/provider.h"
#include "worker/mounts.h"
#include "worker/volumes.h"

/* Devices on devices (partition, device mapper, loop): more is a cycle. */
enum { DEVICES_MAX = 16 };

/* --- what stands on what --- */

static bool name_of_path(const char *path, char ret[SUPERBLOCK_NAME_SIZE])
{
    AUTO_FD int fd = place_open_path(path, O_RDONLY | O_DIRECTORY);
    return fd >= 0 && superblock_name(fd, ret);
}

static bool read_text(const char *path, char *ret, size_t size)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, ret, size - 1);
    if (got <= 0)
        return false;
    ret[got] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    return true;
}

static bool read_device(const char *path, dev_t *ret)
{
    char text[64];
    unsigned major_part, minor_part;
    if (!read_text(path, text, sizeof(text)) || sscanf(text, "%u:%u", &major_part, &minor_part) != 2)
        return false;
    *ret = makedev(major_part, minor_part);
    return true;
}

/* The file system that holds the image of a loop device; sysfs names the image as the one who set it up saw it. */
static bool under_loop(const char *top, char ret[SUPERBLOCK_NAME_SIZE])
{
    char path[PATH_MAX], image[PATH_MAX];
    str_format(path, sizeof(path), "%s/loop/backing_file", top);
    if (!read_text(path, image, sizeof(image)))
        return false;
    place_directory_of(image, path);
    return name_of_path(path, ret);
}

static bool under_device(dev_t device, unsigned left, char ret[SUPERBLOCK_NAME_SIZE]);

static bool under_partition(const char *top, unsigned left, char ret[SUPERBLOCK_NAME_SIZE])
{
    char path[PATH_MAX];
    dev_t device;
    str_format(path, sizeof(path), "%s/partition", top);
    if (access(path, F_OK) < 0)
        return false;
    str_format(path, sizeof(path), "%s/../dev", top);
    return read_device(path, &device) && under_device(device, left - 1, ret);
}

static bool under_slaves(const char *top, unsigned left, char ret[SUPERBLOCK_NAME_SIZE])
{
    char path[PATH_MAX];
    dev_t device;
    bool found = false;
    str_format(path, sizeof(path), "%s/slaves", top);
    DIR *slaves = opendir(path);
    const struct dirent *entry;
    while (slaves && !found && (entry = readdir(slaves))) {
        str_format(path, sizeof(path), "%s/slaves/%s/dev", top, entry->d_name);
        found = entry->d_name[0] != '.' && read_device(path, &device) && under_device(device, left - 1, ret);
    }
    if (slaves)
        closedir(slaves);
    return found;
}

static bool under_device(dev_t device, unsigned left, char ret[SUPERBLOCK_NAME_SIZE])
{
    char top[64];
    if (left == 0)
        return false;
    str_format(top, sizeof(top), "/sys/dev/block/%u:%u", major(device), minor(device));
    return under_loop(top, ret) || under_partition(top, left, ret) || under_slaves(top, left, ret);
}

static bool under_overlay(const char *mount_point, char ret[SUPERBLOCK_NAME_SIZE])
{
    AUTO_MOUNTS struct libmnt_table *mounts = mounts_read(NULL);
    struct libmnt_fs *fs = mounts ? mnt_table_find_target(mounts, mount_point, MNT_ITER_BACKWARD) : NULL;
    char *value = NULL, upper[PATH_MAX];
    size_t size = 0;
    if (!fs || mnt_fs_get_option(fs, "upperdir", &value, &size) != 0)
        return false;
    str_format(upper, sizeof(upper), "%.*s", (int)size, value);
    return name_of_path(upper, ret);
}

static char *stands_on(const struct volume *mount)
{
    char name[SUPERBLOCK_NAME_SIZE] = "";
    struct stat source;
    bool found = false;
    if (str_eq(mount->fs_type, "overlay"))
        found = under_overlay(mount->mount_point, name);
    else if (stat(mount->source, &source) == 0 && S_ISBLK(source.st_mode))
        found = under_device(source.st_rdev, DEVICES_MAX, name);
    return found ? str_dup(name) : NULL;
}

static struct planner_superblock *find(struct superblocks *superblocks, const char *name)
{
    for (size_t i = 0; i < superblocks->n; i++)
        if (str_eq(superblocks->items[i].name, name))
            return &superblocks->items[i];
    return NULL;
}

int superblocks_read(struct superblocks *ret, struct err *err)
{
    size_t n = 0;
    *ret = (struct superblocks){0};
    if (volumes_mounted(&ret->mounts, &n, err) < 0)
        return -1;
    ret->items = mem_new((n + 1) * sizeof(*ret->items));
    for (size_t i = 0; i < n; i++)
        if (!find(ret, ret->mounts[i].superblock))
            ret->items[ret->n++] = (struct planner_superblock){.name = ret->mounts[i].superblock,
                                                               .mount_point = ret->mounts[i].mount_point,
                                                               .fs_type = ret->mounts[i].fs_type,
                                                               .stands_on = stands_on(&ret->mounts[i]),
                                                               .sync_ms = -1};
    return 0;
}

void superblocks_clear(struct superblocks *superblocks)
{
    for (size_t i = 0; i < superblocks->n; i++)
        free((char *)superblocks->items[i].stands_on);
    free(superblocks->items);
    free(superblocks->mounts);
    *superblocks = (struct superblocks){0};
}

unsigned superblocks_depth(const struct superblocks *superblocks, const char *name)
{
    const struct planner_input input = {.superblocks = superblocks->items, .n_superblocks = superblocks->n};
    return planner_depth(&input, name);
}

json_t *superblocks_blocked(const struct superblocks *superblocks, const json_t *frozen)
{
    const struct planner_input input = {.superblocks = superblocks->items, .n_superblocks = superblocks->n};
    json_t *blocked = json_copy((json_t *)frozen);
    size_t i;
    const json_t *name;
    for (size_t k = 0; k < superblocks->n; k++) {
        bool named = false, blocks = false;
        json_array_foreach(frozen, i, name)
        {
            named = named || str_eq(json_string_value(name), superblocks->items[k].name);
            blocks = blocks || planner_blocked_by(&input, superblocks->items[k].name, json_string_value(name));
        }
        if (blocks && !named)
            json_add(blocked, json_string(superblocks->items[k].name));
    }
    return blocked;
}

/* --- how much is dirty --- */

static int64_t dirty_bytes(void)
{
    int64_t total = 0, kib;
    char line[256];
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "Dirty: %" SCNd64, &kib) == 1 || sscanf(line, "Writeback: %" SCNd64, &kib) == 1)
            total += kib * 1024;
    if (file)
        fclose(file);
    return total;
}

/* It may wait for its disk for ever: the ends of our channels, and of writers' inputs, are not its to keep. */
pid_t superblocks_sync(int fd, int *ret_pidfd)
{
    pid_t pid = fork();
    if (pid == 0) {
        int own = dup2(fd, STDERR_FILENO + 1);
        syscall(SYS_close_range, (unsigned)own + 1, ~0U, 0U);
        _exit(syncfs(own) == 0 ? 0 : errno);
    }
    *ret_pidfd = pid < 0 ? -1 : pidfd_open(pid, 0);
    if (pid > 0 && *ret_pidfd < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, WNOHANG);
        return -1;
    }
    return pid;
}

/* True when it was done within the limit. One that still waits for the disk is left to end by itself. */
static bool sync_within(int fd, int64_t limit_ms)
{
    int own = -1;
    pid_t pid = superblocks_sync(fd, &own);
    if (pid < 0)
        return false;
    AUTO_FD int pidfd = own;
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    int64_t deadline = clock_mono_ms() + limit_ms, left = limit_ms;
    while (pidfd >= 0 && left > 0 && poll(&ended, 1, (int)left) < 0 && errno == EINTR)
        left = deadline - clock_mono_ms();
    bool done = ended.revents != 0;
    if (!done)
        kill(pid, SIGKILL);
    waitpid(pid, NULL, done ? 0 : WNOHANG);
    return done;
}

void superblocks_measure(struct superblocks *superblocks, const char *name, int64_t limit_ms)
{
    struct planner_superblock *superblock = find(superblocks, name);
    AUTO_FD int fd = superblock ? place_open_path(superblock->mount_point, O_RDONLY | O_DIRECTORY) : -1;
    if (fd < 0 || superblock->sync_ms >= 0)
        return;
    int64_t before = dirty_bytes(), begun = clock_mono_ms();
    sync_within(fd, limit_ms);
    superblock->sync_ms = clock_mono_ms() - begun;
    superblock->dirty_bytes = dirty_bytes();
    superblock->sync_bytes = before > superblock->dirty_bytes ? before - superblock->dirty_bytes : 0;
}
