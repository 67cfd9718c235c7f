/* Whatever another of our processes writes: the channel says the messages that a plain reading of the bytes finds, then
 * end or fault, once; and no descriptor that rode along stays open. The input's first byte says how many ride. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/ipc_private.h"
#include "base/jsonspec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RIDERS_MAX = 40 };

struct seen {
    struct loop *loop;
    size_t messages, riders, ends;
};

static void fail(const char *what, size_t expected, size_t found)
{
    fprintf(stderr, "%s: %zu, %zu\n", what, expected, found);
    abort();
}

static void on_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct seen *seen = arg;
    (void)fds;
    if (!json_is_string(json_object_get(msg, "type")))
        fail("a message without a type", 0, 0);
    seen->messages++;
    seen->riders += n_fds;
}

static void on_closed(void *arg, const struct err *err)
{
    struct seen *seen = arg;
    (void)err;
    seen->ends++;
    loop_quit(seen->loop, 0);
}

/* The format of base/ipc.h, read plainly. */
static size_t messages_in(const uint8_t *data, size_t size)
{
    size_t n = 0;
    while (size >= 4) {
        size_t length = (size_t)data[0] << 24 | (size_t)data[1] << 16 | (size_t)data[2] << 8 | data[3];
        if (length > size - 4)
            break;
        AUTO_JSON json_t *msg = json_parse_strict((const char *)data + 4, length, IPC_DEPTH_MAX, NULL);
        if (!json_is_object(msg) || !json_is_string(json_object_get(msg, "type")))
            break;
        n++;
        data += 4 + length;
        size -= 4 + length;
    }
    return n;
}

static void write_all(int fd, const uint8_t *data, size_t size, size_t riders)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * RIDERS_MAX)];
    } control = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    const int rider = STDERR_FILENO; /* an end of the pair would keep it open */
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (riders > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * riders);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * riders);
        for (size_t i = 0; i < riders; i++)
            memcpy(CMSG_DATA(header) + i * sizeof(int), &rider, sizeof(rider));
    }
    if (size > 0 && sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)size)
        fail("the socket does not take it", size, 0);
}

/* The lowest free descriptor: the same before and after, unless one stayed open. */
static int lowest_free(void)
{
    int fd = dup(2);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen seen = {.loop = loop_new()};
    struct err err;
    int pair[2], before = lowest_free();
    size_t riders = size > 0 ? data[0] % RIDERS_MAX : 0;
    if (size > 0)
        data++, size--;
    if (size <= 32 * 1024 && ipc_pair(pair, &err) == 0) {
        struct ipc_channel *channel = ipc_channel_new(seen.loop, pair[0], on_message, on_closed, &seen);
        write_all(pair[1], data, size, riders);
        close(pair[1]);
        loop_run(seen.loop);
        ipc_channel_free(channel);
        if (seen.ends != 1)
            fail("ends", 1, seen.ends);
        if (riders == 0 && seen.messages != messages_in(data, size))
            fail("messages", messages_in(data, size), seen.messages);
        if (seen.riders > riders || lowest_free() != before)
            fail("descriptors", riders, seen.riders);
    }
    loop_free(seen.loop);
    return 0;
}
