/* Accepting, as long as there is room. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "front/front_private.h"

enum { ACCEPTS_PER_TURN = 64, RETRY_MS = 100 };

static void on_listener(void *arg, uint32_t events)
{
    struct listener *listener = arg;
    struct front *front = listener->front;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN && front->n_connections < front->limit; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                loop_timer_set(front->accept_retry, RETRY_MS);
            break;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        connection_start(front, fd);
    }
    front_listeners_update(front);
}

static void on_retry(void *arg)
{
    front_listeners_update(arg);
}

void front_listeners_take(struct front *front, int *fds, size_t n_fds)
{
    front->accept_retry = loop_timer_new(front->loop, on_retry, front);
    for (size_t i = 0; i < n_fds && front->n_listeners < FRONT_LISTENERS_MAX; i++) {
        struct listener *listener = &front->listeners[front->n_listeners++];
        *listener = (struct listener){.front = front, .fd = TAKE_FD(fds[i])};
        fcntl(listener->fd, F_SETFL, fcntl(listener->fd, F_GETFL) | O_NONBLOCK);
    }
    front_listeners_update(front);
}

void front_listeners_update(struct front *front)
{
    bool wanted = !front->draining && front->n_connections < front->limit && !(front->accept_retry && loop_timer_armed(front->accept_retry));
    if (wanted == front->listening)
        return;
    front->listening = wanted;
    for (size_t i = 0; i < front->n_listeners; i++) {
        struct listener *listener = &front->listeners[i];
        if (wanted) {
            listener->io = loop_io_add(front->loop, listener->fd, EPOLLIN, on_listener, listener);
        } else {
            loop_io_remove(listener->io);
            listener->io = NULL;
        }
    }
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
