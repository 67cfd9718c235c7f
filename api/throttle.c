#include "api/throttle.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "crypto/hash.h"

enum {
    SETS = 1024,
    WAYS = 4, /* 4,096 addresses and principals at once: 0.6 MB */
    KNOWN = 8,
    BURST_SECONDS = 2,
    FORGIVEN_MS = 15 * 60 * 1000, /* after so long without a wrong credential */
    BLOCK_SECONDS_MAX = 300,
    SEED_SIZE = 16,
    NAME_MAX_SIZE = 128,
    MADE = 64,
};

struct slot {
    struct throttle_key key;
    int64_t seen_us;   /* CLOCK_MONOTONIC; 0 = free */
    int64_t allowance; /* millionths of requests that may come at once */
    int64_t filled_us;
    int64_t wrong_ms, blocked_until_ms;
    unsigned wrong;
    unsigned next_known;
    uint64_t known[KNOWN];
};

/* A key that was made lately: who asks again does not cost a hash. */
struct made {
    size_t size; /* of text; 0 = none */
    uint8_t text[1 + NAME_MAX_SIZE];
    struct throttle_key key;
};

struct throttle {
    uint8_t seed[SEED_SIZE]; /* nobody outside can aim at a set */
    int64_t wrong_allowed;
    int64_t rates[2];
    struct slot slots[SETS][WAYS];
    struct made made[MADE];
};

struct throttle *throttle_new(const json_t *limits)
{
    struct throttle *throttle = mem_new(sizeof(*throttle));

    hash_random(throttle->seed, sizeof(throttle->seed));
    throttle_reload(throttle, limits);
    return throttle;
}

void throttle_reload(struct throttle *throttle, const json_t *limits)
{
    throttle->wrong_allowed = json_int(limits, "wrong_credentials", 0);
    throttle->rates[THROTTLE_ADDRESS] = json_int(limits, "address_requests_per_second", 0);
    throttle->rates[THROTTLE_PRINCIPAL] = json_int(limits, "principal_requests_per_second", 0);
}

void throttle_free(struct throttle *throttle)
{
    free(throttle);
}

/* --- keys --- */

static struct made *made_slot(struct throttle *throttle, const uint8_t *text, size_t size)
{
    uint32_t hash = 2166136261u; /* FNV-1a: who aims at a slot here gains a hash to be made, no more */

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ text[i]) * 16777619u;
    return &throttle->made[hash % MADE];
}

static void key_make(struct throttle *throttle, char kind, const void *bytes, size_t size, struct throttle_key *ret)
{
    uint8_t seeded[SEED_SIZE + 1 + NAME_MAX_SIZE], digest[HASH_SIZE], *text = seeded + SEED_SIZE;

    size = size < NAME_MAX_SIZE ? size : NAME_MAX_SIZE;
    text[0] = (uint8_t)kind;
    memcpy(text + 1, bytes, size);
    struct made *made = made_slot(throttle, text, 1 + size);
    if (made->size != 1 + size || memcmp(made->text, text, 1 + size) != 0) {
        memcpy(seeded, throttle->seed, SEED_SIZE);
        hash_sha256(seeded, SEED_SIZE + 1 + size, digest);
        made->size = 1 + size;
        memcpy(made->text, text, 1 + size);
        memcpy(made->key.bytes, digest, sizeof(made->key.bytes));
    }
    *ret = made->key;
}

void throttle_key_address(struct throttle *throttle, const struct sockaddr *peer, struct throttle_key *ret)
{
    enum { SITE_SIZE = 8 };

    if (peer && peer->sa_family == AF_INET)
        key_make(throttle, '4', &((const struct sockaddr_in *)peer)->sin_addr, sizeof(struct in_addr), ret);
    else if (peer && peer->sa_family == AF_INET6)
        key_make(throttle, '6', &((const struct sockaddr_in6 *)peer)->sin6_addr, SITE_SIZE, ret);
    else
        key_make(throttle, '-', "", 0, ret);
}

void throttle_key_user(struct throttle *throttle, uint32_t uid, struct throttle_key *ret)
{
    key_make(throttle, 'u', &uid, sizeof(uid), ret);
}

void throttle_key_principal(struct throttle *throttle, const char *name, struct throttle_key *ret)
{
    key_make(throttle, 'p', name, strlen(name), ret);
}

static struct slot *slot_of(struct throttle *throttle, const struct throttle_key *key)
{
    struct slot *set = throttle->slots[(key->bytes[0] | key->bytes[1] << 8) % SETS], *oldest = set;

    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].seen_us && memcmp(&set[i].key, key, sizeof(*key)) == 0) {
            set[i].seen_us = clock_mono_us();
            return &set[i];
        }
        if (set[i].seen_us < oldest->seen_us)
            oldest = &set[i];
    }
    *oldest = (struct slot){.key = *key, .seen_us = clock_mono_us()};
    return oldest;
}

/* --- requests --- */

int throttle_request(struct throttle *throttle, const struct throttle_key *key, enum throttle_rate rate)
{
    enum { ONE = 1000000 }; /* microseconds of a second, and millionths of a request */
    int64_t per_second = throttle->rates[rate], most = per_second * BURST_SECONDS * ONE;

    if (per_second == 0)
        return 0;
    struct slot *slot = slot_of(throttle, key);
    int64_t passed = slot->filled_us ? slot->seen_us - slot->filled_us : BURST_SECONDS * ONE;
    if (passed > BURST_SECONDS * ONE)
        passed = BURST_SECONDS * ONE; /* and no overflow below */
    slot->allowance += passed * per_second;
    if (slot->allowance > most)
        slot->allowance = most;
    slot->filled_us = slot->seen_us;
    if (slot->allowance < ONE)
        return 1;
    slot->allowance -= ONE;
    return 0;
}

/* --- wrong credentials --- */

int throttle_blocked(struct throttle *throttle, const struct throttle_key *key)
{
    if (throttle->wrong_allowed == 0)
        return 0;
    int64_t left = slot_of(throttle, key)->blocked_until_ms - clock_mono_ms();
    return left > 0 ? (int)((left + 999) / 1000) : 0;
}

void throttle_wrong(struct throttle *throttle, const struct throttle_key *key)
{
    int64_t now = clock_mono_ms(), seconds = 1;

    if (throttle->wrong_allowed == 0)
        return;
    struct slot *slot = slot_of(throttle, key);
    if (now - slot->wrong_ms > FORGIVEN_MS)
        slot->wrong = 0;
    slot->wrong_ms = now;
    slot->wrong++;
    if (slot->wrong < throttle->wrong_allowed)
        return;
    for (int64_t i = throttle->wrong_allowed; i < slot->wrong && seconds < BLOCK_SECONDS_MAX; i++)
        seconds *= 2;
    slot->blocked_until_ms = now + 1000 * (seconds < BLOCK_SECONDS_MAX ? seconds : BLOCK_SECONDS_MAX);
}

static uint64_t known_id(const uint8_t id[8])
{
    uint64_t value;

    memcpy(&value, id, sizeof(value));
    return value | 1; /* 0 = none */
}

bool throttle_is_known(struct throttle *throttle, const struct throttle_key *key, const uint8_t id[8])
{
    const struct slot *slot = slot_of(throttle, key);
    uint64_t value = known_id(id);

    for (size_t i = 0; i < KNOWN; i++)
        if (slot->known[i] == value)
            return true;
    return false;
}

void throttle_set_known(struct throttle *throttle, const struct throttle_key *key, const uint8_t id[8], bool known)
{
    struct slot *slot = slot_of(throttle, key);
    uint64_t value = known_id(id);

    for (size_t i = 0; i < KNOWN; i++)
        if (slot->known[i] == value) {
            slot->known[i] = known ? value : 0;
            return;
        }
    if (known)
        slot->known[slot->next_known++ % KNOWN] = value;
}
