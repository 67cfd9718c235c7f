#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <btrfsutil.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "tests/contract/providers/ground.h"
#include "worker/volumes.h"

static struct ground ground;

static struct provider_environment environment(void)
{
    return (struct provider_environment){.staging = ground.staging, .node = "node-a", .root = geteuid() == 0};
}

static void need_loops(void)
{
    if (!*ground.why)
        return;
    print_message("skipped: %s\n", ground.why);
    skip();
}

static void assert_refused(const char *path, const char *provider, int hr)
{
    struct provider_environment env = environment();
    struct volume volume;
    const struct provider *found;
    struct err err = {0};
    assert_int_equal(volumes_resolve(&env, path, provider, &volume, &found, &err), -1);
    assert_string_equal(hresult_name(err.hr), hresult_name((uint32_t)hr));
    assert_null(found);
    assert_true(strlen(err.text) > 0);
}

static void assert_resolved(const char *path, const char *provider, const char *expected, const char *volume_path)
{
    struct provider_environment env = environment();
    struct volume volume;
    const struct provider *found = NULL;
    struct err err = {0};
    if (volumes_resolve(&env, path, provider, &volume, &found, &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(found->name, expected);
    assert_string_equal(volume.path, volume_path);
    assert_string_equal(volume.requested, path);
    assert_true(path_beneath(volume.path, volume.mount_point));
    assert_true(strlen(volume.superblock) > 2);
}

static void bad_paths_are_refused_with_the_codes_of_AddToSnapshotSet(void **state)
{
    char link[PATH_MAX], through[PATH_MAX];
    (void)state;
    assert_refused("relative", NULL, E_INVALIDARG);
    assert_refused("/tmp/../tmp", NULL, E_INVALIDARG);
    assert_refused(NULL, NULL, E_INVALIDARG);
    assert_refused("/no/such/path", NULL, VSS_E_OBJECT_NOT_FOUND);
    str_format(link, sizeof(link), "%s/link", ground.base);
    str_format(through, sizeof(through), "%s/.", link);
    assert_int_equal(symlink(ground.plain, link), 0);
    assert_refused(link, NULL, E_INVALIDARG);
    assert_refused(through, NULL, E_INVALIDARG);
    assert_refused(ground.plain, "tape", VSS_E_PROVIDER_NOT_REGISTERED);
    assert_refused("/proc/sys", NULL, VSS_E_VOLUME_NOT_SUPPORTED);
    assert_refused("/proc/sys", "copy", VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER);
}

static void when_nothing_fits_every_provider_says_why(void **state)
{
    struct provider_environment env = environment();
    struct volume volume;
    const struct provider *found;
    struct err err = {0};
    (void)state;
    assert_int_equal(volumes_resolve(&env, "/proc/sys", NULL, &volume, &found, &err), -1);
    for (size_t i = 0; providers_all[i]; i++)
        assert_true(!strstr(err.text, providers_all[i]->name) == providers_all[i]->by_name); /* those that were not asked for stay out */
    assert_string_equal(volume.fs_type, "proc");
}

static void the_best_provider_is_chosen_and_another_may_be_named(void **state)
{
    char subvolume[PATH_MAX], inner[PATH_MAX], file[PATH_MAX];
    (void)state;
    need_loops();
    str_format(subvolume, sizeof(subvolume), "%s/app", ground.btrfs);
    str_format(inner, sizeof(inner), "%s/data", subvolume);
    str_format(file, sizeof(file), "%s/file", inner);
    assert_int_equal(btrfs_util_create_subvolume(subvolume, 0, NULL, NULL), BTRFS_UTIL_OK);
    assert_int_equal(mkdir(inner, 0755), 0);
    assert_int_equal(mknod(file, S_IFREG | 0600, 0), 0);
    assert_resolved(file, NULL, "btrfs", subvolume);
    assert_resolved(inner, NULL, "btrfs", subvolume);
    assert_resolved(file, "reflink", "reflink", inner);
    assert_resolved(inner, "copy", "copy", inner);
    assert_resolved(ground.xfs, NULL, "reflink", ground.xfs);
    assert_refused(ground.xfs, "btrfs", VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER);
    assert_resolved(ground.plain, "copy", "copy", ground.plain);
}

static void a_bind_mount_and_another_subvolume_share_their_superblock(void **state)
{
    struct provider_environment env = environment();
    struct volume one, two;
    const struct provider *found;
    char subvolume[PATH_MAX], bind[PATH_MAX];
    struct err err = {0};
    (void)state;
    need_loops();
    str_format(subvolume, sizeof(subvolume), "%s/other", ground.btrfs);
    str_format(bind, sizeof(bind), "%s/bind", ground.base);
    assert_int_equal(btrfs_util_create_subvolume(subvolume, 0, NULL, NULL), BTRFS_UTIL_OK);
    assert_int_equal(mkdir(bind, 0755), 0);
    assert_int_equal(mount(subvolume, bind, NULL, MS_BIND, NULL), 0);
    int r = volumes_resolve(&env, bind, NULL, &one, &found, &err) |
            volumes_resolve(&env, ground.btrfs, NULL, &two, &found, &err);
    umount2(bind, MNT_DETACH);
    assert_int_equal(r, 0);
    assert_string_equal(one.superblock, two.superblock);
    assert_string_equal(one.mount_point, bind);
}

static void assert_nested(const char *path, const char *const *expected, size_t n)
{
    struct err err = {0};
    AUTO_JSON json_t *nested = NULL;
    if (volumes_nested(path, &nested, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(json_array_size(nested), n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(json_string_value(json_array_get(nested, i)), expected[i]);
}

static void mounts_and_subvolumes_beneath_a_path_are_found_but_our_own_are_not(void **state)
{
    struct provider_environment env = environment();
    char top[PATH_MAX], sub[PATH_MAX], deep[PATH_MAX], mounted[PATH_MAX], directory[PATH_MAX], own[PATH_MAX];
    struct volume volume;
    const struct provider *found;
    struct err err = {0};
    (void)state;
    need_loops();
    str_format(top, sizeof(top), "%s/nest", ground.btrfs);
    str_format(directory, sizeof(directory), "%s/dir", top);
    str_format(sub, sizeof(sub), "%s/dir/sub", top);
    str_format(deep, sizeof(deep), "%s/dir/sub/deep", top);
    str_format(mounted, sizeof(mounted), "%s/a-mount", top);
    assert_int_equal(btrfs_util_create_subvolume(top, 0, NULL, NULL), BTRFS_UTIL_OK);
    assert_int_equal(mkdir(directory, 0755), 0);
    assert_int_equal(btrfs_util_create_subvolume(sub, 0, NULL, NULL), BTRFS_UTIL_OK);
    assert_int_equal(btrfs_util_create_subvolume(deep, 0, NULL, NULL), BTRFS_UTIL_OK);
    assert_int_equal(mkdir(mounted, 0755), 0);
    assert_int_equal(mount("none", mounted, "tmpfs", 0, NULL), 0);
    /* One of our own, whose place lies at the top of the mount. */
    assert_int_equal(volumes_resolve(&env, top, "btrfs", &volume, &found, &err), 0);
    struct provider_snapshot snapshot = {.id = "01890000-0000-7000-8000-000000000001"};
    snapshot.volume = volume;
    assert_int_equal(found->create(&env, &snapshot, 1, &err), 0);
    volumes_private_dir(&volume, own);
    assert_true(path_beneath(snapshot.path, own));
    assert_nested(top, (const char *const[]){mounted, sub, deep}, 3);
    assert_nested(directory, (const char *const[]){sub, deep}, 2);
    assert_nested(deep, NULL, 0);
    AUTO_JSON json_t *all = NULL;
    assert_int_equal(volumes_nested(ground.btrfs, &all, &err), 0);
    for (size_t i = 0; i < json_array_size(all); i++)
        assert_null(strstr(json_string_value(json_array_get(all, i)), "/.quiesced"));
    assert_int_equal(umount2(mounted, 0), 0);
    assert_int_equal(found->remove(&env, &snapshot, &err), 0);
}

static void subvolumes_are_found_through_a_bind_mount_of_a_part(void **state)
{
    char top[PATH_MAX], part[PATH_MAX], sub[PATH_MAX], bind[PATH_MAX], seen[PATH_MAX];
    struct err err = {0};
    AUTO_JSON json_t *nested = NULL;
    (void)state;
    need_loops();
    str_format(top, sizeof(top), "%s/parts", ground.btrfs);
    str_format(part, sizeof(part), "%s/part", top);
    str_format(sub, sizeof(sub), "%s/sub", part);
    str_format(bind, sizeof(bind), "%s/part", ground.base);
    str_format(seen, sizeof(seen), "%s/sub", bind);
    assert_int_equal(btrfs_util_create_subvolume(top, 0, NULL, NULL), BTRFS_UTIL_OK);
    assert_int_equal(mkdir(part, 0755) | mkdir(bind, 0755), 0);
    assert_int_equal(btrfs_util_create_subvolume(sub, 0, NULL, NULL), BTRFS_UTIL_OK);
    assert_int_equal(mount(part, bind, NULL, MS_BIND, NULL), 0);
    int r = volumes_nested(bind, &nested, &err);
    umount2(bind, MNT_DETACH);
    assert_int_equal(r, 0);
    assert_int_equal(json_array_size(nested), 1);
    assert_string_equal(json_string_value(json_array_get(nested, 0)), seen);
}

static void the_list_has_real_file_systems_with_their_provider(void **state)
{
    struct provider_environment env = environment();
    struct err err = {0};
    AUTO_JSON json_t *items = NULL;
    size_t found = 0;
    (void)state;
    assert_int_equal(volumes_list(&env, &items, &err), 0);
    assert_true(json_array_size(items) > 0);
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        const char *mount_point = json_str(item, "mount_point", "");
        assert_string_not_equal(json_str(item, "fs_type", ""), "proc");
        assert_string_not_equal(json_str(item, "fs_type", ""), "tmpfs");
        assert_int_equal(json_object_size(item), 10);
        assert_true(json_object_get(item, "bytes") && json_object_get(item, "free_percent"));
        assert_true(json_is_integer(json_object_get(item, "metadata_free_percent")) == str_eq(json_str(item, "fs_type", ""), "btrfs"));
        if (*ground.btrfs && str_eq(mount_point, ground.btrfs))
            found += str_eq(json_str(item, "provider", NULL), "btrfs");
        if (*ground.xfs && str_eq(mount_point, ground.xfs))
            found += str_eq(json_str(item, "provider", NULL), "reflink");
    }
    assert_int_equal(found, *ground.why ? 0 : 2);
}

static void a_fact_carries_the_plan_and_a_path_without_provider_its_reason(void **state)
{
    struct provider_environment env = environment();
    struct volumes_fact fact = {0};
    struct err err = {0};
    (void)state;
    assert_int_equal(volumes_fact_init(&env, "/proc/sys", NULL, &fact, &err), 0);
    assert_null(fact.planner.provider);
    assert_non_null(strstr(fact.planner.reason, "copy"));
    volumes_fact_clear(&fact);
    assert_int_equal(volumes_fact_init(&env, ground.plain, "copy", &fact, &err), 0);
    assert_string_equal(fact.planner.provider, "copy");
    assert_string_equal(fact.planner.path, ground.plain);
    assert_false(fact.planner.atomic);
    assert_int_equal(fact.planner.freeze, PLANNER_FREEZE_NOT_NEEDED);
    volumes_fact_clear(&fact);
    assert_int_equal(volumes_fact_init(&env, "/no/such/path", NULL, &fact, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_OBJECT_NOT_FOUND);
}

static int open_ground(void **state)
{
    (void)state;
    return ground_open(&ground);
}

static int close_ground(void **state)
{
    (void)state;
    ground_close(&ground);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_paths_are_refused_with_the_codes_of_AddToSnapshotSet),
        cmocka_unit_test(when_nothing_fits_every_provider_says_why),
        cmocka_unit_test(the_best_provider_is_chosen_and_another_may_be_named),
        cmocka_unit_test(a_bind_mount_and_another_subvolume_share_their_superblock),
        cmocka_unit_test(mounts_and_subvolumes_beneath_a_path_are_found_but_our_own_are_not),
        cmocka_unit_test(subvolumes_are_found_through_a_bind_mount_of_a_part),
        cmocka_unit_test(the_list_has_real_file_systems_with_their_provider),
        cmocka_unit_test(a_fact_carries_the_plan_and_a_path_without_provider_its_reason),
    };
    return cmocka_run_group_tests(tests, open_ground, close_ground);
}
