#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "model/consistency.h"

enum { DATA, LOG, RAW, TREE, GROUP_1, GROUP_2 };
static const struct consistency_volume host[] = {
    [DATA] = {"/srv/data", .instant = DATA, .flushed = true},
    [LOG] = {"/srv/log", .instant = LOG, .flushed = true},
    [RAW] = {"/srv/raw", .instant = RAW, .flushed = false},
    [TREE] = {"/srv/tree", .instant = CONSISTENCY_FILE_BY_FILE},
    [GROUP_1] = {"/srv/group-1", .instant = GROUP_1, .flushed = true},
    [GROUP_2] = {"/srv/group-2", .instant = GROUP_1, .flushed = true},
};
static const size_t in_data[] = {DATA}, in_log[] = {LOG}, in_raw[] = {RAW}, in_tree[] = {TREE},
                    in_data_and_log[] = {DATA, LOG}, in_group_1[] = {GROUP_1}, in_group_2[] = {GROUP_2},
                    in_both_of_group[] = {GROUP_1, GROUP_2};

#define COMPONENT(title, at, places)                                                                                   \
    (struct consistency_part)                                                                                          \
    {                                                                                                                  \
        .name = (title), .component = true, .point = (at), .volumes = (places),                                        \
        .n_volumes = sizeof(places) / sizeof((places)[0])                                                              \
    }
#define PATH(title, places)                                                                                            \
    (struct consistency_part)                                                                                          \
    {                                                                                                                  \
        .name = (title), .point = CONSISTENCY_UNATTENDED, .volumes = (places),                                         \
        .n_volumes = sizeof(places) / sizeof((places)[0])                                                              \
    }

static struct consistency_verdict verdicts[8];
static struct consistency_whole whole;

#define JUDGE(parts) consistency_judge(host, parts, sizeof(parts) / sizeof((parts)[0]), verdicts, &whole)

static void assert_grade(size_t part, const char *grade, const char *reason)
{
    assert_string_equal(consistency_grade_name(verdicts[part].grade), grade);
    if (!strstr(verdicts[part].reason, reason))
        fail_msg("\"%s\" does not say \"%s\"", verdicts[part].reason, reason);
}

static void assert_whole(const char *grade, bool one_instant)
{
    assert_string_equal(consistency_grade_name(whole.grade), grade);
    assert_int_equal(whole.one_instant, one_instant);
}

static void one_subvolume_holds_everything_at_one_instant(void **state)
{
    (void)state;
    const struct consistency_part parts[] = {COMPONENT("pg/main", CONSISTENCY_AT_SNAPSHOT, in_data),
                                             COMPONENT("app/app", CONSISTENCY_HELD, in_data),
                                             PATH("/srv/data/files", in_data)};
    JUDGE(parts);
    assert_grade(0, "application", "recovers from its files as of one instant of /srv/data");
    assert_grade(1, "application", "let nothing change");
    assert_grade(2, "filesystem", "one instant of /srv/data");
    assert_whole("filesystem", true);
}

static void a_held_component_is_at_every_instant_of_the_window(void **state)
{
    (void)state;
    const struct consistency_part parts[] = {COMPONENT("pg/main", CONSISTENCY_AT_SNAPSHOT, in_data),
                                             COMPONENT("app/app", CONSISTENCY_HELD, in_tree),
                                             COMPONENT("rec/rec", CONSISTENCY_HELD, in_data_and_log)};
    JUDGE(parts);
    assert_whole("application", true);
    const struct consistency_part at_thaw[] = {COMPONENT("pg/main", CONSISTENCY_AT_THAW, in_data_and_log),
                                               COMPONENT("app/app", CONSISTENCY_HELD, in_tree)};
    JUDGE(at_thaw);
    assert_whole("application", true);
}

static void two_that_go_on_writing_at_two_instants_are_lowered_and_the_held_one_is_not(void **state)
{
    (void)state;
    const struct consistency_part parts[] = {COMPONENT("pg/one", CONSISTENCY_AT_SNAPSHOT, in_data),
                                             COMPONENT("pg/two", CONSISTENCY_AT_SNAPSHOT, in_log),
                                             COMPONENT("app/app", CONSISTENCY_HELD, in_tree)};
    JUDGE(parts);
    assert_grade(0, "crash", "not at the same instant as pg/two");
    assert_grade(1, "crash", "not at the same instant as pg/one");
    assert_grade(2, "application", "let nothing change");
    assert_whole("crash", false);
    const struct consistency_part thaws[] = {COMPONENT("pg/one", CONSISTENCY_AT_THAW, in_data),
                                             COMPONENT("pg/two", CONSISTENCY_AT_THAW, in_data)};
    JUDGE(thaws); /* each has a moment of its own, even on one volume */
    assert_grade(0, "crash", "pg/two");
    assert_whole("crash", false);
}

static void a_moment_after_the_thaw_is_nobody_elses(void **state)
{
    (void)state;
    const struct consistency_part alone[] = {COMPONENT("old/main", CONSISTENCY_LATER, in_data_and_log)};
    JUDGE(alone);
    assert_grade(0, "application", "after the thaw");
    assert_whole("application", true);
    const struct consistency_part both[] = {COMPONENT("old/main", CONSISTENCY_LATER, in_data),
                                            COMPONENT("app/app", CONSISTENCY_HELD, in_data)};
    JUDGE(both);
    assert_grade(0, "crash", "not at the same instant as app/app");
    assert_grade(1, "application", "let nothing change");
    assert_whole("crash", false);
}

static void a_plain_path_elsewhere_lowers_no_component(void **state)
{
    (void)state;
    const struct consistency_part parts[] = {COMPONENT("pg/main", CONSISTENCY_AT_SNAPSHOT, in_data),
                                             PATH("/srv/log/files", in_log)};
    JUDGE(parts);
    assert_grade(0, "application", "one instant");
    assert_grade(1, "filesystem", "one instant");
    assert_whole("filesystem", false);
}

static void plain_paths_are_worth_what_their_snapshots_are(void **state)
{
    (void)state;
    const struct consistency_part parts[] = {PATH("/srv/data", in_data), PATH("/srv/raw", in_raw),
                                             PATH("/srv/tree", in_tree), PATH("/srv", in_data_and_log)};
    JUDGE(parts);
    assert_grade(0, "filesystem", "one instant");
    assert_grade(1, "crash", "without what was not flushed");
    assert_grade(2, "none", "one after the other");
    assert_grade(3, "none", "2 volumes");
    assert_whole("none", false);
}

static void a_component_whose_writer_failed_is_worth_what_its_snapshot_is(void **state)
{
    (void)state;
    const struct consistency_part parts[] = {COMPONENT("app/app", CONSISTENCY_UNATTENDED, in_data),
                                             COMPONENT("pg/main", CONSISTENCY_UNATTENDED, in_data_and_log)};
    JUDGE(parts);
    assert_grade(0, "filesystem", "its writer does not vouch for it");
    assert_grade(1, "none", "its writer does not vouch for it");
}

static void one_instant_needs_one_atomic_volume(void **state)
{
    (void)state;
    const struct consistency_part parts[] = {COMPONENT("pg/one", CONSISTENCY_AT_SNAPSHOT, in_data_and_log),
                                             COMPONENT("pg/two", CONSISTENCY_AT_SNAPSHOT, in_tree)};
    JUDGE(parts);
    assert_grade(0, "none", "2 volumes");
    assert_grade(1, "none", "one after the other");
}

static void volumes_captured_together_are_one_instant(void **state)
{
    (void)state;
    const struct consistency_part parts[] = {COMPONENT("pg/one", CONSISTENCY_AT_SNAPSHOT, in_group_1),
                                             COMPONENT("pg/two", CONSISTENCY_AT_SNAPSHOT, in_group_2),
                                             PATH("/srv", in_both_of_group)};
    JUDGE(parts);
    assert_grade(0, "application", "one instant");
    assert_grade(1, "application", "one instant");
    assert_grade(2, "filesystem", "one instant");
    assert_whole("filesystem", true);
}

static void files_outside_the_set_spoil_their_component(void **state)
{
    (void)state;
    struct consistency_part part = COMPONENT("app/app", CONSISTENCY_HELD, in_data);
    part.uncovered = "/mnt/elsewhere";
    consistency_judge(host, &part, 1, verdicts, &whole);
    assert_grade(0, "none", "/mnt/elsewhere lies on no volume");
    assert_whole("none", false);
}

static void nothing_is_nothing(void **state)
{
    (void)state;
    consistency_judge(host, NULL, 0, NULL, &whole);
    assert_whole("none", false);
}

static void only_known_points_have_a_name(void **state)
{
    (void)state;
    enum consistency_point point;
    static const struct {
        const char *name;
        enum consistency_point point;
    } rows[] = {{"hold", CONSISTENCY_HELD},
                {"snapshot", CONSISTENCY_AT_SNAPSHOT},
                {"thaw", CONSISTENCY_AT_THAW},
                {"later", CONSISTENCY_LATER}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_true(consistency_point_by_name(rows[i].name, &point));
        assert_int_equal(point, rows[i].point);
    }
    assert_false(consistency_point_by_name("soon", &point));
    assert_false(consistency_point_by_name(NULL, &point));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_subvolume_holds_everything_at_one_instant),
        cmocka_unit_test(a_held_component_is_at_every_instant_of_the_window),
        cmocka_unit_test(two_that_go_on_writing_at_two_instants_are_lowered_and_the_held_one_is_not),
        cmocka_unit_test(a_moment_after_the_thaw_is_nobody_elses),
        cmocka_unit_test(a_plain_path_elsewhere_lowers_no_component),
        cmocka_unit_test(plain_paths_are_worth_what_their_snapshots_are),
        cmocka_unit_test(a_component_whose_writer_failed_is_worth_what_its_snapshot_is),
        cmocka_unit_test(one_instant_needs_one_atomic_volume),
        cmocka_unit_test(volumes_captured_together_are_one_instant),
        cmocka_unit_test(files_outside_the_set_spoil_their_component),
        cmocka_unit_test(nothing_is_nothing),
        cmocka_unit_test(only_known_points_have_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
