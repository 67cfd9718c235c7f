#pragma once
/* Structured log lines on standard error: in the daemon's processes the pipe to the logger (serve/logger.h), which does not
 * block. A line is written whole, or dropped and counted; the next one that finds room is preceded by the count. With the
 * journal, a <priority> prefix. Log once, at the outermost place that knows the context.
 * In the pipe to a logger that writes to the journal (serve/journal.h), what $JOURNAL_STREAM names being a pipe, LOG_FIELD stands before each field and LOG_TEXT
 * before the text, in place of spaces: nobody can forge a field by a text that looks like one, since control characters are escaped. */
#include "base/err.h"

/* A line is at most PIPE_BUF (4096, POSIX), so that lines of our processes on one pipe never mix. */
enum { LOG_BYTES_MAX = 4096, LOG_FIELD = 0x1f, LOG_TEXT = 0x1e };
enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* Any member may be NULL. Values are escaped: a line is always one line. */
struct log_context {
    const char *session_id;
    const char *job_id;
    const char *request_id;
    const char *trace_id; /* of the W3C trace that the request belongs to */
    const char *writer;
};

/* Names the role in every line ("core"); a static string. Call once at start. */
void log_init(const char *role, enum log_level most);
/* Lines of this thread that name no request belong to this one from now on; NULL: to none. Both are copied. */
void log_adopt(const char *request_id, const char *trace_id);
/* Did log_init find the journal at standard error ($JOURNAL_STREAM)? */
bool log_to_journal(void);
/* What log_init was told. */
const char *log_role_name(void);
void log_line(enum log_level level, const struct log_context *context, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* One line with the error's code name, text and hint. */
void log_err(enum log_level level, const struct log_context *context, const struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
