#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"

struct line {
    char text[LOG_BYTES_MAX];
    size_t used;
};

static const char *log_role = "quiesced";
static enum log_level log_most = LOG_LEVEL_INFO;
static bool journal;
static bool marked; /* our logger reads it: fields and text are told apart by marks that no value has */

void log_init(const char *role, enum log_level most)
{
    log_role = role;
    log_most = most;
    /* systemd.exec(5): $JOURNAL_STREAM is "device:inode" of the journal's stream. It is inherited by children whose
     * standard error goes elsewhere, therefore it is compared. */
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat own;
    char expected[48];
    journal = marked = false;
    if (stream && fstat(STDERR_FILENO, &own) == 0) {
        snprintf(expected, sizeof(expected), "%ju:%ju", (uintmax_t)own.st_dev, (uintmax_t)own.st_ino);
        journal = strcmp(stream, expected) == 0;
        marked = journal && S_ISFIFO(own.st_mode); /* journald's own stream is a socket */
    }
}

bool log_to_journal(void)
{
    return journal;
}

const char *log_role_name(void)
{
    return log_role;
}

/* Leaves one byte for the line feed. What does not fit is cut between characters. */
static bool line_bytes(struct line *line, const char *bytes, size_t length)
{
    if (line->used + length >= sizeof(line->text))
        return false;
    memcpy(line->text + line->used, bytes, length);
    line->used += length;
    return true;
}

static void line_raw(struct line *line, const char *text)
{
    line_bytes(line, text, strlen(text));
}

/* What stands before a field, or before the text. */
static void line_mark(struct line *line, char mark)
{
    line_bytes(line, marked ? &mark : " ", 1);
}

/* Control characters (C0, DEL, C1) and bytes that are no UTF-8 are written as escapes: neither a second line nor a
 * terminal sequence can be smuggled in. */
static void line_escaped(struct line *line, const char *text, bool quoted)
{
    size_t left = strlen(text);
    while (left > 0) {
        size_t span = utf8_span(text, left);
        unsigned char first = (unsigned char)text[0];
        bool control = span == 0 || first < 0x20 || first == 0x7f || (first == 0xc2 && (unsigned char)text[1] < 0xa0);
        char escape[12];
        size_t length = span ? span : 1;
        bool room;
        if (first == '\n' || first == '\t' || (quoted && (first == '"' || first == '\\')))
            room = line_bytes(line, escape, (size_t)snprintf(escape, sizeof(escape), "\\%c",
                                                             first == '\n' ? 'n' : first == '\t' ? 't' : first));
        else if (control && length == 2)
            room = line_bytes(line, escape,
                              (size_t)snprintf(escape, sizeof(escape), "\\u00%02x", (unsigned char)text[1]));
        else if (control)
            room = line_bytes(line, escape, (size_t)snprintf(escape, sizeof(escape), "\\x%02x", first));
        else
            room = line_bytes(line, text, length);
        if (!room)
            return;
        text += length;
        left -= length;
    }
}

static void line_value(struct line *line, const char *name, const char *value)
{
    if (!value || !*value)
        return;
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@+-";
    bool quoted = value[strspn(value, plain)] != '\0';
    line_mark(line, LOG_FIELD);
    line_raw(line, name);
    line_raw(line, quoted ? "=\"" : "=");
    line_escaped(line, value, quoted);
    if (quoted)
        line_raw(line, "\"");
}

static _Thread_local struct {
    char request_id[65], trace_id[33];
} adopted;

void log_adopt(const char *request_id, const char *trace_id)
{
    snprintf(adopted.request_id, sizeof(adopted.request_id), "%s", request_id ? request_id : "");
    snprintf(adopted.trace_id, sizeof(adopted.trace_id), "%s", trace_id ? trace_id : "");
}

static void line_begin(struct line *line, enum log_level level, const struct log_context *context)
{
    static const char *const words[] = {
        [LOG_LEVEL_ERROR] = "error",
        [LOG_LEVEL_WARNING] = "warning",
        [LOG_LEVEL_INFO] = "info",
        [LOG_LEVEL_DEBUG] = "debug",
    };
    line->used = 0;
    char when[CLOCK_RFC3339_SIZE + 1];
    if (journal) {
        snprintf(when, sizeof(when), "<%d>", (int)level);
    } else {
        clock_rfc3339(clock_real_ms(), when);
        strcat(when, " ");
    }
    line_raw(line, when);
    line_raw(line, log_role);
    line_raw(line, " ");
    line_raw(line, words[level]);
    static const struct log_context none = {0};
    if (!context)
        context = &none;
    line_value(line, "session", context->session_id);
    line_value(line, "job", context->job_id);
    line_value(line, "request", context->request_id ? context->request_id : adopted.request_id);
    line_value(line, "trace", context->request_id ? context->trace_id : adopted.trace_id);
    line_value(line, "writer", context->writer);
}

/* --- lines that found no room --- */

/* Standard error may be a pipe that does not block (serve's, to the logger): a line is written whole or dropped. */
static struct {
    pthread_mutex_t mutex;
    size_t n;
    int64_t since_ms;
} dropped = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* False when there was no room. */
static bool write_out(const struct line *line)
{
    ssize_t n;
    do
        n = write(STDERR_FILENO, line->text, line->used);
    while (n < 0 && errno == EINTR);
    return n >= 0 || errno != EAGAIN;
}

/* The first line that gets through says what is missing before it. */
static void tell_dropped(void)
{
    struct line line;
    char since[CLOCK_RFC3339_SIZE], text[96];
    snprintf(text, sizeof(text), "%zu lines were dropped since %s: the log did not take them", dropped.n,
             clock_rfc3339(dropped.since_ms, since));
    line_begin(&line, LOG_LEVEL_WARNING, NULL);
    line_mark(&line, LOG_TEXT);
    line_raw(&line, text);
    line.text[line.used++] = '\n';
    if (write_out(&line))
        dropped.n = 0;
}

static void line_end(struct line *line)
{
    line->text[line->used++] = '\n';
    pthread_mutex_lock(&dropped.mutex);
    if (dropped.n > 0)
        tell_dropped();
    if (dropped.n > 0 || !write_out(line)) {
        if (dropped.n++ == 0)
            dropped.since_ms = clock_real_ms();
    }
    pthread_mutex_unlock(&dropped.mutex);
}

void log_line(enum log_level level, const struct log_context *context, const char *fmt, ...)
{
    if (level > log_most)
        return;
    char text[LOG_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    if (vsnprintf(text, sizeof(text), fmt, args) < 0)
        text[0] = '\0';
    va_end(args);
    struct line line;
    line_begin(&line, level, context);
    line_mark(&line, LOG_TEXT);
    line_escaped(&line, text, false);
    line_end(&line);
}

void log_err(enum log_level level, const struct log_context *context, const struct err *err, const char *fmt, ...)
{
    if (level > log_most)
        return;
    char text[LOG_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    if (vsnprintf(text, sizeof(text), fmt, args) < 0)
        text[0] = '\0';
    va_end(args);
    struct line line;
    line_begin(&line, level, context);
    line_value(&line, "code", hresult_name(err->hr));
    line_mark(&line, LOG_TEXT);
    line_escaped(&line, text, false);
    if (err->text[0]) {
        line_raw(&line, text[0] ? ": " : "");
        line_escaped(&line, err->text, false);
    }
    if (err->hint[0]) {
        line_raw(&line, " (");
        line_escaped(&line, err->hint, false);
        line_raw(&line, ")");
    }
    line_end(&line);
}
