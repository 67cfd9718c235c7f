/* What front hands over: packets of any size, with any preface and any number of descriptors. One that is whole becomes a connection whose
 * request is served, with names that end and groups that are there; all others are dropped. Either way no descriptor stays open.
 * The first byte says how many ride along; what is missing of a preface is zero, so that the corpus is short. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/auth.h"
#include "api/http.h"
#include "base/cleanup.h"
#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RIDERS_MAX = 6, TURNS_MAX = 64 };

static struct {
    struct loop *loop;
    size_t begun, done;
} seen;

static void fail(const char *what, size_t expected, size_t found)
{
    fprintf(stderr, "%s: %zu, %zu\n", what, expected, found);
    abort();
}

/* Whoever reads a preface reads these. */
static void look_at(const struct preface *preface)
{
    if (!preface)
        return;
    struct credential credential;
    credential_read(&credential, preface, NULL);
    size_t length = strlen(preface->common_name);
    for (size_t i = 0; i < PREFACE_NAMES; i++)
        length += strlen(preface->names[i]);
    if (length > (PREFACE_NAMES + 1) * (PREFACE_NAME_SIZE - 1))
        fail("names that do not end", 0, length);
    if (preface->n_groups > PREFACE_GROUPS)
        fail("groups that are not there", PREFACE_GROUPS, preface->n_groups);
}

static void *on_begin(void *arg, struct http_request *request, int64_t content_length)
{
    (void)arg;
    (void)content_length;
    seen.begun++;
    look_at(http_preface(request));
    if (!http_peer(request))
        fail("no peer", 1, 0);
    return request;
}

static bool on_upload(void *state, const char *data, size_t size)
{
    (void)state;
    (void)data;
    (void)size;
    return true;
}

static void on_end(void *state)
{
    struct http_reply reply = {.status = 204};
    http_answer(state, &reply);
}

static void on_left(void *state)
{
    (void)state;
}

static void on_done(void *state)
{
    (void)state;
    seen.done++;
}

static void send_packet(int fd, const uint8_t *bytes, size_t size, int passed, size_t riders)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * RIDERS_MAX)];
    } control = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int fds[RIDERS_MAX];
    for (size_t i = 0; i < RIDERS_MAX; i++)
        fds[i] = passed;
    if (riders > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * riders);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * riders);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * riders);
    }
    if (sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)size)
        fail("the socket does not take it", size, 0);
}

static void turn_over(void *arg)
{
    (void)arg;
    loop_quit(seen.loop, 0);
}

/* Everything happens on this machine's sockets at once: a few turns of the loop see all of it. */
static void run(bool wanted)
{
    struct loop_timer *timer = loop_timer_new(seen.loop, turn_over, NULL);
    for (int i = 0; i < TURNS_MAX && (i < 2 || (wanted && seen.done == 0)); i++) {
        loop_timer_set(timer, 0);
        loop_run(seen.loop);
    }
    loop_timer_free(timer);
}

static int lowest_free(void)
{
    int fd = dup(2);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char request[] = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    static const struct http_events events = {on_begin, on_upload, on_end, on_left, on_done};
    uint8_t packet[sizeof(struct preface) + 8] = {0};
    int handover[2], plain[2], before = lowest_free();
    if (size < 2)
        return 0;
    log_init("fuzz", (enum log_level)0); /* what is dropped is told: not here */
    size_t riders = data[0] % (RIDERS_MAX + 1), length = data[1] % 8 ? sizeof(struct preface) : size - 2;
    if (length > sizeof(packet))
        length = sizeof(packet);
    memcpy(packet, data + 2, size - 2 < length ? size - 2 : length);
    if (length == 0) /* an empty packet is front's end */
        return 0;
    seen.loop = loop_new();
    seen.begun = seen.done = 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, handover) != 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, plain) != 0)
        fail("no sockets", 0, 0);
    struct http *http = http_new(seen.loop, handover[0], &events, NULL, NULL);
    const struct preface *preface = (const void *)packet;
    bool whole = riders == 1 && length == sizeof(*preface) && preface->version == PREFACE_VERSION;
    send_packet(handover[1], packet, length, plain[0], riders);
    close(plain[0]);
    if (send(plain[1], request, sizeof(request) - 1, MSG_NOSIGNAL) < 0 && whole)
        fail("nobody listens", 1, 0);
    run(whole);
    http_free(http);
    close(plain[1]);
    close(handover[1]);
    loop_free(seen.loop);
    if (seen.begun != (whole ? 1 : 0) || seen.done != seen.begun)
        fail("requests", whole, seen.begun);
    if (lowest_free() != before)
        fail("descriptors", (size_t)before, (size_t)lowest_free());
    return 0;
}
