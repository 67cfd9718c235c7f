#include "front/connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "front/body.h"
#include "front/stream.h"
#include "front/tls.h"

enum {
    LINGER_MS = 5000,           /* as nginx's lingering_timeout */
    REFUSALS_WINDOW_MS = 60000, /* a scanner must not fill the log */
    REFUSALS_LOGGED = 10,
};

static void peer_text(const struct connection *c, char *ret, size_t size)
{
    char address[INET6_ADDRSTRLEN] = "unknown";
    if (c->local) { /* its address stands for its user (stream_user_address) */
        str_copy(ret, size, "a local client");
    } else if (c->peer.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &c->peer.in.sin_addr, address, sizeof(address));
        str_format(ret, size, "%s:%u", address, ntohs(c->peer.in.sin_port));
    } else if (c->peer.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &c->peer.in6.sin6_addr, address, sizeof(address));
        str_format(ret, size, "[%s]:%u", address, ntohs(c->peer.in6.sin6_port));
    } else {
        str_copy(ret, size, "an unknown address");
    }
}

/* A refusal is worth a line for whoever wonders why a client cannot get in; a flood of them is not. */
void connection_note_refusal(struct connection *c, enum front_refused what, const char *reason)
{
    static const char *const names[REFUSED_KINDS] = {
        [REFUSED_CONNECTION] = "connection", [REFUSED_CERTIFICATE] = "client certificate", [REFUSED_REQUEST] = "request"};
    struct front *front = c->front;
    front->counts.refused[what]++;
    char peer[INET6_ADDRSTRLEN + 16];
    if (clock_mono_ms() - front->refusals_since > REFUSALS_WINDOW_MS) {
        if (front->refusals > REFUSALS_LOGGED)
            log_line(LOG_LEVEL_WARNING, NULL, "%u more connections or requests refused",
                     front->refusals - REFUSALS_LOGGED);
        front->refusals_since = clock_mono_ms();
        front->refusals = 0;
    }
    if (++front->refusals > REFUSALS_LOGGED)
        return;
    peer_text(c, peer, sizeof(peer));
    log_line(LOG_LEVEL_WARNING, NULL, "%s of %s refused: %s", names[what], peer, reason);
}

void connection_watch(struct connection *c, uint32_t events)
{
    if (c->client_events != events)
        loop_io_set(c->client_io, events);
    c->client_events = events;
}

static void deadline_passed(void *arg)
{
    struct connection *c = arg;
    if (c->unasked && !c->refused)
        connection_finish(c); /* it has asked nothing for so long */
    else
        connection_close(c);
}

void connection_deadline(struct connection *c, int64_t ms)
{
    if (!c->timer)
        c->timer = loop_timer_new(c->front->loop, deadline_passed, c);
    loop_timer_set(c->timer, ms);
}

void connection_no_deadline(struct connection *c)
{
    loop_timer_free(TAKE_PTR(c->timer));
}

static void leave_handshakes(struct connection *c, bool completed)
{
    if (!c->handshaking_counts)
        return;
    c->front->counts.handshakes_completed += completed;
    c->front->counts.handshakes_resumed += completed && SSL_session_reused(c->ssl) == 1;
    c->front->counts.handshakes_failed += !completed;
    c->handshaking_counts = false;
    TAILQ_REMOVE(&c->front->handshakes, c, handshaking);
    c->front->n_handshakes--;
}

void connection_has_asked(struct connection *c)
{
    c->front->n_unasked -= c->unasked;
    c->unasked = false;
}

static void close_core(struct connection *c)
{
    connection_has_asked(c); /* or will not */
    if (c->handed >= 0) {
        handover_forget(c->front, c);
        close(TAKE_FD(c->handed));
    }
    loop_io_remove(TAKE_PTR(c->core_io));
    if (c->core >= 0)
        close(TAKE_FD(c->core));
    loop_timer_free(TAKE_PTR(c->end_again));
    held_free(&c->to_core);
}

void connection_close(struct connection *c)
{
    struct front *front = c->front;
    leave_handshakes(c, false);
    body_close(c);
    close_core(c);
    held_free(&c->to_client);
    connection_no_deadline(c);
    pace_end(c);
    gate_free(c->gate);
    addresses_leave(front->addresses, &c->peer.any);
    loop_io_remove(c->client_io);
    SSL_free(c->ssl);
    close(c->client);
    TAILQ_REMOVE(&front->connections, c, all);
    front->n_connections--;
    front->n_lingering -= c->state == CONNECTION_LINGER;
    free(c);
    front_listeners_update(front);
    front_check_drained(front);
}

/* TCP without TLS from here on: shut our side, drop what the client still sends, wait for its FIN. Closing at once
 * would answer unread bytes with RST, and the client could lose the end of the response (or the alert that explains).
 */
static void start_linger(struct connection *c)
{
    leave_handshakes(c, false);
    SSL_free(TAKE_PTR(c->ssl));
    c->state = CONNECTION_LINGER;
    c->front->n_lingering++;
    if (shutdown(c->client, SHUT_WR) < 0) {
        connection_close(c);
        return;
    }
    connection_deadline(c, LINGER_MS);
    connection_watch(c, EPOLLIN);
    front_check_drained(c->front);
}

static void linger_event(struct connection *c, uint32_t events)
{
    ssize_t n = recv(c->client, NULL, FRONT_CHUNK, MSG_TRUNC | MSG_DONTWAIT); /* TCP: discard */
    bool gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    if (gone || (events & (EPOLLHUP | EPOLLERR)))
        connection_close(c);
}

static void closing_event(struct connection *c, uint32_t events)
{
    if (events & (EPOLLHUP | EPOLLERR)) {
        connection_close(c);
        return;
    }
    ERR_clear_error();
    int result = SSL_shutdown(c->ssl);
    if (result < 0 && SSL_get_error(c->ssl, result) == SSL_ERROR_WANT_WRITE)
        connection_watch(c, EPOLLOUT);
    else if (result < 0 || c->client_eof)
        connection_close(c); /* broken, or the client said its end already: nothing can be lost */
    else
        start_linger(c);
}

void connection_finish(struct connection *c)
{
    if (c->local) { /* what it has not read yet stays there for it: nothing to wait for */
        connection_close(c);
        return;
    }
    close_core(c);
    pace_end(c);
    c->state = CONNECTION_CLOSING;
    connection_deadline(c, LINGER_MS);
    closing_event(c, 0);
}

static void handshake_failed(struct connection *c, int reason)
{
    long verdict = SSL_get_verify_result(c->ssl);
    unsigned long code = ERR_peek_last_error();
    if (verdict != X509_V_OK)
        connection_note_refusal(c, REFUSED_CERTIFICATE, X509_verify_cert_error_string(verdict));
    else if (code)
        log_line(LOG_LEVEL_DEBUG, NULL, "TLS handshake failed: %s", ERR_reason_error_string(code));
    ERR_clear_error();
    if (reason == SSL_ERROR_SSL)
        start_linger(c); /* so that the alert arrives */
    else
        connection_close(c);
}

static void handshake_event(struct connection *c, uint32_t events)
{
    if (events & (EPOLLHUP | EPOLLERR)) {
        connection_close(c);
        return;
    }
    ERR_clear_error();
    int result = SSL_accept(c->ssl);
    if (result == 1) {
        leave_handshakes(c, true);
        if (SSL_get_SSL_CTX(c->ssl) != c->front->tls && tls_revoked(c->front->tls, c->ssl)) { /* it began before the reload */
            connection_note_refusal(c, REFUSED_CERTIFICATE, "revoked");
            connection_close(c);
            return;
        }
        relay_start(c);
        return;
    }
    int reason = SSL_get_error(c->ssl, result);
    if (reason == SSL_ERROR_WANT_READ)
        connection_watch(c, EPOLLIN);
    else if (reason == SSL_ERROR_WANT_WRITE)
        connection_watch(c, EPOLLOUT);
    else
        handshake_failed(c, reason);
}

static void waiting_event(struct connection *c, uint32_t events)
{
    if (events & (EPOLLHUP | EPOLLERR))
        connection_close(c);
}

static void on_client(void *arg, uint32_t events)
{
    static void (*const by_state[])(struct connection *, uint32_t) = {
        [CONNECTION_HANDSHAKE] = handshake_event, [CONNECTION_WAITING] = waiting_event,
        [CONNECTION_RELAY] = relay_client_event,  [CONNECTION_CLOSING] = closing_event,
        [CONNECTION_LINGER] = linger_event,
    };
    struct connection *c = arg;
    by_state[c->state](c, events);
}

/* One address has its share already: it does not even get a handshake. */
static void refuse_crowd(struct front *front, int client, const struct sockaddr_storage *peer, bool local)
{
    struct connection c = {.front = front, .local = local};
    memcpy(&c.peer, peer, sizeof(c.peer));
    connection_note_refusal(&c, REFUSED_CONNECTION, "its address, or user, has limits.connections_per_address already");
    close(client);
}

static void begin_handshake(struct connection *c)
{
    struct front *front = c->front;
    connection_deadline(c, front->handshake_ms);
    TAILQ_INSERT_TAIL(&front->handshakes, c, handshaking);
    c->handshaking_counts = true;
    if (++front->n_handshakes > front->handshake_limit)
        connection_close(TAILQ_FIRST(&front->handshakes)); /* an honest one is done long before it is the oldest */
}

void connection_open(struct front *front, int client, const struct sockaddr_storage *peer)
{
    bool local = peer->ss_family == AF_UNIX;
    struct sockaddr_storage of_user;
    if (local) {
        stream_user_address(client, &of_user);
        peer = &of_user;
    }
    if (!addresses_enter(front->addresses, (const struct sockaddr *)peer, front->address_limit)) {
        refuse_crowd(front, client, peer, local);
        return;
    }
    SSL *ssl = local ? NULL : SSL_new(front->tls);
    if (!local && (!ssl || SSL_set_fd(ssl, client) != 1)) {
        SSL_free(ssl);
        close(client);
        addresses_leave(front->addresses, (const struct sockaddr *)peer);
        return;
    }
    if (ssl)
        SSL_set_accept_state(ssl);
    struct connection *c = mem_new(sizeof(*c));
    c->front = front;
    c->ssl = ssl;
    c->local = local;
    c->client = client;
    c->core = c->handed = c->body = -1;
    memcpy(&c->peer, peer, sizeof(c->peer));
    TAILQ_INSERT_TAIL(&front->connections, c, all);
    front->n_connections++;
    front->counts.accepted++;
    c->client_events = EPOLLIN;
    c->client_io = loop_io_add(front->loop, client, c->client_events, on_client, c);
    if (local)
        relay_start(c);
    else
        begin_handshake(c);
}
