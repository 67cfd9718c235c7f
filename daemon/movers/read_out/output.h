#pragma once
/* A pipe that somebody reads slowly, or not at all any more. Gathers small writes; whole files can go through it without being copied. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct output;

/* Borrows both descriptors. pipe does not block; cancel becomes readable when all is to end. */
struct output *output_new(int pipe, int cancel);
/* 0, or an errno value: EPIPE when nobody reads, ECANCELED. The first one stays. */
int output_put(struct output *output, const void *bytes, size_t size);
/* size bytes from the descriptor's position on. *ret_short: it holds less than that. */
int output_file(struct output *output, int fd, int64_t size, bool *ret_short);
int output_flush(struct output *output);
int output_error(const struct output *output); /* of the calls so far */
bool output_cancelled(const struct output *output);
void output_free(struct output *output); /* NULL is fine; drops what was not flushed */
