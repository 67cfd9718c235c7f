/* GET /audit: pages of the trail, and as lines the trail with its seals, as `quiesced audit-verify` reads it. */
#include "engine/audit/audit.h"
#include "engine/audit/audit_seals.h"
#include "engine/engine_private.h"

enum { SEALS_MOST = 500 }; /* of a page: it has no more records than that */

struct listing {
    struct engine *engine;
    const struct engine_request *request;
    engine_answer_fn answer;
    void *arg;
};

static const char *const filters[] = {"principal", "operation", "object", "call"};

/* Of some records nobody could tell whether they are all there: their seals would be no use. */
static bool is_whole(const struct engine_request *request)
{
    for (size_t i = 0; i < ELEMENTS(filters); i++)
        if (json_object_get(request->query, filters[i]))
            return false;
    return true;
}

static bool as_lines(const struct engine_request *request)
{
    return str_eq(json_str(request->query, "format", ""), "ndjson");
}

/* The seals of records that are in items, or of every one from the first on, when nothing comes behind items. */
static int seals_of(struct engine *engine, const json_t *items, bool more, json_t **ret, struct err *err)
{
    char after[STORE_AUDIT_ID_SIZE];
    size_t n = json_array_size(items), i;
    long long first = json_int(json_array_get(items, 0), "seq", 1), last = json_int(json_array_get(items, n ? n - 1 : 0), "seq", 0);
    const struct store_query query = {.kind = STORE_SEAL, .after = after, .limit = SEALS_MOST, .oldest_first = true};
    AUTO_JSON json_t *rows = NULL;
    json_t *row;
    str_format(after, sizeof after, STORE_AUDIT_ID, first - 1);
    if (store_list(engine->store, &query, &rows, NULL, err) == STORE_ERROR)
        return -1;
    *ret = json_array();
    json_array_foreach(rows, i, row)
        if (!more || json_int(row, "seal", 0) <= last)
            json_add(*ret, json_incref(row));
    return 0;
}

/* Each behind the record that it seals; one of a record that is not there, too: that is what it is for. */
static json_t *interleaved(const json_t *items, const json_t *seals)
{
    json_t *lines = json_array(), *record;
    size_t i, at = 0;
    json_array_foreach(items, i, record)
    {
        for (; at < json_array_size(seals) && json_int(json_array_get(seals, at), "seal", 0) < json_int(record, "seq", 0); at++)
            json_add(lines, json_incref(json_array_get(seals, at)));
        json_add(lines, json_incref(record));
    }
    for (; at < json_array_size(seals); at++)
        json_add(lines, json_incref(json_array_get(seals, at)));
    return lines;
}

static void listed(void *arg, const struct engine_answer *page)
{
    const struct listing *listing = arg;
    struct err err;
    AUTO_JSON json_t *seals = NULL;
    if (page->err) {
        listing->answer(listing->arg, page);
        return;
    }
    const json_t *items = json_object_get(page->body, "items"), *newest = audit_seals_newest(listing->engine);
    if (!as_lines(listing->request)) {
        json_put(page->body, "last_seal", newest ? json_deep_copy(newest) : json_null());
    } else if (is_whole(listing->request)) {
        if (seals_of(listing->engine, items, page->next_cursor != NULL, &seals, &err) != 0) {
            answer_error(listing->answer, listing->arg, &err);
            return;
        }
        json_put(page->body, "items", interleaved(items, seals));
    }
    listing->answer(listing->arg, page);
}

static void list(struct listing *listing)
{
    const json_t *asked = listing->request->query;
    struct store_query query = {.kind = STORE_AUDIT, .owner = json_str(asked, "principal", NULL), .operation = json_str(asked, "operation", NULL),
                                .session_id = json_str(asked, "object", NULL), .job_id = json_str(asked, "call", NULL),
                                .oldest_first = as_lines(listing->request)};
    list_answer(listing->engine, listing->request, listed, listing, &query, NULL);
}

static void flushed(void *arg, const struct err *err)
{
    struct listing *listing = arg;
    (void)err; /* what is not there is not shown */
    list(listing);
    free(listing);
}

/* Who has his answer finds it in the trail. */
void engine_audit_list(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct listing own = {engine, request, answer, arg};
    if (!engine->outcomes) {
        list(&own);
        return;
    }
    struct listing *listing = mem_new(sizeof *listing);
    *listing = own;
    audits_flush(engine, flushed, listing);
}
