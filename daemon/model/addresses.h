#pragma once
/* Which addresses lie on the public internet: a receiver named by somebody else must not be a way to this machine or its
 * network. Pure; the registries are IANA's special-purpose ones (RFC 6890 and its updates). */
#include <stdbool.h>
#include <sys/socket.h>

/* false for everything special (loopback, private, link-local, shared, multicast, documentation, translation of such a
 * one, ...) and for families other than IPv4 and IPv6. An IPv6 address that carries an IPv4 one is judged by that, too. */
bool address_public(const struct sockaddr *address);
/* "10.0.0.0/8", "fd00::/8", or a lone address. */
bool address_block_valid(const char *block);
/* Is it in that block? An IPv4-mapped address counts as the IPv4 one. */
bool address_within(const struct sockaddr *address, const char *block);
