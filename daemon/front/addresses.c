#include "front/addresses.h"

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/str.h"

enum { BUCKETS = 1024 };

struct address {
    struct address *next;
    uint64_t key;
    size_t n;
};

struct addresses {
    uint64_t seed; /* so that nobody can choose addresses that share a bucket */
    struct address *buckets[BUCKETS];
};

static uint64_t key_of(const struct sockaddr *peer)
{
    const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr;
    uint64_t key = 0;
    uint32_t in = 0;
    if (peer->sa_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(in6)) {
        memcpy(&key, in6->s6_addr, sizeof(key));
        return key;
    }
    if (peer->sa_family == AF_INET6)
        memcpy(&in, in6->s6_addr + 12, sizeof(in));
    else if (peer->sa_family == AF_INET)
        in = ((const struct sockaddr_in *)(const void *)peer)->sin_addr.s_addr;
    return UINT64_C(0x0000ffff00000000) | in; /* no /64 that is given out begins so */
}

/* Where the address stands, or would. */
static struct address **place_of(struct addresses *addresses, uint64_t key)
{
    uint64_t mixed = (key ^ addresses->seed) * UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ (mixed >> 32)) * (addresses->seed | 1);
    struct address **at = &addresses->buckets[(mixed >> 32) % BUCKETS];
    while (*at && (*at)->key != key)
        at = &(*at)->next;
    return at;
}

bool addresses_enter(struct addresses *addresses, const struct sockaddr *peer, size_t limit)
{
    uint64_t key = key_of(peer);
    struct address **at = place_of(addresses, key);
    if (*at && (*at)->n >= limit)
        return false;
    if (!*at) {
        *at = mem_new(sizeof(**at));
        (*at)->key = key;
    }
    (*at)->n++;
    return true;
}

void addresses_leave(struct addresses *addresses, const struct sockaddr *peer)
{
    struct address **at = place_of(addresses, key_of(peer));
    struct address *address = *at;
    if (!address || --address->n > 0)
        return;
    *at = address->next;
    free(address);
}

struct addresses *addresses_new(void)
{
    struct addresses *addresses = mem_new(sizeof(*addresses));
    if (getrandom(&addresses->seed, sizeof(addresses->seed), 0) != sizeof(addresses->seed))
        abort();
    return addresses;
}

void addresses_free(struct addresses *addresses)
{
    for (size_t i = 0; addresses && i < BUCKETS; i++)
        while (addresses->buckets[i]) {
            struct address *address = addresses->buckets[i];
            addresses->buckets[i] = address->next;
            free(address);
        }
    free(addresses);
}
