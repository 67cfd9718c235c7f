#pragma once
/* Long-polls by job. A waiter is woken once: by its job, by its time, or by waiters_wake_all. */
#include <jansson.h>
#include <stddef.h>

#include "base/loop.h"

struct waiters;
struct waiter;

/* The waiters of one job, all at once; or one whose time is over. They are gone when this is called. */
typedef void (*waiters_woken_fn)(void *const *args, size_t n);

struct waiters *waiters_new(struct loop *loop, waiters_woken_fn woken);
/* limits of the configuration: waits_per_principal (6,000: more than half of limits.connections is nobody's). */
void waiters_reload(struct waiters *waiters, const json_t *limits);
void waiters_free(struct waiters *waiters); /* NULL is fine; nobody is woken */
struct waiter_spec {
    const char *job_id, *principal;
    int seconds;
};
/* NULL: the principal waits for as many as it may already. */
struct waiter *waiter_add(struct waiters *waiters, const struct waiter_spec *spec, void *arg);
void waiter_remove(struct waiter *waiter);
/* On the next turn of the loop, so that the caller may be in the middle of something. */
void waiters_wake(struct waiters *waiters, const char *job_id);
void waiters_wake_all(struct waiters *waiters);
size_t waiters_count(const struct waiters *waiters);
