#pragma once
/* Where the provider contract is tested: loop-mounted btrfs and XFS when root may make them, the temporary directory
 * otherwise. Everything is mounted in a private mount namespace: however the test ends, the kernel unmounts it and
 * frees the loop devices. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"

extern char **environ;

struct ground {
    char base[64]; /* /tmp/quiesced-ground-XXXXXX */
    char staging[128];
    char btrfs[128], xfs[128]; /* mount points; "" when not mounted */
    char plain[128];           /* a directory of the temporary file system */
    char why[256];             /* why there are no loop mounts, or "" */
};

static inline int ground_run(const char *const *argv)
{
    pid_t pid;
    int status = -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    int r = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (r || waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* An image of this file system, mounted at ret; its file is unlinked at once. */
static inline bool ground_loop(struct ground *ground, const char *type, char ret[128])
{
    char image[128], mkfs[32];
    str_format(image, sizeof(image), "%s/%s.img", ground->base, type);
    str_format(mkfs, sizeof(mkfs), "mkfs.%s", type);
    str_format(ret, 128, "%s/%s", ground->base, type);
    int fd = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool made = fd >= 0 && ftruncate(fd, 512 << 20) == 0 && mkdir(ret, 0755) == 0 &&
                ground_run((const char *const[]){mkfs, "-q", image, NULL}) == 0 &&
                ground_run((const char *const[]){"mount", "-t", type, "-o", "loop", image, ret, NULL}) == 0;
    if (fd >= 0)
        close(fd);
    unlink(image);
    if (made)
        return true;
    size_t at = strlen(ground->why);
    str_format(ground->why + at, sizeof(ground->why) - at, "%scannot make and mount a loop image of %s", at ? "; " : "",
               type);
    ret[0] = '\0';
    return false;
}

static inline int ground_open(struct ground *ground)
{
    *ground = (struct ground){0};
    str_copy(ground->base, sizeof(ground->base), "/tmp/quiesced-ground-XXXXXX");
    if (!mkdtemp(ground->base))
        return -1;
    chmod(ground->base, 0755);
    str_format(ground->staging, sizeof(ground->staging), "%s/staging", ground->base);
    str_format(ground->plain, sizeof(ground->plain), "%s/plain", ground->base);
    if (mkdir(ground->staging, 0700) < 0 || mkdir(ground->plain, 0755) < 0)
        return -1;
    if (geteuid() != 0)
        str_copy(ground->why, sizeof(ground->why), "loop devices need root");
    else if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        str_format(ground->why, sizeof(ground->why), "no private mount namespace: %s", strerror(errno));
    else {
        ground_loop(ground, "btrfs", ground->btrfs);
        ground_loop(ground, "xfs", ground->xfs);
    }
    return 0;
}

static inline void ground_close(struct ground *ground)
{
    if (*ground->btrfs)
        umount2(ground->btrfs, MNT_DETACH);
    if (*ground->xfs)
        umount2(ground->xfs, MNT_DETACH);
    ground_run((const char *const[]){"rm", "-rf", "--one-file-system", ground->base,
                                     NULL}); /* however deep a failed test left it */
}
