#include "front/front.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/preface.h"
#include "base/str.h"
#include "front/connection.h"
#include "front/tls.h"

enum {
    CONTROL_FD = 3,
    FDS_PER_CONNECTION = 2,
    FDS_OTHER = 64, /* listeners, control, handover, and core's ends of sockets that wait for the handover */
};

/* Where the descriptors of a message begin; -1 = not among them. */
struct message_fds {
    int handover, files, listeners;
    size_t n_listeners;
};

static void answer(struct front *front, json_t *msg /* taken */)
{
    if (front->control)
        ipc_channel_send(front->control, msg, NULL, 0);
    json_decref(msg);
}

/* Core ends those that it has; these it does not know. */
static void finish_unasked(struct front *front)
{
    struct connection *next;
    for (struct connection *c = TAILQ_FIRST(&front->connections); c; c = next) {
        next = TAILQ_NEXT(c, all);
        if (c->unasked)
            connection_finish(c);
    }
}

void front_check_drained(struct front *front)
{
    if (!front->draining || front->drained || front->n_connections > front->n_lingering + front->n_unasked)
        return;
    front->drained = true;
    finish_unasked(front);
    answer(front, json_pack("{s:s}", "type", "drained"));
}

/* `start` brings everything; `reload` everything, or the certificate files alone. */
static int place_fds(const json_t *msg, size_t n_fds, struct message_fds *ret, struct err *err)
{
    size_t n_files = 3 + (size_t)json_bool(msg, "has_client_ca", false) + (size_t)json_bool(msg, "has_client_crl", false);
    int64_t listeners = json_int(msg, "listeners", 0);
    if (n_fds == n_files && str_eq(json_str(msg, "type", ""), "reload")) {
        *ret = (struct message_fds){.handover = -1, .files = 0, .listeners = -1};
        return 0;
    }
    if (listeners < 0 || listeners > FRONT_LISTENERS_MAX || n_fds != 1 + n_files + (size_t)listeners)
        return err_set(err, VSS_E_UNEXPECTED, NULL,
                       "message from serve: %zu descriptors do not fit %d files and %d listeners", n_fds, (int)n_files,
                       (int)listeners);
    *ret = (struct message_fds){
        .handover = 0, .files = 1, .listeners = (int)(1 + n_files), .n_listeners = (size_t)listeners};
    return 0;
}

static SSL_CTX *make_context(const json_t *msg, const int *fds, struct err *err)
{
    const struct tls_files files = {.chain = fds[0],
                                    .key = fds[1],
                                    .private_ca = fds[2],
                                    .client_ca = json_bool(msg, "has_client_ca", false) ? fds[3] : -1,
                                    .client_crl = json_bool(msg, "has_client_crl", false) ? fds[4] : -1};
    return tls_context_new(&files, err);
}

static void take_connection_limit(struct front *front, int64_t wanted)
{
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    int64_t possible =
        files.rlim_cur == RLIM_INFINITY ? INT32_MAX : ((int64_t)files.rlim_cur - FDS_OTHER) / FDS_PER_CONNECTION;
    if (possible < 1)
        possible = 1;
    if (wanted > possible)
        log_line(LOG_LEVEL_INFO, NULL, "limits.connections is %lld, but the limit of open files allows only %lld",
                 (long long)wanted, (long long)possible);
    front->limit = (size_t)(wanted > possible ? possible : wanted);
}

/* Connections that are open keep the gate that they have. */
static void take_limits(struct front *front, const json_t *msg)
{
    enum {
        CONNECTIONS,
        PER_ADDRESS,
        HANDSHAKES,
        HANDSHAKE_S,
        HEAD_S,
        STALL_S,
        RATE,
        HEAD_BYTES,
        HEADERS,
        BODY_BYTES,
        N
    };
    static const struct {
        const char *name;
        int64_t otherwise; /* when serve does not say: conf_defaults.c has what users get */
    } rows[N] = {
        [CONNECTIONS] = {"connections", 10000},
        [PER_ADDRESS] = {"connections_per_address", 5000},
        [HANDSHAKES] = {"handshakes", 2000},
        [HANDSHAKE_S] = {"handshake_seconds", 10},
        [HEAD_S] = {"head_seconds", 20},
        [STALL_S] = {"stall_seconds", 30},
        [RATE] = {"least_bytes_per_second", 100},
        [HEAD_BYTES] = {"head_bytes", HEAD_BYTES_MAX},
        [HEADERS] = {"headers", 64},
        [BODY_BYTES] = {"body_bytes", 4 * 1024 * 1024},
    };
    int64_t values[N];
    for (size_t i = 0; i < N; i++)
        values[i] = json_int(json_object_get(msg, "limits"), rows[i].name, rows[i].otherwise);
    take_connection_limit(front, values[CONNECTIONS]);
    front->address_limit = (size_t)values[PER_ADDRESS];
    front->handshake_limit = (size_t)values[HANDSHAKES];
    front->handshake_ms = 1000 * values[HANDSHAKE_S];
    front->head_ms = 1000 * values[HEAD_S];
    front->stall_ms = 1000 * values[STALL_S];
    front->least_rate = (uint64_t)values[RATE];
    front->gate = (struct gate_limits){.head_bytes = (size_t)values[HEAD_BYTES],
                                       .headers = (size_t)values[HEADERS],
                                       .body_bytes = (uint64_t)values[BODY_BYTES]};
}

static void fail_start(struct front *front, const struct err *err)
{
    log_err(LOG_LEVEL_ERROR, NULL, err, "front cannot start");
    loop_quit(front->loop, 1);
}

static void on_start(struct front *front, json_t *msg, int *fds, size_t n_fds)
{
    struct message_fds at;
    struct err err;
    if (front->tls) {
        err_set(&err, VSS_E_UNEXPECTED, NULL, "message from serve: a second start");
        fail_start(front, &err);
        return;
    }
    if (place_fds(msg, n_fds, &at, &err) < 0 || !(front->tls = make_context(msg, fds + at.files, &err))) {
        fail_start(front, &err);
        return;
    }
    take_limits(front, msg);
    handover_open(front, TAKE_FD(fds[at.handover]));
    front_listeners_take(front, fds + at.listeners, at.n_listeners);
    answer(front, json_pack("{s:s}", "type", "ready"));
}

/* Open connections stay, but for those whose certificate the new list revokes. */
static void close_revoked(struct front *front)
{
    struct connection *next;
    for (struct connection *c = TAILQ_FIRST(&front->connections); c; c = next) {
        next = TAILQ_NEXT(c, all);
        bool established = c->state == CONNECTION_RELAY || c->state == CONNECTION_WAITING; /* or core would get it afterwards */
        if (!established || !c->ssl || !tls_revoked(front->tls, c->ssl))
            continue;
        connection_note_refusal(c, REFUSED_CERTIFICATE, "revoked");
        connection_close(c);
    }
}

static void on_reload(struct front *front, json_t *msg, int *fds, size_t n_fds)
{
    struct message_fds at;
    struct err err;
    SSL_CTX *fresh = NULL;
    if (place_fds(msg, n_fds, &at, &err) < 0 || !(fresh = make_context(msg, fds + at.files, &err))) {
        log_err(LOG_LEVEL_ERROR, NULL, &err, "the certificate in use stays in force");
        answer(front, json_pack("{s:s, s:o}", "type", "reload_failed", "error", err_to_json(&err)));
        return;
    }
    tls_keep_ticket_keys(fresh, front->tls);
    SSL_CTX_free(front->tls); /* open connections keep theirs alive */
    front->tls = fresh;
    close_revoked(front);
    take_limits(front, msg);
    struct connection *c;
    TAILQ_FOREACH (c, &front->connections, all)
        pace_limits_changed(c);
    if (at.listeners >= 0 && !front->draining)
        front_listeners_take(front, fds + at.listeners, at.n_listeners);
    front_listeners_update(front);
    answer(front, json_pack("{s:s}", "type", "ready"));
}

static void on_drain(struct front *front, json_t *msg, int *fds, size_t n_fds)
{
    (void)msg;
    (void)fds;
    (void)n_fds;
    front->draining = true;
    front_listeners_close(front);
    front_check_drained(front);
}

static void on_ping(struct front *front, json_t *msg, int *fds, size_t n_fds)
{
    (void)msg;
    (void)fds;
    (void)n_fds;
    answer(front, json_pack("{s:s, s:o}", "type", "pong", "figures", front_figures(front)));
}

static const struct {
    const char *type;
    void (*fn)(struct front *front, json_t *msg, int *fds, size_t n_fds);
} messages[] = {{"start", on_start}, {"reload", on_reload}, {"drain", on_drain}, {"ping", on_ping}};

static void on_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    for (size_t i = 0; i < ELEMENTS(messages); i++)
        if (str_eq(json_str(msg, "type", ""), messages[i].type))
            messages[i].fn(arg, msg, fds, n_fds);
}

static void on_closed(void *arg, const struct err *err)
{
    struct front *front = arg;
    if (err)
        log_err(LOG_LEVEL_ERROR, NULL, err, "the control channel failed");
    loop_quit(front->loop, err ? 1 : 0);
}

static void prepare_process(void)
{
    struct rlimit files;
    static const int ignored[] = {SIGPIPE, SIGTERM, SIGINT, SIGHUP}; /* serve says when to end and to reload */
    for (size_t i = 0; i < ELEMENTS(ignored); i++)
        signal(ignored[i], SIG_IGN);
    prctl(PR_SET_DUMPABLE, 0); /* the key lives here: no core dump, no debugger */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    /* The policy is in tls.c alone: a system-wide openssl.cnf is neither read nor obeyed. */
    OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
}

static void release(struct front *front)
{
    struct connection *connection;
    ipc_channel_free(TAKE_PTR(front->control));
    front_listeners_close(front);
    while ((connection = TAILQ_FIRST(&front->connections)))
        connection_close(connection);
    handover_close(front);
    loop_timer_free(front->accept_retry);
    SSL_CTX_free(front->tls);
    addresses_free(front->addresses);
    loop_free(front->loop);
    free(front);
    prctl(PR_SET_DUMPABLE, 1); /* the key is wiped; a leak checker looks at what is left */
}

int front_main(void)
{
    log_init("front", LOG_LEVEL_INFO);
    prepare_process();
    struct front *front = mem_new(sizeof(*front));
    front->handover.fd = -1;
    front->addresses = addresses_new();
    TAILQ_INIT(&front->connections);
    TAILQ_INIT(&front->handshakes);
    TAILQ_INIT(&front->handover.waiting);
    front->loop = loop_new();
    front->control = ipc_channel_new(front->loop, CONTROL_FD, on_message, on_closed, front);
    int code = loop_run(front->loop);
    release(front);
    return code;
}
