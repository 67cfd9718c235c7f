/* What streams of events are fed from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/quota.h"
#include "api/recent.h"
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

static void add(struct recent *recent, int64_t id)
{
    recent_event(recent, &(struct store_event){.id = id, .at_ms = 1, .type = "job.changed", .job_id = "j", .owner = "me", .data = "{\"state\":\"succeeded\"}"});
}

static void tell(struct recent *recent, const char *key, int n)
{
    AUTO_JSON json_t *data = n < 0 ? NULL : json_pack("{s:i}", "n", n);
    recent_notice(recent, &(struct engine_notice){.type = "job.progress", .key = key, .job_id = key, .owner = "me", .data = data});
}

static void an_event_goes_out_without_its_owner(void **state)
{
    (void)state;
    struct recent *recent = recent_new();
    add(recent, 7);
    const struct recent_item *item = recent_event_after(recent, 6);
    assert_string_equal(item->frame, "id: 7\nevent: job.changed\ndata: {\"id\":7,\"time\":\"1970-01-01T00:00:00.001Z\",\"type\":\"job.changed\",\"session_id\":null,"
                                     "\"job_id\":\"j\",\"data\":{\"state\":\"succeeded\"}}\n\n");
    assert_string_equal(item->owner, "me");
    assert_string_equal(item->state, "succeeded");
    recent_free(recent);
}

static void events_come_in_order_each_once_and_the_oldest_go(void **state)
{
    (void)state;
    struct recent *recent = recent_new();
    recent_begin(recent, 100);
    assert_int_equal(recent_newest(recent), 100);
    assert_int_equal(recent_reaches_back_to(recent), 100);
    assert_null(recent_event_after(recent, 0));
    add(recent, 100); /* known already */
    for (int64_t id = 101; id <= 100 + RECENT_EVENTS; id++)
        add(recent, id);
    assert_int_equal(recent_reaches_back_to(recent), 100);
    add(recent, 101 + RECENT_EVENTS + 1); /* ids may leave out some */
    assert_int_equal(recent_reaches_back_to(recent), 101);
    int64_t at = 101;
    size_t n = 0;
    for (const struct recent_item *item; (item = recent_event_after(recent, at)); n++) {
        assert_true(item->id > at);
        at = item->id;
    }
    assert_int_equal(n, RECENT_EVENTS);
    assert_int_equal(at, recent_newest(recent));
    assert_null(recent_event_after(recent, at));
    recent_free(recent);
}

static void a_notice_that_is_told_again_is_the_newest_and_the_only_one_of_its_key(void **state)
{
    (void)state;
    struct recent *recent = recent_new();
    tell(recent, "a", 1);
    tell(recent, "b", 1);
    uint64_t seen = 0;
    for (const struct recent_item *item; (item = recent_notice_after(recent, seen));)
        seen = item->version;
    tell(recent, "a", 2);
    tell(recent, "a", 3);
    const struct recent_item *item = recent_notice_after(recent, seen);
    assert_string_equal(item->job_id, "a");
    assert_non_null(strstr(item->frame, "\"n\":3"));
    assert_null(strstr(item->frame, "id: "));
    assert_null(recent_notice_after(recent, item->version));
    item = recent_notice_after(recent, 0);
    assert_string_equal(item->job_id, "b");
    tell(recent, "a", -1); /* it is over */
    tell(recent, "c", -1);
    assert_null(recent_notice_after(recent, seen));
    recent_free(recent);
}

static void each_has_his_own_quota(void **state)
{
    (void)state;
    struct quota *quota = quota_new();
    struct quota_entry *one = quota_take(quota, "one", 2), *again = quota_take(quota, "one", 2), *other = quota_take(quota, "other", 2);
    assert_true(one && again && other && one == again && one != other);
    assert_null(quota_take(quota, "one", 2));
    assert_null(quota_take(quota, "nobody", 0));
    quota_give(one);
    one = quota_take(quota, "one", 2);
    assert_non_null(one);
    quota_give(one);
    quota_give(again);
    quota_give(other);
    quota_free(quota);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_goes_out_without_its_owner),
        cmocka_unit_test(events_come_in_order_each_once_and_the_oldest_go),
        cmocka_unit_test(a_notice_that_is_told_again_is_the_newest_and_the_only_one_of_its_key),
        cmocka_unit_test(each_has_his_own_quota),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
