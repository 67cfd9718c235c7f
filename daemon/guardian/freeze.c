#include "guardian/freeze.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/str.h"

int freeze_begin(int fd)
{
    int r;
    do
        r = ioctl(fd, FIFREEZE, 0);
    while (r < 0 && errno == EINTR);
    return r < 0 ? errno : 0;
}

enum thaw_result freeze_end(int fd)
{
    int r;
    if (fault("freeze.thaw"))
        return THAW_FAILED;
    do
        r = ioctl(fd, FITHAW, 0);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return THAW_DONE;
    return errno == EINVAL ? THAW_NOT_FROZEN : THAW_FAILED;
}

void freeze_end_all(const int *fds, size_t n, enum thaw_result *ret)
{
    AUTO_FREE pid_t *children = mem_new((n + 1) * sizeof(*children));
    for (size_t i = 0; i < n; i++) {
        ret[i] = THAW_DONE;
        children[i] = fds[i] < 0 ? 0 : fork();
        if (children[i] == 0 && fds[i] >= 0)
            _exit((int)freeze_end(fds[i]));
        if (children[i] < 0) /* no process to be had: one after the other, in the order given */
            ret[i] = freeze_end(fds[i]);
    }
    for (size_t i = 0; i < n; i++) {
        int status = 0;
        if (children[i] <= 0)
            continue;
        while (waitpid(children[i], &status, 0) < 0 && errno == EINTR)
            ;
        ret[i] = WIFEXITED(status) && WEXITSTATUS(status) <= THAW_FAILED ? (enum thaw_result)WEXITSTATUS(status)
                                                                         : THAW_FAILED;
    }
}
