/* Bytes both ways, ends, deaths, limits, reload and drain. */
#include "front_fixture.h"

#include <pthread.h>

#include "front/front.h"

enum { CROWD = 200, QUEUE_CROWD = 40, LARGE = 24 * 1024 * 1024 };

/* --- many --- */

static void two_hundred_connections_live_at_once(void **state)
{
    struct world *w = *state;
    SSL *clients[CROWD];
    int cores[CROWD];
    char text[64];
    for (int i = 0; i < CROWD; i++) {
        clients[i] = client_open(w, i % 2 ? &w->admin : NULL);
        cores[i] = core_meet(w, clients[i], NULL);
    }
    for (int i = CROWD - 1; i >= 0; i--) {
        snprintf(text, sizeof(text), "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i);
        client_say(clients[i], text);
    }
    for (int i = 0; i < CROWD; i++) {
        snprintf(text, sizeof(text), "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i);
        core_expect(cores[i], text);
        core_say(cores[i], text);
    }
    for (int i = 0; i < CROWD; i++) {
        snprintf(text, sizeof(text), "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i);
        client_expect(clients[i], text);
        SSL_free(clients[i]);
        close(cores[i]);
    }
}

static void *connect_and_talk(void *arg)
{
    struct world *w = arg;
    SSL *ssl = client_open(w, &w->admin);
    client_say(ssl, QUESTION);
    client_expect(ssl, "answer");
    SSL_free(ssl);
    return NULL;
}

static void connections_wait_while_core_takes_none(void **state)
{
    struct world *w = *state;
    pthread_t threads[QUEUE_CROWD];
    int cores[QUEUE_CROWD];
    for (int i = 0; i < QUEUE_CROWD; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, connect_and_talk, w), 0);
    struct timespec while_the_socket_fills = {.tv_nsec = 300000000};
    nanosleep(&while_the_socket_fills, NULL);
    for (int i = 0; i < QUEUE_CROWD; i++) {
        cores[i] = core_take(w, NULL);
        core_expect(cores[i], QUESTION);
        core_say(cores[i], "answer");
    }
    for (int i = 0; i < QUEUE_CROWD; i++) {
        pthread_join(threads[i], NULL);
        close(cores[i]);
    }
}

static void stalled_handshakes_stop_nobody_and_end_at_the_deadline(void **state)
{
    struct world *w = *state;
    char byte;
    int stalled[20];
    w->handshake_seconds = 1;
    world_send(w, "reload", &w->server, file_of_key(&w->server, NULL));
    world_expect(w, "ready");
    for (size_t i = 0; i < ELEMENTS(stalled); i++) {
        stalled[i] = tcp_connect(w);
        assert_int_equal(send(stalled[i], "\x16\x03\x01\x02", 4, MSG_NOSIGNAL), 4); /* a ClientHello's beginning */
    }
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    talk(ssl, core);
    for (size_t i = 0; i < ELEMENTS(stalled); i++) {
        assert_true(recv(stalled[i], &byte, 1, 0) <= 0 && errno != EAGAIN);
        close(stalled[i]);
    }
    talk(ssl, core); /* the deadline was the handshake's alone */
    SSL_free(ssl);
    close(core);
}

static void a_full_front_accepts_again_when_one_leaves(void **state)
{
    struct world *w = *state;
    w->connections = 2;
    world_send(w, "reload", &w->server, file_of_key(&w->server, NULL));
    world_expect(w, "ready");
    SSL *one = client_open(w, NULL);
    SSL *two = client_open(w, NULL);
    int core_one = core_meet(w, one, NULL);
    int core_two = core_meet(w, two, NULL);
    pthread_t third;
    assert_int_equal(pthread_create(&third, NULL, connect_and_talk, w), 0);
    talk(one, core_one);
    struct pollfd quiet = {.fd = w->handover, .events = POLLIN};
    assert_int_equal(poll(&quiet, 1, 100), 0);
    SSL_free(one);
    close(core_one);
    int core_three = core_take(w, NULL);
    core_expect(core_three, QUESTION);
    core_say(core_three, "answer");
    pthread_join(third, NULL);
    talk(two, core_two);
    SSL_free(two);
    close(core_two);
    close(core_three);
}

/* --- ends and deaths --- */

/* A request with a body of length, of which core has taken the head. */
static void begin_body(SSL *ssl, int core, size_t length)
{
    char head[96];
    snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", length);
    client_say(ssl, head);
    core_expect(core, head);
}

static void an_abrupt_end_reaches_core_at_once(void **state)
{
    struct world *w = *state;
    char byte;
    for (int reset = 0; reset < 2; reset++) {
        SSL *ssl = client_open(w, NULL);
        int core = core_meet(w, ssl, NULL);
        talk(ssl, core);
        struct linger linger = {.l_onoff = reset, .l_linger = 0};
        setsockopt(SSL_get_fd(ssl), SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        SSL_free(ssl); /* closes TCP without close_notify: FIN, or RST */
        assert_int_equal(recv(core, &byte, 1, 0), 0);
        struct pollfd hangup = {.fd = core};
        assert_int_equal(poll(&hangup, 1, PATIENCE_MS), 1); /* closed, not merely half */
        assert_true(hangup.revents & POLLHUP);
        close(core);
    }
}

static void a_client_that_has_ended_its_request_still_gets_its_answer(void **state)
{
    struct world *w = *state;
    char byte;
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    client_say(ssl, QUESTION);
    assert_int_equal(SSL_shutdown(ssl), 0);
    core_expect(core, QUESTION);
    assert_int_equal(recv(core, &byte, 1, 0), 0);
    core_say(core, "answer");
    client_expect(ssl, "answer");
    close(core);
    client_expect_end(ssl, SSL_ERROR_ZERO_RETURN);
    SSL_free(ssl);
}

static void the_end_of_an_answer_survives_bytes_that_nobody_reads(void **state)
{
    struct world *w = *state;
    char bytes[8192];
    memset(bytes, 'x', sizeof(bytes));
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    begin_body(ssl, core, 1000000);
    core_say(core, "413 too large");
    assert_int_equal(SSL_write(ssl, bytes, sizeof(bytes)), sizeof(bytes));
    core_expect(core, "x");
    close(core); /* with bytes of the client unread */
    for (int i = 0; i < 20; i++)
        if (SSL_write(ssl, bytes, sizeof(bytes)) <= 0)
            break;
    client_expect(ssl, "413 too large");
    client_expect_end(ssl, SSL_ERROR_ZERO_RETURN);
    SSL_free(ssl);
}

static void a_client_that_dies_while_it_waits_for_core_is_forgotten(void **state)
{
    struct world *w = *state;
    SSL *clients[QUEUE_CROWD];
    int n = 0;
    struct timeval short_wait = {.tv_usec = 300000};
    for (; n < QUEUE_CROWD; n++) { /* until the queue is full, and front accepts no more */
        SSL_CTX *context = client_context(w, NULL);
        clients[n] = client_on(context, tcp_connect(w));
        SSL_CTX_free(context);
        setsockopt(SSL_get_fd(clients[n]), SOL_SOCKET, SO_RCVTIMEO, &short_wait, sizeof(short_wait));
        if (SSL_connect(clients[n]) != 1)
            break;
        client_say(clients[n], QUESTION);
    }
    assert_true(n < QUEUE_CROWD);
    for (int i = 0; i <= n; i++) {
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        setsockopt(SSL_get_fd(clients[i]), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        SSL_free(clients[i]);
    }
    struct preface preface;
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, connect_and_talk, w), 0);
    for (;;) {
        int core = core_take(w, &preface);
        if (preface.has_certificate) {
            core_expect(core, QUESTION);
            core_say(core, "answer");
            close(core);
            break;
        }
        char question[sizeof(QUESTION)];
        while (recv(core, question, sizeof(question), 0) > 0)
            ;
        assert_int_equal(recv(core, question, 1, 0), 0);
        close(core);
    }
    pthread_join(other, NULL);
}

static void expect_core_quiet(const struct world *w)
{
    struct pollfd quiet = {.fd = w->handover, .events = POLLIN};
    assert_int_equal(poll(&quiet, 1, 100), 0);
}

static void core_hears_of_a_connection_with_its_first_whole_request(void **state)
{
    struct world *w = *state;
    SSL *silent = client_open(w, NULL);
    SSL *ssl = client_open(w, NULL);
    client_say(ssl, "GET / HTTP/1.1\r\nHo");
    expect_core_quiet(w);
    client_say(ssl, "st: h\r\n\r\n");
    int core = core_take(w, NULL);
    core_expect(core, QUESTION);
    core_say(core, "answer");
    client_expect(ssl, "answer");
    talk(ssl, core);
    assert_int_equal(SSL_shutdown(silent), 0);
    client_expect_end(silent, SSL_ERROR_ZERO_RETURN);
    expect_core_quiet(w);
    SSL_free(silent);
    SSL_free(ssl);
    close(core);
}

static void requests_that_come_at_once_reach_core_in_order(void **state)
{
    struct world *w = *state;
    SSL *ssl = client_open(w, NULL);
    client_say(ssl, QUESTION QUESTION "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo");
    int core = core_take(w, NULL);
    core_expect(core, QUESTION QUESTION "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo");
    client_say(ssl, "dy");
    core_expect(core, "dy");
    core_say(core, "answers");
    client_expect(ssl, "answers");
    SSL_free(ssl);
    close(core);
}

/* --- much --- */

static void *echo(void *arg)
{
    int core = *(int *)arg;
    static _Thread_local char bytes[65536];
    ssize_t n;
    while ((n = recv(core, bytes, sizeof(bytes), 0)) > 0)
        for (ssize_t sent = 0, m; sent < n; sent += m)
            if ((m = send(core, bytes + sent, (size_t)(n - sent), MSG_NOSIGNAL)) <= 0)
                return NULL;
    shutdown(core, SHUT_RDWR);
    return NULL;
}

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 131 + (at >> 8) * 7 + (at >> 16));
}

/* Both directions at once through one TLS connection; ret: what came back intact. */
static size_t stream(SSL *ssl)
{
    static uint8_t out[50000], in[50000]; /* not a multiple of a record */
    size_t sent = 0, got = 0, n;
    fcntl(SSL_get_fd(ssl), F_SETFL, O_NONBLOCK);
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    while (got < LARGE) {
        bool moved = false;
        size_t want = LARGE - sent < sizeof(out) ? LARGE - sent : sizeof(out);
        for (size_t i = 0; i < want; i++)
            out[i] = pattern(sent + i);
        ERR_clear_error();
        if (want > 0 && SSL_write_ex(ssl, out, want, &n) == 1) {
            sent += n;
            moved = true;
        }
        ERR_clear_error();
        int result = SSL_read_ex(ssl, in, sizeof(in), &n);
        if (result == 1) {
            for (size_t i = 0; i < n; i++)
                if (in[i] != pattern(got + i))
                    return got;
            got += n;
            moved = true;
        } else if (SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ) {
            return got;
        }
        struct pollfd wait = {.fd = SSL_get_fd(ssl), .events = (short)(POLLIN | (sent < LARGE ? POLLOUT : 0))};
        if (!moved && poll(&wait, 1, PATIENCE_MS) != 1)
            return got;
    }
    return got;
}

static void large_transfers_pass_both_ways_at_once(void **state)
{
    struct world *w = *state;
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < ELEMENTS(versions); i++) {
        SSL_CTX *context = client_context(w, &w->admin);
        SSL_CTX_set_max_proto_version(context, versions[i]);
        SSL *ssl = client_on(context, tcp_connect(w));
        assert_int_equal(SSL_connect(ssl), 1);
        int core = core_meet(w, ssl, NULL);
        begin_body(ssl, core, LARGE);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, echo, &core), 0);
        assert_int_equal(stream(ssl), LARGE);
        assert_int_equal(SSL_shutdown(ssl), 0);
        pthread_join(thread, NULL);
        SSL_free(ssl);
        SSL_CTX_free(context);
        close(core);
    }
}

/* Sends until nobody takes more; returns how much that was. */
static size_t fill(SSL *ssl, size_t most)
{
    static const uint8_t zeros[16384];
    size_t sent = 0, n;
    struct pollfd wait = {.fd = SSL_get_fd(ssl), .events = POLLOUT};
    fcntl(SSL_get_fd(ssl), F_SETFL, O_NONBLOCK);
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    while (sent < most) {
        if (SSL_write_ex(ssl, zeros, sizeof(zeros), &n) == 1)
            sent += n;
        else if (poll(&wait, 1, 500) == 0)
            break;
    }
    return sent;
}

static void a_core_that_does_not_read_holds_the_client_back(void **state)
{
    struct world *w = *state;
    static uint8_t bytes[65536];
    SSL *ssl = client_open(w, NULL);
    SSL *other = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    int core_other = core_meet(w, other, NULL);
    size_t most = 256 * 1024 * 1024;
    begin_body(ssl, core, most);
    size_t sent = fill(ssl, most); /* the kernel's buffers on the way, and one chunk of front */
    assert_true(sent < most);
    talk(other, core_other);
    size_t got = 0;
    while (got < sent) {
        ssize_t n = recv(core, bytes, sizeof(bytes), 0);
        assert_true(n > 0);
        got += (size_t)n;
    }
    SSL_free(ssl);
    SSL_free(other);
    close(core);
    close(core_other);
}

static void a_slow_client_gets_all_of_an_answer_that_core_has_finished(void **state)
{
    struct world *w = *state;
    static uint8_t bytes[65536];
    size_t sent = 0, got = 0, n;
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    fcntl(core, F_SETFL, O_NONBLOCK);
    struct pollfd room = {.fd = core, .events = POLLOUT};
    while (poll(&room, 1, 500) == 1) {
        ssize_t m = send(core, bytes, sizeof(bytes), MSG_NOSIGNAL);
        sent += m > 0 ? (size_t)m : 0;
    }
    close(core);
    while (SSL_read_ex(ssl, bytes, sizeof(bytes), &n) == 1)
        got += n;
    assert_int_equal(got, sent);
    assert_int_equal(SSL_get_shutdown(ssl), SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
}

/* --- serve's words --- */

static void expect_server(SSL *ssl, const struct holder *server)
{
    assert_int_equal(X509_cmp(SSL_get0_peer_certificate(ssl), server->certificate), 0);
}

static void reload_serves_the_new_certificate_and_keeps_old_connections(void **state)
{
    struct world *w = *state;
    SSL *old = client_open(w, &w->admin);
    int core_old = core_meet(w, old, NULL);
    expect_server(old, &w->server);
    world_send(w, "reload", &w->other_server, file_of_key(&w->other_server, NULL));
    world_expect(w, "ready");
    SSL *new = client_open(w, &w->admin);
    int core_new = core_meet(w, new, NULL);
    expect_server(new, &w->other_server);
    talk(new, core_new);
    talk(old, core_old);
    SSL_free(old);
    SSL_free(new);
    close(core_old);
    close(core_new);
}

static void an_unusable_certificate_leaves_the_old_one_in_force(void **state)
{
    struct world *w = *state;
    const int keys[] = {file_of_key(&w->server, NULL), file_of_key(&w->other_server, "secret"),
                        memfd_create("empty", MFD_CLOEXEC)};
    for (size_t i = 0; i < ELEMENTS(keys); i++) {
        world_send(w, "reload", &w->other_server, keys[i]);
        AUTO_JSON json_t *msg = world_receive(w);
        struct err err;
        assert_string_equal(json_str(msg, "type", ""), "reload_failed");
        err_from_json(&err, json_object_get(msg, "error"));
        assert_string_equal(hresult_name(err.hr), "E_INVALIDARG");
        assert_non_null(strstr(err.text, "server key"));
        SSL *ssl = client_open(w, NULL);
        int core = core_meet(w, ssl, NULL);
        expect_server(ssl, &w->server);
        talk(ssl, core);
        SSL_free(ssl);
        close(core);
    }
}

static void a_start_with_an_unusable_key_ends_front(void **state)
{
    world_open(state);
    struct world *w = *state;
    world_spawn(w);
    world_send(w, "start", &w->server, file_of_key(&w->other_server, NULL));
    assert_null(world_receive(w));
    assert_int_equal(world_reap(w), 1);
    world_stop(state);
}

static void drain_ends_with_the_last_connection(void **state)
{
    struct world *w = *state;
    AUTO_JSON json_t *drain = json_pack("{s:s}", "type", "drain");
    struct err err;
    SSL *silent = client_open(w, NULL); /* nobody waits for its first request */
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    talk(ssl, core);
    close(TAKE_FD(w->listener));
    assert_int_equal(ipc_send(w->control, drain, NULL, 0, &err), 0);
    int refused;
    while ((refused = tcp_connect(w)) >= 0) /* until front has closed its listener */
        close(refused);
    talk(ssl, core);
    struct pollfd quiet = {.fd = w->control, .events = POLLIN};
    assert_int_equal(poll(&quiet, 1, 100), 0);
    close(core);
    world_expect(w, "drained");
    client_expect_end(ssl, SSL_ERROR_ZERO_RETURN);
    client_expect_end(silent, SSL_ERROR_ZERO_RETURN);
    SSL_free(ssl);
    SSL_free(silent);
}

static void front_ends_when_core_is_gone(void **state)
{
    struct world *w = *state;
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    close(TAKE_FD(w->handover));
    assert_int_equal(world_reap(w), 1);
    SSL_free(ssl);
    close(core);
}

static void front_ends_with_connections_open_when_serve_is_gone(void **state)
{
    struct world *w = *state;
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, NULL);
    int stalled = tcp_connect(w);
    char byte;
    shutdown(w->control, SHUT_RDWR);
    assert_int_equal(world_reap(w), 0);
    assert_int_equal(recv(core, &byte, 1, 0), 0);
    SSL_free(ssl);
    close(core);
    close(stalled);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_start, world_stop)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(two_hundred_connections_live_at_once),
        IN_WORLD(connections_wait_while_core_takes_none),
        IN_WORLD(core_hears_of_a_connection_with_its_first_whole_request),
        IN_WORLD(requests_that_come_at_once_reach_core_in_order),
        IN_WORLD(stalled_handshakes_stop_nobody_and_end_at_the_deadline),
        IN_WORLD(a_full_front_accepts_again_when_one_leaves),
        IN_WORLD(an_abrupt_end_reaches_core_at_once),
        IN_WORLD(a_client_that_has_ended_its_request_still_gets_its_answer),
        IN_WORLD(the_end_of_an_answer_survives_bytes_that_nobody_reads),
        IN_WORLD(a_client_that_dies_while_it_waits_for_core_is_forgotten),
        IN_WORLD(large_transfers_pass_both_ways_at_once),
        IN_WORLD(a_core_that_does_not_read_holds_the_client_back),
        IN_WORLD(a_slow_client_gets_all_of_an_answer_that_core_has_finished),
        IN_WORLD(reload_serves_the_new_certificate_and_keeps_old_connections),
        IN_WORLD(an_unusable_certificate_leaves_the_old_one_in_force),
        cmocka_unit_test(a_start_with_an_unusable_key_ends_front),
        IN_WORLD(drain_ends_with_the_last_connection),
        IN_WORLD(front_ends_when_core_is_gone),
        IN_WORLD(front_ends_with_connections_open_when_serve_is_gone),
    };
    if (argc > 1 && strcmp(argv[1], "--front") == 0)
        return front_main();
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("front: relay", tests, NULL, NULL);
}
