#include "movers/payload/hasher.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/str.h"

enum { WORTH_A_THREAD = 64 * 1024 }; /* 40 us of hashing, a few times what waking costs */

struct hasher {
    struct hash *hash;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool threaded, ends;
    const void *block; /* in hand; NULL: none */
    size_t size;
};

static void *work(void *arg)
{
    struct hasher *hasher = arg;
    pthread_mutex_lock(&hasher->mutex);
    for (;;) {
        while (!hasher->block && !hasher->ends)
            pthread_cond_wait(&hasher->changed, &hasher->mutex);
        if (!hasher->block)
            break;
        const void *block = hasher->block;
        size_t size = hasher->size;
        pthread_mutex_unlock(&hasher->mutex);
        hash_update(hasher->hash, block, size);
        pthread_mutex_lock(&hasher->mutex);
        hasher->block = NULL;
        pthread_cond_signal(&hasher->changed);
    }
    pthread_mutex_unlock(&hasher->mutex);
    return NULL;
}

struct hasher *hasher_new(void)
{
    struct hasher *hasher = mem_new(sizeof(*hasher));
    hasher->hash = hash_new();
    pthread_mutex_init(&hasher->mutex, NULL);
    pthread_cond_init(&hasher->changed, NULL);
    return hasher;
}

static void wait_for_block(struct hasher *hasher)
{
    if (!hasher->threaded)
        return;
    pthread_mutex_lock(&hasher->mutex);
    while (hasher->block)
        pthread_cond_wait(&hasher->changed, &hasher->mutex);
    pthread_mutex_unlock(&hasher->mutex);
}

/* The thread is started by the first block that is worth it: what has few of them has none. */
static bool has_thread(struct hasher *hasher)
{
    if (!hasher->threaded)
        hasher->threaded = pthread_create(&hasher->thread, NULL, work, hasher) == 0;
    return hasher->threaded;
}

void hasher_add(struct hasher *hasher, const void *block, size_t size)
{
    wait_for_block(hasher);
    if (size < WORTH_A_THREAD || !has_thread(hasher)) {
        hash_update(hasher->hash, block, size);
        return;
    }
    pthread_mutex_lock(&hasher->mutex);
    hasher->block = block;
    hasher->size = size;
    pthread_cond_signal(&hasher->changed);
    pthread_mutex_unlock(&hasher->mutex);
}

void hasher_final(struct hasher *hasher, uint8_t ret_digest[HASH_SIZE])
{
    wait_for_block(hasher);
    hash_final(hasher->hash, ret_digest);
}

void hasher_free(struct hasher *hasher)
{
    if (!hasher)
        return;
    if (hasher->threaded) {
        wait_for_block(hasher);
        pthread_mutex_lock(&hasher->mutex);
        hasher->ends = true;
        pthread_cond_signal(&hasher->changed);
        pthread_mutex_unlock(&hasher->mutex);
        pthread_join(hasher->thread, NULL);
    }
    pthread_cond_destroy(&hasher->changed);
    pthread_mutex_destroy(&hasher->mutex);
    hash_free(hasher->hash);
    free(hasher);
}
