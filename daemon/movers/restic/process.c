#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/restic/restic_private.h"

enum { VERSION_MINOR_LEAST = 12 /* 0.12 has `dump /` as tar and `--files-from-raw` */ };

const struct restic_io restic_no_io = {-1, -1};

static const char *const places[] = {"/usr/local/bin/restic", "/usr/bin/restic", "/bin/restic", "/opt/bin/restic", NULL};
static const char away[] = "The repository cannot be reached; try again when it can.", room[] = "Make room in the repository, or use another one.";
static const char address[] = "Look at the address in the repository's url_file: in a user or a password, whatever is neither letter nor digit is written as %XX (/ as %2F).";
enum { UNTOLD = 2 };
static const struct program_complaint complaints[] = {
    /* Go's words (parse "http://u:pass/word@h/": invalid port ":pass" after host), and the same within JSON. */
    {"parse \"", VSS_E_UNEXPECTED, "its address cannot be read", address, PROGRAM_UNREACHABLE},
    {"parse \\\"", VSS_E_UNEXPECTED, "its address cannot be read", address, PROGRAM_UNREACHABLE},
    {"no space left", VSS_E_INSUFFICIENT_STORAGE, "its disk is full", room, NULL},
    {"disk quota exceeded", VSS_E_INSUFFICIENT_STORAGE, "its quota is used up", room, NULL},
    {"wrong password", E_ACCESSDENIED, "the password does not open it", "Look at the repository's password_file.", NULL},
    {"already locked", VSS_E_VOLUME_IN_USE, "it is locked",
     "Another restic works there; try again when it has ended. If none does, one was killed: restic unlock.", NULL},
    {"unauthorized", E_ACCESSDENIED, "its server refuses the user or the password", "Look at the user and the password in the repository's url_file.", NULL},
    {"x509: ", E_ACCESSDENIED, "the certificate of its server is not trusted",
     "Have its CA trusted on this host (update-ca-certificates), or name the CA's file as SSL_CERT_FILE in the repository's environment.", NULL},
    {"connection refused", VSS_E_UNEXPECTED, "its server does not answer", away, PROGRAM_UNREACHABLE},
    {"connection reset", VSS_E_UNEXPECTED, "the connection to its server broke off", away, PROGRAM_UNREACHABLE},
    {"broken pipe", VSS_E_UNEXPECTED, "the connection to its server broke off", away, PROGRAM_UNREACHABLE},
    {"no such host", VSS_E_UNEXPECTED, "the name of its server is not known", away, PROGRAM_UNREACHABLE},
    {"i/o timeout", VSS_E_UNEXPECTED, "its server does not answer", away, PROGRAM_UNREACHABLE},
    {"no route to host", VSS_E_UNEXPECTED, "there is no way to its server", away, PROGRAM_UNREACHABLE},
    {"network is unreachable", VSS_E_UNEXPECTED, "there is no way to its server", away, PROGRAM_UNREACHABLE},
    {"unexpected HTTP response (5", VSS_E_UNEXPECTED, "its server fails", away, PROGRAM_UNREACHABLE},
    {"/config: permission denied", E_ACCESSDENIED, "it may not be read", "Give its files to the user that the daemon's workers run as.", NULL},
    {"is there a repository at", VSS_E_OBJECT_NOT_FOUND, "there is no repository", "Is the place right, and its disk mounted?", NULL},
};
static const struct program_kind kind = {.name = "restic",
                                         .places = places,
                                         .stop_signal = SIGINT,
                                         .complaints = complaints,
                                         .n_complaints = ELEMENTS(complaints),
                                         .n_untold = UNTOLD};

const char *restic_name(const json_t *repository)
{
    return json_str(repository, "name", "");
}

/* --- starting --- */

/* An address with a password in it stays in its file: restic reads it there. */
static char *place_of(const json_t *repository)
{
    const char *file = json_str(repository, "url_file", NULL);
    return file ? str_new("RESTIC_REPOSITORY_FILE=%s", file)
                : str_new("RESTIC_REPOSITORY=%s", json_str(repository, "url", json_str(repository, "path", "")));
}

static char **environment(const json_t *repository)
{
    const json_t *extra = json_object_get(repository, "environment"), *value;
    const char *key;
    char **list = mem_new((json_object_size(extra) + 9) * sizeof(*list));
    size_t n = 0;
    list[n++] = str_dup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    list[n++] = str_dup("LANG=C.UTF-8");
    list[n++] = str_dup("TZ=UTC"); /* its snapshots' times are compared as text */
    list[n++] = str_dup("RESTIC_PROGRESS_FPS=5");
    list[n++] = place_of(repository);
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

/* limit: room for --limit-upload's figure. */
static const char **arguments(const struct restic *restic, const char *const *argv, char limit[24])
{
    size_t n = 0, count = 0;
    while (argv[count])
        count++;
    const char **all = mem_new((count + 4) * sizeof(*all));
    /* Without a cache: it would grow beside the state directory without anybody's watch. Who wants one, for a remote
     * repository, names its place in the repository's environment. */
    if (!json_object_get(json_object_get(restic->repository, "environment"), "RESTIC_CACHE_DIR"))
        all[n++] = "--no-cache";
    memcpy(all + n, argv, count * sizeof(*all));
    n += count;
    if (restic->bandwidth > 0) {
        str_format(limit, 24, "%lld", (long long)(restic->bandwidth >= 1024 ? restic->bandwidth / 1024 : 1)); /* KiB/s */
        all[n++] = "--limit-upload";
        all[n++] = limit;
    }
    return all;
}

int restic_start(struct program *ret, const struct restic *restic, const char *const *argv,
                 const struct restic_io *io, struct err *err)
{
    struct proc_fd fds[2];
    char limit[24];
    size_t n = 0;
    if (io->in_fd >= 0)
        fds[n++] = (struct proc_fd){io->in_fd, STDIN_FILENO};
    if (io->extra_fd >= 0)
        fds[n++] = (struct proc_fd){io->extra_fd, 3};
    AUTO_FREE const char **args = arguments(restic, argv, limit);
    char **env = environment(restic->repository);
    const struct program_spec spec = {.kind = &kind,
                                      .repository = restic_name(restic->repository),
                                      .host = restic->host,
                                      .argv = args,
                                      .environment = (const char *const *)env,
                                      .fds = fds,
                                      .n_fds = n};
    int result = program_start(ret, &spec, err);
    free_environment(env);
    return result;
}

/* --- whole runs --- */

int restic_run(const struct restic *restic, const char *const *argv, struct err *err)
{
    struct program process;
    if (restic_start(&process, restic, argv, &restic_no_io, err))
        return -1;
    return program_drain(&process, err) || program_finish(&process, err) ? -1 : 0;
}

int restic_json_begin(struct program *ret, const struct restic *restic, const char *const *argv, struct err *err)
{
    return restic_start(ret, restic, argv, &restic_no_io, err);
}

int restic_json_end(struct program *process, json_t **ret, struct err *err)
{
    AUTO_FREE char *text = NULL;
    size_t length;
    if (program_collect(process, &text, &length, err))
        return -1;
    *ret = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL); /* "null" when there is none */
    return *ret ? 0 : err_set(err, VSS_E_UNEXPECTED, NULL, "restic's answer is no JSON");
}

int restic_json(const struct restic *restic, const char *const *argv, json_t **ret, struct err *err)
{
    struct program process;
    return restic_json_begin(&process, restic, argv, err) ? -1 : restic_json_end(&process, ret, err);
}

void restic_probe(char ret_reason[256])
{
    struct program process;
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
        if (program_read(&process, text + length, sizeof(text) - 1 - length, &n, NULL))
            break;
    program_stop(&process);
    if (sscanf(text, "restic %d.%d", &major, &minor) != 2)
        str_copy(ret_reason, 256, "restic does not tell its version");
    else if (major == 0 && minor < VERSION_MINOR_LEAST)
        str_format(ret_reason, 256, "restic %d.%d is too old: 0.%d or later is needed", major, minor,
                   VERSION_MINOR_LEAST);
}
