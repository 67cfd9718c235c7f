#pragma once
/* Private to the engine: snapshots: the set, the records, what is done to them afterwards. */
#include "engine/engine_private.h"

/* --- snapshot_set.c --- */
bool slot_take(struct session *session);
void slot_release(struct session *session);
void slot_wait(struct session *session, void (*granted)(void *arg), void *arg);
void slot_wait_forget(struct session *session);
void slot_clear(struct engine *engine); /* nobody waits any more */
enum { VOLUMES_PER_SET = 64 }; /* vss-model 5.3 */

/* --- snapshots.c --- */
#define SNAPSHOT_CREATED "created"
#define SNAPSHOT_DELETING "deleting" /* its removal has begun: it may not be whole any more */
/* The set's auto-release snapshots are gone: their rows go with the same batch. failed: of a cleanup, NULL is none; the row of
 * what is still on disk stays. */
void snapshots_batch_remove(struct store_batch *batch, const json_t *session_doc, const json_t *failed);
void snapshots_batch_put(struct engine *engine, struct store_batch *batch, const json_t *session_doc, json_t *snapshots);
void snapshot_batch_row(struct store_batch *batch, json_t *doc); /* one record, changed */
json_t *snapshot_view(struct engine *engine, json_t *doc);      /* the wire's snapshot; new reference */
/* The record that request->id names, for a caller who sees it; NULL with err. New reference. */
json_t *snapshot_read(struct engine *engine, const struct engine_request *request, struct err *err);
/* The records of a set, in the order in which its volumes were added; the same. */
json_t *snapshot_set_read(struct engine *engine, const struct engine_request *request, struct err *err);
/* VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED when the volume has as many as limits.snapshots_per_volume allows. */
int snapshots_room(struct engine *engine, const char *volume, struct err *err);
/* The same of a whole plan's volumes [{"path"}], and whether there are too many of them for one set. */
int snapshots_fit(struct engine *engine, const json_t *volumes, struct err *err);

/* --- snapshot_admin.c --- */
enum admin_use {
    ADMIN_CHANGES, /* alone */
    ADMIN_LISTS,   /* beside anything else: what it shows may be old */
    ADMIN_STREAMS, /* nothing may change meanwhile */
    ADMIN_USES,
};
bool snapshot_in_hand(struct engine *engine, const char *id); /* by a call that changes it */
void snapshot_admins_free(struct engine *engine);             /* when the engine ends */
/* Where a snapshot is exposed, or is about to be (*ret_wanted false; may be NULL); NULL: nowhere. */
const char *exposure_of(const json_t *row, bool *ret_wanted);
/* After recovery: [{"id","exposed","reason"}] is what became of the exposures that the records told of. */
void exposures_settled(struct engine *engine, const json_t *exposures);

/* Takes the snapshot of request->id in hand, for its owner or a restorer; NULL: answered why not. */
struct snapshot_admin *snapshot_admin_begin(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg);
/* The same to look into it; E_OUTOFMEMORY with Retry-After when too many do. */
struct snapshot_admin *snapshot_admin_read(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg,
                                           enum admin_use use);
json_t *snapshot_admin_row(const struct snapshot_admin *admin); /* borrowed */
/* Answers the call; what it has in hand stays so until snapshot_admin_end. */
void snapshot_admin_answer(struct snapshot_admin *admin, const struct engine_answer *answer);
void snapshot_admin_set_stream(struct snapshot_admin *admin, struct engine_stream *stream);
void snapshot_admin_ask(struct snapshot_admin *admin, const char *operation, json_t *args /* taken */, const struct worker_handlers *handlers,
                        void *arg);
void snapshot_admin_fail(struct snapshot_admin *admin, const struct err *err); /* and ends it */
struct task *snapshot_admin_end(struct snapshot_admin *admin); /* no longer in hand; its task goes on */
/* Refuses one that is not persistent, or not whole. */
int snapshot_usable(const json_t *row, const char *what, struct err *err);

/* --- snapshot_archive.c --- */
/* A session lets go of its auto-release snapshots: whoever reads one of them out is cut off before. */
void snapshot_streams_end(struct engine *engine, const char *session_id);
void snapshot_stream_fail(struct engine_stream *stream, const struct err *err);
void snapshot_stream_orphan(struct engine_stream *stream); /* its admin goes */

/* --- revert.c --- */
bool snapshot_being_reverted(struct engine *engine, const char *snapshot_id); /* is a revert to it under way? */
/* The next start: an open job of RevertToSnapshot gets its end, from what the worker found (err: it could not look). */
void revert_conclude(struct engine *engine, struct store_batch *batch, json_t *job_doc, bool reverted, const struct err *err);
