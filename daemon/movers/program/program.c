#include "movers/program/program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/payload/manifest.h"

enum {
    TICK_MS = 200,
    STOP_MS = 20000, /* after its stop signal; restic takes 22 ms (platform-facts 4), a dead network longer */
    OUTPUT_MAX = 64 << 20,
    TAKES_AT_ONCE = 16, /* blocks of complaints that are read before its output is looked at again */
};

/* --- starting --- */

static const char *find_program(const struct program_kind *kind)
{
    for (const char *const *place = kind->places; *place; place++)
        if (access(*place, X_OK) == 0)
            return *place;
    return NULL;
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

static const char **whole_argv(const char *program, const char *const *argv)
{
    size_t count = 0;
    while (argv[count])
        count++;
    const char **all = mem_new((count + 2) * sizeof(*all));
    all[0] = program;
    memcpy(all + 1, argv, count * sizeof(*all));
    return all;
}

static int spawn(struct program *program, const struct program_spec *asked, const char *path, struct err *err)
{
    struct proc_fd fds[PROGRAM_FDS_MAX + 2];
    AUTO_FD int out = -1;
    AUTO_FD int complaints = -1;
    if (make_pipe(&program->out_fd, &out, err) || make_pipe(&program->err_fd, &complaints, err))
        return -1;
    fds[0] = (struct proc_fd){out, STDOUT_FILENO};
    fds[1] = (struct proc_fd){complaints, STDERR_FILENO};
    for (size_t i = 0; i < asked->n_fds; i++)
        fds[2 + i] = asked->fds[i];
    AUTO_FREE const char **args = whole_argv(path, asked->argv);
    const struct proc_spec spec = {.argv = args,
                                   .environment = asked->environment,
                                   .fds = fds,
                                   .n_fds = 2 + asked->n_fds,
                                   .directory = asked->directory,
                                   .new_group = true,
                                   .die_with_parent = true};
    int result = proc_spawn(&spec, &program->pid, &program->pidfd, err);
    if (result)
        program->pid = 0;
    return result;
}

int program_start(struct program *ret, const struct program_spec *spec, struct err *err)
{
    *ret = (struct program){.kind = spec->kind, .repository = spec->repository, .host = spec->host, .pidfd = -1, .out_fd = -1, .err_fd = -1};
    const char *path = find_program(spec->kind);
    if (!path)
        return err_set(err, VSS_E_NOT_SUPPORTED, "Install it.", "%s is not installed", spec->kind->name);
    int result = spawn(ret, spec, path, err);
    if (result)
        program_stop(ret);
    return result;
}

/* --- talking --- */

void program_note(struct program *program, const char *text, size_t n)
{
    for (size_t i = 0; i < n && program->n_errors < sizeof(program->errors) - 1; i++)
        program->errors[program->n_errors++] = (unsigned char)text[i] < ' ' && text[i] != '\n' ? ' ' : text[i];
}

/* Keeps the beginning: the first complaint is the cause. The rest is read, so that it never blocks. */
static void take_errors(struct program *program)
{
    char scrap[16384];
    for (int i = 0; i < TAKES_AT_ONCE && program->err_fd >= 0; i++) {
        ssize_t n = read(program->err_fd, scrap, sizeof(scrap));
        if (n == 0) {
            close(program->err_fd);
            program->err_fd = -1;
        }
        if (n <= 0)
            return;
        if (program->complain)
            program->complain(program->complain_arg, scrap, (size_t)n);
        else
            program_note(program, scrap, (size_t)n);
    }
}

int program_peek(struct program *program, void *buffer, size_t size, size_t *ret_n, bool *ret_ended)
{
    take_errors(program);
    ssize_t n = read(program->out_fd, buffer, size);
    *ret_ended = n == 0;
    *ret_n = n > 0 ? (size_t)n : 0;
    return n >= 0 || errno == EAGAIN || errno == EINTR ? 0 : -1;
}

int program_read(void *arg, void *buffer, size_t size, size_t *ret_n, struct err *err)
{
    struct program *program = arg;
    const struct mover_host *host = program->host;
    bool ended = false;
    for (*ret_n = 0;;) {
        if (program_peek(program, buffer, size, ret_n, &ended))
            return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read from %s", program->kind->name);
        if (*ret_n > 0 || ended)
            return 0;
        struct pollfd fds[2] = {{.fd = program->out_fd, .events = POLLIN}, {.fd = program->err_fd, .events = POLLIN}};
        poll(fds, 2, TICK_MS);
        if (host && host->cancelled(host->arg)) {
            program_stop(program);
            return err_set(err, VSS_S_ASYNC_CANCELLED, NULL, "cancelled");
        }
        if (program->tick)
            program->tick(program->tick_arg, program->pid);
    }
}

int program_drain(struct program *program, struct err *err)
{
    char scrap[4096];
    for (size_t n = 1; n > 0;)
        if (program_read(program, scrap, sizeof(scrap), &n, err)) {
            program_stop(program);
            return -1;
        }
    return 0;
}

/* --- ending --- */

void program_stop(struct program *program)
{
    if (program->pid > 0) {
        char scrap[4096];
        int64_t end = clock_mono_ms() + STOP_MS;
        killpg(program->pid, program->kind->stop_signal);
        while (!proc_reap(program->pid, program->pidfd, 20, NULL)) {
            take_errors(program); /* a full pipe must not keep it from ending */
            if (read(program->out_fd, scrap, sizeof(scrap)) < 0 && errno != EAGAIN && errno != EINTR)
                break;
            if (clock_mono_ms() < end)
                continue;
            proc_kill_group(program->pid);
            proc_reap(program->pid, program->pidfd, -1, NULL);
            break;
        }
        program->pid = 0;
    }
    fd_cleanup(&program->pidfd);
    fd_cleanup(&program->out_fd);
    fd_cleanup(&program->err_fd);
    program->pidfd = program->out_fd = program->err_fd = -1;
}

/* "http://user:secret@host" -> "http://user:******@host": what a program quotes of its place must not give a password away. A password may
 * hold whatever ends an address elsewhere ("/", " ", "@"): it goes on to the line's last "@". */
static void hide_passwords(char *text)
{
    for (char *at = text; (at = strstr(at, "://"));) {
        at += 3;
        char *host = memrchr(at, '@', strcspn(at, "\n")), *colon = host ? memchr(at, ':', (size_t)(host - at)) : NULL;
        for (char *c = colon; c && ++c < host;)
            *c = '*';
    }
}

/* Of what it complained the line that says it in one: restic's "Fatal: ", else the one that is known, else (it was in what is hidden now) the
 * first. Later versions write a JSON object a line. */
static char *told_line(const char *errors, const char *part)
{
    static const char fatal[] = "Fatal: ";
    const char *at = strstr(errors, fatal), *begin = at ? at : strcasestr(errors, part);
    if (!begin)
        begin = errors;
    while (!at && begin > errors && begin[-1] != '\n')
        begin--;
    size_t skip = at ? sizeof(fatal) - 1 : 0, length = strcspn(begin + skip, "\n");
    AUTO_FREE char *line = str_new("%.*s", (int)length, begin + skip);
    AUTO_JSON json_t *object = json_loads(line, 0, NULL);
    return manifest_readable(json_str(object, "message", line));
}

static int explain(struct program *program, const char *status, struct err *err)
{
    const struct program_kind *kind = program->kind;
    static const struct program_complaint unknown = {.hr = VSS_E_UNEXPECTED};
    size_t row = 0;
    while (row < kind->n_complaints && !strcasestr(program->errors, kind->complaints[row].text))
        row++;
    const struct program_complaint *known = row < kind->n_complaints ? &kind->complaints[row] : &unknown;
    hide_passwords(program->errors);
    AUTO_FREE char *text = known->cause ? told_line(program->errors, known->text) : manifest_readable(program->errors);
    for (char *at = text; *at; at++)
        if (*at == '\n')
            *at = at[1] ? ';' : '\0';
    if (row < kind->n_untold)
        err_set(err, known->hr, known->hint, "repository %s: %s (%s: %s)", program->repository, known->cause, kind->name, status);
    else if (known->cause)
        err_set(err, known->hr, known->hint, "repository %s: %s (%s: %.300s; %s)", program->repository, known->cause, kind->name, text, status);
    else
        err_set(err, known->hr, known->hint ? known->hint : "What it says is its own; the daemon's log may tell more.", "repository %s: %s: %.500s (%s)", program->repository, kind->name,
                text, status);
    if (err && known->reason)
        str_copy(err->reason, sizeof(err->reason), known->reason);
    return -1;
}

int program_finish(struct program *program, struct err *err)
{
    char status_text[64];
    int status = 0;
    int64_t end = clock_mono_ms() + STOP_MS;
    bool gone = false;
    while (!gone && clock_mono_ms() < end) { /* its output has ended; its last complaints may not have */
        gone = proc_reap(program->pid, program->pidfd, 20, &status);
        take_errors(program);
    }
    for (int i = 0; i < 64 && program->err_fd >= 0; i++)
        take_errors(program);
    if (gone)
        program->pid = 0;
    int result = 0, warned = program->kind->warning_status;
    if (!gone || (status && !(warned && WIFEXITED(status) && WEXITSTATUS(status) == warned)))
        result = explain(program, gone ? proc_status_text(status, status_text, sizeof(status_text)) : "it does not end", err);
    program_stop(program);
    return result;
}

bool program_tells_nothing(const struct err *cause)
{
    return cause->hr == (uint32_t)VSS_S_ASYNC_CANCELLED || cause->hr == (uint32_t)VSS_E_VOLUME_IN_USE ||
           cause->hr == (uint32_t)E_ACCESSDENIED || str_eq(cause->reason, PROGRAM_UNREACHABLE);
}

int program_collect(struct program *program, char **ret, size_t *ret_length, struct err *err)
{
    size_t length = 0, room = 65536;
    AUTO_FREE char *text = mem_new(room);
    int result = 0;
    for (size_t n = 1; n > 0 && !result;) {
        if (length + 1 == room && room < OUTPUT_MAX)
            text = mem_resize(text, room *= 2);
        result = length + 1 == room ? err_set(err, VSS_E_UNEXPECTED, NULL, "the answer of %s is too long", program->kind->name)
                                    : program_read(program, text + length, room - length - 1, &n, err);
        length += result ? 0 : n;
    }
    if (result) {
        program_stop(program);
        return -1;
    }
    if (program_finish(program, err))
        return -1;
    text[length] = '\0';
    *ret = TAKE_PTR(text);
    *ret_length = length;
    return 0;
}
