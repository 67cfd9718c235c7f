/* A body that front reads from a pipe: chunks, their end by core alone, and every other end as a reset. */
#include "front_fixture.h"

#include "front/front.h"

#define HEAD "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#define LAST "0\r\n\r\n"

enum { CHUNK = 16376 };

struct asked {
    SSL *client;
    int core, pipe; /* pipe: the producer's end */
};

/* The marker, with the reading end; the producer keeps the other one. */
static void core_hand_over(int core, int *ret_producer)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char marker = 0;
    int ends[2];
    struct iovec part = {&marker, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &ends[0], sizeof(int));
    assert_int_equal(sendmsg(core, &message, MSG_NOSIGNAL), 1);
    close(ends[0]);
    *ret_producer = ends[1];
}

static struct asked ask(struct world *w)
{
    struct asked asked = {.client = client_open(w, NULL)};
    client_say(asked.client, QUESTION);
    asked.core = core_take(w, NULL);
    core_expect(asked.core, QUESTION);
    core_say(asked.core, HEAD);
    core_hand_over(asked.core, &asked.pipe);
    client_expect(asked.client, HEAD);
    return asked;
}

static void produce(int pipe, const char *text)
{
    assert_int_equal(write(pipe, text, strlen(text)), strlen(text));
}

/* The connection is reset: TLS has not said its end. */
static void client_expect_reset(SSL *ssl)
{
    char byte;
    ERR_clear_error();
    errno = 0;
    int n = SSL_read(ssl, &byte, 1);
    assert_true(n <= 0);
    assert_int_equal(SSL_get_error(ssl, n), SSL_ERROR_SYSCALL);
    assert_int_equal(errno, ECONNRESET);
}

static void what_a_producer_writes_comes_in_chunks_and_core_ends_it(void **state)
{
    struct asked asked = ask(*state);
    produce(asked.pipe, "hello");
    client_expect(asked.client, "0005\r\nhello\r\n");
    produce(asked.pipe, "again, a little more");
    client_expect(asked.client, "0014\r\nagain, a little more\r\n");
    close(asked.pipe);
    core_say(asked.core, LAST);
    client_expect(asked.client, LAST);
    talk(asked.client, asked.core); /* and it goes on */
    close(asked.core);
    SSL_free(asked.client);
}

static void the_end_of_the_pipe_alone_is_no_end(void **state)
{
    struct asked asked = ask(*state);
    produce(asked.pipe, "half of it");
    close(asked.pipe);
    client_expect(asked.client, "000a\r\nhalf of it\r\n");
    close(asked.core);
    client_expect_reset(asked.client);
    SSL_free(asked.client);
}

static void core_gives_up_while_the_producer_runs(void **state)
{
    struct asked asked = ask(*state);
    char more[4096] = "";
    produce(asked.pipe, "half of it");
    client_expect(asked.client, "000a\r\nhalf of it\r\n");
    close(asked.core);
    client_expect_reset(asked.client);
    struct pollfd unread = {.fd = asked.pipe};
    while (!(poll(&unread, 1, PATIENCE_MS) == 1 && unread.revents & POLLERR)) /* nobody reads on */
        ;
    assert_int_equal(write(asked.pipe, more, sizeof(more)), -1);
    assert_int_equal(errno, EPIPE);
    close(asked.pipe);
    SSL_free(asked.client);
}

/* What core said before it closed counts, though the pipe has still to be read. */
static void a_last_word_before_the_end_is_heard(void **state)
{
    struct asked asked = ask(*state);
    core_say(asked.core, LAST);
    close(asked.core);
    produce(asked.pipe, "all of it");
    close(asked.pipe);
    client_expect(asked.client, "0009\r\nall of it\r\n" LAST);
    client_expect_end(asked.client, SSL_ERROR_ZERO_RETURN);
    SSL_free(asked.client);
}

static void a_client_that_reads_nothing_holds_the_producer_back(void **state)
{
    struct asked asked = ask(*state);
    static char block[65536];
    int64_t taken = 0;
    memset(block, 'x', sizeof(block));
    fcntl(asked.pipe, F_SETFL, O_NONBLOCK);
    struct pollfd room = {.fd = asked.pipe, .events = POLLOUT};
    while (poll(&room, 1, 500) == 1) { /* until the sockets between are full */
        ssize_t n = write(asked.pipe, block, sizeof(block));
        assert_true(n > 0 || errno == EAGAIN);
        taken += n > 0 ? n : 0;
    }
    close(asked.pipe);
    core_say(asked.core, LAST);
    int64_t got = 0;
    size_t n, size = 1;
    while (size > 0) { /* each chunk is one record */
        static char bytes[CHUNK + 16];
        assert_int_equal(SSL_read_ex(asked.client, bytes, sizeof(bytes), &n), 1);
        size = strtoul(bytes, NULL, 16);
        assert_int_equal(n, size ? size + 8 : strlen(LAST));
        got += (int64_t)size;
    }
    assert_int_equal(got, taken);
    close(asked.core);
    SSL_free(asked.client);
}

static void a_client_that_leaves_closes_pipe_and_socket(void **state)
{
    struct asked asked = ask(*state);
    char byte;
    SSL_free(asked.client); /* without a word */
    assert_true(recv(asked.core, &byte, 1, 0) <= 0);
    struct pollfd unread = {.fd = asked.pipe};
    assert_int_equal(poll(&unread, 1, PATIENCE_MS), 1);
    assert_true(unread.revents & POLLERR);
    close(asked.pipe);
    close(asked.core);
}

static void bytes_around_the_marker_keep_their_order(void **state)
{
    struct world *w = *state;
    SSL *client = client_open(w, NULL);
    client_say(client, QUESTION);
    int core = core_take(w, NULL), pipe;
    core_expect(core, QUESTION);
    core_say(core, "HTTP/1.1 200 OK\r\n");
    core_say(core, "Transfer-Encoding: chunked\r\n\r\n");
    core_hand_over(core, &pipe);
    core_say(core, LAST "HTTP/1.1 204 No Content\r\n\r\n"); /* before a byte of it is produced */
    produce(pipe, "body");
    close(pipe);
    client_expect(client, HEAD "0004\r\nbody\r\n" LAST "HTTP/1.1 204 No Content\r\n\r\n");
    SSL_free(client);
    close(core);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_start, world_stop)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(what_a_producer_writes_comes_in_chunks_and_core_ends_it),
        IN_WORLD(the_end_of_the_pipe_alone_is_no_end),
        IN_WORLD(core_gives_up_while_the_producer_runs),
        IN_WORLD(a_last_word_before_the_end_is_heard),
        IN_WORLD(a_client_that_reads_nothing_holds_the_producer_back),
        IN_WORLD(a_client_that_leaves_closes_pipe_and_socket),
        IN_WORLD(bytes_around_the_marker_keep_their_order),
    };
    if (argc > 1 && strcmp(argv[1], "--front") == 0)
        return front_main();
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("front: body", tests, NULL, NULL);
}
