#pragma once
/* The restore of a server's data into its own place, or into a directory beside it (docs/writers/mariadb.md). */
#include <jansson.h>

#include "base/err.h"
#include "writers/inplace/inplace.h"
#include "writers/mariadb/server.h"
#include "writers/mariadb/session.h"

struct maria_restore {
    struct maria_session *session;     /* both borrowed */
    const struct maria_server *server; /* as identify told it */
    struct inplace *inplace;
};

/* session and server live longer than ret. */
void maria_restore_open(struct maria_restore *ret, const json_t *configuration, struct maria_session *session,
                        const struct maria_server *server);
/* Undoes what is not finished. */
void maria_restore_clear(struct maria_restore *restore);
