#include <stdlib.h>

#include "base/clock.h"
#include "base/str.h"
#include "store/backend.h"
#include "store/store.h"

struct store_batch *store_batch_new(void)
{
    return mem_new(sizeof(struct store_batch));
}

void store_batch_free(struct store_batch *batch)
{
    if (!batch)
        return;
    for (size_t i = 0; i < batch->n_ops; i++) {
        struct store_op *op = &batch->ops[i];
        char *const texts[] = {op->id, op->session_id, op->job_id, op->owner, op->state, op->operation, op->doc, op->rest};
        for (size_t k = 0; k < sizeof(texts) / sizeof(texts[0]); k++)
            free(texts[k]);
    }
    free(batch->ops);
    free(batch);
}

static struct store_op *op_new(struct store_batch *batch, enum store_op_kind op, enum store_kind kind)
{
    if (batch->n_ops == batch->room) {
        batch->room = batch->room ? 2 * batch->room : 4;
        batch->ops = mem_resize(batch->ops, batch->room * sizeof(*batch->ops));
    }
    struct store_op *fresh = &batch->ops[batch->n_ops++];
    *fresh = (struct store_op){.op = op, .kind = kind};
    return fresh;
}

static char *doc_text(const json_t *doc)
{
    return doc ? json_dumps(doc, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
}

void store_batch_put(struct store_batch *batch, enum store_kind kind, const struct store_record *record)
{
    struct store_op *op = op_new(batch, STORE_OP_PUT, kind);
    op->id = str_dup(record->id);
    op->session_id = str_dup(record->session_id);
    op->job_id = str_dup(record->job_id);
    op->owner = str_dup(record->owner);
    op->state = str_dup(record->state);
    op->operation = str_dup(record->operation);
    op->created_ms = record->created_ms;
    op->expires_ms = record->expires_ms;
    op->hidden = record->hidden;
    op->doc = doc_text(record->doc);
    op->rest = doc_text(record->rest);
    if (record->rest && !op->rest)
        op->doc = (free(op->doc), NULL); /* a part that cannot be written: the whole is refused */
}

void store_batch_audit(struct store_batch *batch, const struct store_record *record)
{
    store_batch_put(batch, STORE_AUDIT, record);
    batch->ops[batch->n_ops - 1].op = STORE_OP_AUDIT;
}

void store_batch_delete(struct store_batch *batch, enum store_kind kind, const char *id)
{
    op_new(batch, STORE_OP_DELETE, kind)->id = str_dup(id);
}

void store_batch_fail(struct store_batch *batch, const struct err *err)
{
    batch->failed = true;
    batch->err = *err;
}

void store_batch_event(struct store_batch *batch, const struct store_event *event, const json_t *data)
{
    struct store_op *op = op_new(batch, STORE_OP_EVENT, STORE_KIND_COUNT);
    op->operation = str_dup(event->type);
    op->session_id = str_dup(event->session_id);
    op->job_id = str_dup(event->job_id);
    op->owner = str_dup(event->owner);
    op->created_ms = clock_real_ms();
    op->doc = doc_text(data);
}

void store_batch_delete_told(struct store_batch *batch, enum store_kind kind, const char *id, const struct store_event *event, const json_t *data)
{
    store_batch_delete(batch, kind, id);
    store_batch_event(batch, event, data);
    batch->ops[batch->n_ops - 1].if_deleted = true;
}

void store_expire(struct store *store, enum store_kind kind, int64_t now_ms, int keep_at_most)
{
    struct store_batch *batch = store_batch_new();
    struct store_op *op = op_new(batch, STORE_OP_EXPIRE, kind);
    op->created_ms = now_ms;
    op->keep_at_most = keep_at_most;
    store_submit(store, batch, NULL, NULL);
}

void store_expire_events(struct store *store, int64_t before_ms, int keep_at_most)
{
    struct store_batch *batch = store_batch_new();
    struct store_op *op = op_new(batch, STORE_OP_EXPIRE_EVENTS, STORE_KIND_COUNT);
    op->created_ms = before_ms;
    op->keep_at_most = keep_at_most;
    store_submit(store, batch, NULL, NULL);
}
