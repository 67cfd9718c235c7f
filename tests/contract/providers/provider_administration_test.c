/* What providers do with snapshots after they were taken: expose, unexpose, revert; each only with its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <btrfsutil.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/statvfs.h>

#include "base/ident.h"
#include "base/jsonspec.h"
#include "ground.h"
#include "providers/provider.h"
#include "sample.h"

struct place_case {
    const char *provider;
    const char *where; /* "btrfs", "xfs" or "plain" */
};

static struct ground ground;
static bool stop; /* what env->cancelled answers */

static bool cancelled(void *arg)
{
    (void)arg;
    return stop;
}

static struct provider_environment environment(void)
{
    return (struct provider_environment){
        .staging = ground.staging, .node = "node-a", .root = geteuid() == 0, .cancelled = cancelled};
}

/* A volume with one file "state", and a snapshot of it. */
struct taken {
    const struct provider *provider;
    struct provider_environment env;
    struct provider_snapshot snapshot;
    char path[PATH_MAX]; /* of the volume */
};

static void put(const char *directory, const char *name, const char *text)
{
    char path[PATH_MAX];
    str_format(path, sizeof(path), "%s/%s", directory, name);
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void assert_holds(const char *directory, const char *text)
{
    char path[PATH_MAX], found[64] = "";
    str_format(path, sizeof(path), "%s/state", directory);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, found, sizeof(found) - 1) > 0);
    assert_string_equal(found, text);
}

static void assert_ok(int r, const struct err *err)
{
    if (r != 0)
        fail_msg("%s: %s", hresult_name(err->hr), err->text);
}

static void take_again(struct taken *taken)
{
    struct err err = {0};
    uuid_v7(taken->snapshot.id);
    taken->snapshot.path[0] = '\0';
    assert_ok(taken->provider->prepare(&taken->env, &taken->snapshot, 1, &err), &err);
    assert_ok(taken->provider->create(&taken->env, &taken->snapshot, 1, &err), &err);
}

/* False (said aloud) where this machine has no such place, or may not mount. */
static bool take(const struct place_case *c, struct taken *ret)
{
    char id[UUID_SIZE];
    const char *top = str_eq(c->where, "btrfs") ? ground.btrfs : str_eq(c->where, "xfs") ? ground.xfs : ground.plain;
    if (!*top || geteuid() != 0) {
        print_message("skipped: %s on %s: %s\n", c->provider, c->where, ground.why);
        return false;
    }
    *ret = (struct taken){.provider = provider_by_name(c->provider), .env = environment(), .snapshot = {.bytes = -1}};
    stop = false;
    str_format(ret->path, PATH_MAX, "%s/volume-%.8s", top, uuid_v7(id) + 24);
    if (str_eq(c->where, "btrfs"))
        assert_int_equal(btrfs_util_create_subvolume(ret->path, 0, NULL, NULL), BTRFS_UTIL_OK);
    else
        assert_int_equal(mkdir(ret->path, 0755), 0);
    put(ret->path, "state", "before");
    struct volume *volume = &ret->snapshot.volume;
    str_copy(volume->path, PATH_MAX, ret->path);
    str_copy(volume->requested, PATH_MAX, ret->path);
    str_copy(volume->mount_point, PATH_MAX, top);
    str_copy(volume->fs_type, sizeof(volume->fs_type), str_eq(c->where, "plain") ? "ext4" : c->where);
    uuid_v7(ret->snapshot.set_id);
    uuid_v7(ret->snapshot.session_id);
    take_again(ret);
    return true;
}

static void give_back(struct taken *taken)
{
    struct err err = {0};
    assert_ok(taken->provider->remove(&taken->env, &taken->snapshot, &err), &err);
    if (btrfs_util_is_subvolume(taken->path) == BTRFS_UTIL_OK)
        assert_int_equal(btrfs_util_delete_subvolume(taken->path, 0), BTRFS_UTIL_OK);
    else
        assert_int_equal(ground_run((const char *const[]){"rm", "-rf", taken->path, NULL}), 0);
}

static int open_shown(char ret[PATH_MAX])
{
    str_format(ret, PATH_MAX, "%s/shown", ground.base);
    assert_true(mkdir(ret, 0755) == 0 || errno == EEXIST);
    int fd = open(ret, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* --- expose, unexpose --- */

static void a_snapshot_is_exposed_read_only_twice_and_unexposed_twice(void **state)
{
    struct taken taken;
    struct err err = {0};
    struct statvfs fs;
    char shown[PATH_MAX], path[PATH_MAX + 8];
    if (!take(*state, &taken))
        skip();
    AUTO_FD int target = open_shown(shown);
    assert_ok(taken.provider->expose(&taken.env, &taken.snapshot, target, &err), &err);
    put(taken.path, "state", "after");
    assert_holds(shown, "before");
    AUTO_FD int again = open_shown(shown);
    assert_ok(taken.provider->expose(&taken.env, &taken.snapshot, again, &err), &err);
    assert_int_equal(statvfs(shown, &fs), 0);
    assert_int_equal(fs.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV), ST_RDONLY | ST_NOSUID | ST_NODEV);
    str_format(path, sizeof(path), "%s/new", shown);
    assert_int_equal(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), -1);
    assert_int_equal(errno, EROFS);
    AUTO_FD int open_in_it = openat(again, "state", O_RDONLY | O_CLOEXEC);
    assert_true(open_in_it >= 0);
    for (int i = 0; i < 2; i++)
        assert_ok(taken.provider->unexpose(&taken.env, &taken.snapshot, shown, &err), &err);
    str_format(path, sizeof(path), "%s/state", shown);
    assert_int_equal(access(path, F_OK), -1);
    char text[8] = "";
    assert_int_equal(read(open_in_it, text, sizeof(text)), 6);
    give_back(&taken);
}

static void another_mount_is_neither_covered_nor_unmounted(void **state)
{
    struct taken taken;
    struct err err = {0};
    char shown[PATH_MAX];
    if (!take(*state, &taken))
        skip();
    close(open_shown(shown));
    assert_int_equal(mount(taken.path, shown, NULL, MS_BIND, NULL), 0);
    AUTO_FD int target = open_shown(shown);
    assert_int_equal(taken.provider->expose(&taken.env, &taken.snapshot, target, &err), -1);
    assert_int_equal(err.hr, (uint32_t)E_INVALIDARG);
    assert_ok(taken.provider->unexpose(&taken.env, &taken.snapshot, shown, &err), &err);
    close(target);
    target = -1;
    assert_int_equal(umount2(shown, MNT_DETACH), 0);
    give_back(&taken);
}

static void what_is_not_ours_or_gone_is_not_touched(void **state)
{
    struct taken taken;
    struct err err = {0};
    char shown[PATH_MAX];
    if (!take(*state, &taken))
        skip();
    struct provider_environment other = taken.env;
    struct provider_revert revert = {.job = "job", .force = true};
    other.node = "node-b";
    AUTO_FD int target = open_shown(shown);
    assert_int_equal(taken.provider->expose(&other, &taken.snapshot, target, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_PROVIDER_VETO);
    assert_int_equal(taken.provider->unexpose(&other, &taken.snapshot, shown, &err), -1);
    if (taken.provider->revert) {
        put(taken.path, "state", "after");
        assert_int_equal(taken.provider->revert(&other, &taken.snapshot, &revert, &err), -1);
        assert_int_equal(err.hr, (uint32_t)VSS_E_PROVIDER_VETO);
        assert_int_equal(taken.provider->reverted(&other, &taken.snapshot, "job", &err), -1);
        assert_holds(taken.path, "after");
    }
    assert_ok(taken.provider->remove(&taken.env, &taken.snapshot, &err), &err);
    assert_int_equal(taken.provider->expose(&taken.env, &taken.snapshot, target, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_OBJECT_NOT_FOUND);
    if (taken.provider->revert)
        assert_int_equal(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), -1);
    give_back(&taken);
}

/* --- revert --- */

static void a_volume_is_reverted_and_its_job_is_known(void **state)
{
    struct taken taken;
    struct err err = {0};
    struct provider_revert revert = {.job = "first", .only_check = true};
    if (!take(*state, &taken))
        skip();
    put(taken.path, "state", "after");
    assert_ok(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), &err);
    assert_holds(taken.path, "after");
    assert_int_equal(taken.provider->reverted(&taken.env, &taken.snapshot, "first", &err), 0);
    revert.only_check = false;
    assert_ok(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), &err);
    assert_string_equal(revert.left, "");
    assert_holds(taken.path, "before");
    assert_int_equal(taken.provider->reverted(&taken.env, &taken.snapshot, "first", &err), 1);
    assert_int_equal(taken.provider->reverted(&taken.env, &taken.snapshot, "second", &err), 0);
    put(taken.path, "state", "again");
    revert.job = "second";
    assert_ok(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), &err);
    assert_holds(taken.path, "before");
    give_back(&taken);
}

static void a_volume_in_use_is_reverted_by_force_only(void **state)
{
    struct taken taken;
    struct err err = {0};
    char path[PATH_MAX + 8];
    int ready[2];
    struct provider_revert revert = {.job = "job"};
    if (!take(*state, &taken))
        skip();
    put(taken.path, "state", "after");
    str_format(path, sizeof(path), "%s/state", taken.path);
    assert_int_equal(pipe(ready), 0);
    pid_t user = fork(); /* our own files do not count */
    if (user == 0) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char x;
    assert_int_equal(read(ready[0], &x, 1), 1);
    assert_int_equal(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_VOLUME_IN_USE);
    str_format(path, sizeof(path), "%d (", (int)user);
    assert_non_null(strstr(err.text, path));
    assert_holds(taken.path, "after");
    revert.force = true;
    assert_ok(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), &err);
    assert_holds(taken.path, "before");
    kill(user, SIGKILL);
    waitpid(user, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    give_back(&taken);
}

/* Its core is gone, and the next one may have been told by now that nothing happened. */
static void a_revert_that_is_stopped_before_it_begins_changes_nothing(void **state)
{
    struct taken taken;
    struct err err = {0};
    struct provider_revert revert = {.job = "job"};
    if (!take(*state, &taken))
        skip();
    put(taken.path, "state", "after");
    stop = true;
    assert_int_equal(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_S_ASYNC_CANCELLED);
    assert_holds(taken.path, "after");
    stop = false;
    give_back(&taken);
}

static void a_subvolume_in_the_volume_is_not_lost(void **state)
{
    struct taken taken;
    struct err err = {0};
    char nested[PATH_MAX + 8];
    struct provider_revert revert = {.job = "job", .force = true};
    if (!take(*state, &taken))
        skip();
    str_format(nested, sizeof(nested), "%s/nested", taken.path);
    assert_int_equal(btrfs_util_create_subvolume(nested, 0, NULL, NULL), BTRFS_UTIL_OK);
    put(nested, "state", "kept");
    assert_int_equal(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_PROVIDER_VETO);
    assert_holds(nested, "kept");
    assert_int_equal(btrfs_util_delete_subvolume(nested, 0), BTRFS_UTIL_OK);
    give_back(&taken);
}

static void the_default_subvolume_is_not_exchanged(void **state)
{
    struct taken taken;
    struct err err = {0};
    struct provider_revert revert = {.job = "job", .force = true};
    if (!take(*state, &taken))
        skip();
    put(taken.path, "state", "after");
    assert_int_equal(btrfs_util_set_default_subvolume(taken.path, 0), BTRFS_UTIL_OK);
    assert_int_equal(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_PROVIDER_VETO);
    assert_holds(taken.path, "after");
    assert_int_equal(btrfs_util_set_default_subvolume(taken.path, 5), BTRFS_UTIL_OK);
    give_back(&taken);
}

static void without_root_nothing_is_reverted(void **state)
{
    struct taken taken;
    struct err err = {0};
    struct provider_revert revert = {.job = "job", .force = true};
    if (!take(*state, &taken))
        skip();
    taken.env.root = false;
    assert_int_equal(taken.provider->revert(&taken.env, &taken.snapshot, &revert, &err), -1);
    assert_int_equal(err.hr, (uint32_t)E_ACCESSDENIED);
    taken.env.root = true;
    give_back(&taken);
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

static struct place_case cases[] = {
    {"btrfs", "btrfs"}, {"reflink", "btrfs"}, {"reflink", "xfs"}, {"copy", "xfs"}, {"copy", "plain"},
};

static const struct {
    const char *title;
    CMUnitTestFunction test;
    bool revert;
} checks[] = {
    {"a snapshot is exposed read-only, twice, and unexposed, twice",
     a_snapshot_is_exposed_read_only_twice_and_unexposed_twice, false},
    {"another mount is neither covered nor unmounted", another_mount_is_neither_covered_nor_unmounted, false},
    {"what is not ours, or gone, is not touched", what_is_not_ours_or_gone_is_not_touched, false},
    {"a volume is reverted, and its job is known", a_volume_is_reverted_and_its_job_is_known, true},
    {"a volume in use is reverted by force only", a_volume_in_use_is_reverted_by_force_only, true},
    {"a revert that is stopped before it begins changes nothing",
     a_revert_that_is_stopped_before_it_begins_changes_nothing, true},
    {"a subvolume in the volume is not lost", a_subvolume_in_the_volume_is_not_lost, true},
    {"the default subvolume is not exchanged", the_default_subvolume_is_not_exchanged, true},
    {"without root nothing is reverted", without_root_nothing_is_reverted, true},
};

int main(void)
{
    enum { N = ELEMENTS(cases) * ELEMENTS(checks) };
    static struct CMUnitTest tests[N];
    static char titles[N][160];
    size_t n = 0;
    for (size_t i = 0; i < N; i++) {
        struct place_case *c = &cases[i / ELEMENTS(checks)];
        if (checks[i % ELEMENTS(checks)].revert && !provider_by_name(c->provider)->revert)
            continue;
        str_format(titles[n], sizeof(titles[n]), "%s on %s: %s", c->provider, c->where,
                   checks[i % ELEMENTS(checks)].title);
        tests[n] = (struct CMUnitTest){
            .name = titles[n], .test_func = checks[i % ELEMENTS(checks)].test, .initial_state = c};
        n++;
    }
    return _cmocka_run_group_tests("administration of snapshots", tests, n, open_ground, close_ground);
}
