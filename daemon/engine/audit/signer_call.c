#include "engine/audit/signer_call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { SIGNER_MS = 20000, ANSWER_MAX = 64 * 1024 };

struct signer_call {
    struct loop_io *io;
    struct loop_timer *timer;
    int fd;
    signer_said_fn said;
    void *arg;
    size_t used;
    char answer[ANSWER_MAX];
};

void signer_call_free(struct signer_call *call)
{
    if (!call)
        return;
    loop_io_remove(call->io);
    loop_timer_free(call->timer);
    close(call->fd);
    free(call);
}

static void end(struct signer_call *call, const json_t *said)
{
    signer_said_fn fn = call->said;
    void *arg = call->arg;

    signer_call_free(call);
    fn(arg, said);
}

static void on_answer(void *arg, uint32_t events)
{
    struct signer_call *call = arg;

    (void)events;
    ssize_t n = recv(call->fd, call->answer + call->used, sizeof(call->answer) - call->used, MSG_DONTWAIT);
    if (n > 0 && (call->used += (size_t)n) < sizeof(call->answer))
        return;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    AUTO_JSON json_t *said = json_loadb(call->answer, call->used, 0, NULL);
    end(call, said);
}

static void on_late(void *arg)
{
    end(arg, NULL);
}

struct signer_call *signer_call_new(struct loop *loop, const char *text, int *ret_fd, signer_said_fn said, void *arg)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return NULL;
    if (send(pair[0], text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)strlen(text) || shutdown(pair[0], SHUT_WR) != 0) {
        close(pair[0]);
        close(pair[1]);
        return NULL;
    }
    struct signer_call *call = mem_new(sizeof(*call));
    *ret_fd = pair[1];
    call->fd = pair[0];
    call->said = said;
    call->arg = arg;
    call->io = loop_io_add(loop, pair[0], EPOLLIN, on_answer, call);
    call->timer = loop_timer_new(loop, on_late, call);
    loop_timer_set(call->timer, SIGNER_MS);
    return call;
}
