#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/planner.h"

static const char *const var_nested[] = {"/srv/var"};

/* The host of these tests: every test picks from it by index. */
enum { SRV, VAR, DATA_X, WAL_X, INNER_X, TMP, PROC, EXT, SRV_COPY, NFS, ROOT, BIND, HOME };
static const struct planner_volume host[] = {
    [SRV] = {"/srv", "/srv", "btrfs", "uuid-1", "btrfs", NULL, true, PLANNER_FREEZE_FORBIDDEN, 60, var_nested, 1, NULL},
    [VAR] = {"/srv/var", "/srv", "btrfs", "uuid-1", "btrfs", NULL, true, PLANNER_FREEZE_FORBIDDEN, 60, NULL, 0, NULL},
    [DATA_X] = {"/x/data", "/x", "xfs", "7:1", "reflink", NULL, false, PLANNER_FREEZE_FORBIDDEN, 100, NULL, 0, NULL},
    [WAL_X] = {"/x/wal", "/x", "xfs", "7:1", "reflink", NULL, false, PLANNER_FREEZE_FORBIDDEN, 10, NULL, 0, NULL},
    [INNER_X] = {"/x/data/inner", "/x", "xfs", "7:1", "reflink", NULL, false, PLANNER_FREEZE_FORBIDDEN, 5, NULL, 0,
                 NULL},
    [TMP] = {"/run/app", "/run", "tmpfs", "0:25", NULL, "no provider keeps tmpfs", false, PLANNER_FREEZE_NOT_NEEDED, 0,
             NULL, 0, NULL},
    [PROC] = {"/proc/sys", "/proc", "proc", "0:4", "copy", NULL, false, PLANNER_FREEZE_NOT_NEEDED, 1, NULL, 0, NULL},
    [EXT] = {"/x", "/x", "xfs", "7:1", "external", NULL, true, PLANNER_FREEZE_WANTED, 30, NULL, 0, NULL},
    [SRV_COPY] = {"/srv/etc", "/srv", "btrfs", "uuid-1", "copy", NULL, false, PLANNER_FREEZE_NOT_NEEDED, 900, NULL, 0,
                  "8:1"},
    [NFS] = {"/net/home", "/net", "nfs4", "0:60", "copy", NULL, false, PLANNER_FREEZE_NOT_NEEDED, 50, NULL, 0, NULL},
    [ROOT] = {"/", "/", "ext4", "8:1", "external", NULL, true, PLANNER_FREEZE_WANTED, 0, NULL, 0, NULL},
    [BIND] = {"/bind", "/bind", "xfs", "7:1", "external", NULL, true, PLANNER_FREEZE_WANTED, 30, NULL, 0, NULL},
    [HOME] = {"/home", "/home", "ext4", "8:2", "external", NULL, true, PLANNER_FREEZE_WANTED, 0, NULL, 0, NULL},
};

/* The staging directory of copies lies on ext4 8:1; an image on it holds xfs 7:1. */
static const struct planner_superblock superblocks[] = {
    {.name = "8:1",
     .mount_point = "/",
     .fs_type = "ext4",
     .sync_ms = 500,
     .sync_bytes = 100 << 20,
     .dirty_bytes = 20 << 20},
    {.name = "7:1", .mount_point = "/x", .fs_type = "xfs", .stands_on = "8:1", .sync_ms = -1, .dirty_bytes = 5 << 20},
    {.name = "0:50", .mount_point = "/ov", .fs_type = "overlay", .stands_on = "7:1", .sync_ms = -1},
};
#define SUPERBLOCKS .superblocks = superblocks, .n_superblocks = ELEMENTS(superblocks)

static struct planner_need plain(const char *path, size_t volume)
{
    return (struct planner_need){.path = path, .volume = volume};
}

static struct planner_need database(const char *path, size_t volume, enum planner_hold hold)
{
    return (struct planner_need){
        .path = path, .writer = "pg-main", .component = "cluster", .level = "back_end", .hold = hold, .volume = volume};
}

/* Runs the planner; `extra` may add repositories and the like. */
static struct planner_plan plan(const struct planner_need *needs, size_t n, struct planner_input extra)
{
    struct planner_plan ret;
    extra.needs = needs;
    extra.n_needs = n;
    /* Only the volumes that are needed: others would be no part of the question. */
    static struct planner_volume volumes[ELEMENTS(host)];
    static struct planner_need own[16];
    for (size_t i = 0; i < n; i++) {
        volumes[i] = host[needs[i].volume];
        own[i] = needs[i];
        own[i].volume = i;
    }
    extra.needs = own;
    extra.volumes = volumes;
    extra.n_volumes = n;
    planner_run(&extra, &ret);
    AUTO_JSON json_t *doc = planner_plan_to_json(&extra, &ret);
    assert_int_equal(json_array_size(json_object_get(doc, "volumes")), ret.n_volumes);
    assert_ptr_equal(json_object_get(doc, "refusals"), ret.refusals);
    return ret;
}
#define PLAN(needs, ...) plan(needs, ELEMENTS(needs), (struct planner_input){__VA_ARGS__})

static bool met[32]; /* by the index of planner_rule_names: the last test sees that none is left out */

static void note_met(const char *rule)
{
    for (size_t i = 0; planner_rule_names[i]; i++)
        met[i] = met[i] || str_eq(planner_rule_names[i], rule);
}

/* Exactly these rules, in this order, separated by blanks. */
static void assert_rules(const json_t *items, const char *expected)
{
    char rules[512] = "";
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        size_t at = strlen(rules);
        str_format(rules + at, sizeof(rules) - at, "%s%s", at ? " " : "", json_str(item, "rule", "?"));
        note_met(json_str(item, "rule", ""));
        assert_true(strlen(json_str(item, "detail", "")) > 0);
        assert_true(strlen(json_str(item, "hint", "")) > 0);
    }
    assert_string_equal(rules, expected);
}

static void assert_outcome(struct planner_plan *plan_made, const char *refusals, const char *warnings)
{
    assert_rules(plan_made->refusals, refusals);
    assert_rules(plan_made->warnings, warnings);
    planner_plan_clear(plan_made);
    assert_null(plan_made->refusals);
}

static void a_need_brings_its_volume_and_the_budget_adds_up(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/srv/www", SRV), plain("/x/data", DATA_X)};
    struct planner_plan made = PLAN(needs);
    assert_int_equal(made.n_volumes, 2);
    assert_int_equal(made.volumes[made.need_choice[1]].volume, 1);
    assert_int_equal(made.budget_ms, 160);
    assert_int_equal(made.n_freeze, 0);
    assert_string_equal(made.volumes[0].reason, "needed by /srv/www");
    assert_outcome(&made, "", "");
}

static void a_volume_is_in_the_set_once_whoever_needs_it(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/srv/www", SRV), database("/srv/pg", SRV, PLANNER_HOLD_NONE)};
    struct planner_plan made = PLAN(needs);
    assert_int_equal(made.n_volumes, 1);
    assert_int_equal(made.need_choice[0], made.need_choice[1]);
    assert_string_equal(made.volumes[0].reason, "needed by /srv/www, pg-main/cluster");
    assert_outcome(&made, "", "");
}

static void a_path_beneath_a_chosen_volume_is_covered_in_either_order(void **state)
{
    (void)state;
    const struct planner_need outer_first[] = {plain("/x/data", DATA_X), plain("/x/data/inner", INNER_X)};
    const struct planner_need inner_first[] = {plain("/x/data/inner", INNER_X), plain("/x/data", DATA_X)};
    struct planner_plan made = PLAN(outer_first);
    assert_int_equal(made.n_volumes, 1);
    assert_int_equal(made.volumes[0].volume, 0);
    assert_outcome(&made, "", "");
    made = PLAN(inner_first);
    assert_int_equal(made.n_volumes, 1);
    assert_int_equal(made.volumes[0].volume, 1);
    assert_outcome(&made, "", "");
}

static void a_nested_subvolume_is_not_covered_by_its_parent(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/srv", SRV), plain("/srv/var", VAR)};
    struct planner_plan made = PLAN(needs);
    assert_int_equal(made.n_volumes, 2);
    assert_outcome(&made, "", "");
}

static void a_nested_volume_that_nobody_names_is_refused(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/srv", SRV)};
    static const char *const excludes[] = {"/srv/var"};
    struct planner_plan made = PLAN(needs);
    assert_outcome(&made, "nested-volume-missing", "");
    made = PLAN(needs, .excludes = excludes, .n_excludes = 1);
    assert_outcome(&made, "", "");
}

static void a_nested_volume_beside_the_needed_path_does_not_matter(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/srv/variant", SRV)};
    struct planner_plan made = PLAN(needs);
    assert_outcome(&made, "", "");
}

static void what_no_provider_fits_is_refused_with_the_reason(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/run/app", TMP), plain("/srv/www", SRV)};
    struct planner_plan made = PLAN(needs);
    assert_true(made.need_choice[0] == SIZE_MAX);
    assert_int_equal(made.n_volumes, 1);
    assert_non_null(strstr(json_str(json_array_get(made.refusals, 0), "detail", ""), "no provider keeps tmpfs"));
    assert_outcome(&made, "unsupported-file-system", "");
}

static void the_kernels_views_are_refused_and_a_network_file_system_is_copied(void **state)
{
    (void)state;
    const struct planner_need views[] = {plain("/proc/sys", PROC)}, network[] = {plain("/net/home", NFS)};
    struct planner_plan made = PLAN(views);
    assert_outcome(&made, "unsupported-file-system", "");
    made = PLAN(network);
    assert_outcome(&made, "", "");
}

static void a_freeze_beside_a_reflink_on_one_superblock_is_refused(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/x/wal", WAL_X), plain("/x", EXT)},
                              alone[] = {plain("/x", EXT), plain("/x/b", EXT)};
    struct planner_plan made = PLAN(needs);
    assert_outcome(&made, "fifreeze-with-btrfs-or-reflink same-superblock-twice", "");
    made = PLAN(alone);
    assert_int_equal(made.n_freeze, 1);
    assert_string_equal(made.freeze[0].superblock, "7:1");
    assert_int_equal(made.n_volumes, 1);
    assert_outcome(&made, "", "");
}

static void one_tree_by_two_providers_is_refused(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/srv/etc", SRV_COPY), plain("/srv/www", SRV)};
    struct planner_plan made = PLAN(needs);
    assert_outcome(&made, "same-superblock-twice", "");
}

static void a_database_without_hold_or_log_must_lie_on_one_volume(void **state)
{
    (void)state;
    const struct planner_need needs[] = {database("/srv/pg", SRV, PLANNER_HOLD_NONE),
                                         database("/srv/var/wal", VAR, PLANNER_HOLD_NONE)};
    const struct planner_need by_file[] = {database("/x/data", DATA_X, PLANNER_HOLD_NONE)};
    struct planner_plan made = PLAN(needs);
    assert_outcome(&made, "split-database", "");
    made = PLAN(by_file);
    assert_outcome(&made, "split-database", "");
}

static void a_database_with_its_log_may_be_split_with_a_warning(void **state)
{
    (void)state;
    const struct planner_need needs[] = {database("/srv/pg", SRV, PLANNER_HOLD_LOG),
                                         database("/srv/var/wal", VAR, PLANNER_HOLD_LOG),
                                         database("/x/data", DATA_X, PLANNER_HOLD_LOG)};
    const struct planner_need atomic[] = {database("/srv/pg", SRV, PLANNER_HOLD_LOG)};
    struct planner_plan made = PLAN(needs);
    assert_outcome(&made, "", "split-database-logged");
    made = PLAN(atomic);
    assert_outcome(&made, "", "");
}

static void a_writer_that_holds_its_writes_may_lie_anywhere(void **state)
{
    (void)state;
    const struct planner_need needs[] = {database("/srv/app", SRV, PLANNER_HOLD_WRITES),
                                         database("/x/data", DATA_X, PLANNER_HOLD_WRITES)};
    struct planner_plan made = PLAN(needs);
    assert_outcome(&made, "", "");
}

static void a_repository_beneath_a_source_is_refused_unless_excluded(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/x/data", DATA_X)};
    static const char *const repositories[] = {"/x/data/backups", "/x/wal/backups"}, *const excludes[] = {
                                                                                         "/x/data/backups"};
    struct planner_plan made = PLAN(needs, .repositories = repositories, .n_repositories = 2);
    assert_outcome(&made, "repository-beneath-source", "");
    made = PLAN(needs, .repositories = repositories, .n_repositories = 2, .excludes = excludes, .n_excludes = 1);
    assert_outcome(&made, "", "");
}

static void our_own_files_beneath_a_source_are_a_warning(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/x/data", DATA_X)};
    static const char *const own[] = {"/x/data/state", "/var/lib/state"};
    struct planner_plan made = PLAN(needs, .own = own, .n_own = 2);
    assert_outcome(&made, "", "own-files-beneath-source");
}

static void a_window_over_the_limit_is_a_warning(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/srv/www", SRV), plain("/x/data", DATA_X)};
    struct planner_plan made = PLAN(needs, .freeze_limit_ms = 159);
    assert_outcome(&made, "", "window-over-budget");
    made = PLAN(needs, .freeze_limit_ms = 160);
    assert_outcome(&made, "", "");
}

static void a_leaf_is_frozen_before_what_its_image_lies_on(void **state)
{
    (void)state;
    const struct planner_need outer_first[] = {plain("/etc", ROOT), plain("/x", EXT)},
                              leaf_first[] = {plain("/x", EXT), plain("/home", HOME), plain("/etc", ROOT)};
    struct planner_plan made = PLAN(outer_first, SUPERBLOCKS);
    assert_int_equal(made.n_freeze, 2);
    assert_string_equal(made.freeze[0].superblock, "7:1");
    assert_string_equal(made.freeze[1].superblock, "8:1");
    assert_outcome(&made, "", "");
    made = PLAN(leaf_first, SUPERBLOCKS);
    assert_int_equal(made.n_freeze, 3);
    assert_string_equal(made.freeze[0].superblock, "7:1");
    assert_string_equal(made.freeze[1].superblock, "8:2"); /* equal ones keep their order */
    assert_string_equal(made.freeze[2].superblock, "8:1");
    assert_outcome(&made, "", "");
}

static void a_superblock_is_frozen_once_by_whatever_mount_it_is_named(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/x", EXT), plain("/bind/app", BIND)};
    struct planner_plan made = PLAN(needs, SUPERBLOCKS);
    assert_int_equal(made.n_volumes, 1);
    assert_int_equal(made.n_freeze, 1);
    assert_string_equal(made.freeze[0].mount_point, "/x");
    assert_outcome(&made, "", "");
}

static void a_snapshot_that_would_be_written_to_an_image_on_a_frozen_file_system_is_refused(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/etc", ROOT), plain("/x/data", DATA_X)};
    struct planner_plan made = PLAN(needs, SUPERBLOCKS);
    assert_outcome(&made, "fifreeze-with-btrfs-or-reflink", "");
    made = PLAN(needs); /* without the image between them nothing hangs */
    assert_outcome(&made, "", "");
}

static void a_copy_onto_a_frozen_file_system_is_refused(void **state)
{
    (void)state;
    const struct planner_need needs[] = {plain("/etc", ROOT), plain("/srv/etc", SRV_COPY)},
                              elsewhere[] = {plain("/x", EXT), plain("/srv/etc", SRV_COPY)};
    struct planner_plan made = PLAN(needs, SUPERBLOCKS);
    assert_outcome(&made, "copy-onto-frozen", "");
    made = PLAN(elsewhere, SUPERBLOCKS); /* the staging's file system stays writable: only the leaf is frozen */
    assert_outcome(&made, "", "");
}

static void a_database_on_file_systems_that_are_frozen_together_is_at_one_instant(void **state)
{
    (void)state;
    const struct planner_need needs[] = {database("/etc/pg", ROOT, PLANNER_HOLD_NONE),
                                         database("/home/wal", HOME, PLANNER_HOLD_NONE)},
                              mixed[] = {database("/etc/pg", ROOT, PLANNER_HOLD_NONE),
                                         database("/srv/wal", SRV, PLANNER_HOLD_NONE)};
    struct planner_plan made = PLAN(needs, SUPERBLOCKS);
    assert_outcome(&made, "", "");
    made = PLAN(mixed, SUPERBLOCKS);
    assert_outcome(&made, "split-database", "");
}

static void the_store_is_parked_when_it_lies_on_or_stands_on_what_is_frozen(void **state)
{
    (void)state;
    const struct planner_need leaf[] = {plain("/x", EXT)}, root[] = {plain("/etc", ROOT)};
    static const char *const on_root[] = {"8:1"}, *const on_overlay[] = {"0:50"};
    struct planner_plan made = PLAN(leaf, SUPERBLOCKS, .stores = on_root, .n_stores = 1);
    assert_false(made.parked);
    assert_outcome(&made, "", "");
    made = PLAN(root, SUPERBLOCKS, .stores = on_root, .n_stores = 1);
    assert_true(made.parked);
    assert_outcome(&made, "", "own-store-frozen");
    made = PLAN(root, SUPERBLOCKS, .stores = on_overlay, .n_stores = 1); /* overlay on image on root */
    assert_true(made.parked);
    assert_outcome(&made, "", "own-store-frozen");
}

static void the_budget_counts_what_is_still_dirty_at_the_measured_speed(void **state)
{
    (void)state;
    const struct planner_need root[] = {plain("/etc", ROOT)}, leaf[] = {plain("/x", EXT)},
                              both[] = {plain("/etc", ROOT), plain("/x", EXT)};
    struct planner_plan made = PLAN(root, SUPERBLOCKS); /* 100 MiB in 500 ms: 20 MiB take 100 ms */
    assert_int_equal(made.freeze[0].freeze_ms, 75 + 100);
    assert_int_equal(made.budget_ms, 175);
    assert_outcome(&made, "", "");
    made = PLAN(leaf, SUPERBLOCKS); /* not measured: 100 MiB/s; and 30 ms of the provider's own */
    assert_int_equal(made.freeze[0].freeze_ms, 75 + 51);
    assert_int_equal(made.budget_ms, 126 + 30);
    assert_outcome(&made, "", "");
    made = PLAN(both, SUPERBLOCKS, .freeze_limit_ms = 300);
    assert_int_equal(made.budget_ms, 175 + 156);
    assert_outcome(&made, "", "window-over-budget");
}

static void nothing_needed_is_an_empty_plan(void **state)
{
    (void)state;
    struct planner_plan made = plan(NULL, 0, (struct planner_input){0});
    assert_int_equal(made.n_volumes, 0);
    assert_int_equal(made.budget_ms, 0);
    assert_outcome(&made, "", "");
}

static void every_rule_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (size_t i = 0; planner_rule_names[i]; i++)
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(planner_rule_names[i], planner_rule_names[j]);
}

static void every_rule_was_met_by_a_test_above(void **state)
{
    (void)state;
    for (size_t i = 0; planner_rule_names[i]; i++)
        if (!met[i])
            fail_msg("%s: no test expects it", planner_rule_names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_need_brings_its_volume_and_the_budget_adds_up),
        cmocka_unit_test(a_volume_is_in_the_set_once_whoever_needs_it),
        cmocka_unit_test(a_path_beneath_a_chosen_volume_is_covered_in_either_order),
        cmocka_unit_test(a_nested_subvolume_is_not_covered_by_its_parent),
        cmocka_unit_test(a_nested_volume_that_nobody_names_is_refused),
        cmocka_unit_test(a_nested_volume_beside_the_needed_path_does_not_matter),
        cmocka_unit_test(what_no_provider_fits_is_refused_with_the_reason),
        cmocka_unit_test(the_kernels_views_are_refused_and_a_network_file_system_is_copied),
        cmocka_unit_test(a_freeze_beside_a_reflink_on_one_superblock_is_refused),
        cmocka_unit_test(one_tree_by_two_providers_is_refused),
        cmocka_unit_test(a_database_without_hold_or_log_must_lie_on_one_volume),
        cmocka_unit_test(a_database_with_its_log_may_be_split_with_a_warning),
        cmocka_unit_test(a_writer_that_holds_its_writes_may_lie_anywhere),
        cmocka_unit_test(a_repository_beneath_a_source_is_refused_unless_excluded),
        cmocka_unit_test(our_own_files_beneath_a_source_are_a_warning),
        cmocka_unit_test(a_window_over_the_limit_is_a_warning),
        cmocka_unit_test(a_leaf_is_frozen_before_what_its_image_lies_on),
        cmocka_unit_test(a_superblock_is_frozen_once_by_whatever_mount_it_is_named),
        cmocka_unit_test(a_snapshot_that_would_be_written_to_an_image_on_a_frozen_file_system_is_refused),
        cmocka_unit_test(a_copy_onto_a_frozen_file_system_is_refused),
        cmocka_unit_test(a_database_on_file_systems_that_are_frozen_together_is_at_one_instant),
        cmocka_unit_test(the_store_is_parked_when_it_lies_on_or_stands_on_what_is_frozen),
        cmocka_unit_test(the_budget_counts_what_is_still_dirty_at_the_measured_speed),
        cmocka_unit_test(nothing_needed_is_an_empty_plan),
        cmocka_unit_test(every_rule_has_a_name_of_its_own),
        cmocka_unit_test(every_rule_was_met_by_a_test_above),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
