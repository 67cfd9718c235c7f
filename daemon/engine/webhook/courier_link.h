#pragma once
/* Core's end of the way to the courier, which serve starts when it is asked. One that dies is asked for again, with growing
 * pauses: it parses what strangers answer. Knows nothing of webhooks. */
#include <jansson.h>
#include <stdbool.h>

#include "base/loop.h"

/* Has the courier started with fd (borrowed) as its channel. */
typedef void (*courier_start_fn)(void *arg, int fd);

struct courier_handlers {
    void (*answered)(void *arg, const json_t *answer /* borrowed: "delivered" */);
    void (*lost)(void *arg); /* what was sent and not answered will not be */
};

struct courier_link;
/* handlers must outlive it. */
struct courier_link *courier_link_new(struct loop *loop, const struct courier_handlers *handlers, void *arg);
void courier_link_on_start(struct courier_link *link, courier_start_fn start, void *arg);
/* false: there is none at the moment; try again in a second. */
bool courier_link_send(struct courier_link *link, const json_t *message);
/* Lets go of a courier that does not answer; `lost` is called. */
void courier_link_reset(struct courier_link *link);
/* Nothing is to be sent any more: the courier ends. `lost` is not called. */
void courier_link_rest(struct courier_link *link);
void courier_link_free(struct courier_link *link); /* NULL is fine */
