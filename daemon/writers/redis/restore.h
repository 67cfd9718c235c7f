#pragma once
/* The restore of what a server loads when it starts, in its place or beside it (docs/writers/redis.md). */
#include <jansson.h>

#include "base/err.h"
#include "writers/inplace/inplace.h"
#include "writers/redis/server.h"
#include "writers/redis/session.h"

struct redis_restore {
    struct redis_session *session;     /* both borrowed */
    const struct redis_server *server; /* as identify told it */
    struct inplace *inplace;           /* owned */
    json_t *sizes;                     /* of the restored files, by name, before the start; owned */
};

/* session and server live longer than ret. */
void redis_restore_open(struct redis_restore *ret, const json_t *configuration, struct redis_session *session,
                        const struct redis_server *server);
/* Undoes what is not finished. */
void redis_restore_clear(struct redis_restore *restore);
