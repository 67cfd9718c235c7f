#include "serve/logger.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "serve/journal.h"

enum { CHUNK = 4096 }; /* what a killed logger may have in hand: no more than one of the longest lines */

struct logger {
    const char *path; /* NULL: standard error as it is */
    bool journals;    /* standard error is the journal's stream: lines go to it as datagrams */
    struct journal journal;
    bool inside_line; /* the last byte was no line feed */
    size_t lost;      /* lines that the log has refused */
    int errnum;       /* and why */
};

static volatile sig_atomic_t asked_to_reopen;

static void on_reopen(int signo)
{
    (void)signo;
    asked_to_reopen = 1;
}

static void reopen(const struct logger *logger)
{
    asked_to_reopen = 0;
    if (!logger->path)
        return;
    AUTO_FD int fd = open(logger->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
        log_line(LOG_LEVEL_ERROR, NULL, "log file %s: %s: the one in use is written on", logger->path, strerror(errno));
}

/* Standard error may have come to us not blocking (a shell's terminal, a service manager's pipe): then it is waited
 * for. */
static bool write_all(const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(STDERR_FILENO, bytes, length);
        if (n < 0 && errno == EAGAIN)
            poll(&(struct pollfd){.fd = STDERR_FILENO, .events = POLLOUT}, 1, -1);
        else if (n < 0 && errno != EINTR)
            return false;
        if (n > 0) {
            bytes += n;
            length -= (size_t)n;
        }
    }
    return true;
}

static void pass_on(struct logger *logger, const char *bytes, size_t length)
{
    logger->inside_line = bytes[length - 1] != '\n';
    if (!write_all(bytes, length)) {
        logger->errnum = errno;
        for (size_t i = 0; i < length; i++)
            logger->lost += bytes[i] == '\n';
    } else if (logger->lost > 0 && !logger->inside_line) {
        log_line(LOG_LEVEL_WARNING, NULL, "%zu lines could not be written: %s", logger->lost, strerror(logger->errnum));
        logger->lost = 0;
    }
}

/* The journal's stream takes what the socket does not. */
static void to_journal(struct logger *logger, char *line, size_t length)
{
    if (length == 0 || journal_send(&logger->journal, line, length))
        return;
    journal_plain(line, length);
    if (!write_all(line, length) || !write_all("\n", 1)) {
        logger->errnum = errno;
        logger->lost++;
    } else if (logger->lost > 0) {
        log_line(LOG_LEVEL_WARNING, NULL, "%zu lines could not be written: %s", logger->lost, strerror(logger->errnum));
        logger->lost = 0;
    }
}

/* Sends the whole lines of what has come; *used is what is left, the beginning of the next one. A line that is too long for the room is sent in pieces. */
static void pass_lines(struct logger *logger, char *text, size_t *used, bool at_end)
{
    size_t begin = 0;
    char *feed;

    while ((feed = memchr(text + begin, '\n', *used - begin))) {
        to_journal(logger, text + begin, (size_t)(feed - text) - begin);
        begin = (size_t)(feed - text) + 1;
    }
    if (at_end || (begin == 0 && *used == CHUNK)) {
        to_journal(logger, text + begin, *used - begin);
        begin = *used;
    }
    memmove(text, text + begin, *used - begin);
    *used -= begin;
}

/* SIGHUP comes through only while nothing is in hand. */
static bool wait_for_input(const struct timespec *timeout)
{
    sigset_t none;
    sigemptyset(&none);
    return ppoll(&(struct pollfd){.fd = STDIN_FILENO, .events = POLLIN}, 1, timeout, &none) > 0;
}

int logger_main(int argc, char **argv)
{
    /* It ends when the others have ended; SIGTTOU: a terminal is written to from any process group. */
    static const int ignored[] = {SIGTERM, SIGINT, SIGQUIT, SIGPIPE, SIGTTOU};
    static const struct timespec at_once = {0};
    bool journals = argc > 2 && str_eq(argv[2], "--journal");
    struct logger logger = {.path = argc > 2 && !journals ? argv[2] : NULL, .journals = journals, .journal = {.fd = -1}};
    char chunk[CHUNK];
    size_t used = 0; /* of chunk: the beginning of a line for the journal */
    sigset_t reopening;

    log_init("logger", LOG_LEVEL_INFO);
    for (size_t i = 0; i < ELEMENTS(ignored); i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&reopening);
    sigaddset(&reopening, SIGHUP);
    sigprocmask(SIG_BLOCK, &reopening, NULL);
    sigaction(SIGHUP, &(struct sigaction){.sa_handler = on_reopen}, NULL);
    reopen(&logger);
    for (;;) {
        bool more = wait_for_input(asked_to_reopen ? &at_once : NULL);
        if (asked_to_reopen && (!logger.inside_line || !more)) /* no line is torn in two */
            reopen(&logger);
        if (!more)
            continue;
        ssize_t n = read(STDIN_FILENO, chunk + used, sizeof(chunk) - used);
        bool ended = n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN);
        if (logger.journals && (n > 0 || ended)) {
            used += n > 0 ? (size_t)n : 0;
            pass_lines(&logger, chunk, &used, ended);
        } else if (n > 0) {
            pass_on(&logger, chunk, (size_t)n);
        }
        if (ended)
            return n < 0;
    }
}
