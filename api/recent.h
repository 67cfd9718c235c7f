#pragma once
/* What streams of events are fed from: the newest durable events, and the notices (engine/engine.h), each written out once for all
 * streams. A stream keeps no queue of its own, only how far it has come. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"

/* About 1 MiB: minutes of a busy node; who is further behind reads the store. */
enum { RECENT_EVENTS = 2048 };

struct recent;
struct recent_item {
    int64_t id;       /* of an event; 0 = a notice */
    uint64_t version; /* of a notice: ever-increasing, also when it is told again */
    bool is_progress;
    char *type, *session_id, *job_id, *owner; /* ids and owner may be NULL */
    char *state;                              /* of a job or session that changed, or NULL */
    char *frame;                              /* as it goes out, with the empty line */
};

struct recent *recent_new(void);
void recent_free(struct recent *recent); /* NULL is fine */
/* One that is not newer than the newest is passed over. */
void recent_event(struct recent *recent, const struct store_event *event);
void recent_row(struct recent *recent, json_t *row); /* the same, a row of engine_event_list */
void recent_notice(struct recent *recent, const struct engine_notice *notice);
/* Before the first event: what the newest id is. */
void recent_begin(struct recent *recent, int64_t newest);
int64_t recent_newest(const struct recent *recent);
/* Everything after this id is here. */
int64_t recent_reaches_back_to(const struct recent *recent);
/* The next one; NULL: none. Valid until the next event or notice. */
const struct recent_item *recent_event_after(const struct recent *recent, int64_t id);
const struct recent_item *recent_notice_after(const struct recent *recent, uint64_t version);

/* "id: …\nevent: …\ndata: …\n\n"; malloc'ed. Takes the owner out of row: whose it is decides who sees it, and is nobody else's. */
char *recent_frame_of_row(json_t *row);
