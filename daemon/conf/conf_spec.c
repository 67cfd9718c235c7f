#include "conf/conf_spec.h"

#include "base/cleanup.h"

#define OBJECT(array)                                                                                                  \
    {                                                                                                                  \
        .kinds = JSON_KIND_OBJECT, .members = (array), .n_members = ELEMENTS(array)                                    \
    }
#define INTEGER(low, high)                                                                                             \
    {                                                                                                                  \
        .kinds = JSON_KIND_INTEGER, .bounded = true, .min = (low), .max = (high)                                       \
    }
#define TEXT(low, high)                                                                                                \
    {                                                                                                                  \
        .kinds = JSON_KIND_STRING, .bounded = true, .min = (low), .max = (high)                                        \
    }
#define LIST(of, low, high)                                                                                            \
    {                                                                                                                  \
        .kinds = JSON_KIND_ARRAY, .items = (of), .bounded = true, .min = (low), .max = (high)                          \
    }
#define CHOICE(list)                                                                                                   \
    {                                                                                                                  \
        .kinds = JSON_KIND_STRING, .choices = (list)                                                                   \
    }

static const struct json_spec any = {.kinds = JSON_KIND_ANY};
static const struct json_spec path = {.kinds = JSON_KIND_STRING, .format = JSON_FORMAT_PATH};
static const struct json_spec name = {
    .kinds = JSON_KIND_STRING, .format = JSON_FORMAT_NAME, .bounded = true, .min = 1, .max = 64};
static const struct json_spec line = TEXT(1, 4096);
static const struct json_spec user = TEXT(1, 63);
static const struct json_spec paths = LIST(&path, 0, 1000);
static const struct json_spec some_paths = LIST(&path, 1, 1000);
static const struct json_spec lines = LIST(&line, 1, 256);
static const struct json_spec text_or_empty = TEXT(0, 32768);
static const struct json_spec environment = {.kinds = JSON_KIND_OBJECT, .values = &text_or_empty};

/* --- writers --- */

static const struct json_spec freeze_ms = INTEGER(100, 600000);

static const struct json_member exec_members[] = {
    {"name", true, &name},
    {"type", true, &name},
    {"command", true, &lines},
    {"user", false, &user},
    {"environment", false, &environment},
};
static const struct json_member postgresql_members[] = {
    {"name", true, &name},
    {"type", true, &name},
    {"connection", true, &line},
    {"user", false, &user},
    {"data_directory", false, &path},
};
static const struct json_member sqlite_members[] = {
    {"name", true, &name},
    {"type", true, &name},
    {"databases", true, &some_paths},
    {"user", false, &user},
    {"freeze_timeout_ms", false, &freeze_ms},
};
static const struct json_spec exec_spec = OBJECT(exec_members);
static const struct json_spec postgresql_spec = OBJECT(postgresql_members);
static const struct json_spec sqlite_spec = OBJECT(sqlite_members);
static const struct conf_kind writer_kinds[] = {
    {"exec", &exec_spec}, {"postgresql", &postgresql_spec}, {"sqlite", &sqlite_spec}};
static const char *const writer_types[] = {"exec", "postgresql", "sqlite", NULL};
static const struct json_spec writer_type = CHOICE(writer_types);
static const struct json_member writer_members[] = {{"name", true, &name}, {"type", true, &writer_type}};
static const struct json_spec writer_unknown = {
    .kinds = JSON_KIND_OBJECT, .members = writer_members, .n_members = ELEMENTS(writer_members), .open = true};

/* --- repositories --- */

static const struct json_member archive_members[] = {
    {"name", true, &name}, {"mover", true, &name}, {"path", true, &path}};
static const struct json_member restic_members[] = {
    {"name", true, &name}, {"mover", true, &name},         {"path", false, &path},
    {"url", false, &line}, {"password_file", true, &path},
};
static const struct json_spec archive_spec = OBJECT(archive_members);
static const struct json_spec restic_spec = OBJECT(restic_members);
static const struct conf_kind repository_kinds[] = {{"archive", &archive_spec}, {"restic", &restic_spec}};
static const char *const mover_names[] = {"archive", "restic", NULL};
static const struct json_spec mover = CHOICE(mover_names);
static const struct json_member repository_members[] = {{"name", true, &name}, {"mover", true, &mover}};
static const struct json_spec repository_unknown = {
    .kinds = JSON_KIND_OBJECT, .members = repository_members, .n_members = ELEMENTS(repository_members), .open = true};

const struct conf_kinds conf_kinds[] = {
    {"writers", "type", writer_kinds, ELEMENTS(writer_kinds), &writer_unknown},
    {"repositories", "mover", repository_kinds, ELEMENTS(repository_kinds), &repository_unknown},
};
const size_t conf_n_kinds = ELEMENTS(conf_kinds);

/* --- principals --- */

static const char *const role_names[] = {"viewer", "operator", "restorer", "auditor", "admin", NULL};
static const struct json_spec role = CHOICE(role_names);
static const struct json_spec sha256 = TEXT(64, 64);
static const struct json_spec certificate_name = TEXT(1, 127); /* preface.h: PREFACE_NAME_SIZE with its NUL */
static const struct json_member principal_members[] = {
    {"name", true, &name},
    {"role", true, &role},
    {"token_sha256", false, &sha256},
    {"certificate", false, &certificate_name},
};
static const struct json_spec principal = OBJECT(principal_members);
static const struct json_spec principals = LIST(&principal, 0, 10000);

/* --- sections --- */

static const struct json_spec listen_address = TEXT(1, 96);
static const struct json_spec listen_list = LIST(&listen_address, 1, 16); /* ipc.h: IPC_FDS_MAX, with room for reload */
static const struct json_spec hostname = TEXT(1, 253);                    /* RFC 1035 2.3.4 */
static const struct json_spec hostnames = LIST(&hostname, 0, 100);
static const struct json_member tls_members[] = {{"certificate", false, &path},
                                                 {"key", false, &path},
                                                 {"client_ca", false, &path},
                                                 {"hostnames", false, &hostnames}};
static const struct json_spec tls = OBJECT(tls_members);

static const struct json_member log_members[] = {{"file", false, &path}};
static const struct json_spec log_section = OBJECT(log_members);

static const struct json_member copy_members[] = {{"staging", false, &path}};
static const struct json_spec copy = OBJECT(copy_members);
static const struct json_member provider_members[] = {{"copy", false, &copy}};
static const struct json_spec providers = OBJECT(provider_members);

static const struct json_member restore_members[] = {{"roots", false, &paths}};
static const struct json_spec restore = OBJECT(restore_members);

static const struct json_member run_as_members[] = {{"front", false, &user}, {"core", false, &user}};
static const struct json_spec run_as = OBJECT(run_as_members);

static const struct json_spec seconds = INTEGER(1, 86400);
static const struct json_member writer_seconds_members[] = {
    {"identify", false, &seconds},        {"prepare_backup", false, &seconds},  {"prepare_snapshot", false, &seconds},
    {"post_snapshot", false, &seconds},   {"backup_complete", false, &seconds}, {"abort", false, &seconds},
    {"backup_shutdown", false, &seconds}, {"pre_restore", false, &seconds},     {"post_restore", false, &seconds},
};
static const struct json_spec writer_seconds = OBJECT(writer_seconds_members);
static const struct json_spec freeze_seconds = INTEGER(1, 600);
static const struct json_spec lease_seconds = INTEGER(5, 86400); /* design, section 5: from 5 */
static const struct json_spec drain_seconds = INTEGER(0, 3600);
static const struct json_spec handshake_seconds = INTEGER(1, 300);
static const struct json_spec count = INTEGER(1, 1000000);
static const struct json_member limit_members[] = {
    {"freeze_seconds", false, &freeze_seconds},
    {"lease_seconds", false, &lease_seconds},
    {"jobs", false, &count},
    {"writer_seconds", false, &writer_seconds},
    {"drain_seconds", false, &drain_seconds},
    {"connections", false, &count},
    {"handshake_seconds", false, &handshake_seconds},
};
static const struct json_spec limits = OBJECT(limit_members);

static const struct json_spec days = INTEGER(1, 36500);
static const struct json_spec records = INTEGER(1, 100000000);
static const struct json_member retention_members[] = {{"jobs", false, &records}, {"days", false, &days}};
static const struct json_spec retention = OBJECT(retention_members);

static const struct json_spec entries = LIST(&any, 0, 1000);
static const struct json_member members[] = {
    {"listen", false, &listen_list},   {"tls", false, &tls},
    {"log", false, &log_section},      {"state_dir", false, &path},
    {"writers", false, &entries},      {"providers", false, &providers},
    {"repositories", false, &entries}, {"restore", false, &restore},
    {"run_as", false, &run_as},        {"limits", false, &limits},
    {"retention", false, &retention},  {"principals", false, &principals},
};
const struct json_spec conf_spec = OBJECT(members);
