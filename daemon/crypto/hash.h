#pragma once
/* SHA-256, HMAC, random bytes and constant-time comparison. OpenSSL stays behind this header; out of memory, or a library
 * without SHA-256 or randomness, aborts: nothing sensible can be done without them. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HASH_SIZE = 32, HASH_HEX_SIZE = 65 };

/* One-shot. */
void hash_sha256(const void *data, size_t size, uint8_t ret_digest[HASH_SIZE]);
/* One-shot, as lower-case hex; returns ret. */
char *hash_sha256_hex(const void *data, size_t size, char ret[HASH_HEX_SIZE]);

/* Streaming: new, update as often as wanted, final once (or never), free. */
struct hash;
struct hash *hash_new(void);
void hash_update(struct hash *hash, const void *data, size_t size);
void hash_final(struct hash *hash, uint8_t ret_digest[HASH_SIZE]); /* and starts anew: the object may be used again */
void hash_free(struct hash *hash);                                 /* NULL is fine */

/* Lower-case hex; returns ret. */
char *hash_hex(const uint8_t digest[HASH_SIZE], char ret[HASH_HEX_SIZE]);
/* 64 hex digits of either case and nothing else; false otherwise. */
bool hash_from_hex(const char *text, uint8_t ret_digest[HASH_SIZE]);

/* Cryptographically strong random bytes. */
void hash_random(void *ret, size_t size);
/* Compares without telling by its time where the difference is. */
bool hash_equal(const void *a, const void *b, size_t size);
/* HMAC (RFC 2104) with SHA-256. */
void hash_hmac_sha256(const void *key, size_t key_size, const void *data, size_t size, uint8_t ret_digest[HASH_SIZE]);
/* base64 with padding (RFC 4648 4); malloc'ed, caller frees. */
char *hash_base64(const void *data, size_t size);
/* base64url without padding (RFC 4648 5); malloc'ed, caller frees. 32 bytes give 43 characters. */
char *hash_base64url(const void *data, size_t size);
