#pragma once
/* The client's side of a connection: TLS, or the plain bytes of the local socket. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection;
struct preface;
struct sockaddr_storage;

enum stream_result {
    STREAM_OK,
    STREAM_WANT_READ,  /* again when the socket can be read */
    STREAM_WANT_WRITE, /* ... or written */
    STREAM_ENDED,      /* the client has said that it sends nothing more */
    STREAM_BROKEN,     /* it died */
};

/* At most size bytes; *ret_n of them with STREAM_OK. */
enum stream_result stream_read(struct connection *connection, uint8_t *bytes, size_t size, size_t *ret_n);
enum stream_result stream_write(struct connection *connection, const uint8_t *bytes, size_t length, size_t *ret_n);
/* Are there bytes that epoll cannot see? */
bool stream_has_pending(const struct connection *connection);
/* An address for the count of connections per address that stands for the user at the other end of a local socket. */
void stream_user_address(int socket, struct sockaddr_storage *ret);
/* Who is at the other end of a local socket, by the kernel's word, into the preface. Returns 0 or -1: it has gone. */
int stream_peer(int socket, struct preface *preface);
