/* The rules of vss-model 4.7 on a writer with a required pair, a set and an implicit member. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "model/selection.h"

static json_t *writer(void)
{
    return json_loads("{\"instance_id\":\"w1\",\"components\":["
                      "{\"logical_path\":\"\",\"name\":\"Executables\",\"selectable\":false},"
                      "{\"logical_path\":\"\",\"name\":\"Data\",\"selectable\":true},"
                      "{\"logical_path\":\"Data\",\"name\":\"Logs\",\"selectable\":false},"
                      "{\"logical_path\":\"Data\",\"name\":\"Index\",\"selectable\":true},"
                      "{\"logical_path\":\"\",\"name\":\"Database\",\"selectable\":true}]}",
                      0, NULL);
}

static void a_component_without_selectable_ancestor_that_is_not_selectable_is_required(void **unused)
{
    (void)unused;
    AUTO_JSON json_t *w = writer();
    assert_true(selection_required(w, selection_component(w, "", "Executables")));
    assert_false(selection_required(w, selection_component(w, "", "Data")));
    assert_false(selection_required(w, selection_component(w, "Data", "Logs")));
}

static void a_non_selectable_member_of_a_set_cannot_be_added_by_itself(void **unused)
{
    (void)unused;
    AUTO_JSON json_t *w = writer();
    struct err err = {0};
    assert_int_equal(selection_may_add(w, selection_component(w, "Data", "Logs"), &err), -1);
    assert_int_equal(err.hr, (uint32_t)E_INVALIDARG);
    assert_string_equal(err.pointer, "/name");
    assert_int_equal(selection_may_add(w, selection_component(w, "Data", "Index"), &err), 0);
    assert_int_equal(selection_may_add(w, selection_component(w, "", "Executables"), &err), 0);
}

static void a_set_covers_its_members_but_not_a_name_that_merely_begins_alike(void **unused)
{
    (void)unused;
    AUTO_JSON json_t *w = writer();
    const json_t *data = selection_component(w, "", "Data");
    assert_true(selection_covers(data, selection_component(w, "Data", "Logs")));
    assert_true(selection_covers(data, data));
    assert_false(selection_covers(data, selection_component(w, "", "Database")));
}

static void only_a_selectable_component_defines_a_set(void **unused)
{
    (void)unused;
    AUTO_JSON json_t *w = json_loads("{\"components\":[{\"name\":\"Executables\",\"selectable\":false},"
                                     "{\"logical_path\":\"Executables\",\"name\":\"Config\",\"selectable\":false},"
                                     "{\"logical_path\":\"Executables\",\"name\":\"Plugins\",\"selectable\":true}]}",
                                     0, NULL);
    const json_t *executables = selection_component(w, "", "Executables");
    assert_false(selection_covers(executables, selection_component(w, "Executables", "Config")));
    assert_false(selection_covers(executables, selection_component(w, "Executables", "Plugins")));
    assert_true(selection_required(w, selection_component(w, "Executables", "Config")));
    assert_ptr_equal(selection_root(w, selection_component(w, "Executables", "Plugins")),
                     selection_component(w, "Executables", "Plugins"));
}

static void a_type_that_no_schema_names_is_full_but_a_copy_stays_one(void **unused)
{
    (void)unused;
    AUTO_JSON json_t *plain = json_loads("{\"backup_schema\":[]}", 0, NULL);
    AUTO_JSON json_t *able = json_loads("{\"backup_schema\":[\"log\",\"differential\"]}", 0, NULL);
    assert_string_equal(selection_type(plain, "log"), "full");
    assert_string_equal(selection_type(able, "log"), "log");
    assert_string_equal(selection_type(able, "incremental"), "full");
    assert_string_equal(selection_type(plain, "copy"), "copy");
    assert_string_equal(selection_type(plain, "other"), "other");
    assert_string_equal(selection_type(plain, "full"), "full");
}

static void unknown_writers_and_components_are_not_found(void **unused)
{
    (void)unused;
    AUTO_JSON json_t *w = writer();
    AUTO_JSON json_t *writers = json_pack("[O]", w);
    assert_non_null(selection_writer(writers, "w1"));
    assert_null(selection_writer(writers, "w2"));
    assert_null(selection_component(w, "", "Logs"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_component_without_selectable_ancestor_that_is_not_selectable_is_required),
        cmocka_unit_test(a_non_selectable_member_of_a_set_cannot_be_added_by_itself),
        cmocka_unit_test(a_set_covers_its_members_but_not_a_name_that_merely_begins_alike),
        cmocka_unit_test(only_a_selectable_component_defines_a_set),
        cmocka_unit_test(a_type_that_no_schema_names_is_full_but_a_copy_stays_one),
        cmocka_unit_test(unknown_writers_and_components_are_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
