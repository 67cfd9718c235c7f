#include "writers/postgresql/verify.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

DEFINE_CLEANUP(struct pg_session *, pg_session_free)

static const char databases_sql[] = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY oid";
/* Every page of the catalogs that say where all the rest is. */
static const char catalogs_sql[] =
    "SELECT (SELECT count(*) FROM pg_class) + (SELECT count(*) FROM pg_attribute) + (SELECT count(*) FROM pg_type) + "
    "(SELECT count(*) FROM pg_proc) + (SELECT count(*) FROM pg_index)";
static const char amcheck_sql[] = "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = "
                                  "e.extnamespace WHERE e.extname = 'amcheck'";
static const char indexes_sql[] =
    "SELECT count(%s.bt_index_check(c.oid)) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON "
    "a.oid = c.relam WHERE a.amname = 'btree' AND i.indisvalid AND i.indisready AND c.relpersistence = 'p' AND "
    "c.relnamespace = 'pg_catalog'::regnamespace";

static int verify_one(struct pg_session *session, struct err *err)
{
    AUTO_JSON json_t *schema = NULL;
    if (pg_session_query(session, catalogs_sql, NULL, NULL, err) != 0 ||
        pg_session_query(session, amcheck_sql, NULL, &schema, err) != 0)
        return -1;
    if (!pg_cell(schema, 0, 0))
        return 0;
    AUTO_FREE char *sql = str_new(indexes_sql, pg_cell(schema, 0, 0));
    return pg_session_query(session, sql, NULL, NULL, err);
}

/* A later keyword wins. */
static char *connection_to(const char *connection, const char *database)
{
    AUTO_FREE char *quoted = mem_new(2 * strlen(database) + 1);
    char *out = quoted;
    for (const char *c = database; *c; c++) {
        if (*c == '\'' || *c == '\\')
            *out++ = '\\';
        *out++ = *c;
    }
    return str_new("%s dbname='%s'", connection, quoted);
}

int pg_verify_databases(struct pg_session *session, const char *connection, int64_t give_up_ms, struct err *err)
{
    AUTO_JSON json_t *databases = NULL;
    if (strstr(connection, "://"))
        return verify_one(session, err);
    if (pg_session_query(session, databases_sql, NULL, &databases, err) != 0)
        return -1;
    for (size_t i = 0; i < json_array_size(databases); i++) {
        AUTO_FREE char *conninfo = connection_to(connection, pg_cell(databases, i, 0));
        CLEANUP(pg_session_free_p) struct pg_session *one = pg_session_new(conninfo, "quiesced: restore");
        pg_session_deadline(one, give_up_ms);
        if (pg_session_connect(one, err) != 0 || verify_one(one, err) != 0)
            return err_prefix(err, "database %s", pg_cell(databases, i, 0));
    }
    return 0;
}
