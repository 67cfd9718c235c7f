#include "writers/inplace/service.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "base/str.h"
#include "writers/writer.h"

enum {
    ARGUMENTS_MAX = 256, /* the configuration's bound of a command */
    CGROUP_MAX = 64 * 1024,
    SLICE_MS = 100,
    PATIENCE_MS = 55 * 1000, /* our worker ends us a minute after the requester has gone */
};

char *service_unit_of(const char *cgroup, char *ret, size_t size)
{
    static const char suffix[] = ".service";
    for (const char *line = cgroup; line && *line; line = strchr(line, '\n'), line += line ? 1 : 0) {
        static const char version_1[] = ":name=systemd:/";
        size_t length = strcspn(line, "\n");
        bool unified = str_starts(line, "0::/"), named = memmem(line, length, version_1, strlen(version_1)) != NULL;
        const char *path = memchr(line, '/', length);
        if ((!unified && !named) || !path || str_starts(path, "/user.slice/"))
            continue;
        const char *last = path;
        for (const char *c = path; c < line + length; c++)
            if (*c == '/')
                last = c + 1;
        size_t unit = (size_t)(line + length - last), end = strlen(suffix);
        if (unit <= end || unit >= size || strncmp(last + unit - end, suffix, end) != 0)
            continue;
        memcpy(ret, last, unit);
        ret[unit] = '\0';
        return ret;
    }
    return NULL;
}

static bool unit_of_process(const char *process, char *ret, size_t size)
{
    AUTO_FREE char *path = str_new("/proc/%s/cgroup", process);
    AUTO_FREE char *text = mem_new(CGROUP_MAX + 1);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, CGROUP_MAX);
    return n > 0 && service_unit_of(text, ret, size);
}

void service_find(pid_t pid, json_t **stop, json_t **start)
{
    char unit[NAME_MAX + 1], own[NAME_MAX + 1];
    AUTO_FREE char *process = str_new("%d", (int)pid);
    if (access("/run/systemd/system", F_OK) != 0 || !unit_of_process(process, unit, sizeof(unit)) ||
        (unit_of_process("self", own, sizeof(own)) && str_eq(unit, own)))
        return;
    if (!*stop)
        *stop = json_pack("[s, s, s]", "/usr/bin/systemctl", "stop", unit);
    if (!*start)
        *start = json_pack("[s, s, s]", "/usr/bin/systemctl", "start", unit);
}

/* execve knows no PATH. */
static char *find_program(const char *name)
{
    static const char *const places[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
    for (size_t i = 0; !strchr(name, '/') && i < ELEMENTS(places); i++) {
        char *path = str_new("%s/%s", places[i], name);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return str_dup(name);
}

static int fill(const json_t *command, const char **argv, char **ret_program, struct err *err)
{
    size_t n = json_array_size(command);
    for (size_t i = 0; i < n && i < ARGUMENTS_MAX - 1; i++)
        argv[i] = json_string_value(json_array_get(command, i));
    if (n == 0 || n >= ARGUMENTS_MAX || !argv[0])
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Give it as a list: the program, then its arguments.",
                       "the command is no list of texts");
    argv[0] = *ret_program = find_program(argv[0]);
    return 0;
}

int64_t service_until(int64_t give_up_ms)
{
    static int64_t end_ms;
    if (!writer_abandoned())
        return give_up_ms;
    if (!end_ms)
        end_ms = clock_mono_ms() + PATIENCE_MS;
    return give_up_ms < end_ms ? give_up_ms : end_ms;
}

static int wait_for_end(pid_t pid, int pidfd, int64_t give_up_ms, bool patient, struct err *err)
{
    int status;
    for (;;) {
        if (proc_reap(pid, pidfd, SLICE_MS, &status))
            break;
        bool late = clock_mono_ms() >= (patient ? service_until(give_up_ms) : give_up_ms);
        if (!late && (patient || !writer_abandoned()))
            continue;
        proc_kill_group(pid);
        proc_reap(pid, pidfd, -1, NULL);
        return late ? err_set(err, VSS_E_WRITERERROR_TIMEOUT, "Raise limits.writer_seconds.", "it did not end in time")
                    : err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "the requester has gone");
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    char text[128];
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE,
                   "What it said is in the log. The writer's user must be allowed to run it (docs/writers).",
                   "it ended with %s", proc_status_text(status, text, sizeof(text)));
}

int service_run(const json_t *command, int64_t give_up_ms, bool patient, struct err *err)
{
    const char *argv[ARGUMENTS_MAX] = {0};
    AUTO_FREE char *program = NULL;
    pid_t pid = 0;
    AUTO_FD int pidfd = -1;
    /* Not ours: a server that is started with it would be taken for one of our writers and ended. */
    const struct proc_fd fds[] = {{STDERR_FILENO, STDOUT_FILENO}, {STDERR_FILENO, STDERR_FILENO}};
    if (fill(command, argv, &program, err) != 0)
        return -1;
    struct proc_spec spec = {.argv = argv, .fds = fds, .n_fds = ELEMENTS(fds), .new_group = true};
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    if (proc_spawn(&spec, &pid, &pidfd, err) != 0) {
        err->hr = VSS_E_WRITERERROR_NONRETRYABLE;
        return -1;
    }
    if (wait_for_end(pid, pidfd, give_up_ms, patient, err) == 0)
        return 0;
    return err_prefix(err, "%s", program);
}

/* "" when it may not be looked at. */
static void directory_of(const char *pid, char ret[PATH_MAX])
{
    AUTO_FREE char *link = str_new("/proc/%s/cwd", pid);
    ssize_t n = readlink(link, ret, PATH_MAX - 1);
    ret[n > 0 ? n : 0] = '\0';
}

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

pid_t service_process_in(const char *directory)
{
    char where[PATH_MAX];
    CLEANUP(closedir_cleanup) DIR *dir = opendir("/proc");
    const struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        directory_of(entry->d_name, where);
        if (str_eq(where, directory))
            return (pid_t)strtol(entry->d_name, NULL, 10);
    }
    return 0;
}

static bool is_zombie(pid_t pid)
{
    char text[512];
    AUTO_FREE char *path = str_new("/proc/%d/stat", (int)pid);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return false;
    text[n] = '\0';
    const char *end = strrchr(text, ')');
    return end && end[1] == ' ' && (end[2] == 'Z' || end[2] == 'X');
}

pid_t service_process_known(pid_t pid, const char *directory)
{
    char where[PATH_MAX];
    if (pid <= 0 || kill(pid, 0) != 0 || is_zombie(pid))
        return 0;
    AUTO_FREE char *number = str_new("%d", (int)pid);
    directory_of(number, where);
    return str_eq(where, directory) ? pid : where[0] ? 0 : -1;
}

pid_t service_left_behind(void)
{
    AUTO_FREE char *path = str_new("/proc/self/task/%d/children", (int)getpid());
    char text[1024];
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    return (pid_t)strtol(text, NULL, 10);
}
