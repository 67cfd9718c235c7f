/* Snapshots that somebody else takes: a hypervisor, a cloud, a storage array. Ours is the instant: the file systems are
 * frozen, then a configured command takes the snapshot, or the session's owner does and releases the hold. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "base/str.h"
#include "providers/outside.h"

enum {
    OUTPUT_MAX = 65536,
    TIMEOUT_SECONDS = 30,
    COMMAND_WINDOW_MS = 1000, /* estimates for the planner: what a cloud's API call takes, */
    HOLD_WINDOW_MS = 5000,    /* and what a person's script does */
    LOOK_MS = 10,             /* how soon a cancel is heard while the command runs */
    DYING_MS = 1000,          /* of a killed command; one that writes to what is frozen dies after the thaw */
};

static int external_plan(const struct provider_environment *env, const struct volume *volume, struct provider_plan *ret,
                         struct err *err)
{
    (void)volume;
    (void)err;
    bool command = json_array_size(json_object_get(env->options, "command")) > 0;
    *ret = (struct provider_plan){
        .atomic = true, .bytes = 0, .window_ms = command ? COMMAND_WINDOW_MS : HOLD_WINDOW_MS, .freeze = FREEZE_WANTED};
    return 0;
}

/* --- what the outside says --- */

/* A path to read at is taken from the configured command alone. */
static int name_from_command(struct provider_snapshot *snapshot, const json_t *words, struct err *err)
{
    const char *path = json_str(words, "path", NULL);
    outside_name(snapshot, words);
    if (!path)
        return 0;
    if (!path_is_canonical(path) || !str_copy(snapshot->path, sizeof(snapshot->path), path))
        return err_set(err, VSS_E_UNEXPECTED_PROVIDER_ERROR, NULL,
                       "the command printed a path that is not absolute and canonical: %.200s", path);
    return 0;
}

static const char *last_line(char *text)
{
    size_t length = strlen(text);
    while (length > 0 && strchr("\r\n\t ", text[length - 1]))
        text[--length] = '\0';
    char *line = strrchr(text, '\n');
    return line ? line + 1 : text;
}

/* The last line: a JSON object, for all volumes or by volume, or just the outside name. Nothing at all is fine. */
static int take_output(struct provider_snapshot *set, size_t n, char *output, struct err *err)
{
    const char *line = last_line(output);
    AUTO_JSON json_t *words =
        *line == '{' ? json_parse_strict(line, strlen(line), 8, err) : json_pack("{s:s}", "outside_id", line);
    if (!words)
        return err_set(err, VSS_E_UNEXPECTED_PROVIDER_ERROR, NULL,
                       "the last line of the command's output is neither JSON nor text");
    for (size_t i = 0; i < n; i++) {
        const json_t *own = json_object_get(json_object_get(words, "volumes"), set[i].volume.path);
        if (name_from_command(&set[i], words, err) < 0 || (own && name_from_command(&set[i], own, err) < 0))
            return -1;
    }
    return 0;
}

/* --- the command --- */

struct command {
    const json_t *argv;
    int input, output, errors; /* in memory: nothing can block, no file system is touched */
    int64_t timeout_ms;
};

static void command_clear(struct command *command)
{
    fd_cleanup(&command->input);
    fd_cleanup(&command->output);
    fd_cleanup(&command->errors);
}

/* What is written beyond its size fails; the shared offset tells how much was. */
static int memory_file(const char *name, struct err *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, OUTPUT_MAX) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0) {
        err_errno(err, E_OUTOFMEMORY, errno, NULL, "%s of the command", name);
        fd_cleanup(&fd);
        return -1;
    }
    return fd;
}

static json_t *request(const struct provider_snapshot *set, size_t n)
{
    json_t *volumes = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct volume *volume = &set[i].volume;
        json_add(volumes, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "snapshot_id", set[i].id, "volume", volume->path,
                                    "mount_point", volume->mount_point, "source", volume->source, "fs_type",
                                    volume->fs_type, "superblock", volume->superblock));
    }
    return json_pack("{s:s, s:s, s:o}", "set_id", set[0].set_id, "session_id", set[0].session_id, "volumes", volumes);
}

static int input_file(const struct provider_snapshot *set, size_t n, struct err *err)
{
    AUTO_JSON json_t *doc = request(set, n);
    AUTO_FREE char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    AUTO_FREE char *line = text ? str_new("%s\n", text) : NULL;
    AUTO_FD int fd = memfd_create("input", MFD_CLOEXEC);
    if (!line)
        return err_set(err, E_INVALIDARG, NULL, "a path is not UTF-8");
    if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line) || lseek(fd, 0, SEEK_SET) < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "input of the command");
    return TAKE_FD(fd);
}

static int command_open(const struct provider_environment *env, const struct provider_snapshot *set, size_t n,
                        struct command *ret, struct err *err)
{
    *ret = (struct command){.argv = json_object_get(env->options, "command"),
                            .timeout_ms = 1000 * json_int(env->options, "timeout_seconds", TIMEOUT_SECONDS)};
    ret->input = input_file(set, n, err);
    ret->output = ret->input < 0 ? -1 : memory_file("output", err);
    ret->errors = ret->output < 0 ? -1 : memory_file("errors", err);
    return ret->errors < 0 ? -1 : 0;
}

static void read_back(int fd, char *ret)
{
    off_t length = lseek(fd, 0, SEEK_CUR);
    ssize_t n = pread(fd, ret, length > 0 && length < OUTPUT_MAX ? (size_t)length : 0, 0);
    ret[n > 0 ? n : 0] = '\0';
}

static int command_spawn(const struct command *command, const struct provider_snapshot *set, pid_t *ret_pid,
                         int *ret_pidfd, struct err *err)
{
    size_t n = json_array_size(command->argv);
    AUTO_FREE const char **argv = mem_new((n + 1) * sizeof(*argv));
    AUTO_FREE char *set_id = str_new("QUIESCED_SET_ID=%s", set->set_id);
    AUTO_FREE char *session_id = str_new("QUIESCED_SESSION_ID=%s", set->session_id);
    for (size_t i = 0; i < n; i++)
        argv[i] = json_string_value(json_array_get(command->argv, i));
    const char *const environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                       "LANG=C.UTF-8", set_id, session_id, NULL};
    const struct proc_fd fds[] = {
        {command->input, STDIN_FILENO}, {command->output, STDOUT_FILENO}, {command->errors, STDERR_FILENO}};
    const struct proc_spec spec = {.argv = argv,
                                   .environment = environment,
                                   .fds = fds,
                                   .n_fds = ELEMENTS(fds),
                                   .new_group = true,
                                   .die_with_parent = true};
    return proc_spawn(&spec, ret_pid, ret_pidfd, err);
}

/* Until it has ended, is cancelled, or is late. 1 = ended. */
static int command_await(const struct provider_environment *env, int pidfd, int64_t deadline_ms)
{
    struct pollfd wait = {.fd = pidfd, .events = POLLIN};
    while (poll(&wait, 1, LOOK_MS) <= 0)
        if (clock_mono_ms() >= deadline_ms || env->cancelled(env->cancelled_arg))
            return 0;
    return 1;
}

static int command_end(const struct provider_environment *env, const struct command *command, pid_t pid, int pidfd,
                       struct err *err)
{
    AUTO_FREE char *errors = mem_new(OUTPUT_MAX + 1);
    char text[64];
    int status = 0;
    bool ended = command_await(env, pidfd, clock_mono_ms() + command->timeout_ms);
    if (!ended)
        proc_kill_group(pid);
    proc_reap(pid, pidfd, DYING_MS, &status);
    if (!ended)
        return err_set(err, VSS_E_HOLD_WRITES_TIMEOUT,
                       "Raise providers.external.timeout_seconds, or use a faster command.",
                       "the command had not ended in time, and was killed");
    if (status == 0)
        return 0;
    read_back(command->errors, errors);
    return err_set(err, VSS_E_UNEXPECTED_PROVIDER_ERROR, "Its standard error says more.",
                   "the command failed: %s: %.300s", proc_status_text(status, text, sizeof(text)), last_line(errors));
}

static int run_command(const struct provider_environment *env, struct provider_snapshot *set, size_t n, struct err *err)
{
    CLEANUP(command_clear) struct command command = {.input = -1, .output = -1, .errors = -1};
    AUTO_FREE char *output = mem_new(OUTPUT_MAX + 1);
    AUTO_FD int pidfd = -1;
    pid_t pid;
    if (command_open(env, set, n, &command, err) < 0 || command_spawn(&command, set, &pid, &pidfd, err) < 0 ||
        command_end(env, &command, pid, pidfd, err) < 0)
        return -1;
    read_back(command.output, output);
    return take_output(set, n, output, err);
}

static int external_create(const struct provider_environment *env, struct provider_snapshot *set, size_t n,
                           struct err *err)
{
    return json_array_size(json_object_get(env->options, "command")) > 0 ? run_command(env, set, n, err)
                                                                         : outside_hold(env, set, n, err);
}

const struct provider provider_external = {
    .abi = PROVIDER_ABI,
    .name = "external",
    .title = "file systems frozen for a snapshot that a hypervisor, cloud or array takes",
    .outside = true,
    .probe = outside_probe,
    .match = outside_match,
    .plan = external_plan,
    .create = external_create,
    .list = outside_list,
    .remove = outside_remove};
PROVIDER_EXPORT(external);
