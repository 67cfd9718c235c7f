#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "crypto/atomic_file.h"
#include "crypto/certificate.h"
#include "crypto/pki.h"

struct place {
    char directory[64];
    struct pki_paths paths;
};

static int place_make(void **state)
{
    struct place *place = mem_new(sizeof(*place));

    str_copy(place->directory, sizeof(place->directory), "/tmp/pki-test-XXXXXX");
    *state = place;
    return mkdtemp(place->directory) && pki_paths(place->directory, &place->paths, NULL) == 0 ? 0 : -1;
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
    struct place *place = *state;
    int result = nftw(place->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);

    free(place);
    return result;
}

static void ensure(const struct place *place, const char *hostname, const char *address)
{
    struct err err = {0};
    const struct pki_request request = {.state_dir = place->directory,
                                        .hostnames = &hostname,
                                        .n_hostnames = 1,
                                        .addresses = &address,
                                        .n_addresses = 1};

    if (pki_ensure(&request, &err) != 0)
        fail_msg("%s", err.text);
}

static char *text_of(const char *path)
{
    char *text = NULL;

    assert_int_equal(atomic_file_read(path, &text, NULL, NULL), 0);
    return text;
}

static mode_t mode_of(const char *path)
{
    struct stat status;

    assert_int_equal(stat(path, &status), 0);
    return status.st_mode & 07777;
}

static void expect_names(const char *path, const int *types, const char *const *texts, size_t n)
{
    AUTO_X509 X509 *certificate = NULL;
    AUTO_NAMES GENERAL_NAMES *names = GENERAL_NAMES_new();

    assert_int_equal(certificate_read(path, &certificate, NULL), 0);
    for (size_t i = 0; i < n; i++)
        assert_true(certificate_name_add(names, types[i], texts[i]));
    assert_true(certificate_covers(certificate, names));
}

static void the_first_start_makes_everything_with_the_right_modes(void **state)
{
    const struct place *place = *state;
    const struct pki_paths *paths = &place->paths;
    static const int types[] = {GEN_DNS, GEN_DNS, GEN_IPADD, GEN_IPADD, GEN_IPADD};
    static const char *const names[] = {"host.example", "localhost", "127.0.0.1", "::1", "192.0.2.7"};
    static const int uri[] = {GEN_URI};
    static const char *const principal[] = {"urn:quiesced:principal:admin"};
    char token[PKI_TOKEN_SIZE];

    ensure(place, "host.example", "192.0.2.7");
    assert_int_equal(mode_of(paths->directory), 0700);
    assert_int_equal(mode_of(paths->ca_key), 0600);
    assert_int_equal(mode_of(paths->server_key), 0600);
    assert_int_equal(mode_of(paths->admin_key), 0600);
    assert_int_equal(mode_of(paths->admin_token), 0600);
    assert_int_equal(mode_of(paths->ca_public), 0644);
    expect_names(paths->server_certificate, types, names, ELEMENTS(names));
    expect_names(paths->admin_certificate, uri, principal, 1);
    assert_int_equal(pki_admin_token(place->directory, token, NULL), 0);
    assert_int_equal(strlen(token), 48);
    assert_true(str_starts(token, "qsd1_"));
}

static void a_second_start_changes_nothing(void **state)
{
    const struct place *place = *state;
    const char *files[] = {place->paths.ca_certificate, place->paths.server_certificate, place->paths.admin_certificate,
                           place->paths.admin_token, place->paths.server_key};
    char *before[ELEMENTS(files)];

    ensure(place, "host.example", "192.0.2.7");
    for (size_t i = 0; i < ELEMENTS(files); i++)
        before[i] = text_of(files[i]);
    ensure(place, "host.example", "192.0.2.7");
    for (size_t i = 0; i < ELEMENTS(files); i++) {
        AUTO_FREE char *after = text_of(files[i]);
        assert_string_equal(after, before[i]);
        free(before[i]);
    }
}

static void a_new_name_or_address_renews_the_server_certificate_alone(void **state)
{
    const struct place *place = *state;
    static const int types[] = {GEN_DNS, GEN_IPADD};
    static const char *const names[] = {"new.example", "2001:db8::7"};

    ensure(place, "host.example", "192.0.2.7");
    AUTO_FREE char *server = text_of(place->paths.server_certificate);
    AUTO_FREE char *admin = text_of(place->paths.admin_certificate);
    AUTO_FREE char *ca = text_of(place->paths.ca_certificate);
    ensure(place, "new.example", "2001:db8::7");
    AUTO_FREE char *server_now = text_of(place->paths.server_certificate);
    AUTO_FREE char *admin_now = text_of(place->paths.admin_certificate);
    AUTO_FREE char *ca_now = text_of(place->paths.ca_certificate);
    assert_string_not_equal(server, server_now);
    assert_string_equal(admin, admin_now);
    assert_string_equal(ca, ca_now);
    expect_names(place->paths.server_certificate, types, names, 2);
}

static void whatever_a_crash_left_out_is_repaired(void **state)
{
    const struct place *place = *state;
    const struct pki_paths *paths = &place->paths;
    const char *removable[] = {paths->ca_certificate,    paths->ca_public, paths->server_certificate, paths->server_key,
                               paths->admin_certificate, paths->admin_key, paths->admin_token};

    for (size_t i = 0; i < ELEMENTS(removable); i++) {
        ensure(place, "host.example", "192.0.2.7");
        assert_int_equal(unlink(removable[i]), 0);
        ensure(place, "host.example", "192.0.2.7");
        assert_int_equal(access(removable[i], F_OK), 0);
        AUTO_X509 X509 *ca = NULL;
        AUTO_X509 X509 *server = NULL;
        AUTO_PKEY EVP_PKEY *key = NULL;
        assert_int_equal(certificate_read(paths->ca_public, &ca, NULL), 0);
        assert_int_equal(certificate_read(paths->server_certificate, &server, NULL), 0);
        assert_int_equal(certificate_read_key(paths->server_key, &key, NULL), 0);
        assert_int_equal(X509_check_private_key(server, key), 1);
        assert_int_equal(X509_verify(server, X509_get0_pubkey(ca)), 1);
    }
}

static void a_ca_without_its_key_is_never_replaced(void **state)
{
    const struct place *place = *state;
    const char *hostname = "other.example", *address = "192.0.2.9";
    const struct pki_request request = {.state_dir = place->directory,
                                        .hostnames = &hostname,
                                        .n_hostnames = 1,
                                        .addresses = &address,
                                        .n_addresses = 1};
    struct err err = {0};

    ensure(place, "host.example", "192.0.2.7");
    AUTO_FREE char *before = text_of(place->paths.ca_certificate);
    assert_int_equal(unlink(place->paths.ca_key), 0);
    ensure(place, "host.example", "192.0.2.7");
    assert_int_equal(pki_ensure(&request, &err), -1);
    assert_non_null(strstr(err.hint, "ca.key"));
    AUTO_FREE char *after = text_of(place->paths.ca_certificate);
    assert_string_equal(before, after);
}

static void damaged_files_and_wrong_names_are_errors_with_their_path(void **state)
{
    const struct place *place = *state;
    const char *hostname = "host.example", *address = "192.0.2.7";
    struct pki_request request = {.state_dir = place->directory,
                                  .hostnames = &hostname,
                                  .n_hostnames = 1,
                                  .addresses = &address,
                                  .n_addresses = 1};
    struct err err = {0};

    ensure(place, hostname, address);
    assert_int_equal(atomic_file_write(place->paths.admin_token, 0600, "short\n", 6, NULL), 0);
    assert_int_equal(pki_ensure(&request, &err), -1);
    assert_non_null(strstr(err.text, "admin.token"));
    assert_int_equal(unlink(place->paths.admin_token), 0);
    hostname = "two words";
    assert_int_equal(pki_ensure(&request, &err), -1);
    assert_non_null(strstr(err.text, "two words"));
    assert_int_equal(atomic_file_write(place->paths.ca_key, 0600, "x", 1, NULL), 0);
    assert_int_equal(pki_ensure(&request, &err), -1);
    assert_non_null(strstr(err.text, "ca.key"));
}

static void certificates_live_as_long_as_the_header_says(void **state)
{
    const struct place *place = *state;
    AUTO_X509 X509 *ca = NULL;
    AUTO_X509 X509 *server = NULL;

    ensure(place, "host.example", "192.0.2.7");
    assert_int_equal(certificate_read(place->paths.ca_certificate, &ca, NULL), 0);
    assert_int_equal(certificate_read(place->paths.server_certificate, &server, NULL), 0);
    assert_in_range(certificate_days_left(ca), PKI_CA_DAYS - 2, PKI_CA_DAYS);
    assert_in_range(certificate_days_left(server), PKI_SERVER_DAYS - 2, PKI_SERVER_DAYS);
    assert_int_equal(X509_get_pathlen(ca), 0);
    assert_int_equal(X509_check_ca(ca), 1);
    assert_int_equal(X509_check_purpose(server, X509_PURPOSE_SSL_SERVER, 0), 1);
    assert_int_equal(X509_check_purpose(server, X509_PURPOSE_SSL_CLIENT, 0), 0);
    assert_false(certificate_worn(server, 2, 3));
    assert_true(certificate_worn(server, 0, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_start_makes_everything_with_the_right_modes, place_make,
                                        place_remove),
        cmocka_unit_test_setup_teardown(a_second_start_changes_nothing, place_make, place_remove),
        cmocka_unit_test_setup_teardown(a_new_name_or_address_renews_the_server_certificate_alone, place_make,
                                        place_remove),
        cmocka_unit_test_setup_teardown(whatever_a_crash_left_out_is_repaired, place_make, place_remove),
        cmocka_unit_test_setup_teardown(a_ca_without_its_key_is_never_replaced, place_make, place_remove),
        cmocka_unit_test_setup_teardown(damaged_files_and_wrong_names_are_errors_with_their_path, place_make,
                                        place_remove),
        cmocka_unit_test_setup_teardown(certificates_live_as_long_as_the_header_says, place_make, place_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
