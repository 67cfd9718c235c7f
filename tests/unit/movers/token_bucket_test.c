/* A rate without a clock: the test is the clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "movers/payload/token_bucket.h"

enum { RATE = 1000000, BLOCK = 4096 };

/* Bytes that get through in ms milliseconds when the caller always waits as told. */
static int64_t carried(int64_t rate, int64_t block, int64_t ms)
{
    struct token_bucket bucket;
    int64_t now = 5000, end = now + ms, total = 0;
    token_bucket_init(&bucket, rate, now);
    while (now < end) {
        total += block;
        now += token_bucket_take(&bucket, block, now);
    }
    return total;
}

static void the_rate_is_kept_over_any_time(void **state)
{
    (void)state;
    for (int64_t rate = 1024; rate <= 1000000000; rate *= 10) {
        int64_t block = rate < 65536 ? rate : 65536, got = carried(rate, block, 100000);
        assert_in_range(got, rate * 97, rate * 100 + 2 * block);
    }
}

static void what_was_not_used_bursts_for_a_quarter_of_a_second_and_no_more(void **state)
{
    struct token_bucket bucket;
    int64_t free = 0;
    (void)state;
    token_bucket_init(&bucket, RATE, 0);
    assert_int_equal(token_bucket_take(&bucket, BLOCK, 3600000), 0); /* an hour idle */
    while (token_bucket_take(&bucket, BLOCK, 3600000) == 0)
        free += BLOCK;
    assert_in_range(free, RATE / 4 - 3 * BLOCK, RATE / 4);
}

static void no_limit_never_waits(void **state)
{
    struct token_bucket bucket;
    (void)state;
    token_bucket_init(&bucket, 0, 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(token_bucket_take(&bucket, INT64_MAX / 4, 0), 0);
}

static void a_clock_that_stands_or_goes_back_gives_nothing(void **state)
{
    struct token_bucket bucket;
    (void)state;
    token_bucket_init(&bucket, RATE, 1000);
    assert_int_equal(token_bucket_take(&bucket, RATE, 1000), 1001); /* a second's worth, and rounded up */
    assert_int_equal(token_bucket_take(&bucket, RATE, 500), 2001);
    assert_int_equal(token_bucket_take(&bucket, 0, 3000), 0);
}

static void the_greatest_figures_do_not_overflow(void **state)
{
    struct token_bucket bucket;
    (void)state;
    token_bucket_init(&bucket, 1000000000000, 0);
    assert_in_range(token_bucket_take(&bucket, 1000000000000, 0), 1000, 1001);
    assert_int_equal(token_bucket_take(&bucket, 1, INT64_MAX / 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rate_is_kept_over_any_time),
        cmocka_unit_test(what_was_not_used_bursts_for_a_quarter_of_a_second_and_no_more),
        cmocka_unit_test(no_limit_never_waits),
        cmocka_unit_test(a_clock_that_stands_or_goes_back_gives_nothing),
        cmocka_unit_test(the_greatest_figures_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
