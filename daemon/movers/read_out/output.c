#include "movers/read_out/output.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

enum {
    ROOM = 128 * 1024,
    SENDFILE_MAX = 1024 * 1024, /* at a time: a cancel is seen between two */
};

struct output {
    int pipe, cancel, errnum;
    bool waited; /* a moment, since something was last taken */
    size_t used;
    char room[ROOM];
};

struct output *output_new(int pipe, int cancel)
{
    struct output *output = mem_new(sizeof(*output));
    output->pipe = pipe;
    output->cancel = cancel;
    return output;
}

bool output_cancelled(const struct output *output)
{
    struct pollfd cancel = {.fd = output->cancel, .events = POLLIN};
    return poll(&cancel, 1, 0) > 0;
}

static int failed(struct output *output, int errnum)
{
    if (!output->errnum)
        output->errnum = errnum;
    return output->errnum;
}

/* After a call that did not succeed. 0: again. A pipe is writable again when a page of it was read: whoever woke up for that would be
 * woken for each page. So the first wait is for a moment, the time of a quarter of the pipe at a gigabyte a second, and only one that finds
 * nothing read is for as long as it takes. */
static int wait_for_room(struct output *output)
{
    const struct timespec moment = {.tv_nsec = 250000};
    struct pollfd both[] = {{.fd = output->cancel, .events = POLLIN}, {.fd = output->pipe, .events = POLLOUT}};
    if (errno == EINTR)
        return 0;
    if (errno != EAGAIN)
        return failed(output, errno);
    bool long_wait = output->waited;
    output->waited = true;
    if (ppoll(both, long_wait ? 2 : 1, long_wait ? NULL : &moment, NULL) < 0)
        return errno == EINTR ? 0 : failed(output, errno);
    return both[0].revents ? failed(output, ECANCELED) : 0;
}

static int write_all(struct output *output, const char *bytes, size_t size)
{
    while (size > 0 && !output->errnum) {
        ssize_t n = write(output->pipe, bytes, size);
        if (n < 0) {
            wait_for_room(output);
            continue;
        }
        output->waited = false;
        bytes += n;
        size -= (size_t)n;
    }
    return output->errnum;
}

int output_flush(struct output *output)
{
    size_t used = output->used;
    output->used = 0;
    return write_all(output, output->room, used);
}

int output_put(struct output *output, const void *bytes, size_t size)
{
    if (output->used + size > ROOM && output_flush(output))
        return output->errnum;
    if (size > ROOM)
        return write_all(output, bytes, size);
    memcpy(output->room + output->used, bytes, size);
    output->used += size;
    return output->errnum;
}

/* A file system whose files cannot be spliced. */
static int copy_file(struct output *output, int fd, int64_t size, bool *ret_short)
{
    while (size > 0 && !output->errnum) {
        ssize_t n = read(fd, output->room, size < ROOM ? (size_t)size : ROOM);
        if (n < 0 && errno == EINTR)
            continue;
        *ret_short = n == 0;
        if (n <= 0)
            return n < 0 ? failed(output, errno) : output->errnum;
        write_all(output, output->room, (size_t)n);
        size -= n;
    }
    return output->errnum;
}

int output_file(struct output *output, int fd, int64_t size, bool *ret_short)
{
    *ret_short = false;
    output_flush(output);
    while (size > 0 && !output->errnum) {
        /* The pages of the file themselves go into the pipe. */
        ssize_t n = sendfile(output->pipe, fd, NULL, size < SENDFILE_MAX ? (size_t)size : SENDFILE_MAX);
        if (n < 0 && (errno == EINVAL || errno == ENOSYS))
            return copy_file(output, fd, size, ret_short);
        if (n < 0) {
            wait_for_room(output);
            continue;
        }
        output->waited = false;
        *ret_short = n == 0;
        if (n == 0)
            break;
        size -= n;
    }
    return output->errnum;
}

int output_error(const struct output *output)
{
    return output->errnum;
}

void output_free(struct output *output)
{
    free(output);
}
