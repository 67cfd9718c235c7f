#pragma once
/* A body that core neither reads nor relays: core sends the head of its reply, then, with one byte that nobody else sees, the reading
 * end of a pipe (SCM_RIGHTS). What comes out of the pipe goes to the client as chunks (RFC 9112 7.1) of one TLS record each; then core
 * goes on: with the last chunk when the producer has succeeded, or with the end of its socket. So only core can make a body look whole;
 * any other end is a reset of the client's connection. */
#include <stdbool.h>

#include "front/connection.h"

/* Takes fd over. */
void body_begin(struct connection *connection, int fd);
/* Is there a pipe to be read? */
bool body_runs(const struct connection *connection);
/* Core's next words are the last chunk, and its end now is a failure. */
bool body_is_open(const struct connection *connection);
/* Passes some chunks on. FLOW_BLOCKED: the client, or the producer, is waited for. At the end of the pipe it is no longer running. */
enum flow body_pump(struct connection *connection);
/* Core has spoken: it was the last chunk. */
void body_done(struct connection *connection);
/* Waits for the pipe, or not: a producer that has ended would wake epoll for ever. */
void body_watch(struct connection *connection, bool wait);
/* The body is not whole and will not be: the connection must not end like a finished one. Always FLOW_GONE. */
enum flow body_fail(struct connection *connection);
/* Core's socket is closed. Had it still said that the body is whole? */
bool body_was_confirmed(const struct connection *connection);
void body_close(struct connection *connection);
