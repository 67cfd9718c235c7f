#include "writers/mariadb/session.h"

#include <errmsg.h>
#include <errno.h>
#include <mysql.h>
#include <mysqld_error.h>
#include <poll.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/secret.h"
#include "writers/writer.h"

enum {
    OLDEST_VERSION = 100401, /* BACKUP STAGE is there since 10.4.1 (MariaDB manual, "BACKUP STAGE") */
    SLICE_MS = 100,          /* how often a wait looks whether the requester is still there */
    KILL_MS = 2000,          /* how long a second session may take to kill the first one */
};

struct maria_session {
    MYSQL *conn;
    char *socket;
    char *host;
    unsigned port;
    char *login;
    char *password_file;
    int64_t give_up_ms;
    bool last_words; /* goes on although the requester has gone: it only ends another session */
};

/* Against whatever the server's or the account's configuration could set to end a session that waits. */
static const char session_settings[] = "SET SESSION wait_timeout = 86400, net_read_timeout = 600, autocommit = 1";

struct maria_session *maria_session_new(const json_t *configuration)
{
    struct maria_session *session = mem_new(sizeof(*session));
    session->socket = str_dup(json_str(configuration, "socket", NULL));
    session->host = str_dup(json_str(configuration, "host", NULL));
    session->port = (unsigned)json_int(configuration, "port", 3306);
    const struct passwd *self = getpwuid(geteuid()); /* not the library's default: it asks the terminal first */
    session->login = str_dup(json_str(configuration, "login", self ? self->pw_name : NULL));
    session->password_file = str_dup(json_str(configuration, "password_file", NULL));
    return session;
}

void maria_session_deadline(struct maria_session *session, int64_t give_up_ms)
{
    session->give_up_ms = give_up_ms;
}

/* With a farewell, for else the server warns in its log. An idle socket takes it without blocking. */
void maria_session_disconnect(struct maria_session *session)
{
    if (!session || !session->conn)
        return;
    mysql_close(session->conn);
    session->conn = NULL;
}

/* In the middle of an exchange: the server may hang and read no farewell. */
static void cut(struct maria_session *session)
{
    mariadb_cancel(session->conn); /* shuts the socket down */
    maria_session_disconnect(session);
}

void maria_session_free(struct maria_session *session)
{
    if (!session)
        return;
    maria_session_disconnect(session);
    free(session->socket);
    free(session->host);
    free(session->login);
    free(session->password_file);
    free(session);
}

bool maria_session_connected(const struct maria_session *session)
{
    return session->conn != NULL;
}

int maria_session_fd(const struct maria_session *session)
{
    return session->conn ? (int)mysql_get_socket(session->conn) : -1;
}

const char *maria_session_version(const struct maria_session *session)
{
    return session->conn ? mysql_get_server_info(session->conn) : "";
}

/* Waits for what the library waits for, in slices: a requester that has gone must not wait for the server. Returns
 * what has happened (the library's bits), 0 with err when it is time to give up. */
static int wait_for(struct maria_session *session, int wanted, struct err *err)
{
    for (;;) {
        int64_t left = session->give_up_ms - clock_mono_ms();
        if (left <= 0) {
            err_set(err, VSS_E_WRITERERROR_TIMEOUT, "Look into the server's log; raise the deadline.",
                    "the server did not answer in time");
            return 0;
        }
        struct pollfd fd = {.fd = (int)mysql_get_socket(session->conn),
                            .events = (short)((wanted & MYSQL_WAIT_READ ? POLLIN : 0) |
                                              (wanted & MYSQL_WAIT_WRITE ? POLLOUT : 0) |
                                              (wanted & MYSQL_WAIT_EXCEPT ? POLLPRI : 0))};
        int n = poll(&fd, 1, left < SLICE_MS ? (int)left : SLICE_MS);
        if (n > 0) /* a hang-up is for the library to read */
            return (fd.revents & POLLOUT ? MYSQL_WAIT_WRITE : 0) | (fd.revents & POLLPRI ? MYSQL_WAIT_EXCEPT : 0) |
                   (fd.revents & (POLLIN | POLLHUP | POLLERR) ? MYSQL_WAIT_READ : 0);
        if (n < 0 && errno != EINTR) {
            err_errno(err, VSS_E_WRITERERROR_RETRYABLE, errno, NULL, "poll");
            return 0;
        }
        if (!session->last_words && writer_abandoned()) {
            err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "the requester has gone");
            return 0;
        }
    }
}

static int connect_failed(struct maria_session *session, struct err *err)
{
    unsigned code = mysql_errno(session->conn);
    bool denied = code == ER_ACCESS_DENIED_ERROR || code == ER_ACCESS_DENIED_NO_PASSWORD_ERROR;
    AUTO_FREE char *reason = str_dup(mysql_error(session->conn));
    maria_session_disconnect(session);
    return err_set(err, denied ? VSS_E_WRITERERROR_NONRETRYABLE : VSS_E_WRITERERROR_RETRYABLE,
                   denied ? "Set the writer's user to an account that authenticates by unix_socket (mysql or root), or "
                            "give login and password_file."
                          : "Check that the server runs, and the writer's socket.",
                   "cannot connect to MariaDB: %s", reason);
}

static int connect_run(struct maria_session *session, const char *password, struct err *err)
{
    MYSQL *result = NULL;
    const char *host = session->socket ? NULL : session->host;
    int status = mysql_real_connect_start(&result, session->conn, host, session->login, password, NULL, session->port,
                                          session->socket, 0);
    while (status) {
        int ready = wait_for(session, status, err);
        if (!ready) {
            cut(session);
            return err_prefix(err, "cannot connect to MariaDB");
        }
        status = mysql_real_connect_cont(&result, session->conn, ready);
    }
    return result ? 0 : connect_failed(session, err);
}

static int check_version(struct maria_session *session, struct err *err)
{
    if (mariadb_connection(session->conn) && mysql_get_server_version(session->conn) >= OLDEST_VERSION)
        return 0;
    AUTO_FREE char *version = str_dup(maria_session_version(session));
    maria_session_disconnect(session);
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "MariaDB 10.4 and later are supported.",
                   "the server is %s: it has no BACKUP STAGE", version);
}

int maria_session_connect(struct maria_session *session, struct err *err)
{
    char password[256];
    if (session->conn)
        return 0;
    if (secret_read(session->password_file, password, sizeof(password), err) != 0)
        return -1;
    session->conn = mysql_init(NULL);
    if (!session->conn)
        return err_set(err, VSS_E_WRITERERROR_OUTOFRESOURCES, NULL, "cannot connect to MariaDB: out of memory");
    mysql_options(session->conn, MYSQL_OPT_NONBLOCK, NULL);
    mysql_options(session->conn, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    int protocol = session->socket ? MYSQL_PROTOCOL_SOCKET : MYSQL_PROTOCOL_TCP;
    mysql_options(session->conn, MYSQL_OPT_PROTOCOL, &protocol);
    int result = connect_run(session, password[0] ? password : NULL, err);
    explicit_bzero(password, sizeof(password));
    if (result != 0 || check_version(session, err) != 0)
        return -1;
    return maria_session_query(session, session_settings, NULL, err);
}

static int query_err(struct maria_session *session, const char *sql, struct err *err)
{
    static const char privileges[] = "GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* to the account.";
    static const struct {
        unsigned code;
        uint32_t hr;
        const char *hint;
    } rows[] = {
        {ER_SPECIFIC_ACCESS_DENIED_ERROR, VSS_E_WRITERERROR_NONRETRYABLE, privileges},
        {ER_ACCESS_DENIED_ERROR, VSS_E_WRITERERROR_NONRETRYABLE, privileges},
        {ER_LOCK_WAIT_TIMEOUT, VSS_E_WRITERERROR_TIMEOUT,
         "A long transaction or another backup held the lock until the deadline: raise it, or end that one."},
        {ER_STATEMENT_TIMEOUT, VSS_E_WRITERERROR_TIMEOUT,
         "A long transaction or another backup held the lock until the deadline: raise it, or end that one."},
        {ER_OUT_OF_RESOURCES, VSS_E_WRITERERROR_OUTOFRESOURCES, NULL},
        {ER_DISK_FULL, VSS_E_WRITERERROR_OUTOFRESOURCES, NULL},
    };
    unsigned code = mysql_errno(session->conn);
    AUTO_FREE char *reason = str_dup(mysql_error(session->conn));
    if (code >= CR_MIN_ERROR && code <= CR_MAX_ERROR) {
        maria_session_disconnect(session);
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Look into the server's log.", "connection lost: %s", reason);
    }
    uint32_t hr = VSS_E_WRITERERROR_RETRYABLE;
    const char *hint = NULL;
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (rows[i].code == code) {
            hr = rows[i].hr;
            hint = rows[i].hint;
        }
    return err_set(err, hr, hint, "MariaDB: %.60s: %s (%u)", sql, reason, code);
}

/* A statement that waits goes on when its client has left, and the lock that it waits for holds others up: kill it. */
static void query_abandon(struct maria_session *session)
{
    struct err ignored = {0};
    struct maria_session other = *session;
    AUTO_FREE char *sql = str_new("KILL HARD CONNECTION %lu", mysql_thread_id(session->conn));
    cut(session);
    if (session->last_words)
        return;
    other.conn = NULL;
    other.last_words = true;
    other.give_up_ms = clock_mono_ms() + KILL_MS;
    if (maria_session_connect(&other, &ignored) == 0)
        maria_session_query(&other, sql, NULL, &ignored);
    maria_session_disconnect(&other);
}

static int query_send(struct maria_session *session, const char *sql, struct err *err)
{
    int result = 0;
    int status = mysql_real_query_start(&result, session->conn, sql, strlen(sql));
    while (status) {
        int ready = wait_for(session, status, err);
        if (!ready) {
            query_abandon(session);
            return -1;
        }
        status = mysql_real_query_cont(&result, session->conn, ready);
    }
    return result == 0 ? 0 : query_err(session, sql, err);
}

static json_t *rows_of(MYSQL_RES *result)
{
    json_t *rows = json_array();
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(result))) {
        json_t *cells = json_array();
        for (unsigned column = 0; column < mysql_num_fields(result); column++)
            json_add(cells, row[column] ? json_text(row[column]) : json_null());
        json_add(rows, cells);
    }
    return rows;
}

static int query_run(struct maria_session *session, const char *sql, json_t **ret_rows, struct err *err)
{
    if (query_send(session, sql, err) != 0)
        return -1;
    MYSQL_RES *result = NULL;
    int status = mysql_store_result_start(&result, session->conn);
    while (status) {
        int ready = wait_for(session, status, err);
        if (!ready) {
            query_abandon(session);
            return -1;
        }
        status = mysql_store_result_cont(&result, session->conn, ready);
    }
    if (!result)
        return mysql_errno(session->conn) ? query_err(session, sql, err) : 0;
    if (ret_rows)
        *ret_rows = rows_of(result);
    mysql_free_result(result);
    return 0;
}

/* So that the server lets go by itself, even when we are stopped: lock_wait_timeout counts whole seconds,
 * max_statement_time fractions. */
static int limit_next(struct maria_session *session, struct err *err)
{
    int64_t left = session->give_up_ms - clock_mono_ms();
    if (left < 1)
        left = 1;
    AUTO_FREE char *sql = str_new("SET SESSION lock_wait_timeout = %lld, max_statement_time = %lld.%03lld",
                                  (long long)((left + 999) / 1000), (long long)(left / 1000), (long long)(left % 1000));
    return query_run(session, sql, NULL, err);
}

int maria_session_query(struct maria_session *session, const char *sql, json_t **ret_rows, struct err *err)
{
    if (!session->conn)
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Look into the server's log.", "connection lost");
    if (limit_next(session, err) != 0)
        return -1;
    return query_run(session, sql, ret_rows, err);
}

const char *maria_cell(const json_t *rows, size_t row, size_t column)
{
    return json_string_value(json_array_get(json_array_get(rows, row), column));
}
