#include "courier/courier.h"

#include <stdlib.h>

#include "base/str.h"

struct multi {
    struct loop *loop;
    CURLM *handle;
    struct loop_timer *timer;
    multi_done_fn done;
    void *arg;
};

struct watch {
    struct multi *multi;
    curl_socket_t fd;
    struct loop_io *io;
};

static void report_ended(struct multi *multi)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(multi->handle, &left)))
        if (message->msg == CURLMSG_DONE)
            multi->done(multi->arg, message->easy_handle, message->data.result);
}

static void on_io(void *arg, uint32_t events)
{
    const struct watch *watch = arg; /* may be gone after the call */
    struct multi *multi = watch->multi;
    int what = (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
               (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    int running;
    curl_multi_socket_action(multi->handle, watch->fd, what, &running);
    report_ended(multi);
}

static void on_timer(void *arg)
{
    struct multi *multi = arg;
    int running;
    curl_multi_socket_action(multi->handle, CURL_SOCKET_TIMEOUT, 0, &running);
    report_ended(multi);
}

static int socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *own)
{
    static const uint32_t events[] = {
        [CURL_POLL_NONE] = 0, [CURL_POLL_IN] = EPOLLIN, [CURL_POLL_OUT] = EPOLLOUT, [CURL_POLL_INOUT] = EPOLLIN | EPOLLOUT};
    struct multi *multi = arg;
    struct watch *watch = own;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watch)
            loop_io_remove(watch->io);
        free(watch);
        curl_multi_assign(multi->handle, fd, NULL);
        return 0;
    }
    if (watch) {
        loop_io_set(watch->io, events[what]);
        return 0;
    }
    watch = mem_new(sizeof *watch);
    *watch = (struct watch){.multi = multi, .fd = fd};
    watch->io = loop_io_add(multi->loop, fd, events[what], on_io, watch);
    curl_multi_assign(multi->handle, fd, watch);
    return 0;
}

static int timer_wanted(CURLM *handle, long delay_ms, void *arg)
{
    struct multi *multi = arg;
    (void)handle;
    if (delay_ms < 0)
        loop_timer_stop(multi->timer);
    else
        loop_timer_set(multi->timer, delay_ms);
    return 0;
}

struct multi *multi_new(struct loop *loop, multi_done_fn done, void *arg)
{
    struct multi *multi = mem_new(sizeof *multi);
    *multi = (struct multi){.loop = loop, .handle = curl_multi_init(), .done = done, .arg = arg};
    if (!multi->handle)
        abort(); /* out of memory */
    multi->timer = loop_timer_new(loop, on_timer, multi);
    curl_multi_setopt(multi->handle, CURLMOPT_SOCKETFUNCTION, socket_wanted);
    curl_multi_setopt(multi->handle, CURLMOPT_SOCKETDATA, multi);
    curl_multi_setopt(multi->handle, CURLMOPT_TIMERFUNCTION, timer_wanted);
    curl_multi_setopt(multi->handle, CURLMOPT_TIMERDATA, multi);
    return multi;
}

void multi_add(struct multi *multi, CURL *easy)
{
    curl_multi_add_handle(multi->handle, easy);
}

void multi_remove(struct multi *multi, CURL *easy)
{
    curl_multi_remove_handle(multi->handle, easy);
}

void multi_free(struct multi *multi)
{
    curl_multi_cleanup(multi->handle);
    loop_timer_free(multi->timer);
    free(multi);
}
