/* Connections that are made and closed again: TCP, handshake, close_notify, the server's end. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "load.h"

static SSL_SESSION *session; /* what is resumed */
static SSL_CTX *context;
static size_t resumed;

static int keep_session(SSL *ssl, SSL_SESSION *fresh)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = fresh;
    return 1;
}

static enum progress step(struct client *client)
{
    if (!client->ended) { /* here: the handshake is over */
        enum progress progress = client_handshake(client);
        if (progress != PROGRESS_DONE)
            return progress;
        client->ended = true;
        resumed += (size_t)SSL_session_reused(client->ssl);
    }
    return client_finish(client);
}

static void begin(int poll_fd, struct client *client)
{
    client_connect(client, context, options.resume ? session : NULL);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, client->fd, &event);
}

/* A first connection, whose session the others resume. The ticket of TLS 1.3 comes after the handshake. */
static void get_session(void)
{
    struct client first;
    char byte;
    size_t n = 0;

    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
    client_connect(&first, context, NULL);
    while (!session) {
        if (client_handshake(&first) == PROGRESS_DONE)
            SSL_read_ex(first.ssl, &byte, 1, &n);
    }
    SSL_shutdown(first.ssl); /* a session whose connection just ends is not resumed */
    client_close(&first);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

void load_handshakes(void)
{
    struct client *clients = calloc(options.connections, sizeof(*clients));
    struct epoll_event events[256];
    size_t begun = 0, done = 0;

    context = client_context();
    if (options.resume)
        get_session();
    int poll_fd = epoll_create1(EPOLL_CLOEXEC);
    int64_t start = now_ns(), cpu = cpu_ns();
    for (; begun < options.connections && begun < options.count; begun++)
        begin(poll_fd, &clients[begun]);
    while (done < options.count) {
        int n = epoll_wait(poll_fd, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct client *client = events[i].data.ptr;
            if (step(client) != PROGRESS_DONE)
                continue;
            done++;
            client_close(client);
            if (begun < options.count) {
                begun++;
                begin(poll_fd, client);
            }
        }
    }
    int64_t end = now_ns();
    if (options.resume && resumed != done)
        fail("not every session was resumed");
    printf("{\"operations\": %zu, \"seconds\": %.6f, \"client_cpu_us\": %.3f, \"resumed\": %zu}\n", done, (double)(end - start) / 1e9,
           (double)(cpu_ns() - cpu) / 1e3 / (double)done, resumed);
}
