#pragma once
/* One connection to a Redis server, spoken to without ever blocking past a deadline. The only file that knows hiredis.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct redis_session;

/* configuration: socket, or host and port; login and password_file. Does not connect yet; never fails. */
struct redis_session *redis_session_new(const json_t *configuration);
/* When to give up (CLOCK_MONOTONIC, milliseconds) whatever is asked from now on. */
void redis_session_deadline(struct redis_session *session, int64_t give_up_ms);
/* From now on, for most_ms at most: go on although the requester has gone. For what releases a hold. */
void redis_session_last_words(struct redis_session *session, int64_t most_ms);
int64_t redis_session_left_ms(const struct redis_session *session);
/* Connects and logs in unless connected. */
int redis_session_connect(struct redis_session *session, struct err *err);
void redis_session_disconnect(struct redis_session *session); /* NULL is fine */
void redis_session_free(struct redis_session *session);
int redis_session_fd(const struct redis_session *session); /* -1 = not connected */

/* One command of words, NULL-ended. ret_text (may be NULL): the reply's text; of an array the texts, a line each. The
 * caller frees it. An error reply is an error; past the deadline the connection is closed: VSS_E_WRITERERROR_TIMEOUT.
 */
int redis_session_command(struct redis_session *session, const char *const *words, char **ret_text, struct err *err);
/* A wait between two questions; fails like a command when it is time to give up, or when the requester has gone. */
int redis_session_wait(struct redis_session *session, int ms, struct err *err);
