#pragma once
/* A store in a temporary directory, and waiting for its completions. Include after cmocka.h. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "store/store.h"

static struct world {
    char directory[64];
    char path[96];
    struct loop *loop;
    struct store *store;
    int awaited, done, failed;
    int order[16];
    struct err err;
} world;

static inline void world_open(void)
{
    struct err err;
    world.store = store_open(world.loop, world.directory, &err);
    if (!world.store)
        fail_msg("%s", err.text);
}

static inline void world_reopen(void)
{
    store_close(world.store);
    world_open();
}

static inline int world_begin_closed(void **state)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    str_copy(world.directory, sizeof(world.directory), "/tmp/store-test-XXXXXX");
    if (!mkdtemp(world.directory))
        return -1;
    str_format(world.path, sizeof(world.path), "%s/quiesced.db", world.directory);
    world.loop = loop_new();
    return 0;
}

static inline int world_begin(void **state)
{
    if (world_begin_closed(state) != 0)
        return -1;
    world_open();
    return 0;
}

static inline int world_files(const char *part, bool remove_them)
{
    DIR *directory = opendir(world.directory);
    int count = 0;
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (entry->d_name[0] == '.' || !strstr(entry->d_name, part))
            continue;
        count++;
        if (remove_them)
            unlinkat(dirfd(directory), entry->d_name, 0);
    }
    if (directory)
        closedir(directory);
    return count;
}

static inline int world_end(void **state)
{
    (void)state;
    unsetenv("QUIESCED_FAULT_DIR");
    store_close(world.store);
    loop_free(world.loop);
    world_files("", true);
    return rmdir(world.directory);
}

static inline void world_done(void *arg, const struct err *err)
{
    if (world.done < (int)ELEMENTS(world.order))
        world.order[world.done] = (int)(intptr_t)arg;
    world.done++;
    world.failed += err != NULL;
    if (err)
        world.err = *err;
    if (world.done == world.awaited)
        loop_quit(world.loop, 0);
}

/* Runs the loop until so many completions have come in all. */
static inline void world_await(int awaited)
{
    world.awaited = awaited;
    if (world.done < awaited)
        loop_run(world.loop);
    assert_int_equal(world.done, awaited);
}

static inline void world_submit(struct store_batch *batch)
{
    store_submit(world.store, batch, world_done, NULL);
    world_await(world.done + 1);
}

static inline void batch_job(struct store_batch *batch, const char *id, const char *session, const char *state)
{
    AUTO_JSON json_t *doc = json_pack("{s:s, s:s*, s:s*}", "id", id, "session_id", session, "state", state);
    const struct store_record record = {.id = id, .session_id = session, .state = state, .doc = doc};
    store_batch_put(batch, STORE_JOB, &record);
}

static inline void put_job(const char *id, const char *session, const char *state)
{
    struct store_batch *batch = store_batch_new();
    batch_job(batch, id, session, state);
    world_submit(batch);
    assert_int_equal(world.failed, 0);
}

/* The ids of a page, "c b a", and "+" when there are more. */
static inline const char *page(const struct store_query *query)
{
    static char text[256];
    json_t *rows = NULL;
    bool more = false;
    struct err err = {.hr = 0};
    if (store_list(world.store, query, &rows, &more, &err) != STORE_OK)
        fail_msg("%s", err.text);
    text[0] = '\0';
    for (size_t i = 0; i < json_array_size(rows); i++) {
        size_t used = strlen(text);
        str_format(text + used, sizeof(text) - used, "%s%s", i ? " " : "",
                   json_str(json_array_get(rows, i), "id", "?"));
    }
    if (more)
        strcat(text, " +");
    json_decref(rows);
    return text;
}

static inline enum store_result get_job(const char *id)
{
    AUTO_JSON json_t *doc = NULL;
    return store_get(world.store, STORE_JOB, id, &doc, NULL, NULL);
}
