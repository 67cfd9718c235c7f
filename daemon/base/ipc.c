#include "base/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/ipc_private.h"
#include "base/str.h"

enum {
    /* Our own processes write a message in one go: once it has begun, the rest must follow soon. */
    IPC_REST_MS = 5000,
    /* Until a peer that takes nothing (stopped; its socket is full) is given up: well above the second or two after which
     * serve replaces a stopped role. */
    IPC_SEND_MS = 30000,
    /* Messages per turn of the loop, so that a chatty peer does not starve the others. */
    IPC_BURST = 32,
};

DEFINE_CLEANUP(struct ipc_frame *, ipc_frame_free)

int ipc_pair(int ret_fds[2], struct err *err)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_fds) != 0)
        return err_errno(err, (uint32_t)E_OUTOFMEMORY, errno, NULL, "cannot create a socket pair");
    return 0;
}

/* --- blocking --- */

int ipc_send(int fd, const json_t *msg, const int *fds, size_t n_fds, struct err *err)
{
    if (fault_role("ipc.send"))
        return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "message between processes: fault injected");
    CLEANUP(ipc_frame_free_p) struct ipc_frame *frame = ipc_frame_new(msg, fds, n_fds, err);
    if (!frame)
        return -1;
    const char *type = json_string_value(json_object_get(msg, "type"));
    for (int64_t deadline = clock_mono_ms() + IPC_SEND_MS;;) {
        int rc = ipc_frame_send(frame, fd, MSG_DONTWAIT);
        if (rc > 0)
            return 0;
        if (rc < 0)
            return err_errno(err, (uint32_t)VSS_E_UNEXPECTED, errno, NULL, "message %s: cannot be sent", type);
        int64_t left = deadline - clock_mono_ms();
        if (left <= 0)
            return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "message %s: the other process has taken nothing for %d s", type,
                           IPC_SEND_MS / 1000);
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        poll(&wait, 1, (int)left);
    }
}

static int receive_done(struct ipc_reader *reader, int *ret_fds, size_t *n_fds, struct err *err)
{
    size_t room = n_fds ? *n_fds : 0;
    if (reader->n_fds > room)
        return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL,
                       "message between processes: %zu descriptors, room for %zu", reader->n_fds, room);
    for (size_t i = 0; i < reader->n_fds; i++) {
        ret_fds[i] = reader->fds[i];
        reader->fds[i] = -1;
    }
    if (n_fds)
        *n_fds = reader->n_fds;
    return 0;
}

int ipc_recv(int fd, int timeout_ms, json_t **ret_msg, int *ret_fds, size_t *n_fds, struct err *err)
{
    CLEANUP(ipc_reader_reset) struct ipc_reader reader = {.have = 0};
    int64_t deadline = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    bool begun = false;
    if (fault_role("ipc.receive"))
        return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "message between processes: fault injected");
    for (;;) {
        AUTO_JSON json_t *msg = NULL;
        enum ipc_read got = ipc_reader_step(&reader, fd, &msg, err);
        if (got == IPC_READ_MESSAGE) {
            if (receive_done(&reader, ret_fds, n_fds, err) != 0)
                return -1;
            *ret_msg = TAKE_PTR(msg);
            return 1;
        }
        if (got == IPC_READ_END)
            return 0;
        if (got == IPC_READ_ERROR)
            return -1;
        if (reader.have > 0 && !begun) {
            begun = true;
            deadline = clock_mono_ms() + IPC_REST_MS;
        }
        int64_t left = deadline == INT64_MAX ? -1 : deadline - clock_mono_ms();
        if (deadline != INT64_MAX && left <= 0)
            return err_set(err, (uint32_t)VSS_E_WRITERERROR_TIMEOUT, NULL, "message between processes: none in time%s",
                           begun ? " (it had begun)" : "");
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        poll(&wait, 1, left > 3600000 ? 3600000 : (int)left);
    }
}

/* --- on a loop --- */

struct ipc_channel {
    struct loop *loop;
    int fd;
    struct loop_io *io;
    struct loop_timer *failing; /* reports a failure of sending from the loop, never from within the caller */
    ipc_message_fn message;
    ipc_closed_fn closed;
    void *arg;
    struct ipc_reader reader;
    struct ipc_frame *first, **last;
    struct err failure;
    bool failed;      /* nothing is sent or received any more */
    bool in_callback; /* freeing waits for the callback to return */
    bool freed;
};

static void channel_destroy(struct ipc_channel *channel)
{
    loop_io_remove(channel->io);
    loop_timer_free(channel->failing);
    ipc_reader_reset(&channel->reader);
    while (channel->first) {
        struct ipc_frame *frame = channel->first;
        channel->first = frame->next;
        ipc_frame_free(frame);
    }
    close(channel->fd);
    free(channel);
}

/* Returns false when the channel is gone. */
static bool channel_call_closed(struct ipc_channel *channel, const struct err *err)
{
    loop_io_remove(TAKE_PTR(channel->io));
    loop_timer_stop(channel->failing);
    channel->failed = true;
    ipc_closed_fn closed = channel->closed;
    channel->closed = NULL;
    channel->in_callback = true;
    if (closed)
        closed(channel->arg, err);
    channel->in_callback = false;
    if (channel->freed)
        channel_destroy(channel);
    return false;
}

static void channel_flush(struct ipc_channel *channel)
{
    while (channel->first) {
        struct ipc_frame *frame = channel->first;
        int rc = ipc_frame_send(frame, channel->fd, MSG_DONTWAIT);
        if (rc == 0)
            break;
        if (rc < 0 && errno != EPIPE && errno != ECONNRESET && !channel->failed) {
            err_errno(&channel->failure, (uint32_t)VSS_E_UNEXPECTED, errno, NULL,
                      "message between processes: cannot be sent");
            channel->failed = true;
            loop_timer_set(channel->failing, 0);
            break;
        }
        /* Sent; or the peer is gone: what it wrote before is still to be read, then comes the end-of-file. */
        channel->first = frame->next;
        if (!channel->first)
            channel->last = &channel->first;
        ipc_frame_free(frame);
    }
    if (channel->io)
        loop_io_set(channel->io, EPOLLIN | (channel->first ? EPOLLOUT : 0));
}

static bool channel_read_one(struct ipc_channel *channel)
{
    struct err err = {.hr = 0};
    AUTO_JSON json_t *msg = NULL;
    enum ipc_read got = ipc_reader_step(&channel->reader, channel->fd, &msg, &err);
    if (got == IPC_READ_AGAIN)
        return false;
    if (got == IPC_READ_MESSAGE && fault_role("ipc.receive")) {
        err_set(&err, (uint32_t)VSS_E_UNEXPECTED, NULL, "message between processes: fault injected");
        got = IPC_READ_ERROR;
    }
    if (got != IPC_READ_MESSAGE)
        return channel_call_closed(channel, got == IPC_READ_ERROR ? &err : NULL);
    channel->in_callback = true;
    channel->message(channel->arg, msg, channel->reader.fds, channel->reader.n_fds);
    channel->in_callback = false;
    if (channel->freed) {
        channel_destroy(channel);
        return false;
    }
    ipc_reader_reset(&channel->reader);
    return !channel->failed;
}

static void on_channel_io(void *arg, uint32_t epoll_events)
{
    struct ipc_channel *channel = arg;
    if (channel->failed)
        return;
    if (epoll_events & EPOLLOUT)
        channel_flush(channel);
    for (int i = 0; i < IPC_BURST && channel_read_one(channel); i++)
        ;
}

static void on_channel_failing(void *arg)
{
    struct ipc_channel *channel = arg;
    struct err err = channel->failure;
    channel_call_closed(channel, &err);
}

struct ipc_channel *ipc_channel_new(struct loop *loop, int fd, ipc_message_fn message, ipc_closed_fn closed, void *arg)
{
    struct ipc_channel *channel = mem_new(sizeof(*channel));
    *channel = (struct ipc_channel){.loop = loop, .fd = fd, .message = message, .closed = closed, .arg = arg};
    channel->last = &channel->first;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    channel->failing = loop_timer_new(loop, on_channel_failing, channel);
    channel->io = loop_io_add(loop, fd, EPOLLIN, on_channel_io, channel);
    return channel;
}

void ipc_channel_send(struct ipc_channel *channel, const json_t *msg, const int *fds, size_t n_fds)
{
    if (channel->failed || channel->freed)
        return;
    struct ipc_frame *frame = fault_role("ipc.send") ? NULL : ipc_frame_new(msg, fds, n_fds, &channel->failure);
    if (!frame) {
        channel->failed = true; /* a message is missing: the conversation is broken */
        loop_timer_set(channel->failing, 0);
        return;
    }
    *channel->last = frame;
    channel->last = &frame->next;
    if (channel->first == frame)
        channel_flush(channel);
}

void ipc_channel_free(struct ipc_channel *channel)
{
    if (!channel || channel->freed)
        return;
    if (!channel->failed)
        channel_flush(channel);
    channel->freed = true;
    loop_io_remove(TAKE_PTR(channel->io));
    loop_timer_stop(channel->failing);
    if (!channel->in_callback)
        channel_destroy(channel);
}
