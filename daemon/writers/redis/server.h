#pragma once
/* What a Redis server is, where its files lie, and how its persistence stands. */
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "writers/redis/session.h"

struct redis_server {
    char version[32];                    /* "7.0.15" */
    char directory[PATH_MAX];            /* canonical: where it keeps its files */
    bool aof;                            /* appendonly yes: the AOF is what it loads; else the RDB file */
    char append_directory[NAME_MAX + 1]; /* beneath directory */
    char rdb_file[NAME_MAX + 1];
};

/* One look at INFO persistence. */
struct redis_persistence {
    bool rewriting; /* an AOF rewrite runs, or is about to */
    bool saving;
    bool save_ok;    /* the last RDB save */
    bool write_ok;   /* the last write to the AOF */
    int64_t changes; /* since the last RDB save */
    int64_t aof_bytes;
    int64_t aof_unwritten; /* acknowledged, but not written to the file yet */
    char last_save[32];
};

/* Refuses servers before 7.0, replicas (their writes come by a way that CLIENT PAUSE does not stop), servers that load.
 */
int redis_server_read(struct redis_session *session, struct redis_server *ret, struct err *err);
bool redis_server_same_place(const struct redis_server *a, const struct redis_server *b);
json_t *redis_server_append_path(const struct redis_server *server); /* the AOF's directory; new reference */
json_t *redis_server_file_sets(const struct redis_server *server);   /* protocol 1; new reference */
json_t *redis_server_excludes(const struct redis_server *server);
int redis_server_persistence(struct redis_session *session, struct redis_persistence *ret, struct err *err);
