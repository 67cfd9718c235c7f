#pragma once
/* The restore of a cluster into its own place, or into a directory beside it (docs/writers/postgresql.md). */
#include <jansson.h>

#include "base/err.h"
#include "writers/inplace/inplace.h"
#include "writers/postgresql/cluster.h"
#include "writers/postgresql/session.h"

struct pg_restore {
    struct pg_session *session;       /* both borrowed */
    const struct pg_cluster *cluster; /* as identify told it */
    char *connection; /* owned, as is the next */
    struct inplace *inplace;
    char *room;       /* in which directory there is room for the logs of a chain, or NULL */
};

/* session and cluster live longer than ret. */
void pg_restore_open(struct pg_restore *ret, const json_t *configuration, struct pg_session *session,
                     const struct pg_cluster *cluster);
/* Undoes what is not finished. */
void pg_restore_clear(struct pg_restore *restore);
int pg_restore_pre(struct pg_restore *restore, const struct writer_event *event, json_t **ret_components, struct err *err);
int pg_restore_post(struct pg_restore *restore, const struct writer_event *event, json_t **ret_components,
                    struct err *err);
/* inplace_undo; and room that was made for logs that did not come goes. */
void pg_restore_undo(struct pg_restore *restore, int64_t deadline_ms);
