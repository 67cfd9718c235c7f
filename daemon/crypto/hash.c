#include "crypto/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

struct hash {
    EVP_MD_CTX *context;
};

static void must(int ok)
{
    if (!ok)
        abort();
}

/* Looked up once: EVP_sha256() has OpenSSL 3 search its providers, under a lock, for every digest; of a reply's tag that is a third. */
static EVP_MD *sha256;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void sha256_fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    must(sha256 != NULL);
}

static const EVP_MD *the_sha256(void)
{
    must(pthread_once(&sha256_once, sha256_fetch) == 0);
    return sha256;
}

void hash_sha256(const void *data, size_t size, uint8_t ret_digest[HASH_SIZE])
{
    must(EVP_Digest(data, size, ret_digest, NULL, the_sha256(), NULL));
}

char *hash_sha256_hex(const void *data, size_t size, char ret[HASH_HEX_SIZE])
{
    uint8_t digest[HASH_SIZE];

    hash_sha256(data, size, digest);
    return hash_hex(digest, ret);
}

struct hash *hash_new(void)
{
    struct hash *hash = mem_new(sizeof(*hash));

    hash->context = EVP_MD_CTX_new();
    must(hash->context != NULL);
    must(EVP_DigestInit_ex(hash->context, the_sha256(), NULL));
    return hash;
}

void hash_update(struct hash *hash, const void *data, size_t size)
{
    must(EVP_DigestUpdate(hash->context, data, size));
}

void hash_final(struct hash *hash, uint8_t ret_digest[HASH_SIZE])
{
    must(EVP_DigestFinal_ex(hash->context, ret_digest, NULL));
    must(EVP_DigestInit_ex(hash->context, the_sha256(), NULL));
}

void hash_free(struct hash *hash)
{
    if (!hash)
        return;
    EVP_MD_CTX_free(hash->context);
    free(hash);
}

char *hash_hex(const uint8_t digest[HASH_SIZE], char ret[HASH_HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < HASH_SIZE; i++) {
        ret[2 * i] = digits[digest[i] >> 4];
        ret[2 * i + 1] = digits[digest[i] & 15];
    }
    ret[2 * HASH_SIZE] = '\0';
    return ret;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool hash_from_hex(const char *text, uint8_t ret_digest[HASH_SIZE])
{
    if (!text || strlen(text) != 2 * HASH_SIZE)
        return false;
    for (size_t i = 0; i < HASH_SIZE; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret_digest[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void hash_random(void *ret, size_t size)
{
    must(size <= INT32_MAX && RAND_bytes(ret, (int)size) == 1);
}

bool hash_equal(const void *a, const void *b, size_t size)
{
    return CRYPTO_memcmp(a, b, size) == 0;
}

void hash_hmac_sha256(const void *key, size_t key_size, const void *data, size_t size, uint8_t ret_digest[HASH_SIZE])
{
    unsigned length = 0;
    must(HMAC(EVP_sha256(), key, (int)key_size, data, size, ret_digest, &length) && length == HASH_SIZE);
}

char *hash_base64(const void *data, size_t size)
{
    unsigned char *text = mem_new(4 * ((size + 2) / 3) + 1);
    EVP_EncodeBlock(text, data, (int)size);
    return (char *)text;
}

char *hash_base64url(const void *data, size_t size)
{
    unsigned char *text = mem_new(4 * ((size + 2) / 3) + 1);
    int length = EVP_EncodeBlock(text, data, (int)size);

    while (length > 0 && text[length - 1] == '=')
        length--;
    text[length] = '\0';
    for (int i = 0; i < length; i++)
        text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
    return (char *)text;
}
