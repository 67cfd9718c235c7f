#include "base/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

struct loop_io {
    struct loop *loop;
    int fd;
    uint32_t events;
    loop_io_fn fn;
    void *arg;
    bool removed;
    struct loop_io *next_removed;
};

struct loop_timer {
    struct loop *loop;
    loop_timer_fn fn;
    void *arg;
    int64_t deadline_us;
    uint64_t sequence; /* among equal deadlines the one armed first goes first */
    size_t slot;       /* in the heap, when armed */
    bool armed;
};

struct loop_signal {
    int signo;
    loop_signal_fn fn;
    void *arg;
    struct loop_signal *next;
};

struct loop {
    int epoll_fd;
    int signal_fd;
    sigset_t signals;
    struct loop_io *signal_io;
    struct loop_signal *signal_handlers;
    struct loop_timer **heap; /* a binary heap: thousands of leases and deadlines are normal */
    size_t heap_used, heap_room;
    uint64_t sequence;
    struct histogram turn_times;
    unsigned turns; /* how many turns are on the stack (a callback may run the loop itself) */
    struct loop_io *removed;
    bool quit;
    int code;
};

static void die(const char *what)
{
    log_line(LOG_LEVEL_ERROR, NULL, "event loop: cannot %s: %s", what, strerrordesc_np(errno));
    abort();
}

struct loop *loop_new(void)
{
    struct loop *loop = mem_new(sizeof(*loop));
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0)
        die("create an epoll descriptor");
    loop->signal_fd = -1;
    sigemptyset(&loop->signals);
    return loop;
}

static void free_removed(struct loop *loop)
{
    while (loop->removed) {
        struct loop_io *io = loop->removed;
        loop->removed = io->next_removed;
        free(io);
    }
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    loop_io_remove(loop->signal_io);
    free_removed(loop);
    while (loop->signal_handlers) {
        struct loop_signal *handler = loop->signal_handlers;
        loop->signal_handlers = handler->next;
        free(handler);
    }
    if (loop->signal_fd >= 0)
        close(loop->signal_fd);
    close(loop->epoll_fd);
    free(loop->heap);
    free(loop);
}

/* --- descriptors --- */

struct loop_io *loop_io_add(struct loop *loop, int fd, uint32_t epoll_events, loop_io_fn fn, void *arg)
{
    struct loop_io *io = mem_new(sizeof(*io));
    *io = (struct loop_io){.loop = loop, .fd = fd, .events = epoll_events, .fn = fn, .arg = arg};
    struct epoll_event event = {.events = epoll_events, .data.ptr = io};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        die("watch a descriptor");
    return io;
}

void loop_io_set(struct loop_io *io, uint32_t epoll_events)
{
    if (io->events == epoll_events)
        return;
    io->events = epoll_events;
    struct epoll_event event = {.events = epoll_events, .data.ptr = io};
    if (epoll_ctl(io->loop->epoll_fd, EPOLL_CTL_MOD, io->fd, &event) != 0)
        die("change the events of a descriptor");
}

void loop_io_remove(struct loop_io *io)
{
    if (!io || io->removed)
        return;
    /* Fails when the owner closed the descriptor first; then it has left the set by itself. */
    epoll_ctl(io->loop->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
    io->removed = true;
    io->next_removed = io->loop->removed;
    io->loop->removed = io;
    if (io->loop->turns == 0)
        free_removed(io->loop);
}

/* --- timers --- */

static bool timer_before(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->deadline_us != b->deadline_us ? a->deadline_us < b->deadline_us : a->sequence < b->sequence;
}

static void heap_place(struct loop *loop, size_t slot, struct loop_timer *timer)
{
    loop->heap[slot] = timer;
    timer->slot = slot;
}

static void heap_up(struct loop *loop, size_t slot)
{
    struct loop_timer *timer = loop->heap[slot];
    for (; slot > 0 && timer_before(timer, loop->heap[(slot - 1) / 2]); slot = (slot - 1) / 2)
        heap_place(loop, slot, loop->heap[(slot - 1) / 2]);
    heap_place(loop, slot, timer);
}

static void heap_down(struct loop *loop, size_t slot)
{
    struct loop_timer *timer = loop->heap[slot];
    for (;;) {
        size_t child = 2 * slot + 1;
        if (child >= loop->heap_used)
            break;
        if (child + 1 < loop->heap_used && timer_before(loop->heap[child + 1], loop->heap[child]))
            child++;
        if (!timer_before(loop->heap[child], timer))
            break;
        heap_place(loop, slot, loop->heap[child]);
        slot = child;
    }
    heap_place(loop, slot, timer);
}

struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn fn, void *arg)
{
    struct loop_timer *timer = mem_new(sizeof(*timer));
    timer->loop = loop;
    timer->fn = fn;
    timer->arg = arg;
    return timer;
}

void loop_timer_stop(struct loop_timer *timer)
{
    if (!timer->armed)
        return;
    struct loop *loop = timer->loop;
    timer->armed = false;
    struct loop_timer *last = loop->heap[--loop->heap_used];
    if (last == timer)
        return;
    heap_place(loop, timer->slot, last);
    heap_up(loop, last->slot);
    heap_down(loop, last->slot);
}

void loop_timer_set(struct loop_timer *timer, int64_t delay_ms)
{
    struct loop *loop = timer->loop;
    loop_timer_stop(timer);
    if (loop->heap_used == loop->heap_room) {
        loop->heap_room = loop->heap_room ? 2 * loop->heap_room : 32;
        loop->heap = mem_resize(loop->heap, loop->heap_room * sizeof(*loop->heap));
    }
    /* A century at most: no deadline may wrap around. */
    static const int64_t most_ms = INT64_C(100) * 366 * 86400 * 1000;
    if (delay_ms < 0)
        delay_ms = 0;
    timer->deadline_us = clock_mono_us() + (delay_ms < most_ms ? delay_ms : most_ms) * 1000;
    timer->sequence = loop->sequence++;
    timer->armed = true;
    heap_place(loop, loop->heap_used++, timer);
    heap_up(loop, timer->slot);
}

bool loop_timer_armed(const struct loop_timer *timer)
{
    return timer->armed;
}

void loop_timer_free(struct loop_timer *timer)
{
    if (!timer)
        return;
    loop_timer_stop(timer);
    free(timer);
}

/* --- signals --- */

static void on_signal_fd(void *arg, uint32_t epoll_events)
{
    (void)epoll_events;
    struct loop *loop = arg;
    struct signalfd_siginfo info;
    while (read(loop->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        for (struct loop_signal *handler = loop->signal_handlers; handler; handler = handler->next)
            if (handler->signo == (int)info.ssi_signo)
                handler->fn(handler->arg, handler->signo);
}

void loop_signal_add(struct loop *loop, int signo, loop_signal_fn fn, void *arg)
{
    struct loop_signal *handler = mem_new(sizeof(*handler));
    *handler = (struct loop_signal){.signo = signo, .fn = fn, .arg = arg, .next = loop->signal_handlers};
    loop->signal_handlers = handler;
    sigaddset(&loop->signals, signo);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signo);
    sigprocmask(SIG_BLOCK, &one, NULL);
    int fd = signalfd(loop->signal_fd, &loop->signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        die("create a signal descriptor");
    loop->signal_fd = fd;
    if (!loop->signal_io)
        loop->signal_io = loop_io_add(loop, fd, EPOLLIN, on_signal_fd, loop);
}

/* --- running --- */

static int wait_ms(const struct loop *loop)
{
    if (loop->heap_used == 0)
        return -1;
    int64_t left_us = loop->heap[0]->deadline_us - clock_mono_us();
    if (left_us <= 0)
        return 0;
    int64_t left_ms = (left_us + 999) / 1000; /* rounded up: waking early would only spin */
    return left_ms < 3600000 ? (int)left_ms : 3600000;
}

/* Timers that are armed during this turn wait for the next one, so that a timer that re-arms itself with 0 starves
 * nobody. */
static void run_timers(struct loop *loop)
{
    int64_t now = clock_mono_us();
    uint64_t turn = loop->sequence;
    while (!loop->quit && loop->heap_used > 0) {
        struct loop_timer *timer = loop->heap[0];
        if (timer->deadline_us > now || timer->sequence >= turn)
            break;
        loop_timer_stop(timer);
        timer->fn(timer->arg);
    }
}

int loop_run(struct loop *loop)
{
    struct epoll_event events[64];
    while (!loop->quit) {
        int n = epoll_wait(loop->epoll_fd, events, ELEMENTS(events), wait_ms(loop));
        if (n < 0 && errno != EINTR)
            die("wait for events");
        loop->turns++;
        int64_t began_us = clock_mono_us();
        for (int i = 0; i < n && !loop->quit; i++) {
            struct loop_io *io = events[i].data.ptr;
            if (!io->removed)
                io->fn(io->arg, events[i].events);
        }
        run_timers(loop);
        if (--loop->turns == 0)
            free_removed(loop);
        histogram_add(&loop->turn_times, &histogram_latency_bounds, (double)(clock_mono_us() - began_us) / 1e6);
    }
    loop->quit = false; /* the loop may be run again, for instance to drain */
    return loop->code;
}

const struct histogram *loop_turn_times(const struct loop *loop)
{
    return &loop->turn_times;
}

void loop_quit(struct loop *loop, int code)
{
    loop->quit = true;
    loop->code = code;
}
