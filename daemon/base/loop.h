#pragma once
/* One epoll loop per process. Everything runs on the thread that calls loop_run. */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/histogram.h"

struct loop;
struct loop_io;
struct loop_timer;

typedef void (*loop_io_fn)(void *arg, uint32_t epoll_events);
typedef void (*loop_timer_fn)(void *arg);
typedef void (*loop_signal_fn)(void *arg, int signo);

struct loop *loop_new(void); /* aborts when the kernel gives no epoll fd */
void loop_free(struct loop *loop);
/* Runs until loop_quit; returns the quit code. */
int loop_run(struct loop *loop);
void loop_quit(struct loop *loop, int code);
/* How long its turns took, in seconds by histogram_latency_bounds: an event that came meanwhile waited up to that long. */
const struct histogram *loop_turn_times(const struct loop *loop);

/* The fd stays the caller's. A source may be removed from inside any callback, its own included. */
struct loop_io *loop_io_add(struct loop *loop, int fd, uint32_t epoll_events, loop_io_fn fn, void *arg);
void loop_io_set(struct loop_io *io, uint32_t epoll_events);
void loop_io_remove(struct loop_io *io); /* NULL is fine */

/* One-shot timers on CLOCK_MONOTONIC; created disarmed. */
struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn fn, void *arg);
void loop_timer_set(struct loop_timer *timer, int64_t delay_ms); /* re-arms; 0 = next turn */
void loop_timer_stop(struct loop_timer *timer);
bool loop_timer_armed(const struct loop_timer *timer);
void loop_timer_free(struct loop_timer *timer); /* NULL is fine */

/* Blocks the signal and reports it through signalfd. */
void loop_signal_add(struct loop *loop, int signo, loop_signal_fn fn, void *arg);
