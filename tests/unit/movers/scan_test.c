/* The list of what is to be copied: what cannot be read is a failure, never silently missing. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "movers/payload/scan.h"

static int refuse_directory; /* the how many-eth fdopendir(3) from now on finds no memory; 0: none does */

DIR *fdopendir(int fd)
{
    DIR *(*real)(int) = NULL;
    *(void **)&real = dlsym(RTLD_NEXT, "fdopendir");
    if (refuse_directory > 0 && --refuse_directory == 0) {
        errno = ENOMEM;
        return NULL;
    }
    return real(fd);
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static void a_directory_that_cannot_be_read_fails_the_whole(void **state)
{
    char top[] = "/tmp/quiesced-scan-XXXXXX", inner[sizeof(top) + 8], file[sizeof(inner) + 8];
    (void)state;
    assert_non_null(mkdtemp(top));
    snprintf(inner, sizeof(inner), "%s/inner", top);
    snprintf(file, sizeof(file), "%s/file", inner);
    assert_int_equal(mkdir(inner, 0700), 0);
    FILE *made = fopen(file, "w");
    assert_non_null(made);
    fclose(made);
    const struct mover_item item = {.path = top, .source = top, .spec = "*", .recursive = true};
    const struct mover_request request = {.items = &item, .n_items = 1};
    const struct mover_host host = {.cancelled = never};
    for (int nth = 0; nth <= 2; nth++) {
        struct scan scan;
        struct err err = {0};
        refuse_directory = nth;
        assert_int_equal(scan_run(&scan, &request, &host, &err), nth == 0 ? 0 : -1);
        assert_int_equal(scan.files, nth == 0);
        assert_int_equal(err.hr != 0, nth != 0);
        if (nth)
            assert_non_null(strstr(err.text, nth == 1 ? top : inner));
        scan_clear(&scan);
    }
    unlink(file);
    rmdir(inner);
    rmdir(top);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_directory_that_cannot_be_read_fails_the_whole)};
    return cmocka_run_group_tests_name("scan", tests, NULL, NULL);
}
