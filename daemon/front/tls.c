#include "front/tls.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"

DEFINE_CLEANUP(SSL_CTX *, SSL_CTX_free)
DEFINE_CLEANUP(BIO *, BIO_free_all)
DEFINE_CLEANUP(X509 *, X509_free)
DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free)
DEFINE_CLEANUP(X509_CRL *, X509_CRL_free)
DEFINE_CLEANUP(X509_STORE_CTX *, X509_STORE_CTX_free)

/* Mozilla "intermediate", version 5.7 (wiki.mozilla.org/Security/Server_Side_TLS), without its DHE suites: forward
 * secrecy and AEAD only. */
static const char suites_12[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                                "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                                "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char suites_13[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char groups[] = "X25519:P-256:P-384";

enum {
    PEM_FILE_MAX = 4 * 1024 * 1024, /* a whole system bundle of CAs is 0.2 MiB */
    CLIENT_CHAIN_MAX =
        32 * 1024, /* bytes of a client's chain that we hold before we know the client; OpenSSL allows 100 KiB */
    VERIFY_DEPTH = 6,
};

static int tls_err(struct err *err, const char *hint, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return err_set(err, E_INVALIDARG, hint, "%s: %s", what, reason ? reason : "unusable");
}

/* The file's bytes in a memory BIO, which wipes them when it is freed. */
static BIO *read_file(int fd, const char *what, struct err *err)
{
    CLEANUP(BIO_free_all_p) BIO *bio = BIO_new(BIO_s_mem());
    char part[4096];
    ssize_t n = 0;
    size_t total = 0;
    if (!bio) {
        err_set(err, E_OUTOFMEMORY, NULL, "%s: out of memory", what);
        return NULL;
    }
    (void)lseek(fd, 0, SEEK_SET); /* the launcher may have looked inside; a pipe cannot seek and need not */
    while ((n = read(fd, part, sizeof(part))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        total += n > 0 ? (size_t)n : 0;
        if (n < 0 || total > PEM_FILE_MAX || BIO_write(bio, part, (int)n) != (int)n)
            break;
    }
    OPENSSL_cleanse(part, sizeof(part));
    if (n < 0)
        err_errno(err, E_INVALIDARG, errno, NULL, "%s: cannot read", what);
    else if (n > 0)
        err_set(err, E_INVALIDARG, NULL, "%s: larger than %d bytes", what, PEM_FILE_MAX);
    return n == 0 ? TAKE_PTR(bio) : NULL;
}

/* Never ask on a terminal: an encrypted key is unusable here. */
static int no_password(char *buffer, int size, int writing, void *arg)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

/* True at the end of the PEM blocks, false when one of them is damaged. */
static bool pem_ended(void)
{
    unsigned long code = ERR_peek_last_error();
    bool ended = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
    if (ended)
        ERR_clear_error();
    return ended;
}

static int load_chain(SSL_CTX *context, int fd, struct err *err)
{
    static const char what[] = "server certificate";
    static const char hint[] = "Give a PEM file with the server's certificate first and its intermediates after it.";
    CLEANUP(BIO_free_all_p) BIO *bio = read_file(fd, what, err);
    if (!bio)
        return -1;
    CLEANUP(X509_free_p) X509 *leaf = PEM_read_bio_X509(bio, NULL, no_password, NULL);
    if (!leaf || SSL_CTX_use_certificate(context, leaf) != 1)
        return tls_err(err, hint, what);
    for (;;) {
        CLEANUP(X509_free_p) X509 *more = PEM_read_bio_X509(bio, NULL, no_password, NULL);
        if (!more)
            break;
        if (SSL_CTX_add1_chain_cert(context, more) != 1)
            return tls_err(err, hint, what);
    }
    return pem_ended() ? 0 : tls_err(err, hint, what);
}

static int load_key(SSL_CTX *context, int fd, struct err *err)
{
    static const char what[] = "server key";
    CLEANUP(BIO_free_all_p) BIO *bio = read_file(fd, what, err);
    if (!bio)
        return -1;
    CLEANUP(EVP_PKEY_free_p) EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    if (!key)
        return tls_err(err, "Give the key as an unencrypted PEM file.", what);
    if (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1)
        return tls_err(err, "Certificate and key must be of the same pair.", what);
    return 0;
}

static void trust_certificate(SSL_CTX *context, X509 *ca)
{
    unsigned char *der = NULL;
    int length = i2d_X509(ca, &der);
    tls_trust_add(context, der, length);
    OPENSSL_free(der);
}

static void trust_list(SSL_CTX *context, X509_CRL *crl)
{
    unsigned char *der = NULL;
    int length = i2d_X509_CRL(crl, &der);
    tls_trust_add(context, der, length);
    OPENSSL_free(der);
}

/* Trusts every certificate of the file and names it to clients. The first one is returned in ret_first when asked. */
static int load_authorities(SSL_CTX *context, int fd, const char *what, X509 **ret_first, struct err *err)
{
    static const char hint[] = "Give a PEM file with the certificate of the authority.";
    CLEANUP(BIO_free_all_p) BIO *bio = read_file(fd, what, err);
    size_t count = 0;
    if (!bio)
        return -1;
    for (;; count++) {
        CLEANUP(X509_free_p) X509 *ca = PEM_read_bio_X509(bio, NULL, no_password, NULL);
        if (!ca)
            break;
        if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca) != 1 || SSL_CTX_add_client_CA(context, ca) != 1)
            return tls_err(err, hint, what);
        trust_certificate(context, ca);
        if (ret_first && count == 0)
            *ret_first = TAKE_PTR(ca);
    }
    return count > 0 && pem_ended() ? 0 : tls_err(err, hint, what);
}

static int load_crls(SSL_CTX *context, int fd, struct err *err)
{
    static const char what[] = "client revocation list";
    static const char hint[] = "Give a PEM file with the revocation lists of the client authorities.";
    CLEANUP(BIO_free_all_p) BIO *bio = read_file(fd, what, err);
    size_t count = 0;
    if (!bio)
        return -1;
    for (;; count++) {
        CLEANUP(X509_CRL_free_p) X509_CRL *crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);
        if (!crl)
            break;
        if (X509_STORE_add_crl(SSL_CTX_get_cert_store(context), crl) != 1)
            return tls_err(err, hint, what);
        trust_list(context, crl);
    }
    if (count == 0 || !pem_ended())
        return tls_err(err, hint, what);
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_CRL_CHECK);
    return 0;
}

/* The private CA needs no list: its certificates are good as long as core has their records. */
static int on_verify(int good, X509_STORE_CTX *verification)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(verification, SSL_get_ex_data_X509_STORE_CTX_idx());
    const STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(verification);
    int n = chain ? sk_X509_num(chain) : 0;
    if (good || X509_STORE_CTX_get_error(verification) != X509_V_ERR_UNABLE_TO_GET_CRL || !ssl || n == 0 ||
        X509_cmp(sk_X509_value(chain, n - 1), tls_context_private_ca(SSL_get_SSL_CTX(ssl))) != 0)
        return good;
    X509_STORE_CTX_set_error(verification, X509_V_OK);
    return 1;
}

bool tls_revoked(SSL_CTX *context, SSL *ssl)
{
    X509 *leaf = SSL_get0_peer_certificate(ssl);
    if (!leaf)
        return false;
    CLEANUP(X509_STORE_CTX_free_p) X509_STORE_CTX *verification = X509_STORE_CTX_new();
    if (!verification ||
        X509_STORE_CTX_init(verification, SSL_CTX_get_cert_store(context), leaf, SSL_get_peer_cert_chain(ssl)) != 1 ||
        X509_VERIFY_PARAM_set1(X509_STORE_CTX_get0_param(verification), SSL_CTX_get0_param(context)) != 1)
        return true; /* out of memory: rather one connection too many */
    bool good = X509_verify_cert(verification) == 1;
    int error = X509_STORE_CTX_get_error(verification);
    ERR_clear_error();
    /* Of a resumed session the intermediates are not known any more: other faults say nothing. */
    return !good && error == X509_V_ERR_CERT_REVOKED;
}

/* HTTP/1.1 or a fatal no_application_protocol alert (RFC 7301 3.2): a client that speaks only h2 is told at once. */
static int choose_protocol(SSL *ssl, const unsigned char **ret, unsigned char *ret_length, const unsigned char *offered,
                           unsigned length, void *arg)
{
    static const unsigned char ours[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
    unsigned char *chosen = NULL;
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, ret_length, ours, sizeof(ours), offered, length) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *ret = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int set_policy(SSL_CTX *context)
{
    static const unsigned char session_context[] = "quiesced";
    /* Our order of suites, but for a client that puts ChaCha20 first: that one has no AES in hardware. */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);                          /* header and record in one system call */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets only: no memory per past client */
    SSL_CTX_set_max_cert_list(context, CLIENT_CHAIN_MAX);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_verify);
    SSL_CTX_set_verify_depth(context, VERIFY_DEPTH);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    SSL_CTX_set_default_passwd_cb(context, no_password);
    SSL_CTX_set_session_ticket_cb(context, tls_ticket_write, NULL, NULL);
    X509_VERIFY_PARAM *verify = SSL_CTX_get0_param(context);
    /* An intermediate that is named as client CA is trusted as it stands, without its root. */
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
                   SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
                   SSL_CTX_set_cipher_list(context, suites_12) == 1 &&
                   SSL_CTX_set_ciphersuites(context, suites_13) == 1 &&
                   SSL_CTX_set1_groups_list(context, groups) == 1 &&
                   SSL_CTX_set_session_id_context(context, session_context, sizeof(session_context) - 1) == 1 &&
                   X509_VERIFY_PARAM_set_purpose(verify, X509_PURPOSE_SSL_CLIENT) == 1 &&
                   X509_VERIFY_PARAM_set_flags(verify, X509_V_FLAG_PARTIAL_CHAIN) == 1
               ? 0
               : -1;
}

SSL_CTX *tls_context_new(const struct tls_files *files, struct err *err)
{
    ERR_clear_error();
    CLEANUP(SSL_CTX_free_p) SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    CLEANUP(X509_free_p) X509 *private_ca = NULL;
    if (!context || set_policy(context) < 0) {
        tls_err(err, NULL, "TLS");
        return NULL;
    }
    if (load_chain(context, files->chain, err) < 0 || load_key(context, files->key, err) < 0 ||
        load_authorities(context, files->private_ca, "private CA", &private_ca, err) < 0)
        return NULL;
    if (files->client_ca >= 0 && load_authorities(context, files->client_ca, "client CA", NULL, err) < 0)
        return NULL;
    if (files->client_crl >= 0 && load_crls(context, files->client_crl, err) < 0)
        return NULL;
    if (tls_context_set_private_ca(context, TAKE_PTR(private_ca)) < 0) {
        tls_err(err, NULL, "TLS");
        return NULL;
    }
    return TAKE_PTR(context);
}
