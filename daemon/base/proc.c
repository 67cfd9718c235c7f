#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"

static char self_path[PATH_MAX] = "/proc/self/exe";

/* At start, because the file may be replaced later (an upgrade), and the link then ends in " (deleted)". */
__attribute__((constructor)) static void self_path_resolve(void)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (length > 0) {
        path[length] = '\0';
        str_copy(self_path, sizeof(self_path), path);
    }
}

const char *proc_self_path(void)
{
    return self_path;
}

int proc_identity_lookup(const char *user, struct proc_identity *ret, struct err *err)
{
    char buffer[16384]; /* an entry of passwd with room to spare; ERANGE is reported below */
    struct passwd entry, *found = NULL;
    bool own = !user || !*user;
    int rc = own ? getpwuid_r(geteuid(), &entry, buffer, sizeof(buffer), &found)
                 : getpwnam_r(user, &entry, buffer, sizeof(buffer), &found);
    if (!found && own) { /* a container's uid need not be in passwd */
        *ret = (struct proc_identity){.uid = geteuid(), .gid = getegid(), .home = "/"};
        str_format(ret->name, sizeof(ret->name), "%u", (unsigned)ret->uid);
        return 0;
    }
    if (!found && rc != 0)
        return err_errno(err, (uint32_t)VSS_E_UNEXPECTED, rc, NULL, "user %s: cannot be looked up", user);
    if (!found)
        return err_set(err, (uint32_t)E_INVALIDARG, "Create the user or name another one.", "user %s: does not exist",
                       user);
    *ret = (struct proc_identity){.uid = entry.pw_uid, .gid = own ? getegid() : entry.pw_gid};
    if (!str_copy(ret->name, sizeof(ret->name), entry.pw_name) ||
        !str_copy(ret->home, sizeof(ret->home), entry.pw_dir ? entry.pw_dir : "/"))
        return err_set(err, (uint32_t)E_INVALIDARG, NULL, "user %s: name or home directory is too long", entry.pw_name);
    return 0;
}

void proc_kill_group(pid_t pid)
{
    if (pid <= 1) /* 0 is our own group, -1 is everybody */
        return;
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
}

/* True when pid has ended (not yet reaped) or does not exist. */
static bool wait_for_exit(pid_t pid, int pidfd, int timeout_ms)
{
    AUTO_FD int own_fd = -1;
    if (pidfd < 0) {
        own_fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (own_fd < 0)
            return true;
        pidfd = own_fd;
    }
    int64_t deadline = clock_mono_ms() + timeout_ms;
    for (;;) {
        int64_t left = timeout_ms < 0 ? -1 : deadline - clock_mono_ms();
        if (timeout_ms >= 0 && left < 0)
            left = 0;
        struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
        int n = poll(&poll_fd, 1, (int)left);
        if (n > 0)
            return true;
        if (n == 0 || errno != EINTR)
            return false;
    }
}

bool proc_reap(pid_t pid, int pidfd, int timeout_ms, int *ret_status)
{
    if (!wait_for_exit(pid, pidfd, timeout_ms))
        return false;
    int status = 0;
    pid_t reaped;
    do
        reaped = waitpid(pid, &status, WNOHANG);
    while (reaped < 0 && errno == EINTR);
    if (reaped == 0)
        return false;
    if (reaped < 0)
        status = 255 << 8; /* somebody else reaped it: unknown must not read as success */
    if (ret_status)
        *ret_status = status;
    return true;
}

bool proc_stopped(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

/* /proc/PID/status: pending signals of the thread and of the process, one bit for each, SIGHUP the lowest. */
bool proc_kill_pending(pid_t pid)
{
    static const char *const masks[] = {"\nSigPnd:\t", "\nShdPnd:\t"};
    char path[64], text[8192];
    size_t length = 0;
    str_format(path, sizeof(path), "/proc/%d/status", (int)pid);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t n; fd >= 0 && length < sizeof(text) - 1 && (n = read(fd, text + length, sizeof(text) - 1 - length)) > 0; length += (size_t)n)
        ;
    text[length] = '\0';
    for (size_t i = 0; i < ELEMENTS(masks); i++) {
        const char *mask = strstr(text, masks[i]);
        if (mask && (strtoull(mask + strlen(masks[i]), NULL, 16) >> (SIGKILL - 1) & 1))
            return true;
    }
    return false;
}

char *proc_status_text(int status, char *ret, size_t size)
{
    if (WIFEXITED(status)) {
        str_format(ret, size, "exit status %d", WEXITSTATUS(status));
    } else if (WIFSIGNALED(status)) {
        const char *name = sigdescr_np(WTERMSIG(status));
        str_format(ret, size, "signal %d (%s)%s", WTERMSIG(status), name ? name : "unknown",
                   WCOREDUMP(status) ? ", core dumped" : "");
    } else {
        str_format(ret, size, "status 0x%x", (unsigned)status);
    }
    return ret;
}

bool proc_find_program(const char *name, char *ret)
{
    char here[PATH_MAX];
    str_copy(here, sizeof(here), proc_self_path());
    char *slash = strrchr(here, '/');
    if (slash)
        *slash = '\0';
    return (str_format(ret, PATH_MAX, "%s/%s", here, name) && access(ret, X_OK) == 0) ||
           (str_format(ret, PATH_MAX, "%s/../libexec/quiesced/%s", here, name) && access(ret, X_OK) == 0) ||
           (str_format(ret, PATH_MAX, QUIESCED_LIBEXEC_DIR "/%s", name) && access(ret, X_OK) == 0);
}
