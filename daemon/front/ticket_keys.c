/* A ticket says that its holder was checked; so the keys that seal tickets go on with the certificate's next context only
 * where that trusts exactly the same. */
#include <string.h>

#include <openssl/evp.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "front/tls.h"

enum {
    KEYS_SIZE = 80,                   /* SSL_CTX_set_tlsext_ticket_keys(3): name, HMAC key, AES key */
    KEYS_AGE_MS = 24 * 3600 * 1000,   /* then the next reload makes new ones */
};

struct trust {
    EVP_MD_CTX *digesting; /* until the first comparison */
    uint8_t digest[EVP_MAX_MD_SIZE];
    int64_t since_ms; /* of the keys */
};

static void free_trust(void *parent, void *trust, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    (void)parent;
    (void)data;
    (void)index;
    (void)argl;
    (void)argp;
    if (trust)
        EVP_MD_CTX_free(((struct trust *)trust)->digesting);
    free(trust);
}

static struct trust *trust_of(SSL_CTX *context)
{
    static int index = -1;
    if (index < 0)
        index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_trust);
    struct trust *trust = SSL_CTX_get_ex_data(context, index);
    if (trust)
        return trust;
    trust = mem_new(sizeof(*trust));
    trust->since_ms = clock_mono_ms();
    trust->digesting = EVP_MD_CTX_new();
    if (trust->digesting)
        EVP_DigestInit_ex(trust->digesting, EVP_sha256(), NULL);
    if (SSL_CTX_set_ex_data(context, index, trust) == 1)
        return trust;
    free_trust(NULL, trust, NULL, 0, 0, NULL);
    return NULL;
}

void tls_trust_add(SSL_CTX *context, const unsigned char *der, int length)
{
    struct trust *trust = trust_of(context);
    if (trust && length > 0)
        EVP_DigestUpdate(trust->digesting, der, (size_t)length);
}

static bool digested(struct trust *trust)
{
    unsigned size = 0;
    if (!trust)
        return false;
    bool good = !trust->digesting || EVP_DigestFinal_ex(trust->digesting, trust->digest, &size) == 1;
    EVP_MD_CTX_free(TAKE_PTR(trust->digesting));
    return good;
}

void tls_keep_ticket_keys(SSL_CTX *fresh, SSL_CTX *old)
{
    struct trust *now = trust_of(fresh), *before = trust_of(old);
    unsigned char keys[KEYS_SIZE];
    if (!digested(now) || !digested(before) || memcmp(now->digest, before->digest, sizeof(now->digest)) != 0 ||
        clock_mono_ms() - before->since_ms > KEYS_AGE_MS)
        return;
    if (SSL_CTX_get_tlsext_ticket_keys(old, keys, sizeof(keys)) == 1 &&
        SSL_CTX_set_tlsext_ticket_keys(fresh, keys, sizeof(keys)) == 1)
        now->since_ms = before->since_ms;
    OPENSSL_cleanse(keys, sizeof(keys));
}
