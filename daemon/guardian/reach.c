#include "guardian/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "guardian/record.h"

/* proc(5): space, tab, line feed and backslash are written as \ooo. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        unsigned value = 0;
        if (from[0] == '\\' && sscanf(from + 1, "%3o", &value) == 1) {
            *to = (char)value;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

static void fclose_cleanup(FILE **file)
{
    if (*file)
        fclose(*file);
}

/* The first mount of the device that really leads to it (a later mount may cover it). */
static int open_mounted(const json_t *file_system)
{
    AUTO_FREE char *line = NULL;
    size_t size = 0;
    CLEANUP(fclose_cleanup) FILE *mounts = fopen("/proc/self/mountinfo", "re");
    while (mounts && getline(&line, &size, mounts) > 0) {
        char device[32], path[PATH_MAX];
        if (sscanf(line, "%*d %*d %31s %*s %4095s", device, path) != 2 ||
            !str_eq(device, json_str(file_system, "device", "")))
            continue;
        unescape(path);
        AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOATIME);
        if (fd >= 0 && record_identifies(file_system, fd))
            return TAKE_FD(fd);
    }
    return -1;
}

/* Something (a superblock without mounts, for one) still holds the device: an exclusive open of it fails. */
static bool in_use(const char *source)
{
    AUTO_FD int fd = open(source, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
    return fd < 0 && errno == EBUSY;
}

static enum reach mount_again(const json_t *file_system, const char *source, const char *scratch, struct reached *ret,
                              struct err *err)
{
    static const unsigned long flags[] = {0, MS_RDONLY}; /* as the superblock is: the kernel refuses the other one */
    const char *type = json_str(file_system, "fs_type", "");
    int r = -1;
    str_format(ret->directory, sizeof(ret->directory), "%s/thaw-XXXXXX", scratch);
    if (!mkdtemp(ret->directory)) {
        err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot create a directory in %s", scratch);
        ret->directory[0] = '\0';
        return REACH_FAILED;
    }
    for (size_t i = 0; r != 0 && i < ELEMENTS(flags); i++)
        r = mount(source, ret->directory, type, flags[i] | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    if (r != 0) {
        err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "%s cannot be mounted again", source);
        rmdir(ret->directory);
        ret->directory[0] = '\0';
        return REACH_FAILED;
    }
    ret->fd = open(ret->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME);
    if (ret->fd >= 0 && record_identifies(file_system, ret->fd))
        return REACH_OPEN;
    reach_close(ret); /* another file system by now: the one that was frozen cannot be there any more */
    return REACH_GONE;
}

enum reach reach_open(const json_t *file_system, const char *scratch, struct reached *ret, struct err *err)
{
    const char *source = json_str(file_system, "source", "");
    struct stat status;
    *ret = (struct reached){.fd = open_mounted(file_system)};
    if (ret->fd >= 0)
        return REACH_OPEN;
    if (stat(source, &status) != 0 || !S_ISBLK(status.st_mode) || !in_use(source))
        return REACH_GONE;
    return mount_again(file_system, source, scratch, ret, err);
}

void reach_close(struct reached *reached)
{
    fd_cleanup(&reached->fd);
    reached->fd = -1;
    if (!reached->directory[0])
        return;
    if (umount2(reached->directory, MNT_DETACH) == 0)
        rmdir(reached->directory);
    reached->directory[0] = '\0';
}
