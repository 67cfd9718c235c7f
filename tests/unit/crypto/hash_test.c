#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "crypto/hash.h"

/* FIPS 180-4 examples. */
static const char abc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
static const char two_blocks_text[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
static const char two_blocks[] = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";

static void one_shot_gives_the_published_digest(void **state)
{
    char hex[HASH_HEX_SIZE];

    (void)state;
    assert_string_equal(hash_sha256_hex("abc", 3, hex), abc);
}

static void streaming_in_pieces_equals_one_shot_and_can_be_used_again(void **state)
{
    struct hash *hash = hash_new();
    uint8_t digest[HASH_SIZE];
    char hex[HASH_HEX_SIZE];

    (void)state;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < strlen(two_blocks_text); i++)
            hash_update(hash, two_blocks_text + i, 1);
        hash_final(hash, digest);
        assert_string_equal(hash_hex(digest, hex), two_blocks);
    }
    hash_free(hash);
}

static void hex_goes_back_to_bytes_and_rubbish_is_refused(void **state)
{
    uint8_t digest[HASH_SIZE];
    char hex[HASH_HEX_SIZE];

    (void)state;
    assert_true(hash_from_hex(abc, digest));
    assert_string_equal(hash_hex(digest, hex), abc);
    assert_false(hash_from_hex("ab", digest));
    assert_false(hash_from_hex(NULL, digest));
    hex[10] = 'g';
    assert_false(hash_from_hex(hex, digest));
}

static void random_bytes_differ_and_base64url_has_no_padding(void **state)
{
    uint8_t one[32], two[32];

    (void)state;
    hash_random(one, sizeof(one));
    hash_random(two, sizeof(two));
    assert_false(hash_equal(one, two, sizeof(one)));
    assert_true(hash_equal(one, one, sizeof(one)));
    AUTO_FREE char *text = hash_base64url(one, sizeof(one));
    assert_int_equal(strlen(text), 43);
    assert_int_equal(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 43);
    AUTO_FREE char *known = hash_base64url("\xfb\xff\xfe", 3);
    assert_string_equal(known, "-__-");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_shot_gives_the_published_digest),
        cmocka_unit_test(streaming_in_pieces_equals_one_shot_and_can_be_used_again),
        cmocka_unit_test(hex_goes_back_to_bytes_and_rubbish_is_refused),
        cmocka_unit_test(random_bytes_differ_and_base64url_has_no_padding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
