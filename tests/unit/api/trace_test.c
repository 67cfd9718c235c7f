/* traceparent: what is taken over, and what is as if it were not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "api/trace.h"
#include "base/cleanup.h"

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"

static void a_valid_one_goes_on_with_a_span_of_our_own(void **state)
{
    static const char *const valid[] = {"00-" TRACE "-" SPAN "-01", "00-" TRACE "-" SPAN "-00", "01-" TRACE "-" SPAN "-01", "cc-" TRACE "-" SPAN "-01-more"};
    char one[TRACEPARENT_SIZE], two[TRACEPARENT_SIZE], id[TRACE_ID_SIZE];

    (void)state;
    for (size_t i = 0; i < ELEMENTS(valid); i++) {
        assert_true(trace_take(valid[i], one));
        assert_true(trace_take(valid[i], two));
        assert_string_not_equal(one, two);
        assert_int_equal(strlen(one), TRACEPARENT_SIZE - 1);
        assert_memory_equal(one, "00-" TRACE "-", 36);
        assert_memory_equal(one + 52, valid[i] + 52, 3);
        assert_true(strncmp(one + 36, SPAN, 16) != 0);
        trace_id(one, id);
        assert_string_equal(id, TRACE);
    }
}

static void others_are_passed_over(void **state)
{
    static const char *const invalid[] = {
        "", "00", "nonsense", "00-" TRACE "-" SPAN, "00-" TRACE "-" SPAN "-01-more", "00-" TRACE "-" SPAN "-01 ", "ff-" TRACE "-" SPAN "-01",
        "00-00000000000000000000000000000000-" SPAN "-01", "00-" TRACE "-0000000000000000-01", "00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01",
        "00_" TRACE "-" SPAN "-01", "00-" TRACE "_" SPAN "-01", "00-" TRACE "-" SPAN "_01", "00-" TRACE "-" SPAN "-0x", "0x-" TRACE "-" SPAN "-01",
        "cc-" TRACE "-" SPAN "-01.more"};
    char one[TRACEPARENT_SIZE] = "x", id[TRACE_ID_SIZE] = "x";

    (void)state;
    assert_false(trace_take(NULL, one));
    for (size_t i = 0; i < ELEMENTS(invalid); i++) {
        if (trace_take(invalid[i], one))
            fail_msg("%s was taken", invalid[i]);
        assert_string_equal(one, "");
    }
    trace_id(one, id);
    assert_string_equal(id, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_valid_one_goes_on_with_a_span_of_our_own),
        cmocka_unit_test(others_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
