#pragma once
/* Private to the SQLite back end. */
#include <sqlite3.h>

#include "base/err.h"
#include "store/backend.h"

/* Bits of struct store_query that a list statement depends on; the statements are kept, one per combination. */
enum { SQLITE_FILTERS = 5, SQLITE_LISTS = 1 << (SQLITE_FILTERS + 2) };

struct sqlite_store {
    char *path;
    int lock_fd;
    sqlite3 *reader; /* the loop's thread */
    sqlite3_stmt *get[STORE_KIND_COUNT];
    sqlite3_stmt *list[STORE_KIND_COUNT][SQLITE_LISTS];
    sqlite3_stmt *events;
    sqlite3 *writer; /* the commit thread */
    sqlite3_stmt *put[STORE_KIND_COUNT];
    sqlite3_stmt *remove[STORE_KIND_COUNT];
    sqlite3_stmt *event;
};

extern const char *const sqlite_tables[STORE_KIND_COUNT];

/* Fills err from db's last error: "store PATH: cannot WHAT: CAUSE", with the hint that belongs to the code. */
int sqlite_fail(const struct sqlite_store *store, sqlite3 *db, struct err *err, const char *what);
/* Prepares once into *slot; NULL with err. */
sqlite3_stmt *sqlite_statement(const struct sqlite_store *store, sqlite3 *db, sqlite3_stmt **slot, const char *sql,
                               struct err *err);

/* sqlite_open.c: opens, checks, migrates. */
void *sqlite_store_open(const char *directory, struct err *err);
void sqlite_store_close(void *state);

/* sqlite_migrate.c */
struct migration {
    int version;
    const char *name;
    const char *sql;
};
/* 'qscd': PRAGMA application_id of our stores. */
enum { SQLITE_STORE_APPLICATION = 0x71736364 };
/* Refuses stores of other programs and newer ones; brings an older one to the newest of migrations (ascending), after a
 * copy beside it. */
int sqlite_migrate(const struct sqlite_store *store, const struct migration *migrations, size_t n, struct err *err);
int sqlite_migrate_all(const struct sqlite_store *store, struct err *err);

/* sqlite_read.c, sqlite_write.c */
enum store_result sqlite_get(void *state, enum store_kind kind, const char *id, json_t **ret_doc, bool *ret_hidden,
                             struct err *err);
enum store_result sqlite_list(void *state, const struct store_query *query, json_t **ret_rows, bool *ret_more,
                              struct err *err);
enum store_result sqlite_events(void *state, int64_t after, int limit, json_t **ret_rows, struct err *err);
void sqlite_commit(void *state, struct store_batch *const *batches, size_t n);
