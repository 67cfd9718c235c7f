/* What a restore brings back and where to, from a document with a set, masks, mappings and added files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/restore_plan.h"
#include "model/restore_rules.h"

static json_t *document(const char *type, const char *method)
{
    json_t *parsed = json_loads(
        "{\"writers\":[{\"instance_id\":\"w\",\"class_id\":\"c\",\"name\":\"app\",\"backup_schema\":[\"incremental\",\"log\",\"restore_with_move\"],"
        "\"alternate_locations\":[{\"path\":\"/d\",\"spec\":\"*\",\"recursive\":true,\"alternate_path\":\"/alt\"}],\"components\":["
        "{\"logical_path\":\"\",\"name\":\"set\",\"selectable\":true,\"file_sets\":[{\"path\":\"/d\",\"spec\":\"*\",\"recursive\":true,\"backup_types\":[\"full\"]}]},"
        "{\"logical_path\":\"set\",\"name\":\"part\",\"selectable\":false,\"selectable_for_restore\":true,"
        "\"file_sets\":[{\"path\":\"/p\",\"spec\":\"*.db\",\"recursive\":false}]}]}]}",
        0, NULL);
    json_put(parsed, "backup_state", json_pack("{s:s}", "type", type));
    json_put(json_array_get(json_object_get(parsed, "writers"), 0), "restore_method", json_string(method));
    return parsed;
}

static json_t *component(const char *more)
{
    json_t *made = json_loads("{\"id\":\"1\",\"instance_id\":\"w\",\"class_id\":\"c\",\"writer\":\"app\",\"logical_path\":\"\",\"name\":\"set\"}", 0, NULL);
    AUTO_JSON json_t *added = json_loads(more, 0, NULL);
    json_object_update(made, added);
    return made;
}

/* "path spec -> to/rename" of each item, one a line; + where it replaces what is there. */
static char *plan(const char *type, const char *method, const char *more, struct err *err)
{
    AUTO_JSON json_t *doc = document(type, method);
    AUTO_JSON json_t *components = json_pack("[o]", component(more));
    AUTO_JSON json_t *items = restore_plan(doc, components, err);
    char *text = str_dup("");
    size_t i;
    const json_t *item;
    json_array_foreach(items, i, item)
    {
        char *longer = str_new("%s%s %s -> %s %s%s%s\n", text, json_str(item, "path", ""), json_str(item, "spec", ""), json_str(item, "to", ""),
                               json_str(item, "rename", ""), json_bool(item, "overwrite", false) ? "+" : "",
                               json_is_object(json_object_get(item, "mapping")) ? " mapped" : "");
        free(text);
        text = longer;
    }
    return items ? text : (free(text), NULL);
}

static void each_word_of_writer_and_requester_decides_where_files_go(void **unused)
{
    (void)unused;
    static const struct {
        const char *type, *method, *component, *expected;
    } rows[] = {
        {"full", "custom", "{}", "/d * -> /d +\n/p *.db -> /p +\n"},
        {"copy", "custom", "{}", "/d * -> /d +\n/p *.db -> /p +\n"},
        {"incremental", "custom", "{}", "/p *.db -> /p +\n"},
        {"full", "restore_if_not_there", "{}", "/d * -> /d \n/p *.db -> /p \n"},
        {"full", "custom", "{\"subcomponents\":[{\"logical_path\":\"set\",\"name\":\"part\"}]}", "/p *.db -> /p +\n"},
        {"full", "custom", "{\"new_targets\":[{\"path\":\"/d\",\"spec\":\"*\",\"recursive\":true,\"new_path\":\"/n\"}]}", "/d * -> /n +\n/p *.db -> /p +\n"},
        {"full", "custom", "{\"new_targets\":[{\"path\":\"/d\",\"spec\":\"*\",\"recursive\":false,\"new_path\":\"/n\"}]}", "/d * -> /d +\n/p *.db -> /p +\n"},
        {"full", "restore_to_alternate_location", "{\"restore_target\":\"original_location\"}", "/d * -> /d +\n/p *.db -> /p +\n"},
        {"full", "restore_if_not_there", "{\"restore_target\":\"original_location\",\"new_targets\":[{\"path\":\"/d\",\"new_path\":\"/n\"}]}",
         "/d * -> /d \n/p *.db -> /p \n"},
        {"full", "custom", "{\"restore_target\":\"directed\",\"directed_targets\":[{\"path\":\"/d/x/a*\",\"new_path\":\"/n/b\"},{\"path\":\"/d/c\",\"new_path\":\"/e/c\"}]}",
         "/d/x a\\* -> /n b+\n/d c -> /e +\n"},
        {"incremental", "custom", "{\"added_files\":[\"/d/log/7\",\"/p/x.db\",\"/d/8\"]}",
         "/p *.db -> /p +\n/d/log 7 -> /d/log +\n/d 8 -> /d +\n"},
        {"incremental", "custom", "{\"added_files\":[\"/d/log/7\"],\"new_targets\":[{\"path\":\"/d\",\"new_path\":\"/n\"}]}", "/p *.db -> /p +\n/d/log 7 -> /n/log +\n"},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        struct err err = {0};
        AUTO_FREE char *got = plan(rows[i].type, rows[i].method, rows[i].component, &err);
        if (!str_eq(got, rows[i].expected))
            fail_msg("row %zu:\n%s\nexpected\n%s", i, got ? got : err.text, rows[i].expected);
    }
}

static void an_alternate_location_is_the_writers_to_name(void **unused)
{
    (void)unused;
    struct err err = {0};
    static const char *const words[] = {"{\"restore_target\":\"alternate\"}" /* of /p there is none */,
                                        "{\"restore_target\":\"directed\",\"directed_targets\":[]}"};
    for (size_t i = 0; i < ELEMENTS(words); i++) {
        err = (struct err){0};
        assert_null(plan("full", "custom", words[i], &err));
        assert_int_equal(err.hr, (uint32_t)VSS_E_UNEXPECTED_WRITER_ERROR);
    }
    AUTO_FREE char *given = plan("full", "restore_to_alternate_location", "{\"new_targets\":[{\"path\":\"/p\",\"spec\":\"*.db\",\"recursive\":false,\"new_path\":\"/n\"}]}", &err);
    assert_string_equal(given, "/d * -> /alt + mapped\n/p *.db -> /n +\n");
}

/* Before PreRestore: what a writer said earlier does not count, and a file set that may stay where it was is looked at there. */
static void what_is_expected_before_the_writers_have_spoken(void **unused)
{
    (void)unused;
    static const char *const places[][2] = {{"/alt", "/p"}, {"/n", "/p"}};
    static const char *const words[] = {"{\"restore_target\":\"directed\",\"directed_targets\":[{\"path\":\"/d/x\",\"new_path\":\"/etc/x\"}]}",
                                        "{\"new_targets\":[{\"path\":\"/d\",\"new_path\":\"/n\"}]}"};
    AUTO_JSON json_t *doc = document("full", "restore_to_alternate_location");
    for (size_t i = 0; i < ELEMENTS(words); i++) {
        AUTO_JSON json_t *components = json_pack("[o]", component(words[i])), *items = restore_plan_unspoken(doc, components);
        assert_int_equal(json_array_size(items), 2);
        for (size_t k = 0; k < 2; k++)
            assert_string_equal(json_str(json_array_get(items, k), "to", ""), places[i][k]);
    }
}

static void where_a_component_lives(void **unused)
{
    (void)unused;
    static const struct {
        const char *path, *place;
    } rows[] = {{"/d", "/d"}, {"/d/below", "/d"}, {"/", "/d"}, {"/p", "/p"}, {"/p/below", NULL} /* the set is flat */, {"/data", NULL}};
    AUTO_JSON json_t *doc = document("full", "custom"), *set = component("{}"), *unknown = component("{\"name\":\"gone\"}");
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        const char *place = restore_lives_at(doc, set, rows[i].path);
        assert_true(rows[i].place ? str_eq(place, rows[i].place) : !place);
    }
    assert_null(restore_lives_at(doc, unknown, "/d"));
}

static void nothing_leaves_the_roots(void **unused)
{
    (void)unused;
    struct err err = {0};
    AUTO_JSON json_t *items = json_loads("[{\"to\":\"/srv/a\"},{\"to\":\"/srv\"}]", 0, NULL);
    AUTO_JSON json_t *roots = json_loads("[\"/srv\"]", 0, NULL);
    AUTO_JSON json_t *others = json_loads("[\"/srv/a\",\"/srv/b\"]", 0, NULL);
    assert_int_equal(restore_plan_confined(items, roots, &err), 0);
    assert_int_equal(restore_plan_confined(items, others, &err), -1);
    assert_int_equal(err.hr, (uint32_t)E_ACCESSDENIED);
    assert_int_equal(restore_plan_confined(items, NULL, &err), -1);
    AUTO_JSON json_t *dotted = json_loads("[{\"to\":\"/srv/../etc\"}]", 0, NULL);
    assert_int_equal(restore_plan_confined(dotted, roots, &err), -1);
}

static void a_subcomponent_came_along_and_is_selectable_for_restore(void **unused)
{
    (void)unused;
    struct err err = {0};
    AUTO_JSON json_t *doc = document("full", "custom");
    AUTO_JSON json_t *set = component("{}");
    AUTO_JSON json_t *components = json_pack("[O]", set);
    AUTO_JSON json_t *part = json_pack("{s:s, s:s}", "logical_path", "set", "name", "part");
    assert_int_equal(restore_may_add_subcomponent(doc, components, set, part, &err), 0);
    assert_int_equal(restore_may_add_subcomponent(doc, components, set, set, &err), -1);
    assert_int_equal(err.hr, (uint32_t)E_INVALIDARG);
    json_add(components, component("{\"logical_path\":\"set\",\"name\":\"part\"}")); /* explicit itself: there it is named */
    assert_int_equal(restore_may_add_subcomponent(doc, components, set, part, &err), -1);
    assert_string_equal(err.pointer, "/name");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_word_of_writer_and_requester_decides_where_files_go),
        cmocka_unit_test(an_alternate_location_is_the_writers_to_name),
        cmocka_unit_test(what_is_expected_before_the_writers_have_spoken),
        cmocka_unit_test(where_a_component_lives),
        cmocka_unit_test(nothing_leaves_the_roots),
        cmocka_unit_test(a_subcomponent_came_along_and_is_selectable_for_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
