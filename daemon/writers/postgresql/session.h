#pragma once
/* One session of the server, spoken to without ever blocking past a deadline. The only file that knows libpq. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct pg_session;

/* conninfo: libpq's keyword=value or URI form (dbname defaults to postgres). Does not connect yet; never fails. */
struct pg_session *pg_session_new(const char *conninfo, const char *application_name);
/* When to give up (CLOCK_MONOTONIC, milliseconds) whatever is asked from now on. */
void pg_session_deadline(struct pg_session *session, int64_t give_up_ms);
/* Connects unless connected. The session's time-outs (statement, lock, idle) are switched off. */
int pg_session_connect(struct pg_session *session, struct err *err);
/* Ends the session; the server then ends what it held: backup mode, temporary slots. NULL is fine. */
void pg_session_disconnect(struct pg_session *session);
void pg_session_free(struct pg_session *session);
bool pg_session_connected(const struct pg_session *session);
int pg_session_fd(const struct pg_session *session); /* -1 = not connected */

/* One statement; params: NULL-ended strings, or NULL. ret_rows: array of rows, a row is an array of strings and
 * nulls (may be NULL when nobody cares). Past the deadline the statement is cancelled, the session ended,
 * and the error is VSS_E_WRITERERROR_TIMEOUT. */
int pg_session_query(struct pg_session *session, const char *sql, const char *const *params, json_t **ret_rows,
                     struct err *err);
/* The text in a cell, or NULL. Borrowed. */
const char *pg_cell(const json_t *rows, size_t row, size_t column);
