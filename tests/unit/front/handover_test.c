/* Connections that wait with their first request until core takes some: nothing but core and their clients ends them. */
#include "front_fixture.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "front/front.h"

enum {
    CROWD = 200,
    /* Front reads up to 32 of them per turn (IPC_BURST): the last is read after a whole turn that began after the first was sent. */
    PINGS = 2 * 32 + 1,
};

/* What front counts, after it has dealt with everything that was there when it was asked. */
static int64_t figure(struct world *w, const char *name)
{
    AUTO_JSON json_t *ping = json_pack("{s:s}", "type", "ping");
    int64_t value = -1;
    struct err err;
    for (int i = 0; i < PINGS; i++) {
        assert_int_equal(ipc_send(w->control, ping, NULL, 0, &err), 0);
        AUTO_JSON json_t *pong = world_receive(w);
        assert_string_equal(json_str(pong, "type", ""), "pong");
        value = json_int(json_object_get(pong, "figures"), name, -1);
    }
    return value;
}

/* Until front's kernel has all that the client sent. */
static void arrive(int fd)
{
    int unconfirmed;
    do
        assert_int_equal(ioctl(fd, SIOCOUTQ, &unconfirmed), 0);
    while (unconfirmed > 0);
}

/* A client whose first words lie before front, accepted or not. */
static SSL *knock(struct world *w, SSL_CTX *context)
{
    int fd = tcp_connect(w);
    SSL *client = client_on(context, fd);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    ERR_clear_error();
    int done = SSL_connect(client);
    assert_true(done == 1 || SSL_get_error(client, done) == SSL_ERROR_WANT_READ);
    fcntl(fd, F_SETFL, 0);
    arrive(fd);
    return client;
}

/* Clients that ask until front accepts no more, because the last one of them waits for room. Their number. */
static int crowd(struct world *w, const struct holder *holder, SSL *clients[CROWD])
{
    SSL_CTX *context = client_context(w, holder);
    int64_t before = figure(w, "accepted");
    SSL *next;
    int n = 0;
    while ((next = knock(w, context)) && figure(w, "accepted") > before + n) {
        assert_true(n < CROWD);
        assert_int_equal(SSL_connect(next), 1);
        client_say(next, QUESTION);
        arrive(SSL_get_fd(next));
        clients[n++] = next;
    }
    SSL_free(next);
    SSL_CTX_free(context);
    assert_true(n > 0);
    return n;
}

static void leave(SSL *client)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(SSL_get_fd(client), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    SSL_free(client);
}

/* The first connection in the queue whose client is still there. */
static int core_take_living(struct world *w)
{
    for (;;) {
        int core = core_take(w, NULL);
        core_expect(core, QUESTION);
        struct pollfd gone = {.fd = core};
        if (poll(&gone, 1, 0) == 0)
            return core;
        close(core);
    }
}

/* Everybody whom core could know has left, and one that asked is still there. */
static void a_drain_waits_for_who_waits_for_core(void **state)
{
    struct world *w = *state;
    AUTO_JSON json_t *drain = json_pack("{s:s}", "type", "drain");
    SSL *clients[CROWD], *silent = client_open(w, NULL); /* nobody waits for its first request */
    struct err err;
    int n = crowd(w, NULL, clients);
    SSL *last = clients[n - 1];
    assert_int_equal(ipc_send(w->control, drain, NULL, 0, &err), 0);
    for (int i = 0; i < n - 1; i++)
        leave(clients[i]);
    while (figure(w, "connections") > 2) /* and not drained */
        ;
    int core = core_take_living(w);
    core_say(core, "answer");
    client_expect(last, "answer");
    close(core);
    world_expect(w, "drained");
    client_expect_end(last, SSL_ERROR_ZERO_RETURN);
    client_expect_end(silent, SSL_ERROR_ZERO_RETURN);
    SSL_free(last);
    SSL_free(silent);
}

/* Core has not heard of it yet, and would have served it. */
static void a_revoked_certificate_does_not_wait_for_core(void **state)
{
    struct world *w = *state;
    struct holder company = holder_make(&(struct certificate_spec){.name = "backup", .usage = "clientAuth", .issuer = &w->client_ca});
    SSL *clients[CROWD];
    char byte;
    int n = crowd(w, &company, clients);
    w->revoked = &company;
    world_send(w, "reload", &w->server, file_of_key(&w->server, NULL));
    world_expect(w, "ready");
    for (int i = 0; i < n; i++) {
        ERR_clear_error();
        int got = SSL_read(clients[i], &byte, 1);
        assert_true(got <= 0);
        assert_int_not_equal(SSL_get_error(clients[i], got), SSL_ERROR_WANT_READ); /* it is closed, not silent */
        SSL_free(clients[i]);
    }
    for (int i = 0; i < n - 1; i++)
        close(core_take(w, NULL)); /* of those that had been handed over before: broken off */
    while (figure(w, "connections") > 0)
        ;
    struct pollfd more = {.fd = w->handover, .events = POLLIN};
    assert_int_equal(poll(&more, 1, 0), 0);
    w->revoked = NULL;
    holder_free(&company);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(a_drain_waits_for_who_waits_for_core, world_start, world_stop),
                                       cmocka_unit_test_setup_teardown(a_revoked_certificate_does_not_wait_for_core, world_start, world_stop)};
    if (argc > 1 && strcmp(argv[1], "--front") == 0)
        return front_main();
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("front: handover", tests, NULL, NULL);
}
