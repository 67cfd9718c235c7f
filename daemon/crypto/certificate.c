#include "crypto/certificate.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/str.h"
#include "crypto/atomic_file.h"
#include "crypto/hash.h"
#include "crypto/pki.h"

enum { SECONDS_PER_DAY = 86400, CLOCK_SKEW_SECONDS = 3600, COMMON_NAME_MAX = 64, SERIAL_BYTES = 16 };

/* OpenSSL's queue is per thread and sticky: always taken and emptied here, or it would taint the next call. */
static int openssl_error(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    ERR_clear_error();
    return err_set(err, VSS_E_UNEXPECTED, NULL, "%s: %s", what, reason ? reason : "OpenSSL gave no reason");
}

EVP_PKEY *certificate_key_new(struct err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");

    if (!key)
        openssl_error(err, "cannot make a key");
    return key;
}

bool certificate_name_add(GENERAL_NAMES *names, int type, const char *text)
{
    ASN1_STRING *value = NULL;

    if (type == GEN_IPADD) {
        value = a2i_IPADDRESS(text);
    } else if (text[0]) {
        value = ASN1_IA5STRING_new();
        if (!value || !ASN1_STRING_set(value, text, -1))
            abort();
    }
    ERR_clear_error();
    if (!value)
        return false;
    GENERAL_NAME *name = GENERAL_NAME_new();
    if (!name)
        abort();
    GENERAL_NAME_set0_value(name, type, value);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
        if (GENERAL_NAME_cmp(sk_GENERAL_NAME_value(names, i), name) == 0) {
            GENERAL_NAME_free(name);
            return true;
        }
    if (!sk_GENERAL_NAME_push(names, name))
        abort();
    return true;
}

bool certificate_covers(const X509 *certificate, const GENERAL_NAMES *names)
{
    AUTO_NAMES GENERAL_NAMES *own = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        bool found = false;
        for (int j = 0; own && !found && j < sk_GENERAL_NAME_num(own); j++)
            found = GENERAL_NAME_cmp(sk_GENERAL_NAME_value(own, j), sk_GENERAL_NAME_value(names, i)) == 0;
        if (!found)
            return false;
    }
    return true;
}

static int64_t seconds_between(const ASN1_TIME *from, const ASN1_TIME *to) /* NULL = now */
{
    int days = 0, seconds = 0;

    if (!ASN1_TIME_diff(&days, &seconds, from, to))
        return -1;
    return (int64_t)days * SECONDS_PER_DAY + seconds;
}

bool certificate_worn(const X509 *certificate, int numerator, int denominator)
{
    int64_t life = seconds_between(X509_get0_notBefore(certificate), X509_get0_notAfter(certificate));
    int64_t age = seconds_between(X509_get0_notBefore(certificate), NULL);

    return age < 0 || life <= 0 || age * denominator > life * numerator;
}

int64_t certificate_worn_in(const X509 *certificate, int numerator, int denominator)
{
    int64_t life = seconds_between(X509_get0_notBefore(certificate), X509_get0_notAfter(certificate));
    int64_t age = seconds_between(X509_get0_notBefore(certificate), NULL);

    if (certificate_worn(certificate, numerator, denominator))
        return 0;
    return (life * numerator / denominator + 1 - age) * 1000; /* a second later it is past the fraction for certain */
}

int certificate_days_left(const X509 *certificate)
{
    return (int)(seconds_between(NULL, X509_get0_notAfter(certificate)) / SECONDS_PER_DAY);
}

static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;

    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool ok = extension && X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
    return ok;
}

static bool set_serial(X509 *certificate)
{
    uint8_t bytes[SERIAL_BYTES];

    hash_random(bytes, sizeof(bytes));
    bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40); /* positive, and always of the same length (RFC 5280 4.1.2.2) */
    BIGNUM *number = BN_bin2bn(bytes, sizeof(bytes), NULL);
    bool ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
    BN_free(number);
    return ok;
}

static bool set_validity(X509 *certificate, const struct certificate_spec *spec)
{
    if (!X509_gmtime_adj(X509_getm_notBefore(certificate), -CLOCK_SKEW_SECONDS) ||
        !X509_time_adj_ex(X509_getm_notAfter(certificate), spec->days, -CLOCK_SKEW_SECONDS, NULL))
        return false;
    if (spec->issuer && ASN1_TIME_compare(X509_get0_notAfter(certificate), X509_get0_notAfter(spec->issuer)) > 0)
        return X509_set1_notAfter(certificate, X509_get0_notAfter(spec->issuer)) == 1;
    return true;
}

static bool set_names(X509 *certificate, const struct certificate_spec *spec)
{
    char common_name[COMMON_NAME_MAX + 1];
    X509_NAME *subject = X509_get_subject_name(certificate);

    str_copy(common_name, sizeof(common_name), spec->common_name);
    return X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, (const unsigned char *)common_name, -1,
                                      -1, 0) &&
           X509_set_issuer_name(certificate, X509_get_subject_name(spec->issuer ? spec->issuer : certificate));
}

static bool set_extensions(X509 *certificate, const struct certificate_spec *spec)
{
    X509 *issuer = spec->issuer ? spec->issuer : certificate;
    const char *constraints = spec->ca ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE";
    const char *usage = spec->ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature";

    return add_extension(certificate, issuer, NID_basic_constraints, constraints) &&
           add_extension(certificate, issuer, NID_key_usage, usage) &&
           add_extension(certificate, issuer, NID_subject_key_identifier, "hash") &&
           add_extension(certificate, issuer, NID_authority_key_identifier, "keyid:always") &&
           (!spec->extended_usage || add_extension(certificate, issuer, NID_ext_key_usage, spec->extended_usage)) &&
           (!spec->names ||
            X509_add1_ext_i2d(certificate, NID_subject_alt_name, spec->names, 0, X509V3_ADD_DEFAULT) == 1);
}

X509 *certificate_issue(const struct certificate_spec *spec, struct err *err)
{
    AUTO_X509 X509 *certificate = X509_new();

    if (!certificate)
        abort();
    if (!X509_set_version(certificate, X509_VERSION_3) || !set_serial(certificate) ||
        !set_validity(certificate, spec) || !set_names(certificate, spec) || !X509_set_pubkey(certificate, spec->key) ||
        !set_extensions(certificate, spec) || !X509_sign(certificate, spec->issuer_key, EVP_sha256())) {
        openssl_error(err, "cannot issue a certificate");
        return NULL;
    }
    return TAKE_PTR(certificate);
}

static BIO *bio_of(const char *text)
{
    BIO *bio = BIO_new_mem_buf(text, -1);

    if (!bio)
        abort();
    return bio;
}

EVP_PKEY *certificate_request_key(const char *pem, struct err *err)
{
    enum { SECURITY_BITS = 112 }; /* RSA from 2,048 bits on, every curve of today (NIST SP 800-57) */
    static const char hint[] = "Make one with: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x";
    AUTO_BIO BIO *bio = bio_of(pem);
    AUTO_REQUEST X509_REQ *request = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
    EVP_PKEY *key = request ? X509_REQ_get0_pubkey(request) : NULL;

    ERR_clear_error();
    if (!key)
        err_set(err, E_INVALIDARG, hint, "is no certificate request in PEM");
    else if (EVP_PKEY_get_security_bits(key) < SECURITY_BITS)
        err_set(err, E_INVALIDARG, hint, "its key is too weak (%d bits of security)", EVP_PKEY_get_security_bits(key));
    else if (X509_REQ_verify(request, key) != 1)
        err_set(err, E_INVALIDARG, hint, "its own signature is wrong");
    else
        return EVP_PKEY_up_ref(key) == 1 ? key : NULL;
    ERR_clear_error();
    str_copy(err->pointer, sizeof(err->pointer), "/csr");
    return NULL;
}

json_t *certificate_describe(X509 *certificate)
{
    uint8_t digest[HASH_SIZE];
    unsigned size = sizeof(digest);
    char hex[HASH_HEX_SIZE], *text = NULL;
    AUTO_BIO BIO *bio = BIO_new(BIO_s_mem());
    struct tm end = {0};

    if (!bio || !PEM_write_bio_X509(bio, certificate) || X509_digest(certificate, EVP_sha256(), digest, &size) != 1 ||
        ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1)
        abort();
    long length = BIO_get_mem_data(bio, &text);
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
    char *serial = number ? BN_bn2hex(number) : NULL;
    json_t *doc = json_pack("{s:s%, s:s, s:s, s:I}", "certificate", text, (size_t)length, "sha256", hash_hex(digest, hex),
                            "serial", serial ? serial : "", "expires_ms", (json_int_t)timegm(&end) * 1000);
    OPENSSL_free(serial);
    BN_free(number);
    return doc;
}

int certificate_read(const char *path, X509 **ret, struct err *err)
{
    AUTO_FREE char *text = NULL;
    int found = atomic_file_read(path, &text, NULL, err);

    if (found != 0)
        return found;
    AUTO_BIO BIO *bio = bio_of(text);
    *ret = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    return *ret ? 0 : openssl_error(err, path);
}

int certificate_read_key(const char *path, EVP_PKEY **ret, struct err *err)
{
    AUTO_FREE char *text = NULL;
    size_t size = 0;
    int found = atomic_file_read(path, &text, &size, err);

    if (found != 0)
        return found;
    AUTO_BIO BIO *bio = bio_of(text);
    *ret = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)""); /* "": never ask the terminal for a passphrase */
    int result = *ret ? 0 : openssl_error(err, path);
    explicit_bzero(text, size);
    return result;
}

static int write_bio(const char *path, mode_t mode, BIO *bio, struct err *err)
{
    char *data = NULL;
    long size = BIO_get_mem_data(bio, &data);

    return atomic_file_write(path, mode, data, (size_t)size, err);
}

int certificate_write(const char *path, mode_t mode, X509 *certificate, struct err *err)
{
    AUTO_BIO BIO *bio = BIO_new(BIO_s_mem());

    if (!bio || !PEM_write_bio_X509(bio, certificate))
        return openssl_error(err, path);
    return write_bio(path, mode, bio, err);
}

int certificate_write_key(const char *path, EVP_PKEY *key, struct err *err)
{
    AUTO_BIO BIO *bio = BIO_new(BIO_s_secmem());

    if (!bio || !PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL))
        return openssl_error(err, path);
    return write_bio(path, 0600, bio, err);
}

bool pki_certificates_valid(const char *pem)
{
    AUTO_BIO BIO *bio = BIO_new_mem_buf(pem, -1);
    size_t n = 0;
    for (X509 *certificate; bio && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)); n++)
        X509_free(certificate);
    bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    return n > 0 && at_end;
}
