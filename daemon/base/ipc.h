#pragma once
/* Typed messages between our own processes: a 4-byte big-endian length, then one JSON object with a
 * string member "type"; file descriptors ride on the first byte (SCM_RIGHTS). A malformed message from
 * another of our processes is fatal to the channel: the peer is broken or taken over. */
#include <jansson.h>
#include <stddef.h>

#include "base/err.h"
#include "base/loop.h"

enum { IPC_MESSAGE_MAX = 16 * 1024 * 1024, IPC_FDS_MAX = 32 };

/* A connected AF_UNIX stream pair, both ends close-on-exec. */
int ipc_pair(int ret_fds[2], struct err *err);

/* --- blocking form (worker, agent's children, movers) --- */
/* Sends msg (borrowed) and duplicates of fds. SIGPIPE-free. Fails when the peer takes nothing for 30 s. */
int ipc_send(int fd, const json_t *msg, const int *fds, size_t n_fds, struct err *err);
/* Waits up to timeout_ms (-1 = for ever). ret_msg: new reference. Returns 1 message, 0 end-of-file,
 * -1 error or time-out (hr VSS_E_WRITERERROR_TIMEOUT). Received fds are close-on-exec; *n_fds in: room, out: count. */
int ipc_recv(int fd, int timeout_ms, json_t **ret_msg, int *ret_fds, size_t *n_fds, struct err *err);

/* --- on a loop (supervisor, front, core, agent) --- */
struct ipc_channel;
/* msg borrowed for the call; fds that the callback does not take (set to -1) are closed afterwards. */
typedef void (*ipc_message_fn)(void *arg, json_t *msg, int *fds, size_t n_fds);
/* Peer closed or talked nonsense (err then set, else NULL). Called once; the channel may be freed inside. */
typedef void (*ipc_closed_fn)(void *arg, const struct err *err);

/* Owns fd (made non-blocking). */
struct ipc_channel *ipc_channel_new(struct loop *loop, int fd, ipc_message_fn message, ipc_closed_fn closed, void *arg);
/* Queues; never blocks. msg borrowed, fds duplicated. */
void ipc_channel_send(struct ipc_channel *channel, const json_t *msg, const int *fds, size_t n_fds);
void ipc_channel_free(struct ipc_channel *channel); /* NULL is fine; sends what the socket takes at once, closes */
