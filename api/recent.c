#include "api/recent.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"

struct notice {
    struct notice *next, *previous;
    char *key;
    struct recent_item item;
};

struct recent {
    struct recent_item ring[RECENT_EVENTS];
    size_t first, n;
    int64_t newest, dropped; /* dropped: the last id that is not here any more */
    struct notice *oldest_notice, *newest_notice;
    uint64_t version;
};

static void item_clear(struct recent_item *item)
{
    char *const texts[] = {item->type, item->session_id, item->job_id, item->owner, item->state, item->frame};

    for (size_t i = 0; i < ELEMENTS(texts); i++)
        free(texts[i]);
    *item = (struct recent_item){0};
}

/* --- how it goes out --- */

char *recent_frame_of_row(json_t *row)
{
    json_object_del(row, "owner");
    AUTO_FREE char *text = json_dumps(row, JSON_SHOWN); /* without line ends */
    int64_t id = json_int(row, "id", 0);
    char line[40] = "";

    if (id > 0)
        str_format(line, sizeof(line), "id: %lld\n", (long long)id);
    return str_new("%sevent: %s\ndata: %s\n\n", line, json_str(row, "type", ""), text ? text : "null");
}

static json_t *row_of_event(const struct store_event *event)
{
    char when[CLOCK_RFC3339_SIZE];
    json_t *data = event->data ? json_loads(event->data, JSON_DECODE_ANY, NULL) : NULL;

    return json_pack("{s:I, s:s, s:s, s:s?, s:s?, s:s?, s:o}", "id", (json_int_t)event->id, "time", clock_rfc3339(event->at_ms, when), "type",
                     event->type, "session_id", event->session_id, "job_id", event->job_id, "owner",
                     event->owner, "data", data ? data : json_null());
}

/* --- events --- */

static struct recent_item *ring_at(const struct recent *recent, size_t i)
{
    return (struct recent_item *)&recent->ring[(recent->first + i) % RECENT_EVENTS];
}

void recent_row(struct recent *recent, json_t *row)
{
    int64_t id = json_int(row, "id", 0);

    if (id <= recent->newest)
        return;
    if (recent->n == RECENT_EVENTS) {
        struct recent_item *oldest = ring_at(recent, 0);
        recent->dropped = oldest->id;
        item_clear(oldest);
        recent->first = (recent->first + 1) % RECENT_EVENTS;
        recent->n--;
    }
    *ring_at(recent, recent->n++) = (struct recent_item){
        .id = id,
        .type = str_dup(json_str(row, "type", "")),
        .session_id = str_dup(json_str(row, "session_id", NULL)),
        .job_id = str_dup(json_str(row, "job_id", NULL)),
        .owner = str_dup(json_str(row, "owner", NULL)),
        .state = str_dup(json_str(json_object_get(row, "data"), "state", NULL)),
    };
    ring_at(recent, recent->n - 1)->frame = recent_frame_of_row(row);
    recent->newest = id;
}

void recent_event(struct recent *recent, const struct store_event *event)
{
    AUTO_JSON json_t *row = row_of_event(event);

    recent_row(recent, row);
}

void recent_begin(struct recent *recent, int64_t newest)
{
    recent->newest = recent->dropped = newest;
}

int64_t recent_newest(const struct recent *recent)
{
    return recent->newest;
}

int64_t recent_reaches_back_to(const struct recent *recent)
{
    return recent->dropped;
}

const struct recent_item *recent_event_after(const struct recent *recent, int64_t id)
{
    size_t low = 0, high = recent->n;

    if (id >= recent->newest)
        return NULL;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ring_at(recent, middle)->id <= id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < recent->n ? ring_at(recent, low) : NULL;
}

/* --- notices, in the order in which they were last told --- */

static void notice_unlink(struct recent *recent, struct notice *notice)
{
    *(notice->previous ? &notice->previous->next : &recent->oldest_notice) = notice->next;
    *(notice->next ? &notice->next->previous : &recent->newest_notice) = notice->previous;
}

static void notice_append(struct recent *recent, struct notice *notice)
{
    notice->next = NULL;
    notice->previous = recent->newest_notice;
    *(notice->previous ? &notice->previous->next : &recent->oldest_notice) = notice;
    recent->newest_notice = notice;
    notice->item.version = ++recent->version;
}

static void notice_free(struct notice *notice)
{
    item_clear(&notice->item);
    free(notice->key);
    free(notice);
}

static struct notice *notice_find(const struct recent *recent, const char *type, const char *key)
{
    struct notice *notice = recent->newest_notice;

    while (notice && !(str_eq(notice->key, key) && str_eq(notice->item.type, type)))
        notice = notice->previous;
    return notice;
}

static char *notice_frame(const struct engine_notice *notice)
{
    char when[CLOCK_RFC3339_SIZE];
    AUTO_JSON json_t *row = json_pack("{s:n, s:s, s:s, s:s?, s:s?, s:O}", "id", "time", clock_rfc3339(clock_real_ms(), when), "type",
                                      notice->type, "session_id", notice->session_id, "job_id", notice->job_id, "data", notice->data);

    return recent_frame_of_row(row);
}

void recent_notice(struct recent *recent, const struct engine_notice *what)
{
    struct notice *notice = notice_find(recent, what->type, what->key);

    if (notice)
        notice_unlink(recent, notice);
    if (!what->data) {
        if (notice)
            notice_free(notice);
        return;
    }
    if (!notice) {
        notice = mem_new(sizeof(*notice));
        notice->key = str_dup(what->key);
        notice->item = (struct recent_item){.type = str_dup(what->type),
                                            .session_id = str_dup(what->session_id),
                                            .job_id = str_dup(what->job_id),
                                            .owner = str_dup(what->owner),
                                            .is_progress = str_eq(what->type, "job.progress")};
    }
    free(notice->item.frame);
    notice->item.frame = notice_frame(what);
    notice_append(recent, notice);
}

const struct recent_item *recent_notice_after(const struct recent *recent, uint64_t version)
{
    const struct notice *found = NULL;

    for (const struct notice *notice = recent->newest_notice; notice && notice->item.version > version; notice = notice->previous)
        found = notice;
    return found ? &found->item : NULL;
}

/* --- life --- */

struct recent *recent_new(void)
{
    return mem_new(sizeof(struct recent));
}

void recent_free(struct recent *recent)
{
    if (!recent)
        return;
    for (size_t i = 0; i < recent->n; i++)
        item_clear(ring_at(recent, i));
    while (recent->oldest_notice) {
        struct notice *notice = recent->oldest_notice;
        notice_unlink(recent, notice);
        notice_free(notice);
    }
    free(recent);
}
