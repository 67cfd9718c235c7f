#include "crypto/pki.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/str.h"
#include "crypto/atomic_file.h"
#include "crypto/certificate.h"
#include "crypto/hash.h"

#define TOKEN_PREFIX "qsd1_"
static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* A leaf is issued anew after two thirds of its life. */
enum { LEAF_WORN = 2, LEAF_LIFE = 3 };

struct ca {
    X509 *certificate;
    EVP_PKEY *key; /* NULL: kept elsewhere by the operator */
};

struct leaf {
    const char *what, *certificate_path, *key_path, *common_name, *extended_usage;
    int days;
    GENERAL_NAMES *names;
};

int pki_paths(const char *state_dir, struct pki_paths *ret, struct err *err)
{
    const struct {
        char *to;
        const char *name;
    } rows[] = {
        {ret->directory, "pki"},
        {ret->ca_public, "ca.pem"},
        {ret->ca_certificate, "pki/ca.pem"},
        {ret->ca_key, "pki/ca.key"},
        {ret->server_certificate, "pki/server.pem"},
        {ret->server_key, "pki/server.key"},
        {ret->admin_certificate, "pki/admin.pem"},
        {ret->admin_key, "pki/admin.key"},
        {ret->admin_token, "pki/admin.token"},
        {ret->audit_key, "pki/audit.key"},
        {ret->audit_last, "pki/audit.seal"},
        {ret->audit_certificate, "audit.pem"},
        {ret->audit_published, "audit.seal"},
    };

    for (size_t i = 0; i < ELEMENTS(rows); i++)
        if (!str_format(rows[i].to, PATH_MAX, "%s/%s", state_dir, rows[i].name))
            return err_set(err, E_INVALIDARG, "Use a shorter path.", "state directory %s: path too long", state_dir);
    return 0;
}

/* --- the CA --- */

/* As `openssl x509 -fingerprint -sha256` and browsers show it: what whoever fetches /ca.pem compares. */
static void fingerprint(const X509 *certificate, char ret[3 * HASH_SIZE])
{
    uint8_t digest[HASH_SIZE];
    unsigned size = sizeof(digest);

    *ret = '\0';
    if (X509_digest(certificate, EVP_sha256(), digest, &size) != 1)
        return;
    for (size_t i = 0; i < size; i++)
        str_format(ret + 3 * i, 4, "%02X%s", digest[i], i + 1 < size ? ":" : "");
}

static int ca_issue(struct ca *ca, const struct pki_paths *paths, struct err *err)
{
    char common_name[] = "quiesced private CA 00000000";
    uint8_t random[4];

    /* A random part: a client that trusts the CAs of several hosts must be able to tell them apart by name. */
    hash_random(random, sizeof(random));
    str_format(common_name, sizeof(common_name), "quiesced private CA %02x%02x%02x%02x", random[0], random[1],
               random[2], random[3]);
    struct certificate_spec spec = {
        .common_name = common_name, .days = PKI_CA_DAYS, .ca = true, .key = ca->key, .issuer_key = ca->key};
    char kept_name[sizeof(common_name)] = "";
    if (ca->certificate && X509_NAME_get_text_by_NID(X509_get_subject_name(ca->certificate), NID_commonName, kept_name,
                                                     sizeof(kept_name)) > 0)
        spec.common_name = kept_name; /* the same name and key: what the old certificate's holders trust stays valid */
    X509 *certificate = certificate_issue(&spec, err);
    if (!certificate)
        return -1;
    X509_free(ca->certificate);
    ca->certificate = certificate;
    if (certificate_write(paths->ca_certificate, 0644, certificate, err) != 0)
        return -1;
    char shown[3 * HASH_SIZE];
    fingerprint(certificate, shown);
    log_line(LOG_LEVEL_INFO, NULL, "issued the private CA's certificate %s, SHA-256 %s", paths->ca_certificate, shown);
    return 0;
}

static int ca_ensure(struct ca *ca, const struct pki_paths *paths, struct err *err)
{
    static const char hint[] = "Restore the file from a copy; or, to give up this CA and every certificate that it "
                               "issued, remove the pki directory.";
    int key = certificate_read_key(paths->ca_key, &ca->key, err);
    int certificate = key < 0 ? -1 : certificate_read(paths->ca_certificate, &ca->certificate, err);

    if (key < 0 || certificate < 0) {
        str_copy(err->hint, sizeof(err->hint), hint);
        return -1;
    }
    if (key == 1 && certificate == 0)
        return 0; /* the operator keeps the key elsewhere: fine until something must be signed */
    if (key == 1) {
        ca->key = certificate_key_new(err);
        if (!ca->key || certificate_write_key(paths->ca_key, ca->key, err) != 0)
            return -1;
    }
    if (certificate == 0 && X509_check_private_key(ca->certificate, ca->key) != 1)
        return err_set(err, VSS_E_UNEXPECTED, hint, "%s and %s do not belong together", paths->ca_certificate,
                       paths->ca_key);
    if (certificate == 1 || certificate_days_left(ca->certificate) < PKI_CA_RENEW_DAYS)
        return ca_issue(ca, paths, err);
    return 0;
}

/* The copy that everybody may read, and that core hands out. */
static int ca_publish(const struct pki_paths *paths, struct err *err)
{
    AUTO_FREE char *own = NULL;
    AUTO_FREE char *public = NULL;

    if (atomic_file_read(paths->ca_certificate, &own, NULL, err) != 0)
        return -1;
    int found = atomic_file_read(paths->ca_public, &public, NULL, err);
    if (found < 0)
        return -1;
    if (found == 0 && str_eq(own, public))
        return 0;
    return atomic_file_write(paths->ca_public, 0644, own, strlen(own), err);
}

/* --- leaf certificates --- */

static bool leaf_in_order(const struct leaf *leaf, const struct ca *ca)
{
    AUTO_X509 X509 *certificate = NULL;
    AUTO_PKEY EVP_PKEY *key = NULL;
    struct err ignored;

    /* Whatever is wrong with a leaf, a new one is the cure: nobody pins it. */
    return certificate_read(leaf->certificate_path, &certificate, &ignored) == 0 &&
           certificate_read_key(leaf->key_path, &key, &ignored) == 0 && X509_check_private_key(certificate, key) == 1 &&
           X509_verify(certificate, X509_get0_pubkey(ca->certificate)) == 1 && !certificate_worn(certificate, LEAF_WORN, LEAF_LIFE) &&
           certificate_covers(certificate, leaf->names);
}

static int leaf_ensure(const struct leaf *leaf, const struct ca *ca, struct err *err)
{
    if (leaf_in_order(leaf, ca))
        return 0;
    if (!ca->key)
        return err_set(err, VSS_E_UNEXPECTED,
                       "Put the CA's key back (ca.key), or configure tls.certificate and tls.key.",
                       "%s must be issued or renewed, and the private CA's key is not there", leaf->certificate_path);
    AUTO_PKEY EVP_PKEY *key = certificate_key_new(err);
    if (!key)
        return -1;
    const struct certificate_spec spec = {.common_name = leaf->common_name,
                                          .days = leaf->days,
                                          .extended_usage = leaf->extended_usage,
                                          .names = leaf->names,
                                          .key = key,
                                          .issuer = ca->certificate,
                                          .issuer_key = ca->key};
    AUTO_X509 X509 *certificate = certificate_issue(&spec, err);
    /* Key first: after a crash in between the pair does not match, and the next start issues it anew. */
    if (!certificate || certificate_write_key(leaf->key_path, key, err) != 0 ||
        certificate_write(leaf->certificate_path, 0644, certificate, err) != 0)
        return -1;
    log_line(LOG_LEVEL_INFO, NULL, "issued the %s certificate %s", leaf->what, leaf->certificate_path);
    return 0;
}

static bool is_address(const char *text)
{
    unsigned char bytes[16];

    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

/* What a DNS name in a certificate may look like; a host that names itself otherwise is simply not covered by name. */
static bool is_hostname(const char *text)
{
    size_t length = strlen(text);

    return length > 0 && length <= 253 && text[0] != '.' && text[0] != '-' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_*") == length;
}

static int add_name(GENERAL_NAMES *names, const char *text, struct err *err)
{
    if (is_address(text) ? certificate_name_add(names, GEN_IPADD, text)
                         : is_hostname(text) && certificate_name_add(names, GEN_DNS, text))
        return 0;
    return err_set(err, E_INVALIDARG, "Use a DNS name or a numeric address.", "%s: not a host name", text);
}

static int server_ensure(const struct pki_request *request, const struct pki_paths *paths, const struct ca *ca,
                         struct err *err)
{
    static const char *const always[] = {"localhost", "127.0.0.1", "::1"};
    AUTO_NAMES GENERAL_NAMES *names = GENERAL_NAMES_new();

    for (size_t i = 0; i < request->n_hostnames; i++)
        if (add_name(names, request->hostnames[i], err) != 0)
            return -1;
    for (size_t i = 0; i < ELEMENTS(always); i++)
        if (add_name(names, always[i], err) != 0)
            return -1;
    for (size_t i = 0; i < request->n_addresses; i++)
        if (add_name(names, request->addresses[i], err) != 0)
            return -1;
    const struct leaf leaf = {.what = "server",
                              .certificate_path = paths->server_certificate,
                              .key_path = paths->server_key,
                              .common_name = request->n_hostnames ? request->hostnames[0] : "localhost",
                              .extended_usage = "serverAuth",
                              .days = PKI_SERVER_DAYS,
                              .names = names};
    return leaf_ensure(&leaf, ca, err);
}

static int admin_ensure(const struct pki_paths *paths, const struct ca *ca, struct err *err)
{
    AUTO_NAMES GENERAL_NAMES *names = GENERAL_NAMES_new();

    certificate_name_add(names, GEN_URI, PKI_PRINCIPAL_URI "admin");
    const struct leaf leaf = {.what = "admin client",
                              .certificate_path = paths->admin_certificate,
                              .key_path = paths->admin_key,
                              .common_name = "admin",
                              .extended_usage = "clientAuth",
                              .days = PKI_ADMIN_DAYS,
                              .names = names};
    return leaf_ensure(&leaf, ca, err);
}

/* --- what seals the audit trail --- */

static int audit_issue(const struct pki_paths *paths, const struct ca *ca, EVP_PKEY *key, GENERAL_NAMES *names, struct err *err)
{
    /* Where the CA's key is kept elsewhere it vouches for itself: then only the file tells that it is ours. */
    const struct certificate_spec spec = {.common_name = "quiesced audit trail",
                                          .days = PKI_CA_DAYS,
                                          .names = names,
                                          .key = key,
                                          .issuer = ca->key ? ca->certificate : NULL,
                                          .issuer_key = ca->key ? ca->key : key};
    AUTO_X509 X509 *certificate = certificate_issue(&spec, err);
    if (!certificate || certificate_write(paths->audit_certificate, 0644, certificate, err) != 0)
        return -1;
    char shown[3 * HASH_SIZE];
    fingerprint(certificate, shown);
    log_line(LOG_LEVEL_INFO, NULL, "issued the certificate of the audit trail's seals %s, SHA-256 %s", paths->audit_certificate, shown);
    return 0;
}

/* The key is never renewed by time: seals are to be checked years later, by whoever kept its certificate. */
static int audit_ensure(const struct pki_paths *paths, const struct ca *ca, struct err *err)
{
    AUTO_PKEY EVP_PKEY *key = NULL;
    AUTO_X509 X509 *certificate = NULL;
    AUTO_NAMES GENERAL_NAMES *names = GENERAL_NAMES_new();
    struct err ignored;
    int found = certificate_read_key(paths->audit_key, &key, err);

    certificate_name_add(names, GEN_URI, PKI_AUDIT_URI);
    if (found < 0)
        return -1;
    if (found == 1) {
        key = certificate_key_new(err);
        if (!key || certificate_write_key(paths->audit_key, key, err) != 0)
            return -1;
    } else if (certificate_read(paths->audit_certificate, &certificate, &ignored) == 0 && X509_check_private_key(certificate, key) == 1 &&
               certificate_covers(certificate, names) && (!ca->key || X509_verify(certificate, X509_get0_pubkey(ca->certificate)) == 1)) {
        return 0;
    }
    ERR_clear_error();
    return audit_issue(paths, ca, key, names, err);
}

/* --- the token --- */

static int token_read(const char *path, char ret[PKI_TOKEN_SIZE], struct err *err)
{
    AUTO_FREE char *text = NULL;
    int found = atomic_file_read(path, &text, NULL, err);

    if (found != 0)
        return found;
    size_t length = strcspn(text, "\r\n");
    bool good = length == PKI_TOKEN_SIZE - 1 && str_starts(text, TOKEN_PREFIX) &&
                strspn(text + strlen(TOKEN_PREFIX), base64url) == length - strlen(TOKEN_PREFIX);
    if (good) {
        text[length] = '\0';
        str_copy(ret, PKI_TOKEN_SIZE, text);
    }
    explicit_bzero(text, strlen(text));
    return good ? 0
                : err_set(err, VSS_E_UNEXPECTED, "Remove the file to have a new token made.", "%s: not an admin token",
                          path);
}

static int token_ensure(const struct pki_paths *paths, struct err *err)
{
    char line[PKI_TOKEN_SIZE + 1];
    uint8_t secret[32];
    int found = token_read(paths->admin_token, line, err);

    if (found <= 0) {
        explicit_bzero(line, sizeof(line));
        return found;
    }
    hash_random(secret, sizeof(secret));
    AUTO_FREE char *encoded = hash_base64url(secret, sizeof(secret));
    str_format(line, sizeof(line), TOKEN_PREFIX "%s\n", encoded);
    int result = atomic_file_write(paths->admin_token, 0600, line, strlen(line), err);
    explicit_bzero(secret, sizeof(secret));
    explicit_bzero(encoded, strlen(encoded));
    explicit_bzero(line, sizeof(line));
    if (result == 0)
        log_line(LOG_LEVEL_INFO, NULL, "made the admin token %s", paths->admin_token);
    return result;
}

int pki_admin_token(const char *state_dir, char ret[PKI_TOKEN_SIZE], struct err *err)
{
    struct pki_paths paths;

    if (pki_paths(state_dir, &paths, err) != 0)
        return -1;
    int found = token_read(paths.admin_token, ret, err);
    return found == 1 ? err_set(err, VSS_E_UNEXPECTED, NULL, "%s: no such file", paths.admin_token) : found;
}

static X509 *client_issue(const struct ca *ca, const char *principal, int days, EVP_PKEY *key, struct err *err)
{
    AUTO_NAMES GENERAL_NAMES *names = GENERAL_NAMES_new();
    AUTO_FREE char *name = str_new(PKI_PRINCIPAL_URI "%s", principal);

    if (!certificate_name_add(names, GEN_URI, name)) {
        err_set(err, E_INVALIDARG, NULL, "principal %s: not a name", principal);
        return NULL;
    }
    const struct certificate_spec spec = {.common_name = principal,
                                          .days = days,
                                          .extended_usage = "clientAuth",
                                          .names = names,
                                          .key = key,
                                          .issuer = ca->certificate,
                                          .issuer_key = ca->key};
    return certificate_issue(&spec, err);
}

json_t *pki_issue(const char *state_dir, const char *principal, int days, const char *csr, struct err *err)
{
    struct pki_paths paths;
    AUTO_PKEY EVP_PKEY *ca_key = NULL;
    AUTO_X509 X509 *ca_certificate = NULL;
    AUTO_PKEY EVP_PKEY *key = certificate_request_key(csr, err);

    if (!key || pki_paths(state_dir, &paths, err) != 0 ||
        certificate_read(paths.ca_certificate, &ca_certificate, err) < 0)
        return NULL;
    int found = certificate_read_key(paths.ca_key, &ca_key, err);
    if (found == 1 || !ca_certificate)
        err_set(err, VSS_E_UNEXPECTED, "Put the CA's key back (ca.key).", "the private CA's key is not there");
    if (found != 0 || !ca_certificate)
        return NULL;
    const struct ca ca = {.certificate = ca_certificate, .key = ca_key};
    AUTO_X509 X509 *certificate = client_issue(&ca, principal, days, key, err);
    return certificate ? certificate_describe(certificate) : NULL;
}

int64_t pki_due_in(const char *state_dir, int64_t most_ms)
{
    struct pki_paths paths;
    struct err ignored;

    if (pki_paths(state_dir, &paths, &ignored) != 0)
        return most_ms;
    const char *const leaves[] = {paths.server_certificate, paths.admin_certificate};
    for (size_t i = 0; i < ELEMENTS(leaves); i++) {
        AUTO_X509 X509 *certificate = NULL;
        int64_t due = certificate_read(leaves[i], &certificate, &ignored) == 0
                          ? certificate_worn_in(certificate, LEAF_WORN, LEAF_LIFE)
                          : 0;
        most_ms = due < most_ms ? due : most_ms;
    }
    return most_ms;
}

int pki_ensure(const struct pki_request *request, struct err *err)
{
    struct pki_paths paths;
    struct ca ca = {0};

    if (pki_paths(request->state_dir, &paths, err) != 0)
        return -1;
    if (mkdir(paths.directory, 0700) != 0 && errno != EEXIST)
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot create %s", paths.directory);
    int result = 0;
    if (ca_ensure(&ca, &paths, err) != 0 || ca_publish(&paths, err) != 0 ||
        server_ensure(request, &paths, &ca, err) != 0 || admin_ensure(&paths, &ca, err) != 0 ||
        token_ensure(&paths, err) != 0)
        result = -1;
    struct err unsealed = {0};
    if (result == 0 && audit_ensure(&paths, &ca, &unsealed) != 0)
        log_err(LOG_LEVEL_ERROR, NULL, &unsealed, "the audit trail cannot be sealed");
    X509_free(ca.certificate);
    EVP_PKEY_free(ca.key);
    return result;
}
