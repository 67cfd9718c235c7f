#pragma once
/* Patience with slow clients: a head has a time to come in, a body and a reply have a least rate. Nobody is timed while
 * it is core that keeps the bytes waiting, or while no request is in hand (core closes idle connections). */
#include <stdint.h>

struct connection;
struct loop_timer;

/* since: clock_mono_ms, 0 = not waiting; mark: what had moved by then. */
struct pace_window {
    int64_t since;
    uint64_t mark;
};

struct pace {
    struct pace_window head, body, reply;
    uint64_t received;        /* decrypted bytes from the client */
    uint64_t sent;            /* bytes of replies */
    struct loop_timer *timer; /* only while a window is open */
    int64_t due;              /* clock_mono_ms: when it ticks, while it is armed */
};

/* After bytes were moved: opens and closes windows. */
void pace_update(struct connection *connection);
/* Windows that are open go by the new limits at once. */
void pace_limits_changed(struct connection *connection);
void pace_end(struct connection *connection);
