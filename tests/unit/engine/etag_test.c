/* Lists of entity tags, as clients send them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/etag.h"

static void a_tag_tells_texts_apart(void **state)
{
    char one[ETAG_SIZE], two[ETAG_SIZE], again[ETAG_SIZE];

    (void)state;
    etag_make("{}\n", 3, one);
    etag_make("{} ", 3, two);
    etag_make("{}\n", 3, again);
    assert_string_equal(one, again);
    assert_string_not_equal(one, two);
    assert_int_equal(strlen(one), ETAG_SIZE - 1);
    assert_true(etag_list_valid(one) && etag_listed(one, one, true) && !etag_listed(one, two, false));
}

static void lists_are_read_as_rfc_9110_writes_them(void **state)
{
    static const struct {
        const char *list;
        bool valid, strong, weak; /* does it name "a"? */
    } rows[] = {
        {"*", true, true, true},
        {"* ", true, true, true},
        {"\"a\"", true, true, true},
        {"W/\"a\"", true, false, true},
        {"\"b\", W/\"c\" ,\"a\"", true, true, true},
        {",, \"a\" ,", true, true, true},
        {"\"b\",\"aa\",\"\"", true, false, false},
        {"\"b,\\\"a\\\"\"", false, false, false}, /* nothing is escaped in a tag */
        {"\"b,a\", \"a\"", true, true, true},
        {"", false, false, false},
        {" ,", false, false, false},
        {"a", false, false, false},
        {"\"a", false, false, false},
        {"\"a\" \"b\"", false, false, false},
        {"w/\"a\"", false, false, false},
        {"*, \"b\"", false, false, false},
        {"\"a b\"", false, false, false},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        if (etag_list_valid(rows[i].list) != rows[i].valid)
            fail_msg("%s: valid?", rows[i].list);
        if (rows[i].valid && (etag_listed(rows[i].list, "\"a\"", true) != rows[i].strong ||
                              etag_listed(rows[i].list, "\"a\"", false) != rows[i].weak))
            fail_msg("%s: listed?", rows[i].list);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tag_tells_texts_apart),
        cmocka_unit_test(lists_are_read_as_rfc_9110_writes_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
