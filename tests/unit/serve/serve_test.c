/* The supervisor with roles of straw: this program starts itself as "serve", which starts it again as --role=NAME. What
 * a role is told it leaves in $QUIESCED_FAULT_DIR; files there also tell it how to misbehave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "base/str.h"
#include "crypto/atomic_file.h"
#include "crypto/hash.h"
#include "crypto/pki.h"
#include "serve/logger.h"
#include "serve/serve.h"

enum { PATIENCE_MS = 60000 };

/* --- a role of straw --- */

static void leave(const char *name, const char *what, const json_t *doc)
{
    AUTO_FREE char *path = str_new("%s/%s.%s", getenv("QUIESCED_FAULT_DIR"), name, what);
    AUTO_FREE char *text = json_dumps(doc, 0);

    if (atomic_file_write(path, 0644, text, strlen(text), NULL) != 0)
        _exit(9);
}

static bool told(const char *name, const char *what)
{
    AUTO_FREE char *path = str_new("%s/%s.%s", getenv("QUIESCED_FAULT_DIR"), name, what);

    return access(path, F_OK) == 0;
}

static void answer(const char *type)
{
    AUTO_JSON json_t *msg = json_pack("{s:s}", "type", type);

    if (ipc_send(3, msg, NULL, 0, NULL) != 0)
        _exit(9);
}

/* Made by `openssl req`; its key is lost. */
static const char csr[] = "-----BEGIN CERTIFICATE REQUEST-----\n"
                          "MIHFMG4CAQAwDDEKMAgGA1UEAwwBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA\n"
                          "BB41CIXjF+V+sf51Mc8rYHsIb5fK6giTTC1oVaQN1CmW2jkzuKWLWuCLigtWedr5\n"
                          "m5JBzQV4q+NnGITRzSXbecWgADAKBggqhkjOPQQDAgNHADBEAiA9s88JxqIjjVwI\n"
                          "8fefQKtvLlGopytHmwJfLpkxiBG3ZQIgTyVmooXoEpDhhu47aCpG9lrFthlj8JA0\n"
                          "G8pcpbM1bPc=\n"
                          "-----END CERTIFICATE REQUEST-----\n";

/* As core asks for it. NULL: there is no answer. */
static json_t *sign(const char *principal, int days)
{
    AUTO_JSON json_t *ask = json_pack("{s:s, s:s, s:i}", "type", "sign", "principal", principal, "days", days);
    char answer[16384];
    size_t used = 0;
    ssize_t n;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0 || send(pair[0], csr, strlen(csr), 0) < 0 ||
        shutdown(pair[0], SHUT_WR) != 0 || ipc_send(3, ask, &pair[1], 1, NULL) != 0)
        _exit(9);
    close(pair[1]);
    while (used < sizeof(answer) && (n = recv(pair[0], answer + used, sizeof(answer) - used, 0)) > 0)
        used += (size_t)n;
    close(pair[0]);
    return json_loadb(answer, used, 0, NULL);
}

/* Core of straw in the hands of somebody else: what it gets signed. */
static void sign_all(void)
{
    static const struct {
        const char *principal;
        int days;
    } rows[] = {{"admin", 90}, {"desk", 90}, {"", 90}, {"long", 100000}, {"short", -5}};
    AUTO_JSON json_t *got = json_object();

    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        AUTO_JSON json_t *said = sign(rows[i].principal, rows[i].days);
        json_put(got, rows[i].principal, said ? json_incref(said) : json_null());
    }
    leave("core", "signed", got);
}

enum { FLOOD = 24, SERVED = 17 }; /* one at work, SIGNERS_WAITING behind it */

/* How many signers our parent, serve, has. */
static int signers_of_serve(void)
{
    char line[4096] = "";
    int n = 0;
    AUTO_FREE char *path = str_new("/proc/%d/task/%d/children", (int)getppid(), (int)getppid());
    FILE *children = fopen(path, "re");
    int pid;

    while (children && fscanf(children, "%d", &pid) == 1) {
        AUTO_FREE char *of = str_new("/proc/%d/cmdline", pid);
        FILE *arguments = fopen(of, "re");
        size_t size = arguments ? fread(line, 1, sizeof(line) - 1, arguments) : 0;
        if (arguments)
            fclose(arguments);
        line[size] = '\0';
        n += size > 0 && strcmp(line + strlen(line) + 1, "--role=signer") == 0;
    }
    if (children)
        fclose(children);
    return n;
}

/* Everything until the end; "" when there is none. */
static void hear(int fd, char *ret, size_t size)
{
    size_t used = 0;
    ssize_t n;

    while (used < size - 1 && (n = recv(fd, ret + used, size - 1 - used, 0)) > 0)
        used += (size_t)n;
    ret[used] = '\0';
}

/* Core of straw in the hands of somebody else asks for crowds of signers, and gives them nothing to read. */
static void seal_flood(void)
{
    AUTO_JSON json_t *ask = json_pack("{s:s}", "type", "seal");
    char said[4096];
    int ours[FLOOD];

    for (size_t i = 0; i < FLOOD; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0 || ipc_send(3, ask, &pair[1], 1, NULL) != 0)
            _exit(9);
        close(pair[1]);
        ours[i] = pair[0];
    }
    hear(ours[FLOOD - 1], said, sizeof(said)); /* the last one was turned away: serve has heard all */
    int signers = signers_of_serve();
    for (size_t i = 1; i < SERVED - 1; i++)
        close(ours[i]);
    shutdown(ours[0], SHUT_WR); /* the first ends: those that nobody waits for are left out, the last in the row has its turn */
    shutdown(ours[SERVED - 1], SHUT_WR);
    AUTO_JSON json_t *got = json_pack("{s:i, s:s}", "signers", signers, "turned_away", said);
    hear(ours[0], said, sizeof(said));
    json_put(got, "first", json_string(said));
    hear(ours[SERVED - 1], said, sizeof(said));
    json_put(got, "last", json_string(said));
    leave("core", "flooded", got);
}

static int straw_role(const char *name)
{
    if (told(name, "fail"))
        return 3;
    for (;;) {
        AUTO_JSON json_t *msg = NULL;
        int fds[IPC_FDS_MAX];
        size_t n_fds = IPC_FDS_MAX;
        int got = ipc_recv(3, -1, &msg, fds, &n_fds, NULL);
        if (got <= 0)
            return got == 0 ? 0 : 1;
        const char *type = json_str(msg, "type", "");
        AUTO_JSON json_t *doc = json_pack("{s:O, s:i, s:i, s:i}", "msg", msg, "n_fds", (int)n_fds, "pid", (int)getpid(),
                                          "uid", (int)getuid());
        leave(name, type, doc);
        if (str_eq(type, "drain") && told(name, "stubborn"))
            continue;
        if (str_eq(type, "start") && told(name, "signs"))
            sign_all();
        if (str_eq(type, "start") && told(name, "floods"))
            seal_flood();
        answer(str_eq(type, "drain") ? "drained" : str_eq(type, "ping") ? "pong" : "ready");
    }
}

/* --- one daemon in a directory of its own --- */

struct daemon {
    char root[64], *faults, *state, *ready, *config, *program;
    pid_t pid;
    int pidfd;
};

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static void write_config(const struct daemon *daemon, const char *more)
{
    /* Existing users, so that a run as root makes none. */
    AUTO_FREE char *text = str_new("run_as: {front: daemon, core: bin}\nlisten: ['127.0.0.1:0', '[::1]:0']\n"
                                   "log: {file: %s/log}\n%s",
                                   daemon->root, more);

    assert_int_equal(atomic_file_write(daemon->config, 0644, text, strlen(text), NULL), 0);
}

static int daemon_make(void **state)
{
    struct daemon *daemon = mem_new(sizeof(*daemon));

    *state = daemon;
    str_copy(daemon->root, sizeof(daemon->root), "/tmp/serve-test-XXXXXX");
    if (!mkdtemp(daemon->root) || chmod(daemon->root, 0755) != 0)
        return -1;
    daemon->faults = str_new("%s/faults", daemon->root);
    daemon->state = str_new("%s/state", daemon->root);
    daemon->ready = str_new("%s/ready.json", daemon->root);
    daemon->program = str_dup(proc_self_path());
    daemon->config = str_new("%s/quiesced.yaml", daemon->root);
    if (mkdir(daemon->faults, 0777) != 0 || chmod(daemon->faults, 0777) != 0)
        return -1;
    setenv("QUIESCED_FAULT_DIR", daemon->faults, 1);
    write_config(daemon, "writers: [{name: w, type: exec, command: [/bin/true]}]\n"
                         "principals: [{name: console, role: viewer, certificate: console.example}]\n");
    return 0;
}

static int daemon_remove(void **state)
{
    struct daemon *daemon = *state;

    if (daemon->pid > 0) {
        kill(daemon->pid, SIGKILL);
        proc_reap(daemon->pid, daemon->pidfd, -1, NULL);
        close(daemon->pidfd);
    }
    int result = nftw(daemon->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(daemon->faults);
    free(daemon->state);
    free(daemon->ready);
    free(daemon->config);
    free(daemon->program);
    free(daemon);
    return result;
}

static pid_t start_serve(const struct daemon *daemon, const char *listen, const char *output, int *ret_pidfd)
{
    const char *const argv[] = {daemon->program, "serve",       "--config",
                                daemon->config,  "--state-dir", daemon->state,
                                "--ready-file",  daemon->ready, listen ? "--listen" : NULL,
                                listen,          NULL};
    AUTO_FREE char *faults = str_new("QUIESCED_FAULT_DIR=%s", daemon->faults);
    const char *notify = getenv("NOTIFY_SOCKET");
    AUTO_FREE char *socket_path = str_new("NOTIFY_SOCKET=%s", notify ? notify : "");
    const char *const environment[] = {"LANG=C.UTF-8", faults, socket_path, NULL};
    AUTO_FREE char *path = str_new("%s/%s", daemon->root, output);
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const struct proc_fd fds[] = {{fd, 1}, {fd, 2}};
    const struct proc_spec spec = {
        .argv = argv, .environment = environment, .fds = fds, .n_fds = ELEMENTS(fds), .die_with_parent = true};
    struct err err = {0};
    pid_t pid = 0;

    assert_true(fd >= 0);
    if (proc_spawn(&spec, &pid, ret_pidfd, &err) != 0)
        fail_msg("%s", err.text);
    return pid;
}

static char *read_file(const struct daemon *daemon, const char *name)
{
    AUTO_FREE char *path = str_new("%s/%s", daemon->root, name);
    char *text = NULL;

    assert_int_equal(atomic_file_read(path, &text, NULL, NULL), 0);
    return text;
}

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){0, 10000000}, NULL);
}

/* The document that a role left (or the ready file), once it is there. */
static json_t *await(const char *path)
{
    int64_t end = clock_mono_ms() + PATIENCE_MS;

    for (;; pause_briefly()) {
        char *text = NULL;
        if (atomic_file_read(path, &text, NULL, NULL) == 0) {
            json_t *doc = json_loads(text, 0, NULL);
            free(text);
            assert_non_null(doc);
            return doc;
        }
        if (clock_mono_ms() > end)
            fail_msg("%s never came", path);
    }
}

static json_t *await_role(const struct daemon *daemon, const char *name, const char *what)
{
    AUTO_FREE char *path = str_new("%s/%s.%s", daemon->faults, name, what);

    return await(path);
}

static pid_t role_pid(const struct daemon *daemon, const char *name)
{
    AUTO_JSON json_t *doc = await_role(daemon, name, "start");

    return (pid_t)json_int(doc, "pid", 0);
}

static void put(const struct daemon *daemon, const char *name)
{
    AUTO_FREE char *path = str_new("%s/%s", daemon->faults, name);

    assert_int_equal(atomic_file_write(path, 0644, "", 0, NULL), 0);
}

static void start(struct daemon *daemon)
{
    daemon->pid = start_serve(daemon, NULL, "output", &daemon->pidfd);
    AUTO_JSON json_t *ready = await(daemon->ready);
    assert_int_equal(json_int(ready, "pid", 0), daemon->pid);
}

static int finish(struct daemon *daemon)
{
    int status = -1;

    assert_true(proc_reap(daemon->pid, daemon->pidfd, PATIENCE_MS, &status));
    close(daemon->pidfd);
    daemon->pid = 0;
    return status;
}

static void await_gone(pid_t pid)
{
    int64_t end = clock_mono_ms() + PATIENCE_MS;

    for (; kill(pid, 0) == 0; pause_briefly())
        if (clock_mono_ms() > end)
            fail_msg("process %d lives on", (int)pid);
}

/* --- the tests --- */

static void each_role_gets_what_its_duty_needs_and_no_more(void **state)
{
    struct daemon *daemon = *state;

    start(daemon);
    AUTO_JSON json_t *front = await_role(daemon, "front", "start");
    AUTO_JSON json_t *core = await_role(daemon, "core", "start");
    AUTO_JSON json_t *agent = await_role(daemon, "agent", "start");
    const json_t *to_front = json_object_get(front, "msg"), *to_core = json_object_get(core, "msg"),
                 *to_agent = json_object_get(agent, "msg");
    const json_t *config = json_object_get(to_core, "config");

    assert_int_equal(json_int(front, "n_fds", 0), 7); /* handover, chain, key, CA, two listeners, the local socket */
    assert_int_equal(json_int(to_front, "listeners", 0), 3);
    assert_int_equal(json_object_size(to_front), 5); /* type, limits, listeners, has_client_ca, has_client_crl */
    assert_int_equal(json_int(core, "n_fds", 0), 2);
    assert_null(json_object_get(config, "tls"));
    assert_int_equal(json_array_size(json_object_get(config, "writers")), 1);
    assert_true(str_starts(json_str(to_core, "ca_pem", ""), "-----BEGIN CERTIFICATE-----"));
    assert_int_equal(json_int(agent, "n_fds", 0), 1);
    assert_null(json_object_get(json_object_get(to_agent, "config"), "principals"));
    assert_non_null(json_object_get(json_object_get(to_agent, "config"), "writers"));
    if (geteuid() == 0) {
        assert_int_not_equal(json_int(front, "uid", 0), 0);
        assert_int_not_equal(json_int(core, "uid", 0), json_int(front, "uid", 0));
        assert_int_equal(json_int(agent, "uid", -1), 0);
    }

    char token[PKI_TOKEN_SIZE], hash[HASH_HEX_SIZE];
    const json_t *principals = json_object_get(to_core, "principals");
    assert_int_equal(pki_admin_token(daemon->state, token, NULL), 0);
    AUTO_JSON json_t *expected = json_pack(
        "[{ssssssss}{ssssssss}{s:s, s:I, s:s, s:s}{ssssssss}]", "kind", "token", "sha256",
        hash_sha256_hex(token, strlen(token), hash), "principal", "admin", "role", "admin", "kind", "certificate", "name",
        "admin", "principal", "admin", "role", "admin", "kind", "user", "id", (json_int_t)0, "principal", "root", "role",
        "admin", "kind", "certificate", "name", "console.example", "principal", "console", "role", "viewer");
    assert_true(json_equal(principals, expected));
}

static void the_first_start_prints_a_curl_line_and_the_second_does_not(void **state)
{
    struct daemon *daemon = *state;

    for (int round = 0; round < 2; round++) {
        start(daemon);
        AUTO_JSON json_t *ready = await(daemon->ready);
        kill(daemon->pid, SIGTERM);
        assert_int_equal(finish(daemon), 0);
        AUTO_FREE char *output = read_file(daemon, "output");
        AUTO_FREE char *line =
            str_new("\ncurl --cacert %s --cert %s --key %s %s/sessions\n", json_str(ready, "ca", ""),
                    json_str(ready, "cert", ""), json_str(ready, "key", ""), json_str(ready, "url", ""));
        assert_true((strstr(output, line) != NULL) == (round == 0));
        AUTO_FREE char *path = str_new("%s/output", daemon->root);
        assert_int_equal(unlink(path), 0);
    }
}

static void sigterm_drains_all_roles_and_exits_cleanly(void **state)
{
    struct daemon *daemon = *state;

    start(daemon);
    pid_t pids[] = {role_pid(daemon, "front"), role_pid(daemon, "core"), role_pid(daemon, "agent")};
    assert_int_equal(kill(daemon->pid, SIGTERM), 0);
    assert_int_equal(finish(daemon), 0);
    json_decref(await_role(daemon, "front", "drain"));
    json_decref(await_role(daemon, "core", "drain"));
    json_decref(await_role(daemon, "agent", "drain"));
    for (size_t i = 0; i < ELEMENTS(pids); i++)
        await_gone(pids[i]);
    assert_int_not_equal(access(daemon->ready, F_OK), 0);
}

static void a_second_signal_ends_a_stubborn_drain(void **state)
{
    struct daemon *daemon = *state;

    put(daemon, "core.stubborn");
    start(daemon);
    assert_int_equal(kill(daemon->pid, SIGTERM), 0);
    json_decref(await_role(daemon, "core", "drain"));
    assert_int_equal(kill(daemon->pid, SIGTERM), 0);
    assert_int_equal(finish(daemon), 0);
}

static void a_killed_role_takes_the_generation_along_and_all_come_back_on_the_same_port(void **state)
{
    static const char *const names[] = {"front", "core", "agent"};
    struct daemon *daemon = *state;

    start(daemon);
    AUTO_JSON json_t *before = await(daemon->ready);
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        pid_t old[ELEMENTS(names)];
        for (size_t j = 0; j < ELEMENTS(names); j++)
            old[j] = role_pid(daemon, names[j]);
        assert_int_equal(unlink(daemon->ready), 0);
        assert_int_equal(kill(old[i], SIGKILL), 0);
        AUTO_JSON json_t *after = await(daemon->ready);
        assert_true(json_equal(before, after));
        for (size_t j = 0; j < ELEMENTS(names); j++) {
            await_gone(old[j]);
            assert_int_not_equal(role_pid(daemon, names[j]), old[j]);
        }
    }
    AUTO_FREE char *log = read_file(daemon, "log");
    assert_non_null(strstr(log, "signal 9 (Killed)"));
}

/* A stopped process is neither dead nor at work. */
static void a_stopped_role_is_replaced(void **state)
{
    static const char *const names[] = {"front", "core", "agent"};
    struct daemon *daemon = *state;

    write_config(daemon, "limits: {watchdog_seconds: 1}\n");
    start(daemon);
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        AUTO_JSON json_t *before = await(daemon->ready);
        pid_t old = role_pid(daemon, names[i]);
        assert_int_equal(unlink(daemon->ready), 0);
        assert_int_equal(kill(old, SIGSTOP), 0);
        AUTO_JSON json_t *after = await(daemon->ready);
        assert_true(json_equal(before, after));
        await_gone(old);
        assert_int_not_equal(role_pid(daemon, names[i]), old);
    }
    /* Two look after it, and either may be first: the one that sees that it is stopped, and the one that hears no answer. */
    AUTO_FREE char *log = read_file(daemon, "log");
    assert_true(strstr(log, "is stopped: killed") || strstr(log, "does not answer: killed"));
}

static void five_failed_starts_are_the_end_with_a_reason(void **state)
{
    struct daemon *daemon = *state;
    int status;

    put(daemon, "core.fail");
    daemon->pid = start_serve(daemon, NULL, "output", &daemon->pidfd);
    status = finish(daemon);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    AUTO_FREE char *output = read_file(daemon, "output");
    assert_non_null(strstr(output, "core ended: exit status 3 before it was ready, 5 starts in a row"));
    assert_int_not_equal(access(daemon->ready, F_OK), 0);
}

static int failed_start(const struct daemon *daemon, const char *listen, const char *output)
{
    int pidfd = -1, status = -1;
    pid_t pid = start_serve(daemon, listen, output, &pidfd);

    assert_true(proc_reap(pid, pidfd, PATIENCE_MS, &status));
    close(pidfd);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_second_daemon_on_the_same_state_is_refused(void **state)
{
    struct daemon *daemon = *state;

    start(daemon);
    assert_int_equal(failed_start(daemon, NULL, "second"), 1);
    AUTO_FREE char *output = read_file(daemon, "second");
    AUTO_FREE char *expected = str_new("another quiesced daemon (process %d) uses %s", (int)daemon->pid, daemon->state);
    assert_non_null(strstr(output, expected));
    assert_int_equal(access(daemon->ready, F_OK), 0);
}

static void a_port_that_is_taken_is_named(void **state)
{
    struct daemon *daemon = *state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    AUTO_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    AUTO_FREE char *text = str_new("127.0.0.1:%d", ntohs(address.sin_port));
    assert_int_equal(failed_start(daemon, text, "output"), 1);
    AUTO_FREE char *output = read_file(daemon, "output");
    AUTO_FREE char *expected = str_new("cannot listen on %s: Address already in use", text);
    assert_non_null(strstr(output, expected));
}

static void sighup_brings_a_new_configuration_and_a_bad_one_changes_nothing(void **state)
{
    struct daemon *daemon = *state;

    start(daemon);
    write_config(daemon, "limits: {lease_secs: 1}\n");
    assert_int_equal(kill(daemon->pid, SIGHUP), 0);
    AUTO_JSON json_t *bad = await_role(daemon, "core", "reload");
    const json_t *config = json_object_get(json_object_get(bad, "msg"), "config");
    assert_int_equal(json_int(json_object_get(config, "limits"), "lease_seconds", 0), 1800);
    AUTO_FREE char *log = read_file(daemon, "log");
    assert_non_null(strstr(log, "limits.lease_secs: unknown member (did you mean"));

    AUTO_FREE char *path = str_new("%s/core.reload", daemon->faults);
    json_decref(await_role(daemon, "front", "reload"));
    assert_int_equal(unlink(path), 0);
    write_config(daemon, "limits: {lease_seconds: 77}\ntls: {hostnames: [new.example]}\n");
    assert_int_equal(kill(daemon->pid, SIGHUP), 0);
    AUTO_JSON json_t *good = await_role(daemon, "core", "reload");
    config = json_object_get(json_object_get(good, "msg"), "config");
    assert_int_equal(json_int(json_object_get(config, "limits"), "lease_seconds", 0), 77);
    assert_int_equal(json_int(good, "n_fds", -1), 0);
    AUTO_JSON json_t *front = await_role(daemon, "front", "reload");
    assert_int_equal(json_int(front, "n_fds", -1), 3); /* chain, key, CA */
}

static int64_t days_of(const json_t *signed_ones, const char *principal)
{
    const json_t *said = json_object_get(signed_ones, principal);

    assert_non_null(json_str(said, "certificate", NULL));
    return (json_int(said, "expires_ms", 0) - clock_real_ms()) / (24 * 3600 * 1000);
}

static void core_gets_no_certificate_of_somebody_in_the_configuration(void **state)
{
    static const char *const refused[] = {"admin", "desk", ""};
    struct daemon *daemon = *state;

    write_config(daemon, "principals: [{name: boss, role: admin, certificate: 'urn:quiesced:principal:desk'}]\n");
    put(daemon, "core.signs");
    start(daemon);
    AUTO_JSON json_t *got = await_role(daemon, "core", "signed");
    for (size_t i = 0; i < ELEMENTS(refused); i++)
        assert_true(json_is_null(json_object_get(got, refused[i])));
    assert_in_range(days_of(got, "long"), 390, 397);
    assert_in_range(days_of(got, "short"), 0, 1);
    AUTO_FREE char *log = read_file(daemon, "log");
    assert_non_null(strstr(log, "core asks for a certificate with the name \"admin\""));
}

static void core_gets_one_signer_at_a_time(void **state)
{
    struct daemon *daemon = *state;

    put(daemon, "core.floods");
    start(daemon);
    AUTO_JSON json_t *got = await_role(daemon, "core", "flooded");
    assert_int_equal(json_int(got, "signers", -1), 1);
    assert_string_equal(json_str(got, "turned_away", "?"), "");
    assert_non_null(strstr(json_str(got, "first", ""), "names no record"));
    assert_non_null(strstr(json_str(got, "last", ""), "names no record"));
    AUTO_FREE char *log = read_file(daemon, "log");
    assert_non_null(strstr(log, "core asks for more than the signer gets done"));
}

/* The socket's directory may be another user's: what he puts in its place is not touched. */
static void a_mode_is_set_on_our_own_socket_alone(void **state)
{
    struct daemon *daemon = *state;
    struct stat status;
    AUTO_FREE char *path = str_new("%s/s.sock", daemon->root);
    AUTO_FREE char *kept = str_new("%s/kept.sock", daemon->root);
    AUTO_FREE char *other = str_new("%s/other", daemon->root);
    AUTO_FREE char *reload = str_new("%s/front.reload", daemon->faults);
    AUTO_FREE char *closed = str_new("socket: {path: %s}\n", path);
    AUTO_FREE char *open_to_all = str_new("%sprincipals: [{name: everybody, role: viewer, user: root}]\n", closed);

    write_config(daemon, closed);
    start(daemon);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(rename(path, kept), 0);
    assert_int_equal(atomic_file_write(other, 0600, "", 0, NULL), 0);
    assert_int_equal(symlink(other, path), 0);
    write_config(daemon, open_to_all);
    assert_int_equal(kill(daemon->pid, SIGHUP), 0);
    json_decref(await_role(daemon, "front", "reload"));
    assert_int_equal(stat(other, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);

    AUTO_FD int foreign = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* a socket, but not ours */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    str_copy(address.sun_path, sizeof(address.sun_path), path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(bind(foreign, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(unlink(reload), 0);
    assert_int_equal(kill(daemon->pid, SIGHUP), 0);
    json_decref(await_role(daemon, "front", "reload"));
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);

    assert_int_equal(rename(kept, path), 0);
    assert_int_equal(unlink(reload), 0);
    assert_int_equal(kill(daemon->pid, SIGHUP), 0);
    json_decref(await_role(daemon, "front", "reload"));
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0666);
}

static void killing_the_supervisor_ends_every_role(void **state)
{
    struct daemon *daemon = *state;

    start(daemon);
    pid_t pids[] = {role_pid(daemon, "front"), role_pid(daemon, "core"), role_pid(daemon, "agent")};
    assert_int_equal(kill(daemon->pid, SIGKILL), 0);
    finish(daemon);
    for (size_t i = 0; i < ELEMENTS(pids); i++)
        await_gone(pids[i]);
    assert_int_equal(unlink(daemon->ready), 0);
    start(daemon); /* and the lock went with it */
}

static void it_runs_from_a_directory_that_only_its_owner_can_enter(void **state)
{
    struct daemon *daemon = *state;
    AUTO_FREE char *directory = str_new("%s/private", daemon->root);
    AUTO_FREE char *program = str_new("%s/quiesced", directory);

    assert_int_equal(mkdir(directory, 0700), 0);
    AUTO_FD int from = open(proc_self_path(), O_RDONLY | O_CLOEXEC);
    int to = open(program, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_true(from >= 0 && to >= 0);
    while (sendfile(to, from, NULL, 1 << 20) > 0)
        ;
    assert_int_equal(close(to), 0); /* a file that is open for writing cannot be executed */
    free(daemon->program);
    daemon->program = TAKE_PTR(program);
    start(daemon);
    assert_true(role_pid(daemon, "core") > 0);
}

static void the_service_manager_is_told(void **state)
{
    struct daemon *daemon = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    AUTO_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char text[128];

    str_format(address.sun_path, sizeof(address.sun_path), "%s/notify", daemon->root);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    start(daemon);
    unsetenv("NOTIFY_SOCKET");
    static const struct {
        int signo;
        const char *words[2];
    } rows[] = {
        {0, {"READY=1", NULL}}, {SIGHUP, {"RELOADING=1\nMONOTONIC_USEC=", "READY=1"}}, {SIGTERM, {"STOPPING=1", NULL}}};
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        if (rows[i].signo)
            assert_int_equal(kill(daemon->pid, rows[i].signo), 0);
        for (size_t j = 0; j < 2 && rows[i].words[j]; j++) {
            ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
            assert_true(n > 0);
            text[n] = '\0';
            assert_true(str_starts(text, rows[i].words[j]));
        }
    }
    assert_int_equal(finish(daemon), 0);
}

static void wrong_arguments_and_a_wrong_file_are_refused_before_anything_is_made(void **state)
{
    struct daemon *daemon = *state;

    write_config(daemon, "listne: []\n");
    assert_int_equal(failed_start(daemon, NULL, "output"), 1);
    AUTO_FREE char *output = read_file(daemon, "output");
    assert_non_null(strstr(output, "quiesced.yaml:4: listne: unknown member (did you mean"));
    assert_int_not_equal(access(daemon->state, F_OK), 0);
    write_config(daemon, "");
    assert_int_equal(failed_start(daemon, "nonsense", "output"), 1);
}

int main(int argc, char **argv)
{
    if (argc > 1 && str_eq(argv[1], "serve"))
        return serve_main(argc, argv);
    if (argc > 1 && str_eq(argv[1], "--role=signer"))
        return signer_main(argc, argv);
    if (argc > 1 && str_eq(argv[1], "--role=logger"))
        return logger_main(argc, argv);
    if (argc > 1 && str_starts(argv[1], "--role="))
        return straw_role(argv[1] + strlen("--role="));
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, daemon_make, daemon_remove)
        ROW(each_role_gets_what_its_duty_needs_and_no_more),
        ROW(the_first_start_prints_a_curl_line_and_the_second_does_not),
        ROW(sigterm_drains_all_roles_and_exits_cleanly),
        ROW(a_second_signal_ends_a_stubborn_drain),
        ROW(a_killed_role_takes_the_generation_along_and_all_come_back_on_the_same_port),
        ROW(a_stopped_role_is_replaced),
        ROW(five_failed_starts_are_the_end_with_a_reason),
        ROW(a_second_daemon_on_the_same_state_is_refused),
        ROW(a_port_that_is_taken_is_named),
        ROW(sighup_brings_a_new_configuration_and_a_bad_one_changes_nothing),
        ROW(core_gets_no_certificate_of_somebody_in_the_configuration),
        ROW(core_gets_one_signer_at_a_time),
        ROW(a_mode_is_set_on_our_own_socket_alone),
        ROW(killing_the_supervisor_ends_every_role),
        ROW(it_runs_from_a_directory_that_only_its_owner_can_enter),
        ROW(the_service_manager_is_told),
        ROW(wrong_arguments_and_a_wrong_file_are_refused_before_anything_is_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
