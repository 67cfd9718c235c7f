/* The framing gate and libmicrohttpd must never see different requests in the same bytes. Whatever comes in: the
 * verdict does not depend on how the bytes are cut; and libmicrohttpd, given what passes, sees as many requests as the
 * gate, answers none of them with an error of its own, and finds the next request after them. */
#include <microhttpd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "front/gate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char sentinel[] = "GET /sentinel HTTP/1.1\r\nHost: h\r\n\r\n";
static const struct gate_limits limits = {.head_bytes = 4096, .headers = 20, .body_bytes = 4096};

enum { TURNS = 2000, MEMORY = 1024 * 1024 };

static void fail(const char *what, uint64_t gate, uint64_t other)
{
    fprintf(stderr, "%s: %llu, %llu\n", what, (unsigned long long)gate, (unsigned long long)other);
    abort();
}

/* --- the gate --- */

struct passed {
    uint8_t bytes[128 * 1024];
    size_t size;
    uint64_t requests;
    enum gate_place place;
    const struct refusal *refusal;
};

static void feed(struct gate *gate, const uint8_t *data, size_t size, struct passed *passed)
{
    struct gate_pass pass;
    AUTO_FREE uint8_t *piece = malloc(size ? size : 1);
    memcpy(piece, data, size);
    passed->refusal = gate_feed(gate, piece, size, &pass);
    AUTO_FREE uint8_t *kept = pass.kept;
    if (kept)
        memcpy(passed->bytes + passed->size, kept, pass.kept_length);
    passed->size += pass.kept_length;
    memcpy(passed->bytes + passed->size, pass.rest, pass.rest_length);
    passed->size += pass.rest_length;
}

/* step: at most so many bytes at once. */
static void through_gate(const uint8_t *data, size_t size, size_t step, struct passed *passed)
{
    struct gate *gate = gate_new(&limits);
    passed->size = 0;
    passed->refusal = NULL;
    for (size_t at = 0; at < size && !passed->refusal; at += step)
        feed(gate, data + at, size - at < step ? size - at : step, passed);
    passed->requests = gate_requests(gate);
    passed->place = gate_place(gate);
    if (!passed->refusal && passed->place == GATE_BETWEEN) {
        feed(gate, (const uint8_t *)sentinel, strlen(sentinel), passed);
        if (passed->refusal)
            fail("the sentinel was refused", 0, 0);
        passed->requests = gate_requests(gate);
    }
    gate_free(gate);
}

static void compare(const struct passed *whole, const struct passed *cut)
{
    if (!whole->refusal != !cut->refusal || whole->requests != cut->requests)
        fail("whole and cut differ", whole->requests, cut->requests);
    size_t common = whole->size < cut->size ? whole->size : cut->size; /* of a refused body more or less passes */
    if (memcmp(whole->bytes, cut->bytes, common) != 0 || (!whole->refusal && whole->size != cut->size))
        fail("whole and cut pass different bytes", whole->size, cut->size);
}

/* --- libmicrohttpd --- */

struct seen {
    uint64_t requests;
    bool sentinel;
};

static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    (void)connection;
    ((struct seen *)cls)->sentinel = str_eq(target, "/sentinel");
    return NULL;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **state)
{
    struct seen *seen = cls;
    (void)url;
    (void)method;
    (void)version;
    (void)data;
    if (!*state) {
        *state = seen;
        return MHD_YES;
    }
    if (*size > 0) {
        *size = 0;
        return MHD_YES;
    }
    seen->requests++;
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    enum MHD_Result result = MHD_queue_response(connection, 299, response);
    MHD_destroy_response(response);
    return result;
}

static void on_log(void *cls, const char *format, va_list list)
{
    (void)cls;
    (void)format;
    (void)list;
}

/* How many replies there are, and how many are the handler's. */
static void count_replies(const char *text, uint64_t *ret_all, uint64_t *ret_ours)
{
    *ret_all = *ret_ours = 0;
    for (const char *at = text; (at = strstr(at, "HTTP/1.")); at++) {
        if (strncmp(at + 8, " 100", 4) == 0)
            continue;
        ++*ret_all;
        *ret_ours += strncmp(at + 8, " 299", 4) == 0;
    }
}

static void through_mhd(const struct passed *passed)
{
    struct seen seen = {0};
    int pair[2];
    AUTO_FREE char *replies = mem_new(MEMORY);
    size_t length = 0;
    ssize_t n = 0;
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, &seen,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_URI_LOG_CALLBACK, on_target, &seen,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    struct sockaddr_storage peer = {.ss_family = AF_INET};
    if (!daemon || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0 ||
        send(pair[0], passed->bytes, passed->size, MSG_NOSIGNAL) != (ssize_t)passed->size ||
        MHD_add_connection(daemon, pair[1], (const struct sockaddr *)&peer, sizeof(peer)) != MHD_YES)
        fail("libmicrohttpd does not start", 0, 0);
    for (int turn = 0; turn < TURNS; turn++) {
        MHD_run(daemon);
        shutdown(pair[0], SHUT_WR); /* again and again: see end_to_core in front/relay.c */
        n = recv(pair[0], replies + length, MEMORY - 1 - length, MSG_DONTWAIT);
        length += n > 0 ? (size_t)n : 0;
        if (n == 0)
            break;
    }
    uint64_t all, ours, whole = passed->requests - (passed->place == GATE_BODY);
    count_replies(replies, &all, &ours);
    MHD_stop_daemon(daemon);
    close(pair[0]);
    if (seen.requests != whole)
        fail("requests of the gate and of libmicrohttpd", whole, seen.requests);
    if (all != ours || all != whole)
        fail("libmicrohttpd answers by itself", all, ours);
    bool expected = passed->size >= strlen(sentinel) && !passed->refusal && passed->place == GATE_BETWEEN &&
                    memcmp(passed->bytes + passed->size - strlen(sentinel), sentinel, strlen(sentinel)) == 0;
    if (expected && !seen.sentinel)
        fail("the last request", expected, seen.sentinel);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct passed whole, cut;
    if (size > 32 * 1024)
        return 0;
    through_gate(data, size, size ? size : 1, &whole);
    through_gate(data, size, 1, &cut);
    compare(&whole, &cut);
    through_gate(data, size, 7, &cut);
    compare(&whole, &cut);
    if (whole.size > 0)
        through_mhd(&cut); /* it got as much of a refused body as there can be */
    return 0;
}
