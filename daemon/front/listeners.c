/* Accepting: as long as there is room for one more connection. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "front/connection.h"

enum {
    ACCEPTS = 64, /* per turn, so that a burst does not starve the open connections */
    ACCEPT_RETRY_MS = 100,
    KEEPALIVE_IDLE_S = 60, /* a long-poll whose client lost its network is found out after 60 + 4 * 15 s */
    KEEPALIVE_INTERVAL_S = 15,
    KEEPALIVE_COUNT = 4,
    /* What the kernel keeps of a reply beyond what the client's window takes; without a bound it is up to tcp_wmem (4 MiB) for each client
     * that does not read, and nobody here knows that it does not. More than a round trip's worth, so that it costs no throughput. */
    NOT_SENT_BYTES = 256 * 1024,
};

/* Accepted sockets inherit these from the listener (Linux, tcp(7)): no system call per connection. */
static void set_options(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT},
        {IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_BYTES},
    };
    for (size_t i = 0; i < ELEMENTS(options); i++)
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}

static bool room(const struct front *front)
{
    return front->tls && !front->draining && front->n_connections < front->limit &&
           TAILQ_EMPTY(&front->handover.waiting) && !(front->accept_retry && loop_timer_armed(front->accept_retry));
}

static void on_accept_retry(void *arg)
{
    front_listeners_update(arg);
}

/* Out of fds or memory: rest, instead of turning in circles on a listener that stays readable. */
static void rest(struct front *front)
{
    if (!front->accept_retry)
        front->accept_retry = loop_timer_new(front->loop, on_accept_retry, front);
    loop_timer_set(front->accept_retry, ACCEPT_RETRY_MS);
    front_listeners_update(front);
}

static void on_listener(void *arg, uint32_t events)
{
    struct listener *listener = arg;
    struct front *front = listener->front;
    (void)events;
    for (int i = 0; i < ACCEPTS && room(front); i++) {
        struct sockaddr_storage peer = {0};
        socklen_t length = sizeof(peer);
        int client = accept4(listener->fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0) {
            connection_open(front, client, &peer);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            rest(front);
        if (errno != ECONNABORTED && errno != EINTR)
            break; /* EAGAIN, or an error of the client's network (accept(2)) */
    }
    front_listeners_update(front);
}

void front_listeners_update(struct front *front)
{
    bool listen_now = room(front);
    if (listen_now == front->listening)
        return;
    for (size_t i = 0; i < front->n_listeners; i++)
        loop_io_set(front->listeners[i].io, listen_now ? EPOLLIN : 0);
    front->listening = listen_now;
}

void front_listeners_close(struct front *front)
{
    for (size_t i = 0; i < front->n_listeners; i++) {
        loop_io_remove(front->listeners[i].io);
        close(front->listeners[i].fd);
    }
    front->n_listeners = 0;
    front->listening = false;
}

void front_listeners_take(struct front *front, int *fds, size_t n_fds)
{
    front_listeners_close(front);
    for (size_t i = 0; i < n_fds && i < FRONT_LISTENERS_MAX; i++) {
        struct listener *listener = &front->listeners[front->n_listeners++];
        listener->front = front;
        listener->fd = TAKE_FD(fds[i]);
        (void)fcntl(listener->fd, F_SETFL, fcntl(listener->fd, F_GETFL) | O_NONBLOCK);
        set_options(listener->fd);
        listener->io = loop_io_add(front->loop, listener->fd, 0, on_listener, listener);
    }
    front_listeners_update(front);
}
