#pragma once
/* Structured log lines on standard error (which the launcher points at log.file when configured; with
 * the journal, a <priority> prefix). Log once, at the outermost place that knows the context. */
#include "base/err.h"

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* Any member may be NULL. Values are escaped: a line is always one line. */
struct log_context {
    const char *session_id;
    const char *job_id;
    const char *request_id;
    const char *writer;
};

/* Names the role in every line ("core"); a static string. Call once at start. */
void log_init(const char *role, enum log_level most);
void log_line(enum log_level level, const struct log_context *context, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* One line with the error's code name, text and hint. */
void log_err(enum log_level level, const struct log_context *context, const struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
