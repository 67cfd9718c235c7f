/* The framing gate alone: what passes, what is refused and why, wherever the bytes are split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "front/gate.h"

#define GET "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
#define POST "POST /a HTTP/1.1\r\nHost: h\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static const struct gate_limits usual = {.head_bytes = 600, .headers = 5, .body_bytes = 100};

struct result {
    char passed[4096];
    size_t length;
    uint64_t requests;
    enum gate_place place;
    const struct refusal *refusal;
};

static void take(struct result *result, const void *bytes, size_t length)
{
    assert_true(result->length + length <= sizeof(result->passed));
    for (size_t i = 0; i < length; i++)
        result->passed[result->length++] = ((const char *)bytes)[i];
}

/* Feeds text in pieces that end at the first cut, the second cut, and the end; each in memory of its own size. */
static struct result feed(const char *text, size_t length, size_t cut, size_t second)
{
    struct result result = {0};
    struct gate *gate = gate_new(&usual);
    const size_t ends[] = {cut, second, length};
    size_t at = 0;
    for (size_t i = 0; i < ELEMENTS(ends) && !result.refusal; i++) {
        size_t size = ends[i] - at;
        struct gate_pass pass;
        if (size == 0)
            continue;
        AUTO_FREE uint8_t *piece = malloc(size);
        memcpy(piece, text + at, size);
        at = ends[i];
        result.refusal = gate_feed(gate, piece, size, &pass);
        take(&result, pass.kept, pass.kept_length);
        take(&result, pass.rest, pass.rest_length);
        free(pass.kept);
    }
    result.requests = gate_requests(gate);
    result.place = gate_place(gate);
    gate_free(gate);
    return result;
}

/* --- what passes --- */

struct passing {
    const char *text;
    uint64_t requests;
    const char *passes; /* NULL: all of it */
};

static const struct passing passing[] = {
    {GET, 1, NULL},
    {GET GET GET, 3, NULL},
    {"GET /a HTTP/1.0\r\n\r\n", 1, NULL},
    {"GET /a?b=c&d=%20e HTTP/1.1\r\nhOST: [::1]:8877\r\nX:\r\nY: a\tb \x80\xff\r\n\r\n", 1, NULL},
    {POST "Content-Length: 5\r\n\r\nhello" GET, 2, NULL},
    {POST "Content-Length: 5\r\n\r\nGET /" GET, 2, NULL},
    {POST "Content-Length: 0\r\n\r\n" GET, 2, NULL},
    {POST "Content-Length: 0005\r\n\r\nhello" GET, 2, NULL},
    {CHUNKED "5\r\nhello\r\n0\r\n\r\n" GET, 2, NULL},
    {CHUNKED "0\r\n\r\n" GET, 2, NULL},
    {CHUNKED "1\r\n\n\r\n00000000000000A\r\n0123456789\r\n0\r\n\r\n" GET, 2, NULL},
    {POST "transfer-encoding: CHUNKED\r\n\r\n5\r\n\r\n\r\n0\r\n0\r\n\r\n" GET, 2, NULL},
    {"\r\n" GET "\r\n" GET, 2, GET GET},
    {POST "Content-Length: 2\r\n\r\nhi\r\n" GET, 2, POST "Content-Length: 2\r\n\r\nhi" GET},
    {"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" GET "\x01", 1,
     "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"},
    {"GET /a HTTP/1.0\r\n\r\nrubbish", 1, "GET /a HTTP/1.0\r\n\r\n"},
    {"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" GET, 2, NULL},
    {"GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" GET, 2, NULL},
    {POST "Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nhi" GET, 2, NULL},
    {"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n" GET, 2, NULL},
    {"GET /a HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\nX-Cookie: c\r\ncookie:d\r\n\r\n" GET, 2,
     "GET /a HTTP/1.1\r\nHost: h\r\nxookie: a=b\r\nX-Cookie: c\r\nxookie:d\r\n\r\n" GET},
    {"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 1, NULL},
    {"GET https://h/a HTTP/1.1\r\nHost: h\r\n\r\n", 1, NULL},
};

static void passes(const struct passing *row, size_t cut, size_t second)
{
    const char *expected = row->passes ? row->passes : row->text;
    struct result result = feed(row->text, strlen(row->text), cut, second);
    if (result.refusal)
        print_message("refused (%s) with cuts at %zu, %zu: %s\n", result.refusal->reason, cut, second, row->text);
    assert_null(result.refusal);
    assert_int_equal(result.requests, row->requests);
    assert_int_equal(result.length, strlen(expected));
    assert_memory_equal(result.passed, expected, result.length);
    assert_int_equal(result.place, GATE_BETWEEN);
}

static void well_formed_requests_pass_untouched_wherever_they_are_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < ELEMENTS(passing); i++)
        for (size_t cut = 0; cut <= strlen(passing[i].text); cut++)
            for (size_t second = cut; second <= strlen(passing[i].text); second += 1 + (second - cut) / 4)
                passes(&passing[i], cut, second);
}

static void a_head_passes_only_as_a_whole(void **state)
{
    (void)state;
    for (size_t length = 0; length < strlen(GET); length++) {
        struct result result = feed(GET, length, length / 2, length);
        assert_int_equal(result.length, 0);
        assert_int_equal(result.requests, 0);
        assert_int_equal(result.place, length ? GATE_HEAD : GATE_BETWEEN);
    }
}

static void a_body_passes_as_it_comes(void **state)
{
    (void)state;
    static const char *const texts[] = {POST "Content-Length: 9\r\n\r\nhello", CHUNKED "9\r\nhello", CHUNKED "5\r",
                                        CHUNKED "5\r\nhello\r\n0\r\n"};
    for (size_t i = 0; i < ELEMENTS(texts); i++) {
        struct result result = feed(texts[i], strlen(texts[i]), 30, 90 < strlen(texts[i]) ? 90 : 40);
        assert_null(result.refusal);
        assert_int_equal(result.length, strlen(texts[i]));
        assert_int_equal(result.place, GATE_BODY);
    }
}

/* --- what is refused --- */

struct refused {
    const struct refusal *why;
    const char *text;
    size_t length; /* 0: strlen */
};

#define BYTES(text) text, sizeof(text) - 1

static const struct refused refused[] = {
    {&refusal_bare_lf, "GET /a HTTP/1.1\nHost: h\r\n\r\n", 0},
    {&refusal_bare_lf, "GET /a HTTP/1.1\r\nHost: h\n\r\n", 0},
    {&refusal_bare_lf, "GET /a HTTP/1.1\r\nHost: h\r\n\n", 0},
    {&refusal_bare_lf, "\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_bare_cr, "GET /a HTTP/1.1\rHost: h\r\n\r\n", 0},
    {&refusal_bare_cr, "GET /a HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 0},
    {&refusal_bare_cr, "GET /a HTTP/1.1\r\nHost: h\r\r\n\r\n", 0},
    {&refusal_control, BYTES("GET /a HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n")},
    {&refusal_control, BYTES("GET /a\0 HTTP/1.1\r\nHost: h\r\n\r\n")},
    {&refusal_control, "GET /a HTTP/1.1\r\nHost: h\r\nX: a\x7f\r\n\r\n", 0},
    {&refusal_empty_lines, "\r\n\r\n" GET, 0},
    {&refusal_start_line, " GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_start_line, "GET  /a HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_start_line, "GET /a  HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_start_line, "GET /a HTTP/1.1 \r\nHost: h\r\n\r\n", 0},
    {&refusal_start_line, "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_start_line, "GET\r\nHost: h\r\n\r\n", 0},
    {&refusal_start_line, "GET /a\t HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_method, "get /a HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_method, "GETX /a HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_method, "G\tT /a HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_target, "GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_target, "GET a HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_target_nul, "GET /health/live%00x HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_target_nul, "GET /a?b=%00 HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_http09, "GET /a\r\nHost: h\r\n\r\n", 0},
    {&refusal_http09, "GET /a HTTP/0.9\r\nHost: h\r\n\r\n", 0},
    {&refusal_version, "GET /a HTTP/1.2\r\nHost: h\r\n\r\n", 0},
    {&refusal_version, "GET /a HTTP/1.10\r\nHost: h\r\n\r\n", 0},
    {&refusal_version, "GET /a HTTP/01.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_version, "GET /a HTTP/1\r\nHost: h\r\n\r\n", 0},
    {&refusal_version, "GET /a http/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_version, "GET /a RTSP/1.0\r\nHost: h\r\n\r\n", 0},
    {&refusal_version, "GET /a \r\nHost: h\r\n\r\n", 0},
    {&refusal_version_unsupported, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
    {&refusal_version_unsupported, "GET /a HTTP/3.0\r\nHost: h\r\n\r\n", 0},
    {&refusal_fold, "GET /a HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 0},
    {&refusal_fold, "GET /a HTTP/1.1\r\nHost: h\r\nX: a\r\n\t\r\n\r\n", 0},
    {&refusal_fold, "GET /a HTTP/1.1\r\n Host: h\r\n\r\n", 0},
    {&refusal_name, "GET /a HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 0},
    {&refusal_name, "GET /a HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n", 0},
    {&refusal_name, "GET /a HTTP/1.1\r\nHost: h\r\nX(a): b\r\n\r\n", 0},
    {&refusal_name, "GET /a HTTP/1.1\r\nHost: h\r\nX\x80: b\r\n\r\n", 0},
    {&refusal_space_before_colon, "GET /a HTTP/1.1\r\nHost : h\r\n\r\n", 0},
    {&refusal_space_before_colon, POST "Content-Length\t: 5\r\n\r\nhello", 0},
    {&refusal_repeated, "GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 0},
    {&refusal_repeated, "GET /a HTTP/1.1\r\nHost: h\r\nhOst: i\r\n\r\n", 0},
    {&refusal_repeated, POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 0},
    {&refusal_repeated, POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 0},
    {&refusal_repeated, POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 0},
    {&refusal_repeated, POST "Authorization: a\r\nAuthorization: b\r\n\r\n", 0},
    {&refusal_repeated, POST "Content-Type: a/b\r\nContent-Type: a/c\r\n\r\n", 0},
    {&refusal_host_missing, "GET /a HTTP/1.1\r\nX: h\r\n\r\n", 0},
    {&refusal_host_missing, "GET /a HTTP/1.1\r\n\r\n", 0},
    {&refusal_host, "GET /a HTTP/1.1\r\nHost:\r\n\r\n", 0},
    {&refusal_host, "GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", 0},
    {&refusal_host, "GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n", 0},
    {&refusal_length, POST "Content-Length: +5\r\n\r\nhello", 0},
    {&refusal_length, POST "Content-Length: -5\r\n\r\nhello", 0},
    {&refusal_length, POST "Content-Length: 5, 5\r\n\r\nhello", 0},
    {&refusal_length, POST "Content-Length: 5 5\r\n\r\nhello", 0},
    {&refusal_length, POST "Content-Length: 0x5\r\n\r\nhello", 0},
    {&refusal_length, POST "Content-Length: 5 \r\n\r\nhello", 0},
    {&refusal_length, POST "Content-Length: \r\n\r\nhello", 0},
    {&refusal_length_and_encoding, POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    {&refusal_length_and_encoding, POST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 0},
    {&refusal_encoding, POST "Transfer-Encoding: gzip\r\n\r\n", 0},
    {&refusal_encoding, POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0},
    {&refusal_encoding, POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 0},
    {&refusal_encoding, POST "Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n", 0},
    {&refusal_encoding, POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 0},
    {&refusal_encoding, POST "Transfer-Encoding: identity\r\n\r\n", 0},
    {&refusal_encoding, POST "Transfer-Encoding:\r\n\r\n", 0},
    {&refusal_encoding_http10, "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "x\r\n", 0},
    {&refusal_chunk, CHUNKED "\r\n", 0},
    {&refusal_chunk, CHUNKED "+5\r\nhello\r\n0\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "5 \r\nhello\r\n0\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "0x5\r\nhello\r\n0\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "5\nhello\r\n0\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "5\rhello\r\n0\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "5\r\nhello\n0\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "5\r\nhelloX\r\n0\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "5\r\nhello\r\n0\r\n\rX", 0},
    {&refusal_chunk, CHUNKED "0000000000000000000000000000005\r\nhello\r\n0\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "5\r\nhello\r\n0000000000000000000000000000000\r\n\r\n", 0},
    {&refusal_chunk, CHUNKED "11111111111111111\r\n", 0},
    {&refusal_chunk_extension, CHUNKED "5;a=b\r\nhello\r\n0\r\n\r\n", 0},
    {&refusal_chunk_extension, CHUNKED "5\r\nhello\r\n0;a\r\n\r\n", 0},
    {&refusal_trailer, CHUNKED "5\r\nhello\r\n0\r\nX: y\r\n\r\n", 0},
    {&refusal_trailer, CHUNKED "0\r\nContent-Length: 5\r\n\r\n", 0},
    {&refusal_headers_many, "GET /a HTTP/1.1\r\nHost: h\r\nA: a\r\nB: b\r\nC: c\r\nD: d\r\nE: e\r\n\r\n", 0},
    {&refusal_head_large, "GET /a?1&2&3&4&5&6&7&8 HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {&refusal_body_large, POST "Content-Length: 101\r\n\r\n", 0},
    {&refusal_body_large, POST "Content-Length: 18446744073709551617\r\n\r\n", 0},
    {&refusal_body_large, CHUNKED "65\r\n", 0},
    {&refusal_body_large, CHUNKED "1\r\nx\r\n64\r\n", 0},
};

static void is_refused(const struct refused *row, size_t cut)
{
    /* A request before it passes whole, and not a byte of a head that is refused. */
    size_t length = row->length ? row->length : strlen(row->text);
    AUTO_FREE char *text = malloc(strlen(GET) + length + 1);
    memcpy(text, GET, strlen(GET));
    memcpy(text + strlen(GET), row->text, length);
    struct result result = feed(text, strlen(GET) + length, cut, cut);
    if (result.refusal != row->why)
        print_message("%s with a cut at %zu: %s\n", result.refusal ? result.refusal->reason : "passed", cut, row->text);
    assert_ptr_equal(result.refusal, row->why);
    assert_true(result.length >= strlen(GET));
    assert_memory_equal(result.passed, text, result.length);
    if (result.place != GATE_BODY) {
        assert_int_equal(result.length, strlen(GET));
        assert_int_equal(result.requests, 1);
    }
}

static void what_is_malformed_is_refused_for_its_reason_wherever_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < ELEMENTS(refused); i++) {
        size_t length = refused[i].length ? refused[i].length : strlen(refused[i].text);
        for (size_t cut = 0; cut <= strlen(GET) + length; cut++)
            is_refused(&refused[i], cut);
    }
}

/* --- limits --- */

static void a_head_is_refused_as_soon_as_it_is_too_large(void **state)
{
    (void)state;
    char text[1024];
    memset(text, 'x', sizeof(text));
    memcpy(text, "GET /", 5);
    for (size_t length = usual.head_bytes - 1; length <= usual.head_bytes + 1; length++) {
        struct result result = feed(text, length, 100, 200);
        assert_int_equal(result.length, 0);
        assert_ptr_equal(result.refusal, length > usual.head_bytes ? &refusal_head_large : NULL);
    }
}

static void headers_and_parameters_count_beside_their_bytes(void **state)
{
    (void)state;
    static const char head[] = "GET /a?b HTTP/1.1\r\nHost: h\r\nX: ", end[] = "\r\n\r\n";
    const size_t most = usual.head_bytes - 3 * GATE_FIELD_COST;
    for (size_t length = most - 1; length <= most + 1; length++) {
        char text[1024];
        memset(text, 'x', sizeof(text));
        memcpy(text, head, strlen(head));
        memcpy(text + length - strlen(end), end, strlen(end));
        struct result result = feed(text, length, 0, 0);
        assert_ptr_equal(result.refusal, length > most ? &refusal_head_large : NULL);
    }
}

static void bodies_pass_up_to_the_limit(void **state)
{
    (void)state;
    char text[1024];
    int n = snprintf(text, sizeof(text), POST "Content-Length: 100\r\n\r\n%100s" GET, "x");
    struct result result = feed(text, (size_t)n, 0, 0);
    assert_null(result.refusal);
    assert_int_equal(result.requests, 2);
    n = snprintf(text, sizeof(text), CHUNKED "1\r\nx\r\n63\r\n%99s\r\n0\r\n\r\n" GET, "x");
    result = feed(text, (size_t)n, 0, 0);
    assert_null(result.refusal);
    assert_int_equal(result.requests, 2);
}

/* --- the reply --- */

static void the_reply_is_a_problem_with_a_request_id(void **state)
{
    (void)state;
    size_t length;
    AUTO_FREE char *reply = refusal_reply(&refusal_bare_lf, false, &length);
    assert_int_equal(length, strlen(reply));
    assert_memory_equal(reply, "HTTP/1.1 400 Bad Request\r\n", 26);
    assert_non_null(strstr(reply, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(reply, "\r\nContent-Type: application/problem+json\r\n"));
    char *body = strstr(reply, "\r\n\r\n") + 4;
    char *declared = strstr(reply, "\r\nContent-Length: ") + strlen("\r\nContent-Length: ");
    assert_int_equal(strtoul(declared, NULL, 10), strlen(body));
    AUTO_JSON json_t *problem = json_loads(body, 0, NULL);
    assert_non_null(problem);
    const char *id = json_string_value(json_object_get(problem, "request_id"));
    assert_non_null(id);
    assert_memory_equal(strstr(reply, "X-Request-Id: ") + 14, id, strlen(id));
    assert_string_equal(json_string_value(json_object_get(problem, "reason")), "bare_lf");
    assert_string_equal(json_string_value(json_object_get(problem, "hresult")), "E_INVALIDARG");
    assert_true(strlen(json_string_value(json_object_get(problem, "hint"))) > 0);
    AUTO_FREE char *head = refusal_reply(&refusal_bare_lf, true, &length);
    assert_string_equal(strstr(head, "\r\n\r\n"), "\r\n\r\n");
}

static void a_head_request_is_known_as_one(void **state)
{
    (void)state;
    static const char *const heads[] = {"HEAD /a HTTP/1.1\r\n\r\n", "\r\nHEAD /a HTTP/1.1\r\n\r\n"};
    static const char *const others[] = {"HEADX /a HTTP/1.1\r\n\r\n", "GET /HEAD HTTP/1.1\r\n\r\n"};
    for (size_t i = 0; i < 2; i++) {
        struct gate_pass pass;
        char bytes[64];
        for (size_t head = 0; head < 2; head++) {
            struct gate *gate = gate_new(&usual);
            str_copy(bytes, sizeof(bytes), head ? heads[i] : others[i]);
            assert_non_null(gate_feed(gate, (uint8_t *)bytes, strlen(bytes), &pass));
            assert_int_equal(gate_head_only(gate), head);
            gate_free(gate);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_requests_pass_untouched_wherever_they_are_cut),
        cmocka_unit_test(a_head_passes_only_as_a_whole),
        cmocka_unit_test(a_body_passes_as_it_comes),
        cmocka_unit_test(what_is_malformed_is_refused_for_its_reason_wherever_it_is_cut),
        cmocka_unit_test(a_head_is_refused_as_soon_as_it_is_too_large),
        cmocka_unit_test(headers_and_parameters_count_beside_their_bytes),
        cmocka_unit_test(bodies_pass_up_to_the_limit),
        cmocka_unit_test(the_reply_is_a_problem_with_a_request_id),
        cmocka_unit_test(a_head_request_is_known_as_one),
    };
    return cmocka_run_group_tests_name("front: gate", tests, NULL, NULL);
}
