#pragma once
/* One question to the signer, which serve starts (docs/architecture.md): it reads a text on a socket until its end, writes one JSON text, and ends. */
#include <jansson.h>

#include "base/loop.h"

struct signer_call;
/* said: NULL when there was no answer, none in time, or one that is no JSON. The call is gone when said is called; it may be given up before. */
typedef void (*signer_said_fn)(void *arg, const json_t *said);
/* text must fit into a socket's buffer (64 KiB do). ret_fd: the signer's end, the caller's to hand over and to close. NULL: no socket, or no room. */
struct signer_call *signer_call_new(struct loop *loop, const char *text, int *ret_fd, signer_said_fn said, void *arg);
void signer_call_free(struct signer_call *call); /* NULL is fine */
