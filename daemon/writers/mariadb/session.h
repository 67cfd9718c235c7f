#pragma once
/* One session of a MariaDB server, spoken to without ever blocking past a deadline. The only file that knows
 * libmariadb. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct maria_session;

/* configuration: socket, or host and port; login (default: whom the process runs as), password_file. Does not connect
 * yet; never fails. */
struct maria_session *maria_session_new(const json_t *configuration);
/* When to give up (CLOCK_MONOTONIC, milliseconds) whatever is asked from now on. */
void maria_session_deadline(struct maria_session *session, int64_t give_up_ms);
/* Connects unless connected. Refuses what is not MariaDB, and servers before 10.4 (they have no BACKUP STAGE). */
int maria_session_connect(struct maria_session *session, struct err *err);
/* Ends the session; the server then ends what it held. NULL is fine. */
void maria_session_disconnect(struct maria_session *session);
void maria_session_free(struct maria_session *session);
bool maria_session_connected(const struct maria_session *session);
int maria_session_fd(const struct maria_session *session);              /* -1 = not connected */
const char *maria_session_version(const struct maria_session *session); /* "10.11.6-MariaDB", or "" */

/* One statement. ret_rows: array of rows, a row is an array of strings and nulls (may be NULL when nobody cares).
 * The server gives up by itself at the deadline (lock_wait_timeout, max_statement_time). Past it, or when the requester
 * has gone, the session is killed and ended; the error is VSS_E_WRITERERROR_TIMEOUT for the deadline. */
int maria_session_query(struct maria_session *session, const char *sql, json_t **ret_rows, struct err *err);
/* The text in a cell, or NULL. Borrowed. */
const char *maria_cell(const json_t *rows, size_t row, size_t column);
