#include "crypto/audit_seal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "crypto/atomic_file.h"
#include "crypto/certificate.h"
#include "crypto/pki.h"

enum { DER_MAX = 4096, SIGNATURE_MAX = 1024, KEYS_MAX = 16 };

DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free)
#define AUTO_DIGEST CLEANUP(EVP_MD_CTX_free_p)

static int openssl_error(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    ERR_clear_error();
    return err_set(err, VSS_E_UNEXPECTED, NULL, "%s: %s", what, reason ? reason : "OpenSSL gave no reason");
}

char *audit_seal_text(const json_t *seal)
{
    const json_t *previous = json_object_get(seal, "previous");
    const char *hash = json_str(seal, "hash", NULL), *time = json_str(seal, "time", NULL), *installation = json_str(seal, "installation", NULL);
    const char *before = json_str(previous, "hash", NULL);

    if (!json_is_integer(json_object_get(seal, "seal")) || !hash || !time || !installation || (previous && !json_is_null(previous) && !before))
        return NULL;
    return str_new("quiesced audit seal 1\ninstallation %s\nrecord %" PRId64 " %s\nprevious %" PRId64 " %s\ntime %s\n", installation,
                   json_int(seal, "seal", 0), hash, json_int(previous, "seal", 0), before ? before : "none", time);
}

/* --- making --- */

static int read_installation(const char *state_dir, char ret[UUID_SIZE], struct err *err)
{
    AUTO_FREE char *path = str_new("%s/installation", state_dir);
    AUTO_FREE char *text = NULL;

    if (atomic_file_read(path, &text, NULL, err) < 0)
        return -1;
    if (text)
        text[strcspn(text, "\n")] = '\0';
    if (!text || !uuid_valid(text))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "%s names no installation", path);
    str_copy(ret, UUID_SIZE, text);
    return 0;
}

/* *ret NULL: there is none yet. */
static int read_last(const struct pki_paths *paths, json_t **ret, struct err *err)
{
    AUTO_FREE char *text = NULL;

    *ret = NULL;
    int found = atomic_file_read(paths->audit_last, &text, NULL, err);
    if (found != 0)
        return found < 0 ? -1 : 0;
    AUTO_JSON json_t *last = json_loads(text, 0, NULL);
    AUTO_FREE char *signed_text = audit_seal_text(last);
    if (!signed_text) /* to go on would let numbers be sealed that were sealed before */
        return err_set(err, VSS_E_UNEXPECTED, "Put it back from a copy; or remove it together with audit.key, to begin with a new key.",
                       "%s cannot be read: nothing is sealed", paths->audit_last);
    *ret = TAKE_PTR(last);
    return 0;
}

static json_t *certificate_base64(const struct pki_paths *paths, EVP_PKEY *key, struct err *err)
{
    AUTO_X509 X509 *certificate = NULL;
    unsigned char *der = NULL;

    if (certificate_read(paths->audit_certificate, &certificate, err) != 0 || X509_check_private_key(certificate, key) != 1) {
        ERR_clear_error();
        err_set(err, VSS_E_UNEXPECTED, "SIGHUP has it made anew.", "%s does not belong to %s", paths->audit_certificate, paths->audit_key);
        return NULL;
    }
    int size = i2d_X509(certificate, &der);
    if (size <= 0)
        abort();
    AUTO_FREE char *text = hash_base64(der, (size_t)size);
    OPENSSL_free(der);
    return json_string(text);
}

static int sign(json_t *seal, EVP_PKEY *key, struct err *err)
{
    AUTO_FREE char *text = audit_seal_text(seal);
    AUTO_DIGEST EVP_MD_CTX *digest = EVP_MD_CTX_new();
    unsigned char signature[SIGNATURE_MAX];
    size_t size = sizeof(signature);

    if (!digest)
        abort();
    if (EVP_DigestSignInit(digest, NULL, EVP_sha256(), NULL, key) != 1 ||
        EVP_DigestSign(digest, signature, &size, (const unsigned char *)text, strlen(text)) != 1)
        return openssl_error(err, "cannot sign the audit trail");
    AUTO_FREE char *base64 = hash_base64(signature, size);
    json_put(seal, "signature", json_string(base64));
    return 0;
}

static json_t *seal_new(const struct pki_paths *paths, const char *state_dir, const json_t *last, const json_t *record, struct err *err)
{
    AUTO_PKEY EVP_PKEY *key = NULL;
    char installation[UUID_SIZE], now[CLOCK_RFC3339_SIZE];

    int found = certificate_read_key(paths->audit_key, &key, err);
    if (found == 1)
        err_set(err, VSS_E_UNEXPECTED, "SIGHUP has one made.", "%s: no such file", paths->audit_key);
    if (found != 0 || read_installation(state_dir, installation, err) != 0)
        return NULL;
    json_t *certificate = certificate_base64(paths, key, err);
    if (!certificate)
        return NULL;
    json_t *previous = last ? json_pack("{s:O, s:O}", "seal", json_object_get(last, "seal"), "hash", json_object_get(last, "hash")) : json_null();
    AUTO_JSON json_t *seal = json_pack("{s:O, s:O, s:o, s:s, s:s, s:o}", "seal", json_object_get(record, "seal"), "hash", json_object_get(record, "hash"),
                                       "previous", previous, "time", clock_rfc3339(clock_real_ms(), now), "installation", installation,
                                       "certificate", certificate);
    return sign(seal, key, err) == 0 ? TAKE_PTR(seal) : NULL;
}

/* Ours alone first: from then on the number is used up. */
static int remember(const struct pki_paths *paths, const json_t *seal, struct err *err)
{
    AUTO_FREE char *text = json_dumps(seal, JSON_COMPACT);
    AUTO_FREE char *line = str_new("%s\n", text);
    struct err unpublished = {0};

    if (atomic_file_write(paths->audit_last, 0600, line, strlen(line), err) != 0)
        return -1;
    if (atomic_file_write(paths->audit_published, 0644, line, strlen(line), &unpublished) != 0)
        log_err(LOG_LEVEL_WARNING, NULL, &unpublished, "the copy of the audit trail's last seal");
    return 0;
}

static int lock_key(const struct pki_paths *paths, struct err *err)
{
    int fd = open(paths->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0 && flock(fd, LOCK_EX) == 0)
        return fd;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    return err_errno(err, VSS_E_UNEXPECTED, saved, NULL, "cannot lock %s", paths->directory);
}

json_t *audit_seal_make(const char *state_dir, int64_t seq, const char *hash, struct err *err)
{
    struct pki_paths paths;
    AUTO_JSON json_t *last = NULL;
    AUTO_JSON json_t *record = json_pack("{s:I, s:s}", "seal", (json_int_t)seq, "hash", hash);

    if (pki_paths(state_dir, &paths, err) != 0)
        return NULL;
    AUTO_FD int lock = lock_key(&paths, err);
    if (lock < 0 || read_last(&paths, &last, err) != 0)
        return NULL;
    if (fault("signer.seal")) {
        err_set(err, VSS_E_UNEXPECTED, NULL, "audit trail: fault injected");
        return NULL;
    }
    int64_t sealed = json_int(last, "seal", 0);
    if (seq == sealed && str_eq(hash, json_str(last, "hash", "")))
        return remember(&paths, last, err) == 0 ? TAKE_PTR(last) : NULL;
    if (seq <= sealed) {
        err_set(err, VSS_E_BAD_STATE, "An older store was put back, or the trail was rewritten: compare with audit.seal of the state directory.",
                "record %" PRId64 " is not beyond record %" PRId64 ", which was sealed already", seq, sealed);
        str_copy(err->reason, sizeof(err->reason), AUDIT_SEAL_BEHIND);
        return NULL;
    }
    if (seq - sealed > AUDIT_SEAL_STEP_MAX) {
        err_set(err, VSS_E_BAD_STATE, "Is the store damaged? See docs/audit.md: to begin anew.",
                "record %" PRId64 " is more than %d beyond record %" PRId64 ", which was sealed last: no trail grows so fast", seq,
                AUDIT_SEAL_STEP_MAX, sealed);
        return NULL;
    }
    AUTO_JSON json_t *seal = seal_new(&paths, state_dir, last, record, err);
    if (!seal || remember(&paths, seal, err) != 0)
        return NULL;
    (void)fault("signer.sealed");
    log_line(LOG_LEVEL_INFO, NULL, "sealed the audit trail up to record %" PRId64 ", %s", seq, hash);
    return TAKE_PTR(seal);
}

/* --- checking --- */

struct audit_trust {
    EVP_PKEY *keys[KEYS_MAX];
    size_t n_keys;
    EVP_PKEY *cas[KEYS_MAX];
    size_t n_cas;
};

void audit_trust_free(struct audit_trust *trust)
{
    for (size_t i = 0; trust && i < trust->n_keys; i++)
        EVP_PKEY_free(trust->keys[i]);
    for (size_t i = 0; trust && i < trust->n_cas; i++)
        EVP_PKEY_free(trust->cas[i]);
    free(trust);
}

/* The public keys of a PEM file, its certificates' included. */
static int read_keys(const char *path, EVP_PKEY *ret[KEYS_MAX], size_t *ret_n, struct err *err)
{
    AUTO_FREE char *text = NULL;
    int found = atomic_file_read(path, &text, NULL, err);
    char *name = NULL, *header = NULL;
    unsigned char *data = NULL;
    long size;

    if (found != 0)
        return found < 0 ? -1 : err_set(err, E_INVALIDARG, NULL, "%s: no such file", path);
    AUTO_BIO BIO *bio = BIO_new_mem_buf(text, -1);
    while (*ret_n < KEYS_MAX && PEM_read_bio(bio, &name, &header, &data, &size) == 1) {
        const unsigned char *at = data;
        X509 *certificate = str_eq(name, PEM_STRING_X509) ? d2i_X509(NULL, &at, size) : NULL;
        EVP_PKEY *key = certificate ? X509_get_pubkey(certificate) : str_eq(name, PEM_STRING_PUBLIC) ? d2i_PUBKEY(NULL, &at, size) : NULL;
        if (key)
            ret[(*ret_n)++] = key;
        X509_free(certificate);
        OPENSSL_free(name);
        OPENSSL_free(header);
        OPENSSL_free(data);
    }
    ERR_clear_error();
    return *ret_n > 0 ? 0 : err_set(err, E_INVALIDARG, "It must be PEM: a certificate, or a public key.", "%s: no key in it", path);
}

struct audit_trust *audit_trust_load(const char *key_file, const char *ca_file, struct err *err)
{
    struct audit_trust *trust = mem_new(sizeof(*trust));

    if ((!key_file || read_keys(key_file, trust->keys, &trust->n_keys, err) == 0) && (!ca_file || read_keys(ca_file, trust->cas, &trust->n_cas, err) == 0))
        return trust;
    audit_trust_free(trust);
    return NULL;
}

/* Bytes, or 0 when it is no base64 or too much. */
static size_t decode(const char *text, unsigned char *ret, size_t room)
{
    size_t length = text ? strlen(text) : 0;

    if (length == 0 || length % 4 != 0 || length / 4 * 3 > room)
        return 0;
    int size = EVP_DecodeBlock(ret, (const unsigned char *)text, (int)length);
    for (size_t i = length; size > 0 && i > length - 2 && text[i - 1] == '='; i--)
        size--;
    return size > 0 ? (size_t)size : 0;
}

static bool signed_by(EVP_PKEY *key, const char *text, const unsigned char *signature, size_t size)
{
    AUTO_DIGEST EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool holds = digest && EVP_DigestVerifyInit(digest, NULL, EVP_sha256(), NULL, key) == 1 &&
                 EVP_DigestVerify(digest, signature, size, (const unsigned char *)text, strlen(text)) == 1;

    ERR_clear_error();
    return holds;
}

/* Whatever the time: a seal of ten years ago is as good as it was. Only names count, and who has signed. */
static bool vouched(const struct audit_trust *trust, X509 *certificate)
{
    AUTO_NAMES GENERAL_NAMES *names = GENERAL_NAMES_new();
    bool found = false;

    certificate_name_add(names, GEN_URI, PKI_AUDIT_URI);
    for (size_t i = 0; i < trust->n_cas && !found; i++)
        found = X509_verify(certificate, trust->cas[i]) == 1;
    ERR_clear_error();
    return found && certificate_covers(certificate, names);
}

static const char *fault_by_ca(const struct audit_trust *trust, const json_t *seal, const char *text, const unsigned char *signature, size_t size)
{
    unsigned char der[DER_MAX];
    const unsigned char *at = der;
    size_t length = decode(json_str(seal, "certificate", NULL), der, sizeof(der));
    AUTO_X509 X509 *certificate = length ? d2i_X509(NULL, &at, (long)length) : NULL;

    ERR_clear_error();
    if (!certificate)
        return "its certificate cannot be read";
    if (!vouched(trust, certificate))
        return "its certificate is not one that the CA of --ca has issued for seals of the audit trail";
    return signed_by(X509_get0_pubkey(certificate), text, signature, size) ? NULL : "its signature does not fit what it says";
}

const char *audit_seal_fault(const struct audit_trust *trust, const json_t *seal)
{
    unsigned char signature[SIGNATURE_MAX];
    AUTO_FREE char *text = audit_seal_text(seal);
    size_t size = decode(json_str(seal, "signature", NULL), signature, sizeof(signature));

    if (!text || size == 0)
        return "a member is missing, or is none that a seal has";
    for (size_t i = 0; i < trust->n_keys; i++)
        if (signed_by(trust->keys[i], text, signature, size))
            return NULL;
    if (trust->n_cas == 0)
        return "its signature is not by the key of --key over what it says";
    return fault_by_ca(trust, seal, text, signature, size);
}
