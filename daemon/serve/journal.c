#include "serve/journal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

/* sd-journal.h has no name for it; systemd's documentation of the native protocol has the path. */
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

enum {
    DATAGRAM_MAX = 8192, /* a line is 4,096 at most, and the names of its fields are short: far below what a datagram takes */
    WAIT_MS = 1000,
    PAUSE_NS = 10 * 1000 * 1000,
    LOG_INFO_PRIORITY = 6,
};

struct datagram {
    size_t used;
    char bytes[DATAGRAM_MAX];
};

/* --- what is sent --- */

static void put(struct datagram *datagram, const char *bytes, size_t length)
{
    if (length > sizeof(datagram->bytes) - datagram->used)
        length = sizeof(datagram->bytes) - datagram->used;
    memcpy(datagram->bytes + datagram->used, bytes, length);
    datagram->used += length;
}

/* A line has no line feed in it, so that the short form of a field will do. */
static void field(struct datagram *datagram, const char *name, const char *value, size_t length)
{
    put(datagram, name, strlen(name));
    put(datagram, "=", 1);
    put(datagram, value, length);
    put(datagram, "\n", 1);
}

/* name=value, or name="value" with \" and \\; other escapes stay: they keep control characters away from terminals. */
static void named(struct datagram *datagram, const char *text, size_t length)
{
    static const struct {
        const char *ours, *journals;
    } rows[] = {{"session", "SESSION_ID"}, {"job", "JOB_ID"}, {"request", "REQUEST_ID"}, {"trace", "TRACE_ID"}, {"writer", "QUIESCED_WRITER"}, {"code", "QUIESCED_CODE"}};
    const char *equals = memchr(text, '=', length);
    char value[LOG_BYTES_MAX];
    size_t used = 0;

    if (!equals)
        return;
    const char *at = equals + 1, *end = text + length;
    bool quoted = at < end && *at == '"' && end[-1] == '"' && end - at >= 2;
    for (at += quoted, end -= quoted; at < end && used < sizeof(value); at++) {
        if (quoted && *at == '\\' && at + 1 < end && (at[1] == '"' || at[1] == '\\'))
            at++;
        value[used++] = *at;
    }
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (strlen(rows[i].ours) == (size_t)(equals - text) && memcmp(rows[i].ours, text, (size_t)(equals - text)) == 0)
            field(datagram, rows[i].journals, value, used);
}

/* "core error" and the fields behind it; then the text. */
static void ours(struct datagram *datagram, const char *head, const char *text, const char *end)
{
    const char *role_end = memchr(head, ' ', (size_t)(text - head)), *fields = memchr(head, LOG_FIELD, (size_t)(text - head));
    const char *role = role_end ? head : "";
    size_t role_length = role_end ? (size_t)(role_end - head) : 0;

    field(datagram, "QUIESCED_ROLE", role, role_length);
    for (const char *at = fields; at; ) {
        const char *next = memchr(at + 1, LOG_FIELD, (size_t)(text - at - 1));
        named(datagram, at + 1, (size_t)((next ? next : text) - at - 1));
        at = next;
    }
    put(datagram, "MESSAGE=", strlen("MESSAGE="));
    put(datagram, role, role_length);
    put(datagram, ": ", 2);
    put(datagram, text + 1, (size_t)(end - text - 1));
    put(datagram, "\n", 1);
}

static void compose(struct datagram *datagram, const char *line, size_t length)
{
    const char *end = line + length, *text = NULL;
    char priority = '0' + LOG_INFO_PRIORITY;

    datagram->used = 0;
    if (length >= 3 && line[0] == '<' && line[1] >= '0' && line[1] <= '7' && line[2] == '>') {
        priority = line[1];
        line += 3;
        text = memchr(line, LOG_TEXT, (size_t)(end - line));
    }
    field(datagram, "PRIORITY", &priority, 1);
    field(datagram, "SYSLOG_IDENTIFIER", "quiesced", strlen("quiesced"));
    if (text)
        ours(datagram, line, text, end);
    else
        field(datagram, "MESSAGE", line, (size_t)(end - line));
}

void journal_plain(char *line, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (line[i] == LOG_FIELD || line[i] == LOG_TEXT)
            line[i] = ' ';
}

/* --- how --- */

static int connect_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = JOURNAL_SOCKET;
#ifdef QUIESCED_FAULTS
    const char *of_a_test = getenv("QUIESCED_JOURNAL_SOCKET");
    path = of_a_test ? of_a_test : path;
#endif
    AUTO_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || !str_copy(address.sun_path, sizeof(address.sun_path), path) ||
        connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return -1;
    return TAKE_FD(fd);
}

static bool deliver(int fd, const struct datagram *datagram)
{
    while (send(fd, datagram->bytes, datagram->used, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        if (errno == EAGAIN)
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, WAIT_MS);
        else if (errno != EINTR && errno != ENOBUFS)
            return false;
        if (errno != EINTR)
            nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    }
    return true;
}

bool journal_send(struct journal *journal, const char *line, size_t length)
{
    static struct datagram datagram; /* one process, one thread: the logger's */

    compose(&datagram, line, length);
    if (journal->fd >= 0 && deliver(journal->fd, &datagram))
        return true;
    if (journal->fd >= 0) /* journald was started anew */
        close(TAKE_FD(journal->fd));
    journal->fd = connect_socket();
    return journal->fd >= 0 && deliver(journal->fd, &datagram);
}
