#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

static const char *const levels[] = {"full", "incremental", "differential", NULL};
static const struct json_spec level = {.kinds = JSON_KIND_STRING, .choices = levels};
static const struct json_spec name = {
    .kinds = JSON_KIND_STRING, .bounded = true, .min = 1, .max = 5, .format = JSON_FORMAT_NAME};
static const struct json_spec ttl = {.kinds = JSON_KIND_INTEGER, .bounded = true, .min = 5, .max = 86400};
static const struct json_spec ratio = {.kinds = JSON_KIND_NUMBER | JSON_KIND_NULL};
static const struct json_spec path = {.kinds = JSON_KIND_STRING, .format = JSON_FORMAT_PATH};
static const struct json_spec uuid = {.kinds = JSON_KIND_STRING, .format = JSON_FORMAT_UUID};
static const struct json_spec paths = {.kinds = JSON_KIND_ARRAY, .bounded = true, .min = 0, .max = 2, .items = &path};
static const struct json_spec flag = {.kinds = JSON_KIND_BOOLEAN};
static const struct json_spec labels = {.kinds = JSON_KIND_OBJECT, .values = &flag};
static const struct json_spec anything = {.kinds = JSON_KIND_ANY};
static const struct json_member members[] = {
    {"level", true, &level}, {"name", false, &name}, {"ttl", false, &ttl},       {"ratio", false, &ratio},
    {"id", false, &uuid},    {"paths", false, &paths}, {"labels", false, &labels}, {"extra", false, &anything},
};
static const struct json_spec root = {.kinds = JSON_KIND_OBJECT, .members = members, .n_members = ELEMENTS(members)};

static size_t check(const char *text, struct json_fault *faults, size_t room)
{
    AUTO_JSON json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    return json_spec_check(&root, value, faults, room);
}

static void expect(const char *text, const char *pointer, const char *detail)
{
    struct json_fault fault;
    assert_int_equal(check(text, &fault, 1), 1);
    assert_string_equal(fault.pointer, pointer);
    assert_string_equal(fault.detail, detail);
}

static void a_valid_document_has_no_faults(void **state)
{
    (void)state;
    assert_int_equal(check("{\"level\":\"full\",\"name\":\"a.b\",\"ttl\":5,\"ratio\":null,\"paths\":[\"/a\"],"
                           "\"id\":\"01890a5d-ac96-774b-bcce-b302099a8057\",\"labels\":{\"x\":true},"
                           "\"extra\":{\"deep\":[1,{\"a\":null}]}}",
                           NULL, 0),
                     0);
    assert_int_equal(check("{\"level\":\"full\",\"ratio\":1}", NULL, 0), 0);
    assert_int_equal(check("{\"level\":\"full\",\"ratio\":1.5}", NULL, 0), 0);
}

static void each_fault_is_told_with_its_pointer(void **state)
{
    (void)state;
    expect("{}", "/level", "is required");
    expect("{\"level\":\"half\"}", "/level", "must be one of: full, incremental, differential");
    expect("{\"level\":1}", "/level", "must be a string");
    expect("{\"level\":\"full\",\"ttl\":4}", "/ttl", "must be an integer from 5 to 86400");
    expect("{\"level\":\"full\",\"ttl\":86401}", "/ttl", "must be an integer from 5 to 86400");
    expect("{\"level\":\"full\",\"ttl\":5.0}", "/ttl", "must be an integer from 5 to 86400");
    expect("{\"level\":\"full\",\"ttl\":\"5\"}", "/ttl", "must be an integer from 5 to 86400");
    expect("{\"level\":\"full\",\"ratio\":\"x\"}", "/ratio", "must be a number or null");
    expect("{\"level\":\"full\",\"name\":\"abcdef\"}", "/name", "must have from 1 to 5 characters");
    expect("{\"level\":\"full\",\"name\":\"a b\"}", "/name",
           "must consist of letters, digits, \".\", \"_\" and \"-\"");
    expect("{\"level\":\"full\",\"name\":\"a\\u0000\"}", "/name", "must not contain NUL");
    expect("{\"level\":\"full\",\"id\":\"x\"}", "/id", "must be a UUID in lower-case canonical form");
    expect("{\"level\":\"full\",\"paths\":[\"/a\",\"b\"]}", "/paths/1",
           "must be an absolute path without \".\", \"..\" or empty parts");
    expect("{\"level\":\"full\",\"paths\":[\"/a\",\"/b\",\"/c\"]}", "/paths", "must have at most 2 items");
    expect("{\"level\":\"full\",\"labels\":{\"x\":1}}", "/labels/x", "must be a boolean");
    expect("[]", "", "must be an object");
    expect("null", "", "must be an object");
}

static void pointers_escape_tilde_and_slash(void **state)
{
    (void)state;
    expect("{\"level\":\"full\",\"a/b~c\":1}", "/a~1b~0c", "unknown member");
}

static void all_faults_are_counted_and_stored_up_to_the_room(void **state)
{
    (void)state;
    struct json_fault faults[2];
    assert_int_equal(check("{\"x\":1,\"ttl\":0,\"ratio\":\"\",\"paths\":{}}", faults, 2), 5);
    assert_string_equal(faults[0].pointer, "/x");
    assert_string_equal(faults[1].pointer, "/ttl");
}

static void a_pointer_that_does_not_fit_names_the_parent(void **state)
{
    (void)state;
    AUTO_FREE char *text = str_new("{\"level\":\"full\",\"labels\":{\"%0200d\":1}}", 0);
    expect(text, "/labels", "must be a boolean");
}

static json_t *parse(const char *text, struct err *err)
{
    return json_parse_strict(text, strlen(text), 4, err);
}

static void strict_parsing_takes_any_single_value(void **state)
{
    (void)state;
    const char *const good[] = {"1", " true\n", "\"\\\"[[[[[[{{{\"", "[[[[]]]]", "{\"a\":[{\"b\":\"\\\\\"}]}", "[]"};
    for (size_t i = 0; i < ELEMENTS(good); i++) {
        struct err err;
        AUTO_JSON json_t *value = parse(good[i], &err);
        assert_non_null(value);
    }
}

static void hostile_texts_are_refused(void **state)
{
    (void)state;
    const char *const bad[] = {"",
                               "   ",
                               "{",
                               "[1,]",
                               "{} x",
                               "{}{}",
                               "{\"a\":1,\"a\":2}",
                               "{\"a\":1,\"\\u0061\":2}",
                               "\"\\u0000\"",
                               "{\"a\\u0000b\":1}",
                               "\"\\ud800\"",
                               "\"\xff\"",
                               "\"\xc0\x80\"",
                               "\"\xed\xa0\x80\"",
                               "\xef\xbb\xbf{}",
                               "1e999",
                               "99999999999999999999999",
                               "NaN",
                               "'a'",
                               "// c\n1",
                               "\"a\nb\"",
                               "[[[[[]]]]]",
                               "01",
                               "-",
                               "]"};
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        struct err err = {.hr = 0};
        AUTO_JSON json_t *value = parse(bad[i], &err);
        assert_null(value);
        assert_int_equal(err.hr, (uint32_t)E_INVALIDARG);
        assert_string_equal(err.pointer, "");
        assert_non_null(strstr(err.text, "not valid JSON: line "));
    }
    struct err err;
    assert_null(json_parse_strict("{}\0", 3, 4, &err));
    assert_null(json_parse_strict("1\0002", 3, 4, &err));
}

static void the_fault_names_line_column_and_duplicate_key(void **state)
{
    (void)state;
    struct err err;
    assert_null(parse("{\"a\":1,\n \"twice\":2,\n \"twice\":3}", &err));
    assert_non_null(strstr(err.text, "line 3, column"));
    assert_non_null(strstr(err.text, "duplicate object key"));
    assert_non_null(strstr(err.text, "twice"));
    assert_null(parse("[[\n[[[", &err));
    assert_string_equal(err.text, "not valid JSON: line 2, column 3: nested deeper than 4 levels");
}

static void a_million_brackets_do_not_exhaust_the_stack(void **state)
{
    (void)state;
    enum { MANY = 1000000 };
    AUTO_FREE char *text = mem_new(MANY);
    memset(text, '[', MANY);
    struct err err;
    assert_null(json_parse_strict(text, MANY, 64, &err));
}

static void getters_fall_back(void **state)
{
    (void)state;
    AUTO_JSON json_t *doc = json_pack("{s:s, s:i, s:b}", "s", "text", "i", 5, "b", 1);
    assert_string_equal(json_str(doc, "s", "x"), "text");
    assert_string_equal(json_str(doc, "i", "x"), "x");
    assert_null(json_str(doc, "none", NULL));
    assert_string_equal(json_str(NULL, "s", "x"), "x");
    assert_int_equal(json_int(doc, "i", 9), 5);
    assert_int_equal(json_int(doc, "s", 9), 9);
    assert_true(json_bool(doc, "b", false));
    assert_true(json_bool(doc, "s", true));
    assert_false(json_bool(NULL, "s", false));
}

static void setters_take_the_reference_and_survive_foreign_bytes(void **state)
{
    (void)state;
    AUTO_JSON json_t *doc = json_object();
    AUTO_JSON json_t *shared = json_string("shared");
    json_put(doc, "a", json_incref(shared));
    assert_int_equal(shared->refcount, 2);
    json_put(doc, "bad\xff", json_text("x\xffy"));
    assert_string_equal(json_str(doc, "bad\xef\xbf\xbd", ""), "x\xef\xbf\xbdy");
    json_put(doc, "refused", json_string("\xff"));
    assert_true(json_is_null(json_object_get(doc, "refused")));
    AUTO_JSON json_t *list = json_array();
    json_add(list, json_integer(1));
    json_add(list, json_text(NULL));
    assert_int_equal(json_array_size(list), 2);
    assert_true(json_is_null(json_array_get(list, 1)));
}

static void the_first_object_with_that_text_is_found(void **state)
{
    AUTO_JSON json_t *array = json_pack("[{s:s}, {s:s, s:i}, {s:s, s:i}, {}, s]", "name", "a", "name", "b", "n", 1, "name", "b", "n", 2, "b");
    (void)state;
    assert_int_equal(json_int(json_find(array, "name", "b"), "n", 0), 1);
    assert_null(json_find(array, "name", "c"));
    assert_ptr_equal(json_find(array, "name", ""), json_array_get(array, 3));
    assert_null(json_find(NULL, "name", "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_object_with_that_text_is_found),
        cmocka_unit_test(a_valid_document_has_no_faults),
        cmocka_unit_test(each_fault_is_told_with_its_pointer),
        cmocka_unit_test(pointers_escape_tilde_and_slash),
        cmocka_unit_test(all_faults_are_counted_and_stored_up_to_the_room),
        cmocka_unit_test(a_pointer_that_does_not_fit_names_the_parent),
        cmocka_unit_test(strict_parsing_takes_any_single_value),
        cmocka_unit_test(hostile_texts_are_refused),
        cmocka_unit_test(the_fault_names_line_column_and_duplicate_key),
        cmocka_unit_test(a_million_brackets_do_not_exhaust_the_stack),
        cmocka_unit_test(getters_fall_back),
        cmocka_unit_test(setters_take_the_reference_and_survive_foreign_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
