#include "front/body.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"

/* A chunk's frame within the record: "3ff8\r\n", and "\r\n" behind it. */
enum { CHUNK_HEAD = 6, CHUNK_TAIL = 2, CHUNK_DATA = FRONT_CHUNK - CHUNK_HEAD - CHUNK_TAIL };
_Static_assert(CHUNK_DATA <= 0xffff, "four digits tell a chunk's size");

void body_begin(struct connection *c, int fd)
{
    if (c->body >= 0)
        close(c->body);
    c->body = fd;
    c->body_open = true;
}

bool body_runs(const struct connection *c)
{
    return c->body >= 0;
}

bool body_is_open(const struct connection *c)
{
    return c->body_open;
}

void body_done(struct connection *c)
{
    c->body_open = false;
}

static void on_pipe(void *arg, uint32_t events)
{
    (void)events;
    relay_body_event(arg);
}

void body_watch(struct connection *c, bool wait)
{
    if (wait && c->body >= 0 && !c->body_io)
        c->body_io = loop_io_add(c->front->loop, c->body, EPOLLIN, on_pipe, c);
    else if (!wait || c->body < 0)
        loop_io_remove(TAKE_PTR(c->body_io));
}

static void close_pipe(struct connection *c)
{
    loop_io_remove(TAKE_PTR(c->body_io));
    if (c->body >= 0)
        close(TAKE_FD(c->body));
}

enum flow body_fail(struct connection *c)
{
    close_pipe(c);
    c->reset = true;
    return FLOW_GONE;
}

/* "3ff8\r\n" before the data that lies there, "\r\n" behind it; where the next chunk begins. */
static uint8_t *frame(uint8_t *chunk, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 4; i++)
        chunk[i] = (uint8_t)digits[size >> (12 - 4 * i) & 0xf];
    memcpy(chunk + 4, "\r\n", 2);
    memcpy(chunk + CHUNK_HEAD + size, "\r\n", CHUNK_TAIL);
    return chunk + CHUNK_HEAD + size + CHUNK_TAIL;
}

/* Each chunk is read to where it stays. */
static ssize_t read_chunks(struct connection *c)
{
    struct iovec parts[FRONT_BODY / FRONT_CHUNK];
    for (size_t i = 0; i < ELEMENTS(parts); i++)
        parts[i] = (struct iovec){c->front->body + i * FRONT_CHUNK + CHUNK_HEAD, CHUNK_DATA};
    ssize_t n;
    do
        n = readv(c->body, parts, ELEMENTS(parts));
    while (n < 0 && errno == EINTR);
    return n;
}

enum flow body_pump(struct connection *c)
{
    uint8_t *end = c->front->body;
    ssize_t n = read_chunks(c);
    if (n < 0)
        return errno == EAGAIN ? FLOW_BLOCKED : body_fail(c);
    if (n == 0) {
        close_pipe(c);
        return FLOW_ON;
    }
    for (size_t left = (size_t)n, size; left > 0; left -= size) {
        size = left < CHUNK_DATA ? left : CHUNK_DATA;
        end = frame(end, size);
    }
    return relay_write(c, c->front->body, (size_t)(end - c->front->body));
}

bool body_was_confirmed(const struct connection *c)
{
    uint8_t byte;
    return recv(c->core, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

void body_close(struct connection *c)
{
    const struct linger abort = {.l_onoff = 1};
    c->reset = c->reset || c->body_open;
    close_pipe(c);
    if (c->reset)
        (void)setsockopt(c->client, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)); /* close sends RST */
}
