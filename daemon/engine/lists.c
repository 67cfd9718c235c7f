/* Pages of records, and the two shortest answers. */
#include "engine/engine_private.h"
#include "engine/session/session.h"

void answer_error(engine_answer_fn answer, void *arg, const struct err *err)
{
    const struct engine_answer refused = {.err = err};
    answer(arg, &refused);
}

void answer_body(engine_answer_fn answer, void *arg, int status, json_t *body)
{
    const struct engine_answer done = {.status = status, .body = body};
    answer(arg, &done);
    json_decref(body);
}

void list_answer(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                 struct store_query *query, list_view_fn view)
{
    struct err err;
    AUTO_JSON json_t *rows = NULL;
    bool more = false;
    query->limit = (int)json_int(request->query, "limit", 50);
    query->after = json_str(request->query, "cursor", NULL);
    if (str_eq(json_str(request->query, "sort", NULL), "id"))
        query->oldest_first = true;
    const struct principal *who = request->principal;
    if (!(query->kind == STORE_BACKUP || query->kind == STORE_SNAPSHOT ? principal_sees_backup : principal_sees)(who, ""))
        query->owner = who->name;
    if (store_list(engine->store, query, &rows, &more, &err) == STORE_ERROR) {
        answer_error(answer, arg, &err);
        return;
    }
    AUTO_JSON json_t *items = json_array();
    char cursor[128] = "";
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (query->kind == STORE_AUDIT)
            str_format(cursor, sizeof cursor, STORE_AUDIT_ID, (long long)json_int(row, "seq", 0));
        else
            str_copy(cursor, sizeof cursor, json_str(row, "id", json_str(row, "name", "")));
        json_add(items, view ? view(engine, row) : json_incref(row));
    }
    AUTO_JSON json_t *body = json_pack("{s:O, s:s?}", "items", items, "next_cursor", more ? cursor : NULL);
    const struct engine_answer page = {.status = 200, .body = body, .next_cursor = more ? cursor : NULL};
    answer(arg, &page);
}

int directory_path_check(const char *path, struct err *err)
{
    return str_eq(path, "/") || path_is_canonical(path) ? 0 : err_invalid(err, "?path", "must begin with '/', without '.', '..' or empty parts");
}
