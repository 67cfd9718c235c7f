#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/jsonspec.h"
#include "base/str.h"

static void an_error_carries_code_text_and_hint(void **state)
{
    (void)state;
    struct err err;
    memset(&err, 'x', sizeof(err));
    assert_int_equal(err_set(&err, (uint32_t)VSS_E_BAD_STATE, "Do it later.", "session %d: busy", 7), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_BAD_STATE);
    assert_string_equal(err.text, "session 7: busy");
    assert_string_equal(err.hint, "Do it later.");
    assert_string_equal(err.pointer, "");
    assert_string_equal(err.reason, "");
    assert_int_equal(err_set(NULL, (uint32_t)VSS_E_BAD_STATE, NULL, "nobody listens"), -1);
}

static void errno_text_is_appended(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(err_errno(&err, (uint32_t)VSS_E_UNEXPECTED, ENOSPC, NULL, "cannot create %s", "/x"), -1);
    assert_string_equal(err.text, "cannot create /x: No space left on device");
    assert_string_equal(err.hint, "");
}

static void a_prefix_names_the_outer_object_and_the_old_text_may_be_an_argument(void **state)
{
    (void)state;
    struct err err;
    err_set(&err, (uint32_t)VSS_E_UNEXPECTED, "Hint.", "inner");
    assert_int_equal(err_prefix(&err, "repository %s", "main"), -1);
    assert_string_equal(err.text, "repository main: inner");
    assert_string_equal(err.hint, "Hint.");
    err_set(&err, (uint32_t)VSS_E_UNEXPECTED, err.hint, "again %s", err.text);
    assert_string_equal(err.text, "again repository main: inner");
    assert_string_equal(err.hint, "Hint.");
}

static void an_over_long_text_is_cut_and_terminated(void **state)
{
    (void)state;
    struct err err;
    err_set(&err, (uint32_t)VSS_E_UNEXPECTED, NULL, "%2000d", 1);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    err_prefix(&err, "%2000d", 2);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

static void an_invalid_argument_has_its_pointer(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(err_invalid(&err, "/a/0", "%s", "must be a string"), -1);
    assert_int_equal(err.hr, (uint32_t)E_INVALIDARG);
    assert_string_equal(err.pointer, "/a/0");
    assert_string_equal(err.text, "must be a string");
}

static void an_error_survives_a_process_border(void **state)
{
    (void)state;
    struct err err, back;
    err_set(&err, (uint32_t)VSS_E_WRITERERROR_TIMEOUT, "Wait.", "writer w: late");
    str_copy(err.reason, sizeof(err.reason), "interrupted");
    str_copy(err.pointer, sizeof(err.pointer), "/x");
    AUTO_JSON json_t *doc = err_to_json(&err);
    assert_string_equal(json_str(doc, "hresult", ""), "VSS_E_WRITERERROR_TIMEOUT");
    assert_string_equal(json_str(doc, "code", ""), "0x800423F2");
    err_from_json(&back, doc);
    assert_int_equal(back.hr, err.hr);
    assert_string_equal(back.text, err.text);
    assert_string_equal(back.hint, err.hint);
    assert_string_equal(back.reason, err.reason);
    assert_string_equal(back.pointer, err.pointer);
}

static void text_that_is_not_utf8_is_repaired_not_lost(void **state)
{
    (void)state;
    struct err err;
    err_set(&err, (uint32_t)VSS_E_UNEXPECTED, NULL, "file \xff\xfe: bad");
    AUTO_JSON json_t *doc = err_to_json(&err);
    assert_string_equal(json_str(doc, "detail", ""), "file \xef\xbf\xbd\xef\xbf\xbd: bad");
}

static void a_document_that_is_no_error_reads_as_unexpected(void **state)
{
    (void)state;
    struct err err;
    err_from_json(&err, NULL);
    assert_int_equal(err.hr, (uint32_t)VSS_E_UNEXPECTED);
    AUTO_JSON json_t *doc = json_pack("{s:s, s:i}", "hresult", "S_OK", "detail", 5);
    err_from_json(&err, doc);
    assert_int_equal(err.hr, (uint32_t)VSS_E_UNEXPECTED);
    assert_string_not_equal(err.text, "");
}

static void result_codes_have_names_values_and_statuses(void **state)
{
    (void)state;
    assert_string_equal(hresult_name(0x80042301u), "VSS_E_BAD_STATE");
    assert_string_equal(hresult_name(0x12345678u), "VSS_E_UNEXPECTED");
    assert_int_equal(hresult_http(0x80042301u), 409);
    assert_string_not_equal(hresult_meaning(0x80042301u), "");
    char hex[11];
    hresult_hex(0x80042301u, hex);
    assert_string_equal(hex, "0x80042301");
    uint32_t hr = 0;
    assert_true(hresult_by_name("VSS_E_OBJECT_NOT_FOUND", &hr));
    assert_int_equal(hr, 0x80042308u);
    assert_false(hresult_by_name("NOPE", &hr));
    assert_false(hresult_by_name(NULL, &hr));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_carries_code_text_and_hint),
        cmocka_unit_test(errno_text_is_appended),
        cmocka_unit_test(a_prefix_names_the_outer_object_and_the_old_text_may_be_an_argument),
        cmocka_unit_test(an_over_long_text_is_cut_and_terminated),
        cmocka_unit_test(an_invalid_argument_has_its_pointer),
        cmocka_unit_test(an_error_survives_a_process_border),
        cmocka_unit_test(text_that_is_not_utf8_is_repaired_not_lost),
        cmocka_unit_test(a_document_that_is_no_error_reads_as_unexpected),
        cmocka_unit_test(result_codes_have_names_values_and_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
