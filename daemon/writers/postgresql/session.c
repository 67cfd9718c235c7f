#include "writers/postgresql/session.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "writers/writer.h"

enum {
    KEYWORDS_MAX = 64, /* libpq 15 knows 41 */
    PARAMS_MAX = 8,
    SLICE_MS = 100, /* how often a wait looks whether the requester is still there */
};

struct pg_session {
    PGconn *conn;
    char *conninfo;
    char *application_name;
    int64_t give_up_ms;
};

DEFINE_CLEANUP(PGresult *, PQclear)
DEFINE_CLEANUP(PQconninfoOption *, PQconninfoFree)

/* Everything that the configuration of a role or database could set against a long backup. */
static const char session_settings[] = "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0; "
                                       "SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog; "
                                       "SET client_min_messages = warning; SET default_transaction_read_only = off";

struct pg_session *pg_session_new(const char *conninfo, const char *application_name)
{
    struct pg_session *session = mem_new(sizeof(*session));
    session->conninfo = str_dup(conninfo);
    session->application_name = str_dup(application_name);
    return session;
}

void pg_session_deadline(struct pg_session *session, int64_t give_up_ms)
{
    session->give_up_ms = give_up_ms;
}

void pg_session_disconnect(struct pg_session *session)
{
    if (!session || !session->conn)
        return;
    PQfinish(session->conn);
    session->conn = NULL;
}

void pg_session_free(struct pg_session *session)
{
    if (!session)
        return;
    pg_session_disconnect(session);
    free(session->conninfo);
    free(session->application_name);
    free(session);
}

bool pg_session_connected(const struct pg_session *session)
{
    return session->conn && PQstatus(session->conn) == CONNECTION_OK;
}

int pg_session_fd(const struct pg_session *session)
{
    return session->conn ? PQsocket(session->conn) : -1;
}

static void log_notice(void *arg, const char *message)
{
    struct log_context where = {.writer = "postgresql"};
    (void)arg;
    log_line(LOG_LEVEL_INFO, &where, "server: %.*s", (int)strcspn(message, "\n"), message);
}

/* libpq's message on one line, without its line end. */
static const char *one_line(const char *message, char ret[512])
{
    str_copy(ret, 512, message && message[0] ? message : "no reason was given");
    size_t length = strlen(ret);
    while (length > 0 && ret[length - 1] == '\n')
        ret[--length] = '\0';
    for (char *c = ret; *c; c++)
        if (*c == '\n' || *c == '\t')
            *c = ' ';
    return ret;
}

/* Waits for the socket in slices: a requester that has gone must not wait for the server. */
static int wait_socket(struct pg_session *session, short events, struct err *err)
{
    for (;;) {
        int64_t left = session->give_up_ms - clock_mono_ms();
        if (left <= 0)
            return err_set(err, VSS_E_WRITERERROR_TIMEOUT, "Look into the server's log; raise the deadline.",
                           "the server did not answer in time");
        struct pollfd fd = {.fd = PQsocket(session->conn), .events = events};
        int n = poll(&fd, 1, left < SLICE_MS ? (int)left : SLICE_MS);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_errno(err, VSS_E_WRITERERROR_RETRYABLE, errno, NULL, "poll");
        if (writer_abandoned())
            return err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "the requester has gone");
    }
}

static int connect_failed(struct pg_session *session, struct err *err)
{
    char reason[512];
    one_line(PQerrorMessage(session->conn), reason);
    pg_session_disconnect(session);
    return err_set(err, VSS_E_WRITERERROR_RETRYABLE,
                   "Check that the server runs, and the writer's connection and user.",
                   "cannot connect to PostgreSQL: %s", reason);
}

static int connect_poll(struct pg_session *session, struct err *err)
{
    PostgresPollingStatusType step = PGRES_POLLING_WRITING;
    while (step != PGRES_POLLING_OK) {
        if (step == PGRES_POLLING_FAILED)
            return connect_failed(session, err);
        if (wait_socket(session, step == PGRES_POLLING_READING ? POLLIN : POLLOUT, err) != 0) {
            pg_session_disconnect(session);
            return err_prefix(err, "cannot connect to PostgreSQL");
        }
        step = PQconnectPoll(session->conn);
    }
    return 0;
}

int pg_session_connect(struct pg_session *session, struct err *err)
{
    if (pg_session_connected(session))
        return 0;
    pg_session_disconnect(session);
    char *fault = NULL;
    CLEANUP(PQconninfoFree_p) PQconninfoOption *options = PQconninfoParse(session->conninfo, &fault);
    if (!options) {
        char reason[512];
        one_line(fault, reason);
        PQfreemem(fault);
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Correct the writer's connection.", "connection: %s",
                       reason);
    }
    /* A later keyword wins: ours stand around those of the configuration. */
    const char *keywords[KEYWORDS_MAX] = {"dbname", "connect_timeout", "keepalives_idle"},
               *values[KEYWORDS_MAX] = {"postgres", "10", "30"};
    size_t n = 3;
    for (const PQconninfoOption *option = options; option->keyword && n < KEYWORDS_MAX - 3; option++)
        if (option->val) {
            keywords[n] = option->keyword;
            values[n++] = option->val;
        }
    keywords[n] = "application_name", values[n++] = session->application_name;
    keywords[n] = "client_encoding", values[n++] = "UTF8";
    session->conn = PQconnectStartParams(keywords, values, 0);
    if (!session->conn)
        return err_set(err, VSS_E_WRITERERROR_OUTOFRESOURCES, NULL, "cannot connect to PostgreSQL: out of memory");
    if (PQstatus(session->conn) == CONNECTION_BAD)
        return connect_failed(session, err);
    PQsetNoticeProcessor(session->conn, log_notice, NULL);
    if (connect_poll(session, err) != 0)
        return -1;
    PQsetnonblocking(session->conn, 1);
    return pg_session_query(session, session_settings, NULL, NULL, err);
}

/* SQLSTATE (PostgreSQL manual, appendix A), longest prefix first. */
static int query_err(struct pg_session *session, const PGresult *result, struct err *err)
{
    static const struct {
        const char *prefix;
        uint32_t hr;
        const char *hint;
    } rows[] = {
        {"42501", VSS_E_WRITERERROR_NONRETRYABLE,
         "Connect as a superuser, or grant EXECUTE on the backup functions, pg_checkpoint, pg_read_all_settings and "
         "REPLICATION."},
        {"55000", VSS_E_WRITERERROR_NONRETRYABLE, "wal_level must be replica or logical."},
        {"53400", VSS_E_WRITERERROR_OUTOFRESOURCES, "Raise max_replication_slots."},
        {"53", VSS_E_WRITERERROR_OUTOFRESOURCES, NULL},
        {"57014", VSS_E_WRITERERROR_RETRYABLE, "Somebody cancelled the statement."},
        {"42", VSS_E_WRITERERROR_NONRETRYABLE, NULL},
    };
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *text = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    char reason[512];
    one_line(text ? text : PQerrorMessage(session->conn), reason);
    uint32_t hr = VSS_E_WRITERERROR_RETRYABLE;
    const char *hint = NULL;
    for (size_t i = 0; state && i < ELEMENTS(rows); i++)
        if (str_starts(state, rows[i].prefix)) {
            hr = rows[i].hr;
            hint = rows[i].hint;
            break;
        }
    if (PQstatus(session->conn) == CONNECTION_BAD) {
        pg_session_disconnect(session);
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Look into the server's log.", "connection lost: %s", reason);
    }
    return err_set(err, hr, hint, "PostgreSQL: %s%s%s%s", reason, state ? " (" : "", state ? state : "",
                   state ? ")" : "");
}

/* The server goes on with a statement whose client left, until it next looks: cancel it, then leave. */
static int query_abandon(struct pg_session *session)
{
    PGcancel *cancel = PQgetCancel(session->conn);
    char reason[256];
    if (cancel)
        PQcancel(cancel, reason, sizeof(reason));
    PQfreeCancel(cancel);
    pg_session_disconnect(session);
    return -1;
}

/* Until the next result can be taken without blocking. */
static int result_wait(struct pg_session *session, struct err *err)
{
    for (;;) {
        int unsent = PQflush(session->conn);
        if (unsent < 0 || (!unsent && !PQisBusy(session->conn)))
            return unsent < 0 ? query_err(session, NULL, err) : 0;
        if (wait_socket(session, (short)(POLLIN | (unsent ? POLLOUT : 0)), err) != 0)
            return query_abandon(session);
        if (!PQconsumeInput(session->conn))
            return query_err(session, NULL, err);
    }
}

static json_t *rows_of(const PGresult *result)
{
    json_t *rows = json_array();
    for (int row = 0; row < PQntuples(result); row++) {
        json_t *cells = json_array();
        for (int column = 0; column < PQnfields(result); column++)
            json_add(cells,
                     PQgetisnull(result, row, column) ? json_null() : json_text(PQgetvalue(result, row, column)));
        json_add(rows, cells);
    }
    return rows;
}

static int send_query(struct pg_session *session, const char *sql, const char *const *params)
{
    int n = 0;
    while (params && params[n] && n < PARAMS_MAX)
        n++;
    return n ? PQsendQueryParams(session->conn, sql, n, NULL, params, NULL, NULL, 0) : PQsendQuery(session->conn, sql);
}

int pg_session_query(struct pg_session *session, const char *sql, const char *const *params, json_t **ret_rows,
                     struct err *err)
{
    if (!pg_session_connected(session))
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Look into the server's log.", "connection lost");
    if (!send_query(session, sql, params))
        return query_err(session, NULL, err);
    AUTO_JSON json_t *rows = NULL;
    int failed = 0;
    for (;;) {
        if (result_wait(session, err) != 0)
            return -1;
        CLEANUP(PQclear_p) PGresult *result = PQgetResult(session->conn);
        if (!result)
            break;
        ExecStatusType status = PQresultStatus(result);
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
            if (!failed)
                failed = query_err(session, result, err);
            if (!session->conn)
                return -1;
            continue;
        }
        json_decref(rows);
        rows = rows_of(result);
    }
    if (!failed && ret_rows)
        *ret_rows = TAKE_PTR(rows);
    return failed;
}

const char *pg_cell(const json_t *rows, size_t row, size_t column)
{
    return json_string_value(json_array_get(json_array_get(rows, row), column));
}
