/* The gate and the limits at work in front: over TLS, with the test as core. */
#include "front_fixture.h"

#include "front/front.h"

enum { CROWD = 12 };

static void set_limits(struct world *w)
{
    world_send(w, "reload", &w->server, file_of_key(&w->server, NULL));
    world_expect(w, "ready");
}

/* The client reads everything to front's close_notify. */
static char *client_read_all(SSL *ssl)
{
    char *text = NULL;
    size_t size = 0, n;
    char bytes[4096];
    FILE *out = open_memstream(&text, &size);
    ERR_clear_error();
    while (SSL_read_ex(ssl, bytes, sizeof(bytes), &n) == 1)
        fwrite(bytes, 1, n, out);
    assert_int_equal(SSL_get_error(ssl, 0), SSL_ERROR_ZERO_RETURN);
    fclose(out);
    return text;
}

static void expect_refusal(SSL *ssl, const char *before, int status, const char *reason)
{
    char start[64], member[64];
    AUTO_FREE char *text = client_read_all(ssl);
    snprintf(start, sizeof(start), "%sHTTP/1.1 %d ", before, status);
    snprintf(member, sizeof(member), "\"reason\":\"%s\"", reason);
    assert_memory_equal(text, start, strlen(start));
    assert_non_null(strstr(text, member));
}

/* Core sees the end, and not a byte before it. */
static void core_expect_end(int core)
{
    char byte;
    assert_int_equal(recv(core, &byte, 1, 0), 0);
}

static void core_sees_nothing_of_a_refused_head(void **state)
{
    struct world *w = *state;
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    client_say(ssl, "GET / HTTP/1.1\r\nHost: h\r\n");
    client_say(ssl, "X: y\n\r\n");
    core_expect_end(core);
    close(core);
    expect_refusal(ssl, "", 400, "bare_lf");
    SSL_free(ssl);
}

static void a_first_request_that_is_refused_never_reaches_core(void **state)
{
    struct world *w = *state;
    SSL *ssl = client_open(w, NULL);
    client_say(ssl, "GET / HTTP/1.1\r\nHost: h\r\n");
    client_say(ssl, "X: y\n\r\n");
    expect_refusal(ssl, "", 400, "bare_lf");
    struct pollfd quiet = {.fd = w->handover, .events = POLLIN};
    assert_int_equal(poll(&quiet, 1, 100), 0);
    SSL_free(ssl);
}

static void a_good_first_request_before_a_refused_one_is_answered(void **state)
{
    struct world *w = *state;
    SSL *ssl = client_open(w, NULL);
    client_say(ssl, QUESTION "GET /\r\n\r\n");
    int core = core_take(w, NULL);
    core_expect(core, QUESTION);
    core_expect_end(core);
    core_say(core, "one");
    close(core);
    expect_refusal(ssl, "one", 400, "http09");
    SSL_free(ssl);
}

static void requests_before_a_refused_one_are_answered_first(void **state)
{
    struct world *w = *state;
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    client_say(ssl, QUESTION QUESTION "GET /\r\n\r\n" QUESTION);
    core_expect(core, QUESTION QUESTION);
    core_expect_end(core);
    core_say(core, "one");
    core_say(core, "two");
    close(core);
    expect_refusal(ssl, "onetwo", 400, "http09");
    SSL_free(ssl);
}

static void a_body_is_refused_in_its_middle(void **state)
{
    struct world *w = *state;
    static const char head[] = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (int spoke = 0; spoke < 2; spoke++) {
        SSL *ssl = client_open(w, NULL);
        int core = core_meet(w, ssl, NULL);
        client_say(ssl, head);
        core_expect(core, head);
        client_say(ssl, "2\r\nhi\r\n");
        core_expect(core, "2\r\nhi\r\n");
        if (spoke) { /* one request, one answer */
            core_say(core, "early answer");
            client_expect(ssl, "early answer");
        }
        client_say(ssl, "rubbish");
        core_expect_end(core);
        close(core);
        if (spoke)
            client_expect_end(ssl, SSL_ERROR_ZERO_RETURN);
        else
            expect_refusal(ssl, "", 400, "chunk");
        SSL_free(ssl);
    }
}

static void a_body_is_refused_although_core_asked_for_it(void **state)
{
    struct world *w = *state;
    static const char head[] = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    for (int answered = 0; answered < 2; answered++) {
        SSL *ssl = client_open(w, NULL);
        int core = core_meet(w, ssl, NULL);
        client_say(ssl, head);
        core_expect(core, head);
        core_say(core, "HTTP/1.1 1");
        client_expect(ssl, "HTTP/1.1 1");
        core_say(core, go_on + strlen("HTTP/1.1 1"));
        client_expect(ssl, go_on + strlen("HTTP/1.1 1"));
        if (answered) {
            core_say(core, "HTTP/1.1 400 ");
            client_expect(ssl, "HTTP/1.1 400 ");
        }
        client_say(ssl, "rubbish");
        core_expect_end(core);
        close(core);
        if (answered)
            client_expect_end(ssl, SSL_ERROR_ZERO_RETURN);
        else
            expect_refusal(ssl, "", 400, "chunk");
        SSL_free(ssl);
    }
}

static void an_answer_to_head_has_no_body(void **state)
{
    struct world *w = *state;
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    client_say(ssl, "HEAD / HTTP/1.1\r\n\r\n");
    core_expect_end(core);
    close(core);
    AUTO_FREE char *text = client_read_all(ssl);
    assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n");
    SSL_free(ssl);
}

static void what_follows_the_last_request_is_dropped(void **state)
{
    struct world *w = *state;
    static const char last[] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    client_say(ssl, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" QUESTION);
    core_expect(core, last);
    core_say(core, "answer");
    struct pollfd quiet = {.fd = core, .events = POLLIN};
    assert_int_equal(poll(&quiet, 1, 100), 0);
    close(core);
    AUTO_FREE char *text = client_read_all(ssl);
    assert_string_equal(text, "answer");
    SSL_free(ssl);
}

static void a_slow_head_and_a_slow_body_end_while_others_are_served(void **state)
{
    struct world *w = *state;
    static const char head[] = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n";
    w->head_seconds = w->stall_seconds = 1;
    set_limits(w);
    SSL *slow_head = client_open(w, NULL);
    int core_head = core_meet(w, slow_head, NULL);
    SSL *slow_body = client_open(w, NULL);
    int core_body = core_meet(w, slow_body, NULL);
    SSL *quick = client_open(w, NULL);
    int core_quick = core_meet(w, quick, NULL);
    client_say(slow_head, "GET");
    client_say(slow_body, head);
    core_expect(core_body, head);
    talk(quick, core_quick);
    core_expect_end(core_head);
    core_expect_end(core_body);
    close(core_head);
    close(core_body);
    expect_refusal(slow_head, "", 408, "head_slow");
    expect_refusal(slow_body, "", 408, "body_slow");
    talk(quick, core_quick); /* idle for as long: no request was in hand */
    SSL_free(slow_head);
    SSL_free(slow_body);
    SSL_free(quick);
    close(core_quick);
}

static void a_body_that_waits_for_core_is_not_slow(void **state)
{
    struct world *w = *state;
    static const char head[] = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n";
    static uint8_t zeros[16384];
    size_t n, sent = 0, got = 0;
    w->stall_seconds = 1;
    set_limits(w);
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    client_say(ssl, head);
    core_expect(core, head);
    fcntl(SSL_get_fd(ssl), F_SETFL, O_NONBLOCK);
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    struct pollfd room = {.fd = SSL_get_fd(ssl), .events = POLLOUT};
    do
        sent += SSL_write_ex(ssl, zeros, sizeof(zeros), &n) == 1 ? n : 0;
    while (poll(&room, 1, 2500) == 1); /* core takes nothing for longer than front's patience */
    while (got < sent - sizeof(zeros)) {
        ssize_t m = recv(core, zeros, sizeof(zeros), 0);
        assert_true(m > 0);
        got += (size_t)m;
    }
    SSL_free(ssl);
    close(core);
}

static void who_does_not_read_is_let_go_of(void **state)
{
    struct world *w = *state;
    static uint8_t bytes[65536];
    w->stall_seconds = 1;
    set_limits(w);
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    SSL *quick = client_open(w, NULL);
    int core_quick = core_meet(w, quick, NULL);
    client_say(ssl, QUESTION);
    core_expect(core, QUESTION);
    while (send(core, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
        talk(quick, core_quick);
    assert_int_not_equal(errno, EAGAIN);
    SSL_free(ssl);
    SSL_free(quick);
    close(core);
    close(core_quick);
}

/* His refusal is not the end of looking at him. */
static void who_was_refused_and_does_not_read_is_let_go_of_as_soon(void **state)
{
    struct world *w = *state;
    static uint8_t bytes[65536];
    w->head_seconds = 1;
    w->stall_seconds = 2;
    set_limits(w);
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    struct timeval patience = {.tv_sec = 8}; /* twice: less than front gives a last answer that nobody asks after */
    setsockopt(core, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    client_say(ssl, QUESTION "GET /slow");
    core_expect(core, QUESTION);
    while (send(core, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
        ;
    assert_int_not_equal(errno, EAGAIN);
    SSL_free(ssl);
    close(core);
}

static void the_oldest_handshake_gives_way(void **state)
{
    struct world *w = *state;
    int stalled[CROWD];
    char byte;
    w->handshakes = 4;
    set_limits(w);
    for (size_t i = 0; i < CROWD; i++) {
        stalled[i] = tcp_connect(w);
        assert_int_equal(send(stalled[i], "\x16\x03\x01\x02", 4, MSG_NOSIGNAL), 4);
    }
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    talk(ssl, core);
    for (size_t i = 0; i < CROWD - 4; i++)
        assert_true(recv(stalled[i], &byte, 1, 0) <= 0 && errno != EAGAIN);
    struct pollfd youngest = {.fd = stalled[CROWD - 1], .events = POLLIN};
    assert_int_equal(poll(&youngest, 1, 100), 0);
    for (size_t i = 0; i < CROWD; i++)
        close(stalled[i]);
    SSL_free(ssl);
    close(core);
}

static int tcp_connect_from(const struct world *w, uint32_t address)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    struct sockaddr_in server = {
        .sin_family = AF_INET, .sin_port = htons(w->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&server, sizeof(server)), 0);
    return fd;
}

static void an_address_has_its_share_and_no_more(void **state)
{
    struct world *w = *state;
    SSL *one, *two;
    char byte;
    w->per_address = 2;
    set_limits(w);
    one = client_open(w, NULL);
    two = client_open(w, NULL);
    int core_one = core_meet(w, one, NULL), core_two = core_meet(w, two, NULL);
    int crowd = tcp_connect(w);
    assert_true(recv(crowd, &byte, 1, 0) <= 0 && errno != EAGAIN);
    close(crowd);
    SSL_CTX *context = client_context(w, NULL);
    SSL *other = client_on(context, tcp_connect_from(w, INADDR_LOOPBACK + 1)); /* 127.0.0.2 */
    assert_int_equal(SSL_connect(other), 1);
    int core_other = core_meet(w, other, NULL);
    talk(other, core_other);
    talk(two, core_two);
    SSL_free(one);
    core_expect_end(core_one);
    close(core_one);
    one = client_open(w, NULL); /* its place is free again */
    core_one = core_meet(w, one, NULL);
    talk(one, core_one);
    SSL_CTX_free(context);
    SSL_free(one);
    SSL_free(two);
    SSL_free(other);
    close(core_one);
    close(core_two);
    close(core_other);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_start, world_stop)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(core_sees_nothing_of_a_refused_head),
        IN_WORLD(a_first_request_that_is_refused_never_reaches_core),
        IN_WORLD(a_good_first_request_before_a_refused_one_is_answered),
        IN_WORLD(requests_before_a_refused_one_are_answered_first),
        IN_WORLD(a_body_is_refused_in_its_middle),
        IN_WORLD(a_body_is_refused_although_core_asked_for_it),
        IN_WORLD(an_answer_to_head_has_no_body),
        IN_WORLD(what_follows_the_last_request_is_dropped),
        IN_WORLD(a_slow_head_and_a_slow_body_end_while_others_are_served),
        IN_WORLD(a_body_that_waits_for_core_is_not_slow),
        IN_WORLD(who_does_not_read_is_let_go_of),
        IN_WORLD(who_was_refused_and_does_not_read_is_let_go_of_as_soon),
        IN_WORLD(the_oldest_handshake_gives_way),
        IN_WORLD(an_address_has_its_share_and_no_more),
    };
    if (argc > 1 && strcmp(argv[1], "--front") == 0)
        return front_main();
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("front: refusals", tests, NULL, NULL);
}
