#include "api/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

struct http_connection {
    struct http_connection *next, **link;
    int fd;
    struct http_request *request; /* the one in hand */
    struct preface *preface;      /* only with a client certificate: idle connections stay small */
};

struct http {
    struct loop *loop;
    const struct http_events *events;
    void *arg;
    struct MHD_Daemon *daemon;
    struct loop_io *daemon_io, *handover_io;
    struct loop_timer *timer;
    int handover_fd;
    struct http_connection *connections;
    struct http_connection *arriving; /* given to libmicrohttpd, not yet notified of */
    bool draining;
    bool stopping; /* inside http_free */
};

struct http_request {
    struct http *http;
    struct MHD_Connection *connection;
    struct http_connection *socket;
    char *target;
    const char *method;
    void *state;
    struct loop_io *watch; /* tells that the client left, while suspended */
    struct MHD_Response *response;
    int status;
    bool begun, ended, suspended;
};

/* --- running libmicrohttpd on our loop --- */

static void http_run(struct http *http)
{
    MHD_UNSIGNED_LONG_LONG timeout = 0;

    MHD_run(http->daemon);
    if (MHD_get_timeout(http->daemon, &timeout) == MHD_YES)
        loop_timer_set(http->timer, (int64_t)timeout);
    else
        loop_timer_stop(http->timer);
}

static void http_ready(void *arg, uint32_t events)
{
    (void)events;
    http_run(arg);
}

static void http_timer(void *arg)
{
    http_run(arg);
}

/* --- requests --- */

/* The raw target, before libmicrohttpd unescapes it (and cuts it at %00). */
static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct http_request *request = mem_new(sizeof(*request));

    request->http = cls;
    request->connection = connection;
    request->socket = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    request->target = str_dup(target);
    request->socket->request = request;
    return request;
}

static void on_left(void *arg, uint32_t events)
{
    struct http_request *request = arg;

    (void)events;
    loop_io_remove(TAKE_PTR(request->watch));
    request->http->events->left(request->state);
}

static int64_t content_length(const struct http_request *request)
{
    const char *length = http_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
    int64_t value = 0;

    if (http_header(request, MHD_HTTP_HEADER_TRANSFER_ENCODING))
        return -1;
    if (length && !str_to_int(length, 0, INT64_MAX, &value))
        return INT64_MAX;
    return value;
}

static enum MHD_Result queue(struct http_request *request)
{
    struct MHD_Response *response = TAKE_PTR(request->response);
    enum MHD_Result result = MHD_queue_response(request->connection, (unsigned)request->status, response);

    MHD_destroy_response(response);
    return result;
}

static void suspend(struct http_request *request)
{
    MHD_suspend_connection(request->connection);
    request->suspended = true;
    /* libmicrohttpd forgets the socket while suspended: a closed peer shows here only. */
    request->watch = loop_io_add(request->http->loop, request->socket->fd, EPOLLRDHUP, on_left, request);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **con_cls)
{
    struct http *http = cls;
    struct http_request *request = *con_cls;

    (void)connection;
    (void)url;
    (void)version;
    if (!request || http->stopping)
        return MHD_NO;
    if (!request->begun) {
        request->begun = true;
        request->method = method;
        request->state = http->events->begin(http->arg, request, content_length(request));
        return request->response ? queue(request) : MHD_YES;
    }
    if (*size > 0) {
        bool go_on = http->events->upload(request->state, data, *size);
        *size = 0;
        return go_on ? MHD_YES : MHD_NO;
    }
    if (!request->ended) {
        request->ended = true;
        http->events->end(request->state);
    }
    if (request->response)
        return queue(request);
    suspend(request);
    return MHD_YES;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct http_request *request = *con_cls;

    (void)cls;
    (void)connection;
    (void)code;
    if (!request)
        return;
    *con_cls = NULL;
    loop_io_remove(request->watch);
    if (request->begun)
        request->http->events->done(request->state);
    if (request->response)
        MHD_destroy_response(request->response);
    request->socket->request = NULL;
    free(request->target);
    free(request);
}

void http_answer(struct http_request *request, struct http_reply *reply)
{
    enum MHD_ResponseMemoryMode mode =
        reply->body && !reply->body_static ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT;
    struct MHD_Response *response = MHD_create_response_from_buffer(reply->size, reply->body, mode);

    if (!response)
        abort(); /* out of memory */
    reply->body = NULL;
    for (size_t i = 0; i < reply->n_headers; i++)
        MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
    if (request->http->draining)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    request->response = response;
    request->status = reply->status;
    http_reply_clear(reply);
    if (!request->suspended)
        return; /* on_request queues it */
    request->suspended = false;
    loop_io_remove(TAKE_PTR(request->watch));
    MHD_resume_connection(request->connection);
    loop_timer_set(request->http->timer, 0);
}

void http_reply_clear(struct http_reply *reply)
{
    for (size_t i = 0; i < reply->n_headers; i++)
        free(reply->headers[i].value);
    if (!reply->body_static)
        free(reply->body);
    *reply = (struct http_reply){0};
}

const char *http_method(const struct http_request *request)
{
    return request->method;
}

const char *http_target(const struct http_request *request)
{
    return request->target;
}

const char *http_header(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

static enum MHD_Result add_size(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
    size_t *size = cls;

    (void)kind;
    *size += strlen(name) + strlen(value ? value : "") + strlen(": \r\n");
    return MHD_YES;
}

size_t http_head_size(const struct http_request *request)
{
    size_t size = strlen(request->target);

    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, add_size, &size);
    return size;
}

const struct preface *http_preface(const struct http_request *request)
{
    return request->socket->preface;
}

/* --- connections --- */

static void connection_insert(struct http_connection **list, struct http_connection *connection)
{
    connection->next = *list;
    connection->link = list;
    if (connection->next)
        connection->next->link = &connection->next;
    *list = connection;
}

static void connection_remove(struct http_connection *connection)
{
    *connection->link = connection->next;
    if (connection->next)
        connection->next->link = connection->link;
}

static void connection_free(struct http_connection *connection)
{
    connection_remove(connection);
    free(connection->preface);
    free(connection);
}

static struct http_connection *arrived(struct http *http, int fd)
{
    struct http_connection *connection = http->arriving;

    while (connection && connection->fd != fd)
        connection = connection->next;
    return connection;
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *http = cls;
    struct http_connection *connection = *context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        connection = arrived(http, MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
        connection_remove(connection);
        connection_insert(&http->connections, connection);
        *context = connection;
    } else if (connection) {
        connection_free(connection);
        *context = NULL;
    }
}

static void adopt(struct http *http, int fd, const struct preface *preface)
{
    struct http_connection *connection = mem_new(sizeof(*connection));

    connection->fd = fd;
    if (preface->has_certificate) {
        connection->preface = mem_new(sizeof(*preface));
        *connection->preface = *preface;
        connection->preface->common_name[PREFACE_NAME_SIZE - 1] = '\0';
        for (size_t i = 0; i < PREFACE_NAMES; i++)
            connection->preface->names[i][PREFACE_NAME_SIZE - 1] = '\0';
    }
    connection_insert(&http->arriving, connection);
    if (MHD_add_connection(http->daemon, fd, (const struct sockaddr *)&preface->peer, sizeof(preface->peer)) == MHD_YES)
        return;
    log_line(LOG_LEVEL_WARNING, NULL, "a connection was refused: %s", strerrordesc_np(errno));
    connection = arrived(http, fd); /* libmicrohttpd has closed fd */
    if (connection)
        connection_free(connection);
}

enum { HANDOVER_FDS = 4 };

/* One packet; false when there is none now. */
static bool receive(struct http *http)
{
    struct preface preface;
    union {
        char room[CMSG_SPACE(sizeof(int) * HANDOVER_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec part = {&preface, sizeof(preface)};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    int fds[HANDOVER_FDS];
    size_t n = 0;
    ssize_t got = recvmsg(http->handover_fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return errno == EINTR;
    if (got <= 0) {
        loop_io_remove(TAKE_PTR(http->handover_io)); /* front has died: serve sees to it */
        return false;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && n == 0) {
            n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(c), n * sizeof(int));
        }
    if (n == 1 && got == sizeof(preface) && preface.version == PREFACE_VERSION &&
        !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        adopt(http, fds[0], &preface);
        return true;
    }
    log_line(LOG_LEVEL_ERROR, NULL, "a malformed handover from front was dropped");
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
    return true;
}

/* A burst of connections must not starve the requests. */
enum { HANDOVERS_PER_TURN = 64 };

static void on_handover(void *arg, uint32_t events)
{
    struct http *http = arg;

    (void)events;
    for (int i = 0; i < HANDOVERS_PER_TURN && receive(http); i++)
        ;
    http_run(http);
}

/* --- the daemon --- */

/* A socket pair knows no TCP options: 0.9.75 says so three times per reply (platform-facts 5). The rest is about what
 * clients sent. */
static __attribute__((format(printf, 2, 0))) void on_log(void *cls, const char *format, va_list list)
{
    char text[512];

    (void)cls;
    vsnprintf(text, sizeof(text), format, list);
    if (strstr(text, "TCP_NODELAY") || strstr(text, "TCP_CORK") || strstr(text, "PUSH") || strstr(text, "MSG_MORE"))
        return;
    text[strcspn(text, "\r\n")] = '\0';
    log_line(LOG_LEVEL_DEBUG, NULL, "libmicrohttpd: %s", text);
}

struct http *http_new(struct loop *loop, int handover_fd, const struct http_events *events, void *arg, struct err *err)
{
    struct http *http = mem_new(sizeof(*http));
    const union MHD_DaemonInfo *info;

    *http = (struct http){.loop = loop, .events = events, .arg = arg, .handover_fd = handover_fd};
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_log, http, MHD_OPTION_URI_LOG_CALLBACK, on_target, http,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_MEMORY, MHD_OPTION_CONNECTION_LIMIT,
        HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, HTTP_IDLE_SECONDS, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
    info = http->daemon ? MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info) {
        err_set(err, E_OUTOFMEMORY, NULL, "libmicrohttpd cannot be started");
        http_free(http);
        return NULL;
    }
    http->timer = loop_timer_new(loop, http_timer, http);
    http->daemon_io = loop_io_add(loop, info->epoll_fd, EPOLLIN, http_ready, http);
    http->handover_io = loop_io_add(loop, handover_fd, EPOLLIN, on_handover, http);
    return http;
}

void http_free(struct http *http)
{
    if (!http)
        return;
    http->stopping = true;
    loop_io_remove(http->handover_io);
    loop_io_remove(http->daemon_io);
    loop_timer_free(http->timer);
    for (struct http_connection *c = http->connections; c; c = c->next) {
        if (!c->request || !c->request->suspended)
            continue;
        c->request->suspended = false; /* it must not be stopped while connections are suspended */
        loop_io_remove(TAKE_PTR(c->request->watch));
        MHD_resume_connection(c->request->connection);
    }
    if (http->daemon) {
        MHD_run(http->daemon);
        MHD_stop_daemon(http->daemon);
    }
    while (http->arriving)
        connection_free(http->arriving);
    close(http->handover_fd);
    free(http);
}

void http_drain(struct http *http)
{
    http->draining = true;
}

size_t http_close_idle(struct http *http)
{
    size_t busy = 0;

    for (struct http_connection *c = http->connections; c; c = c->next) {
        if (c->request)
            busy++;
        else
            shutdown(c->fd, SHUT_RDWR);
    }
    loop_timer_set(http->timer, 0);
    return busy;
}
