#pragma once
/* What the files of this folder share. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "base/err.h"
#include "base/ipc.h"
#include "base/loop.h"

enum {
    /* One TLS record: reading more at once gains nothing, since each record is sealed for itself (RFC 8446 5.1). */
    FRONT_CHUNK = 16 * 1024,
    FRONT_LISTENERS_MAX = 24, /* with the other fds of `start` within IPC_FDS_MAX */
};

struct connection;

struct listener {
    struct front *front;
    int fd;
    struct loop_io *io;
};

struct front {
    struct loop *loop;
    struct ipc_channel *control;
    SSL_CTX *tls; /* for new connections; older ones hold their own reference */
    int handover; /* the way to core */
    struct listener listeners[FRONT_LISTENERS_MAX];
    size_t n_listeners;
    bool listening;                  /* the listeners are armed */
    struct loop_timer *accept_retry; /* armed while accepting rests because fds ran out */
    struct connection *connections;
    size_t n_connections;
    size_t limit;
    int64_t handshake_ms;
    bool draining;
    uint8_t chunk[FRONT_CHUNK]; /* bytes in passing; only what a peer does not take is copied */
};

/* --- front.c --- */
/* A connection has ended: accepting may go on, a drain may be complete. */
void front_connection_gone(struct front *front);

/* --- listeners.c --- */
/* Takes the fds over (sets them to -1). */
void front_listeners_take(struct front *front, int *fds, size_t n_fds);
/* Arms or disarms according to limit and drain. */
void front_listeners_update(struct front *front);
void front_listeners_close(struct front *front);

/* --- connection.c --- */
/* Takes fd over: handshake, handover, relay, end. */
void connection_start(struct front *front, int fd);
void connections_close(struct front *front);
