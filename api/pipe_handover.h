#pragma once
/* Core's word to front that a body comes out of a pipe (front/body.h): one byte, which front drops, with the pipe. */

/* fd: the connection's socket; pipe: borrowed. Returns 1, 0 (no room now), or -1. Never blocks. */
int pipe_hand_over(int fd, int pipe);
