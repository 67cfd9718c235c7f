#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "base/str.h"
#include "movers/restic/restic_private.h"

enum {
    TICK_MS = 200,
    STOP_MS = 20000, /* after SIGINT; it takes 22 ms (platform-facts 4), a dead network longer */
    JSON_MAX = 64 << 20,
    VERSION_MINOR_LEAST = 12, /* 0.12 has `dump /` as tar and `--files-from-raw` */
};

const struct restic_io restic_no_io = {-1, -1};

const char *restic_name(const json_t *repository)
{
    return json_str(repository, "name", "");
}

static bool find_program(char ret[4096])
{
    static const char *const places[] = {"/usr/local/bin/restic", "/usr/bin/restic", "/bin/restic", "/opt/bin/restic"};
    for (size_t i = 0; i < ELEMENTS(places); i++)
        if (access(places[i], X_OK) == 0)
            return str_copy(ret, 4096, places[i]);
    return false;
}

/* --- starting --- */

static char **environment(const json_t *repository)
{
    const json_t *extra = json_object_get(repository, "environment"), *value;
    const char *key, *url = json_str(repository, "url", json_str(repository, "path", ""));
    char **list = mem_new((json_object_size(extra) + 8) * sizeof(*list));
    size_t n = 0;
    list[n++] = str_dup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    list[n++] = str_dup("LANG=C.UTF-8");
    list[n++] = str_dup("RESTIC_PROGRESS_FPS=5");
    list[n++] = str_new("RESTIC_REPOSITORY=%s", url);
    list[n++] = str_new("RESTIC_PASSWORD_FILE=%s", json_str(repository, "password_file", ""));
    json_object_foreach((json_t *)extra, key, value) if (json_is_string(value)) list[n++] =
        str_new("%s=%s", key, json_string_value(value));
    return list;
}

static void free_environment(char **list)
{
    for (size_t i = 0; list[i]; i++)
        free(list[i]);
    free(list);
}

static const char **arguments(const struct restic *restic, const char *program, const char *const *argv)
{
    size_t n = 0, count = 0;
    while (argv[count])
        count++;
    const char **all = mem_new((count + 3) * sizeof(*all));
    all[n++] = program;
    /* Without a cache: it would grow beside the state directory without anybody's watch. Who wants one, for a remote
     * repository, names its place in the repository's environment. */
    if (!json_object_get(json_object_get(restic->repository, "environment"), "RESTIC_CACHE_DIR"))
        all[n++] = "--no-cache";
    memcpy(all + n, argv, count * sizeof(*all));
    return all;
}

static int make_pipe(int *ret_ours, int *ret_theirs, struct err *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "cannot make a pipe");
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    *ret_ours = fds[0];
    *ret_theirs = fds[1];
    return 0;
}

int restic_start(struct restic_process *ret, const struct restic *restic, const char *const *argv,
                 const struct restic_io *io, struct err *err)
{
    char program[4096];
    AUTO_FD int out = -1;
    AUTO_FD int complaints = -1;
    *ret = (struct restic_process){.restic = restic, .pidfd = -1, .out_fd = -1, .err_fd = -1};
    if (!find_program(program))
        return err_set(err, VSS_E_NOT_SUPPORTED, "Install restic.", "restic is not installed");
    if (make_pipe(&ret->out_fd, &out, err) || make_pipe(&ret->err_fd, &complaints, err)) {
        restic_stop(ret);
        return -1;
    }
    struct proc_fd fds[4] = {{out, STDOUT_FILENO}, {complaints, STDERR_FILENO}};
    size_t n = 2;
    if (io->in_fd >= 0)
        fds[n++] = (struct proc_fd){io->in_fd, STDIN_FILENO};
    if (io->extra_fd >= 0)
        fds[n++] = (struct proc_fd){io->extra_fd, 3};
    AUTO_FREE const char **args = arguments(restic, program, argv);
    char **env = environment(restic->repository);
    const struct proc_spec spec = {.argv = args,
                                   .environment = (const char *const *)env,
                                   .fds = fds,
                                   .n_fds = n,
                                   .new_group = true,
                                   .die_with_parent = true};
    int result = proc_spawn(&spec, &ret->pid, &ret->pidfd, err);
    free_environment(env);
    if (result) {
        ret->pid = 0;
        restic_stop(ret);
    }
    return result;
}

/* --- talking --- */

/* Keeps the beginning: the first complaint is the cause. The rest is read, so that it never blocks. */
static void take_errors(struct restic_process *process)
{
    char scrap[4096];
    ssize_t n = process->err_fd >= 0 ? read(process->err_fd, scrap, sizeof(scrap)) : -1;
    if (n == 0) {
        close(process->err_fd);
        process->err_fd = -1;
    }
    for (ssize_t i = 0; i < n && process->n_errors < sizeof(process->errors) - 1; i++)
        process->errors[process->n_errors++] = (unsigned char)scrap[i] < ' ' && scrap[i] != '\n' ? ' ' : scrap[i];
}

int restic_peek(struct restic_process *process, void *buffer, size_t size, size_t *ret_n, bool *ret_ended)
{
    take_errors(process);
    ssize_t n = read(process->out_fd, buffer, size);
    *ret_ended = n == 0;
    *ret_n = n > 0 ? (size_t)n : 0;
    return n >= 0 || errno == EAGAIN || errno == EINTR ? 0 : -1;
}

int restic_read(void *arg, void *buffer, size_t size, size_t *ret_n, struct err *err)
{
    struct restic_process *process = arg;
    const struct mover_host *host = process->restic->host;
    bool ended = false;
    for (*ret_n = 0;;) {
        if (restic_peek(process, buffer, size, ret_n, &ended))
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read from restic");
        if (*ret_n > 0 || ended)
            return 0;
        struct pollfd fds[2] = {{.fd = process->out_fd, .events = POLLIN}, {.fd = process->err_fd, .events = POLLIN}};
        poll(fds, 2, TICK_MS);
        if (host && host->cancelled(host->arg)) {
            restic_stop(process);
            return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
        }
        if (process->tick)
            process->tick(process->tick_arg, process->pid);
    }
}

/* --- ending --- */

void restic_stop(struct restic_process *process)
{
    if (process->pid > 0) {
        char scrap[4096];
        int64_t end = clock_mono_ms() + STOP_MS;
        killpg(process->pid, SIGINT);
        while (!proc_reap(process->pid, process->pidfd, 20, NULL)) {
            take_errors(process); /* a full pipe must not keep it from ending */
            if (read(process->out_fd, scrap, sizeof(scrap)) < 0 && errno != EAGAIN && errno != EINTR)
                break;
            if (clock_mono_ms() < end)
                continue;
            proc_kill_group(process->pid);
            proc_reap(process->pid, process->pidfd, -1, NULL);
            break;
        }
        process->pid = 0;
    }
    fd_cleanup(&process->pidfd);
    fd_cleanup(&process->out_fd);
    fd_cleanup(&process->err_fd);
    process->pidfd = process->out_fd = process->err_fd = -1;
}

static const struct {
    const char *text; /* in restic's complaint */
    uint32_t hr;
    const char *hint;
} complaints_known[] = {
    {"no space left", VSS_E_INSUFFICIENT_STORAGE, "Make room in the repository, or use another one."},
    {"disk quota exceeded", VSS_E_INSUFFICIENT_STORAGE, "Make room in the repository, or use another one."},
    {"wrong password", E_ACCESSDENIED, "Look at the repository's password_file."},
    {"already locked", VSS_E_VOLUME_IN_USE, "Another restic works there; try again when it has ended."},
    {"is there a repository at", VSS_E_OBJECT_NOT_FOUND, "Is the place right, and its disk mounted?"},
};

static int explain(const struct restic_process *process, const char *status, struct err *err)
{
    uint32_t hr = VSS_E_UNEXPECTED;
    const char *hint = NULL;
    for (size_t i = 0; i < ELEMENTS(complaints_known) && !hint; i++)
        if (strcasestr(process->errors, complaints_known[i].text)) {
            hr = complaints_known[i].hr;
            hint = complaints_known[i].hint;
        }
    AUTO_FREE char *text = manifest_readable(process->errors);
    for (char *at = text; *at; at++)
        if (*at == '\n')
            *at = at[1] ? ';' : '\0';
    return err_set(err, hr, hint, "repository %s: restic: %.500s (%s)", restic_name(process->restic->repository), text,
                   status);
}

int restic_finish(struct restic_process *process, struct err *err)
{
    char status_text[64];
    int status = 0;
    int64_t end = clock_mono_ms() + STOP_MS;
    bool gone = false;
    while (!gone && clock_mono_ms() < end) { /* its output has ended; its last complaints may not have */
        gone = proc_reap(process->pid, process->pidfd, 20, &status);
        take_errors(process);
    }
    for (int i = 0; i < 64 && process->err_fd >= 0; i++)
        take_errors(process);
    if (gone)
        process->pid = 0;
    int result = 0;
    if (!gone || status)
        result = explain(process, gone ? proc_status_text(status, status_text, sizeof(status_text)) : "it does not end",
                         err);
    restic_stop(process);
    return result;
}

int restic_run(const struct restic *restic, const char *const *argv, struct err *err)
{
    struct restic_process process;
    char scrap[4096];
    if (restic_start(&process, restic, argv, &restic_no_io, err))
        return -1;
    for (size_t n = 1; n > 0;)
        if (restic_read(&process, scrap, sizeof(scrap), &n, err)) {
            restic_stop(&process);
            return -1;
        }
    return restic_finish(&process, err);
}

int restic_json(const struct restic *restic, const char *const *argv, json_t **ret, struct err *err)
{
    struct restic_process process;
    size_t length = 0, room = 65536;
    AUTO_FREE char *text = mem_new(room);
    if (restic_start(&process, restic, argv, &restic_no_io, err))
        return -1;
    int result = 0;
    for (size_t n = 1; n > 0 && !result;) {
        if (length == room && room < JSON_MAX)
            text = mem_resize(text, room *= 2);
        result = length == room ? err_set(err, VSS_E_UNEXPECTED, NULL, "restic's answer is too long")
                                : restic_read(&process, text + length, room - length, &n, err);
        length += result ? 0 : n;
    }
    if (result) {
        restic_stop(&process);
        return -1;
    }
    if (restic_finish(&process, err))
        return -1;
    *ret = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL); /* "null" when there is none */
    return *ret ? 0 : err_set(err, VSS_E_UNEXPECTED, NULL, "restic's answer is no JSON");
}

void restic_probe(char ret_reason[256])
{
    struct restic_process process;
    const struct restic restic = {0};
    struct err err = {0};
    char text[256] = "";
    size_t length = 0;
    int major = 0, minor = 0;
    ret_reason[0] = '\0';
    if (restic_start(&process, &restic, (const char *const[]){"version", NULL}, &restic_no_io, &err)) {
        str_copy(ret_reason, 256, err.text);
        return;
    }
    for (size_t n = 1; n > 0 && length < sizeof(text) - 1; length += n)
        if (restic_read(&process, text + length, sizeof(text) - 1 - length, &n, NULL))
            break;
    restic_stop(&process);
    if (sscanf(text, "restic %d.%d", &major, &minor) != 2)
        str_copy(ret_reason, 256, "restic does not tell its version");
    else if (major == 0 && minor < VERSION_MINOR_LEAST)
        str_format(ret_reason, 256, "restic %d.%d is too old: 0.%d or later is needed", major, minor,
                   VERSION_MINOR_LEAST);
}
