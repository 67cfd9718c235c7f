#pragma once
/* SHA-256 of a file that is read block by block: a thread hashes a block while its caller stores it and reads the next one. */
#include <stddef.h>
#include <stdint.h>

#include "crypto/hash.h"

struct hasher;

struct hasher *hasher_new(void);
/* The block must stay as it is until the next call of any of these. Small ones are hashed at once. */
void hasher_add(struct hasher *hasher, const void *block, size_t size);
/* Of everything since the last call, or the beginning. */
void hasher_final(struct hasher *hasher, uint8_t ret_digest[HASH_SIZE]);
void hasher_free(struct hasher *hasher); /* NULL is fine */
