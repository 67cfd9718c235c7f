#pragma once
/* What the files of this folder share. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <openssl/ssl.h>

#include "base/err.h"
#include "base/ipc.h"
#include "base/loop.h"
#include "front/addresses.h"
#include "front/gate.h"

struct connection;
TAILQ_HEAD(connection_list, connection);

enum {
    /* One TLS record: reading more at once gains nothing, since each record is sealed for itself (RFC 8446 5.1). */
    FRONT_CHUNK = 16 * 1024,
    FRONT_BODY = 4 * FRONT_CHUNK, /* a pipe is read by system calls alone: a few records at once halve them */
    FRONT_LISTENERS_MAX = 24, /* with the other fds of `start` within IPC_FDS_MAX */
};

struct listener {
    struct front *front;
    int fd;
    struct loop_io *io;
};

/* The way to core, and the connections that wait for room on it. */
struct handover {
    int fd;
    struct loop_io *io;
    struct loop_timer *retry;
    struct connection_list waiting;
};

/* Since the start; see figures.c. */
enum front_refused { REFUSED_CONNECTION, REFUSED_CERTIFICATE, REFUSED_REQUEST, REFUSED_KINDS };
struct front_counts {
    uint64_t accepted, handshakes_completed, handshakes_resumed, handshakes_failed;
    uint64_t refused[REFUSED_KINDS];
};

struct front {
    struct loop *loop;
    struct ipc_channel *control;
    SSL_CTX *tls; /* for new connections; older ones hold their own reference */
    struct handover handover;
    struct listener listeners[FRONT_LISTENERS_MAX];
    size_t n_listeners;
    bool listening;                  /* the listeners are armed */
    struct loop_timer *accept_retry; /* armed while accepting rests because fds ran out */
    struct connection_list connections;
    size_t n_connections;
    size_t n_lingering;                /* of these, the ones that only wait for the client's FIN */
    size_t n_unasked;                  /* of these, the ones that have asked nothing yet */
    struct connection_list handshakes; /* the oldest first */
    size_t n_handshakes;
    struct addresses *addresses;
    size_t limit, address_limit, handshake_limit;
    struct gate_limits gate;
    int64_t handshake_ms, head_ms, stall_ms;
    uint64_t least_rate;    /* bytes per second, over stall_ms */
    int64_t refusals_since; /* clock_mono_ms: see connection.c */
    unsigned refusals;
    struct front_counts counts;
    bool draining, drained;
    uint8_t body[FRONT_BODY];   /* the same, of a pipe */
    uint8_t chunk[FRONT_CHUNK]; /* bytes in passing; only what a peer does not take is copied */
};

/* --- front.c --- */
/* Answers `drained` when that has become true. */
void front_check_drained(struct front *front);

/* --- figures.c --- */
json_t *front_figures(const struct front *front); /* what a pong carries; new reference */

/* --- listeners.c --- */
/* Takes the fds over (sets them to -1), in place of those that were there. */
void front_listeners_take(struct front *front, int *fds, size_t n_fds);
/* Arms or disarms according to limit, queue and drain. */
void front_listeners_update(struct front *front);
void front_listeners_close(struct front *front);

/* --- handover.c --- */
void handover_open(struct front *front, int fd); /* takes fd over */
/* Sends the connection's preface and socket to core now, or queues it; may close the connection. */
void handover_offer(struct front *front, struct connection *connection);
void handover_forget(struct front *front, struct connection *connection); /* it leaves the queue */
void handover_close(struct front *front);
