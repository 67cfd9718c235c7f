/* Which receivers a webhook may have, address by address; and its schedule. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/addresses.h"
#include "model/webhook_rules.h"

static struct sockaddr_storage address_of(const char *text)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&address;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        v4->sin_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
        v6->sin6_family = AF_INET6;
    else
        fail_msg("%s", text);
    return address;
}

static bool is_public(const char *text)
{
    struct sockaddr_storage address = address_of(text);
    return address_public((const struct sockaddr *)&address);
}

/* The first and the last address of each special block, and their neighbours outside. */
static void test_addresses(void **state)
{
    static const char *const special[] = {
        "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1", "127.255.255.255",
        "169.254.0.0", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.2.1", "192.88.99.1", "192.168.0.0",
        "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.7", "203.0.113.7", "224.0.0.0", "239.255.255.255", "240.0.0.1",
        "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "100::1",
        "2001::1", "2001:1ff:ffff::", "2001:db8::1", "2002:7f00:1::", "3fff::1", "4000::1", "fc00::", "fdff::1", "fe80::1", "fec0::1", "ff02::1"};
    static const char *const outside[] = {
        "1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0",
        "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "8.8.8.8",
        "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2001:200::1", "2001:4860:4860::8888", "2a00:1450::1", "2003::1", "3ffe::1"};
    (void)state;
    for (size_t i = 0; i < ELEMENTS(special); i++)
        if (is_public(special[i]))
            fail_msg("%s counts as public", special[i]);
    for (size_t i = 0; i < ELEMENTS(outside); i++)
        if (!is_public(outside[i]))
            fail_msg("%s counts as special", outside[i]);
    const struct sockaddr local = {.sa_family = AF_UNIX};
    assert_false(address_public(&local));
}

static void test_blocks(void **state)
{
    static const char *const bad[] = {"", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::1/129", "10.0.0.0/-1", "10.0.0.0/8x", "localhost", "1.2.3.4/8/8"};
    static const struct {
        const char *address, *block;
        bool within;
    } rows[] = {{"10.1.2.3", "10.0.0.0/8", true},    {"11.1.2.3", "10.0.0.0/8", false},  {"10.1.2.3", "10.1.2.3", true},
                {"10.1.2.4", "10.1.2.3", false},     {"10.1.2.3", "10.1.2.2/31", true},  {"10.1.2.4", "10.1.2.2/31", false},
                {"10.1.2.3", "0.0.0.0/0", true},     {"fd00::1", "fd00::/8", true},      {"fc00::1", "fd00::/8", false},
                {"::ffff:10.1.2.3", "10.0.0.0/8", true}, {"fd00::1", "10.0.0.0/8", false}, {"10.1.2.3", "::/0", false}, {"fe80::1", "::/0", true}};
    (void)state;
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        if (address_block_valid(bad[i]))
            fail_msg("%s counts as a block", bad[i]);
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        struct sockaddr_storage address = address_of(rows[i].address);
        assert_true(address_block_valid(rows[i].block));
        if (address_within((const struct sockaddr *)&address, rows[i].block) != rows[i].within)
            fail_msg("%s, %s", rows[i].address, rows[i].block);
    }
}

static void test_urls(void **state)
{
    static const char *const good[] = {"https://example.org", "https://example.org/", "https://example.org:8443/a/b?c=d@e", "https://a-b.c_d.example/%20",
                                       "https://8.8.8.8/", "https://[2001:4860:4860::8888]:1/", "https://10.1.2.3:65535/x", "https://[fd00::1]/"};
    static const char *const bad[] = {"", "https", "https://", "https:///", "https://:443/", "https://example.org:/", "https://example.org:65536/",
                                      "https://example.org:80x/", "https://[::1", "https://[]/", "https://[example.org]/", "https://[10.1.2.3]/",
                                      "https://-x/", "https://.x/", "https://a@b/", "https://a:b@c/", "https://a/#b", "https://a\\@b/", "https://a b/",
                                      "https://127.0.0.1/", "https://[fc00::1]/", "http://example.org/", "HTTPS://example.org/", "file:///etc/passwd",
                                      "https://exa\nmple/", "https://[fe80::1%25eth0]/", "https://b\xc3\xbc.de/"};
    AUTO_JSON json_t *blocks = json_pack("[s, s]", "10.0.0.0/8", "fd00::/8");
    const struct webhook_bounds bounds = {.allow_private = blocks}, plain = {.allow_http = true, .allow_private = blocks};
    struct err err;
    (void)state;
    for (size_t i = 0; i < ELEMENTS(good); i++)
        if (webhook_url_check(good[i], &bounds, &err) != 0)
            fail_msg("%s: %s", good[i], err.text);
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        if (webhook_url_check(bad[i], &bounds, &err) == 0)
            fail_msg("%s is taken", bad[i]);
        assert_int_equal(err.hr, (uint32_t)E_INVALIDARG);
        assert_string_equal(err.pointer, "/url");
    }
    assert_int_equal(webhook_url_check("http://example.org/", &plain, &err), 0);
    assert_int_equal(webhook_url_check("http://127.0.0.1/", &plain, &err), -1);
}

static void test_schedule(void **state)
{
    AUTO_JSON json_t *schedule = json_pack("[i, i, i]", 5, 300, 0);
    (void)state;
    assert_int_equal(webhook_pause_ms(schedule, 1, 0), 4500);
    assert_int_equal(webhook_pause_ms(schedule, 1, 1000), 5500);
    assert_int_equal(webhook_pause_ms(schedule, 1, 1001), 4500);
    for (uint32_t random = 0; random < 200000; random += 997) {
        int64_t pause = webhook_pause_ms(schedule, 2, random * 104729u);
        assert_true(pause >= 270000 && pause <= 330000);
    }
    assert_int_equal(webhook_pause_ms(schedule, 3, 12345), 0);
    assert_int_equal(webhook_pause_ms(schedule, 4, 0), -1);
    assert_int_equal(webhook_pause_ms(schedule, 0, 0), -1);
    assert_int_equal(webhook_pause_ms(NULL, 1, 0), -1);
}

static void test_filter(void **state)
{
    AUTO_JSON json_t *none = json_array(), *some = json_pack("[s]", "job.changed");
    (void)state;
    assert_true(webhook_wants(none, "job.changed") && webhook_wants(NULL, "x") && webhook_wants(some, "job.changed"));
    assert_false(webhook_wants(some, "session.changed"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_addresses), cmocka_unit_test(test_blocks), cmocka_unit_test(test_urls),
                                       cmocka_unit_test(test_schedule), cmocka_unit_test(test_filter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
