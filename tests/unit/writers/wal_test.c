/* The log's arithmetic needs no server. Writers are executables, not a library: the source is taken in. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "writers/postgresql/wal.c"

enum { MIB = 1024 * 1024 };

static void a_position_is_two_hexadecimal_halves(void **state)
{
    (void)state;
    uint64_t lsn = 0;
    assert_true(wal_lsn_parse("16/B374D848", &lsn));
    assert_int_equal(lsn, 0x16B374D848);
    assert_true(wal_lsn_parse("0/0", &lsn));
    assert_int_equal(lsn, 0);
    const char *const bad[] = {"",      "/",    "1/",          "/1",    "16",   "16/B374D848x",
                               "16/ 1", "-1/0", "123456789/0", "1/2/3", "0x1/2"};
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_false(wal_lsn_parse(bad[i], &lsn));
    assert_false(wal_lsn_parse(NULL, &lsn));
}

static void the_last_segment_is_the_one_before_a_boundary(void **state)
{
    (void)state;
    assert_int_equal(wal_segment_of(16 * MIB, 16 * MIB), 1);
    assert_int_equal(wal_segment_before(16 * MIB, 16 * MIB), 0);
    assert_int_equal(wal_segment_before(16 * MIB + 1, 16 * MIB), 1);
    assert_int_equal(wal_segment_before(0, 16 * MIB), 0);
}

static void a_segment_is_named_as_the_server_names_it(void **state)
{
    (void)state;
    char name[WAL_NAME_SIZE];
    assert_string_equal(wal_segment_name(1, 2, 16 * MIB, name), "000000010000000000000002");
    assert_string_equal(wal_segment_name(1, 255, 16 * MIB, name), "0000000100000000000000FF");
    assert_string_equal(wal_segment_name(1, 256, 16 * MIB, name), "000000010000000100000000");
    assert_string_equal(wal_segment_name(0x1F, 4096, MIB, name), "0000001F0000000100000000");
    assert_string_equal(wal_segment_name(1, 5, 1024ULL * MIB, name), "000000010000000100000001");
}

static void the_label_tells_the_timeline(void **state)
{
    (void)state;
    uint32_t timeline = 0;
    assert_true(wal_label_timeline(
        "START WAL LOCATION: 0/2000028 (file 0000000A0000000000000002)\nCHECKPOINT LOCATION: 0/1\n", &timeline));
    assert_int_equal(timeline, 10);
    assert_false(wal_label_timeline("START WAL LOCATION: 0/2000028\n", &timeline));
    assert_false(wal_label_timeline("(file 000000000000000000000002)", &timeline));
    assert_false(wal_label_timeline(NULL, &timeline));
}

struct segment_files {
    char directory[64], from[96], to[96];
};

static void segment_write(const char *path, uint64_t page_address, uint64_t system_identifier, uint64_t size)
{
    AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct wal_header header = {.page_address = page_address, .system_identifier = system_identifier};
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
}

static int files_make(void **state)
{
    struct segment_files *files = mem_new(sizeof(*files));
    str_copy(files->directory, sizeof(files->directory), "/tmp/wal-test-XXXXXX");
    if (!mkdtemp(files->directory))
        return -1;
    str_format(files->from, sizeof(files->from), "%s/from", files->directory);
    str_format(files->to, sizeof(files->to), "%s/to", files->directory);
    *state = files;
    return 0;
}

static int files_remove(void **state)
{
    struct segment_files *files = *state;
    unlink(files->from);
    unlink(files->to);
    rmdir(files->directory);
    free(files);
    return 0;
}

static int copy(const struct segment_files *files, struct err *err)
{
    struct wal_segment segment = {
        .from = files->from, .to = files->to, .number = 3, .size = MIB, .system_identifier = 77};
    unlink(files->to);
    return wal_segment_copy(&segment, err);
}

static void only_the_right_whole_segment_is_copied(void **state)
{
    const struct segment_files *files = *state;
    struct err err = {0};
    assert_int_equal(copy(files, &err), -1); /* none there */
    segment_write(files->from, 3ULL * MIB, 77, MIB);
    assert_int_equal(copy(files, &err), 0);
    struct stat stat_of;
    assert_int_equal(stat(files->to, &stat_of), 0);
    assert_int_equal(stat_of.st_size, MIB);
    assert_int_equal(stat_of.st_mode & 0777, 0600);
    segment_write(files->from, 2ULL * MIB, 77, MIB); /* recycled: an old page under a new name */
    assert_int_equal(copy(files, &err), -1);
    assert_non_null(strstr(err.text, "recycled"));
    segment_write(files->from, 3ULL * MIB, 78, MIB); /* of another cluster */
    assert_int_equal(copy(files, &err), -1);
    segment_write(files->from, 3ULL * MIB, 77, MIB / 2);
    assert_int_equal(copy(files, &err), -1);
}

static void a_copy_never_overwrites(void **state)
{
    const struct segment_files *files = *state;
    struct err err = {0};
    segment_write(files->from, 3ULL * MIB, 77, MIB);
    segment_write(files->to, 0, 0, 4096);
    struct wal_segment segment = {
        .from = files->from, .to = files->to, .number = 3, .size = MIB, .system_identifier = 77};
    assert_int_equal(wal_segment_copy(&segment, &err), -1);
    struct stat stat_of;
    assert_int_equal(stat(files->to, &stat_of), 0);
    assert_int_equal(stat_of.st_size, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_position_is_two_hexadecimal_halves),
        cmocka_unit_test(the_last_segment_is_the_one_before_a_boundary),
        cmocka_unit_test(a_segment_is_named_as_the_server_names_it),
        cmocka_unit_test(the_label_tells_the_timeline),
        cmocka_unit_test_setup_teardown(only_the_right_whole_segment_is_copied, files_make, files_remove),
        cmocka_unit_test_setup_teardown(a_copy_never_overwrites, files_make, files_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
