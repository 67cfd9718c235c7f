#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/borg/borg_private.h"

enum {
    LOCK_WAIT_SECONDS = 60, /* borg lets one run at a time into a repository */
    PASSWORD_FD = 4,        /* as borg sees it */
    BASE_FD = 5,
    WORK_FD = 6,
};

const struct borg_io borg_no_io = {.in_fd = -1, .work_fd = -1};

static const char *const places[] = {"/usr/local/bin/borg", "/usr/bin/borg", "/bin/borg", "/opt/bin/borg", NULL};
static const char room[] = "Make room in the repository (and in borg's base_dir), or use another one.";
static const char away[] = "The repository cannot be reached; try again when it can.";
static const struct program_complaint complaints[] = {
    {"no space left", VSS_E_INSUFFICIENT_STORAGE, "a disk is full", room, NULL},
    {"InsufficientFreeSpaceError", VSS_E_INSUFFICIENT_STORAGE, "its disk is full", room, NULL},
    {"StorageQuotaExceeded", VSS_E_INSUFFICIENT_STORAGE, "its quota is used up", room, NULL},
    {"disk quota exceeded", VSS_E_INSUFFICIENT_STORAGE, "its quota is used up", room, NULL},
    {"PassphraseWrong", E_ACCESSDENIED, "the password does not open it", "Look at the repository's password_file.", NULL},
    {"LockTimeout", VSS_E_VOLUME_IN_USE, "it is locked",
     "Another borg works there; try again when it has ended. If none does, another host's was killed: borg break-lock.", NULL},
    {"LockFailed", VSS_E_UNEXPECTED, "it cannot be locked", "May the repository be written?", NULL},
    {"Repository.DoesNotExist", VSS_E_OBJECT_NOT_FOUND, "there is no repository", "Is the place right, and its disk mounted?", NULL},
    {"Repository.InvalidRepository]", VSS_E_OBJECT_NOT_FOUND, "there is no repository", "Is the place right, and its disk mounted?", NULL},
    {"RepositoryReplay", VSS_E_UNEXPECTED, "it is older than it was",
     "The repository is older than what this host last saw of it: if it was put back from a copy, see borg's FAQ, else it was tampered with.", NULL},
    /* What ssh says comes before borg's own word, that the connection was closed. */
    {"Host key verification failed", E_ACCESSDENIED, "the key of its host is not known, or not the one that it was",
     "Look at the host's key, and put it into the known_hosts of the user that the daemon's workers run as, or of `rsh`.", NULL},
    {"Permission denied (", E_ACCESSDENIED, "its host refuses the key of ssh", "Name a key that it takes in `rsh`: ssh -i FILE.", NULL},
    {"Could not resolve hostname", VSS_E_UNEXPECTED, "the name of its host is not known", away, PROGRAM_UNREACHABLE},
    {"Connection refused", VSS_E_UNEXPECTED, "its host does not answer", away, PROGRAM_UNREACHABLE},
    {"Connection timed out", VSS_E_UNEXPECTED, "its host does not answer", away, PROGRAM_UNREACHABLE},
    {"No route to host", VSS_E_UNEXPECTED, "there is no way to its host", away, PROGRAM_UNREACHABLE},
    {"Network is unreachable", VSS_E_UNEXPECTED, "there is no way to its host", away, PROGRAM_UNREACHABLE},
    {"ConnectionClosed", VSS_E_UNEXPECTED, "the connection to its host broke off", away, PROGRAM_UNREACHABLE},
    {"Broken pipe", VSS_E_UNEXPECTED, "the connection to its host broke off", away, PROGRAM_UNREACHABLE}, /* it was writing when the other side went */
    {"Connection reset", VSS_E_UNEXPECTED, "the connection to its host broke off", away, PROGRAM_UNREACHABLE},
};
static const struct program_kind kind = {.name = "borg",
                                         .places = places,
                                         .stop_signal = SIGTERM, /* SIGINT would store a checkpoint first */
                                         .complaints = complaints,
                                         .n_complaints = ELEMENTS(complaints)};
static const struct program_kind kind_that_warns = {.name = "borg",
                                                    .places = places,
                                                    .stop_signal = SIGTERM,
                                                    .warning_status = 1,
                                                    .complaints = complaints,
                                                    .n_complaints = ELEMENTS(complaints)};

/* --- the base directory --- */

/* One request, one repository: held until the process ends. */
static int base_fd = -1;

int borg_prepare(const json_t *repository, struct err *err)
{
    const char *given = json_str(repository, "base_dir", NULL), *state = json_str(repository, "state_dir", NULL);
    if (base_fd >= 0)
        return 0;
    if (!given && !state)
        return err_invalid(err, "/base_dir", "repository %s: base_dir is needed", borg_name(repository));
    AUTO_FREE char *path = given ? str_dup(given) : str_new("%s/borg", state);
    if (mkdir(path, 0700) && errno != EEXIST)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "repository %s: cannot make borg's base directory %s", borg_name(repository), path);
    base_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return base_fd >= 0 ? 0 : err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "repository %s: cannot open borg's base directory %s",
                                        borg_name(repository), path);
}

/* --- starting --- */

/* Our runs on this host, and no others: borg takes a lock for stale when it is of the same host id and its process is gone. */
static char *host_id(void)
{
    char id[64] = "";
    FILE *file = fopen("/etc/machine-id", "re");
    bool known = file && fscanf(file, "%32[0-9a-f]", id) == 1;
    if (file)
        fclose(file);
    if (!known)
        gethostname(id, sizeof(id) - 1);
    return str_new("BORG_HOST_ID=quiesced@%s", id);
}

static char **environment(const struct borg *borg)
{
    const json_t *repository = borg->repository;
    const char *rsh = json_str(repository, "rsh", NULL);
    char **list = mem_new(14 * sizeof(*list));
    size_t n = 0;
    list[n++] = str_dup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    list[n++] = str_dup("LANG=C.UTF-8");
    list[n++] = str_dup("TZ=UTC"); /* its archives' times are compared as text */
    list[n++] = str_new("BORG_REPO=%s", json_str(repository, "url", json_str(repository, "path", "")));
    list[n++] = str_new("BORG_BASE_DIR=/proc/self/fd/%d", BASE_FD);
    list[n++] = str_new("BORG_PASSPHRASE_FD=%d", PASSWORD_FD);
    list[n++] = host_id();
    /* Nobody can be asked; the configuration names the place. */
    list[n++] = str_dup("BORG_RELOCATED_REPO_ACCESS_IS_OK=yes");
    list[n++] = str_dup("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=no");
    list[n++] = str_dup("BORG_EXIT_CODES=legacy"); /* later versions tell warnings apart */
    if (rsh)
        list[n++] = str_new("BORG_RSH=%s", rsh);
    if (borg->roots)
        list[n++] = str_new("BORG_FILES_CACHE_SUFFIX=%s", borg->roots);
    return list;
}

static void free_environment(char **list)
{
    for (size_t i = 0; list[i]; i++)
        free(list[i]);
    free(list);
}

struct figures {
    char lock_wait[24], rate[24];
};

static const char **arguments(const struct borg *borg, const char *const *argv, struct figures *figures)
{
    size_t n = 0, count = 0;
    while (argv[count])
        count++;
    const char **all = mem_new((count + 6) * sizeof(*all));
    str_format(figures->lock_wait, sizeof(figures->lock_wait), "%lld",
               (long long)json_int(borg->repository, "lock_wait_seconds", LOCK_WAIT_SECONDS));
    all[n++] = argv[0];
    all[n++] = "--log-json";
    all[n++] = "--lock-wait";
    all[n++] = figures->lock_wait;
    if (borg->bandwidth > 0) { /* KiB/s */
        str_format(figures->rate, sizeof(figures->rate), "%lld", (long long)(borg->bandwidth >= 1024 ? borg->bandwidth / 1024 : 1));
        all[n++] = "--upload-ratelimit";
        all[n++] = figures->rate;
    }
    memcpy(all + n, argv + 1, (count - 1) * sizeof(*all));
    return all;
}

static void take_messages(void *arg, const char *bytes, size_t n);

static int start(struct borg_run *run, const struct borg *borg, const char *const *argv, const struct borg_io *io, struct err *err)
{
    struct proc_fd fds[4];
    struct figures figures;
    char directory[64];
    size_t n = 0;
    const char *password = json_str(borg->repository, "password_file", NULL);
    AUTO_FD int password_fd = password ? open(password, O_RDONLY | O_CLOEXEC) : -1;
    if (password && password_fd < 0)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "repository %s: cannot open its password_file %s", borg_name(borg->repository), password);
    if (password_fd >= 0)
        fds[n++] = (struct proc_fd){password_fd, PASSWORD_FD};
    if (base_fd >= 0)
        fds[n++] = (struct proc_fd){base_fd, BASE_FD};
    if (io->in_fd >= 0)
        fds[n++] = (struct proc_fd){io->in_fd, STDIN_FILENO};
    if (io->work_fd >= 0)
        fds[n++] = (struct proc_fd){io->work_fd, WORK_FD};
    str_format(directory, sizeof(directory), "/proc/self/fd/%d", WORK_FD); /* itself, whatever its path leads to meanwhile */
    AUTO_FREE const char **args = borg->repository ? arguments(borg, argv, &figures) : NULL;
    char **env = environment(borg);
    const struct program_spec spec = {.kind = io->warnings_pass ? &kind_that_warns : &kind,
                                      .repository = borg_name(borg->repository),
                                      .host = borg->host,
                                      .argv = args ? args : argv,
                                      .environment = (const char *const *)env,
                                      .fds = fds,
                                      .n_fds = n,
                                      .directory = io->work_fd >= 0 ? directory : NULL};
    int result = program_start(&run->program, &spec, err);
    free_environment(env);
    return result;
}

int borg_start(struct borg_run *ret, const struct borg *borg, const char *const *argv, const struct borg_io *io, struct err *err)
{
    ret->said = NULL;
    ret->arg = NULL;
    ret->warnings = NULL;
    ret->length = 0;
    if (borg->repository && borg_prepare(borg->repository, err))
        return -1;
    if (start(ret, borg, argv, io, err))
        return -1;
    ret->program.complain = take_messages;
    ret->program.complain_arg = ret;
    return 0;
}

/* --- what it says --- */

/* Of a traceback only the exception that it ends with: "OSError: [Errno 28] No space left on device". */
static void note_exception(struct borg_run *run, const char *text)
{
    const char *end = strstr(text, "\nPlatform:"), *last = NULL;
    size_t length = 0;
    for (const char *line = text; line && *line && (!end || line < end);) {
        size_t n = strcspn(line, "\n");
        if (n > 0 && *line != ' ' && *line != '\t') {
            last = line;
            length = n;
        }
        line = line[n] ? line + n + 1 : NULL;
    }
    if (last) {
        program_note(&run->program, last, length);
        program_note(&run->program, "\n", 1);
    }
}

static void take_log(struct borg_run *run, const json_t *message)
{
    const char *level = json_str(message, "levelname", ""), *text = json_str(message, "message", ""), *id = json_str(message, "msgid", "");
    if (str_eq(level, "WARNING") && run->warnings)
        json_add(run->warnings, json_string(text));
    if (!str_eq(level, "WARNING") && !str_eq(level, "ERROR") && !str_eq(level, "CRITICAL"))
        return;
    if (strstr(text, "files cache")) /* there is none yet, and a failure's cause comes after that */
        return;
    if (str_starts(text, "Traceback ")) {
        note_exception(run, text);
        return;
    }
    AUTO_FREE char *told = str_new("%s%s%s%s\n", text, *id ? " [" : "", id, *id ? "]" : "");
    program_note(&run->program, told, strlen(told));
}

static void take_message(struct borg_run *run)
{
    AUTO_JSON json_t *message = json_loadb(run->line, run->length, 0, NULL);
    if (!json_is_object(message)) { /* Python itself, ssh, or no borg at all */
        program_note(&run->program, run->line, run->length);
        program_note(&run->program, "\n", 1);
    } else if (str_eq(json_str(message, "type", ""), "log_message")) {
        take_log(run, message);
    } else if (run->said) {
        run->said(run->arg, message);
    }
}

static void take_messages(void *arg, const char *bytes, size_t n)
{
    struct borg_run *run = arg;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n' && run->length < sizeof(run->line)) {
            run->line[run->length++] = bytes[i];
        } else if (bytes[i] == '\n') {
            take_message(run);
            run->length = 0;
        }
    }
}

/* --- whole runs --- */

int borg_run(const struct borg *borg, const char *const *argv, struct err *err)
{
    struct borg_run run;
    if (borg_start(&run, borg, argv, &borg_no_io, err))
        return -1;
    return program_drain(&run.program, err) || program_finish(&run.program, err) ? -1 : 0;
}

int borg_json_end(struct borg_run *run, json_t **ret, struct err *err)
{
    AUTO_FREE char *text = NULL;
    size_t length;
    if (program_collect(&run->program, &text, &length, err))
        return -1;
    *ret = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    return *ret ? 0 : err_set(err, VSS_E_UNEXPECTED, NULL, "borg's answer is no JSON");
}

/* 1.2 has --paths-from-stdin and `compact`; 2 is another program with other commands. */
void borg_probe(char ret_reason[256])
{
    struct borg_run run;
    const struct borg borg = {0};
    struct err err = {0};
    AUTO_FREE char *text = NULL;
    size_t length;
    int major = 0, minor = 0;
    ret_reason[0] = '\0';
    if (borg_start(&run, &borg, (const char *const[]){"--version", NULL}, &borg_no_io, &err) ||
        program_collect(&run.program, &text, &length, &err)) {
        str_copy(ret_reason, 256, err.text);
        return;
    }
    if (sscanf(text, "borg %d.%d", &major, &minor) != 2)
        str_copy(ret_reason, 256, "borg does not tell its version");
    else if (major != 1 || minor < 2)
        str_format(ret_reason, 256, "borg %d.%d does not fit: 1.2 or a later 1.x is needed", major, minor);
}
