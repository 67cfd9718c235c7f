#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "crypto/atomic_file.h"
#include "crypto/audit_seal.h"
#include "crypto/certificate.h"
#include "crypto/pki.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define INSTALLATION "01900000-0000-7000-8000-000000000001"

static struct {
    char directory[64];
    struct pki_paths paths;
} place;

static void ensure(void)
{
    struct err err = {0};
    const struct pki_request request = {.state_dir = place.directory};

    if (pki_ensure(&request, &err) != 0)
        fail_msg("%s", err.text);
}

static int place_make(void **state)
{
    (void)state;
    str_copy(place.directory, sizeof(place.directory), "/tmp/seal-test-XXXXXX");
    if (!mkdtemp(place.directory) || pki_paths(place.directory, &place.paths, NULL) != 0)
        return -1;
    AUTO_FREE char *path = str_new("%s/installation", place.directory);
    ensure();
    return atomic_file_write(path, 0644, INSTALLATION, strlen(INSTALLATION), NULL);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static int place_remove(void **state)
{
    (void)state;
    return nftw(place.directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static json_t *make(int64_t seq, const char *hash)
{
    struct err err = {0};
    json_t *seal = audit_seal_make(place.directory, seq, hash, &err);

    if (!seal)
        fail_msg("%s", err.text);
    return seal;
}

static void refused(int64_t seq, const char *hash)
{
    struct err err = {0};

    assert_null(audit_seal_make(place.directory, seq, hash, &err));
    assert_int_equal(err.hr, (uint32_t)VSS_E_BAD_STATE);
    assert_string_equal(err.reason, AUDIT_SEAL_BEHIND);
}

static const char *fault_of(const char *key, const char *ca, const json_t *seal)
{
    struct err err = {0};
    struct audit_trust *trust = audit_trust_load(key, ca, &err);

    if (!trust)
        fail_msg("%s", err.text);
    const char *fault = audit_seal_fault(trust, seal);
    audit_trust_free(trust);
    return fault;
}

static mode_t mode_of(const char *path)
{
    struct stat status;

    assert_int_equal(stat(path, &status), 0);
    return status.st_mode & 07777;
}

static void a_seal_holds_by_its_key_and_by_its_ca(void **state)
{
    (void)state;
    AUTO_JSON json_t *seal = make(5, A);

    assert_int_equal(json_int(seal, "seal", 0), 5);
    assert_string_equal(json_str(seal, "hash", ""), A);
    assert_string_equal(json_str(seal, "installation", ""), INSTALLATION);
    assert_true(json_is_null(json_object_get(seal, "previous")));
    assert_null(fault_of(place.paths.audit_certificate, NULL, seal));
    assert_null(fault_of(NULL, place.paths.ca_public, seal));
    assert_int_equal(mode_of(place.paths.audit_key), 0600);
    assert_int_equal(mode_of(place.paths.audit_last), 0600);
    assert_int_equal(mode_of(place.paths.audit_certificate), 0644);
    assert_int_equal(mode_of(place.paths.audit_published), 0644);
}

static void a_number_is_sealed_once(void **state)
{
    (void)state;
    AUTO_JSON json_t *first = make(5, A);
    AUTO_JSON json_t *again = make(5, A); /* lost on its way: the same one */

    assert_true(json_equal(first, again));
    refused(5, B);
    refused(4, A);
    refused(1, B);
    AUTO_JSON json_t *next = make(6, B);
    const json_t *previous = json_object_get(next, "previous");
    assert_int_equal(json_int(previous, "seal", 0), 5);
    assert_string_equal(json_str(previous, "hash", ""), A);
    refused(5, A); /* of before */
}

static void too_far(int64_t seq)
{
    struct err err = {0};

    assert_null(audit_seal_make(place.directory, seq, B, &err));
    assert_int_equal(err.hr, (uint32_t)VSS_E_BAD_STATE);
    assert_non_null(strstr(err.text, "beyond record 5"));
    assert_string_equal(err.reason, "");
}

/* One huge number would be the last that is ever sealed. */
static void a_number_that_no_trail_reaches_is_not_used_up(void **state)
{
    (void)state;
    AUTO_JSON json_t *first = make(5, A);

    assert_int_equal(json_int(first, "seal", 0), 5);
    too_far(INT64_MAX);
    too_far(6 + AUDIT_SEAL_STEP_MAX);
    AUTO_JSON json_t *next = make(6, B);
    assert_int_equal(json_int(json_object_get(next, "previous"), "seal", 0), 5);
    AUTO_JSON json_t *furthest = make(6 + AUDIT_SEAL_STEP_MAX, A);
    assert_int_equal(json_int(furthest, "seal", 0), 6 + AUDIT_SEAL_STEP_MAX);
}

static void what_was_sealed_outlives_a_start(void **state)
{
    (void)state;
    AUTO_JSON json_t *seal = make(7, A);

    ensure();
    refused(7, B);
    assert_null(fault_of(place.paths.audit_certificate, NULL, seal));
}

static void a_memory_that_cannot_be_read_seals_nothing(void **state)
{
    (void)state;
    struct err err = {0};

    json_decref(make(7, A));
    assert_int_equal(atomic_file_write(place.paths.audit_last, 0600, "{", 1, NULL), 0);
    assert_null(audit_seal_make(place.directory, 8, A, &err));
    assert_non_null(strstr(err.text, "cannot be read"));
}

static void every_member_is_signed(void **state)
{
    (void)state;
    AUTO_JSON json_t *before = make(4, B);
    AUTO_JSON json_t *seal = make(5, A);
    AUTO_JSON json_t *changes = json_pack("{s:i, s:s, s:s, s:s, s:{s:i, s:s}, s:n}", "seal", 6, "hash", B, "time", "2020-01-01T00:00:00.000Z",
                                          "installation", "01900000-0000-7000-8000-000000000002", "previous", "seal", 3, "hash", B, "signature");
    const char *key;
    json_t *value;

    assert_non_null(changes);
    json_object_foreach(changes, key, value)
    {
        AUTO_JSON json_t *forged = json_copy(seal);
        json_put(forged, key, json_incref(value));
        assert_non_null(fault_of(place.paths.audit_certificate, NULL, forged));
        assert_non_null(fault_of(NULL, place.paths.ca_public, forged));
    }
    AUTO_JSON json_t *swapped = json_copy(seal);
    json_put(swapped, "signature", json_incref(json_object_get(before, "signature")));
    assert_non_null(fault_of(place.paths.audit_certificate, NULL, swapped));
}

/* Signs with any key, in the name of any certificate. */
static json_t *forge(const json_t *seal, EVP_PKEY *key, X509 *certificate)
{
    json_t *forged = json_deep_copy(seal);
    unsigned char signature[256], *der = NULL;
    size_t size = sizeof(signature);
    int length = i2d_X509(certificate, &der);
    AUTO_FREE char *name = hash_base64(der, (size_t)length);

    json_put(forged, "certificate", json_string(name));
    OPENSSL_free(der);
    AUTO_FREE char *text = audit_seal_text(forged);
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(digest, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestSign(digest, signature, &size, (const unsigned char *)text, strlen(text)), 1);
    EVP_MD_CTX_free(digest);
    AUTO_FREE char *base64 = hash_base64(signature, size);
    json_put(forged, "signature", json_string(base64));
    return forged;
}

/* What core can have of the CA, and what anybody can make. */
static void a_client_certificate_seals_nothing(void **state)
{
    (void)state;
    AUTO_JSON json_t *seal = make(5, A);
    AUTO_PKEY EVP_PKEY *key = certificate_key_new(NULL);
    AUTO_PKEY EVP_PKEY *ca_key = NULL;
    AUTO_X509 X509 *ca = NULL;
    AUTO_NAMES GENERAL_NAMES *client = GENERAL_NAMES_new();
    AUTO_NAMES GENERAL_NAMES *audit = GENERAL_NAMES_new();

    assert_int_equal(certificate_read(place.paths.ca_certificate, &ca, NULL), 0);
    assert_int_equal(certificate_read_key(place.paths.ca_key, &ca_key, NULL), 0);
    assert_true(certificate_name_add(client, GEN_URI, PKI_PRINCIPAL_URI "audit"));
    assert_true(certificate_name_add(audit, GEN_URI, PKI_AUDIT_URI));
    const struct certificate_spec issued = {.common_name = "x", .days = 10, .names = client, .key = key, .issuer = ca, .issuer_key = ca_key};
    const struct certificate_spec own = {.common_name = "x", .days = 10, .names = audit, .key = key, .issuer_key = key};
    const struct certificate_spec *const specs[] = {&issued, &own};
    for (size_t i = 0; i < ELEMENTS(specs); i++) {
        AUTO_X509 X509 *certificate = certificate_issue(specs[i], NULL);
        AUTO_JSON json_t *forged = forge(seal, key, certificate);
        const char *fault = fault_of(NULL, place.paths.ca_public, forged);
        assert_non_null(fault);
        assert_non_null(strstr(fault, "not one that the CA of --ca has issued for seals"));
        assert_non_null(fault_of(place.paths.audit_certificate, NULL, forged));
    }
}

static void a_public_key_will_do(void **state)
{
    (void)state;
    AUTO_JSON json_t *seal = make(5, A);
    AUTO_FREE char *path = str_new("%s/public.pem", place.directory);
    AUTO_X509 X509 *certificate = NULL;

    assert_int_equal(certificate_read(place.paths.audit_certificate, &certificate, NULL), 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PUBKEY(bio, X509_get0_pubkey(certificate)), 1);
    char *data = NULL;
    long size = BIO_get_mem_data(bio, &data);
    assert_int_equal(atomic_file_write(path, 0644, data, (size_t)size, NULL), 0);
    BIO_free_all(bio);
    assert_null(fault_of(path, NULL, seal));
    struct err err = {0};
    assert_null(audit_trust_load(place.paths.audit_last, NULL, &err)); /* no key in it */
    assert_null(audit_trust_load("/nowhere", NULL, &err));
}

/* The operator keeps the CA's key elsewhere, and takes it away before there was a key for seals. */
static void without_the_cas_key_it_vouches_for_itself(void **state)
{
    (void)state;
    assert_int_equal(unlink(place.paths.ca_key), 0);
    assert_int_equal(unlink(place.paths.audit_key), 0);
    ensure();
    AUTO_JSON json_t *seal = make(5, A);
    assert_null(fault_of(place.paths.audit_certificate, NULL, seal));
    assert_non_null(fault_of(NULL, place.paths.ca_public, seal));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, place_make, place_remove)
    const struct CMUnitTest tests[] = {
        TEST(a_seal_holds_by_its_key_and_by_its_ca), TEST(a_number_is_sealed_once),           TEST(what_was_sealed_outlives_a_start),
        TEST(a_seal_holds_by_its_key_and_by_its_ca), TEST(a_number_that_no_trail_reaches_is_not_used_up),           TEST(what_was_sealed_outlives_a_start),
        TEST(a_memory_that_cannot_be_read_seals_nothing), TEST(every_member_is_signed),       TEST(a_client_certificate_seals_nothing),
        TEST(a_public_key_will_do),                  TEST(without_the_cas_key_it_vouches_for_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
