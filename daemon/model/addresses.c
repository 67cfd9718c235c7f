#include "model/addresses.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { BYTES_4 = 4, BYTES_16 = 16 };

struct block {
    uint8_t bytes[BYTES_16];
    size_t size; /* 4 or 16 bytes */
    unsigned bits;
};

static bool block_parse(const char *text, struct block *ret)
{
    char address[64];
    int64_t bits = -1;
    const char *slash = strchr(text, '/');
    size_t length = slash ? (size_t)(slash - text) : strlen(text);

    if (length >= sizeof address)
        return false;
    memcpy(address, text, length);
    address[length] = '\0';
    *ret = (struct block){0};
    if (inet_pton(AF_INET, address, ret->bytes) == 1)
        ret->size = BYTES_4;
    else if (inet_pton(AF_INET6, address, ret->bytes) == 1)
        ret->size = BYTES_16;
    else
        return false;
    bits = 8 * (int64_t)ret->size;
    if (slash && !str_to_int(slash + 1, 0, 8 * (int64_t)ret->size, &bits))
        return false;
    ret->bits = (unsigned)bits;
    return true;
}

bool address_block_valid(const char *block)
{
    struct block parsed;
    return block_parse(block, &parsed);
}

static bool covers(const struct block *block, const uint8_t *bytes, size_t size)
{
    size_t whole = block->bits / 8;
    unsigned rest = block->bits % 8;
    if (size != block->size || memcmp(block->bytes, bytes, whole) != 0)
        return false;
    return rest == 0 || ((block->bytes[whole] ^ bytes[whole]) >> (8 - rest)) == 0;
}

static bool within(const char *text, const uint8_t *bytes, size_t size)
{
    struct block block;
    return block_parse(text, &block) && covers(&block, bytes, size);
}

/* The bytes of an address; those of an IPv4-mapped one are the IPv4 address's. Returns their number, 0 for another family. */
static size_t bytes_of(const struct sockaddr *address, uint8_t ret[BYTES_16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (address->sa_family == AF_INET) {
        memcpy(ret, &((const struct sockaddr_in *)(const void *)address)->sin_addr, BYTES_4);
        return BYTES_4;
    }
    if (address->sa_family != AF_INET6)
        return 0;
    const uint8_t *bytes = ((const struct sockaddr_in6 *)(const void *)address)->sin6_addr.s6_addr;
    if (memcmp(bytes, mapped, sizeof mapped) == 0) {
        memcpy(ret, bytes + sizeof mapped, BYTES_4);
        return BYTES_4;
    }
    memcpy(ret, bytes, BYTES_16);
    return BYTES_16;
}

bool address_within(const struct sockaddr *address, const char *block)
{
    uint8_t bytes[BYTES_16];
    size_t size = bytes_of(address, bytes);
    return size > 0 && within(block, bytes, size);
}

static bool in_any(const char *const *blocks, size_t n, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < n; i++)
        if (within(blocks[i], bytes, size))
            return true;
    return false;
}

static bool public_4(const uint8_t *bytes)
{
    static const char *const special[] = {
        "0.0.0.0/8",     "10.0.0.0/8",      "100.64.0.0/10",  "127.0.0.0/8",   "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24",    "192.0.2.0/24",   "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3", /* multicast, reserved, broadcast */
    };
    return !in_any(special, ELEMENTS(special), bytes, BYTES_4);
}

/* Only global unicast (2000::/3), and of that only what is no special block. */
static bool public_16(const uint8_t *bytes)
{
    static const char *const special[] = {
        "2001::/23", "2001:db8::/32", "2002::/16" /* 6to4: carries any IPv4 address */, "3fff::/20",
    };
    static const char nat64[] = "64:ff9b::/96";
    if (within(nat64, bytes, BYTES_16))
        return public_4(bytes + 12);
    return within("2000::/3", bytes, BYTES_16) && !in_any(special, ELEMENTS(special), bytes, BYTES_16);
}

bool address_public(const struct sockaddr *address)
{
    uint8_t bytes[BYTES_16];
    size_t size = bytes_of(address, bytes);
    return size == BYTES_4 ? public_4(bytes) : size == BYTES_16 && public_16(bytes);
}
