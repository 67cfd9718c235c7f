/* One client: handshake, a plain socket to core, bytes both ways. Nothing here knows what the bytes mean. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/preface.h"
#include "base/str.h"
#include "front/front_private.h"
#include "front/tls.h"

enum {
    STEPS_PER_TURN = 64,  /* chunks that one connection may move before the others have their turn */
    OFFER_RETRY_MS = 5,   /* core's queue is full: try again soon */
};

/* What one side gave and the other has not taken yet; memory only while there is something. */
struct rest {
    uint8_t *data;
    size_t start, end;
};

struct connection {
    struct connection *next, *previous;
    struct front *front;
    SSL *ssl;
    int client, core;      /* core -1 until the handshake is over */
    int offered;           /* core's end, until it was handed over */
    struct loop_io *client_io, *core_io;
    struct loop_timer *timer; /* handshake deadline, then the retry of the handover */
    struct rest to_core, to_client;
    bool shaken;           /* handshake finished */
    bool client_ended, core_ended;
    bool write_wants_read; /* TLS 1.2 style: a write waits for the client's bytes */
    struct preface preface;
};

static void connection_end(struct connection *connection)
{
    struct front *front = connection->front;
    if (connection->next)
        connection->next->previous = connection->previous;
    if (connection->previous)
        connection->previous->next = connection->next;
    else
        front->connections = connection->next;
    front->n_connections--;
    loop_io_remove(connection->client_io);
    loop_io_remove(connection->core_io);
    loop_timer_free(connection->timer);
    if (connection->core_ended && connection->to_client.start == connection->to_client.end) {
        ERR_clear_error();
        SSL_shutdown(connection->ssl); /* core said all it had: an orderly end */
    }
    SSL_free(connection->ssl);
    close(connection->client);
    if (connection->core >= 0)
        close(connection->core);
    if (connection->offered >= 0)
        close(connection->offered);
    free(connection->to_core.data);
    free(connection->to_client.data);
    free(connection);
    front_connection_gone(front);
}

/* --- what is left over --- */

static bool rest_empty(const struct rest *rest)
{
    return rest->start == rest->end;
}

static void rest_keep(struct rest *rest, const uint8_t *data, size_t n)
{
    rest->data = mem_resize(rest->data, n);
    memcpy(rest->data, data, n);
    rest->start = 0;
    rest->end = n;
}

static void rest_taken(struct rest *rest, size_t n)
{
    rest->start += n;
    if (!rest_empty(rest))
        return;
    free(rest->data);
    *rest = (struct rest){0};
}

/* --- one step each way: 1 moved something, 0 must wait, -1 the connection is over --- */

static int send_core(struct connection *connection, const uint8_t *data, size_t n)
{
    ssize_t sent = send(connection->core, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0)
        return (int)sent;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static int send_client(struct connection *connection, const uint8_t *data, size_t n)
{
    size_t sent = 0;
    ERR_clear_error();
    int result = SSL_write_ex(connection->ssl, data, n, &sent);
    if (result == 1)
        return (int)sent;
    int why = SSL_get_error(connection->ssl, result);
    connection->write_wants_read = why == SSL_ERROR_WANT_READ;
    return why == SSL_ERROR_WANT_WRITE || why == SSL_ERROR_WANT_READ ? 0 : -1;
}

/* The place for a framing gate: every decrypted byte of a client passes here, and only here. */
static int step_to_core(struct connection *connection)
{
    struct rest *rest = &connection->to_core;
    if (!rest_empty(rest)) {
        int n = send_core(connection, rest->data + rest->start, rest->end - rest->start);
        if (n > 0)
            rest_taken(rest, (size_t)n);
        return n > 0 ? 1 : n;
    }
    if (connection->client_ended)
        return 0;
    size_t n = 0;
    ERR_clear_error();
    int result = SSL_read_ex(connection->ssl, connection->front->chunk, FRONT_CHUNK, &n);
    if (result != 1) {
        int why = SSL_get_error(connection->ssl, result);
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
            return 0;
        if (why != SSL_ERROR_ZERO_RETURN)
            return -1;
        connection->client_ended = true;
        shutdown(connection->core, SHUT_WR);
        return 1;
    }
    int sent = send_core(connection, connection->front->chunk, n);
    if (sent < 0)
        return -1;
    if ((size_t)sent < n)
        rest_keep(rest, connection->front->chunk + sent, n - (size_t)sent);
    return 1;
}

static int step_to_client(struct connection *connection)
{
    struct rest *rest = &connection->to_client;
    if (!rest_empty(rest)) {
        int n = send_client(connection, rest->data + rest->start, rest->end - rest->start);
        if (n > 0)
            rest_taken(rest, (size_t)n);
        return n > 0 ? 1 : n;
    }
    if (connection->core_ended)
        return -1; /* everything core said was delivered */
    ssize_t n = recv(connection->core, connection->front->chunk, FRONT_CHUNK, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (n == 0) {
        connection->core_ended = true;
        return -1;
    }
    int sent = send_client(connection, connection->front->chunk, (size_t)n);
    if (sent < 0)
        return -1;
    if (sent < n)
        rest_keep(rest, connection->front->chunk + sent, (size_t)(n - sent));
    return 1;
}

static void relay(struct connection *connection)
{
    int there = 1, back = 1, steps = 0;
    for (; (there > 0 || back > 0) && steps < STEPS_PER_TURN; steps++) {
        there = step_to_core(connection);
        back = there < 0 ? 0 : step_to_client(connection);
        if (there < 0 || back < 0) {
            connection_end(connection);
            return;
        }
    }
    bool unfinished = steps == STEPS_PER_TURN;
    bool read_client = (rest_empty(&connection->to_core) && !connection->client_ended) || connection->write_wants_read;
    bool write_client = !rest_empty(&connection->to_client) && !connection->write_wants_read;
    loop_io_set(connection->client_io, (read_client ? EPOLLIN : 0u) | (write_client ? EPOLLOUT : 0u));
    if (connection->core_io)
        loop_io_set(connection->core_io, (rest_empty(&connection->to_client) ? EPOLLIN : 0u) |
                                             (!rest_empty(&connection->to_core) || unfinished ? EPOLLOUT : 0u));
}

/* --- events --- */

static void on_core(void *arg, uint32_t events)
{
    struct connection *connection = arg;
    if ((events & EPOLLHUP) && !rest_empty(&connection->to_client)) {
        /* core is done, the client is slow: level-triggered HUP would spin; the client's readiness drives the rest */
        loop_io_remove(connection->core_io);
        connection->core_io = NULL;
    }
    relay(connection);
}

static void on_client_relay(struct connection *connection, uint32_t events)
{
    if (events & (EPOLLERR | EPOLLHUP)) {
        connection_end(connection); /* gone without a word: core learns it by its socket */
        return;
    }
    connection->write_wants_read = false;
    relay(connection);
}

/* --- handover --- */

static int offer(struct connection *connection)
{
    struct front *front = connection->front;
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {&connection->preface, sizeof connection->preface};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &connection->offered, sizeof(int));
    if (sendmsg(front->handover, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
        return 1;
    if (errno == EAGAIN || errno == EINTR || errno == ETOOMANYREFS || errno == ENOBUFS)
        return 0;
    log_line(LOG_LEVEL_ERROR, NULL, "the way to core is gone: %s", strerror(errno));
    loop_quit(front->loop, 1);
    return -1;
}

static void handed_over(struct connection *connection)
{
    close(TAKE_FD(connection->offered));
    loop_timer_stop(connection->timer);
    connection->core_io = loop_io_add(connection->front->loop, connection->core, EPOLLIN, on_core, connection);
    relay(connection);
}

static void try_offer(struct connection *connection)
{
    int result = offer(connection);
    if (result > 0)
        handed_over(connection);
    else if (result == 0)
        loop_timer_set(connection->timer, OFFER_RETRY_MS);
    else
        connection_end(connection);
}

/* --- handshake --- */

static void shaken(struct connection *connection)
{
    int pair[2];
    struct err err;
    struct preface *preface = &connection->preface;
    socklen_t size = sizeof preface->peer;
    preface->version = PREFACE_VERSION;
    if (tls_identity(connection->ssl, preface, &err) || getpeername(connection->client, (struct sockaddr *)&preface->peer, &size) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair)) {
        connection_end(connection);
        return;
    }
    connection->shaken = true;
    connection->core = pair[0];
    connection->offered = pair[1];
    loop_io_set(connection->client_io, 0);
    try_offer(connection);
}

static void handshake(struct connection *connection)
{
    ERR_clear_error();
    int result = SSL_accept(connection->ssl);
    if (result == 1) {
        shaken(connection);
        return;
    }
    int why = SSL_get_error(connection->ssl, result);
    if (why == SSL_ERROR_WANT_READ)
        loop_io_set(connection->client_io, EPOLLIN);
    else if (why == SSL_ERROR_WANT_WRITE)
        loop_io_set(connection->client_io, EPOLLOUT);
    else
        connection_end(connection);
}

static void on_client(void *arg, uint32_t events)
{
    struct connection *connection = arg;
    if (!connection->shaken)
        handshake(connection);
    else if (connection->offered >= 0)
        connection_end(connection); /* only errors are asked for while the handover waits */
    else
        on_client_relay(connection, events);
}

static void on_timer(void *arg)
{
    struct connection *connection = arg;
    if (connection->shaken)
        try_offer(connection);
    else
        connection_end(connection); /* the handshake took too long */
}

void connection_start(struct front *front, int fd)
{
    SSL *ssl = SSL_new(front->tls);
    if (!ssl || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        close(fd);
        return;
    }
    struct connection *connection = mem_new(sizeof *connection);
    *connection = (struct connection){.front = front, .ssl = ssl, .client = fd, .core = -1, .offered = -1, .next = front->connections};
    if (front->connections)
        front->connections->previous = connection;
    front->connections = connection;
    front->n_connections++;
    connection->timer = loop_timer_new(front->loop, on_timer, connection);
    loop_timer_set(connection->timer, front->handshake_ms);
    connection->client_io = loop_io_add(front->loop, fd, EPOLLIN, on_client, connection);
}

void connections_close(struct front *front)
{
    while (front->connections)
        connection_end(front->connections);
}
