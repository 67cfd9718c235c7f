#include "writers/inplace/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

char *target_resolved(const char *path)
{
    AUTO_FREE char *head = str_dup(path);
    char real[PATH_MAX];
    for (;;) {
        char *slash = strrchr(head, '/');
        if (realpath(head, real))
            return str_new("%s%s", str_eq(real, "/") && path[strlen(head)] == '/' ? "" : real, path + strlen(head));
        if (!slash || slash == head)
            return str_dup(path);
        *slash = '\0';
    }
}

int target_check_apart(const json_t *new_targets, const json_t *places, const char *what, struct err *err)
{
    size_t i, k;
    const json_t *target, *place;
    json_array_foreach(new_targets, i, target)
    {
        const char *new_path = json_str(target, "new_path", "/");
        AUTO_FREE char *real = target_resolved(new_path);
        json_array_foreach(places, k, place)
        {
            const char *path = json_str(place, "path", "/");
            AUTO_FREE char *living = target_resolved(path);
            if (path_beneath(real, living) || path_beneath(living, real))
                return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE,
                               "Give no new target: then it is stopped, and restored in its place. Or give another one.",
                               "the new target %s is where %s lives (%s), and it would not be stopped", new_path, what, path);
        }
    }
    return 0;
}

static int open_nearest(const char *directory)
{
    AUTO_FREE char *path = str_dup(directory);
    for (;;) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char *slash = strrchr(path, '/');
        if (fd >= 0 || errno != ENOENT || !slash || slash == path)
            return fd;
        *slash = '\0';
    }
}

int target_lock(const char *directory, int *ret_fd, struct err *err)
{
    AUTO_FD int fd = open_nearest(directory);
    *ret_fd = -1;
    if (fd < 0)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, "The writer's user must own it.", "%s", directory);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        *ret_fd = fd;
        fd = -1;
        return 0;
    }
    if (errno == EWOULDBLOCK)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "End that session first.",
                       "another restore session has %s in its hands", directory);
    return 0; /* NFS locks no directories */
}
