#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ident.h"
#include "base/log.h"
#include "base/str.h"
#include "store/sqlite.h"
#include "store/migrations.gen.h"

static int number(const struct sqlite_store *store, const char *sql, int64_t *ret, struct err *err)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(store->writer, sql, -1, &statement, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        *ret = sqlite3_column_int64(statement, 0);
    int result = rc == SQLITE_ROW ? 0 : sqlite_fail(store, store->writer, err, "read its version");
    sqlite3_finalize(statement);
    return result;
}

/* What an upgrade turns out to have spoilt is still there. */
static int copy_aside(const struct sqlite_store *store, int64_t version, struct err *err)
{
    char id[UUID_SIZE];
    AUTO_FREE char *copy = str_new("%s.v%d-%s", store->path, (int)version, uuid_v7(id));
    char *sql = sqlite3_mprintf("VACUUM INTO %Q", copy);
    int rc = sqlite3_exec(store->writer, sql, NULL, NULL, NULL);
    sqlite3_free(sql);
    if (rc != SQLITE_OK) {
        sqlite_fail(store, store->writer, err, "copy it before the migration");
        return -1;
    }
    log_line(LOG_LEVEL_INFO, NULL, "store %s: version %d is kept as %s", store->path, (int)version, copy);
    return 0;
}

static int apply(const struct sqlite_store *store, const struct migration *migration, struct err *err)
{
    AUTO_FREE char *mark = str_new("PRAGMA application_id = %d; PRAGMA user_version = %d;", SQLITE_STORE_APPLICATION,
                                   migration->version);
    const char *const steps[] = {"BEGIN IMMEDIATE", migration->sql, mark, "COMMIT"};
    for (size_t i = 0; i < ELEMENTS(steps); i++) {
        if (sqlite3_exec(store->writer, steps[i], NULL, NULL, NULL) == SQLITE_OK)
            continue;
        sqlite_fail(store, store->writer, err, "migrate it");
        err_prefix(err, "migration %s", migration->name);
        sqlite3_exec(store->writer, "ROLLBACK", NULL, NULL, NULL);
        return -1;
    }
    return 0;
}

int sqlite_migrate(const struct sqlite_store *store, const struct migration *migrations, size_t n, struct err *err)
{
    int64_t application = 0, version = 0, tables = 0, newest = migrations[n - 1].version;
    if (number(store, "PRAGMA application_id", &application, err) != 0 ||
        number(store, "PRAGMA user_version", &version, err) != 0 ||
        number(store, "SELECT count(*) FROM sqlite_schema", &tables, err) != 0)
        return -1;
    bool empty = application == 0 && version == 0 && tables == 0;
    if (!empty && application != SQLITE_STORE_APPLICATION)
        return err_set(err, (uint32_t)VSS_E_UNEXPECTED, "Move it away, or name another state directory.",
                       "store %s: is the database of another program", store->path);
    if (version > newest)
        return err_set(err, (uint32_t)VSS_E_UNEXPECTED,
                       "Install the newer program again, or put the copy that it made before its migration in place.",
                       "store %s: was written by a newer program (version %lld, this one knows versions up to %lld)",
                       store->path, (long long)version, (long long)newest);
    if (!empty && version < newest && copy_aside(store, version, err) != 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (migrations[i].version > version && apply(store, &migrations[i], err) != 0)
            return -1;
    return 0;
}

int sqlite_migrate_all(const struct sqlite_store *store, struct err *err)
{
    return sqlite_migrate(store, migrations_all, ELEMENTS(migrations_all), err);
}
