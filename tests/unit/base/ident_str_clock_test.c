#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ident.h"
#include "base/str.h"
#include "base/utf8.h"

static void uuids_sort_by_creation_within_one_millisecond_too(void **state)
{
    (void)state;
    char before[UUID_SIZE] = "", now[UUID_SIZE];
    for (int i = 0; i < 200000; i++) {
        uuid_v7(now);
        assert_true(strcmp(before, now) < 0);
        memcpy(before, now, sizeof(before));
    }
    assert_true(uuid_valid(now));
    assert_int_equal(now[14], '7');
    assert_non_null(strchr("89ab", now[19]));
}

static void a_uuid_begins_with_the_time(void **state)
{
    (void)state;
    int64_t before = clock_real_ms();
    char id[UUID_SIZE];
    uuid_v7(id);
    char hex[13];
    memcpy(hex, id, 8);
    memcpy(hex + 8, id + 9, 4);
    hex[12] = '\0';
    /* Earlier tests may have run ahead of the clock, never behind it. */
    assert_true(strtoll(hex, NULL, 16) >= before);
}

static void a_named_uuid_is_stable_and_depends_on_both_strings(void **state)
{
    (void)state;
    char a[UUID_SIZE], b[UUID_SIZE];
    uuid_named("writer", "main", a);
    assert_true(uuid_valid(a));
    assert_int_equal(a[14], '8');
    assert_string_equal(uuid_named("writer", "main", b), a);
    assert_string_not_equal(uuid_named("writer", "main2", b), a);
    assert_string_not_equal(uuid_named("writerm", "ain", b), a);
}

static void only_canonical_uuids_are_valid(void **state)
{
    (void)state;
    assert_true(uuid_valid("01890a5d-ac96-774b-bcce-b302099a8057"));
    assert_false(uuid_valid("01890A5D-ac96-774b-bcce-b302099a8057"));
    assert_false(uuid_valid("01890a5dac96-774b-bcce-b302099a8057-"));
    assert_false(uuid_valid("01890a5d-ac96-774b-bcce-b302099a805"));
    assert_false(uuid_valid(""));
    assert_false(uuid_valid(NULL));
}

static void times_are_rfc3339_with_milliseconds(void **state)
{
    (void)state;
    char text[CLOCK_RFC3339_SIZE];
    assert_string_equal(clock_rfc3339(0, text), "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_rfc3339(1795478400007, text), "2026-11-24T00:00:00.007Z");
    assert_string_equal(clock_rfc3339(-1, text), "1969-12-31T23:59:59.999Z");
    assert_string_equal(clock_rfc3339(INT64_MAX, text), "9999-12-31T23:59:59.999Z");
    assert_string_equal(clock_rfc3339(-62135596800000, text), "0001-01-01T00:00:00.000Z");
    assert_int_equal(clock_from_rfc3339("2026-11-24T00:00:00.007Z"), 1795478400007);
    assert_int_equal(clock_from_rfc3339("2026-11-24T00:00:00Z"), 1795478400000);
    static const char *const none[] = {NULL, "", "yesterday", "2026-11-24", "2026-11-24T00:00:00", "2026-11-24T00:00:00.xZ"};
    for (size_t i = 0; i < ELEMENTS(none); i++)
        assert_int_equal(clock_from_rfc3339(none[i]), -1);
}

static void comparing_and_copying_is_bounded(void **state)
{
    (void)state;
    char small[4];
    assert_true(str_eq(NULL, NULL));
    assert_false(str_eq(NULL, "a"));
    assert_true(str_eq("a", "a"));
    assert_true(str_starts("abc", "ab"));
    assert_false(str_starts("a", "ab"));
    assert_true(str_copy(small, sizeof(small), "abc"));
    assert_false(str_copy(small, sizeof(small), "abcd"));
    assert_string_equal(small, "abc");
    assert_false(str_format(small, sizeof(small), "%d", 12345));
    assert_string_equal(small, "123");
    AUTO_FREE char *text = str_new("%s-%d", "a", 5);
    assert_string_equal(text, "a-5");
    assert_null(str_dup(NULL));
}

static void only_whole_decimal_numbers_within_the_range_are_integers(void **state)
{
    (void)state;
    int64_t value = 99;
    assert_true(str_to_int("-5", -5, 5, &value));
    assert_int_equal(value, -5);
    assert_true(str_to_int("9223372036854775807", 0, INT64_MAX, &value));
    const char *const bad[] = {"", " 1", "+1", "1 ", "0x1", "1.0", "6", "-6", "-", "99999999999999999999", NULL};
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_false(str_to_int(bad[i], -5, 5, &value));
}

static void canonical_paths_have_no_dots_and_no_empty_parts(void **state)
{
    (void)state;
    const char *const good[] = {"/", "/a", "/a/b", "/..a", "/a/...", "/.a"};
    const char *const bad[] = {"", "a", "//", "/a/", "/a//b", "/.", "/..", "/a/./b", "/a/../b", "/a/..", NULL};
    for (size_t i = 0; i < ELEMENTS(good); i++)
        assert_true(path_is_canonical(good[i]));
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_false(path_is_canonical(bad[i]));
    char longest[PATH_MAX + 1];
    memset(longest, 'a', sizeof(longest));
    longest[0] = '/';
    longest[PATH_MAX] = '\0';
    assert_false(path_is_canonical(longest));
    longest[PATH_MAX - 1] = '\0';
    assert_true(path_is_canonical(longest));
}

static void a_path_is_beneath_itself_and_its_parents_only(void **state)
{
    (void)state;
    assert_true(path_beneath("/srv", "/srv"));
    assert_true(path_beneath("/srv/a", "/srv"));
    assert_true(path_beneath("/srv", "/"));
    assert_false(path_beneath("/srvx", "/srv"));
    assert_false(path_beneath("/", "/srv"));
}

static void utf8_characters_are_measured_and_wrong_ones_refused(void **state)
{
    (void)state;
    assert_int_equal(utf8_span("a", 1), 1);
    assert_int_equal(utf8_span("\xc3\xa4", 2), 2);
    assert_int_equal(utf8_span("\xe2\x82\xac", 3), 3);
    assert_int_equal(utf8_span("\xf0\x9f\x98\x80", 4), 4);
    assert_int_equal(utf8_span("\xc3\xa4", 1), 0);         /* cut */
    assert_int_equal(utf8_span("\xc0\x80", 2), 0);         /* overlong */
    assert_int_equal(utf8_span("\xed\xa0\x80", 3), 0);     /* surrogate */
    assert_int_equal(utf8_span("\xf4\x90\x80\x80", 4), 0); /* above U+10FFFF */
    assert_int_equal(utf8_span("\x80", 1), 0);
    assert_int_equal(utf8_span("", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uuids_sort_by_creation_within_one_millisecond_too),
        cmocka_unit_test(a_uuid_begins_with_the_time),
        cmocka_unit_test(a_named_uuid_is_stable_and_depends_on_both_strings),
        cmocka_unit_test(only_canonical_uuids_are_valid),
        cmocka_unit_test(times_are_rfc3339_with_milliseconds),
        cmocka_unit_test(comparing_and_copying_is_bounded),
        cmocka_unit_test(only_whole_decimal_numbers_within_the_range_are_integers),
        cmocka_unit_test(canonical_paths_have_no_dots_and_no_empty_parts),
        cmocka_unit_test(a_path_is_beneath_itself_and_its_parents_only),
        cmocka_unit_test(utf8_characters_are_measured_and_wrong_ones_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
