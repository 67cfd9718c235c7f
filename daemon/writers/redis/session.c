#include "writers/redis/session.h"

#include <errno.h>
#include <hiredis.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/secret.h"
#include "writers/writer.h"

enum {
    WORDS_MAX = 8,
    SLICE_MS = 100,         /* how often a wait looks whether the requester is still there */
    CONNECT_MAX_MS = 10000, /* hiredis 0.14 connects without looking up; we wait no longer than this */
};

struct redis_session {
    redisContext *conn;
    char *socket;
    char *host;
    int port;
    char *login;
    char *password_file;
    int64_t give_up_ms;
    bool last_words;
};

static inline void reply_cleanup(redisReply **reply)
{
    if (*reply)
        freeReplyObject(*reply);
}

struct redis_session *redis_session_new(const json_t *configuration)
{
    struct redis_session *session = mem_new(sizeof(*session));
    session->socket = str_dup(json_str(configuration, "socket", NULL));
    session->host = str_dup(json_str(configuration, "host", NULL));
    session->port = (int)json_int(configuration, "port", 6379);
    session->login = str_dup(json_str(configuration, "login", NULL));
    session->password_file = str_dup(json_str(configuration, "password_file", NULL));
    return session;
}

void redis_session_deadline(struct redis_session *session, int64_t give_up_ms)
{
    session->give_up_ms = give_up_ms;
    session->last_words = false;
}

void redis_session_last_words(struct redis_session *session, int64_t most_ms)
{
    session->last_words = true;
    session->give_up_ms = clock_mono_ms() + most_ms;
}

int64_t redis_session_left_ms(const struct redis_session *session)
{
    int64_t left = session->give_up_ms - clock_mono_ms();
    return left > 0 ? left : 0;
}

void redis_session_disconnect(struct redis_session *session)
{
    if (!session || !session->conn)
        return;
    redisFree(session->conn);
    session->conn = NULL;
}

void redis_session_free(struct redis_session *session)
{
    if (!session)
        return;
    redis_session_disconnect(session);
    free(session->socket);
    free(session->host);
    free(session->login);
    free(session->password_file);
    free(session);
}

int redis_session_fd(const struct redis_session *session)
{
    return session->conn ? session->conn->fd : -1;
}

static int too_late(struct err *err)
{
    return err_set(err, VSS_E_WRITERERROR_TIMEOUT, "Look into the server's log; raise the deadline.",
                   "the server did not answer in time");
}

int redis_session_wait(struct redis_session *session, int ms, struct err *err)
{
    int64_t end = clock_mono_ms() + ms;
    for (;;) {
        if (redis_session_left_ms(session) == 0)
            return too_late(err);
        if (!session->last_words && writer_abandoned())
            return err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "the requester has gone");
        int64_t left = end - clock_mono_ms();
        if (left <= 0)
            return 0;
        poll(NULL, 0, left < SLICE_MS ? (int)left : SLICE_MS);
    }
}

static int wait_socket(struct redis_session *session, short events, struct err *err)
{
    for (;;) {
        int64_t left = redis_session_left_ms(session);
        if (left == 0)
            return too_late(err);
        struct pollfd fd = {.fd = session->conn->fd, .events = events};
        int n = poll(&fd, 1, left < SLICE_MS ? (int)left : SLICE_MS);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_errno(err, VSS_E_WRITERERROR_RETRYABLE, errno, NULL, "poll");
        if (!session->last_words && writer_abandoned())
            return err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "the requester has gone");
    }
}

static int connection_lost(struct redis_session *session, struct err *err)
{
    AUTO_FREE char *reason = str_dup(session->conn->errstr[0] ? session->conn->errstr : "no reason was given");
    redis_session_disconnect(session);
    return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Look into the server's log.", "connection lost: %s", reason);
}

/* The whole exchange on a blocking socket that is only touched when it is ready. */
static int exchange(struct redis_session *session, redisReply **ret, struct err *err)
{
    int sent = 0;
    void *reply = NULL;
    while (!sent) {
        if (wait_socket(session, POLLOUT, err) != 0)
            return -1;
        if (redisBufferWrite(session->conn, &sent) != REDIS_OK)
            return connection_lost(session, err);
    }
    for (;;) {
        if (redisGetReplyFromReader(session->conn, &reply) != REDIS_OK)
            return connection_lost(session, err);
        if (reply) {
            *ret = reply;
            return 0;
        }
        if (wait_socket(session, POLLIN, err) != 0)
            return -1;
        if (redisBufferRead(session->conn) != REDIS_OK)
            return connection_lost(session, err);
    }
}

static char *text_of(const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_INTEGER)
        return str_new("%lld", reply->integer);
    if (reply->type != REDIS_REPLY_ARRAY)
        return str_dup(reply->str ? reply->str : "");
    char *text = str_dup("");
    for (size_t i = 0; i < reply->elements; i++) {
        AUTO_FREE char *before = text;
        AUTO_FREE char *item = text_of(reply->element[i]);
        text = str_new("%s%s\n", before, item);
    }
    return text;
}

static int error_reply(const char *command, const char *text, struct err *err)
{
    static const struct {
        const char *prefix;
        uint32_t hr;
        const char *hint;
    } rows[] = {
        {"NOAUTH", VSS_E_WRITERERROR_NONRETRYABLE, "Give password_file, and login for an ACL user."},
        {"WRONGPASS", VSS_E_WRITERERROR_NONRETRYABLE, "Correct the password in password_file."},
        {"NOPERM", VSS_E_WRITERERROR_NONRETRYABLE,
         "Allow the account +info +ping +config|get +client|pause +client|unpause +bgsave."},
        {"ERR unknown command", VSS_E_WRITERERROR_NONRETRYABLE, "The command is renamed or disabled in the server."},
        {"ERR AUTH", VSS_E_WRITERERROR_NONRETRYABLE, "The server has no password: leave password_file out."},
    };
    uint32_t hr = VSS_E_WRITERERROR_RETRYABLE;
    const char *hint = NULL;
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (str_starts(text, rows[i].prefix)) {
            hr = rows[i].hr;
            hint = rows[i].hint;
        }
    return err_set(err, hr, hint, "Redis: %s: %s", command, text);
}

int redis_session_command(struct redis_session *session, const char *const *words, char **ret_text, struct err *err)
{
    if (!session->conn)
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "Look into the server's log.", "connection lost");
    int n = 0;
    const char *argv[WORDS_MAX];
    for (; words[n] && n < WORDS_MAX; n++)
        argv[n] = words[n];
    CLEANUP(reply_cleanup) redisReply *reply = NULL;
    if (redisAppendCommandArgv(session->conn, n, argv, NULL) != REDIS_OK)
        return connection_lost(session, err);
    if (exchange(session, &reply, err) != 0) {
        redis_session_disconnect(session); /* an answer that came later would be taken for the next one's */
        return -1;
    }
    if (reply->type == REDIS_REPLY_ERROR)
        return error_reply(words[0], reply->str, err);
    if (ret_text)
        *ret_text = text_of(reply);
    return 0;
}

static int log_in(struct redis_session *session, struct err *err)
{
    char password[512];
    if (!session->password_file)
        return redis_session_command(session, (const char *[]){"PING", NULL}, NULL, err);
    if (secret_read(session->password_file, password, sizeof(password), err) != 0)
        return -1;
    const char *with_login[] = {"AUTH", session->login, password, NULL}, *without[] = {"AUTH", password, NULL};
    int result = redis_session_command(session, session->login ? with_login : without, NULL, err);
    explicit_bzero(password, sizeof(password));
    return result;
}

int redis_session_connect(struct redis_session *session, struct err *err)
{
    if (session->conn)
        return 0;
    int64_t left = redis_session_left_ms(session);
    if (left > CONNECT_MAX_MS)
        left = CONNECT_MAX_MS;
    struct timeval wait = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000 + 1};
    session->conn = session->socket ? redisConnectUnixWithTimeout(session->socket, wait)
                                    : redisConnectWithTimeout(session->host, session->port, wait);
    if (!session->conn)
        return err_set(err, VSS_E_WRITERERROR_OUTOFRESOURCES, NULL, "cannot connect to Redis: out of memory");
    if (session->conn->err) {
        AUTO_FREE char *reason = str_dup(session->conn->errstr);
        redis_session_disconnect(session);
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE,
                       "Check that the server runs, and the writer's socket and user.", "cannot connect to Redis: %s",
                       reason);
    }
    if (log_in(session, err) == 0)
        return 0;
    redis_session_disconnect(session);
    return err_prefix(err, "cannot connect to Redis");
}
