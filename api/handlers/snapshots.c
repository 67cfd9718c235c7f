#include "api/handlers/handlers.h"

#include "api/accept.h"
#include "api/reply.h"
#include "base/cleanup.h"
#include "base/str.h"

/* --- GET /snapshots/{id}/archive --- */

static void archive_ended(void *arg, bool whole)
{
    struct exchange *exchange = arg;

    engine_stream_close(TAKE_PTR(exchange->stream));
    http_stream_end(exchange->http, whole);
}

static void archive_answered(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;
    struct engine_stream *stream = answer->stream;

    if (!stream) {
        reply_engine(exchange, answer, NULL);
    } else if (!exchange->http) { /* the client left while the producer started */
        engine_stream_close(stream);
    } else {
        reply_header(exchange, "Content-Disposition", "attachment; filename=\"%s\"", engine_stream_name(stream));
        exchange->stream = stream;
        int pipe = engine_stream_start(stream, archive_ended, exchange);
        reply_stream(exchange, engine_stream_type(stream), pipe);
    }
    exchange_unref(exchange);
}

/* Which of the two it is the query says, so that the contract's list alone cannot judge. */
static bool other_format_accepted(struct exchange *exchange)
{
    const char *accept = http_header(exchange->http, "Accept");
    const char *const types[] = {engine_archive_type(json_str(exchange->query, "format", "tar")), NULL};

    if (!accept || accept_allows(accept, types))
        return false;
    reply_other_type(exchange, types);
    exchange_send(exchange);
    return true;
}

static void archive(struct exchange *exchange)
{
    struct err err = {0};

    if (other_format_accepted(exchange))
        return;
    if (http_knows_chunks(exchange->http)) {
        json_put(exchange->query, "only_head", json_boolean(str_eq(http_method(exchange->http), "HEAD")));
        exchange_call(exchange, engine_snapshot_archive, archive_answered);
        return;
    }
    err_set(&err, E_INVALIDARG, "Send HTTP/1.1.", "over HTTP/1.0 an archive that breaks off could not be told from a whole one");
    const struct engine_answer refused = {.err = &err};
    reply_engine(exchange, &refused, NULL);
}

static const struct handler rows[] = {
    {"snapshotList", .call = engine_snapshot_list},
    {"snapshotGet", .call = engine_snapshot_get},
    {"snapshotDelete", .call = engine_snapshot_delete},
    {"snapshotExpose", .call = engine_snapshot_expose},
    {"snapshotUnexpose", .call = engine_snapshot_unexpose},
    {"snapshotFiles", .call = engine_snapshot_files},
    {"snapshotArchive", .own = archive},
    {"snapshotRevert", .call = engine_snapshot_revert},
    {"snapshotRevertStatus", .call = engine_snapshot_revert_status},
    {"snapshotSetGet", .call = engine_snapshot_set_get},
    {"snapshotSetDelete", .call = engine_snapshot_set_delete},
};
const struct handler_table handlers_snapshots = {rows, ELEMENTS(rows)};
