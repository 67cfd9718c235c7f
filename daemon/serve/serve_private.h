#pragma once
/* What the files of this folder share. */
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/ident.h"
#include "base/ipc.h"
#include "base/loop.h"
#include "base/proc.h"
#include "crypto/pki.h"

enum {
    SERVE_LISTENERS_MAX = 16,     /* conf_spec.c: listen */
    SERVE_START_MS = 30000,       /* until all roles are ready; recovery of a large store takes seconds */
    SERVE_STOP_MS = 15000,        /* after end-of-file: every role undoes and exits; then SIGKILL */
    SERVE_DRAIN_EXTRA_MS = 20000, /* beyond limits.drain_seconds */
    SERVE_FRONT_GRACE_MS = 2000,  /* idle connections are not waited for once core is drained */
    SERVE_BACKOFF_FIRST_MS = 100,
    SERVE_BACKOFF_MAX_MS = 5000,
    SERVE_STEADY_MS = 10000, /* a generation that served this long starts the backoff anew */
    SERVE_FAILED_STARTS_MAX = 5,
    SERVE_RENEW_MS = 12 * 3600 * 1000, /* how often names, addresses and ends of certificates are looked at */
};

/* --- options.c --- */
struct serve_options {
    const char *config;     /* NULL: none */
    const char *state_dir;  /* NULL: not given */
    const char *ready_file; /* NULL: none */
    const char *listen[SERVE_LISTENERS_MAX];
    size_t n_listen;
};
/* 0, or -1 with the usage printed. */
int options_parse(int argc, char **argv, struct serve_options *ret);
/* --state-dir, else state_dir of the configuration, else the place for this user. Absolute. */
int options_state_dir(const struct serve_options *options, const json_t *config, char ret[PATH_MAX], struct err *err);

/* --- places.c: directories, lock, users --- */
struct places {
    char state_dir[PATH_MAX], store[PATH_MAX], staging[PATH_MAX];
    struct pki_paths pki;
    char installation[UUID_SIZE]; /* of this state directory: part of the ownership mark of its snapshots */
};
/* Makes the state directory and takes its lock. Returns the lock's fd, or -1. */
int places_lock(const char *state_dir, struct err *err);
/* store (owned by core's user), staging. */
int places_make(struct places *places, const json_t *config, const struct proc_identity *core, struct err *err);
/* As root: the user, created when missing. Otherwise the caller. */
int places_user(const char *name, struct proc_identity *ret, struct err *err);
/* log.file of the configuration, for appending; -1 with err. */
int places_log(const char *path, struct err *err);

/* --- names.c --- */
/* {"hostnames":[...],"addresses":[...]}: tls.hostnames, the host's own names, the addresses of its interfaces. */
json_t *names_collect(const json_t *config);
void names_node(char *ret, size_t size);

/* --- listeners.c --- */
struct listeners {
    int fds[SERVE_LISTENERS_MAX];
    size_t n;
};
/* texts: array of "ADDR:PORT". forgiving: an address family that the host lacks is left out, as long as one is served.
 */
int listeners_open(struct listeners *listeners, const json_t *texts, bool forgiving, struct err *err);
void listeners_close(struct listeners *listeners);
/* "https://127.0.0.1:8877" of one of them. */
void listeners_url(const struct listeners *listeners, size_t i, char ret[96]);

/* --- notify.c: what the outside is told --- */
void notify_state(const char *state); /* sd_notify: "READY=1"; nothing without NOTIFY_SOCKET */
void notify_reloading(void);
struct ready {
    char url[96];
    const char *ca, *certificate, *key, *token_file;
};
int notify_ready_file(const char *path, const struct ready *ready, struct err *err);
/* What is served; with first_start the curl line. */
void notify_print(const struct listeners *listeners, const struct ready *ready, bool first_start);

/* --- the supervisor itself --- */
enum role_name { ROLE_NAME_AGENT, ROLE_NAME_CORE, ROLE_NAME_FRONT, ROLE_NAMES };
enum phase {
    PHASE_STARTING, /* spawned, not all ready */
    PHASE_SERVING,
    PHASE_DRAINING,
    PHASE_STOPPING, /* channels closed, waiting for the exits */
    PHASE_RESTING,  /* nothing runs: backoff before the next start, or the end */
};

struct serve;
struct role {
    struct serve *serve;
    const char *name;
    pid_t pid; /* 0: not running */
    int pidfd;
    struct loop_io *exit_io;
    struct ipc_channel *channel;
    bool ready, drained;
};

struct serve {
    struct loop *loop;
    struct serve_options options;
    struct places places;
    json_t *config;
    char node[256];
    bool root;
    struct proc_identity front_user, core_user;
    struct listeners listeners;
    int log_fd;      /* what roles get as standard error */
    int terminal_fd; /* serve's own standard error from before log.file, or -1 */
    struct role roles[ROLE_NAMES];
    enum phase phase;
    bool ending; /* SIGTERM, SIGINT, or too many failed starts */
    int exit_code;
    bool announced, first_start, reload_pending;
    bool agent_draining; /* the second half of a drain: front and core are done */
    unsigned failed_starts;
    int64_t backoff_ms;
    int64_t serving_since;
    struct loop_timer *bound;   /* of the phase: start, drain, stop */
    struct loop_timer *backoff; /* next start */
    struct loop_timer *grace;   /* front after core, in a drain */
    struct loop_timer *renew;
};

/* --- children.c --- */
/* NULL-ended, static: the minimal environment and what tests hand through. */
const char *const *children_environment(void);
int children_run_signer(struct serve *serve, struct err *err);
/* Starts one role; control: its end of the channel, which it finds on fd 3. */
int children_spawn(struct serve *serve, enum role_name name, int control, struct err *err);

/* --- messages.c --- */
/* The fds that one message carries. */
struct message_fds {
    int fds[IPC_FDS_MAX];
    size_t n;
};
enum { FRONT_FILES = 4 };
/* Opens chain, key, private CA and client CA (-1 when there is none). All are the caller's to close. */
int messages_open_files(const struct serve *serve, int ret_fds[FRONT_FILES], struct err *err);
json_t *messages_front(const struct serve *serve, const char *type);
json_t *messages_core(const struct serve *serve, const char *type, struct err *err); /* NULL with err */
json_t *messages_agent(const struct serve *serve, const char *type);

/* --- generation.c --- */
void generation_start(struct serve *serve);
/* Tells running roles about a new configuration or new certificates. */
void generation_reload(struct serve *serve);
void generation_drain(struct serve *serve);
/* Closes every channel and waits for the exits. */
void generation_stop(struct serve *serve);
