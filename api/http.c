#include "api/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/pipe_handover.h"
#include "api/route.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

/* What libmicrohttpd sets aside for a body of ours: that it never gets, and that comes bit by bit. */
enum { STREAM_BLOCK = 128, LIVE_BLOCK = 1024 };

struct http_connection {
    struct http_connection *next, **link;
    int fd;
    struct http_request *request; /* the one in hand */
    struct preface *preface;      /* only with a client certificate or a local peer: idle connections stay small */
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

enum stream_state {
    STREAM_NONE,
    STREAM_HANDOVER, /* the head is out, or will be: then front gets the pipe */
    STREAM_RUNS,
    STREAM_WHOLE,
    STREAM_BROKEN,
};

struct http_request {
    struct http *http;
    struct MHD_Connection *connection;
    struct http_connection *socket;
    char *target;
    const char *method, *version;
    void *state;
    struct loop_io *watch; /* tells that the client left, while suspended; or that there is room for the handover */
    enum stream_state stream;
    int pipe;        /* until the handover, else -1 */
    bool ends_whole; /* the producer succeeded before that */
    struct MHD_Response *response;
    int status;
    bool begun, ended, suspended;
    long (*read)(void *state, char *buffer, size_t room);
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

static void request_free(struct http_request *request)
{
    request->socket->request = NULL;
    fd_cleanup(&request->pipe);
    free(request->target);
    free(request);
}

/* The raw target, before libmicrohttpd unescapes it (and cuts it at %00). A head that it then gives up by itself is
 * never said to be completed: its request goes when the connection does. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct http_request *request = mem_new(sizeof(*request));

    request->http = cls;
    request->pipe = -1;
    request->connection = connection;
    request->socket = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    request->target = route_origin_form(target);
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
    if (!request || http->stopping)
        return MHD_NO;
    if (!request->begun) {
        request->begun = true;
        request->method = method;
        request->version = version;
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
    request_free(request);
}

static void resume(struct http_request *request)
{
    if (!request->suspended)
        return;
    request->suspended = false;
    loop_io_remove(TAKE_PTR(request->watch));
    MHD_resume_connection(request->connection);
    loop_timer_set(request->http->timer, 0);
}

/* --- bodies that front reads from a pipe --- */

static void on_room(void *arg, uint32_t events)
{
    (void)events;
    resume(arg);
}

static void wait_for_room(struct http_request *request)
{
    MHD_suspend_connection(request->connection);
    request->suspended = true;
    request->watch = loop_io_add(request->http->loop, request->socket->fd, EPOLLOUT, on_room, request);
}

/* libmicrohttpd asks for the body when the head is out: all that it ever gets from us is its end. */
static ssize_t on_body(void *cls, uint64_t position, char *room, size_t size)
{
    struct http_request *request = cls;
    int handed = 1;

    (void)position;
    (void)room;
    (void)size;
    if (request->stream == STREAM_WHOLE)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (request->stream == STREAM_BROKEN || request->http->stopping)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (request->stream == STREAM_HANDOVER)
        handed = pipe_hand_over(request->socket->fd, request->pipe);
    if (handed < 0)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (handed == 0) {
        wait_for_room(request);
        return 0;
    }
    fd_cleanup(&request->pipe);
    request->pipe = -1;
    request->stream = request->ends_whole ? STREAM_WHOLE : STREAM_RUNS;
    if (request->stream == STREAM_WHOLE)
        return MHD_CONTENT_READER_END_OF_STREAM;
    suspend(request);
    return 0;
}

/* A producer that has ended before its pipe was handed over has still to be read: then the end waits (on_body). */
void http_stream_end(struct http_request *request, bool whole)
{
    if (request->stream == STREAM_HANDOVER && whole) {
        request->ends_whole = true;
        return;
    }
    request->stream = whole ? STREAM_WHOLE : STREAM_BROKEN;
    resume(request);
}

bool http_knows_chunks(const struct http_request *request)
{
    return strcmp(request->version, MHD_HTTP_VERSION_1_1) == 0;
}

/* --- bodies that come bit by bit --- */

/* Returning 0 alone would have libmicrohttpd ask again and again. */
static ssize_t on_read(void *cls, uint64_t position, char *buffer, size_t room)
{
    struct http_request *request = cls;
    long n = request->http->stopping ? HTTP_BREAK : request->read(request->state, buffer, room);

    (void)position;
    if (n == 0)
        suspend(request);
    return n >= 0 ? n : n == HTTP_END ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

void http_wake(struct http_request *request)
{
    if (request->read)
        resume(request);
}

void http_drop(struct http_request *request)
{
    shutdown(request->socket->fd, SHUT_RDWR);
    http_wake(request);
}

/* A body whose size nobody knows. libmicrohttpd 0.9.75 sends the last chunk even where HEAD asked for none, and the client would take it for
 * the beginning of the next reply; without chunks there is nothing but the head, and the end of the connection. */
static struct MHD_Response *unsized(struct http_request *request, size_t block, MHD_ContentReaderCallback reader)
{
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, block, reader, request, NULL);

    if (response && strcmp(request->method, MHD_HTTP_METHOD_HEAD) == 0)
        MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
    return response;
}

static struct MHD_Response *make_response(struct http_request *request, struct http_reply *reply)
{
    enum MHD_ResponseMemoryMode mode =
        reply->body && !reply->body_static ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT;

    request->read = reply->read;
    if (reply->read)
        return unsized(request, LIVE_BLOCK, on_read);
    if (!reply->stream)
        return MHD_create_response_from_buffer(reply->size, TAKE_PTR(reply->body), mode);
    request->stream = reply->pipe >= 0 ? STREAM_HANDOVER : STREAM_BROKEN;
    request->pipe = TAKE_FD(reply->pipe);
    return unsized(request, STREAM_BLOCK, on_body);
}

void http_answer(struct http_request *request, struct http_reply *reply)
{
    struct MHD_Response *response = make_response(request, reply);

    if (!response)
        abort(); /* out of memory */
    for (size_t i = 0; i < reply->n_headers; i++)
        MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
    if (request->http->draining)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    request->response = response;
    request->status = reply->status;
    http_reply_clear(reply);
    resume(request); /* else on_request queues it */
}

void http_reply_clear(struct http_reply *reply)
{
    for (size_t i = 0; i < reply->n_headers; i++)
        free(reply->headers[i].value);
    if (!reply->body_static)
        free(reply->body);
    if (reply->stream)
        fd_cleanup(&reply->pipe);
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

struct count {
    const char *name;
    size_t n;
};

static enum MHD_Result count_one(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct count *count = cls;

    (void)kind;
    (void)value;
    count->n += strcasecmp(name, count->name) == 0;
    return MHD_YES;
}

bool http_header_repeated(const struct http_request *request, const char *name)
{
    struct count count = {name, 0};

    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, count_one, &count);
    return count.n > 1;
}

const struct preface *http_preface(const struct http_request *request)
{
    return request->socket->preface;
}

const struct sockaddr *http_peer(const struct http_request *request)
{
    return MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
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
        if (connection->request)
            request_free(connection->request);
        connection_free(connection);
        *context = NULL;
    }
}

static void adopt(struct http *http, int fd, const struct preface *preface)
{
    struct http_connection *connection = mem_new(sizeof(*connection));

    connection->fd = fd;
    if (preface->has_certificate || preface->has_credentials) {
        connection->preface = mem_new(sizeof(*preface));
        *connection->preface = *preface;
        connection->preface->common_name[PREFACE_NAME_SIZE - 1] = '\0';
        if (preface->n_groups > PREFACE_GROUPS)
            connection->preface->n_groups = 0; /* none of them when there are more */
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
    if (str_starts(format, "Setting %s option")) /* before anything is written out: it comes with every reply */
        return;
    vsnprintf(text, sizeof(text), format, list);
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
