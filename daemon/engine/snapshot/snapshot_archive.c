/* GET /snapshots/{id}/archive. A mover child of a worker writes the tar into a pipe; we get its reading end, hand it on without looking,
 * and say at the end whether the archive is whole. The snapshot is in hand as long. */
#include "engine/engine_private.h"
#include "engine/snapshot/snapshot.h"

#include <unistd.h>

struct engine_stream {
    struct snapshot_admin *admin; /* NULL: the producer has ended */
    struct engine *engine;
    char snapshot[UUID_SIZE];
    int pipe;
    bool answered;
    const char *type;
    char name[UUID_SIZE + 32];
    void (*ended)(void *arg, bool whole);
    void *arg;
};

static const struct {
    const char *name, *type, *suffix;
} formats[] = {{"tar", "application/x-tar", "tar"}, {"tar.zst", "application/zstd", "tar.zst"}};

const char *engine_archive_type(const char *format)
{
    size_t i = 0;
    while (i + 1 < ELEMENTS(formats) && !str_eq(formats[i].name, format))
        i++;
    return formats[i].type;
}

const char *engine_stream_type(const struct engine_stream *stream)
{
    return stream->type;
}

const char *engine_stream_name(const struct engine_stream *stream)
{
    return stream->name;
}

int engine_stream_start(struct engine_stream *stream, void (*ended)(void *arg, bool whole), void *arg)
{
    stream->ended = ended;
    stream->arg = arg;
    return TAKE_FD(stream->pipe);
}

/* The producer's end: its worker goes, the snapshot is free. */
static void let_go(struct engine_stream *stream)
{
    struct snapshot_admin *admin = TAKE_PTR(stream->admin);
    if (!admin)
        return;
    snapshot_admin_set_stream(admin, NULL);
    task_done(snapshot_admin_end(admin));
}

void engine_stream_close(struct engine_stream *stream)
{
    if (!stream)
        return;
    let_go(stream);
    fd_cleanup(&stream->pipe);
    free(stream);
}

void snapshot_stream_orphan(struct engine_stream *stream)
{
    stream->admin = NULL;
    if (!stream->answered)
        engine_stream_close(stream);
}

static void end(struct engine_stream *stream, bool whole)
{
    let_go(stream);
    if (stream->ended)
        stream->ended(stream->arg, whole); /* closes it */
}

void snapshot_stream_fail(struct engine_stream *stream, const struct err *err)
{
    if (!stream->answered) {
        snapshot_admin_fail(stream->admin, err); /* and the stream with it */
        return;
    }
    AUTO_FREE char *text = str_new("the archive of snapshot %s broke off: %s", stream->snapshot, err->text);
    incident(stream->engine, NULL, NULL, NULL, err->hr, text);
    end(stream, false);
}

/* Core has not looked away meanwhile (nobody may delete what is in hand), but a session may have let go of it, or a start have found it
 * gone: what was read from something that goes is not whole, however it looked to the producer. */
static int still_there(const struct engine_stream *stream, struct err *err)
{
    AUTO_JSON json_t *row = NULL;
    enum store_result result = store_get(stream->engine->store, STORE_SNAPSHOT, stream->snapshot, &row, NULL, err);
    if (result == STORE_ERROR || result == STORE_RETRY)
        return -1;
    return str_eq(json_str(row, "state", ""), SNAPSHOT_CREATED) ? 0 : err_set(err, VSS_E_OBJECT_NOT_FOUND, NULL, "the snapshot went meanwhile");
}

static void answer_stream(struct engine_stream *stream)
{
    const struct engine_answer answer = {.status = 200, .stream = stream};
    stream->answered = true;
    snapshot_admin_answer(stream->admin, &answer); /* may close the stream */
}

static void started(void *arg, int fd)
{
    struct engine_stream *stream = arg;
    if (stream->answered) {
        close(fd);
        return;
    }
    stream->pipe = fd;
    answer_stream(stream);
}

static void produced(void *arg, const struct worker_reply *reply)
{
    struct engine_stream *stream = arg;
    struct err err;
    if (reply->err) {
        err = *reply->err;
        snapshot_stream_fail(stream, &err);
    } else if (!stream->answered) { /* only the head was asked for */
        answer_stream(stream);
    } else if (still_there(stream, &err)) {
        snapshot_stream_fail(stream, &err);
    } else {
        end(stream, true);
    }
}

static struct engine_stream *stream_new(struct engine *engine, struct snapshot_admin *admin, const char *format)
{
    struct engine_stream *stream = mem_new(sizeof *stream);
    size_t i = 0;
    while (i + 1 < ELEMENTS(formats) && !str_eq(formats[i].name, format))
        i++;
    *stream = (struct engine_stream){.admin = admin, .engine = engine, .pipe = -1, .type = formats[i].type};
    str_copy(stream->snapshot, sizeof stream->snapshot, json_str(snapshot_admin_row(admin), "id", ""));
    str_format(stream->name, sizeof stream->name, "snapshot-%s.%s", stream->snapshot, formats[i].suffix);
    snapshot_admin_set_stream(admin, stream);
    return stream;
}

void engine_snapshot_archive(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    static const struct worker_handlers handlers = {.stream = started, .done = produced};
    struct err err;
    const char *path = json_str(request->query, "path", "/"), *format = json_str(request->query, "format", "tar");
    if (directory_path_check(path, &err)) {
        answer_error(answer, arg, &err);
        return;
    }
    struct snapshot_admin *admin = snapshot_admin_read(engine, request, answer, arg, ADMIN_STREAMS);
    if (!admin)
        return;
    if (!str_eq(json_str(snapshot_admin_row(admin), "state", ""), SNAPSHOT_CREATED)) {
        err_set(&err, VSS_E_BAD_STATE, "DELETE it again.", "snapshot %s is not whole: its removal did not end well", request->id);
        snapshot_admin_fail(admin, &err);
        return;
    }
    json_t *args = json_pack("{s:O, s:s, s:s, s:b}", "snapshot", snapshot_admin_row(admin), "path", path, "format", format, "only_head",
                             json_bool(request->query, "only_head", false));
    snapshot_admin_ask(admin, "archive", args, &handlers, stream_new(engine, admin, format));
}
