/* One TLS connection, non-blocking. */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

#include "load.h"

SSL_CTX *client_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    if (!context || SSL_CTX_load_verify_locations(context, options.ca, NULL) != 1)
        fail("the CA cannot be loaded");
    if (options.certificate && (SSL_CTX_use_certificate_chain_file(context, options.certificate) != 1 ||
                                SSL_CTX_use_PrivateKey_file(context, options.key, SSL_FILETYPE_PEM) != 1))
        fail("the client certificate cannot be loaded");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return context;
}

void client_connect(struct client *client, SSL_CTX *context, SSL_SESSION *session)
{
    *client = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (client->fd < 0)
        fail("no socket");
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (connect(client->fd, (const struct sockaddr *)&options.address, sizeof(options.address)) != 0 && errno != EINPROGRESS)
        fail("cannot connect");
    client->ssl = SSL_new(context);
    SSL_set_fd(client->ssl, client->fd);
    SSL_set_connect_state(client->ssl);
    if (session && SSL_set_session(client->ssl, session) != 1)
        fail("the session cannot be used");
}

/* What a call that did not succeed waits for; anything else ends the program. */
static enum progress waiting(struct client *client, int result, const char *what)
{
    int error = SSL_get_error(client->ssl, result);

    if (error == SSL_ERROR_WANT_READ)
        return PROGRESS_WAIT_READ;
    if (error != SSL_ERROR_WANT_WRITE)
        fail(what);
    return PROGRESS_WAIT_WRITE;
}

enum progress client_handshake(struct client *client)
{
    ERR_clear_error();
    int result = SSL_do_handshake(client->ssl);
    return result == 1 ? PROGRESS_DONE : waiting(client, result, "handshake");
}

enum progress client_send(struct client *client, const char *request, size_t length)
{
    while (client->sent < length) {
        size_t n = 0;
        ERR_clear_error();
        int result = SSL_write_ex(client->ssl, request + client->sent, length - client->sent, &n);
        if (result != 1)
            return waiting(client, result, "send");
        client->sent += n;
    }
    client->sent = client->head_length = client->body_left = 0;
    client->in_body = false;
    return PROGRESS_DONE;
}

/* Takes bytes of the head; true when it is whole. What is beyond it counts as body. */
static bool take_head(struct client *client, const char *bytes, size_t length)
{
    size_t room = sizeof(client->head) - 1 - client->head_length, before = client->head_length;
    size_t taken = length < room ? length : room;

    memcpy(client->head + before, bytes, taken);
    client->head_length += taken;
    client->head[client->head_length] = '\0';
    const char *end = strstr(client->head, "\r\n\r\n"), *size = strcasestr(client->head, "content-length:");
    if (!end)
        return false;
    if (strncmp(client->head, "HTTP/1.1 200 ", 13) != 0 || !size) {
        fprintf(stderr, "%.200s\n", client->head);
        fail("a reply that is not expected");
    }
    size_t head = (size_t)(end + 4 - client->head), whole = strtoul(size + 15, NULL, 10), body = before + length - head;
    client->in_body = true;
    client->body_left = body < whole ? whole - body : 0;
    return true;
}

enum progress client_receive(struct client *client)
{
    static char bytes[64 * 1024];

    for (;;) {
        size_t n = 0;
        ERR_clear_error();
        int result = SSL_read_ex(client->ssl, bytes, sizeof(bytes), &n);
        if (result != 1)
            return waiting(client, result, "receive");
        if (client->in_body)
            client->body_left -= n < client->body_left ? n : client->body_left;
        else if (!take_head(client, bytes, n))
            continue;
        if (client->body_left == 0)
            return PROGRESS_DONE;
    }
}

enum progress client_finish(struct client *client)
{
    char bytes[1024];
    ERR_clear_error();
    if (!(SSL_get_shutdown(client->ssl) & SSL_SENT_SHUTDOWN))
        SSL_shutdown(client->ssl);
    for (;;) {
        ssize_t n = recv(client->fd, bytes, sizeof(bytes), 0);
        if (n < 0 && errno == EAGAIN)
            return PROGRESS_WAIT_READ;
        if (n <= 0)
            return PROGRESS_DONE;
    }
}

void client_close(struct client *client)
{
    SSL_free(client->ssl);
    close(client->fd);
    *client = (struct client){.fd = -1};
}
