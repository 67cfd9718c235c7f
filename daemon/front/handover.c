/* Sends core one packet per connection: preface and plain socket. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "front/connection.h"
#include "front/stream.h"
#include "front/tls.h"

enum { RETRY_MS = 20 }; /* when the kernel is short of something that no event announces */

enum sent {
    SENT_YES,
    SENT_FULL,  /* epoll tells when there is room */
    SENT_LATER, /* nothing tells: try again */
    SENT_DEAD,
};

/* The preface on its way with the socket's other end. */
static enum sent send_packet(int fd, const struct preface *preface, int passed)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)preface, .iov_len = sizeof(*preface)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof(int));
    while (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN)
            return SENT_FULL;
        /* Too many sockets in flight, or no memory: passes when core takes some. */
        return errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM ? SENT_LATER : SENT_DEAD;
    }
    return SENT_YES;
}

static void lost_core(struct front *front)
{
    if (!front->draining) /* at a stop core may be the first to end */
        log_line(LOG_LEVEL_ERROR, NULL, "the handover socket to core is closed");
    loop_quit(front->loop, front->draining ? 0 : 1);
}

/* Tries to send. May close the connection; when the packet went out, the relay has started. */
static enum sent try_send(struct front *front, struct connection *c)
{
    struct preface preface = {.version = PREFACE_VERSION};
    struct err err;
    memcpy(&preface.peer, &c->peer, sizeof(c->peer));
    if (c->local)
        preface.peer = (struct sockaddr_storage){.ss_family = AF_UNIX};
    int known = c->local ? stream_peer(c->client, &preface) : tls_identity(c->ssl, &preface, &err);
    if (known < 0) {
        if (!c->local)
            log_err(LOG_LEVEL_WARNING, NULL, &err, "connection refused");
        connection_close(c);
        return SENT_YES;
    }
    enum sent sent = send_packet(front->handover.fd, &preface, c->handed);
    if (sent == SENT_YES) {
        close(TAKE_FD(c->handed));
        handover_forget(front, c);
        relay_with_core(c);
    }
    return sent;
}

static void wait_for_room(struct front *front, enum sent sent)
{
    if (sent == SENT_DEAD) {
        lost_core(front);
        return;
    }
    loop_io_set(front->handover.io, sent == SENT_FULL ? EPOLLOUT : 0);
    if (sent == SENT_LATER)
        loop_timer_set(front->handover.retry, RETRY_MS);
}

static void send_waiting(struct front *front)
{
    enum sent sent = SENT_YES;
    struct connection *c;
    while (sent == SENT_YES && (c = TAILQ_FIRST(&front->handover.waiting)))
        sent = try_send(front, c);
    wait_for_room(front, sent);
    front_listeners_update(front);
}

void handover_offer(struct front *front, struct connection *c)
{
    int pair[2];
    bool first = TAILQ_EMPTY(&front->handover.waiting);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        connection_close(c); /* out of fds or memory: this client goes, the others stay */
        return;
    }
    c->core = pair[0];
    c->handed = pair[1];
    c->state = CONNECTION_WAITING;
    connection_has_asked(c); /* only core can keep it waiting now: neither the time without a request nor a drain ends it */
    if (!c->refused)
        connection_no_deadline(c);
    TAILQ_INSERT_TAIL(&front->handover.waiting, c, waiting);
    if (first)
        send_waiting(front);
    if (TAILQ_LAST(&front->handover.waiting, connection_list) == c) /* c is still there */
        connection_watch(c, 0);                                     /* its bytes wait in the kernel */
}

void handover_forget(struct front *front, struct connection *c)
{
    TAILQ_REMOVE(&front->handover.waiting, c, waiting);
}

static void on_socket(void *arg, uint32_t events)
{
    struct front *front = arg;
    if (events & (EPOLLHUP | EPOLLERR))
        lost_core(front);
    else
        send_waiting(front);
}

static void on_retry(void *arg)
{
    send_waiting(arg);
}

void handover_open(struct front *front, int fd)
{
    front->handover.fd = fd;
    front->handover.io = loop_io_add(front->loop, fd, 0, on_socket, front);
    front->handover.retry = loop_timer_new(front->loop, on_retry, front);
}

void handover_close(struct front *front)
{
    loop_io_remove(TAKE_PTR(front->handover.io));
    loop_timer_free(TAKE_PTR(front->handover.retry));
    if (front->handover.fd >= 0)
        close(TAKE_FD(front->handover.fd));
}
