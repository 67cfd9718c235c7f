#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "movers/payload/manifest.h"

static int load(struct manifest *ret, const char *text)
{
    struct err err = {0};
    FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    assert_non_null(file);
    int result = manifest_read(ret, file, "m", &err);
    fclose(file);
    assert_int_equal(err.hr, result ? (uint32_t)ERROR_FILE_CORRUPT : 0);
    return result;
}

static void names_of_any_bytes_come_back_as_they_were(void **state)
{
    (void)state;
    static const char *const names[] = {"/a", "/odd\xff", "/odd\xff\xfe\n", "/\x01", "/u\xcc\x88", "/\xc3", "/q\"\\/b"};
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        char *text = NULL;
        size_t size = 0;
        struct manifest manifest = {0};
        FILE *file = open_memstream(&text, &size);
        struct manifest_entry entry = {.path = (char *)(uintptr_t)names[i],
                                       .link = (char *)(uintptr_t)names[i],
                                       .mode = S_IFLNK | 0777,
                                       .uid = 4294967294u,
                                       .mtime = {-5, 999999999}};
        manifest_write(file, &entry);
        fclose(file);
        assert_int_equal(load(&manifest, text), 0);
        assert_int_equal(manifest.n, 1);
        assert_string_equal(manifest.entries[0].path, names[i]);
        assert_string_equal(manifest.entries[0].link, names[i]);
        assert_int_equal(manifest.entries[0].mode, S_IFLNK | 0777);
        assert_true(manifest.entries[0].uid == 4294967294u);
        assert_true(manifest.entries[0].mtime.tv_sec == -5 && manifest.entries[0].mtime.tv_nsec == 999999999);
        manifest_clear(&manifest);
        free(text);
    }
}

#define DIR_LINE(path) "{\"type\":\"directory\",\"path\":\"" path "\",\"mode\":493}\n"

static void damaged_lines_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"x\n",
                                        "{}\n",
                                        "[]\n",
                                        "{\"type\":\"directory\"}\n",
                                        DIR_LINE("relative"),
                                        DIR_LINE("/a/../b"),
                                        DIR_LINE("/a//b"),
                                        DIR_LINE("/b") DIR_LINE("/a"),
                                        DIR_LINE("/a") DIR_LINE("/a"),
                                        DIR_LINE("/a") "{\"type\":\"dir",
                                        "{\"type\":\"file\",\"path\":\"/a\",\"size\":1}\n",
                                        "{\"type\":\"file\",\"path\":\"/a\",\"size\":-1}\n",
                                        "{\"type\":\"file\",\"path\":\"/a\",\"sha256\":\"00\"}\n",
                                        "{\"type\":\"symlink\",\"path\":\"/a\"}\n",
                                        "{\"type\":\"directory\",\"path64\":\"!\"}\n",
                                        "{\"type\":\"directory\",\"path64\":\"\"}\n",
                                        "{\"type\":\"socket\",\"path\":\"/a\"}\n",
                                        "{\"type\":\"directory\",\"path\":\"/a\",\"mtime_ns\":1000000000}\n"};
    for (size_t i = 0; i < ELEMENTS(texts); i++) {
        struct manifest manifest = {0};
        if (load(&manifest, texts[i]) != -1)
            fail_msg("taken: %s", texts[i]);
        assert_int_equal(manifest.n, 0);
    }
}

static void a_selection_takes_the_folders_above_and_what_it_is_linked_to(void **state)
{
    (void)state;
    static const char sha[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    AUTO_FREE char *text =
        str_new(DIR_LINE("/a")
                    DIR_LINE("/a-b") "{\"type\":\"file\",\"path\":\"/a/first\",\"sha256\":\"%s\"}\n" DIR_LINE(
                        "/b") "{\"type\":\"file\",\"path\":\"/b/twin\",\"sha256\":\"%s\",\"hard_link\":\"/a/"
                              "first\"}\n" DIR_LINE("/bc"),
                sha, sha);
    struct manifest manifest = {0};
    assert_int_equal(load(&manifest, text), 0);
    manifest_select(&manifest, (const char *const[]){"/b/twin", NULL});
    assert_true(manifest_find(&manifest, "/b")->wanted && manifest_find(&manifest, "/b/twin")->wanted);
    assert_true(manifest_find(&manifest, "/a")->helper && manifest_find(&manifest, "/a/first")->helper);
    assert_false(manifest_find(&manifest, "/a")->wanted || manifest_find(&manifest, "/a-b")->helper);
    assert_false(manifest_find(&manifest, "/bc")->wanted);
    assert_null(manifest_find(&manifest, "/c"));
    manifest_clear(&manifest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_any_bytes_come_back_as_they_were),
        cmocka_unit_test(damaged_lines_are_refused),
        cmocka_unit_test(a_selection_takes_the_folders_above_and_what_it_is_linked_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
