/* The front of the store: one queue, one commit thread, completions in submission order. While a transaction is
 * being made durable, further batches gather; the next transaction takes them all (group commit). */
#include "store/store.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/str.h"
#include "store/backend.h"
#include "store/kept.h"

/* So that the first of ten thousand waiting batches does not wait for the last. */
enum { GROUP_MAX = 512 };

struct batch_list {
    struct store_batch *first, **last;
};

struct store {
    const struct store_backend *backend;
    void *state;
    struct loop *loop;
    struct loop_io *io;
    int event_fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct batch_list waiting, finished; /* under the lock */
    bool stop, parked, committing;       /* under the lock; the loop's thread alone changes parked */
    void (*when_parked)(void *arg);      /* owed until called */
    void *when_parked_arg;
    struct loop_timer *park_timer;
    json_t *moved;                       /* what the start moved aside */
    struct store_condition condition;    /* the loop's, but for busy */
    int64_t busy_since_us;               /* under the lock */
    struct store_figures figures;        /* the loop's, but for transactions, which are under the lock */
    struct kept *kept[STORE_KIND_COUNT]; /* NULL until something of the kind is kept */
    pthread_t check_thread;
    bool checking;                       /* the thread is to be joined */
    enum store_check checked;            /* under the lock; told once */
    struct err check_err;
    void (*on_check)(void *arg, enum store_check found, const struct err *err);
    void *on_check_arg;
    store_event_fn on_event;
    void *on_event_arg;
};

static void list_init(struct batch_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_append(struct batch_list *list, struct store_batch *batch)
{
    batch->next = NULL;
    *list->last = batch;
    list->last = &batch->next;
}

static struct store_batch *list_take(struct batch_list *list)
{
    struct store_batch *batch = list->first;
    if (!batch)
        return NULL;
    list->first = batch->next;
    if (!list->first)
        list->last = &list->first;
    return batch;
}

/* --- the commit thread --- */

static void commit_group(struct store *store, struct store_batch **group, size_t n)
{
    size_t whole = 0;
    for (size_t i = 0; i < n; i++)
        if (!group[i]->failed)
            group[whole++] = group[i];
    n = whole;
    if (n == 0)
        return;
    if (!fault("store.commit")) {
        store->backend->commit(store->state, group, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        group[i]->failed = true;
        err_set(&group[i]->err, (uint32_t)VSS_E_UNEXPECTED, NULL, "store: cannot commit: fault injected");
    }
}

static void wake_loop(const struct store *store)
{
    while (write(store->event_fd, &(uint64_t){1}, sizeof(uint64_t)) < 0 && errno == EINTR)
        ;
}

static void *commit_thread(void *arg)
{
    struct store *store = arg;
    struct store_batch *group[GROUP_MAX];
    pthread_mutex_lock(&store->lock);
    for (;;) {
        while ((!store->waiting.first || store->parked) && !store->stop)
            pthread_cond_wait(&store->work, &store->lock);
        if (!store->waiting.first)
            break; /* stopped, and everything that was submitted is committed */
        size_t n = 0;
        while (n < GROUP_MAX && store->waiting.first)
            group[n++] = list_take(&store->waiting);
        store->committing = true;
        store->busy_since_us = clock_mono_us();
        pthread_mutex_unlock(&store->lock);
        struct store_batch *sound[GROUP_MAX];
        memcpy(sound, group, n * sizeof(*group));
        commit_group(store, sound, n);
        pthread_mutex_lock(&store->lock);
        store->committing = false;
        store->figures.transactions++;
        for (size_t i = 0; i < n; i++)
            list_append(&store->finished, group[i]);
        wake_loop(store);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

/* Runs, and reads, when nobody else wants to; but never SCHED_IDLE: it would hold SQLite's locks for too long. */
static void *check_thread(void *arg)
{
    enum { IOPRIO_WHO_PROCESS = 1, IOPRIO_CLASS_IDLE = 3, IOPRIO_CLASS_SHIFT = 13, LEAST = 19 };
    struct store *store = arg;
    struct err err = {.hr = 0};
    setpriority(PRIO_PROCESS, (id_t)gettid(), LEAST);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT);
    enum store_check found = store->backend->check(store->state, &err);
    pthread_mutex_lock(&store->lock);
    store->checked = found;
    store->check_err = err;
    pthread_mutex_unlock(&store->lock);
    wake_loop(store);
    return NULL;
}

/* --- on the loop --- */

static void tell_check(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    enum store_check found = store->checked;
    struct err err = store->check_err;
    store->checked = STORE_CHECK_SOUND;
    pthread_mutex_unlock(&store->lock);
    if (found != STORE_CHECK_SOUND && store->on_check)
        store->on_check(store->on_check_arg, found, &err);
}

/* An expiry is taken in parts, each behind what was submitted meanwhile. */
static bool goes_on(struct store *store, struct store_batch *batch)
{
    bool more = false;
    for (size_t i = 0; i < batch->n_ops; i++) {
        more = more || batch->ops[i].more;
        batch->ops[i].more = false;
    }
    if (more && !batch->failed)
        store_submit(store, batch, batch->done, batch->arg);
    return more && !batch->failed;
}

/* An expiry that finds nothing to delete writes nothing, and so proves nothing. */
static void note_condition(struct store *store, const struct store_batch *batch)
{
    bool writes = batch->failed;
    for (size_t i = 0; i < batch->n_ops; i++)
        writes = writes || batch->ops[i].op == STORE_OP_PUT || batch->ops[i].op == STORE_OP_EVENT || batch->ops[i].op == STORE_OP_AUDIT;
    if (!writes)
        return;
    store->condition.refuses = batch->failed;
    store->condition.refusal = batch->err;
}

static void tell_events(const struct store *store, const struct store_batch *batch)
{
    for (size_t i = 0; i < batch->n_ops && store->on_event && !batch->failed; i++) {
        const struct store_op *op = &batch->ops[i];
        const struct store_event event = {op->event_id, op->created_ms, op->operation, op->session_id, op->job_id, op->owner, op->doc};
        if (op->op == STORE_OP_EVENT && op->event_id)
            store->on_event(store->on_event_arg, &event);
    }
}

void store_on_event(struct store *store, store_event_fn fn, void *arg)
{
    store->on_event = fn;
    store->on_event_arg = arg;
}

/* What was read before is out of date, whether or not the batch was taken. */
static void forget_kept(struct store *store, const struct store_batch *batch)
{
    for (size_t i = 0; i < batch->n_ops; i++) {
        const struct store_op *op = &batch->ops[i];
        struct kept *kept = op->kind < STORE_KIND_COUNT ? store->kept[op->kind] : NULL; /* events are of no kind */
        if (kept && op->id)
            kept_drop(kept, op->id);
        else if (kept)
            kept_drop_all(kept);
    }
}

static void complete(struct store *store, struct store_batch *batch)
{
    forget_kept(store, batch);
    if (goes_on(store, batch))
        return;
    histogram_add(&store->figures.commits, &histogram_latency_bounds, (double)(clock_mono_us() - batch->submitted_us) / 1e6);
    store->figures.failures += batch->failed;
    note_condition(store, batch);
    tell_events(store, batch);
    if (batch->done)
        batch->done(batch->arg, batch->failed ? &batch->err : NULL);
    else if (batch->failed) /* nobody else will tell */
        log_err(LOG_LEVEL_ERROR, NULL, &batch->err, "a change is lost");
    store_batch_free(batch);
}

/* Tells whoever parks the store, once the group in hand is durable. */
static void park_check(void *arg)
{
    struct store *store = arg;
    pthread_mutex_lock(&store->lock);
    bool idle = !store->committing;
    pthread_mutex_unlock(&store->lock);
    if (!store->when_parked || !idle)
        return;
    void (*parked)(void *) = store->when_parked;
    store->when_parked = NULL;
    parked(store->when_parked_arg);
}

static void on_finished(void *arg, uint32_t epoll_events)
{
    (void)epoll_events;
    struct store *store = arg;
    uint64_t count;
    while (read(store->event_fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
    struct batch_list finished;
    list_init(&finished);
    pthread_mutex_lock(&store->lock);
    if (store->finished.first) {
        finished.first = store->finished.first;
        finished.last = store->finished.last;
        list_init(&store->finished);
    }
    pthread_mutex_unlock(&store->lock);
    for (struct store_batch *batch; (batch = list_take(&finished));)
        complete(store, batch);
    park_check(store);
    tell_check(store);
}

static void set_parked(struct store *store, bool parked)
{
    pthread_mutex_lock(&store->lock);
    store->parked = parked;
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->lock);
}

void store_park(struct store *store, void (*parked)(void *arg), void *arg)
{
    store->when_parked = parked;
    store->when_parked_arg = arg;
    set_parked(store, true);
    loop_timer_set(store->park_timer, 0);
}

void store_resume(struct store *store)
{
    store->when_parked = NULL;
    set_parked(store, false);
}

bool store_parked(const struct store *store)
{
    return store->parked;
}

void store_figures(struct store *store, struct store_figures *ret)
{
    pthread_mutex_lock(&store->lock); /* never held while the disk is waited for */
    *ret = store->figures;
    ret->waiting = 0;
    for (const struct store_batch *batch = store->waiting.first; batch; batch = batch->next)
        ret->waiting++;
    pthread_mutex_unlock(&store->lock);
    ret->parked = store->parked;
}

void store_condition(struct store *store, struct store_condition *ret)
{
    *ret = store->condition;
    pthread_mutex_lock(&store->lock);
    ret->busy_ms = store->committing ? (clock_mono_us() - store->busy_since_us) / 1000 : 0;
    pthread_mutex_unlock(&store->lock);
}

/* Whoever asks ought to have waited; blocking the loop in the kernel would be worse than telling him. */
static bool refused_parked(const struct store *store, struct err *err)
{
    if (store->parked)
        err_set(err, E_OUTOFMEMORY, "Try again when the snapshot is taken.",
                "store: its file system is frozen for a snapshot");
    return store->parked;
}

void store_submit(struct store *store, struct store_batch *batch, store_done_fn done, void *arg)
{
    batch->done = done;
    batch->arg = arg;
    batch->submitted_us = clock_mono_us();
    pthread_mutex_lock(&store->lock);
    list_append(&store->waiting, batch);
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->lock);
}

/* Signals belong to the loop's thread. */
static int threads_start(struct store *store)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = pthread_create(&store->thread, NULL, commit_thread, store);
    if (rc == 0 && store->backend->check_due(store->state)) /* no thread: a later start may have one */
        store->checking = pthread_create(&store->check_thread, NULL, check_thread, store) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static void store_destroy(struct store *store)
{
    loop_io_remove(store->io);
    loop_timer_free(store->park_timer);
    if (store->event_fd >= 0)
        close(store->event_fd);
    if (store->state)
        store->backend->close(store->state);
    json_decref(store->moved);
    for (size_t i = 0; i < STORE_KIND_COUNT; i++)
        kept_free(store->kept[i]);
    pthread_cond_destroy(&store->work);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

struct store *store_open(struct loop *loop, const char *directory, struct err *err)
{
    struct store *store = mem_new(sizeof(*store));
    store->backend = &store_sqlite;
    store->loop = loop;
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->work, NULL);
    list_init(&store->waiting);
    list_init(&store->finished);
    store->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (store->event_fd < 0)
        err_errno(err, (uint32_t)E_OUTOFMEMORY, errno, NULL, "store: cannot create an event descriptor");
    else if (fault("store.open"))
        err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "store: cannot open it: fault injected");
    else
        store->state = store->backend->open(directory, err);
    if (!store->state || store->backend->quarantine(store->state, &store->moved, err) != 0) {
        store_destroy(store);
        return NULL;
    }
    int rc = threads_start(store);
    if (rc != 0) {
        err_errno(err, (uint32_t)E_OUTOFMEMORY, rc, NULL, "store: cannot start the commit thread");
        store_destroy(store);
        return NULL;
    }
    store->park_timer = loop_timer_new(loop, park_check, store);
    store->io = loop_io_add(loop, store->event_fd, EPOLLIN, on_finished, store);
    return store;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    pthread_mutex_lock(&store->lock);
    store->stop = true;
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->lock);
    pthread_join(store->thread, NULL);
    if (store->checking) {
        store->backend->check_stop(store->state);
        pthread_join(store->check_thread, NULL);
    }
    for (struct store_batch *batch; (batch = list_take(&store->finished));) {
        if (batch->failed)
            log_err(LOG_LEVEL_ERROR, NULL, &batch->err, "a change is lost");
        store_batch_free(batch);
    }
    store_destroy(store);
}

void store_on_check(struct store *store, void (*fn)(void *arg, enum store_check found, const struct err *err), void *arg)
{
    store->on_check = fn;
    store->on_check_arg = arg;
}

const json_t *store_moved(const struct store *store)
{
    return store->moved;
}

int store_quarantined(struct store *store, enum store_kind kind, json_t **ret_ids, struct err *err)
{
    return store->backend->quarantined(store->state, kind, ret_ids, err);
}

static bool reading_fails(struct err *err)
{
    return fault("store.read") && err_set(err, (uint32_t)VSS_E_UNEXPECTED, NULL, "store: cannot read: fault injected");
}

/* What a back end answered; that it is parked is no fault of it. */
static enum store_result note_read(struct store *store, enum store_result result, const struct err *err)
{
    store->condition.unreadable = result == STORE_ERROR;
    if (result == STORE_ERROR)
        store->condition.unread = err ? *err : (struct err){.text = "store: cannot read"};
    return result;
}

enum store_result store_get(struct store *store, enum store_kind kind, const char *id, json_t **ret_doc,
                            bool *ret_hidden, struct err *err)
{
    if (refused_parked(store, err))
        return STORE_ERROR;
    enum store_result result = reading_fails(err) ? STORE_ERROR : store->backend->get(store->state, kind, id, ret_doc, ret_hidden, err);
    return note_read(store, result, err);
}

void store_keep(struct store *store, enum store_kind kind, const char *id, const char *owner, const char *text)
{
    if (!store->kept[kind])
        store->kept[kind] = kept_new();
    kept_put(store->kept[kind], id, owner, text);
}

const char *store_kept(const struct store *store, enum store_kind kind, const char *id, const char **ret_owner)
{
    const struct kept_view *view = store->kept[kind] && !store->parked ? kept_find(store->kept[kind], id) : NULL;
    if (view)
        *ret_owner = view->owner;
    return view ? view->text : NULL;
}

enum store_result store_list(struct store *store, const struct store_query *query, json_t **ret_rows, bool *ret_more,
                             struct err *err)
{
    if (refused_parked(store, err))
        return STORE_ERROR;
    enum store_result result = reading_fails(err) ? STORE_ERROR : store->backend->list(store->state, query, ret_rows, ret_more, err);
    return note_read(store, result, err);
}

enum store_result store_events(struct store *store, const struct store_event_query *query, struct store_event_page *ret, struct err *err)
{
    if (refused_parked(store, err))
        return STORE_ERROR;
    enum store_result result = reading_fails(err) ? STORE_ERROR : store->backend->events(store->state, query, ret, err);
    return note_read(store, result, err);
}
