#pragma once
/* X.509 work of the signer; private to daemon/crypto. */
#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

DEFINE_CLEANUP(X509 *, X509_free)
DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free)
DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free)
DEFINE_CLEANUP(BIO *, BIO_free_all)
DEFINE_CLEANUP(X509_REQ *, X509_REQ_free)
#define AUTO_REQUEST CLEANUP(X509_REQ_free_p)
#define AUTO_X509 CLEANUP(X509_free_p)
#define AUTO_PKEY CLEANUP(EVP_PKEY_free_p)
#define AUTO_NAMES CLEANUP(GENERAL_NAMES_free_p)
#define AUTO_BIO CLEANUP(BIO_free_all_p)

struct certificate_spec {
    const char *common_name; /* cut at 64 characters (X.520 ub-common-name) */
    int days;
    bool ca;                    /* else a leaf */
    const char *extended_usage; /* "serverAuth", "clientAuth"; NULL for a CA */
    GENERAL_NAMES *names;       /* SAN; NULL for a CA */
    EVP_PKEY *key;
    X509 *issuer; /* NULL: signs itself */
    EVP_PKEY *issuer_key;
};

EVP_PKEY *certificate_key_new(struct err *err); /* P-256 */
X509 *certificate_issue(const struct certificate_spec *spec, struct err *err);

/* Adds one name: type GEN_DNS, GEN_IPADD or GEN_URI. False when the text is not one. */
bool certificate_name_add(GENERAL_NAMES *names, int type, const char *text);
/* Does the certificate's SAN hold every one of these? */
bool certificate_covers(const X509 *certificate, const GENERAL_NAMES *names);
/* Is more than numerator/denominator of its life over (or has it not begun)? */
bool certificate_worn(const X509 *certificate, int numerator, int denominator);
/* Milliseconds until that is so; 0 when it is. */
int64_t certificate_worn_in(const X509 *certificate, int numerator, int denominator);
/* Days until it ends; negative when it has. */
int certificate_days_left(const X509 *certificate);

/* The key of a certificate request in PEM whose own signature is good, and that is strong enough. NULL with err. */
EVP_PKEY *certificate_request_key(const char *pem, struct err *err);
/* {"certificate": PEM, "sha256", "serial", "expires_ms"}; new reference. */
json_t *certificate_describe(X509 *certificate);

/* PEM files. Readers: 0 found, 1 no such file, -1 unreadable. */
int certificate_read(const char *path, X509 **ret, struct err *err);
int certificate_read_key(const char *path, EVP_PKEY **ret, struct err *err);
int certificate_write(const char *path, mode_t mode, X509 *certificate, struct err *err);
int certificate_write_key(const char *path, EVP_PKEY *key, struct err *err); /* 0600 */
