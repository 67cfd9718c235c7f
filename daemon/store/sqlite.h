#pragma once
/* Private to the SQLite back end. */
#include <sqlite3.h>
#include <stdatomic.h>

#include "base/err.h"
#include "crypto/hash.h"
#include "store/backend.h"

/* Bits of struct store_query that a list statement depends on; the statements are kept, one per combination. */
enum { SQLITE_FILTERS = 5, SQLITE_LISTS = 1 << (SQLITE_FILTERS + 3) };

struct sqlite_store {
    char *path;
    int lock_fd;
    sqlite3 *reader; /* the loop's thread */
    sqlite3_stmt *get[STORE_KIND_COUNT];
    sqlite3_stmt *list[STORE_KIND_COUNT][SQLITE_LISTS];
    sqlite3_stmt *events, *events_of_job, *events_span;
    sqlite3 *writer; /* the commit thread */
    sqlite3_stmt *put[STORE_KIND_COUNT];
    sqlite3_stmt *remove[STORE_KIND_COUNT];
    sqlite3_stmt *event;
    struct {
        bool known; /* not after a transaction that failed */
        uint64_t seq;
        char hash[HASH_HEX_SIZE];
        sqlite3_stmt *insert, *close;
    } chain; /* the audit trail's end; the commit thread's */
    bool check_is_due;          /* the store is large: sqlite_check has not been over it yet */
    atomic_bool check_stopped;
};

extern const char *const sqlite_tables[STORE_KIND_COUNT];
/* "rest" where the kind's table has that column, else "NULL". */
const char *sqlite_rest_column(enum store_kind kind);

/* Fills err from db's last error: "store PATH: cannot WHAT: CAUSE", with the hint that belongs to the code. */
int sqlite_fail(const struct sqlite_store *store, sqlite3 *db, struct err *err, const char *what);
/* Prepares once into *slot; NULL with err. */
sqlite3_stmt *sqlite_statement(const struct sqlite_store *store, sqlite3 *db, sqlite3_stmt **slot, const char *sql,
                               struct err *err);

/* A statement that is not reset holds its view of the WAL, which then grows for ever. */
void sqlite_statement_release(sqlite3_stmt **statement);
#define BORROWED_STATEMENT CLEANUP(sqlite_statement_release) sqlite3_stmt *

/* sqlite_open.c: opens, checks, migrates. */
void *sqlite_store_open(const char *directory, struct err *err);
void sqlite_store_close(void *state);
/* Runs a pragma and compares its one answer; expected NULL takes any. */
int sqlite_pragma(const struct sqlite_store *store, sqlite3 *db, const char *sql, const char *expected, struct err *err);

/* sqlite_check.c; see struct store_backend. sqlite_check_first: before anything else is read. */
int sqlite_check_first(struct sqlite_store *store, struct err *err);
bool sqlite_check_due(void *state);
enum store_check sqlite_check(void *state, struct err *err);
void sqlite_check_stop(void *state);

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
enum store_result sqlite_events(void *state, const struct store_event_query *query, struct store_event_page *ret, struct err *err);
/* "store PATH: cannot read it", with err. */
enum store_result sqlite_read_failed(const struct sqlite_store *store, struct err *err);
/* The JSON of a column; NULL with err when it is none. */
json_t *sqlite_column_json(const struct sqlite_store *store, sqlite3_stmt *statement, int column, struct err *err);
/* The JSON of the columns doc and rest, in one; NULL with err when it is none. */
json_t *sqlite_record_json(const struct sqlite_store *store, sqlite3_stmt *statement, int doc, int rest, struct err *err);
/* sqlite_audit.c */
int sqlite_apply_audit(struct sqlite_store *store, struct store_op *op, struct err *err);
/* sqlite_quarantine.c; see store_moved and store_quarantined. */
int sqlite_quarantine(void *state, json_t **ret_moved, struct err *err);
/* Appends {"kind","rowid","id"} of the records that cannot be read, among the rows for which `where` (SQL; NULL = all) is true. */
int sqlite_bad_ids(const struct sqlite_store *store, sqlite3 *db, enum store_kind kind, const char *where, json_t *ret, struct err *err);
int sqlite_quarantined(void *state, enum store_kind kind, json_t **ret_ids, struct err *err);
void sqlite_commit(void *state, struct store_batch *const *batches, size_t n);
