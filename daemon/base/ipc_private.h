#pragma once
/* Frames: shared by the blocking form and the loop form. */
#include <stdbool.h>

#include "base/ipc.h"

enum { IPC_HEADER_SIZE = 4, IPC_DEPTH_MAX = 128 };

/* A message on its way out; owns its bytes and its duplicates of the descriptors. */
struct ipc_frame {
    struct ipc_frame *next;
    char *bytes; /* header and body */
    size_t size, sent;
    int fds[IPC_FDS_MAX];
    size_t n_fds;
};

/* NULL with err when the message is too large or a descriptor cannot be duplicated. */
struct ipc_frame *ipc_frame_new(const json_t *msg, const int *fds, size_t n_fds, struct err *err);
void ipc_frame_free(struct ipc_frame *frame);
/* 1 sent completely, 0 the socket takes no more now, -1 error (errno). Never blocks with MSG_DONTWAIT in flags. */
int ipc_frame_send(struct ipc_frame *frame, int fd, int flags);

/* A message on its way in. Reads exactly one frame, never beyond: descriptors therefore always belong to it. */
struct ipc_reader {
    unsigned char header[IPC_HEADER_SIZE];
    char *body;
    size_t have; /* header and body together */
    size_t length;
    int fds[IPC_FDS_MAX];
    size_t n_fds;
};

enum ipc_read { IPC_READ_MESSAGE, IPC_READ_AGAIN, IPC_READ_END, IPC_READ_ERROR };
/* Reads what is there without blocking. IPC_READ_MESSAGE: ret_msg is a new reference, the reader's fds are the
 * caller's until ipc_reader_reset. IPC_READ_ERROR: err is set. */
enum ipc_read ipc_reader_step(struct ipc_reader *reader, int fd, json_t **ret_msg, struct err *err);
/* Closes descriptors that nobody took (not -1) and begins anew. */
void ipc_reader_reset(struct ipc_reader *reader);
