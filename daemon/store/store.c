/* The front of the store: one queue, one commit thread, completions in submission order. While a transaction is
 * being made durable, further batches gather; the next transaction takes them all (group commit). */
#include "store/store.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/str.h"
#include "store/backend.h"

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
    bool stop;                           /* under the lock */
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

static void commit_group(struct store *store, struct store_batch *const *group, size_t n)
{
    if (!fault("store.commit")) {
        store->backend->commit(store->state, group, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        group[i]->failed = true;
        err_set(&group[i]->err, (uint32_t)VSS_E_UNEXPECTED, NULL, "store: cannot commit: fault injected");
    }
}

static void *commit_thread(void *arg)
{
    struct store *store = arg;
    struct store_batch *group[GROUP_MAX];
    pthread_mutex_lock(&store->lock);
    for (;;) {
        while (!store->waiting.first && !store->stop)
            pthread_cond_wait(&store->work, &store->lock);
        if (!store->waiting.first)
            break; /* stopped, and everything that was submitted is committed */
        size_t n = 0;
        while (n < GROUP_MAX && store->waiting.first)
            group[n++] = list_take(&store->waiting);
        pthread_mutex_unlock(&store->lock);
        commit_group(store, group, n);
        pthread_mutex_lock(&store->lock);
        for (size_t i = 0; i < n; i++)
            list_append(&store->finished, group[i]);
        while (write(store->event_fd, &(uint64_t){1}, sizeof(uint64_t)) < 0 && errno == EINTR)
            ;
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

/* --- on the loop --- */

static void complete(struct store_batch *batch)
{
    if (batch->done)
        batch->done(batch->arg, batch->failed ? &batch->err : NULL);
    else if (batch->failed) /* nobody else will tell */
        log_err(LOG_LEVEL_ERROR, NULL, &batch->err, "a change is lost");
    store_batch_free(batch);
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
        complete(batch);
}

void store_submit(struct store *store, struct store_batch *batch, store_done_fn done, void *arg)
{
    batch->done = done;
    batch->arg = arg;
    pthread_mutex_lock(&store->lock);
    list_append(&store->waiting, batch);
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->lock);
}

/* Signals belong to the loop's thread. */
static int thread_start(struct store *store)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = pthread_create(&store->thread, NULL, commit_thread, store);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static void store_destroy(struct store *store)
{
    loop_io_remove(store->io);
    if (store->event_fd >= 0)
        close(store->event_fd);
    if (store->state)
        store->backend->close(store->state);
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
    else
        store->state = store->backend->open(directory, err);
    if (!store->state) {
        store_destroy(store);
        return NULL;
    }
    int rc = thread_start(store);
    if (rc != 0) {
        err_errno(err, (uint32_t)E_OUTOFMEMORY, rc, NULL, "store: cannot start the commit thread");
        store_destroy(store);
        return NULL;
    }
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
    for (struct store_batch *batch; (batch = list_take(&store->finished));) {
        if (batch->failed)
            log_err(LOG_LEVEL_ERROR, NULL, &batch->err, "a change is lost");
        store_batch_free(batch);
    }
    store_destroy(store);
}

enum store_result store_get(struct store *store, enum store_kind kind, const char *id, json_t **ret_doc,
                            bool *ret_hidden, struct err *err)
{
    return store->backend->get(store->state, kind, id, ret_doc, ret_hidden, err);
}

enum store_result store_list(struct store *store, const struct store_query *query, json_t **ret_rows, bool *ret_more,
                             struct err *err)
{
    return store->backend->list(store->state, query, ret_rows, ret_more, err);
}

enum store_result store_events(struct store *store, int64_t after, int limit, json_t **ret_rows, struct err *err)
{
    return store->backend->events(store->state, after, limit, ret_rows, err);
}
