#pragma once
/* How many connections each address has. An IPv6 client is its /64: that much is anybody's. */
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct addresses;

struct addresses *addresses_new(void);
void addresses_free(struct addresses *addresses); /* NULL is fine */
/* false: peer has limit connections already; nothing is counted. */
bool addresses_enter(struct addresses *addresses, const struct sockaddr *peer, size_t limit);
void addresses_leave(struct addresses *addresses, const struct sockaddr *peer);
