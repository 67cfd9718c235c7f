#pragma once
/* The benches' client: many TLS connections on one thread. One line of JSON tells what was measured. */
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

struct options {
    struct sockaddr_in address;
    const char *ca, *certificate, *key; /* certificate NULL: no client certificate */
    const char *target;                 /* of the requests; NULL = none */
    const char *trigger;                /* a FIFO: a line into it ends what the long-polls wait for */
    size_t connections;                 /* at once */
    size_t count;                       /* operations in all */
    bool resume;                        /* handshakes resume one session */
};

/* A connection that asks the same thing again and again. */
struct client {
    int fd;
    SSL *ssl;
    size_t sent;         /* of the request */
    char head[2048];     /* of the reply, as far as it has come */
    size_t head_length;
    size_t body_left;
    bool in_body, ended; /* ended: the server has closed */
};

enum progress { PROGRESS_DONE, PROGRESS_WAIT_READ, PROGRESS_WAIT_WRITE };

extern struct options options;

int64_t now_ns(void);
/* User and system time of this process, ns. */
int64_t cpu_ns(void);
_Noreturn void fail(const char *what);

/* --- client.c --- */
SSL_CTX *client_context(void);
/* Non-blocking, connecting. session may be NULL. */
void client_connect(struct client *client, SSL_CTX *context, SSL_SESSION *session);
enum progress client_handshake(struct client *client);
enum progress client_send(struct client *client, const char *request, size_t length);
/* Reads one whole reply; its status must be 200. */
enum progress client_receive(struct client *client);
/* Sends close_notify and reads until the server has closed, too. */
enum progress client_finish(struct client *client);
void client_close(struct client *client);

/* --- the measurements: each prints its line --- */
void load_requests(void);
void load_handshakes(void);
/* Connections that do nothing, from the line "held" until standard input ends. */
void load_hold(void);
/* Long-polls, and the trigger: from it to the first and to the last answer. */
void load_wake(void);
