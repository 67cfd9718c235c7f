/* Requests on kept-alive connections, each as soon as the one before is answered; held connections; long-polls. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "load.h"

static char request[1024];
static size_t request_length;

static void make_request(void)
{
    request_length = (size_t)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n", options.target);
}

/* One step after the other, sleeping in between: for what is not measured. */
static void wait_for(const struct client *client, enum progress progress)
{
    struct pollfd one = {client->fd, progress == PROGRESS_WAIT_READ ? POLLIN : POLLOUT, 0};
    poll(&one, 1, -1);
}

static void until_done(struct client *client, enum progress (*step)(struct client *))
{
    for (enum progress progress; (progress = step(client)) != PROGRESS_DONE;)
        wait_for(client, progress);
}

static void ask(struct client *client)
{
    for (enum progress progress; (progress = client_send(client, request, request_length)) != PROGRESS_DONE;)
        wait_for(client, progress);
}

static struct client *connected(SSL_CTX *context)
{
    struct client *clients = calloc(options.connections, sizeof(*clients));

    for (size_t i = 0; i < options.connections; i++) {
        client_connect(&clients[i], context, NULL);
        until_done(&clients[i], client_handshake);
    }
    return clients;
}

static int watch_all(struct client *clients)
{
    int poll_fd = epoll_create1(EPOLL_CLOEXEC);

    for (size_t i = 0; i < options.connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, clients[i].fd, &event);
    }
    return poll_fd;
}

static int by_time(const void *a, const void *b)
{
    int64_t one = *(const int64_t *)a, other = *(const int64_t *)b;
    return (one > other) - (one < other);
}

void load_requests(void)
{
    struct client *clients = connected(client_context());
    int64_t *asked = calloc(options.connections, sizeof(*asked)), *took = calloc(options.count, sizeof(*took));
    struct epoll_event events[256];
    size_t begun = 0, done = 0;

    make_request();
    int poll_fd = watch_all(clients);
    int64_t start = now_ns(), cpu = cpu_ns();
    for (; begun < options.connections && begun < options.count; begun++) {
        asked[begun] = now_ns();
        ask(&clients[begun]);
    }
    while (done < options.count) {
        int n = epoll_wait(poll_fd, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct client *client = events[i].data.ptr;
            if (client_receive(client) != PROGRESS_DONE)
                continue;
            int64_t now = now_ns();
            took[done++] = now - asked[client - clients];
            if (begun < options.count) {
                begun++;
                asked[client - clients] = now;
                ask(client);
            }
        }
    }
    int64_t end = now_ns();
    qsort(took, options.count, sizeof(*took), by_time);
    printf("{\"operations\": %zu, \"seconds\": %.6f, \"client_cpu_us\": %.3f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", done, (double)(end - start) / 1e9,
           (double)(cpu_ns() - cpu) / 1e3 / (double)done, (double)took[done / 2] / 1e3, (double)took[done * 99 / 100] / 1e3);
}

void load_hold(void)
{
    struct client *clients = connected(client_context());
    char byte;

    if (options.target) { /* each has had its reply, and rests */
        make_request();
        for (size_t i = 0; i < options.connections; i++) {
            ask(&clients[i]);
            until_done(&clients[i], client_receive);
        }
    }
    printf("held\n");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
}

void load_wake(void)
{
    struct client *clients = connected(client_context());
    struct epoll_event events[256];
    size_t done = 0;
    int64_t first = 0;

    make_request();
    int poll_fd = watch_all(clients);
    for (size_t i = 0; i < options.connections; i++)
        ask(&clients[i]);
    /* Nothing tells from outside that the last one waits: when nothing has moved for a while (tickets have), it does. */
    for (int n; (n = epoll_wait(poll_fd, events, 256, 2000)) > 0;)
        for (int i = 0; i < n; i++)
            if (client_receive(events[i].data.ptr) == PROGRESS_DONE)
                fail("a long-poll that does not wait");
    FILE *trigger = fopen(options.trigger, "we");
    int64_t start = now_ns(), cpu = cpu_ns();
    if (!trigger || fputc('\n', trigger) == EOF || fclose(trigger) != 0)
        fail("the trigger");
    while (done < options.connections) {
        int n = epoll_wait(poll_fd, events, 256, -1);
        for (int i = 0; i < n; i++)
            if (client_receive(events[i].data.ptr) == PROGRESS_DONE && done++ == 0)
                first = now_ns();
    }
    printf("{\"waiters\": %zu, \"first_ms\": %.3f, \"last_ms\": %.3f, \"client_cpu_us\": %.3f}\n", done, (double)(first - start) / 1e6,
           (double)(now_ns() - start) / 1e6, (double)(cpu_ns() - cpu) / 1e3 / (double)done);
}
