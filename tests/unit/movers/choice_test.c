/* What a restore of file sets wants of a backup, and where each entry of it goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "movers/payload/choice.h"

/* Sorted, as a manifest is; a slash at the end makes a folder. */
static const char *const held[] = {"/d/",     "/d/a.db",  "/d/a.log", "/d/deep/",    "/d/deep/b.db", "/d/deep/er/",
                                   "/d/deep/er/c.db", "/d/none/", "/e/",     "/e/linked", "/e/other"};

static struct manifest manifest(void)
{
    struct manifest made = {.entries = mem_new(ELEMENTS(held) * sizeof(struct manifest_entry)), .n = ELEMENTS(held), .room = ELEMENTS(held)};
    for (size_t i = 0; i < made.n; i++) {
        char *path = str_dup(held[i]), *slash = path + strlen(path) - 1;
        made.entries[i] = (struct manifest_entry){.path = path, .mode = *slash == '/' ? S_IFDIR : S_IFREG};
        if (*slash == '/')
            *slash = '\0';
    }
    manifest_find(&made, "/e/other")->hard_link = str_dup("/e/linked");
    return made;
}

/* The places of what is wanted, separated by blanks: folders that only hold something in brackets, helpers with a question mark. */
static char *wanted(struct mover_restore *restore, struct err *err)
{
    struct manifest made = manifest();
    char *text = choice_mark(&made, restore, err) ? NULL : str_dup("");
    for (size_t i = 0; text && i < made.n; i++) {
        const struct manifest_entry *entry = &made.entries[i];
        const char *place = choice_place(restore, entry);
        if (!entry->wanted && !(entry->helper && !S_ISDIR(entry->mode)))
            continue;
        char *longer = str_new(entry->parent ? "%s[%s] " : entry->helper ? "%s?%s " : "%s%s ", text, place ? (*place ? place : ".") : "-");
        free(text);
        text = longer;
    }
    manifest_clear(&made);
    return text;
}

static void a_file_set_brings_what_it_names_with_the_folders_to_hold_it(void **unused)
{
    (void)unused;
    static const struct {
        struct mover_file_set set;
        const char *strip, *expected;
    } rows[] = {
        {{"/d", "*", true}, "/d", ". a.db a.log deep deep/b.db deep/er deep/er/c.db none "},
        {{"/d", "*", false}, "/d", "[.] a.db a.log "},
        {{"/d", "*.db", false}, "/d", "[.] a.db "},
        {{"/d", "*.db", true}, "/d", "[.] a.db [deep] deep/b.db [deep/er] deep/er/c.db "},
        {{"/d/deep", "*", true}, "/d/deep", "[-] . b.db er er/c.db "},
        {{"/d/deep", "*", true}, "/d", "[.] deep deep/b.db deep/er deep/er/c.db "},
        {{"/d/deep", "*", true}, NULL, "[d] d/deep d/deep/b.db d/deep/er d/deep/er/c.db "},
        {{"/d", "*.none", true}, "/d", ""},
        {{"/e", "other", false}, "/e", "[.] ?linked other "},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        struct err err = {0};
        struct mover_restore restore = {.sets = &rows[i].set, .n_sets = 1, .strip = rows[i].strip};
        AUTO_FREE char *got = wanted(&restore, &err);
        if (!str_eq(got, rows[i].expected))
            fail_msg("row %zu: \"%s\", expected \"%s\"", i, got ? got : err.text, rows[i].expected);
    }
}

static void what_another_group_brings_is_left_out(void **unused)
{
    (void)unused;
    struct err err = {0};
    const struct mover_file_set set = {"/d", "*", true};
    const char *const excepts[] = {"/d/deep", NULL};
    struct mover_restore restore = {.sets = &set, .n_sets = 1, .strip = "/d", .excepts = excepts};
    AUTO_FREE char *got = wanted(&restore, &err);
    assert_string_equal(got, ". a.db a.log none ");
    struct manifest made = manifest();
    assert_int_equal(choice_mark(&made, &restore, &err), 0);
    assert_true(choice_left_out(&restore, manifest_find(&made, "/d/deep/b.db")));
    assert_false(choice_left_out(&restore, manifest_find(&made, "/d/a.db")));
    assert_false(choice_left_out(&restore, manifest_find(&made, "/e/other")));
    manifest_clear(&made);
}

static void one_file_takes_another_name(void **unused)
{
    (void)unused;
    struct err err = {0};
    const struct mover_file_set one = {"/d", "a.db", false}, two = {"/d", "a.*", false};
    struct mover_restore restore = {.sets = &one, .n_sets = 1, .strip = "/d", .rename = "b.db"};
    AUTO_FREE char *got = wanted(&restore, &err);
    assert_string_equal(got, "[.] b.db ");
    restore.sets = &two;
    assert_null(wanted(&restore, &err));
    assert_int_equal(err.hr, (uint32_t)VSS_E_OBJECT_NOT_FOUND);
}

static void a_set_that_the_backup_does_not_hold_is_an_error(void **unused)
{
    (void)unused;
    struct err err = {0};
    const struct mover_file_set sets[] = {{"/d", "*", true}, {"/elsewhere", "*", true}};
    struct mover_restore restore = {.sets = sets, .n_sets = 2, .strip = "/"};
    assert_null(wanted(&restore, &err));
    assert_int_equal(err.hr, (uint32_t)VSS_E_OBJECT_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_set_brings_what_it_names_with_the_folders_to_hold_it),
        cmocka_unit_test(what_another_group_brings_is_left_out),
        cmocka_unit_test(one_file_takes_another_name),
        cmocka_unit_test(a_set_that_the_backup_does_not_hold_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
