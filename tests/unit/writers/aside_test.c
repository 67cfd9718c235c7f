/* Old data moved aside, put back and removed, on plain directories. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

static int moves_left = -1;      /* before a disk fails; -1: it does not */
static const char *unreadable;   /* end of a directory's name that cannot be opened now */

static int move_or_fail(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    if (moves_left == 0) {
        errno = EIO;
        return -1;
    }
    moves_left -= moves_left > 0 ? 1 : 0;
    return renameat2(from_fd, from, to_fd, to, flags);
}

static DIR *open_or_fail(const char *path)
{
    if (!unreadable || !strstr(path, unreadable))
        return opendir(path);
    errno = EMFILE;
    return NULL;
}

#define renameat2 move_or_fail
#define opendir open_or_fail
#include "writers/inplace/aside.c"
#undef renameat2
#undef opendir

static char top[PATH_MAX];

static void put(const char *name, const char *text)
{
    AUTO_FREE char *path = str_new("%s/%s", top, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void directory(const char *name)
{
    AUTO_FREE char *path = str_new("%s/%s", top, name);
    assert_int_equal(mkdir(path, 0750), 0);
}

static bool holds(const char *name, const char *text)
{
    char found[64] = "";
    AUTO_FREE char *path = str_new("%s/%s", top, name);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    size_t n = fread(found, 1, sizeof(found) - 1, file);
    fclose(file);
    found[n] = '\0';
    return str_eq(found, text);
}

static size_t count(const char *name)
{
    AUTO_FREE char *path = str_new("%s/%s", top, name);
    DIR *dir = opendir(path);
    size_t n = 0;
    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n - 2;
}

static json_t *sets(const char *first, const char *spec, const char *second)
{
    json_t *list = json_array();
    AUTO_FREE char *one = str_new("%s/%s", top, first);
    AUTO_FREE char *two = str_new("%s/%s", top, second);
    json_add(list, json_pack("{s:s, s:s}", "path", one, "spec", spec));
    json_add(list, json_pack("{s:s, s:s}", "path", two, "spec", "log.*"));
    return list;
}

static int begin(void **state)
{
    (void)state;
    str_copy(top, sizeof(top), "/tmp/quiesced-aside-XXXXXX");
    assert_non_null(mkdtemp(top));
    moves_left = -1;
    unreadable = NULL;
    directory("data");
    directory("data/inner");
    directory("logs");
    put("data/a", "old a");
    put("data/inner/b", "old b");
    put("data/.hidden", "old hidden");
    put("logs/log.1", "old log");
    put("logs/other", "not ours");
    return 0;
}

static int end(void **state)
{
    (void)state;
    return remove_tree(AT_FDCWD, top, INT64_MAX) ? 0 : -1;
}

static bool all_is_old(void)
{
    return holds("data/a", "old a") && holds("data/inner/b", "old b") && holds("data/.hidden", "old hidden") &&
           holds("logs/log.1", "old log") && holds("logs/other", "not ours");
}

static bool only_old(void)
{
    return all_is_old() && count("") == 2 && count("data") == 3 && count("logs") == 2;
}

static void what_is_taken_leaves_its_place_and_comes_back(void **state)
{
    (void)state;
    struct err err = {0};
    AUTO_JSON json_t *list = sets("data", "*", "logs");
    struct aside *aside = aside_new();
    assert_int_equal(aside_take(aside, list, &err), 0);
    assert_int_equal(count("data"), 0);
    assert_int_equal(count("logs"), 1);
    AUTO_FREE char *where = aside_where(aside);
    AUTO_FREE char *data = str_new("%s/data", top);
    AUTO_FREE char *left = aside_left(data);
    assert_non_null(strstr(where, "/data.before-restore-"));
    assert_true(strncmp(left, where, strlen(left)) == 0 && strstr(left, "/data.before-restore-"));
    assert_non_null(strstr(where, "/logs.before-restore-"));
    put("data/a", "new a");
    put("data/c", "new c");
    assert_int_equal(aside_put_back(aside, &err), 0);
    assert_true(holds("data/a", "old a") && holds("data/inner/b", "old b") && holds("data/.hidden", "old hidden"));
    assert_true(holds("logs/log.1", "old log") && holds("logs/other", "not ours"));
    assert_int_equal(count("data"), 3);
    AUTO_FREE char *failed = aside_where(aside);
    assert_non_null(strstr(failed, "/data.failed-restore-"));
    assert_int_equal(count(""), 3);
    assert_true(aside_remove(aside, INT64_MAX));
    assert_int_equal(count(""), 2);
    AUTO_FREE char *nothing = aside_left(data);
    assert_string_equal(nothing, "");
    aside_free(aside);
}

static void what_was_replaced_is_removed(void **state)
{
    (void)state;
    struct err err = {0};
    AUTO_JSON json_t *list = sets("data", "*", "logs");
    struct aside *aside = aside_new();
    assert_int_equal(aside_take(aside, list, &err), 0);
    put("data/a", "new a");
    assert_false(aside_remove(aside, 0));
    assert_true(aside_remove(aside, INT64_MAX));
    AUTO_FREE char *where = aside_where(aside);
    assert_string_equal(where, "");
    assert_int_equal(count(""), 2);
    assert_int_equal(count("data"), 1);
    assert_true(holds("logs/other", "not ours"));
    aside_free(aside);
}

/* The second set cannot be emptied: what was taken of the first comes back, and what was not taken is never touched. */
static void a_take_that_fails_half_way_changes_nothing(void **state)
{
    (void)state;
    struct err err = {0};
    AUTO_JSON json_t *list = sets("data", "*", "logs");
    struct aside *aside = aside_new();
    unreadable = "/logs";
    assert_int_equal(aside_take(aside, list, &err), -1);
    unreadable = NULL;
    assert_true(aside_is_back(aside) && only_old());
    aside_free(aside);
}

/* Neither does what was taken come back at once: nothing may be put away when it does. */
static void a_take_that_cannot_be_undone_is_undone_later(void **state)
{
    (void)state;
    struct err err = {0};
    AUTO_JSON json_t *list = sets("data", "*", "logs");
    struct aside *aside = aside_new();
    moves_left = 2;
    assert_int_equal(aside_take(aside, list, &err), -1);
    assert_false(aside_is_back(aside));
    assert_non_null(strstr(err.text, "the old data of"));
    AUTO_FREE char *where = aside_where(aside);
    assert_non_null(strstr(where, "/data.before-restore-"));
    assert_false(aside_remove(aside, INT64_MAX));
    assert_int_equal(aside_put_back(aside, &err), -1);
    moves_left = -1;
    assert_int_equal(aside_put_back(aside, &err), 0);
    assert_true(aside_is_back(aside) && all_is_old());
    assert_true(aside_remove(aside, INT64_MAX));
    assert_true(only_old());
    aside_free(aside);
}

/* Wherever it fails, the next call goes on there; a call more than that changes nothing. */
static void putting_back_is_repeated_until_it_is_done(void **state)
{
    for (int fails_at = 0; fails_at < 7; fails_at++) {
        struct err err = {0};
        AUTO_JSON json_t *list = sets("data", "*", "logs");
        struct aside *aside = aside_new();
        assert_int_equal(aside_take(aside, list, &err), 0);
        put("data/a", "new a");
        put("data/c", "new c");
        put("logs/log.1", "new log");
        moves_left = fails_at; /* three files are put away, and four come back: one that cannot be moved gets another name */
        assert_int_equal(aside_put_back(aside, &err), -1);
        assert_true(!aside_is_back(aside) && err.text[0]);
        moves_left = -1;
        for (int again = 0; again < 2; again++) {
            assert_int_equal(aside_put_back(aside, &err), 0);
            assert_true(aside_is_back(aside) && all_is_old());
        }
        assert_true(aside_remove(aside, INT64_MAX));
        assert_true(only_old());
        aside_free(aside);
        assert_int_equal(end(state), 0);
        assert_int_equal(begin(state), 0);
    }
}

/* The first set's files come back with the second's, which share a directory: they are not put away for new ones. */
static void sets_of_one_directory_do_not_put_each_other_away(void **state)
{
    (void)state;
    struct err err = {0};
    AUTO_JSON json_t *list = sets("logs", "log.*", "data");
    AUTO_FREE char *logs = str_new("%s/logs", top);
    json_put(json_array_get(list, 1), "path", json_text(logs));
    json_put(json_array_get(list, 1), "spec", json_string("*"));
    struct aside *aside = aside_new();
    assert_int_equal(aside_take(aside, list, &err), 0);
    put("logs/log.1", "new log");
    assert_int_equal(aside_put_back(aside, &err), 0);
    assert_true(all_is_old());
    assert_true(aside_remove(aside, INT64_MAX));
    assert_true(only_old());
    aside_free(aside);
}

/* A store that cannot be read now is not an empty one. */
static void what_cannot_be_read_is_not_taken_for_empty(void **state)
{
    (void)state;
    static const char *const names[] = {"/data", "/data.before-restore-"};
    struct err err = {0};
    AUTO_JSON json_t *list = sets("data", "*", "logs");
    struct aside *aside = aside_new();
    assert_int_equal(aside_take(aside, list, &err), 0);
    put("data/a", "new a");
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        unreadable = names[i];
        assert_int_equal(aside_put_back(aside, &err), -1);
        assert_non_null(strstr(err.text, "/data.before-restore-"));
    }
    unreadable = NULL;
    assert_int_equal(aside_put_back(aside, &err), 0);
    assert_true(all_is_old());
    assert_true(aside_remove(aside, INT64_MAX));
    aside_free(aside);
}

/* An undo on a full disk: the place for what is put away is there before anything moves. */
static void an_undo_makes_no_directory(void **state)
{
    (void)state;
    struct err err = {0};
    AUTO_JSON json_t *list = sets("data", "*", "logs");
    struct aside *aside = aside_new();
    assert_int_equal(aside_take(aside, list, &err), 0);
    assert_int_equal(count(""), 6);
    AUTO_FREE char *failed = str_new("data.failed-restore-%s", aside->stamp);
    assert_int_equal(count(failed), 0);
    put("data/a", "new a");
    assert_int_equal(aside_put_back(aside, &err), 0);
    assert_int_equal(count(failed), 1);
    assert_int_equal(count(""), 3);
    assert_true(aside_remove(aside, INT64_MAX));
    aside_free(aside);
}

static void a_directory_that_is_not_there_is_empty(void **state)
{
    (void)state;
    struct err err = {0};
    AUTO_JSON json_t *list = sets("nowhere", "*", "logs");
    struct aside *aside = aside_new();
    assert_int_equal(aside_take(aside, list, &err), 0);
    assert_int_equal(aside_put_back(aside, &err), 0);
    assert_int_equal(count(""), 2);
    assert_true(holds("logs/log.1", "old log"));
    aside_free(aside);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_taken_leaves_its_place_and_comes_back, begin, end),
        cmocka_unit_test_setup_teardown(what_was_replaced_is_removed, begin, end),
        cmocka_unit_test_setup_teardown(a_take_that_fails_half_way_changes_nothing, begin, end),
        cmocka_unit_test_setup_teardown(a_directory_that_is_not_there_is_empty, begin, end),
        cmocka_unit_test_setup_teardown(a_take_that_cannot_be_undone_is_undone_later, begin, end),
        cmocka_unit_test_setup_teardown(putting_back_is_repeated_until_it_is_done, begin, end),
        cmocka_unit_test_setup_teardown(sets_of_one_directory_do_not_put_each_other_away, begin, end),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_is_not_taken_for_empty, begin, end),
        cmocka_unit_test_setup_teardown(an_undo_makes_no_directory, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
