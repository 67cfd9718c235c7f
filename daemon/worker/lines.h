#pragma once
/* Lines from a child's pipe, with a bound: what a child may make us keep in memory is known beforehand. */
#include <stdbool.h>
#include <stddef.h>

struct lines {
    char *data;
    size_t used, room, max; /* max: longest line accepted, without its end */
    size_t start;           /* where the next line begins */
    bool overlong;          /* a line passed max */
};

void lines_init(struct lines *lines, size_t max);
void lines_clear(struct lines *lines);
/* Reads what fd (non-blocking) has: > 0 bytes read, 0 end-of-file, -1 nothing there now or an error (errno). */
long lines_fill(struct lines *lines, int fd);
/* The next whole line, NUL-terminated, without its end; NULL when there is none. Valid until the next lines_fill. */
char *lines_next(struct lines *lines, size_t *ret_length);
/* What is left without an end of line; for the last words of a dead child. */
char *lines_rest(struct lines *lines, size_t *ret_length);
