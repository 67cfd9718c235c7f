#include "api/waiters.h"

#include <stdint.h>
#include <stdlib.h>

#include "api/quota.h"
#include "base/cleanup.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"

/* Long-polls are bounded by the connections (16,384): a few per bucket at worst. */
enum { BUCKETS = 4096 };

/* The waiters of one job. */
struct group {
    struct group *next;
    char job_id[UUID_SIZE];
    struct waiter *first;
    size_t n;
    bool woken;
};

struct waiter {
    struct waiters *waiters;
    struct group *group;
    struct waiter *next, **link;
    struct loop_timer *timer;
    struct quota_entry *counted;
    void *arg;
};

struct waiters {
    struct loop *loop;
    waiters_woken_fn woken;
    struct loop_timer *wake;
    struct quota *quota;
    size_t most; /* of one principal */
    size_t n;
    struct group *buckets[BUCKETS];
};

/* FNV-1a. */
static struct group **bucket(struct waiters *waiters, const char *job_id)
{
    uint32_t hash = 2166136261u;

    for (; *job_id; job_id++)
        hash = (hash ^ (unsigned char)*job_id) * 16777619u;
    return &waiters->buckets[hash % BUCKETS];
}

static struct group *group_find(struct waiters *waiters, const char *job_id)
{
    struct group *group = *bucket(waiters, job_id);

    while (group && !str_eq(group->job_id, job_id))
        group = group->next;
    return group;
}

static void group_drop(struct waiters *waiters, struct group *group)
{
    struct group **at = bucket(waiters, group->job_id);

    while (*at != group)
        at = &(*at)->next;
    *at = group->next;
    free(group);
}

void waiter_remove(struct waiter *waiter)
{
    struct group *group = waiter->group;

    *waiter->link = waiter->next;
    if (waiter->next)
        waiter->next->link = waiter->link;
    waiter->waiters->n--;
    if (--group->n == 0)
        group_drop(waiter->waiters, group);
    loop_timer_free(waiter->timer);
    quota_give(waiter->counted);
    free(waiter);
}

static void on_time(void *arg)
{
    struct waiter *waiter = arg;
    waiters_woken_fn woken = waiter->waiters->woken;
    void *one = waiter->arg;

    waiter_remove(waiter);
    woken(&one, 1);
}

static struct group *group_of(struct waiters *waiters, const char *job_id)
{
    struct group *group = group_find(waiters, job_id), **at = bucket(waiters, job_id);

    if (group)
        return group;
    group = mem_new(sizeof(*group));
    str_copy(group->job_id, sizeof(group->job_id), job_id);
    group->next = *at;
    return *at = group;
}

struct waiter *waiter_add(struct waiters *waiters, const struct waiter_spec *spec, void *arg)
{
    struct quota_entry *counted = quota_take(waiters->quota, spec->principal, waiters->most);

    if (!counted)
        return NULL;
    struct group *group = group_of(waiters, spec->job_id);
    struct waiter *waiter = mem_new(sizeof(*waiter));
    *waiter = (struct waiter){.waiters = waiters,
                              .group = group,
                              .next = group->first,
                              .link = &group->first,
                              .counted = counted,
                              .arg = arg};
    if (waiter->next)
        waiter->next->link = &waiter->next;
    group->first = waiter;
    group->n++;
    waiters->n++;
    waiter->timer = loop_timer_new(waiters->loop, on_time, waiter);
    loop_timer_set(waiter->timer, (int64_t)spec->seconds * 1000);
    return waiter;
}

/* --- waking --- */

static void group_wake(struct waiters *waiters, struct group *group)
{
    size_t n = group->n, i = 0;
    AUTO_FREE void **args = mem_new(n * sizeof(void *));

    while (i < n) { /* the last removal drops the group */
        struct waiter *waiter = group->first;
        args[i++] = waiter->arg;
        waiter_remove(waiter);
    }
    waiters->woken(args, n);
}

static struct group *next_woken(struct waiters *waiters)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct group *group = waiters->buckets[i]; group; group = group->next)
            if (group->woken)
                return group;
    return NULL;
}

static void on_wake(void *arg)
{
    struct waiters *waiters = arg;
    struct group *group;

    while ((group = next_woken(waiters)))
        group_wake(waiters, group);
}

void waiters_wake(struct waiters *waiters, const char *job_id)
{
    struct group *group = group_find(waiters, job_id);

    if (!group)
        return;
    group->woken = true;
    loop_timer_set(waiters->wake, 0);
}

void waiters_wake_all(struct waiters *waiters)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct group *group = waiters->buckets[i]; group; group = group->next)
            group->woken = true;
    loop_timer_set(waiters->wake, 0);
}

size_t waiters_count(const struct waiters *waiters)
{
    return waiters->n;
}

struct waiters *waiters_new(struct loop *loop, waiters_woken_fn woken)
{
    struct waiters *waiters = mem_new(sizeof(*waiters));

    waiters->loop = loop;
    waiters->woken = woken;
    waiters->wake = loop_timer_new(loop, on_wake, waiters);
    waiters->quota = quota_new();
    waiters_reload(waiters, NULL);
    return waiters;
}

void waiters_reload(struct waiters *waiters, const json_t *limits)
{
    waiters->most = (size_t)json_int(limits, "waits_per_principal", 6000);
}

void waiters_free(struct waiters *waiters)
{
    if (!waiters)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        while (waiters->buckets[i])
            waiter_remove(waiters->buckets[i]->first);
    loop_timer_free(waiters->wake);
    quota_free(waiters->quota);
    free(waiters);
}
