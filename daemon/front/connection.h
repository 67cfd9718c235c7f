#pragma once
/* One client's connection, from accept to close. */
#include <netinet/in.h>

#include "front/front_private.h"

enum connection_state {
    CONNECTION_HANDSHAKE,
    CONNECTION_WAITING, /* for room on the handover socket */
    CONNECTION_RELAY,
    CONNECTION_CLOSING, /* close_notify is not out yet */
    CONNECTION_LINGER,  /* all is said; waits for the client's FIN, so that no RST overtakes our last bytes */
};

/* Bytes that a peer did not take at once. No storage while empty: an idle connection holds no buffer. */
struct held {
    uint8_t *bytes;
    size_t start, end;
};

struct connection {
    struct front *front;
    TAILQ_ENTRY(connection) all, waiting;
    SSL *ssl;
    int client, core; /* sockets; core is -1 before the handover and after core's end-of-file */
    int handed;       /* core's end while it waits for the handover, else -1 */
    struct loop_io *client_io, *core_io;
    uint32_t client_events, core_events;
    struct loop_timer *timer; /* handshake, last flush and linger have a deadline; a relay has none (core keeps it) */
    enum connection_state state;
    struct held to_core, to_client;
    bool client_eof; /* close_notify was received */
    bool core_deaf;  /* core closed: what the client still sends is of no use */
    bool core_gone;  /* core's end is closed: what it left can be read without waiting */
    bool core_eof;
    bool read_wants_write, write_wants_read;
    bool more_from_client; /* decrypted bytes wait inside OpenSSL, where epoll cannot see them */
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } peer;
};

/* Starts the handshake; takes client over. */
void connection_open(struct front *front, int client, const struct sockaddr_storage *peer);
/* Releases everything at once; both peers see the end. */
void connection_close(struct connection *connection);
/* Core has said everything: close_notify, then linger. Frees core's side. */
void connection_finish(struct connection *connection);
/* Sets what epoll watches on the client, when it changed. */
void connection_watch(struct connection *connection, uint32_t events);
void connection_deadline(struct connection *connection, int64_t ms);
void connection_no_deadline(struct connection *connection);

/* --- relay.c --- */
/* The socket is core's now: bytes flow. May close the connection. */
void relay_start(struct connection *connection);
void relay_client_event(struct connection *connection, uint32_t events);
void held_free(struct held *held);
