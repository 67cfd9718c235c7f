#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "serve/serve_private.h"

enum { CONTROL_FD = 3, CERTIFICATE_DAYS_MAX = 397 };

const char *const *children_environment(void)
{
    /* JOURNAL_STREAM: log.c compares it with the standard error that the role really has. */
    static const char *const through[] = {"QUIESCED_FAULT_DIR", "ASAN_OPTIONS", "UBSAN_OPTIONS",
                                          "TSAN_OPTIONS",       "LSAN_OPTIONS", "JOURNAL_STREAM",
#ifdef QUIESCED_FAULTS
                                          "QUIESCED_JOURNAL_SOCKET", /* of a test: serve/journal.c */
#endif
    };
    static const char *environment[2 + ELEMENTS(through) + 1] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"};
    static bool filled;

    for (size_t i = 0, to = 2; !filled && i < ELEMENTS(through); i++) {
        const char *value = getenv(through[i]);
        if (value)
            environment[to++] = str_new("%s=%s", through[i], value); /* for the life of the process */
    }
    filled = true;
    return environment;
}

static void add_arguments(const char **argv, size_t *n, const char *option, const json_t *values)
{
    size_t i;
    json_t *value;

    json_array_foreach((json_t *)(uintptr_t)values, i, value)
    {
        argv[(*n)++] = option;
        argv[(*n)++] = json_string_value(value);
    }
}

int children_run_signer(struct serve *serve, struct err *err)
{
    AUTO_JSON json_t *names = names_collect(serve->config);
    const json_t *hostnames = json_object_get(names, "hostnames"), *addresses = json_object_get(names, "addresses");
    AUTO_FREE const char **argv =
        mem_new(sizeof(*argv) * (5 + 2 * (json_array_size(hostnames) + json_array_size(addresses))));
    const struct proc_fd fds[] = {{STDERR_FILENO, STDERR_FILENO}};
    const struct proc_spec spec = {.argv = argv,
                                   .environment = children_environment(),
                                   .fds = fds,
                                   .n_fds = ELEMENTS(fds),
                                   .die_with_parent = true,
                                   .no_new_privileges = true};
    int status = 0, pidfd = -1;
    char text[64];
    size_t n = 0;
    pid_t pid;

    argv[n++] = proc_self_path();
    argv[n++] = "--role=signer";
    argv[n++] = "--state-dir";
    argv[n++] = serve->places.state_dir;
    add_arguments(argv, &n, "--hostname", hostnames);
    add_arguments(argv, &n, "--address", addresses);
    if (proc_spawn(&spec, &pid, &pidfd, err) != 0)
        return err_prefix(err, "signer");
    bool gone = proc_reap(pid, pidfd, SIGNER_MS, &status);
    if (!gone) {
        proc_kill_group(pid);
        proc_reap(pid, pidfd, -1, &status);
    }
    close(pidfd);
    if (status == 0)
        return 0;
    return err_set(err, VSS_E_UNEXPECTED, "The line of the signer above says why.",
                   "the credentials under %s are not usable: signer: %s", serve->places.pki.directory,
                   proc_status_text(status, text, sizeof(text)));
}

/* The administrator, and whoever stands in the configuration with a certificate of our own CA. */
static bool is_taken(const json_t *config, const char *principal)
{
    AUTO_FREE char *own = str_new(PKI_PRINCIPAL_URI "%s", principal);
    size_t i;
    json_t *entry;

    json_array_foreach(json_object_get(config, "principals"), i, entry)
        if (str_eq(json_str(entry, "certificate", NULL), own))
            return true;
    return str_eq(principal, "admin");
}

/* fd is its input and its output; it ends by itself. */
static int spawn_signer(const char *const *argv, int fd, pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
    const struct proc_fd fds[] = {{fd, STDIN_FILENO}, {fd, STDOUT_FILENO}, {STDERR_FILENO, STDERR_FILENO}};
    const struct proc_spec spec = {.argv = argv,
                                   .environment = children_environment(),
                                   .fds = fds,
                                   .n_fds = ELEMENTS(fds),
                                   .die_with_parent = true,
                                   .no_new_privileges = true};

    return proc_spawn(&spec, ret_pid, ret_pidfd, err);
}

int children_spawn_signer(struct serve *serve, const struct signer_order *order, pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
    char days[16];
    const char *const certificate[] = {proc_self_path(), "--role=signer",  "--state-dir", serve->places.state_dir,
                                       "--principal",    order->principal, "--days",      days, NULL};
    const char *const seal[] = {proc_self_path(), "--role=signer", "--state-dir", serve->places.state_dir, "--seal", NULL};

    str_format(days, sizeof(days), "%d", order->days);
    return spawn_signer(order->principal ? certificate : seal, order->fd, ret_pid, ret_pidfd, err);
}

int children_sign(struct serve *serve, const char *principal, int days, int fd, struct err *err)
{
    AUTO_FREE char *name = str_dup(principal);
    const struct signer_order order = {.fd = fd, .principal = name, .days = days < 1 ? 1 : days > CERTIFICATE_DAYS_MAX ? CERTIFICATE_DAYS_MAX : days};

    if (!*principal || is_taken(serve->config, principal))
        return err_set(err, E_ACCESSDENIED, NULL, "core asks for a certificate with the name \"%s\", which is not one to be enrolled", principal);
    return signers_take(serve, SIGNER_OF_CERTIFICATES, &order, err);
}

int children_seal(struct serve *serve, int fd, struct err *err)
{
    return signers_take(serve, SIGNER_OF_SEALS, &(struct signer_order){.fd = fd}, err);
}

const char *serve_agent_program;

static int find_program(const char *name, char *ret, struct err *err)
{
    if (!name)
        return str_copy(ret, PATH_MAX, proc_self_path()) ? 0 : err_set(err, VSS_E_UNEXPECTED, NULL, "the path of this program is too long");
    if (proc_find_program(name, ret))
        return 0;
    return err_set(err, VSS_E_UNEXPECTED, "It belongs beside quiesced, or in libexec/quiesced: install the package again.", "no executable %s", name);
}

int children_spawn(struct serve *serve, enum role_name name, int control, struct err *err)
{
    const struct row {
        const char *program; /* NULL: ours */
        const char *argument;
        const struct proc_identity *identity; /* NULL: as we are */
    } rows[ROLE_NAMES] = {
        [ROLE_NAME_AGENT] = {serve_agent_program, "--role=agent", NULL},
        [ROLE_NAME_CORE] = {NULL, "--role=core", serve->root ? &serve->core_user : NULL},
        [ROLE_NAME_FRONT] = {NULL, "--role=front", serve->root ? &serve->front_user : NULL},
    };
    char program[PATH_MAX];
    const char *const argv[] = {program, rows[name].argument, NULL};
    const struct proc_fd fds[] = {{STDERR_FILENO, STDERR_FILENO}, {control, CONTROL_FD}};
    const struct proc_spec spec = {
        .argv = argv,
        .environment = children_environment(),
        .fds = fds,
        .n_fds = ELEMENTS(fds),
        .identity = rows[name].identity,
        .new_group = true, /* a terminal's Ctrl-C reaches serve alone, which then drains */
        .die_with_parent = true,
        .no_new_privileges = rows[name].identity != NULL || !serve->root, /* the agent's children change users */
    };
    struct role *role = &serve->roles[name];

    if (find_program(rows[name].program, program, err) != 0)
        return -1;
    return proc_spawn(&spec, &role->pid, &role->pidfd, err);
}
