/* Who the client is: from its certificate to the preface. */
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "front/tls.h"

DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free)

static void free_private_ca(void *parent, void *ca, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    (void)parent;
    (void)data;
    (void)index;
    (void)argl;
    (void)argp;
    X509_free(ca);
}

/* The slot of a context in which its private CA lies. */
static int private_ca_index(void)
{
    static int index = -1;
    if (index < 0)
        index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_private_ca);
    return index;
}

int tls_context_set_private_ca(SSL_CTX *context, X509 *ca)
{
    if (private_ca_index() >= 0 && SSL_CTX_set_ex_data(context, private_ca_index(), ca) == 1)
        return 0;
    X509_free(ca);
    return -1;
}

X509 *tls_context_private_ca(const SSL_CTX *context)
{
    return SSL_CTX_get_ex_data(context, private_ca_index());
}

/* Does the chain that OpenSSL verified end in our own CA? A name alone would not do: another trusted CA could copy it.
 */
static bool chain_is_ours(SSL *ssl)
{
    const STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    const X509 *ca = tls_context_private_ca(SSL_get_SSL_CTX(ssl));
    int n = chain ? sk_X509_num(chain) : 0;
    return n > 0 && X509_cmp(sk_X509_value(chain, n - 1), ca) == 0;
}

/* A resumed session has the certificate but no chain, so the ticket carries the chain's verdict in one byte. It is
 * sealed with a key that only contexts with the same CAs and lists have (ticket_keys.c): a ticket never outlives what it
 * was checked against. */
int tls_ticket_write(SSL *ssl, void *arg)
{
    (void)arg;
    if (SSL_session_reused(ssl))
        return 1;
    unsigned char ours = chain_is_ours(ssl);
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), &ours, 1);
}

static bool issued_by_us(SSL *ssl)
{
    void *data = NULL;
    size_t length = 0;
    if (!SSL_session_reused(ssl))
        return chain_is_ours(ssl);
    return SSL_SESSION_get0_ticket_appdata(SSL_get_session(ssl), &data, &length) == 1 && length == 1 &&
           *(unsigned char *)data == 1;
}

/* A name that does not fit or hides a NUL or control character is left out, never cut: a cut name could be another's.
 */
static bool put_name(char dst[PREFACE_NAME_SIZE], const char *kind, const unsigned char *name, int length)
{
    size_t prefix = strlen(kind);
    if (length <= 0 || prefix + (size_t)length >= PREFACE_NAME_SIZE)
        return false;
    for (int i = 0; i < length; i++)
        if (name[i] < 0x20 || name[i] == 0x7f)
            return false;
    memcpy(dst, kind, prefix);
    memcpy(dst + prefix, name, (size_t)length);
    dst[prefix + (size_t)length] = '\0';
    return true;
}

/* The common name; none when there are several, since a reader could take the other one. */
static void put_common_name(const X509 *leaf, struct preface *preface)
{
    const X509_NAME *subject = X509_get_subject_name(leaf);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *text = NULL;
    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return;
    int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (length > 0)
        put_name(preface->common_name, "", text, length);
    OPENSSL_free(text);
}

static void put_alternative_names(const X509 *leaf, struct preface *preface)
{
    static const struct {
        int type;
        const char *prefix;
    } kinds[] = {{GEN_URI, "URI:"}, {GEN_DNS, "DNS:"}, {GEN_EMAIL, "EMAIL:"}};
    CLEANUP(GENERAL_NAMES_free_p) GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    size_t used = 0;
    for (int i = 0; names && i < sk_GENERAL_NAME_num(names) && used < PREFACE_NAMES; i++) {
        int type = 0;
        const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
        for (size_t k = 0; k < ELEMENTS(kinds); k++)
            if (kinds[k].type == type)
                used += put_name(preface->names[used], kinds[k].prefix, ASN1_STRING_get0_data(value),
                                 ASN1_STRING_length(value));
    }
}

int tls_identity(SSL *ssl, struct preface *preface, struct err *err)
{
    const X509 *leaf = SSL_get0_peer_certificate(ssl);
    unsigned length = sizeof(preface->fingerprint);
    ERR_clear_error();
    if (!leaf)
        return 0;
    if (SSL_get_verify_result(ssl) != X509_V_OK)
        return err_set(err, E_ACCESSDENIED, NULL, "client certificate: not verified");
    /* The handshake of a resumed session does not look at the dates again. */
    if (X509_cmp_current_time(X509_get0_notAfter(leaf)) <= 0)
        return err_set(err, E_ACCESSDENIED, NULL, "client certificate: expired");
    if (X509_digest(leaf, EVP_sha256(), preface->fingerprint, &length) != 1)
        return err_set(err, E_OUTOFMEMORY, NULL, "client certificate: cannot compute its fingerprint");
    preface->has_certificate = 1;
    preface->issued_by_us = issued_by_us(ssl);
    put_common_name(leaf, preface);
    put_alternative_names(leaf, preface);
    return 0;
}
