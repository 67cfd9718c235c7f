/* Every provider through the same checks, on every file system where it has to work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <btrfsutil.h>
#include <grp.h>

#include "base/ident.h"
#include "base/jsonspec.h"
#include "ground.h"
#include "providers/provider.h"
#include "sample.h"

struct place_case {
    const char *provider;
    const char *where; /* "btrfs", "xfs" or "plain" */
    bool atomic;
};

static struct ground ground;
static bool stop; /* what env->cancelled answers */
static int calls, stop_after;

static bool cancelled(void *arg)
{
    (void)arg;
    calls++;
    return stop || (stop_after && calls > stop_after);
}

static struct provider_environment environment(void)
{
    return (struct provider_environment){
        .staging = ground.staging, .node = "node-a", .root = geteuid() == 0, .cancelled = cancelled};
}

/* Where this case works; NULL (said aloud) when this machine has no such place. */
static const char *top_of(const struct place_case *c)
{
    const char *top = str_eq(c->where, "btrfs") ? ground.btrfs : str_eq(c->where, "xfs") ? ground.xfs : ground.plain;
    if (*top)
        return top;
    print_message("skipped: %s on %s: %s\n", c->provider, c->where, ground.why);
    return NULL;
}

/* A fresh directory (a subvolume on btrfs) beneath the top. */
static void make_volume(const struct place_case *c, const char *top, const char *name, char ret[PATH_MAX])
{
    char id[UUID_SIZE];
    str_format(ret, PATH_MAX, "%s/%s-%.8s", top, name, uuid_v7(id) + 24);
    if (str_eq(c->where, "btrfs"))
        assert_int_equal(btrfs_util_create_subvolume(ret, 0, NULL, NULL), BTRFS_UTIL_OK);
    else
        assert_int_equal(mkdir(ret, 0755), 0);
}

static void remove_volume(const char *path)
{
    if (btrfs_util_is_subvolume(path) == BTRFS_UTIL_OK)
        assert_int_equal(btrfs_util_delete_subvolume(path, 0), BTRFS_UTIL_OK);
    else
        assert_int_equal(ground_run((const char *const[]){"rm", "-rf", path, NULL}), 0);
}

static struct provider_snapshot snapshot_of(const struct place_case *c, const char *top, const char *path)
{
    struct provider_environment env = environment();
    struct provider_match match;
    struct provider_snapshot snapshot = {.bytes = -1};
    str_copy(snapshot.volume.path, PATH_MAX, path);
    str_copy(snapshot.volume.requested, PATH_MAX, path);
    /* On the temporary file system no mount point is needed: only copy works there. */
    str_copy(snapshot.volume.mount_point, PATH_MAX, top);
    str_copy(snapshot.volume.fs_type, sizeof(snapshot.volume.fs_type), str_eq(c->where, "plain") ? "ext4" : c->where);
    provider_by_name(c->provider)->match(&env, &snapshot.volume, &match);
    assert_string_equal(match.reason, "");
    assert_true(match.score > 0);
    str_copy(snapshot.volume.path, PATH_MAX, match.volume);
    uuid_v7(snapshot.id);
    uuid_v7(snapshot.set_id);
    uuid_v7(snapshot.session_id);
    return snapshot;
}

static int create(const struct provider *provider, struct provider_snapshot *set, size_t n, struct err *err)
{
    struct provider_environment env = environment();
    stop = false;
    stop_after = 0;
    calls = 0;
    return provider->prepare(&env, set, n, err) < 0 ? -1 : provider->create(&env, set, n, err);
}

static void assert_ok(int r, const struct err *err)
{
    if (r != 0)
        fail_msg("%s: %s", hresult_name(err->hr), err->text);
}

static size_t count_listed(const struct provider *provider, const struct provider_snapshot *snapshot)
{
    struct provider_environment env = environment();
    struct err err = {0};
    AUTO_JSON json_t *items = NULL;
    size_t n = 0;
    assert_ok(provider->list(&env, &snapshot->volume, 1, &items, &err), &err);
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        if (!str_eq(json_str(item, "id", ""), snapshot->id))
            continue;
        n++;
        assert_string_equal(json_str(item, "set_id", ""), snapshot->set_id);
        assert_string_equal(json_str(item, "session_id", ""), snapshot->session_id);
        assert_string_equal(json_str(item, "volume", ""), snapshot->volume.path);
        if (*snapshot->path)
            assert_string_equal(json_str(item, "path", ""), snapshot->path);
    }
    return n;
}

static void drop(const struct provider *provider, const struct provider_snapshot *snapshot)
{
    struct provider_environment env = environment();
    struct err err = {0};
    assert_ok(provider->remove(&env, snapshot, &err), &err);
    assert_int_equal(access(snapshot->path, F_OK), -1);
    assert_int_equal(count_listed(provider, snapshot), 0);
}

/* What a create that failed has left goes with remove, made or not (provider.h). */
static void give_up(const struct provider *provider, const struct provider_snapshot *set, size_t n)
{
    struct provider_environment env = environment();
    struct err err = {0};
    for (size_t i = 0; i < n; i++) {
        assert_ok(provider->remove(&env, &set[i], &err), &err);
        assert_int_equal(count_listed(provider, &set[i]), 0);
    }
}

static void a_snapshot_is_listed_with_its_mark_and_removed_twice(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "life", path);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    assert_int_equal(count_listed(provider, &snapshot), 0);
    assert_ok(create(provider, &snapshot, 1, &err), &err);
    assert_int_equal(snapshot.atomic, c->atomic);
    assert_false(snapshot.writable);
    assert_int_equal(count_listed(provider, &snapshot), 1);
    drop(provider, &snapshot);
    drop(provider, &snapshot);
    remove_volume(path);
}

static void a_snapshot_keeps_every_attribute_and_does_not_change_with_its_source(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX], reference[PATH_MAX];
    struct err err = {0};
    struct difference why = {""};
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "faithful", path);
    assert_int_equal(sample_make(path, !str_eq(c->where, "plain") || geteuid() == 0), 0);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    assert_ok(create(provider, &snapshot, 1, &err), &err);
    if (trees_differ(path, snapshot.path, NULL, &why))
        fail_msg("%s", why.text);
    str_format(reference, sizeof(reference), "%s/plain", path);
    AUTO_FD int fd = open(reference, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, "overwritten", 11), 11);
    char text[16] = "";
    str_format(reference, sizeof(reference), "%s/plain", snapshot.path);
    AUTO_FD int old = open(reference, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(old, text, sizeof(text)), 5);
    assert_memory_equal(text, "hello", 5);
    drop(provider, &snapshot);
    remove_volume(path);
}

static void a_tree_of_300_levels_is_carried_and_removed(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "deep", path);
    AUTO_FD int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(mkdirat(dir, "a-directory-with-a-name-that-makes-the-path-longer-than-any-buffer", 0755), 0);
        int next = openat(dir, "a-directory-with-a-name-that-makes-the-path-longer-than-any-buffer",
                          O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(dir);
        dir = next;
    }
    assert_int_equal(sample_file(dir, "bottom", "deep down", 0600), 0);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    assert_ok(create(provider, &snapshot, 1, &err), &err);
    int depth = 0;
    AUTO_FD int at = open(snapshot.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int next; (next = openat(at, "a-directory-with-a-name-that-makes-the-path-longer-than-any-buffer",
                                  O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0;
         depth++) {
        close(at);
        at = next;
    }
    assert_int_equal(depth, 300);
    assert_int_equal(faccessat(at, "bottom", F_OK, 0), 0);
    drop(provider, &snapshot);
    remove_volume(path);
}

static void a_set_that_fails_behind_its_first_volume_leaves_nothing(void **state)
{
#ifdef QUIESCED_FAULTS
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char one[PATH_MAX], two[PATH_MAX], name[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "one", one);
    make_volume(c, top, "two", two);
    struct provider_snapshot set[2] = {snapshot_of(c, top, one), snapshot_of(c, top, two)};
    str_format(name, sizeof(name), "%s/provider.%s.create", ground.base, c->provider);
    setenv("QUIESCED_FAULT_DIR", ground.base, 1);
    assert_int_equal(mknod(name, S_IFREG | 0600, 0), 0);
    assert_int_equal(create(provider, set, 2, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_UNEXPECTED_PROVIDER_ERROR);
    unlink(name);
    assert_int_equal(access(set[0].path, F_OK), 0); /* nothing is removed while the applications are held */
    give_up(provider, set, 2);
    assert_int_equal(access(set[0].path, F_OK), -1);
    /* The same set succeeds afterwards, so nothing of it was in the way. */
    assert_ok(create(provider, set, 2, &err), &err);
    assert_int_equal(count_listed(provider, &set[0]), 1);
    assert_int_equal(count_listed(provider, &set[1]), 1);
    drop(provider, &set[0]);
    drop(provider, &set[1]);
    remove_volume(one);
    remove_volume(two);
#else
    (void)state;
    print_message("skipped: the fault points are not in this build (preset faults)\n");
    skip();
#endif
}

static void a_set_of_which_one_volume_is_gone_leaves_nothing(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char one[PATH_MAX], two[PATH_MAX];
    struct err err = {0};
    struct provider_environment env = environment();
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "one", one);
    make_volume(c, top, "two", two);
    struct provider_snapshot set[2] = {snapshot_of(c, top, one), snapshot_of(c, top, two)};
    assert_ok(provider->prepare(&env, set, 2, &err), &err);
    remove_volume(two);
    assert_int_equal(provider->create(&env, set, 2, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_OBJECT_NOT_FOUND);
    give_up(provider, set, 2);
    remove_volume(one);
}

static void a_cancelled_set_leaves_nothing(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX];
    struct err err = {0};
    struct provider_environment env = environment();
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "cancel", path);
    assert_int_equal(sample_make(path, false), 0);
    for (int after = 0; after < (c->atomic ? 1 : 3); after++) {
        struct provider_snapshot snapshot = snapshot_of(c, top, path);
        stop = false;
        stop_after = 0;
        assert_ok(provider->prepare(&env, &snapshot, 1, &err), &err);
        calls = 0;
        stop_after = after; /* 0: at once; later ones stop in the middle of the tree */
        stop = after == 0;
        assert_int_equal(provider->create(&env, &snapshot, 1, &err), -1);
        assert_int_equal(err.hr, (uint32_t)VSS_S_ASYNC_CANCELLED);
        stop = false;
        stop_after = 0;
        give_up(provider, &snapshot, 1);
    }
    remove_volume(path);
}

static void what_does_not_carry_our_mark_is_not_removed(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX], mark[PATH_MAX], aside[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "mark", path);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    assert_ok(create(provider, &snapshot, 1, &err), &err);
    struct provider_environment env = environment();
    env.node = "node-b";
    assert_int_equal(provider->remove(&env, &snapshot, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_PROVIDER_VETO);
    AUTO_JSON json_t *items = NULL;
    assert_ok(provider->list(&env, &snapshot.volume, 1, &items, &err), &err);
    assert_int_equal(json_array_size(items), 0);
    env.node = "node-a";
    str_format(mark, sizeof(mark), "%s.json", snapshot.path);
    str_format(aside, sizeof(aside), "%s.aside", snapshot.path);
    assert_int_equal(rename(mark, aside), 0);
    assert_int_equal(provider->remove(&env, &snapshot, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_PROVIDER_VETO);
    assert_int_equal(access(snapshot.path, F_OK), 0);
    assert_int_equal(rename(aside, mark), 0);
    struct provider_snapshot elsewhere = snapshot;
    str_format(elsewhere.path, sizeof(elsewhere.path), "%s/%s", path, snapshot.id);
    assert_int_equal(provider->remove(&env, &elsewhere, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_PROVIDER_VETO);
    drop(provider, &snapshot);
    remove_volume(path);
}

static void an_existing_snapshot_is_never_replaced(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "again", path);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    assert_ok(create(provider, &snapshot, 1, &err), &err);
    struct provider_snapshot again = snapshot;
    assert_int_equal(create(provider, &again, 1, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_OBJECT_ALREADY_EXISTS);
    assert_int_equal(access(snapshot.path, F_OK), 0);
    drop(provider, &snapshot);
    remove_volume(path);
}

static void an_orphan_is_found_and_removed_without_its_volume(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "orphan", path);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    assert_ok(create(provider, &snapshot, 1, &err), &err);
    remove_volume(path);
    struct provider_snapshot orphan = {.bytes = -1}; /* what recovery knows: the list's words and the mount */
    str_copy(orphan.id, sizeof(orphan.id), snapshot.id);
    str_copy(orphan.set_id, sizeof(orphan.set_id), snapshot.set_id);
    str_copy(orphan.session_id, sizeof(orphan.session_id), snapshot.session_id);
    str_copy(orphan.path, sizeof(orphan.path), snapshot.path);
    orphan.volume = snapshot.volume;
    assert_int_equal(count_listed(provider, &orphan), 1);
    drop(provider, &orphan);
}

static void nobody_else_can_reach_a_snapshot(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX], place[PATH_MAX];
    struct err err = {0};
    struct stat stat_of;
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "private", path);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    assert_int_equal(chmod(ground.staging, 0711), 0); /* writers pass through it to their own folders */
    assert_ok(create(provider, &snapshot, 1, &err), &err);
    str_copy(place, sizeof(place), snapshot.path);
    *strrchr(place, '/') = '\0';
    assert_int_equal(stat(place, &stat_of), 0);
    assert_int_equal(stat_of.st_mode & 07777, 0700);
    assert_int_equal(stat_of.st_uid, geteuid());
    drop(provider, &snapshot);
    remove_volume(path);
}

static void a_prepared_set_that_is_given_up_leaves_no_mark(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    struct provider_environment env = environment();
    char path[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "given-up", path);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    stop = false;
    assert_ok(provider->prepare(&env, &snapshot, 1, &err), &err);
    assert_int_equal(count_listed(provider, &snapshot), 1);
    assert_ok(provider->remove(&env, &snapshot, &err), &err);
    assert_int_equal(count_listed(provider, &snapshot), 0);
    remove_volume(path);
}

static void the_top_of_the_mount_is_captured_without_our_own_snapshots(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    struct provider_snapshot set[2];
    char inner[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    if (c->atomic) {
        print_message(
            "skipped: a btrfs snapshot shows the place of snapshots as the directory it is; movers leave it out\n");
        skip();
    }
    for (size_t i = 0; i < 2; i++) {
        set[i] = snapshot_of(c, top, top);
        assert_ok(create(provider, &set[i], 1, &err), &err);
    }
    str_format(inner, sizeof(inner), "%s/.quiesced", set[1].path);
    assert_int_equal(access(inner, F_OK), -1);
    drop(provider, &set[0]);
    drop(provider, &set[1]);
}

static void a_mount_beneath_the_source_is_not_entered(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX], inner[PATH_MAX], file[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    if (*ground.why) {
        print_message("skipped: %s\n", ground.why);
        skip();
    }
    make_volume(c, top, "nested", path);
    str_format(inner, sizeof(inner), "%s/inner", path);
    assert_int_equal(mkdir(inner, 0755), 0);
    assert_int_equal(mount("none", inner, "tmpfs", 0, NULL), 0);
    str_format(file, sizeof(file), "%s/secret", inner);
    AUTO_FD int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    int r = create(provider, &snapshot, 1, &err);
    close(TAKE_FD(fd));
    assert_int_equal(umount2(inner, 0), 0);
    assert_ok(r, &err);
    str_format(inner, sizeof(inner), "%s/inner", snapshot.path);
    str_format(file, sizeof(file), "%s/inner/secret", snapshot.path);
    assert_int_equal(access(inner, F_OK), 0);
    assert_int_equal(access(file, F_OK), -1);
    drop(provider, &snapshot);
    remove_volume(path);
}

static void the_plan_says_whether_it_is_one_instant(void **state)
{
    const struct place_case *c = *state;
    struct provider_environment env = environment();
    struct provider_plan plan = {0};
    char path[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    make_volume(c, top, "plan", path);
    assert_int_equal(sample_make(path, false), 0);
    stop = false;
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    assert_ok(provider_by_name(c->provider)->plan(&env, &snapshot.volume, &plan, &err), &err);
    assert_int_equal(plan.atomic, c->atomic);
    assert_true(plan.window_ms > 0);
    assert_int_equal(plan.freeze, str_eq(c->provider, "copy") ? FREEZE_NOT_NEEDED : FREEZE_FORBIDDEN);
    if (str_eq(c->provider, "copy"))
        assert_true(plan.bytes > 16 << 20);
    remove_volume(path);
}

static void a_foreign_directory_in_the_place_of_ours_is_refused(void **state)
{
    const struct place_case *c = *state;
    const struct provider *provider = provider_by_name(c->provider);
    char path[PATH_MAX], place[PATH_MAX];
    struct err err = {0};
    const char *top = top_of(c);
    if (!top)
        skip();
    if (geteuid() != 0) {
        print_message("skipped: needs root to give a directory away\n");
        skip();
    }
    make_volume(c, top, "foreign", path);
    struct provider_snapshot snapshot = snapshot_of(c, top, path);
    str_format(place, sizeof(place), "%s/.quiesced", str_eq(c->provider, "copy") ? ground.staging : top);
    mkdir(place, 0700);
    assert_int_equal(chown(place, 65534, 65534), 0);
    assert_int_equal(create(provider, &snapshot, 1, &err), -1);
    assert_int_equal(chown(place, 0, 0), 0);
    assert_int_equal(err.hr, (uint32_t)VSS_E_PROVIDER_VETO);
    remove_volume(path);
}

/* In a child that is nobody: a copy of an own, readable tree. Exit status 0 = right. */
static int life_of_a_plain_user(const char *home)
{
    char data[PATH_MAX], staging[PATH_MAX];
    struct err err = {0};
    struct difference why = {""};
    struct place_case c = {"copy", "plain", false};
    str_format(data, sizeof(data), "%s/data", home);
    str_format(staging, sizeof(staging), "%s/staging", home);
    if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0 || mkdir(data, 0755) < 0 ||
        mkdir(staging, 0700) < 0)
        return 1;
    str_copy(ground.staging, sizeof(ground.staging), staging);
    if (sample_make(data, false) < 0)
        return 2;
    struct provider_snapshot snapshot = snapshot_of(&c, home, data);
    if (create(provider_by_name("copy"), &snapshot, 1, &err) < 0)
        return 3;
    if (trees_differ(data, snapshot.path, NULL, &why))
        return 4;
    struct provider_environment env = environment();
    return provider_by_name("copy")->remove(&env, &snapshot, &err) < 0 || access(snapshot.path, F_OK) == 0 ? 5 : 0;
}

static void a_plain_user_copies_and_removes_what_it_may_read(void **state)
{
    char home[PATH_MAX];
    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: this run is a plain user's already\n");
        skip();
    }
    str_format(home, sizeof(home), "%s/home", ground.base);
    assert_int_equal(mkdir(home, 0755), 0);
    assert_int_equal(chown(home, 65534, 65534), 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(life_of_a_plain_user(home));
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void a_plain_user_is_told_why_btrfs_is_not_available(void **state)
{
    struct provider_environment env = environment();
    struct provider_availability may = {.available = true};
    (void)state;
    env.root = false;
    provider_by_name("btrfs")->probe(&env, &may);
    assert_false(may.available);
    assert_non_null(strstr(may.reason, "user_subvol_rm_allowed"));
}

static void what_does_not_fit_says_why(void **state)
{
    static const struct {
        const char *provider, *fs_type, *path, *reason;
    } rows[] = {{"btrfs", "ext4", "/tmp", "is no btrfs"},
                {"reflink", "ext4", "/tmp", "has no reflinks"},
                {"copy", "proc", "/proc", "view of the kernel"},
                {"copy", "ext4", "STAGING", "staging directory itself"}};
    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        struct provider_environment env = environment();
        struct provider_match match;
        struct volume volume = {0};
        str_copy(volume.path, PATH_MAX, str_eq(rows[i].path, "STAGING") ? ground.staging : rows[i].path);
        str_copy(volume.mount_point, PATH_MAX, "/");
        str_copy(volume.fs_type, sizeof(volume.fs_type), rows[i].fs_type);
        provider_by_name(rows[i].provider)->match(&env, &volume, &match);
        assert_int_equal(match.score, 0);
        assert_non_null(strstr(match.reason, rows[i].reason));
    }
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
    {"btrfs", "btrfs", true}, {"reflink", "btrfs", false}, {"reflink", "xfs", false},
    {"copy", "btrfs", false}, {"copy", "xfs", false},      {"copy", "plain", false},
};

static const struct {
    const char *title;
    CMUnitTestFunction test;
} checks[] = {
    {"a snapshot is listed with its mark, and removed twice", a_snapshot_is_listed_with_its_mark_and_removed_twice},
    {"a snapshot keeps every attribute and does not change with its source",
     a_snapshot_keeps_every_attribute_and_does_not_change_with_its_source},
    {"a tree of 300 levels is carried and removed", a_tree_of_300_levels_is_carried_and_removed},
    {"a set that fails behind its first volume leaves nothing",
     a_set_that_fails_behind_its_first_volume_leaves_nothing},
    {"a set of which one volume is gone leaves nothing", a_set_of_which_one_volume_is_gone_leaves_nothing},
    {"a cancelled set leaves nothing", a_cancelled_set_leaves_nothing},
    {"what does not carry our mark is not removed", what_does_not_carry_our_mark_is_not_removed},
    {"an existing snapshot is never replaced", an_existing_snapshot_is_never_replaced},
    {"an orphan is found and removed without its volume", an_orphan_is_found_and_removed_without_its_volume},
    {"nobody else can reach a snapshot", nobody_else_can_reach_a_snapshot},
    {"a prepared set that is given up leaves no mark", a_prepared_set_that_is_given_up_leaves_no_mark},
    {"the top of the mount is captured without our own snapshots",
     the_top_of_the_mount_is_captured_without_our_own_snapshots},
    {"a mount beneath the source is not entered", a_mount_beneath_the_source_is_not_entered},
    {"the plan says whether it is one instant", the_plan_says_whether_it_is_one_instant},
    {"a foreign directory in the place of ours is refused", a_foreign_directory_in_the_place_of_ours_is_refused},
};

int main(void)
{
    enum { N = ELEMENTS(cases) * ELEMENTS(checks), SINGLE = 3 };
    static struct CMUnitTest tests[N + SINGLE] = {
        cmocka_unit_test(a_plain_user_copies_and_removes_what_it_may_read),
        cmocka_unit_test(a_plain_user_is_told_why_btrfs_is_not_available),
        cmocka_unit_test(what_does_not_fit_says_why),
    };
    static char titles[N][160];
    for (size_t i = 0; i < N; i++) {
        struct place_case *c = &cases[i / ELEMENTS(checks)];
        str_format(titles[i], sizeof(titles[i]), "%s on %s: %s", c->provider, c->where,
                   checks[i % ELEMENTS(checks)].title);
        tests[SINGLE + i] =
            (struct CMUnitTest){.name = titles[i], .test_func = checks[i % ELEMENTS(checks)].test, .initial_state = c};
    }
    return cmocka_run_group_tests_name("providers", tests, open_ground, close_ground);
}
