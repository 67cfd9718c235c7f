#include "serve/serve.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/kin.h"
#include "base/log.h"
#include "base/str.h"
#include "base/undo_bounds.h"
#include "conf/conf.h"
#include "guardian/thaw_orphans.h"
#include "serve/serve_private.h"

/* --- configuration --- */

static int read_config(const struct serve_options *options, json_t **ret)
{
    AUTO_JSON json_t *faults = NULL;
    size_t i;
    json_t *fault;

    if (!options->config) {
        *ret = conf_default();
        return 0;
    }
    if (conf_read(options->config, ret, &faults) == 0)
        return 0;
    json_array_foreach(faults, i, fault) log_line(LOG_LEVEL_ERROR, NULL, "%s", json_string_value(fault));
    return -1;
}

/* The configuration may name a state directory; what was chosen at the start holds. */
static void settle_config(struct serve *serve, json_t *config)
{
    if (serve->listeners.inherited) {
        json_put(config, "listen", listeners_texts(&serve->listeners));
    } else if (serve->options.n_listen > 0) {
        json_t *listen = json_array();
        for (size_t i = 0; i < serve->options.n_listen; i++)
            json_add(listen, json_string(serve->options.listen[i]));
        json_put(config, "listen", listen);
    }
    conf_place(config, serve->places.state_dir);
    json_decref(serve->config);
    serve->config = config;
}

/* What takes a new start to change stays as it was, and is told: nothing is half applied. */
static void keep_unchangeable(const json_t *before, json_t *after)
{
    static const char *const sections[] = {"listen", "run_as", "log", "providers", "socket"};

    for (size_t i = 0; i < ELEMENTS(sections); i++) {
        json_t *old = json_object_get(before, sections[i]);
        if (json_equal(old, json_object_get(after, sections[i])))
            continue;
        json_put(after, sections[i], json_deep_copy(old));
        log_line(LOG_LEVEL_WARNING, NULL, "%s has changed: takes effect when quiesced is started again", sections[i]);
    }
}

/* --- signals --- */

static void on_stop_signal(void *arg, int signo)
{
    struct serve *serve = arg;

    if (serve->ending) { /* the second one: undo now */
        generation_stop(serve);
        return;
    }
    log_line(LOG_LEVEL_INFO, NULL, "%s: draining", strsignal(signo));
    notify_state("STOPPING=1");
    serve->ending = true;
    loop_timer_stop(serve->backoff);
    if (serve->phase == PHASE_RESTING)
        loop_quit(serve->loop, serve->exit_code);
    else
        generation_drain(serve);
}

static void renew_credentials(struct serve *serve)
{
    struct err err = {0};

    if (children_run_signer(serve, &err) != 0)
        log_err(LOG_LEVEL_ERROR, NULL, &err, "certificates");
}

static void on_reload_signal(void *arg, int signo)
{
    struct serve *serve = arg;
    json_t *config = NULL;

    (void)signo;
    if (serve->ending)
        return;
    notify_reloading();
    logging_reopen(&serve->logging);
    if (read_config(&serve->options, &config) == 0) {
        AUTO_JSON json_t *before = json_incref(serve->config);
        settle_config(serve, config);
        keep_unchangeable(before, serve->config);
        local_socket_update(&serve->local, serve->config);
        log_line(LOG_LEVEL_INFO, NULL, "configuration read again");
    } else {
        log_line(LOG_LEVEL_ERROR, NULL, "the configuration read before stays in force");
    }
    renew_credentials(serve);
    generation_reload(serve);
    notify_state("READY=1");
}

static void on_backoff(void *arg)
{
    generation_start(arg);
}

/* When a certificate is due, and twice a day, since a host may get new addresses. One that could not be renewed is tried again. */
static void set_renew_timer(struct serve *serve)
{
    int64_t due = pki_due_in(serve->places.state_dir, SERVE_RENEW_MS);

    loop_timer_set(serve->renew, due > 0 ? due : SERVE_RENEW_AGAIN_MS);
}

/* A daemon that runs for a year must outlive its certificates. */
static void on_renew(void *arg)
{
    struct serve *serve = arg;
    struct stat before = {0}, after = {0};
    const char *path = serve->places.pki.server_certificate;

    if (stat(path, &before) != 0)
        before.st_ino = 0;
    renew_credentials(serve);
    set_renew_timer(serve);
    if (stat(path, &after) == 0 && after.st_ino != before.st_ino)
        generation_reload(serve);
}

/* --- the start --- */

/* front needs three descriptors for each connection (platform-facts 5), core two. */
static void raise_file_limit(const json_t *config)
{
    rlim_t wanted = 4 * (rlim_t)json_int(json_object_get(config, "limits"), "connections", 10000) + 1024;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    struct rlimit more = {wanted, limit.rlim_max > wanted ? limit.rlim_max : wanted};
    if (setrlimit(RLIMIT_NOFILE, &more) == 0)
        return;
    limit.rlim_cur = limit.rlim_max; /* not allowed to raise the hard one: as far as it goes */
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int open_log(struct serve *serve, struct err *err)
{
    const char *path = json_str(json_object_get(serve->config, "log"), "file", NULL);

    if (!path)
        return 0;
    serve->log_file = str_dup(path);
    return logging_to_file(&serve->logging, serve->log_file, &serve->terminal_fd, err);
}

static int find_users(struct serve *serve, struct err *err)
{
    const json_t *run_as = json_object_get(serve->config, "run_as");

    if (places_user(json_str(run_as, "front", ""), &serve->front_user, err) != 0 ||
        places_user(json_str(run_as, "core", ""), &serve->core_user, err) != 0 ||
        places_user(json_str(run_as, "courier", ""), &serve->courier_user, err) != 0)
        return -1;
    const uid_t front = serve->front_user.uid, core = serve->core_user.uid, courier = serve->courier_user.uid;
    if (serve->root && (front == core || courier == front || courier == core || front == 0 || core == 0 || courier == 0))
        return err_set(err, E_INVALIDARG, "Name three system users of their own in run_as.",
                       "run_as: front, core and courier must be three users, and none of them root");
    return 0;
}

/* The service manager's, or those of the configuration. */
static int open_listeners(struct serve *serve, struct err *err)
{
    AUTO_JSON json_t *defaults = conf_default();
    const json_t *listen = json_object_get(serve->config, "listen");
    bool forgiving = json_equal(listen, json_object_get(defaults, "listen")); /* nobody asked for [::1] */

    if (listeners_take(&serve->listeners, &serve->inherited, err) != 0)
        return -1;
    if (!serve->listeners.inherited)
        return listeners_open(&serve->listeners, listen, forgiving, err);
    settle_config(serve, json_deep_copy(serve->config));
    return 0;
}

static int prepare(struct serve *serve, int *ret_lock, struct err *err)
{
    if (options_state_dir(&serve->options, serve->config, serve->places.state_dir, err) != 0)
        return -1;
    settle_config(serve, json_deep_copy(serve->config));
    if (joining_begin(serve, &serve->inherited, err) != 0)
        return -1;
    *ret_lock = places_lock(serve->places.state_dir, err);
    if (*ret_lock < 0 || open_log(serve, err) != 0 || find_users(serve, err) != 0 ||
        places_make(&serve->places, serve->config, &serve->core_user, err) != 0)
        return -1;
    if (serve->options.ready_file)
        unlink(serve->options.ready_file); /* one of an earlier run would promise too much */
    if (open_listeners(serve, err) != 0)
        return -1;
    if (local_socket_open(&serve->local, serve->config, serve->places.state_dir, err) != 0)
        return -1;
    serve->first_start = access(serve->places.pki.admin_token, F_OK) != 0;
    if (children_run_signer(serve, err) != 0)
        return -1;
    int files[FRONT_FILES]; /* a wrong path under tls is the operator's to mend: no use in starting five times */
    if (messages_open_files(serve, files, err) != 0)
        return -1;
    for (size_t i = 0; i < FRONT_FILES; i++)
        if (files[i] >= 0)
            close(files[i]);
    return 0;
}

static bool is_own(void *arg, pid_t pid)
{
    const struct serve *serve = arg;

    for (size_t i = 0; i < ROLE_NAMES; i++)
        if (serve->roles[i].pid == pid)
            return true;
    return serve->logging.pid == pid || serve->courier.pid == pid || signers_own(serve, pid);
}

static int orphans_patience_ms(void *arg)
{
    return generation_restores(arg) ? RESTORE_UNDO_AGENT_MS : SERVE_ORPHAN_MS;
}

static int run(struct serve *serve)
{
    static const int stops[] = {SIGTERM, SIGINT};

    serve->loop = loop_new();
    for (size_t i = 0; i < ELEMENTS(stops); i++)
        loop_signal_add(serve->loop, stops[i], on_stop_signal, serve);
    loop_signal_add(serve->loop, SIGHUP, on_reload_signal, serve);
    serve->backoff = loop_timer_new(serve->loop, on_backoff, serve);
    serve->renew = loop_timer_new(serve->loop, on_renew, serve);
    set_renew_timer(serve);
    logging_watch(&serve->logging, serve->loop);
    struct kin *kin = kin_new(serve->loop, orphans_patience_ms, is_own, serve);
    watchdog_start(serve);
    joining_listen(serve);
    generation_start(serve);
    int code = loop_run(serve->loop);
    courier_stop(serve);
    signers_stop(serve);
    joining_end(serve);
    kin_free(kin);
    logging_unwatch(&serve->logging);
    loop_timer_free(serve->backoff);
    loop_timer_free(serve->renew);
    loop_timer_free(serve->watchdog);
    loop_timer_free(serve->bound);
    loop_timer_free(serve->grace);
    loop_free(serve->loop);
    if (serve->options.ready_file && serve->announced)
        unlink(serve->options.ready_file);
    return code;
}

/* Whoever started us looks there and not into log.file. */
static void tell_terminal(const struct serve *serve)
{
    const struct err *err = &serve->failure;
    if (serve->terminal_fd >= 0)
        dprintf(serve->terminal_fd, "quiesced: %s%s%s\n", err->text, err->hint[0] ? ". " : "", err->hint);
}

static int serve_whole(struct serve *serve, struct err *err)
{
    AUTO_FD int lock = -1;

    serve->root = geteuid() == 0;
    names_node(serve->node, sizeof(serve->node));
    if (read_config(&serve->options, &serve->config) != 0)
        return 1;
    raise_file_limit(serve->config);
    int prepared = prepare(serve, &lock, err);
    inherited_close(&serve->inherited);
    if (prepared == 0)
        return run(serve);
    log_err(LOG_LEVEL_ERROR, NULL, err, "cannot start");
    return 1;
}

int serve_main(int argc, char **argv)
{
    struct serve serve = {.terminal_fd = -1, .local_users = json_object(), .local = {.fd = -1}, .logging = {.read_fd = -1}, .backoff_ms = SERVE_BACKOFF_FIRST_MS};
    int code = 1;

    log_init("serve", LOG_LEVEL_INFO);
    if (options_parse(argc, argv, &serve.options) != 0)
        return 2;
    inherited_take(&serve.inherited);
    signal(SIGPIPE, SIG_IGN); /* whoever read our standard output may be gone */
    umask(022);
    /* Before the thaw: what is told of it could block on what is still to be thawed. The thaw comes in any case. */
    bool logging = logging_begin(&serve.logging, &serve.failure) == 0;
    if (!inherited_has(&serve.inherited, "agent")) /* an agent that is a unit has done so before it started */
        thaw_orphans();
    if (logging)
        code = serve_whole(&serve, &serve.failure);
    else
        log_err(LOG_LEVEL_ERROR, NULL, &serve.failure, "cannot start");
    listeners_close(&serve.listeners);
    local_socket_close(&serve.local);
    logging_end(&serve.logging);
    if (serve.failure.text[0])
        tell_terminal(&serve);
    json_decref(serve.config);
    generation_figures_drop(&serve);
    json_decref(serve.local_users);
    free(serve.log_file);
    if (serve.terminal_fd >= 0)
        close(serve.terminal_fd);
    return code;
}
