/* Bytes in both directions, with back-pressure: a side is read only while the other one has taken everything. What the
 * client sends passes the gate; when that refuses, core hears the end, says what it still has to say, and the refusal
 * follows that. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "front/body.h"
#include "front/connection.h"
#include "front/stream.h"

enum {
    ROUNDS = 16,       /* chunks per turn and direction, so that one fast transfer does not starve the others */
    END_AGAIN_MS = 20, /* doubled up to the maximum */
    END_AGAIN_MS_MAX = 1000,
    FLUSH_MS = 30000, /* core is done and the client takes nothing: as nginx's send_timeout, halved */
    IDLE_MS = 300000, /* without a request, as core's HTTP_IDLE_SECONDS after one */
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
    if (length == 0)
        return;
    held->bytes = mem_resize(held->bytes, held->end + length);
    memcpy(held->bytes + held->end, bytes, length);
    held->end += length;
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

static enum flow pass_on(struct connection *c, const uint8_t *bytes, size_t length)
{
    size_t sent = 0;
    bool now = c->with_core && held_empty(&c->to_core);
    enum flow flow = now ? send_to_core(c, bytes, length, &sent) : FLOW_BLOCKED;
    if (flow == FLOW_BLOCKED)
        held_put(&c->to_core, bytes + sent, length - sent);
    return flow;
}

static void refuse(struct connection *c, const struct refusal *refusal)
{
    if (c->refused || c->core_deaf) /* what core said is the end of it */
        return;
    c->refused = refusal;
    connection_note_refusal(c, REFUSED_REQUEST, refusal->detail);
    connection_deadline(c, FLUSH_MS);
}

/* Every decrypted byte passes here on its way to core. */
static enum flow deliver(struct connection *c, uint8_t *bytes, size_t length)
{
    struct gate_pass pass;
    uint64_t requests = gate_requests(c->gate);
    const struct refusal *refusal = gate_feed(c->gate, bytes, length, &pass);
    AUTO_FREE uint8_t *kept = pass.kept;
    c->pace.received += length;
    if (gate_requests(c->gate) != requests) {
        c->core_spoke = false;
        c->interim = 0;
    }
    enum flow flow = kept ? pass_on(c, kept, pass.kept_length) : FLOW_ON;
    if (pass.rest_length > 0)
        flow = pass_on(c, pass.rest, pass.rest_length);
    if (refusal)
        refuse(c, refusal);
    return flow;
}

static void say_end(void *arg)
{
    struct connection *c = arg;
    shutdown(c->core, SHUT_WR);
    c->end_again_ms = c->end_again_ms * 2 < END_AGAIN_MS_MAX ? c->end_again_ms * 2 : END_AGAIN_MS_MAX;
    loop_timer_set(c->end_again, c->end_again_ms);
}

/* The client will send nothing more that core may have. libmicrohttpd 0.9.75 does not notice an end that comes together
 * with bytes before it (its epoll is edge-triggered, and it takes a short read for all that there is), so the end is
 * said again until it is heard. */
static void end_to_core(struct connection *c)
{
    if (!(c->client_eof || c->refused) || !c->with_core || !held_empty(&c->to_core) || c->end_again || c->core_gone)
        return;
    c->end_again = loop_timer_new(c->front->loop, say_end, c);
    c->end_again_ms = END_AGAIN_MS / 2;
    say_end(c);
}

static enum flow flush_to_core(struct connection *c)
{
    size_t sent;
    if (held_empty(&c->to_core))
        return FLOW_ON;
    if (!c->with_core)
        return FLOW_BLOCKED;
    enum flow flow = send_to_core(c, c->to_core.bytes + c->to_core.start, c->to_core.end - c->to_core.start, &sent);
    held_took(&c->to_core, sent);
    return flow;
}

/* A read from the client, or a write to it, that did not succeed. */
static enum flow stopped(struct connection *c, enum stream_result result, bool reading)
{
    c->write_wants_read = c->write_wants_read || (result == STREAM_WANT_READ && !reading);
    c->read_wants_write = c->read_wants_write || (result == STREAM_WANT_WRITE && reading);
    c->client_eof = c->client_eof || result == STREAM_ENDED;
    return result == STREAM_BROKEN ? FLOW_GONE : FLOW_BLOCKED;
}

static enum flow from_client(struct connection *c)
{
    enum flow flow = FLOW_ON;
    c->read_wants_write = c->more_from_client = false;
    for (int round = 0; flow == FLOW_ON; round++) {
        flow = flush_to_core(c);
        if (flow != FLOW_ON || c->client_eof || c->core_deaf || c->refused)
            break;
        c->more_from_client = round == ROUNDS;
        if (c->more_from_client)
            break;
        size_t n = 0;
        enum stream_result result = stream_read(c, c->front->chunk, sizeof(c->front->chunk), &n);
        flow = result == STREAM_OK ? deliver(c, c->front->chunk, n) : stopped(c, result, true);
        if (flow == FLOW_ON && !stream_has_pending(c))
            break; /* whatever else there is wakes epoll */
    }
    if (flow != FLOW_GONE)
        end_to_core(c);
    return flow;
}

/* --- core to client --- */

static enum flow write_client(struct connection *c, const uint8_t *bytes, size_t length, size_t *ret_sent)
{
    *ret_sent = 0;
    c->write_wants_read = false;
    while (*ret_sent < length) {
        size_t n = 0;
        enum stream_result result = stream_write(c, bytes + *ret_sent, length - *ret_sent, &n);
        if (result != STREAM_OK)
            return stopped(c, result, false);
        *ret_sent += n;
        c->pace.sent += n;
    }
    return FLOW_ON;
}

enum flow relay_write(struct connection *c, const uint8_t *bytes, size_t length)
{
    size_t sent;
    enum flow flow = write_client(c, bytes, length, &sent);
    if (flow == FLOW_BLOCKED && sent < length)
        held_put(&c->to_client, bytes + sent, length - sent);
    return flow;
}

static enum flow flush_to_client(struct connection *c)
{
    size_t sent;
    if (held_empty(&c->to_client))
        return FLOW_ON;
    enum flow flow =
        write_client(c, c->to_client.bytes + c->to_client.start, c->to_client.end - c->to_client.start, &sent);
    held_took(&c->to_client, sent);
    if (sent > 0 && c->timer)
        connection_deadline(c, FLUSH_MS); /* slow is fine as long as it moves */
    return flow;
}

/* Core asks for the body as soon as it has seen a head that wants to be asked: that is no answer yet. */
static void hear(struct connection *c, const uint8_t *bytes, size_t length)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    for (size_t i = 0; i < length && !c->core_spoke; i++) {
        c->core_spoke = bytes[i] != (uint8_t)go_on[c->interim];
        c->interim = (uint8_t)((c->interim + 1U) % (sizeof(go_on) - 1));
    }
}

/* What core has said. *ret_pipe: it handed a body over, whose marker is the last byte; else -1. */
static ssize_t receive(struct connection *c, int *ret_pipe)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = c->front->chunk, .iov_len = sizeof(c->front->chunk)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    *ret_pipe = -1;
    ssize_t n = recvmsg(c->core, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(ret_pipe, CMSG_DATA(header), sizeof(int));
    if (n > 0 && (message.msg_flags & MSG_CTRUNC)) { /* out of descriptors: there is no body to send */
        c->body_open = true;
        return 0;
    }
    return n;
}

/* One read of core's. FLOW_BLOCKED: it has no more for now. */
static enum flow relay_core(struct connection *c)
{
    int pipe;
    ssize_t n;
    do
        n = receive(c, &pipe);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return FLOW_BLOCKED;
    if (n <= 0) { /* ECONNRESET: core closed with bytes of ours unread; everything it sent came before */
        c->core_eof = true;
        return body_is_open(c) ? body_fail(c) : FLOW_ON;
    }
    body_done(c);
    if (pipe >= 0) {
        body_begin(c, pipe);
        n--;
    }
    hear(c, c->front->chunk, (size_t)n);
    enum flow flow = relay_write(c, c->front->chunk, (size_t)n);
    bool drained = pipe < 0 && (size_t)n < sizeof(c->front->chunk) && !c->core_gone;
    return flow == FLOW_ON && drained ? FLOW_BLOCKED : flow;
}

static enum flow from_core(struct connection *c)
{
    enum flow flow = FLOW_ON;
    for (int round = 0; flow == FLOW_ON && (round < ROUNDS || c->core_gone); round++) {
        flow = flush_to_client(c);
        if (flow != FLOW_ON || c->core_eof)
            break;
        flow = body_runs(c) ? body_pump(c) : relay_core(c);
    }
    return flow;
}

/* Core has said everything. A body is refused only while nothing was said about its request. */
static enum flow say_refusal(struct connection *c)
{
    size_t length;
    c->refusal_said = true;
    if (gate_place(c->gate) == GATE_BODY && (c->core_spoke || c->interim > 0))
        return FLOW_ON;
    AUTO_FREE char *reply = refusal_reply(c->refused, gate_head_only(c->gate), &length);
    return relay_write(c, (const uint8_t *)reply, length);
}

/* --- events --- */

static void watch(struct connection *c)
{
    bool to_client_idle = held_empty(&c->to_client);
    bool to_core_idle = held_empty(&c->to_core);
    bool read_client = to_core_idle && !c->client_eof && !c->core_deaf && !c->refused && !c->more_from_client;
    uint32_t client = 0;
    uint32_t core = 0;
    if (read_client || c->write_wants_read)
        client |= EPOLLIN;
    if ((!to_client_idle && !c->write_wants_read) || c->read_wants_write)
        client |= EPOLLOUT;
    if (to_client_idle && !c->core_eof && !body_runs(c))
        core |= EPOLLIN;
    if (!to_core_idle || c->more_from_client) /* writable at once: the next turn goes on with what OpenSSL holds */
        core |= EPOLLOUT;
    connection_watch(c, client);
    body_watch(c, to_client_idle);
    if (c->core_io && c->core_events != core)
        loop_io_set(c->core_io, core);
    c->core_events = core;
}

/* Of a connection that core does not know yet. true: it has asked something, and is on its way to core. */
static bool first_request(struct connection *c)
{
    if (c->with_core || c->state != CONNECTION_RELAY)
        return false;
    if (!held_empty(&c->to_core)) {
        pace_update(c);
        handover_offer(c->front, c);
        return true;
    }
    c->core_eof = c->core_eof || c->client_eof || c->refused; /* there is nothing that core could say */
    return false;
}

/* After bytes were moved: close, finish, or wait on. */
static void settle(struct connection *c, enum flow flow)
{
    if (flow != FLOW_GONE && first_request(c))
        return;
    if (flow != FLOW_GONE && c->core_eof && held_empty(&c->to_client) && c->refused && !c->refusal_said)
        flow = say_refusal(c);
    if (flow == FLOW_GONE) {
        connection_close(c);
    } else if (c->core_eof && held_empty(&c->to_client)) {
        connection_finish(c);
    } else {
        watch(c);
        pace_update(c);
    }
}

void relay_refuse(struct connection *c, const struct refusal *refusal)
{
    refuse(c, refusal);
    end_to_core(c);
    settle(c, FLOW_ON);
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
    if (flow != FLOW_GONE && read_ready && !c->client_eof && !c->core_deaf && !c->refused && held_empty(&c->to_core))
        flow = from_client(c);
    settle(c, flow);
}

void relay_body_event(struct connection *c)
{
    settle(c, held_empty(&c->to_client) ? from_core(c) : FLOW_BLOCKED);
}

static void on_core(void *arg, uint32_t events)
{
    struct connection *c = arg;
    enum flow flow = FLOW_ON;
    if (events & (EPOLLHUP | EPOLLERR)) {
        /* Closed at core's end. epoll would report that for ever, so stop listening; the rest is there to be read. */
        loop_io_remove(TAKE_PTR(c->core_io));
        c->core_gone = c->core_deaf = true;
        loop_timer_free(TAKE_PTR(c->end_again));
        c->more_from_client = false;
        held_free(&c->to_core);
        connection_deadline(c, FLUSH_MS);
        if (body_is_open(c) && !body_was_confirmed(c))
            flow = body_fail(c);
    }
    if (flow != FLOW_GONE && ((events & EPOLLIN) || c->core_gone) && held_empty(&c->to_client))
        flow = from_core(c);
    if (flow != FLOW_GONE && (events & EPOLLOUT) && !c->core_gone)
        flow = from_client(c);
    settle(c, flow);
}

void relay_start(struct connection *c)
{
    c->state = CONNECTION_RELAY;
    c->gate = gate_new(&c->front->gate);
    c->unasked = true;
    c->front->n_unasked++;
    connection_deadline(c, IDLE_MS);
    /* The request may have come with the client's last handshake bytes. */
    settle(c, stream_has_pending(c) ? from_client(c) : FLOW_ON);
}

void relay_with_core(struct connection *c)
{
    c->state = CONNECTION_RELAY;
    c->with_core = true;
    c->core_events = EPOLLIN;
    c->core_io = loop_io_add(c->front->loop, c->core, c->core_events, on_core, c);
    settle(c, from_client(c));
}
