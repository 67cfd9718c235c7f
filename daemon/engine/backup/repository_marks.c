/* A backup's disk that is not mounted must not get a new, empty repository in its stead: one that has been seen at its place is not made again. The
 * mark (STORE_MARK) says where it was, and as which one, as far as its mover can tell. */
#include "engine/backup/backup.h"
#include "engine/engine_private.h"

static const char *place_of(const json_t *repository)
{
    return json_str(repository, "path", json_str(repository, "url", json_str(repository, "url_file", "")));
}

static bool fits(const json_t *mark, const json_t *repository)
{
    return str_eq(json_str(mark, "mover", ""), json_str(repository, "mover", "")) && str_eq(json_str(mark, "place", ""), place_of(repository));
}

/* Of a store that is older than the marks. What cannot be read counts as seen: then nothing is made. */
static bool seen_unmarked(struct engine *engine, const char *name)
{
    AUTO_JSON json_t *doc = NULL, *rows = NULL;
    const struct store_query query = {.kind = STORE_BACKUP, .operation = name, .limit = 1};
    if (store_get(engine->store, STORE_REPOSITORY, name, &doc, NULL, NULL) != STORE_NONE)
        return true;
    return store_list(engine->store, &query, &rows, NULL, NULL) != STORE_OK || json_array_size(rows) > 0;
}

json_t *repository_for_copy(struct engine *engine, const char *name)
{
    AUTO_JSON json_t *repository = repository_find(engine, name), *mark = NULL;
    if (!repository)
        return NULL;
    json_t *doc = json_copy(repository);
    enum store_result found = store_get(engine->store, STORE_MARK, name, &mark, NULL, NULL);
    if (found == STORE_OK && fits(mark, repository))
        json_put(doc, "seen", json_string(json_str(mark, "repository_id", "")));
    else if (found == STORE_NONE ? seen_unmarked(engine, name) : found != STORE_OK)
        json_put(doc, "seen", json_string(""));
    return doc;
}

void repository_mark(struct engine *engine, struct store_batch *batch, const json_t *repository, const char *repository_id)
{
    const char *name = json_str(repository, "name", "");
    AUTO_JSON json_t *mark = NULL, *fresh = json_pack("{s:s, s:s, s:s, s:s}", "id", name, "mover", json_str(repository, "mover", ""), "place",
                                                      place_of(repository), "repository_id", repository_id);
    if (store_get(engine->store, STORE_MARK, name, &mark, NULL, NULL) == STORE_OK && json_equal(mark, fresh))
        return;
    const struct store_record record = {.id = name, .created_ms = clock_real_ms(), .doc = fresh};
    store_batch_put(batch, STORE_MARK, &record);
}
