#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/str.h"

static char captured[8192];
static int capture_fd = -1, saved_stderr = -1;

static void capture_begin(void)
{
    capture_fd = memfd_create("log", MFD_CLOEXEC);
    saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    dup2(capture_fd, STDERR_FILENO);
}

static const char *capture_end(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    ssize_t n = pread(capture_fd, captured, sizeof(captured) - 1, 0);
    close(capture_fd);
    captured[n > 0 ? n : 0] = '\0';
    return captured;
}

static void a_line_has_time_role_level_context_code_text_and_hint(void **state)
{
    (void)state;
    struct err err;
    err_set(&err, (uint32_t)VSS_E_WRITER_NOT_RESPONDING, "Restart it.", "writer w: silent");
    struct log_context context = {.session_id = "s1", .job_id = "j1", .request_id = "r1", .writer = "my writer"};
    capture_begin();
    log_init("core", LOG_LEVEL_INFO);
    log_err(LOG_LEVEL_ERROR, &context, &err, "prepare");
    const char *line = capture_end();
    assert_int_equal(strspn(line, "0123456789"), 4);
    assert_string_equal(line + strlen("2026-11-24T00:00:00.000Z"),
                        " core error session=s1 job=j1 request=r1 writer=\"my writer\" "
                        "code=VSS_E_WRITER_NOT_RESPONDING prepare: writer w: silent (Restart it.)\n");
}

static void a_line_stays_a_line_whatever_it_quotes(void **state)
{
    (void)state;
    struct log_context context = {.writer = "a\nb\" session=x"};
    capture_begin();
    log_line(LOG_LEVEL_INFO, &context, "%s", "x\ny\r\x1b[2J\x7f\xc2\x9b\xffz \xc3\xa4");
    const char *line = capture_end();
    assert_non_null(strstr(line, "writer=\"a\\nb\\\" session=x\" x\\ny\\x0d\\x1b[2J\\x7f\\u009b\\xffz \xc3\xa4\n"));
    assert_int_equal(strcspn(line, "\n"), strlen(line) - 1);
}

static void lines_below_the_level_are_left_out(void **state)
{
    (void)state;
    capture_begin();
    log_init("core", LOG_LEVEL_WARNING);
    log_line(LOG_LEVEL_INFO, NULL, "not this");
    log_line(LOG_LEVEL_WARNING, NULL, "but this");
    log_init("core", LOG_LEVEL_INFO);
    const char *line = capture_end();
    assert_null(strstr(line, "not this"));
    assert_non_null(strstr(line, " core warning but this\n"));
}

static void an_over_long_line_is_cut_and_still_ends(void **state)
{
    (void)state;
    capture_begin();
    log_line(LOG_LEVEL_INFO, NULL, "%5000d", 1);
    const char *line = capture_end();
    assert_int_equal(strlen(line), 4096);
    assert_int_equal(line[4095], '\n');
}

static void the_journal_gets_a_priority_instead_of_the_time(void **state)
{
    (void)state;
    capture_begin();
    struct stat own;
    assert_int_equal(fstat(STDERR_FILENO, &own), 0);
    AUTO_FREE char *stream = str_new("%ju:%ju", (uintmax_t)own.st_dev, (uintmax_t)own.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_init("core", LOG_LEVEL_INFO);
    log_line(LOG_LEVEL_ERROR, NULL, "bad");
    setenv("JOURNAL_STREAM", "1:1", 1); /* the journal of somebody else: standard error goes elsewhere */
    log_init("core", LOG_LEVEL_INFO);
    log_line(LOG_LEVEL_INFO, NULL, "good");
    unsetenv("JOURNAL_STREAM");
    log_init("core", LOG_LEVEL_INFO);
    const char *lines = capture_end();
    assert_true(str_starts(lines, "<3>core error bad\n"));
    assert_non_null(strstr(lines, "Z core info good\n"));
}

#ifdef QUIESCED_FAULTS
static void a_fault_point_is_armed_by_its_file(void **state)
{
    (void)state;
    char directory[] = "/tmp/fault-test-XXXXXX";
    assert_non_null(mkdtemp(directory));
    unsetenv("QUIESCED_FAULT_DIR");
    assert_false(fault("a.b"));
    setenv("QUIESCED_FAULT_DIR", directory, 1);
    assert_false(fault("a.b"));
    AUTO_FREE char *path = str_new("%s/a.b", directory);
    close(open(path, O_WRONLY | O_CREAT, 0600));
    assert_true(fault("a.b"));
    assert_true(fault("a.b"));
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "once\n", 5), 5);
    close(fd);
    assert_true(fault("a.b"));
    assert_false(fault("a.b"));
    assert_int_equal(rmdir(directory), 0);
}
#else
static void a_fault_point_is_armed_by_its_file(void **state)
{
    (void)state;
    assert_false(fault("a.b")); /* compiled out */
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_role_level_context_code_text_and_hint),
        cmocka_unit_test(a_line_stays_a_line_whatever_it_quotes),
        cmocka_unit_test(lines_below_the_level_are_left_out),
        cmocka_unit_test(an_over_long_line_is_cut_and_still_ends),
        cmocka_unit_test(the_journal_gets_a_priority_instead_of_the_time),
        cmocka_unit_test(a_fault_point_is_armed_by_its_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
