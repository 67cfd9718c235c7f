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
    SERVE_STOP_MS = 25000,        /* after end-of-file: every role undoes and exits; then SIGKILL. The agent gives its workers 15 s, 3 s after
                                   * SIGKILL, and then ends the writers of those that hang. In a restore RESTORE_UNDO_AGENT_MS */
    SERVE_DRAIN_EXTRA_MS = 20000, /* beyond limits.drain_seconds */
    SERVE_FRONT_GRACE_MS = 2000,  /* idle connections are not waited for once core is drained */
    SERVE_BACKOFF_FIRST_MS = 100,
    SERVE_BACKOFF_MAX_MS = 5000,
    SERVE_STEADY_MS = 10000, /* a generation that served this long starts the backoff anew */
    SERVE_FAILED_STARTS_MAX = 5,
    SERVE_ORPHAN_MS = 20000, /* a worker whose agent died undoes and exits (agent.c: UNDO_MS, and a little); in a restore RESTORE_UNDO_AGENT_MS */
    SERVE_RENEW_AGAIN_MS = 600 * 1000, /* after a renewal that failed */
    SERVE_AWAIT_MS = 10000, /* until it is told which roles have not reported for duty */
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
/* Makes the directories above path that are missing. */
int places_parents(const char *path, struct err *err);
/* Makes the state directory and takes its lock. Returns the lock's fd, or -1. */
int places_lock(const char *state_dir, struct err *err);
/* store (owned by core's user), staging. */
int places_make(struct places *places, const json_t *config, const struct proc_identity *core, struct err *err);
/* As root: the user, created when missing. Otherwise the caller. */
int places_user(const char *name, struct proc_identity *ret, struct err *err);
/* log.file of the configuration, for appending; -1 with err. The logger opens it again by itself. */
int places_log(const char *path, struct err *err);

/* --- logging.c: the logger, and the pipe to it that is the standard error of us all --- */
struct logging {
    const char *path; /* log.file, or NULL; the configuration's */
    bool journals;    /* it is the journal: the logger sends to its socket */
    int read_fd;      /* of the pipe; -1: not begun */
    int sink_fd;      /* where the logger writes: log.file, or what was our standard error */
    pid_t pid;        /* 0: it has died, and another one will be started */
    int pidfd;
    struct loop *loop;
    struct loop_io *exit_io;
    struct loop_timer *again;
};
/* Puts the logger between us and our standard error. On failure that stays as it was. */
int logging_begin(struct logging *logging, struct err *err);
/* Log lines go to path (borrowed for good) from now on. ret_terminal: the standard error of before. */
int logging_to_file(struct logging *logging, const char *path, int *ret_terminal, struct err *err);
/* Starts another logger whenever one dies. */
void logging_watch(struct logging *logging, struct loop *loop);
void logging_unwatch(struct logging *logging);
/* The logger opens log.file again: it may have been renamed. */
void logging_reopen(const struct logging *logging);
/* Waits (bounded) until everything is written; standard error is then what it was. */
void logging_end(struct logging *logging);

/* --- names.c --- */
/* {"hostnames":[...],"addresses":[...]}: tls.hostnames, the host's own names, the addresses of its interfaces. */
json_t *names_collect(const json_t *config);
void names_node(char *ret, size_t size);

/* --- inherited.c: sockets that a service manager has opened for us --- */
enum { INHERITED_MAX = 64 };
struct inherited {
    struct inherited_fd {
        int fd; /* -1: taken */
        char name[32];
    } all[INHERITED_MAX];
    size_t n;
};
/* Before anything else is opened: the descriptors are known by their numbers. */
void inherited_take(struct inherited *ret);
bool inherited_has(const struct inherited *inherited, const char *name);
/* The next listening socket of that name, the caller's from now on, or -1. */
int inherited_pull(struct inherited *inherited, const char *name);
void inherited_close(struct inherited *inherited); /* what nobody wanted, which is told */

/* --- listeners.c --- */
#define LISTENERS_INHERITED "listen" /* FileDescriptorName= of quiesced.socket */
struct listeners {
    int fds[SERVE_LISTENERS_MAX];
    size_t n;
    bool inherited; /* in place of the configuration's */
};
/* Takes those that a service manager has opened; there may be none. */
int listeners_take(struct listeners *listeners, struct inherited *inherited, struct err *err);
/* ["127.0.0.1:8877"]: where they really are. New reference. */
json_t *listeners_texts(const struct listeners *listeners);
/* texts: array of "ADDR:PORT". forgiving: an address family that the host lacks is left out, as long as one is served.
 */
int listeners_open(struct listeners *listeners, const json_t *texts, bool forgiving, struct err *err);
void listeners_close(struct listeners *listeners);
/* "https://127.0.0.1:8877" of one of them. */
void listeners_url(const struct listeners *listeners, size_t i, char ret[96]);

/* --- local_socket.c --- */
struct local_socket {
    int fd; /* listening; -1: there is none */
    char path[PATH_MAX];
    dev_t device; /* of the socket that we made at path */
    ino_t inode;
};
/* At socket.path, else api.sock in the state directory. What is configured and cannot be is an error, the default is not. */
int local_socket_open(struct local_socket *local, const json_t *config, const char *state_dir, struct err *err);
/* Its mode follows the configuration: 0600, and 0666 as soon as users or groups are principals. */
void local_socket_update(const struct local_socket *local, const json_t *config);
void local_socket_close(struct local_socket *local); /* and removes it */

/* --- notify.c: what the outside is told --- */
void notify_state(const char *state); /* sd_notify: "READY=1"; nothing without NOTIFY_SOCKET */
void notify_reloading(void);
/* How often it wants to hear from us (sd_watchdog_enabled(3)), in ms; 0: not at all. */
int64_t notify_watchdog_ms(void);
struct ready {
    char url[96];
    const char *ca, *certificate, *key, *token_file, *socket; /* socket: NULL = none */
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
    bool joined; /* a unit of its own, and no child of ours: how it ended is not ours to know */
    bool ready, drained;
    bool killed; /* by us, because it did not end by itself */
    unsigned unanswered; /* rounds of the watchdog in a row */
};

/* Carries deliveries of webhooks. It is core's: no other role depends on it, and its death is core's to notice. */
struct courier_process {
    pid_t pid; /* 0: not running */
    int pidfd;
    struct loop_io *exit_io;
};

/* signers.c: on core's word, at most one of each kind at a time. */
enum signer_kind { SIGNER_OF_CERTIFICATES, SIGNER_OF_SEALS, SIGNER_KINDS };
enum {
    SIGNER_MS = 30000, /* then it is killed; core itself waits 20 s for an answer */
    SIGNERS_WAITING = 16,
};
struct signer_order {
    int fd;          /* its input and its output */
    char *principal; /* NULL: a seal */
    int days;
};
struct signer {
    struct serve *serve;
    pid_t pid; /* 0: none is at work */
    int pidfd;
    struct loop_io *exit_io;
    struct loop_timer *bound;
    struct signer_order waiting[SIGNERS_WAITING];
    size_t n_waiting;
};

/* Roles that a service manager starts. */
enum { JOIN_COURIER = ROLE_NAMES, JOIN_NAMES };
struct joining {
    bool active; /* there are sockets for all roles: we start none of them */
    bool awaiting; /* a generation starts as soon as all roles are there */
    struct {
        int fd;
        struct loop_io *io;
    } listeners[JOIN_NAMES];
    struct joiner { /* has reported for duty, and waits */
        struct serve *serve;
        size_t name;
        int fd, pidfd; /* -1: nobody waits */
        pid_t pid;
        struct loop_io *io;
    } joiners[JOIN_NAMES];
    int courier_fd;    /* the channel of a courier that is wanted, or -1 */
    int courier_pidfd; /* the one at work, or -1 */
};

struct serve {
    struct loop *loop;
    struct serve_options options;
    struct places places;
    json_t *config;
    json_t *local_users; /* local_users.h: what is known */
    char node[256];
    bool root;
    struct proc_identity front_user, core_user, courier_user;
    struct courier_process courier;
    struct signer signers[SIGNER_KINDS];
    struct inherited inherited;
    struct joining joining;
    struct listeners listeners;
    struct local_socket local;
    struct logging logging;
    char *log_file;  /* log.file, or NULL: for the life of the process */
    int terminal_fd; /* serve's own standard error from before log.file, or -1 */
    struct role roles[ROLE_NAMES];
    enum phase phase;
    bool ending; /* SIGTERM, SIGINT, or too many failed starts */
    int exit_code;
    struct err failure; /* why there was no start, or no more; told on the terminal as well */
    bool announced, first_start, reload_pending;
    bool agent_draining; /* the second half of a drain: front and core are done */
    bool restoring;          /* the agent says that an application may be stopped for a restore */
    int64_t restoring_until; /* the same of generations that are gone: clock_mono_ms() */
    unsigned failed_starts;
    bool previous_by_signal;
    char previous_end[160];  /* "agent ended: signal 9 (Killed)": why the last generation ended; "" when it was asked to */
    json_t *figures[ROLE_NAMES];    /* the last that each role told of itself, or NULL */
    uint64_t restarts[ROLE_NAMES];  /* generations that ended because of it */
    int64_t backoff_ms;
    int64_t serving_since;
    struct loop_timer *bound;   /* of the phase: start, drain, stop */
    struct loop_timer *backoff; /* next start */
    struct loop_timer *grace;   /* front after core, in a drain */
    struct loop_timer *renew;
    struct loop_timer *watchdog;
};

/* --- children.c --- */
/* NULL-ended, static: the minimal environment and what tests hand through. */
const char *const *children_environment(void);
int children_run_signer(struct serve *serve, struct err *err);
/* Starts a signer for one client certificate, unless principal is a name by which the configuration knows certificates of the private CA: core
 * must not become who is not enrolled. days: 1 to 397, others count as the nearest. fd (borrowed) is its input and its output. */
int children_sign(struct serve *serve, const char *principal, int days, int fd, struct err *err);
/* Starts a signer for a seal of the audit trail; as above. */
int children_seal(struct serve *serve, int fd, struct err *err);
/* The process itself. order is borrowed. */
int children_spawn_signer(struct serve *serve, const struct signer_order *order, pid_t *ret_pid, int *ret_pidfd, struct err *err);
/* Starts one role; control: its end of the channel, which it finds on fd 3. */
int children_spawn(struct serve *serve, enum role_name name, int control, struct err *err);

/* --- signers.c --- */
/* Starts it, or lets it wait for the one of its kind that is at work. VSS_E_UNEXPECTED when SIGNERS_WAITING do so. order and its fd are borrowed. */
int signers_take(struct serve *serve, enum signer_kind kind, const struct signer_order *order, struct err *err);
bool signers_own(const struct serve *serve, pid_t pid);
void signers_stop(struct serve *serve);

/* --- joining.c --- */
/* Takes the roles' sockets, when a service manager has opened them: all of them, or none. */
int joining_begin(struct serve *serve, struct inherited *inherited, struct err *err);
void joining_listen(struct serve *serve); /* with the loop, and once the users of run_as are known */
void joining_end(struct serve *serve);
bool joining_complete(const struct serve *serve); /* every role waits */
bool joining_lacks(struct serve *serve, char *ret, size_t size); /* "front, core": who does not */
/* Takes the waiting one: fills role but for its channel, and returns the channel's fd, or -1. */
int joining_take(struct serve *serve, enum role_name name, struct role *role, struct err *err);
/* What courier_start does, with a courier that is a unit. fd is borrowed. */
int joining_courier(struct serve *serve, int fd, struct err *err);

/* --- courier.c --- */
/* Starts the courier with fd (borrowed) as its channel to core; one that still runs is killed: core has let go of it. */
int courier_start(struct serve *serve, int fd, struct err *err);
void courier_stop(struct serve *serve); /* kills and reaps it; nothing when there is none */

/* --- messages.c --- */
/* The fds that one message carries. */
struct message_fds {
    int fds[IPC_FDS_MAX];
    size_t n;
};
enum { FRONT_FILES = 5 };
/* Opens chain, key, private CA, client CA and its revocation list (-1 when there is none). All are the caller's to close. */
int messages_open_files(const struct serve *serve, int ret_fds[FRONT_FILES], struct err *err);
json_t *messages_front(const struct serve *serve, const char *type);
json_t *messages_core(const struct serve *serve, const char *type, struct err *err); /* NULL with err */
json_t *messages_agent(const struct serve *serve, const char *type);

/* --- watchdog.c --- */
void watchdog_start(struct serve *serve);
void watchdog_answered(struct role *role); /* it said "pong" */

/* --- figures.c --- */
/* What a role tells of itself goes to core, for GET /metrics. */
void generation_figures_take(struct role *role, json_t *figures /* borrowed; NULL: it told none */);
void generation_figures_drop(struct serve *serve);

/* --- generation.c --- */
void generation_start(struct serve *serve);
/* May an application be stopped for a restore that is yet to be undone? Whoever undoes it has RESTORE_UNDO_AGENT_MS then. */
bool generation_restores(const struct serve *serve);
/* Tells running roles about a new configuration or new certificates. */
void generation_reload(struct serve *serve);
void generation_drain(struct serve *serve);
/* Closes every channel and waits for the exits. */
void generation_stop(struct serve *serve);
