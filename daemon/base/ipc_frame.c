#include "base/ipc_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

/* --- out --- */

void ipc_frame_free(struct ipc_frame *frame)
{
    if (!frame)
        return;
    for (size_t i = 0; i < frame->n_fds; i++)
        close(frame->fds[i]);
    free(frame->bytes);
    free(frame);
}
DEFINE_CLEANUP(struct ipc_frame *, ipc_frame_free)

struct ipc_frame *ipc_frame_new(const json_t *msg, const int *fds, size_t n_fds, struct err *err)
{
    const char *type = json_str(msg, "type", "?");
    if (n_fds > IPC_FDS_MAX) {
        err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "message %s: %zu descriptors, at most %d are possible", type,
                n_fds, IPC_FDS_MAX);
        return NULL;
    }
    AUTO_FREE char *text = json_dumps(msg, JSON_COMPACT);
    if (!text) {
        err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "message %s: cannot be written as JSON", type);
        return NULL;
    }
    size_t length = strlen(text);
    if (length > IPC_MESSAGE_MAX) {
        err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "message %s: %zu bytes, at most %d are possible", type, length,
                IPC_MESSAGE_MAX);
        return NULL;
    }
    CLEANUP(ipc_frame_free_p) struct ipc_frame *frame = mem_new(sizeof(*frame));
    for (; frame->n_fds < n_fds; frame->n_fds++) {
        int copy = fcntl(fds[frame->n_fds], F_DUPFD_CLOEXEC, 3);
        if (copy < 0) {
            err_errno(err, (uint32_t)E_OUTOFMEMORY, errno, NULL, "message %s: cannot duplicate descriptor %d", type,
                      fds[frame->n_fds]);
            return NULL;
        }
        frame->fds[frame->n_fds] = copy;
    }
    frame->size = IPC_HEADER_SIZE + length;
    frame->bytes = mem_new(frame->size);
    for (size_t i = 0; i < IPC_HEADER_SIZE; i++)
        frame->bytes[i] = (char)(length >> (8 * (IPC_HEADER_SIZE - 1 - i)));
    memcpy(frame->bytes + IPC_HEADER_SIZE, text, length);
    return TAKE_PTR(frame);
}

union fd_control {
    char bytes[CMSG_SPACE(sizeof(int) * IPC_FDS_MAX)];
    struct cmsghdr align;
};

int ipc_frame_send(struct ipc_frame *frame, int fd, int flags)
{
    while (frame->sent < frame->size) {
        struct iovec part = {.iov_base = frame->bytes + frame->sent, .iov_len = frame->size - frame->sent};
        struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
        union fd_control control;
        if (frame->n_fds > 0) {
            memset(&control, 0, sizeof(control));
            msg.msg_control = control.bytes;
            msg.msg_controllen = CMSG_SPACE(sizeof(int) * frame->n_fds);
            struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
            header->cmsg_level = SOL_SOCKET;
            header->cmsg_type = SCM_RIGHTS;
            header->cmsg_len = CMSG_LEN(sizeof(int) * frame->n_fds);
            memcpy(CMSG_DATA(header), frame->fds, sizeof(int) * frame->n_fds);
        }
        ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL | flags);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
        frame->sent += (size_t)n;
        for (; frame->n_fds > 0; frame->n_fds--) /* they rode on the first byte */
            close(frame->fds[frame->n_fds - 1]);
    }
    return 1;
}

/* --- in --- */

void ipc_reader_reset(struct ipc_reader *reader)
{
    for (size_t i = 0; i < reader->n_fds; i++)
        if (reader->fds[i] >= 0)
            close(reader->fds[i]);
    free(reader->body);
    memset(reader, 0, sizeof(*reader));
}

static int nonsense(struct err *err, const char *what)
{
    return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "message between processes: %s", what);
}

/* Takes over every descriptor of a received message, whatever else is wrong with it: none may leak. */
static int take_fds(struct ipc_reader *reader, struct msghdr *msg, struct err *err)
{
    bool late = false;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(msg); header; header = CMSG_NXTHDR(msg, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
            if (reader->have > 0 || reader->n_fds == IPC_FDS_MAX) {
                close(fd);
                late = true;
            } else {
                reader->fds[reader->n_fds++] = fd;
            }
        }
    }
    if (late)
        return nonsense(err, "descriptors in the middle of a message");
    if (msg->msg_flags & MSG_CTRUNC)
        return nonsense(err, "descriptors were lost (too many of them, or too many open files)");
    return 0;
}

static int header_done(struct ipc_reader *reader, struct err *err)
{
    reader->length = 0;
    for (size_t i = 0; i < IPC_HEADER_SIZE; i++)
        reader->length = reader->length << 8 | reader->header[i];
    if (reader->length == 0 || reader->length > IPC_MESSAGE_MAX)
        return err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL,
                       "message between processes: announced with %zu bytes, 1 to %d are possible", reader->length,
                       IPC_MESSAGE_MAX);
    reader->body = mem_new(reader->length);
    return 0;
}

static enum ipc_read message_done(struct ipc_reader *reader, json_t **ret_msg, struct err *err)
{
    AUTO_JSON json_t *msg = json_parse_strict(reader->body, reader->length, IPC_DEPTH_MAX, err);
    if (!msg) {
        if (err) {
            err->hr = (uint32_t)VSS_E_UNEXPECTED; /* no request of a user is at fault */
            err_prefix(err, "message between processes");
        }
        return IPC_READ_ERROR;
    }
    if (!json_str(msg, "type", NULL)) {
        nonsense(err, "not an object with a string \"type\"");
        return IPC_READ_ERROR;
    }
    *ret_msg = TAKE_PTR(msg);
    return IPC_READ_MESSAGE;
}

/* One recvmsg of at most what the frame still needs. > 0 bytes, 0 end, -1 errno, -2 err is set. */
static ssize_t receive(struct ipc_reader *reader, int fd, struct err *err)
{
    bool in_header = reader->have < IPC_HEADER_SIZE;
    struct iovec part = {
        .iov_base = in_header ? (char *)reader->header + reader->have : reader->body + reader->have - IPC_HEADER_SIZE,
        .iov_len = in_header ? IPC_HEADER_SIZE - reader->have : IPC_HEADER_SIZE + reader->length - reader->have,
    };
    union fd_control control;
    struct msghdr msg = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n >= 0 && take_fds(reader, &msg, err) != 0)
        return -2;
    return n;
}

enum ipc_read ipc_reader_step(struct ipc_reader *reader, int fd, json_t **ret_msg, struct err *err)
{
    for (;;) {
        ssize_t n = receive(reader, fd, err);
        if (n == -2)
            return IPC_READ_ERROR;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return IPC_READ_AGAIN;
        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            if (reader->have == 0)
                return IPC_READ_END;
            nonsense(err, "the peer ended in the middle of a message");
            return IPC_READ_ERROR;
        }
        if (n < 0) {
            err_errno(err, (uint32_t)VSS_E_UNEXPECTED, errno, NULL, "message between processes: cannot be received");
            return IPC_READ_ERROR;
        }
        reader->have += (size_t)n;
        if (reader->have == IPC_HEADER_SIZE && header_done(reader, err) != 0)
            return IPC_READ_ERROR;
        if (reader->have > IPC_HEADER_SIZE && reader->have == IPC_HEADER_SIZE + reader->length)
            return message_done(reader, ret_msg, err);
    }
}
