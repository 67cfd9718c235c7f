#pragma once
/* Log lines as datagrams of journald's native protocol (systemd.journal-fields(7), systemd's "Native Journal Protocol"): MESSAGE, PRIORITY and
 * SYSLOG_IDENTIFIER, and of lines of our own roles SESSION_ID, JOB_ID, REQUEST_ID, TRACE_ID and QUIESCED_ROLE, _WRITER, _CODE. Only the logger does that: it
 * is allowed to wait. */
#include <stdbool.h>
#include <stddef.h>

struct journal {
    int fd; /* connected to the journal's socket; -1: it was not there */
};

/* A line without its end, as base/log.h writes it into our pipe ("<3>core error", LOG_FIELD "session=…", LOG_TEXT "what happened"), or anything else that
 * was written there: then it is the message. Waits for a journal that is busy. False when there is none: the line is then to go where it went before. */
bool journal_send(struct journal *journal, const char *line, size_t length);
/* The same line for people: the marks become spaces. In place. */
void journal_plain(char *line, size_t length);
