#pragma once
/* "127.0.0.1:8877", "[::1]:0": what the daemon listens on. */
#include <stdbool.h>
#include <sys/socket.h>

#include "base/err.h"

struct listen_address {
    struct sockaddr_storage address;
    socklen_t size;
};
/* Numeric addresses only: a listener must not depend on a name service. Port 0 = any free one. */
int listen_parse(const char *text, struct listen_address *ret, struct err *err);
/* The reverse, into "127.0.0.1:8877" or "[::1]:8877" (at most 64 bytes with NUL). With reachable, "any" addresses
 * become loopback. */
void listen_format(const struct sockaddr_storage *address, bool reachable, char ret[64]);
