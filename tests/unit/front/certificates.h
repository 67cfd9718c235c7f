#pragma once
/* Certificates for tests, made by libcrypto at run time. */
#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

struct holder {
    X509 *certificate;
    EVP_PKEY *key;
};

struct certificate_spec {
    const char *name;            /* common name */
    const char *alternatives;    /* "URI:...,DNS:..." or NULL */
    const char *usage;           /* extended key usage or NULL */
    const struct holder *issuer; /* NULL = self-signed */
    bool authority;
    bool expired;
};

static inline void extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *made = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert(made);
    X509_add_ext(certificate, made, -1);
    X509_EXTENSION_free(made);
}

static inline struct holder holder_make(const struct certificate_spec *spec)
{
    static long serial = 1;
    struct holder made = {.certificate = X509_new(), .key = EVP_EC_gen("P-256")};
    X509 *issuer = spec->issuer ? spec->issuer->certificate : made.certificate;
    X509_NAME *name = X509_get_subject_name(made.certificate);
    X509_set_version(made.certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), serial++);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)spec->name, -1, -1, 0);
    X509_gmtime_adj(X509_getm_notBefore(made.certificate), -7200);
    X509_gmtime_adj(X509_getm_notAfter(made.certificate), spec->expired ? -3600 : 3600);
    X509_set_pubkey(made.certificate, made.key);
    X509_set_issuer_name(made.certificate, X509_get_subject_name(issuer));
    extension(made.certificate, issuer, NID_basic_constraints,
              spec->authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
    extension(made.certificate, issuer, NID_subject_key_identifier, "hash");
    extension(made.certificate, issuer, NID_authority_key_identifier, "keyid:always");
    if (spec->alternatives)
        extension(made.certificate, issuer, NID_subject_alt_name, spec->alternatives);
    if (spec->usage)
        extension(made.certificate, issuer, NID_ext_key_usage, spec->usage);
    int signature = X509_sign(made.certificate, spec->issuer ? spec->issuer->key : made.key, EVP_sha256());
    assert(signature > 0);
    (void)signature;
    return made;
}

static inline void holder_free(struct holder *holder)
{
    X509_free(holder->certificate);
    EVP_PKEY_free(holder->key);
}

/* An anonymous file with bytes; its offset is left at the end, as a careless launcher would. */
static inline int file_of(BIO *bio)
{
    char *bytes;
    long size = BIO_get_mem_data(bio, &bytes);
    int fd = memfd_create("pem", MFD_CLOEXEC);
    ssize_t written = write(fd, bytes, (size_t)size);
    assert(written == size);
    (void)written;
    BIO_free(bio);
    return fd;
}

static inline int file_of_certificate(const struct holder *holder)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, holder->certificate);
    return file_of(bio);
}

/* The list of issuer, with one certificate on it. */
static inline int file_of_revocation(const struct holder *issuer, const struct holder *revoked)
{
    BIO *bio = BIO_new(BIO_s_mem());
    X509_CRL *list = X509_CRL_new();
    X509_REVOKED *entry = X509_REVOKED_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -60), *later = X509_gmtime_adj(NULL, 3600);
    X509_CRL_set_version(list, X509_CRL_VERSION_2);
    X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer->certificate));
    X509_CRL_set1_lastUpdate(list, now);
    X509_CRL_set1_nextUpdate(list, later);
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked->certificate));
    X509_REVOKED_set_revocationDate(entry, now);
    X509_CRL_add0_revoked(list, entry);
    X509_CRL_sort(list);
    int signature = X509_CRL_sign(list, issuer->key, EVP_sha256());
    assert(signature > 0);
    (void)signature;
    PEM_write_bio_X509_CRL(bio, list);
    ASN1_TIME_free(now);
    ASN1_TIME_free(later);
    X509_CRL_free(list);
    return file_of(bio);
}

/* With a password the key is encrypted. */
static inline int file_of_key(const struct holder *holder, const char *password)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PKCS8PrivateKey(bio, holder->key, password ? EVP_aes_128_cbc() : NULL, password,
                                  password ? (int)strlen(password) : 0, NULL, NULL);
    return file_of(bio);
}
