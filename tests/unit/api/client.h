#pragma once
/* A core with the fake engine in a child process, and a blocking HTTP client on the sockets that front would hand over.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "api/core.h"
#include "base/preface.h"
#include "crypto/hash.h"
#include "tests/unit/api/fake_engine.h"

/* Nothing in these tests takes a hundredth of this: it only keeps a fault from hanging. */
enum { CONTROL_CHILD_FD = 3, PATIENCE_MS = 30000, REPLY_MAX = 512 * 1024 };

static struct {
    pid_t pid;
    int control, handover;
} the_core;

static json_t *token_principal(const char *name, const char *role)
{
    char hex[HASH_HEX_SIZE];
    AUTO_FREE char *token = str_new("secret-%s", name);

    hash_sha256_hex(token, strlen(token), hex);
    return json_pack("{s:s, s:s, s:s, s:s}", "kind", "token", "sha256", hex, "principal", name, "role", role);
}

static json_t *certificate_principal(const char *certificate, const char *name, const char *role)
{
    return json_pack("{s:s, s:s, s:s, s:s}", "kind", "certificate", "name", certificate, "principal", name, "role",
                     role);
}

static json_t *start_message(const char *type)
{
    json_t *principals =
        json_pack("[o, o, o, o, o, o]", token_principal("admin", "admin"), token_principal("viewer", "viewer"),
                  token_principal("operator", "operator"), token_principal("restorer", "restorer"),
                  certificate_principal("admin", "admin", "admin"),
                  certificate_principal("console.example.org", "console", "operator"));

    return json_pack("{s:s, s:{}, s:s, s:o}", "type", type, "config", "ca_pem", "-----BEGIN CERTIFICATE-----\n",
                     "principals", principals);
}

static void control_send(const char *type, const int *fds, size_t n)
{
    AUTO_JSON json_t *msg = start_message(type);

    assert_int_equal(ipc_send(the_core.control, msg, fds, n, NULL), 0);
}

static void control_expect(const char *type)
{
    AUTO_JSON json_t *msg = NULL;
    size_t n = 0;

    assert_int_equal(ipc_recv(the_core.control, PATIENCE_MS, &msg, NULL, &n, NULL), 1);
    assert_string_equal(json_str(msg, "type", ""), type);
}

static void core_child(int control)
{
    dup2(control, CONTROL_CHILD_FD);
    for (int fd = CONTROL_CHILD_FD + 1; fd < 64; fd++)
        close(fd);
    exit(core_main()); /* exit: the leak check of the address sanitizer runs */
}

static int core_start(void **state)
{
    int control[2], handover[2], agent[2];

    (void)state;
    assert_int_equal(ipc_pair(control, NULL), 0);
    the_core.pid = fork();
    if (the_core.pid == 0)
        core_child(control[1]);
    close(control[1]);
    the_core.control = control[0];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, handover), 0);
    assert_int_equal(ipc_pair(agent, NULL), 0);
    control_send("start", (int[]){handover[1], agent[1]}, 2);
    close(handover[1]);
    close(agent[0]);
    close(agent[1]);
    the_core.handover = handover[0];
    control_expect("ready");
    return 0;
}

static int core_stop(void **state)
{
    int status = 0;

    (void)state;
    close(the_core.control);
    close(the_core.handover);
    assert_int_equal(waitpid(the_core.pid, &status, 0), the_core.pid);
    assert_int_equal(status, 0);
    return 0;
}

/* --- connections --- */

static struct preface plain_preface(void)
{
    struct preface preface = {.version = PREFACE_VERSION};
    struct sockaddr_in *peer = (struct sockaddr_in *)&preface.peer;

    peer->sin_family = AF_INET;
    peer->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return preface;
}

static int connect_with(const struct preface *preface)
{
    int pair[2];
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec part = {(void *)(uintptr_t)preface, sizeof(*preface)};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(c), &pair[1], sizeof(int));
    assert_int_equal(sendmsg(the_core.handover, &msg, 0), (ssize_t)sizeof(*preface));
    close(pair[1]);
    return pair[0];
}

static int connect_plain(void)
{
    struct preface preface = plain_preface();

    return connect_with(&preface);
}

/* --- requests and replies --- */

struct answer {
    int status;
    char head[8192];
    char body[REPLY_MAX];
    size_t size;
    json_t *json; /* NULL when the body is none */
};

static void answer_clear(struct answer *answer)
{
    json_decref(answer->json);
    free(answer);
}
DEFINE_CLEANUP(struct answer *, answer_clear)
#define AUTO_ANSWER CLEANUP(answer_clear_p) struct answer *

static void send_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, text, size, MSG_NOSIGNAL);
        if (n < 0) /* answered and closed before all of it was there: the answer can be read */
            return;
        text += n;
        size -= (size_t)n;
    }
}

static void send_request(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void send_request(int fd, const char *fmt, ...)
{
    char *text = NULL;
    va_list list;

    va_start(list, fmt);
    int size = vasprintf(&text, fmt, list);
    va_end(list);
    assert_true(size > 0);
    send_all(fd, text, (size_t)size);
    free(text);
}

static bool read_some(int fd, char *room, size_t size, size_t *used)
{
    struct pollfd poller = {fd, POLLIN, 0};

    assert_true(size > 0);
    assert_int_equal(poll(&poller, 1, PATIENCE_MS), 1);
    ssize_t n = recv(fd, room, size, 0);
    *used += n > 0 ? (size_t)n : 0;
    return n > 0;
}

static const char *head_value(const struct answer *answer, const char *name)
{
    static char value[512];

    for (const char *line = strstr(answer->head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, strlen(name)) != 0 || line[strlen(name)] != ':')
            continue;
        line += strlen(name) + 2;
        str_format(value, sizeof(value), "%.*s", (int)strcspn(line, "\r"), line);
        return value;
    }
    return NULL;
}

/* Reads one reply; a closed connection without one has status 0. */
static struct answer *read_answer(int fd, bool head_only)
{
    struct answer *answer = mem_new(sizeof(*answer));
    size_t used = 0;
    char *end;

    while (!(end = strstr(answer->head, "\r\n\r\n")))
        if (!read_some(fd, answer->head + used, 1, &used)) /* byte by byte: what follows belongs to the body */
            return answer;
    assert_int_equal(sscanf(answer->head, "HTTP/1.1 %d", &answer->status), 1);
    size_t length = head_value(answer, "Content-Length") ? strtoul(head_value(answer, "Content-Length"), NULL, 10) : 0;
    while (!head_only && answer->size < length)
        assert_true(read_some(fd, answer->body + answer->size, length - answer->size, &answer->size));
    answer->json = json_loads(answer->body, 0, NULL);
    return answer;
}

/* One request by the named principal's token on a connection of its own. */
static struct answer *call(const char *who, const char *method, const char *target, const char *body)
{
    AUTO_FD int fd = connect_plain();

    if (body)
        send_request(fd,
                     "%s %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-%s\r\nContent-Type: "
                     "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     method, target, who, strlen(body), body);
    else
        send_request(fd, "%s %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-%s\r\n\r\n", method, target, who);
    return read_answer(fd, str_eq(method, "HEAD"));
}

static void assert_problem(const struct answer *answer, int status, const char *hresult)
{
    assert_int_equal(answer->status, status);
    assert_string_equal(head_value(answer, "Content-Type"), "application/problem+json");
    assert_non_null(answer->json);
    assert_int_equal(json_int(answer->json, "status", 0), status);
    assert_string_equal(json_str(answer->json, "hresult", ""), hresult);
    assert_string_equal(json_str(answer->json, "request_id", "?"), head_value(answer, "X-Request-Id"));
}

/* The pointer of the only fault. */
static const char *only_fault(const struct answer *answer)
{
    const json_t *errors = json_object_get(answer->json, "errors");

    assert_int_equal(json_array_size(errors), 1);
    return json_str(json_array_get(errors, 0), "pointer", "none");
}
