/* Bytes in both directions, with back-pressure: a side is read only while the other one has taken everything. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "front/connection.h"

enum {
    ROUNDS = 16,      /* chunks per turn and direction, so that one fast transfer does not starve the others */
    FLUSH_MS = 30000, /* core is done and the client takes nothing: as nginx's send_timeout, halved */
};

enum flow {
    FLOW_ON,
    FLOW_BLOCKED, /* wait for epoll */
    FLOW_GONE,    /* the connection must be closed */
};

static bool held_empty(const struct held *held)
{
    return held->start == held->end;
}

void held_free(struct held *held)
{
    free(held->bytes);
    *held = (struct held){0};
}

static void held_put(struct held *held, const uint8_t *bytes, size_t length)
{
    held->bytes = mem_new(length);
    memcpy(held->bytes, bytes, length);
    held->start = 0;
    held->end = length;
}

static void held_took(struct held *held, size_t length)
{
    held->start += length;
    if (held_empty(held))
        held_free(held);
}

/* --- client to core --- */

/* Writes to core's socket; what it does not take is in *ret_rest. */
static enum flow send_to_core(struct connection *c, const uint8_t *bytes, size_t length, size_t *ret_sent)
{
    *ret_sent = 0;
    while (*ret_sent < length) {
        ssize_t n = send(c->core, bytes + *ret_sent, length - *ret_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            *ret_sent += (size_t)n;
        } else if (errno == EAGAIN) {
            return FLOW_BLOCKED;
        } else if (errno != EINTR) {
            /* Core answered and closed without reading on; its answer may still lie in the socket. */
            c->core_deaf = true;
            *ret_sent = length;
        }
    }
    return FLOW_ON;
}

/* Every decrypted byte passes here on its way to core. */
static enum flow deliver(struct connection *c, const uint8_t *bytes, size_t length)
{
    size_t sent;
    enum flow flow = send_to_core(c, bytes, length, &sent);
    if (flow == FLOW_BLOCKED)
        held_put(&c->to_core, bytes + sent, length - sent);
    return flow;
}

static enum flow flush_to_core(struct connection *c)
{
    size_t sent;
    if (held_empty(&c->to_core))
        return FLOW_ON;
    enum flow flow = send_to_core(c, c->to_core.bytes + c->to_core.start, c->to_core.end - c->to_core.start, &sent);
    held_took(&c->to_core, sent);
    return flow;
}

/* A read or write of OpenSSL that did not succeed. */
static enum flow tls_stopped(struct connection *c, int result, bool reading)
{
    switch (SSL_get_error(c->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        c->write_wants_read = !reading;
        return FLOW_BLOCKED;
    case SSL_ERROR_WANT_WRITE:
        c->read_wants_write = reading;
        return FLOW_BLOCKED;
    case SSL_ERROR_ZERO_RETURN:
        c->client_eof = true;
        return FLOW_BLOCKED;
    default: /* end-of-file without close_notify, reset, a damaged record: the client died */
        return FLOW_GONE;
    }
}

static enum flow from_client(struct connection *c)
{
    enum flow flow = FLOW_ON;
    c->read_wants_write = c->more_from_client = false;
    for (int round = 0; flow == FLOW_ON; round++) {
        flow = flush_to_core(c);
        if (flow != FLOW_ON || c->client_eof || c->core_deaf)
            break;
        c->more_from_client = round == ROUNDS;
        if (c->more_from_client)
            break;
        size_t n = 0;
        ERR_clear_error();
        int result = SSL_read_ex(c->ssl, c->front->chunk, sizeof(c->front->chunk), &n);
        flow = result == 1 ? deliver(c, c->front->chunk, n) : tls_stopped(c, result, true);
        if (flow == FLOW_ON && !SSL_has_pending(c->ssl))
            break; /* whatever else there is wakes epoll */
    }
    if (flow != FLOW_GONE && c->client_eof && held_empty(&c->to_core))
        shutdown(c->core, SHUT_WR);
    return flow;
}

/* --- core to client --- */

static enum flow write_tls(struct connection *c, const uint8_t *bytes, size_t length, size_t *ret_sent)
{
    *ret_sent = 0;
    c->write_wants_read = false;
    while (*ret_sent < length) {
        size_t n = 0;
        ERR_clear_error();
        int result = SSL_write_ex(c->ssl, bytes + *ret_sent, length - *ret_sent, &n);
        if (result != 1)
            return tls_stopped(c, result, false);
        *ret_sent += n;
    }
    return FLOW_ON;
}

static enum flow flush_to_client(struct connection *c)
{
    size_t sent;
    if (held_empty(&c->to_client))
        return FLOW_ON;
    enum flow flow =
        write_tls(c, c->to_client.bytes + c->to_client.start, c->to_client.end - c->to_client.start, &sent);
    held_took(&c->to_client, sent);
    if (sent > 0 && c->timer)
        connection_deadline(c, FLUSH_MS); /* slow is fine as long as it moves */
    return flow;
}

static enum flow from_core(struct connection *c)
{
    enum flow flow = FLOW_ON;
    for (int round = 0; flow == FLOW_ON && (round < ROUNDS || c->core_gone); round++) {
        flow = flush_to_client(c);
        if (flow != FLOW_ON || c->core_eof)
            break;
        ssize_t n = recv(c->core, c->front->chunk, sizeof(c->front->chunk), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) { /* ECONNRESET: core closed with bytes of ours unread; everything it sent came before */
            c->core_eof = true;
            break;
        }
        size_t sent;
        flow = write_tls(c, c->front->chunk, (size_t)n, &sent);
        if (flow == FLOW_BLOCKED && sent < (size_t)n)
            held_put(&c->to_client, c->front->chunk + sent, (size_t)n - sent);
        if (flow == FLOW_ON && (size_t)n < sizeof(c->front->chunk) && !c->core_gone)
            break;
    }
    return flow;
}

/* --- events --- */

static void watch(struct connection *c)
{
    bool to_client_idle = held_empty(&c->to_client);
    bool to_core_idle = held_empty(&c->to_core);
    bool read_client = to_core_idle && !c->client_eof && !c->core_deaf && !c->more_from_client;
    uint32_t client = 0;
    uint32_t core = 0;
    if (read_client || c->write_wants_read)
        client |= EPOLLIN;
    if ((!to_client_idle && !c->write_wants_read) || c->read_wants_write)
        client |= EPOLLOUT;
    if (to_client_idle && !c->core_eof)
        core |= EPOLLIN;
    if (!to_core_idle || c->more_from_client) /* writable at once: the next turn goes on with what OpenSSL holds */
        core |= EPOLLOUT;
    connection_watch(c, client);
    if (c->core_io && c->core_events != core)
        loop_io_set(c->core_io, core);
    c->core_events = core;
}

/* After bytes were moved: close, finish, or wait on. */
static void settle(struct connection *c, enum flow flow)
{
    if (flow == FLOW_GONE)
        connection_close(c);
    else if (c->core_eof && held_empty(&c->to_client))
        connection_finish(c);
    else
        watch(c);
}

void relay_client_event(struct connection *c, uint32_t events)
{
    enum flow flow = FLOW_ON;
    if (events & (EPOLLHUP | EPOLLERR)) { /* we have not shut our side, so this is a reset: core learns it now */
        connection_close(c);
        return;
    }
    bool write_ready = (events & EPOLLOUT) || ((events & EPOLLIN) && c->write_wants_read);
    bool read_ready = (events & EPOLLIN) || ((events & EPOLLOUT) && c->read_wants_write);
    if (write_ready && !held_empty(&c->to_client))
        flow = c->core_gone ? from_core(c) : flush_to_client(c);
    if (flow != FLOW_GONE && read_ready && !c->client_eof && !c->core_deaf && held_empty(&c->to_core))
        flow = from_client(c);
    settle(c, flow);
}

static void on_core(void *arg, uint32_t events)
{
    struct connection *c = arg;
    enum flow flow = FLOW_ON;
    if (events & (EPOLLHUP | EPOLLERR)) {
        /* Closed at core's end. epoll would report that for ever, so stop listening; the rest is there to be read. */
        loop_io_remove(TAKE_PTR(c->core_io));
        c->core_gone = c->core_deaf = true;
        c->more_from_client = false;
        held_free(&c->to_core);
        connection_deadline(c, FLUSH_MS);
    }
    if (((events & EPOLLIN) || c->core_gone) && held_empty(&c->to_client))
        flow = from_core(c);
    if (flow != FLOW_GONE && (events & EPOLLOUT) && !c->core_gone)
        flow = from_client(c);
    settle(c, flow);
}

void relay_start(struct connection *c)
{
    c->state = CONNECTION_RELAY;
    connection_no_deadline(c);
    c->core_events = EPOLLIN;
    c->core_io = loop_io_add(c->front->loop, c->core, c->core_events, on_core, c);
    /* The request may have come with the client's last handshake bytes. */
    settle(c, SSL_has_pending(c->ssl) ? from_client(c) : FLOW_ON);
}
