#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/loop.h"

struct world {
    struct loop *loop;
    struct loop_io *io[3];
    struct loop_timer *timer[3];
    int pipe[2];
    int calls[3];
    int order[8];
    int n_order;
};

static int begin(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    world->loop = loop_new();
    if (pipe(world->pipe) != 0)
        return -1;
    *state = world;
    return 0;
}

static int end(void **state)
{
    struct world *world = *state;
    for (size_t i = 0; i < 3; i++) {
        loop_io_remove(world->io[i]);
        loop_timer_free(world->timer[i]);
    }
    loop_free(world->loop);
    close(world->pipe[0]);
    close(world->pipe[1]);
    free(world);
    return 0;
}

static void quit(void *arg)
{
    struct world *world = arg;
    loop_quit(world->loop, 42);
}

static void remove_all(struct world *world)
{
    for (size_t i = 0; i < 2; i++)
        loop_io_remove(TAKE_PTR(world->io[i]));
    loop_timer_set(world->timer[0], 0);
}

static void first_readable(void *arg, uint32_t epoll_events)
{
    struct world *world = arg;
    assert_true(epoll_events & EPOLLIN);
    world->calls[0]++;
    remove_all(world);
}

static void second_readable(void *arg, uint32_t epoll_events)
{
    struct world *world = arg;
    assert_true(epoll_events & EPOLLIN);
    world->calls[1]++;
    remove_all(world);
}

static void sources_may_be_removed_within_a_callback_and_are_not_called_any_more(void **state)
{
    struct world *world = *state;
    AUTO_FD int copy = dup(world->pipe[0]);
    world->timer[0] = loop_timer_new(world->loop, quit, world);
    world->io[0] = loop_io_add(world->loop, world->pipe[0], EPOLLIN, first_readable, world);
    world->io[1] = loop_io_add(world->loop, copy, EPOLLIN, second_readable, world);
    assert_int_equal(write(world->pipe[1], "x", 1), 1);
    assert_int_equal(loop_run(world->loop), 42);
    assert_int_equal(world->calls[0] + world->calls[1], 1); /* whoever came first removed both */
}

static void replace_self(void *arg, uint32_t epoll_events)
{
    struct world *world = arg;
    assert_true(epoll_events & EPOLLIN);
    loop_io_remove(world->io[0]);
    world->io[0] = NULL;
    if (++world->calls[0] < 3)
        world->io[0] = loop_io_add(world->loop, world->pipe[0], EPOLLIN, replace_self, world);
    else
        loop_quit(world->loop, 1);
}

static void a_source_may_replace_itself(void **state)
{
    struct world *world = *state;
    world->io[0] = loop_io_add(world->loop, world->pipe[0], EPOLLIN, replace_self, world);
    assert_int_equal(write(world->pipe[1], "x", 1), 1);
    assert_int_equal(loop_run(world->loop), 1);
    assert_int_equal(world->calls[0], 3);
}

static void writable(void *arg, uint32_t epoll_events)
{
    struct world *world = arg;
    assert_true(epoll_events & EPOLLOUT);
    loop_io_set(world->io[0], 0);
    world->calls[0]++;
    loop_timer_set(world->timer[0], 0);
}

static void the_events_of_a_source_can_be_changed(void **state)
{
    struct world *world = *state;
    world->timer[0] = loop_timer_new(world->loop, quit, world);
    world->io[0] = loop_io_add(world->loop, world->pipe[1], 0, writable, world);
    loop_io_set(world->io[0], EPOLLOUT);
    assert_int_equal(loop_run(world->loop), 42);
    assert_int_equal(world->calls[0], 1);
}

static void note(struct world *world, int what)
{
    world->order[world->n_order++] = what;
}

static void note_0(void *arg)
{
    note(arg, 0);
}
static void note_1(void *arg)
{
    note(arg, 1);
}
static void note_2_and_quit(void *arg)
{
    note(arg, 2);
    quit(arg);
}

static void timers_go_off_in_the_order_of_their_deadlines(void **state)
{
    struct world *world = *state;
    world->timer[0] = loop_timer_new(world->loop, note_0, world);
    world->timer[1] = loop_timer_new(world->loop, note_1, world);
    world->timer[2] = loop_timer_new(world->loop, note_2_and_quit, world);
    loop_timer_set(world->timer[2], 20);
    loop_timer_set(world->timer[0], 10);
    loop_timer_set(world->timer[1], 0);
    int64_t before = clock_mono_us();
    assert_true(loop_timer_armed(world->timer[0]));
    assert_int_equal(loop_run(world->loop), 42);
    assert_true(clock_mono_us() - before >= 15000); /* never early; lateness is the machine's affair */
    assert_int_equal(world->n_order, 3);
    assert_int_equal(world->order[0], 1);
    assert_int_equal(world->order[1], 0);
    assert_int_equal(world->order[2], 2);
    assert_false(loop_timer_armed(world->timer[0]));
}

static void a_stopped_timer_stays_silent_and_a_re_armed_one_fires_once(void **state)
{
    struct world *world = *state;
    world->timer[0] = loop_timer_new(world->loop, note_0, world);
    world->timer[1] = loop_timer_new(world->loop, note_1, world);
    world->timer[2] = loop_timer_new(world->loop, note_2_and_quit, world);
    loop_timer_set(world->timer[0], 0);
    loop_timer_stop(world->timer[0]);
    loop_timer_stop(world->timer[0]);
    loop_timer_set(world->timer[1], 5);
    loop_timer_set(world->timer[1], 0);
    loop_timer_set(world->timer[2], 10);
    loop_run(world->loop);
    assert_int_equal(world->n_order, 2);
    assert_int_equal(world->order[0], 1);
}

static void free_self_and_neighbour(void *arg)
{
    struct world *world = arg;
    loop_timer_free(TAKE_PTR(world->timer[0]));
    loop_timer_free(TAKE_PTR(world->timer[1]));
    loop_timer_set(world->timer[2], 0);
}

static void timers_may_be_freed_within_a_callback(void **state)
{
    struct world *world = *state;
    world->timer[0] = loop_timer_new(world->loop, free_self_and_neighbour, world);
    world->timer[1] = loop_timer_new(world->loop, note_1, world);
    world->timer[2] = loop_timer_new(world->loop, note_2_and_quit, world);
    loop_timer_set(world->timer[0], 0);
    loop_timer_set(world->timer[1], 0);
    loop_run(world->loop);
    assert_int_equal(world->n_order, 1);
    assert_int_equal(world->order[0], 2);
}

static void rearm_for_ever(void *arg)
{
    struct world *world = arg;
    loop_timer_set(world->timer[0], 0);
}

static void drain_and_quit(void *arg, uint32_t epoll_events)
{
    (void)epoll_events;
    quit(arg);
}

static void a_timer_that_re_arms_itself_does_not_starve_descriptors(void **state)
{
    struct world *world = *state;
    world->timer[0] = loop_timer_new(world->loop, rearm_for_ever, world);
    world->io[0] = loop_io_add(world->loop, world->pipe[0], EPOLLIN, drain_and_quit, world);
    loop_timer_set(world->timer[0], 0);
    assert_int_equal(write(world->pipe[1], "x", 1), 1);
    assert_int_equal(loop_run(world->loop), 42);
}

enum { CROWD = 500 };
static int64_t fired_last;
static int fired;
struct member {
    struct loop_timer *timer;
    int64_t earliest_us, latest_us; /* the deadline, by our clock before and after it was set */
};

static void crowd_fired(void *arg)
{
    struct member *member = arg;
    /* The loop read the clock somewhere between our two readings: only who must have been due earlier counts. */
    assert_true(member->latest_us >= fired_last);
    if (member->earliest_us > fired_last)
        fired_last = member->earliest_us;
    fired++;
}

static void hundreds_of_timers_keep_their_order_while_others_are_stopped(void **state)
{
    struct world *world = *state;
    struct member *crowd = calloc(CROWD, sizeof(*crowd));
    unsigned seed = 7;
    for (int i = 0; i < CROWD; i++) {
        crowd[i].timer = loop_timer_new(world->loop, crowd_fired, &crowd[i]);
        int64_t delay = 200 + 5 * (rand_r(&seed) % 20);
        crowd[i].earliest_us = clock_mono_us() + delay * 1000;
        loop_timer_set(crowd[i].timer, delay);
        crowd[i].latest_us = clock_mono_us() + delay * 1000;
    }
    for (int i = 0; i < CROWD; i += 3)
        loop_timer_stop(crowd[i].timer);
    world->timer[0] = loop_timer_new(world->loop, quit, world);
    loop_timer_set(world->timer[0], 1000);
    loop_run(world->loop);
    assert_int_equal(fired, CROWD - (CROWD + 2) / 3);
    for (int i = 0; i < CROWD; i++)
        loop_timer_free(crowd[i].timer);
    free(crowd);
}

static void on_signal(void *arg, int signo)
{
    struct world *world = arg;
    world->calls[signo == SIGUSR1 ? 0 : 1]++;
    if (world->calls[0] && world->calls[1])
        quit(world);
}

static void signals_arrive_on_the_loop(void **state)
{
    struct world *world = *state;
    loop_signal_add(world->loop, SIGUSR1, on_signal, world);
    loop_signal_add(world->loop, SIGUSR2, on_signal, world);
    raise(SIGUSR1);
    raise(SIGUSR2);
    assert_int_equal(loop_run(world->loop), 42);
    assert_int_equal(world->calls[0], 1);
    assert_int_equal(world->calls[1], 1);
}

static void a_loop_that_has_quit_can_run_again(void **state)
{
    struct world *world = *state;
    world->timer[0] = loop_timer_new(world->loop, quit, world);
    for (int i = 0; i < 2; i++) {
        loop_timer_set(world->timer[0], 0);
        assert_int_equal(loop_run(world->loop), 42);
    }
}

#define LOOP_TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(sources_may_be_removed_within_a_callback_and_are_not_called_any_more),
        LOOP_TEST(a_source_may_replace_itself),
        LOOP_TEST(the_events_of_a_source_can_be_changed),
        LOOP_TEST(timers_go_off_in_the_order_of_their_deadlines),
        LOOP_TEST(a_stopped_timer_stays_silent_and_a_re_armed_one_fires_once),
        LOOP_TEST(timers_may_be_freed_within_a_callback),
        LOOP_TEST(a_timer_that_re_arms_itself_does_not_starve_descriptors),
        LOOP_TEST(hundreds_of_timers_keep_their_order_while_others_are_stopped),
        LOOP_TEST(signals_arrive_on_the_loop),
        LOOP_TEST(a_loop_that_has_quit_can_run_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
