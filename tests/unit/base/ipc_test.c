#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/str.h"

static int pair[2];

static int begin(void **state)
{
    (void)state;
    return ipc_pair(pair, NULL);
}

static int end(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    return 0;
}

static void send_typed(int fd, const char *type, const int *fds, size_t n)
{
    AUTO_JSON json_t *msg = json_pack("{s:s}", "type", type);
    assert_int_equal(ipc_send(fd, msg, fds, n, NULL), 0);
}

static void send_raw(int fd, uint32_t announced, const char *body, size_t size)
{
    uint32_t length = htonl(announced);
    assert_int_equal(send(fd, &length, 4, MSG_NOSIGNAL), 4);
    if (size)
        assert_int_equal(send(fd, body, size, MSG_NOSIGNAL), (ssize_t)size);
}

static bool same_file(int a, int b)
{
    struct stat sa, sb;
    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static int open_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void a_message_with_descriptors_arrives_whole(void **state)
{
    (void)state;
    AUTO_FD int null_fd = open("/dev/null", O_RDONLY);
    AUTO_FD int zero_fd = open("/dev/zero", O_RDONLY);
    int sent[] = {null_fd, zero_fd}, got[4];
    send_typed(pair[0], "one", sent, 2);
    send_typed(pair[0], "two", NULL, 0);
    send_typed(pair[0], "three", &zero_fd, 1);
    for (int i = 0; i < 3; i++) {
        static const char *const types[] = {"one", "two", "three"};
        static const size_t counts[] = {2, 0, 1};
        AUTO_JSON json_t *msg = NULL;
        size_t n = 4;
        assert_int_equal(ipc_recv(pair[1], -1, &msg, got, &n, NULL), 1);
        assert_string_equal(json_str(msg, "type", ""), types[i]);
        assert_int_equal(n, counts[i]);
        if (n)
            assert_true(same_file(got[n - 1], zero_fd));
        for (size_t k = 0; k < n; k++) {
            assert_true(fcntl(got[k], F_GETFD) & FD_CLOEXEC);
            close(got[k]);
        }
    }
}

static void end_of_file_between_messages_is_not_an_error(void **state)
{
    (void)state;
    send_typed(pair[0], "last", NULL, 0);
    close(TAKE_FD(pair[0]));
    AUTO_JSON json_t *msg = NULL, *none = NULL;
    assert_int_equal(ipc_recv(pair[1], -1, &msg, NULL, NULL, NULL), 1);
    assert_int_equal(ipc_recv(pair[1], -1, &none, NULL, NULL, NULL), 0);
}

static void silence_is_a_time_out(void **state)
{
    (void)state;
    json_t *msg = NULL;
    struct err err;
    assert_int_equal(ipc_recv(pair[1], 1, &msg, NULL, NULL, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_WRITERERROR_TIMEOUT);
}

static void expect_broken(const char *words)
{
    json_t *msg = NULL;
    struct err err;
    assert_int_equal(ipc_recv(pair[1], 1000, &msg, NULL, NULL, &err), -1);
    assert_int_equal(err.hr, (uint32_t)VSS_E_UNEXPECTED);
    assert_non_null(strstr(err.text, words));
}

static void an_oversize_frame_is_refused_before_it_is_read(void **state)
{
    (void)state;
    send_raw(pair[0], IPC_MESSAGE_MAX + 1, NULL, 0);
    expect_broken("announced with");
}

static void an_empty_frame_is_refused(void **state)
{
    (void)state;
    send_raw(pair[0], 0, NULL, 0);
    expect_broken("announced with 0");
}

static void garbage_and_messages_without_a_type_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"{", "[]", "{}", "{\"type\":1}", "{\"type\":\"a\",\"type\":\"b\"}", "\"type\""};
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        send_raw(pair[0], (uint32_t)strlen(bad[i]), bad[i], strlen(bad[i]));
        expect_broken("message between processes: ");
    }
}

static void an_end_in_the_middle_is_an_error(void **state)
{
    (void)state;
    send_raw(pair[0], 100, "{\"type\"", 7);
    close(TAKE_FD(pair[0]));
    expect_broken("in the middle");
}

static void descriptors_without_room_are_refused_and_do_not_leak(void **state)
{
    (void)state;
    int before = open_fds();
    AUTO_FD int null_fd = open("/dev/null", O_RDONLY);
    int sent[] = {null_fd, null_fd, null_fd};
    send_typed(pair[0], "three", sent, 3);
    expect_broken("3 descriptors, room for 0");
    assert_int_equal(open_fds(), before + 1);
}

static void too_much_cannot_be_sent(void **state)
{
    (void)state;
    struct err err;
    AUTO_FREE char *big = mem_new(IPC_MESSAGE_MAX + 1);
    memset(big, 'x', IPC_MESSAGE_MAX);
    AUTO_JSON json_t *msg = json_pack("{s:s, s:s}", "type", "big", "text", big);
    assert_int_equal(ipc_send(pair[0], msg, NULL, 0, &err), -1);
    assert_non_null(strstr(err.text, "message big"));
    int many[IPC_FDS_MAX + 1] = {0};
    AUTO_JSON json_t *small = json_pack("{s:s}", "type", "small");
    assert_int_equal(ipc_send(pair[0], small, many, IPC_FDS_MAX + 1, &err), -1);
    int bad = 999;
    assert_int_equal(ipc_send(pair[0], small, &bad, 1, &err), -1);
}

static void sending_to_a_closed_peer_is_an_error_not_a_signal(void **state)
{
    (void)state;
    close(TAKE_FD(pair[1]));
    struct err err;
    AUTO_JSON json_t *msg = json_pack("{s:s}", "type", "x");
    assert_int_equal(ipc_send(pair[0], msg, NULL, 0, &err), -1);
    assert_non_null(strstr(err.text, "Broken pipe"));
}

/* --- on a loop --- */

struct side {
    struct loop *loop;
    struct ipc_channel *channel;
    int expected, got;
    size_t bytes;
    int fds;
    int ended;
    struct err err;
    bool free_in_message;
    int kept_fd;
};

static void on_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct side *side = arg;
    side->got++;
    side->bytes += strlen(json_str(msg, "text", ""));
    side->fds += (int)n_fds;
    if (n_fds > 0 && side->kept_fd < 0)
        side->kept_fd = TAKE_FD(fds[0]);
    if (side->free_in_message)
        ipc_channel_free(TAKE_PTR(side->channel));
    if (side->got == side->expected)
        loop_quit(side->loop, 0);
}

static void on_closed(void *arg, const struct err *err)
{
    struct side *side = arg;
    side->ended++;
    if (err)
        side->err = *err;
    ipc_channel_free(TAKE_PTR(side->channel));
    loop_quit(side->loop, 1);
}

/* The channel keeps the address of its side. */
#define SIDE(name, the_loop, fd)                                                                                       \
    struct side name = {.loop = (the_loop), .kept_fd = -1};                                                            \
    name.channel = ipc_channel_new((the_loop), (fd), on_message, on_closed, &name)

static void thousands_of_messages_pass_a_full_socket_in_both_directions(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    SIDE(a, loop, TAKE_FD(pair[0]));
    SIDE(b, loop, TAKE_FD(pair[1]));
    AUTO_FREE char *text = mem_new(4001);
    memset(text, 'x', 4000);
    AUTO_JSON json_t *msg = json_pack("{s:s, s:s}", "type", "data", "text", text);
    AUTO_FD int null_fd = open("/dev/null", O_RDONLY);
    int before = open_fds();
    for (int i = 0; i < 3000; i++) {
        ipc_channel_send(a.channel, msg, i == 1500 ? &null_fd : NULL, i == 1500);
        ipc_channel_send(b.channel, msg, NULL, 0);
    }
    a.expected = 3000;
    b.expected = -1;
    loop_run(loop);
    b.expected = 3000;
    if (b.got < 3000)
        loop_run(loop);
    assert_int_equal(a.got, 3000);
    assert_int_equal(b.got, 3000);
    assert_int_equal(b.bytes, 3000 * 4000);
    assert_int_equal(b.fds, 1);
    assert_true(same_file(b.kept_fd, null_fd));
    close(b.kept_fd);
    assert_int_equal(open_fds(), before);
    ipc_channel_free(a.channel);
    ipc_channel_free(b.channel);
    loop_free(loop);
}

static void a_large_message_arrives_in_pieces(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    SIDE(a, loop, TAKE_FD(pair[0]));
    SIDE(b, loop, TAKE_FD(pair[1]));
    enum { LARGE = 8 * 1024 * 1024 };
    AUTO_FREE char *text = mem_new(LARGE + 1);
    memset(text, 'y', LARGE);
    AUTO_JSON json_t *msg = json_pack("{s:s, s:s}", "type", "large", "text", text);
    AUTO_FD int null_fd = open("/dev/null", O_RDONLY);
    b.expected = 1;
    ipc_channel_send(a.channel, msg, &null_fd, 1);
    loop_run(loop);
    assert_int_equal(b.bytes, LARGE);
    assert_true(same_file(b.kept_fd, null_fd));
    close(b.kept_fd);
    ipc_channel_free(a.channel);
    ipc_channel_free(b.channel);
    loop_free(loop);
}

static void a_channel_may_be_freed_in_its_message_callback(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    SIDE(b, loop, TAKE_FD(pair[1]));
    AUTO_FD int null_fd = open("/dev/null", O_RDONLY);
    int twice[] = {null_fd, null_fd};
    b.kept_fd = dup(null_fd); /* so that it takes none of those that come */
    int before = open_fds();
    send_typed(pair[0], "one", twice, 2);
    send_typed(pair[0], "two", NULL, 0);
    b.free_in_message = true;
    b.expected = 1;
    loop_run(loop);
    assert_int_equal(b.got, 1);
    assert_int_equal(b.ended, 0);
    assert_int_equal(open_fds(), before - 1);
    close(b.kept_fd);
    loop_free(loop);
}

static void what_was_sent_before_the_end_is_delivered_before_the_end(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    SIDE(b, loop, TAKE_FD(pair[1]));
    send_typed(pair[0], "one", NULL, 0);
    send_typed(pair[0], "two", NULL, 0);
    close(TAKE_FD(pair[0]));
    AUTO_JSON json_t *msg = json_pack("{s:s}", "type", "into the void");
    ipc_channel_send(b.channel, msg, NULL, 0);
    assert_int_equal(loop_run(loop), 1);
    assert_int_equal(b.got, 2);
    assert_int_equal(b.ended, 1);
    assert_int_equal(b.err.hr, 0);
    loop_free(loop);
}

static void nonsense_closes_the_channel_with_an_error(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    SIDE(b, loop, TAKE_FD(pair[1]));
    send_typed(pair[0], "good", NULL, 0);
    send_raw(pair[0], 3, "{]}", 3);
    send_typed(pair[0], "never seen", NULL, 0);
    assert_int_equal(loop_run(loop), 1);
    assert_int_equal(b.got, 1);
    assert_int_equal(b.ended, 1);
    assert_int_equal(b.err.hr, (uint32_t)VSS_E_UNEXPECTED);
    loop_free(loop);
}

static void a_message_that_cannot_be_sent_closes_the_channel_from_the_loop(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    SIDE(b, loop, TAKE_FD(pair[1]));
    AUTO_JSON json_t *msg = json_pack("{s:s}", "type", "x");
    int bad = 999;
    ipc_channel_send(b.channel, msg, &bad, 1);
    assert_int_equal(b.ended, 0);
    assert_int_equal(loop_run(loop), 1);
    assert_int_equal(b.ended, 1);
    assert_non_null(strstr(b.err.text, "cannot duplicate descriptor"));
    loop_free(loop);
}

static void freeing_a_channel_sends_what_the_socket_takes(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    SIDE(a, loop, TAKE_FD(pair[0]));
    AUTO_JSON json_t *msg = json_pack("{s:s}", "type", "farewell");
    ipc_channel_send(a.channel, msg, NULL, 0);
    ipc_channel_free(a.channel);
    AUTO_JSON json_t *got = NULL, *none = NULL;
    assert_int_equal(ipc_recv(pair[1], -1, &got, NULL, NULL, NULL), 1);
    assert_string_equal(json_str(got, "type", ""), "farewell");
    assert_int_equal(ipc_recv(pair[1], -1, &none, NULL, NULL, NULL), 0);
    loop_free(loop);
}

#define IPC_TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IPC_TEST(a_message_with_descriptors_arrives_whole),
        IPC_TEST(end_of_file_between_messages_is_not_an_error),
        IPC_TEST(silence_is_a_time_out),
        IPC_TEST(an_oversize_frame_is_refused_before_it_is_read),
        IPC_TEST(an_empty_frame_is_refused),
        IPC_TEST(garbage_and_messages_without_a_type_are_refused),
        IPC_TEST(an_end_in_the_middle_is_an_error),
        IPC_TEST(descriptors_without_room_are_refused_and_do_not_leak),
        IPC_TEST(too_much_cannot_be_sent),
        IPC_TEST(sending_to_a_closed_peer_is_an_error_not_a_signal),
        IPC_TEST(thousands_of_messages_pass_a_full_socket_in_both_directions),
        IPC_TEST(a_large_message_arrives_in_pieces),
        IPC_TEST(a_channel_may_be_freed_in_its_message_callback),
        IPC_TEST(what_was_sent_before_the_end_is_delivered_before_the_end),
        IPC_TEST(nonsense_closes_the_channel_with_an_error),
        IPC_TEST(a_message_that_cannot_be_sent_closes_the_channel_from_the_loop),
        IPC_TEST(freeing_a_channel_sends_what_the_socket_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
