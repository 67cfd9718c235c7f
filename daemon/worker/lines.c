#include "worker/lines.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { LINES_CHUNK = 64 * 1024 }; /* a pipe's capacity on Linux */

void lines_init(struct lines *lines, size_t max)
{
    *lines = (struct lines){.max = max};
}

void lines_clear(struct lines *lines)
{
    free(lines->data);
    *lines = (struct lines){.max = lines->max};
}

long lines_fill(struct lines *lines, int fd)
{
    if (lines->start > 0) {
        memmove(lines->data, lines->data + lines->start, lines->used - lines->start);
        lines->used -= lines->start;
        lines->start = 0;
    }
    if (lines->room - lines->used <= LINES_CHUNK) {
        lines->room = lines->used + 2 * LINES_CHUNK;
        lines->data = mem_resize(lines->data, lines->room);
    }
    ssize_t got;
    do {
        got = read(fd, lines->data + lines->used, LINES_CHUNK);
    } while (got < 0 && errno == EINTR);
    if (got > 0)
        lines->used += (size_t)got;
    return got;
}

char *lines_next(struct lines *lines, size_t *ret_length)
{
    if (!lines->data || lines->overlong)
        return NULL;
    char *from = lines->data + lines->start;
    size_t left = lines->used - lines->start;
    char *end = memchr(from, '\n', left);
    size_t length = end ? (size_t)(end - from) : left;
    if (length > lines->max) {
        lines->overlong = true;
        return NULL;
    }
    if (!end)
        return NULL;
    *end = '\0';
    lines->start += length + 1;
    *ret_length = length;
    return from;
}

char *lines_rest(struct lines *lines, size_t *ret_length)
{
    if (!lines->data || lines->used == lines->start)
        return NULL;
    char *from = lines->data + lines->start;
    *ret_length = lines->used - lines->start;
    from[*ret_length] = '\0'; /* lines_fill always leaves room behind the data */
    lines->start = lines->used;
    return from;
}
