#include "base/ident.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"

static pthread_mutex_t uuid_lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t uuid_last_ms;
static uint32_t uuid_counter; /* rand_a and the top of rand_b: RFC 9562 6.2 method 1, 26 bits */

enum { UUID_COUNTER_BITS = 26 };

/* Random bytes in store, under the lock: a system call for each id of each request is too many. A child that was forked
 * must not give out what its parent will. */
static struct {
    uint8_t bytes[1024];
    size_t left;
    bool guarded;
} pool;

static void pool_forget(void)
{
    pool.left = 0;
}

static void random_fill(void *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = getrandom((char *)buffer + done, size - done, 0);
        if (n > 0)
            done += (size_t)n;
        else if (n < 0 && access("/dev/urandom", R_OK) != 0)
            abort(); /* an id that others can guess or that repeats is worse than no daemon */
    }
}

static void pool_take(void *buffer, size_t size)
{
    if (!pool.guarded)
        pool.guarded = pthread_atfork(NULL, NULL, pool_forget) == 0;
    if (pool.left < size || !pool.guarded) {
        random_fill(pool.bytes, sizeof(pool.bytes));
        pool.left = sizeof(pool.bytes);
    }
    pool.left -= size;
    memcpy(buffer, pool.bytes + pool.left, size);
    memset(pool.bytes + pool.left, 0, size);
}

static char *uuid_print(uint64_t high, uint64_t low, char ret[UUID_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    const uint64_t halves[] = {high, low};
    size_t at = 0;
    for (int nibble = 0; nibble < 32; nibble++) {
        if (nibble == 8 || nibble == 12 || nibble == 16 || nibble == 20)
            ret[at++] = '-';
        ret[at++] = digits[halves[nibble / 16] >> (60 - nibble % 16 * 4) & 15];
    }
    ret[at] = '\0';
    return ret;
}

char *uuid_v7(char ret[UUID_SIZE])
{
    uint64_t random[2];
    pthread_mutex_lock(&uuid_lock);
    pool_take(random, sizeof(random));
    int64_t now = clock_real_ms();
    if (now > uuid_last_ms) {
        uuid_last_ms = now;
        /* The top bit stays clear, so that at least 2^25 ids fit into one millisecond. */
        uuid_counter = (uint32_t)random[1] & ((1u << (UUID_COUNTER_BITS - 1)) - 1);
    } else if (++uuid_counter >> UUID_COUNTER_BITS) {
        uuid_last_ms++; /* a clock that stands or goes back: run ahead of it */
        uuid_counter = 0;
    }
    uint64_t when = (uint64_t)uuid_last_ms, counter = uuid_counter;
    pthread_mutex_unlock(&uuid_lock);
    uint64_t high = when << 16 | 0x7000 | counter >> 14;
    uint64_t low = 2ULL << 62 | (counter & 0x3fff) << 48 | (random[0] & 0xffffffffffffULL);
    return uuid_print(high, low, ret);
}

/* SplitMix64's finaliser (Steele, Lea, Flood 2014): every input bit reaches every output bit. */
static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

/* FNV-1a with its 64-bit prime; the seed separates the two halves. The NUL of the space is hashed too,
 * so that ("ab", "c") and ("a", "bc") differ. */
static uint64_t fnv(uint64_t seed, const char *space, const char *name)
{
    uint64_t hash = seed;
    for (size_t i = 0; i <= strlen(space); i++)
        hash = (hash ^ (unsigned char)space[i]) * 0x100000001b3ULL;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3ULL;
    return mix(hash);
}

char *uuid_named(const char *space, const char *name, char ret[UUID_SIZE])
{
    uint64_t high = fnv(0xcbf29ce484222325ULL, space, name);
    uint64_t low = fnv(mix(0xcbf29ce484222325ULL), space, name);
    high = (high & ~0xf000ULL) | 0x8000;
    low = (low & ~(3ULL << 62)) | 2ULL << 62;
    return uuid_print(high, low, ret);
}

bool uuid_valid(const char *text)
{
    if (!text || strlen(text) != UUID_SIZE - 1)
        return false;
    for (size_t i = 0; i < UUID_SIZE - 1; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !strchr("0123456789abcdef", text[i]))
            return false;
    }
    return true;
}
