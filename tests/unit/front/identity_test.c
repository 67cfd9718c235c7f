/* Who may come in, and what core is told about it. */
#include "front_fixture.h"

#include "front/front.h"

/* The client is refused: by the handshake (TLS 1.2), or by the first thing that it reads (TLS 1.3). */
static void expect_refused(SSL *ssl)
{
    char byte;
    ERR_clear_error();
    assert_true(SSL_connect(ssl) != 1 || SSL_read(ssl, &byte, 1) <= 0);
    assert_int_equal(ERR_GET_LIB(ERR_peek_error()), ERR_LIB_SSL);
    assert_true(ERR_GET_REASON(ERR_peek_error()) > SSL_AD_REASON_OFFSET); /* an alert that says why, not a bare end */
    ERR_clear_error();
}

/* No connection but a good one reaches core. */
static void expect_only_good(struct world *w)
{
    struct preface preface;
    SSL *ssl = client_open(w, &w->admin);
    int core = core_meet(w, ssl, &preface);
    assert_string_equal(preface.common_name, "admin");
    talk(ssl, core);
    SSL_free(ssl);
    close(core);
}

static void the_preface_names_the_clients_certificate(void **state)
{
    struct world *w = *state;
    struct preface preface;
    struct sockaddr_in own;
    uint8_t fingerprint[32];
    unsigned size = sizeof(fingerprint);
    socklen_t length = sizeof(own);
    SSL *ssl = client_open(w, &w->admin);
    int core = core_meet(w, ssl, &preface);
    X509_digest(w->admin.certificate, EVP_sha256(), fingerprint, &size);
    getsockname(SSL_get_fd(ssl), (struct sockaddr *)&own, &length);
    assert_int_equal(preface.has_certificate, 1);
    assert_int_equal(preface.issued_by_us, 1);
    assert_memory_equal(preface.fingerprint, fingerprint, size);
    assert_string_equal(preface.common_name, "admin");
    assert_string_equal(preface.names[0], "URI:quiesced:admin");
    assert_string_equal(preface.names[1], "DNS:console.example");
    assert_string_equal(preface.names[2], "EMAIL:a@example.org");
    assert_string_equal(preface.names[3], "");
    assert_int_equal(preface.peer.ss_family, AF_INET);
    assert_int_equal(((struct sockaddr_in *)&preface.peer)->sin_port, own.sin_port);
    talk(ssl, core);
    SSL_free(ssl);
    close(core);
}

static void a_client_without_certificate_comes_in_without_names(void **state)
{
    struct world *w = *state;
    struct preface preface;
    SSL *ssl = client_open(w, NULL);
    int core = core_meet(w, ssl, &preface);
    assert_int_equal(preface.has_certificate, 0);
    assert_int_equal(preface.issued_by_us, 0);
    assert_string_equal(preface.common_name, "");
    talk(ssl, core);
    SSL_free(ssl);
    close(core);
}

static void the_other_authority_is_trusted_but_is_not_us(void **state)
{
    struct world *w = *state;
    struct preface preface;
    struct holder guest = holder_make(&(struct certificate_spec){.name = "guest", .issuer = &w->client_ca});
    SSL *ssl = client_open(w, &guest);
    int core = core_meet(w, ssl, &preface);
    assert_int_equal(preface.has_certificate, 1);
    assert_int_equal(preface.issued_by_us, 0);
    assert_string_equal(preface.common_name, "guest");
    SSL_free(ssl);
    close(core);
    holder_free(&guest);
}

static void an_intermediate_that_bears_our_name_is_not_us(void **state)
{
    struct world *w = *state;
    struct preface preface;
    struct holder twin =
        holder_make(&(struct certificate_spec){.name = "quiesced CA", .issuer = &w->client_ca, .authority = true});
    struct holder impostor = holder_make(&(struct certificate_spec){.name = "admin", .issuer = &twin});
    SSL_CTX *context = client_context(w, &impostor);
    SSL_CTX_add1_chain_cert(context, twin.certificate);
    SSL *ssl = client_on(context, tcp_connect(w));
    assert_int_equal(SSL_connect(ssl), 1);
    int core = core_meet(w, ssl, &preface);
    assert_int_equal(preface.has_certificate, 1);
    assert_int_equal(preface.issued_by_us, 0);
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(core);
    holder_free(&twin);
    holder_free(&impostor);
}

static void names_that_do_not_fit_are_left_out_and_never_cut(void **state)
{
    struct world *w = *state;
    struct preface preface;
    char names[512] = "DNS:";
    memset(names + 4, 'a', 200);
    strcat(names, ",DNS:b.example,URI:c:d,DNS:e.example,DNS:f.example,DNS:g.example");
    struct holder many =
        holder_make(&(struct certificate_spec){.name = "many", .alternatives = names, .issuer = &w->private_ca});
    SSL *ssl = client_open(w, &many);
    int core = core_meet(w, ssl, &preface);
    assert_string_equal(preface.names[0], "DNS:b.example");
    assert_string_equal(preface.names[1], "URI:c:d");
    assert_string_equal(preface.names[3], "DNS:f.example");
    SSL_free(ssl);
    close(core);
    holder_free(&many);
}

static void certificates_that_do_not_verify_are_refused(void **state)
{
    struct world *w = *state;
    struct holder stranger_ca = holder_make(&(struct certificate_spec){.name = "quiesced CA", .authority = true});
    const struct certificate_spec specs[] = {
        {.name = "stranger", .issuer = &stranger_ca},
        {.name = "late", .issuer = &w->private_ca, .expired = true},
        {.name = "server only", .issuer = &w->private_ca, .usage = "serverAuth"},
        {.name = "by a client", .issuer = &w->admin},
    };
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < ELEMENTS(specs) * ELEMENTS(versions); i++) {
        struct holder bad = holder_make(&specs[i / 2]);
        SSL_CTX *context = client_context(w, &bad);
        SSL_CTX_set_max_proto_version(context, versions[i % 2]);
        SSL *ssl = client_on(context, tcp_connect(w));
        expect_refused(ssl);
        SSL_free(ssl);
        SSL_CTX_free(context);
        holder_free(&bad);
    }
    holder_free(&stranger_ca);
    expect_only_good(w);
}

static SSL_SESSION *kept;

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(kept);
    kept = session;
    return 1;
}

static void expect_resumed_identity(struct world *w, const struct holder *who, int version, unsigned ours)
{
    SSL_CTX *context = client_context(w, who);
    SSL_CTX_set_max_proto_version(context, version);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
    for (int round = 0; round < 3; round++) {
        struct preface preface;
        SSL *ssl = client_on(context, tcp_connect(w));
        if (round > 0) {
            assert_non_null(kept);
            SSL_set_session(ssl, kept);
        }
        assert_int_equal(SSL_connect(ssl), 1);
        int core = core_meet(w, ssl, &preface);
        talk(ssl, core); /* the tickets of TLS 1.3 come with the first bytes */
        assert_int_equal(SSL_session_reused(ssl), round > 0);
        assert_int_equal(preface.has_certificate, 1);
        assert_int_equal(preface.issued_by_us, ours);
        SSL_shutdown(ssl);
        SSL_free(ssl);
        close(core);
    }
    SSL_SESSION_free(kept);
    kept = NULL;
    SSL_CTX_free(context);
}

static void a_resumed_session_keeps_its_identity(void **state)
{
    struct world *w = *state;
    struct holder guest = holder_make(&(struct certificate_spec){.name = "guest", .issuer = &w->client_ca});
    expect_resumed_identity(w, &w->admin, TLS1_3_VERSION, 1);
    expect_resumed_identity(w, &w->admin, TLS1_2_VERSION, 1);
    expect_resumed_identity(w, &guest, TLS1_3_VERSION, 0);
    expect_resumed_identity(w, &guest, TLS1_2_VERSION, 0);
    holder_free(&guest);
}

/* A connection with the kept session, when there is one: is it resumed? Keeps the session that it gets. */
static bool resumes(struct world *w, const struct holder *who)
{
    SSL_CTX *context = client_context(w, who);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
    SSL *ssl = client_on(context, tcp_connect(w));
    if (kept)
        SSL_set_session(ssl, kept);
    assert_int_equal(SSL_connect(ssl), 1);
    int core = core_meet(w, ssl, NULL);
    bool reused = SSL_session_reused(ssl);
    SSL_shutdown(ssl);
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(core);
    return reused;
}

static void reload(struct world *w, const struct holder *server)
{
    world_send(w, "reload", server, file_of_key(server, NULL));
    world_expect(w, "ready");
}

static void a_ticket_survives_a_new_certificate_but_not_a_new_authority(void **state)
{
    struct world *w = *state;
    assert_false(resumes(w, &w->admin));
    assert_true(resumes(w, &w->admin));
    reload(w, &w->other_server);
    assert_true(resumes(w, &w->admin));
    holder_free(&w->client_ca);
    w->client_ca = holder_make(&(struct certificate_spec){.name = "company CA", .authority = true});
    reload(w, &w->other_server);
    assert_false(resumes(w, &w->admin));
    reload(w, &w->server);
    assert_true(resumes(w, &w->admin));
    SSL_SESSION_free(kept);
    kept = NULL;
}

static void old_versions_and_suites_are_refused(void **state)
{
    struct world *w = *state;
    static const struct {
        int version;
        const char *suites;
    } rows[] = {
        {TLS1_1_VERSION, "DEFAULT:@SECLEVEL=0"},
        {TLS1_VERSION, "DEFAULT:@SECLEVEL=0"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"}, /* CBC */
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        SSL_CTX *context = client_context(w, NULL);
        SSL_CTX_set_min_proto_version(context, rows[i].version);
        SSL_CTX_set_max_proto_version(context, rows[i].version);
        assert_int_equal(SSL_CTX_set_cipher_list(context, rows[i].suites), 1);
        SSL *ssl = client_on(context, tcp_connect(w));
        expect_refused(ssl);
        SSL_free(ssl);
        SSL_CTX_free(context);
    }
    expect_only_good(w);
}

/* A client without AES in hardware puts ChaCha20 first. */
static void our_order_of_suites_holds_but_chacha20_first_is_heard(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *offered, *chosen;
    } rows[] = {
        {"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"},
        {"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_256_GCM_SHA384"},
        {"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"},
    };
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        SSL_CTX *context = client_context(w, NULL);
        assert_int_equal(SSL_CTX_set_ciphersuites(context, rows[i].offered), 1);
        SSL *ssl = client_on(context, tcp_connect(w));
        assert_int_equal(SSL_connect(ssl), 1);
        assert_string_equal(SSL_get_cipher_name(ssl), rows[i].chosen);
        close(core_meet(w, ssl, NULL));
        SSL_free(ssl);
        SSL_CTX_free(context);
    }
}

static void http_1_1_is_agreed_and_h2_alone_is_refused(void **state)
{
    struct world *w = *state;
    static const unsigned char both[] = "\x02h2\x08http/1.1", h2[] = "\x02h2";
    const unsigned char *chosen;
    unsigned length;
    SSL_CTX *context = client_context(w, &w->admin);
    SSL *ssl = client_on(context, tcp_connect(w));
    SSL_set_alpn_protos(ssl, both, sizeof(both) - 1);
    assert_int_equal(SSL_connect(ssl), 1);
    SSL_get0_alpn_selected(ssl, &chosen, &length);
    assert_int_equal(length, 8);
    assert_memory_equal(chosen, "http/1.1", 8);
    close(core_meet(w, ssl, NULL));
    SSL_free(ssl);
    ssl = client_on(context, tcp_connect(w));
    SSL_set_alpn_protos(ssl, h2, sizeof(h2) - 1);
    expect_refused(ssl);
    SSL_free(ssl);
    SSL_CTX_free(context);
    expect_only_good(w);
}

static void plain_http_on_the_tls_port_hurts_nobody(void **state)
{
    struct world *w = *state;
    char bytes[64];
    int fd = tcp_connect(w);
    assert_true(send(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, MSG_NOSIGNAL) > 0);
    shutdown(fd, SHUT_WR);
    while (recv(fd, bytes, sizeof(bytes), 0) > 0)
        ;
    close(fd);
    expect_only_good(w);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_start, world_stop)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(the_preface_names_the_clients_certificate),
        IN_WORLD(a_client_without_certificate_comes_in_without_names),
        IN_WORLD(the_other_authority_is_trusted_but_is_not_us),
        IN_WORLD(an_intermediate_that_bears_our_name_is_not_us),
        IN_WORLD(names_that_do_not_fit_are_left_out_and_never_cut),
        IN_WORLD(certificates_that_do_not_verify_are_refused),
        IN_WORLD(a_resumed_session_keeps_its_identity),
        IN_WORLD(a_ticket_survives_a_new_certificate_but_not_a_new_authority),
        IN_WORLD(old_versions_and_suites_are_refused),
        IN_WORLD(our_order_of_suites_holds_but_chacha20_first_is_heard),
        IN_WORLD(http_1_1_is_agreed_and_h2_alone_is_refused),
        IN_WORLD(plain_http_on_the_tls_port_hurts_nobody),
    };
    if (argc > 1 && strcmp(argv[1], "--front") == 0)
        return front_main();
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("front: identity", tests, NULL, NULL);
}
