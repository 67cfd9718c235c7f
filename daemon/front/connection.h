#pragma once
/* One client's connection, from accept to close. */
#include <netinet/in.h>

#include "front/front_private.h"
#include "front/gate.h"
#include "front/pace.h"

enum connection_state {
    CONNECTION_HANDSHAKE,
    CONNECTION_RELAY,
    CONNECTION_WAITING, /* with its first request, for room on the handover socket */
    CONNECTION_CLOSING, /* close_notify is not out yet */
    CONNECTION_LINGER,  /* all is said; waits for the client's FIN, so that no RST overtakes our last bytes */
};

/* Bytes that a peer did not take at once. No storage while empty: an idle connection holds no buffer. */
struct held {
    uint8_t *bytes;
    size_t start, end;
};

/* What became of moving bytes. */
enum flow {
    FLOW_ON,
    FLOW_BLOCKED, /* wait for epoll */
    FLOW_GONE,    /* the connection must be closed */
};

struct connection {
    struct front *front;
    TAILQ_ENTRY(connection) all, waiting, handshaking;
    SSL *ssl; /* NULL on the local socket, and once it is over */
    bool local;
    int client, core; /* sockets; core is -1 before the handover and after core's end-of-file */
    bool with_core;   /* since its first request: who asks nothing costs core nothing */
    bool unasked;     /* it counts among front->n_unasked */
    int handed;       /* core's end while it is in handover.waiting, else -1 */
    struct loop_io *client_io, *core_io;
    uint32_t client_events, core_events;
    struct loop_timer *timer; /* handshake, last flush and linger have a deadline; a relay has its pace */
    enum connection_state state;
    bool handshaking_counts; /* it is in front->handshakes */
    struct gate *gate;       /* from the handover on */
    struct pace pace;
    struct held to_core, to_client;
    const struct refusal *refused; /* nothing more is read; told when core has said everything */
    bool refusal_said;
    bool core_spoke;              /* since the last head passed: of an answer, not of "100 Continue" */
    uint8_t interim;              /* so many bytes of "100 Continue" have come */
    struct loop_timer *end_again; /* see end_to_core */
    int64_t end_again_ms;
    bool client_eof; /* close_notify was received */
    bool core_deaf;  /* core closed: what the client still sends is of no use */
    bool core_gone;  /* core's end is closed: what it left can be read without waiting */
    bool core_eof;
    bool read_wants_write, write_wants_read;
    int body; /* the pipe of a reply's body (body.h), else -1 */
    struct loop_io *body_io;
    bool body_open; /* it has begun, and core has not said that it is whole */
    bool reset;     /* closing must not look like an end */
    bool more_from_client; /* decrypted bytes wait inside OpenSSL, where epoll cannot see them */
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } peer;
};

/* Starts the handshake; a local client has none. Takes client over. */
void connection_open(struct front *front, int client, const struct sockaddr_storage *peer);
/* Releases everything at once; both peers see the end. */
void connection_close(struct connection *connection);
/* Core has said everything: close_notify, then linger. Frees core's side. */
void connection_finish(struct connection *connection);
/* Sets what epoll watches on the client, when it changed. */
void connection_watch(struct connection *connection, uint32_t events);
void connection_deadline(struct connection *connection, int64_t ms);
void connection_no_deadline(struct connection *connection);
/* It is no longer one of those that have not asked anything. */
void connection_has_asked(struct connection *connection);
/* One line in the log, unless there were many of late. */
void connection_note_refusal(struct connection *connection, enum front_refused what, const char *reason);

/* --- relay.c --- */
/* From the end of the handshake: the client may ask; its first request brings it to core. May close the connection. */
void relay_start(struct connection *connection);
/* The socket is core's now: bytes flow. May close the connection. */
void relay_with_core(struct connection *connection);
/* Ends what core gets: what passed before is still answered, then comes the refusal. May close the connection. */
void relay_refuse(struct connection *connection, const struct refusal *refusal);
void relay_client_event(struct connection *connection, uint32_t events);
void relay_body_event(struct connection *connection);
/* To the client; what it does not take now is kept (FLOW_BLOCKED). */
enum flow relay_write(struct connection *connection, const uint8_t *bytes, size_t length);
void held_free(struct held *held);
