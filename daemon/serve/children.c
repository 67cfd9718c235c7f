#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "serve/serve_private.h"

enum { SIGNER_MS = 30000, CONTROL_FD = 3 };

const char *const *children_environment(void)
{
    /* JOURNAL_STREAM: log.c compares it with the standard error that the role really has. */
    static const char *const through[] = {"QUIESCED_FAULT_DIR", "ASAN_OPTIONS", "UBSAN_OPTIONS",
                                          "TSAN_OPTIONS",       "LSAN_OPTIONS", "JOURNAL_STREAM"};
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
    const struct proc_fd fds[] = {{serve->log_fd, STDERR_FILENO}};
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

int children_spawn(struct serve *serve, enum role_name name, int control, struct err *err)
{
    const struct row {
        const char *argument;
        const struct proc_identity *identity; /* NULL: as we are */
    } rows[ROLE_NAMES] = {
        [ROLE_NAME_AGENT] = {"--role=agent", NULL},
        [ROLE_NAME_CORE] = {"--role=core", serve->root ? &serve->core_user : NULL},
        [ROLE_NAME_FRONT] = {"--role=front", serve->root ? &serve->front_user : NULL},
    };
    const char *const argv[] = {proc_self_path(), rows[name].argument, NULL};
    const struct proc_fd fds[] = {{serve->log_fd, STDERR_FILENO}, {control, CONTROL_FD}};
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

    return proc_spawn(&spec, &role->pid, &role->pidfd, err);
}
