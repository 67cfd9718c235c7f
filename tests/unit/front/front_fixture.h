#pragma once
/* The role front as a child process (this test executes itself again with --front), with the test as serve, as core and
 * as its clients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/preface.h"
#include "base/proc.h"
#include "certificates.h"

#define QUESTION "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

enum { PATIENCE_MS = 60000 }; /* a bound for hanging, not an expectation */

struct world {
    struct holder private_ca, client_ca, server, other_server;
    struct holder admin; /* a client's certificate by the private CA */
    const struct holder *revoked; /* NULL, or whose certificate client_ca's list names with the next message */
    int connections, handshake_seconds;
    int per_address, handshakes, head_seconds, stall_seconds; /* 0: as front has it */
    pid_t front;
    int control;  /* serve's end */
    int handover; /* core's end */
    int listener; /* the listening socket; front has it too */
    uint16_t port;
};

/* --- serve --- */

static inline void world_send(struct world *w, const char *type, const struct holder *server, int key)
{
    AUTO_JSON json_t *msg =
        json_pack("{s:s, s:{s:i, s:i}, s:i, s:b}", "type", type, "limits", "connections", w->connections,
                  "handshake_seconds", w->handshake_seconds, "listeners", 1, "has_client_ca", 1);
    const struct {
        const char *name;
        int value;
    } more[] = {{"connections_per_address", w->per_address},
                {"handshakes", w->handshakes},
                {"head_seconds", w->head_seconds},
                {"stall_seconds", w->stall_seconds},
                {"body_bytes", 1 << 30}};
    for (size_t i = 0; i < ELEMENTS(more); i++)
        if (more[i].value > 0)
            json_put(json_object_get(msg, "limits"), more[i].name, json_integer(more[i].value));
    int fds[7], pair[2] = {-1, -1};
    size_t n = 0;
    bool starting = strcmp(type, "start") == 0;
    struct err err;
    if (starting) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        int small = 1; /* the kernel's least: a handful of packets fills it */
        setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
        w->handover = pair[1];
        fds[n++] = pair[0];
    }
    fds[n++] = file_of_certificate(server);
    fds[n++] = key;
    fds[n++] = file_of_certificate(&w->private_ca);
    fds[n++] = file_of_certificate(&w->client_ca);
    if (w->revoked)
        fds[n++] = file_of_revocation(&w->client_ca, w->revoked);
    json_put(msg, "has_client_crl", json_boolean(w->revoked != NULL));
    size_t ours = n;
    if (starting)
        fds[n++] = w->listener;
    assert_int_equal(ipc_send(w->control, msg, fds, n, &err), 0);
    for (size_t i = 0; i < ours; i++)
        close(fds[i]);
}

/* The next message of front; NULL at end-of-file. */
static inline json_t *world_receive(struct world *w)
{
    json_t *msg = NULL;
    size_t n_fds = 0;
    struct err err;
    assert_true(ipc_recv(w->control, PATIENCE_MS, &msg, NULL, &n_fds, &err) >= 0);
    return msg;
}

static inline void world_expect(struct world *w, const char *type)
{
    AUTO_JSON json_t *msg = world_receive(w);
    assert_non_null(msg);
    assert_string_equal(json_str(msg, "type", ""), type);
}

static inline void world_spawn(struct world *w)
{
    const char *const argv[] = {proc_self_path(), "--front", NULL};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int control[2], pidfd;
    struct err err;
    assert_int_equal(ipc_pair(control, &err), 0);
    const struct proc_fd fds[] = {{2, 2}, {control[1], 3}};
    const struct proc_spec spec = {.argv = argv, .environment = (const char *const *)environ, .fds = fds, .n_fds = 2};
    assert_int_equal(proc_spawn(&spec, &w->front, &pidfd, &err), 0);
    close(pidfd);
    close(control[1]);
    w->control = control[0];
    w->handover = -1;
    w->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(w->listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(w->listener, 1024), 0);
    assert_int_equal(getsockname(w->listener, (struct sockaddr *)&address, &length), 0);
    w->port = ntohs(address.sin_port);
}

/* Waits for front's end: its exit status, or -1 for a signal. */
static inline int world_reap(struct world *w)
{
    int status;
    assert_true(proc_reap(w->front, -1, PATIENCE_MS, &status));
    w->front = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline int world_open(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->private_ca = holder_make(&(struct certificate_spec){.name = "quiesced CA", .authority = true});
    w->client_ca = holder_make(&(struct certificate_spec){.name = "company CA", .authority = true});
    w->server = holder_make(
        &(struct certificate_spec){.name = "first", .alternatives = "DNS:localhost", .issuer = &w->private_ca});
    w->other_server = holder_make(
        &(struct certificate_spec){.name = "second", .alternatives = "DNS:localhost", .issuer = &w->private_ca});
    w->admin = holder_make(
        &(struct certificate_spec){.name = "admin",
                                   .alternatives = "URI:quiesced:admin,DNS:console.example,email:a@example.org",
                                   .usage = "clientAuth",
                                   .issuer = &w->private_ca});
    w->connections = 1000;
    w->handshake_seconds = 30;
    *state = w;
    return 0;
}

static inline int world_start(void **state)
{
    world_open(state);
    struct world *w = *state;
    world_spawn(w);
    world_send(w, "start", &w->server, file_of_key(&w->server, NULL));
    world_expect(w, "ready");
    return 0;
}

/* Front must end by itself, in good order, once its control channel is closed. */
static inline int world_stop(void **state)
{
    struct world *w = *state;
    int status = 0;
    close(w->control);
    if (w->front)
        status = world_reap(w);
    if (w->listener >= 0)
        close(w->listener);
    if (w->handover >= 0)
        close(w->handover);
    struct holder *holders[] = {&w->private_ca, &w->client_ca, &w->server, &w->other_server, &w->admin};
    for (size_t i = 0; i < ELEMENTS(holders); i++)
        holder_free(holders[i]);
    free(w);
    return status;
}

/* --- core --- */

/* The next connection that front hands over: a blocking socket. */
static inline int core_take(struct world *w, struct preface *ret)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct preface preface;
    struct iovec part = {.iov_base = &preface, .iov_len = sizeof(preface)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
    struct pollfd wait = {.fd = w->handover, .events = POLLIN};
    int fd;
    assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
    assert_int_equal(recvmsg(w->handover, &message, MSG_CMSG_CLOEXEC), sizeof(preface));
    assert_non_null(CMSG_FIRSTHDR(&message));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    assert_int_equal(preface.version, PREFACE_VERSION);
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (ret)
        *ret = preface;
    return fd;
}

static inline void core_expect(int fd, const char *text)
{
    char bytes[256] = "";
    assert_int_equal(recv(fd, bytes, strlen(text), MSG_WAITALL), strlen(text));
    assert_string_equal(bytes, text);
}

static inline void core_say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* --- client --- */

static inline int tcp_connect(const struct world *w)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(w->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    close(fd);
    return -1;
}

/* A client's settings: trusts the private CA, shows holder's certificate when there is one. */
static inline SSL_CTX *client_context(const struct world *w, const struct holder *holder)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), w->private_ca.certificate);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (holder) {
        SSL_CTX_use_certificate(context, holder->certificate);
        SSL_CTX_use_PrivateKey(context, holder->key);
    }
    return context;
}

static inline SSL *client_on(SSL_CTX *context, int fd)
{
    SSL *ssl = SSL_new(context);
    BIO *bio = BIO_new_socket(fd, BIO_CLOSE);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_connect_state(ssl);
    return ssl;
}

/* A finished handshake. */
static inline SSL *client_open(struct world *w, const struct holder *holder)
{
    SSL_CTX *context = client_context(w, holder);
    SSL *ssl = client_on(context, tcp_connect(w));
    SSL_CTX_free(context);
    ERR_clear_error();
    assert_int_equal(SSL_connect(ssl), 1);
    return ssl;
}

static inline void client_say(SSL *ssl, const char *text)
{
    assert_int_equal(SSL_write(ssl, text, (int)strlen(text)), strlen(text));
}

static inline void client_expect(SSL *ssl, const char *text)
{
    char bytes[256] = "";
    size_t have = 0, n = 0;
    while (have < strlen(text)) {
        assert_int_equal(SSL_read_ex(ssl, bytes + have, strlen(text) - have, &n), 1);
        have += n;
    }
    assert_string_equal(bytes, text);
}

/* The next thing that the client reads is what SSL_get_error calls it. */
static inline void client_expect_end(SSL *ssl, int how)
{
    char byte;
    ERR_clear_error();
    int n = SSL_read(ssl, &byte, 1);
    assert_true(n <= 0);
    assert_int_equal(SSL_get_error(ssl, n), how);
}

/* A first question and its answer: core has the connection from now on. */
static inline int core_meet(struct world *w, SSL *ssl, struct preface *ret)
{
    client_say(ssl, QUESTION);
    int core = core_take(w, ret);
    core_expect(core, QUESTION);
    core_say(core, "answer");
    client_expect(ssl, "answer");
    return core;
}

/* One word each way: the connection is whole. */
static inline void talk(SSL *ssl, int core)
{
    client_say(ssl, QUESTION);
    core_expect(core, QUESTION);
    core_say(core, "answer");
    client_expect(ssl, "answer");
}
