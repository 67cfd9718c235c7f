#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
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

static void in_the_pipe_to_the_logger_fields_are_marked(void **state)
{
    (void)state;
    int ends[2], saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    struct stat own;
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    dup2(ends[1], STDERR_FILENO);
    assert_int_equal(fstat(STDERR_FILENO, &own), 0);
    AUTO_FREE char *stream = str_new("%ju:%ju", (uintmax_t)own.st_dev, (uintmax_t)own.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_init("core", LOG_LEVEL_INFO);
    const struct log_context context = {.session_id = "s1", .writer = "a\x1f""b\x1e"};
    log_line(LOG_LEVEL_ERROR, &context, "%s", "job=x \x1fjob=y\x1e");
    unsetenv("JOURNAL_STREAM");
    dup2(saved, STDERR_FILENO);
    log_init("core", LOG_LEVEL_INFO);
    ssize_t n = read(ends[0], captured, sizeof(captured) - 1);
    close(saved);
    close(ends[0]);
    close(ends[1]);
    assert_true(n > 0);
    captured[n] = '\0';
    assert_string_equal(captured, "<3>core error\x1fsession=s1\x1fwriter=\"a\\x1fb\\x1e\"\x1ejob=x \\x1fjob=y\\x1e\n");
}

/* Fills what standard error leads to with lines of PIPE_BUF; how many there was room for. */
static size_t fill(void)
{
    char line[PIPE_BUF];
    size_t n = 0;
    memset(line, 'x', sizeof(line));
    while (write(STDERR_FILENO, line, sizeof(line)) == sizeof(line))
        n++;
    return n;
}

static void lines_without_room_are_dropped_whole_counted_and_told(void **state)
{
    (void)state;
    int ends[2];
    char line[PIPE_BUF], rest[2 * PIPE_BUF];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    dup2(ends[1], STDERR_FILENO);
    size_t n = fill();
    log_line(LOG_LEVEL_INFO, NULL, "first lost");
    log_line(LOG_LEVEL_INFO, NULL, "second lost");
    assert_int_equal(read(ends[0], line, sizeof(line)), sizeof(line)); /* room for a page, and so for all of it */
    log_line(LOG_LEVEL_INFO, NULL, "third");
    log_line(LOG_LEVEL_INFO, NULL, "fourth");
    dup2(saved, STDERR_FILENO);
    close(saved);
    for (size_t i = 1; i < n; i++)
        assert_int_equal(read(ends[0], line, sizeof(line)), sizeof(line));
    ssize_t length = read(ends[0], rest, sizeof(rest) - 1);
    assert_true(length > 0);
    rest[length] = '\0';
    close(ends[0]);
    close(ends[1]);
    assert_null(strstr(rest, " lost"));
    static const char words[] = " core warning 2 lines were dropped since 2";
    const char *told = strstr(rest, words);
    assert_non_null(told);
    assert_null(strstr(told + strlen(words), "dropped since"));
    const char *third = strstr(told, " core info third\n");
    assert_non_null(third);
    assert_non_null(strstr(third, " core info fourth\n"));
}

#ifdef QUIESCED_FAULTS
static void a_fault_point_is_armed_by_its_file(void **state)
{
    (void)state;
    char directory[] = "/tmp/fault-test-XXXXXX";
    assert_non_null(mkdtemp(directory));
    unsetenv("QUIESCED_FAULT_DIR");
    assert_false(fault("store.read"));
    setenv("QUIESCED_FAULT_DIR", directory, 1);
    assert_false(fault("store.read"));
    AUTO_FREE char *path = str_new("%s/store.read", directory);
    close(open(path, O_WRONLY | O_CREAT, 0600));
    assert_true(fault("store.read"));
    assert_true(fault("store.read"));
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "once\n", 5), 5);
    close(fd);
    assert_true(fault("store.read"));
    assert_false(fault("store.read"));
    AUTO_FREE char *hits = str_new("%s/store.read.hit", directory);
    AUTO_FREE char *line = str_new("%s %d\n", log_role_name(), (int)getpid());
    struct stat recorded;
    assert_int_equal(stat(hits, &recorded), 0);
    assert_int_equal(recorded.st_size, 3 * strlen(line));
    assert_int_equal(unlink(hits), 0);
    assert_int_equal(rmdir(directory), 0);
}
#else
static void a_fault_point_is_armed_by_its_file(void **state)
{
    (void)state;
    assert_false(fault("store.read")); /* compiled out */
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
        cmocka_unit_test(in_the_pipe_to_the_logger_fields_are_marked),
        cmocka_unit_test(lines_without_room_are_dropped_whole_counted_and_told),
        cmocka_unit_test(a_fault_point_is_armed_by_its_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
