/* Which encoding of a file a client gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "api/assets.h"
#include "base/cleanup.h"

/* RFC 9110, section 12.5.3. */
static void what_an_accept_encoding_allows(void **state)
{
    static const struct {
        const char *header;
        bool br, gzip, plain;
    } rows[] = {
        {NULL, false, false, true},
        {"", false, false, true},
        {"gzip", false, true, true},
        {"gzip, deflate, br", true, true, true},
        {"GZIP;q=0.5,\tbr;q=1", true, true, true},
        {"br;q=0, gzip", false, true, true},
        {"br;q=0.000, *", false, true, true},
        {"*", true, true, true},
        {"*;q=0", false, false, false},
        {"identity;q=0, gzip", false, true, false},
        {"*;q=0, identity", false, false, true},
        {"gzip;q=0.001", false, true, true},
        {"brotli, gzipped", false, false, true},
        {",, br ,", true, false, true},
    };
    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        assert_int_equal(assets_accepts(rows[i].header, "br"), rows[i].br);
        assert_int_equal(assets_accepts(rows[i].header, "gzip"), rows[i].gzip);
        assert_int_equal(assets_accepts(rows[i].header, ""), rows[i].plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_an_accept_encoding_allows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
