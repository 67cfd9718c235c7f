#include "conf/conf_spec.h"

#include "base/cleanup.h"
#include "base/preface.h"

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

static const struct json_spec yes_or_no = {.kinds = JSON_KIND_BOOLEAN};
static const struct json_spec freeze_ms = INTEGER(100, 600000);
static const struct json_spec port = INTEGER(1, 65535);

static const struct json_member exec_members[] = {
    {"name", true, &name},
    {"type", true, &name},
    {"command", true, &lines},
    {"user", false, &user},
    {"environment", false, &environment},
};
/* Database servers that are reached by a socket or an address: mariadb, redis. */
static const struct json_member server_members[] = {
    {"name", true, &name},           {"type", true, &name},   {"socket", false, &path},
    {"host", false, &line},          {"port", false, &port},  {"login", false, &user},
    {"password_file", false, &path}, {"user", false, &user},  {"freeze_timeout_ms", false, &freeze_ms},
    {"stop", false, &lines},         {"start", false, &lines}, {"data_directory", false, &path},
};
static const struct json_member postgresql_members[] = {
    {"name", true, &name},
    {"type", true, &name},
    {"connection", true, &line},
    {"user", false, &user},
    {"data_directory", false, &path},
    {"stop", false, &lines},
    {"start", false, &lines},
    {"log_backups", false, &yes_or_no},
};
static const struct json_member sqlite_members[] = {
    {"name", true, &name},
    {"type", true, &name},
    {"databases", true, &some_paths},
    {"user", false, &user},
    {"freeze_timeout_ms", false, &freeze_ms},
};
static const struct json_spec exec_spec = OBJECT(exec_members);
static const struct json_spec server_spec = OBJECT(server_members);
static const struct json_spec postgresql_spec = OBJECT(postgresql_members);
static const struct json_spec sqlite_spec = OBJECT(sqlite_members);
static const struct conf_kind writer_kinds[] = {{"exec", &exec_spec},
                                                {"mariadb", &server_spec},
                                                {"postgresql", &postgresql_spec},
                                                {"redis", &server_spec},
                                                {"sqlite", &sqlite_spec}};
static const char *const writer_types[] = {"exec", "mariadb", "postgresql", "redis", "sqlite", NULL};
static const struct json_spec writer_type = CHOICE(writer_types);
static const struct json_member writer_members[] = {{"name", true, &name}, {"type", true, &writer_type}};
static const struct json_spec writer_unknown = {
    .kinds = JSON_KIND_OBJECT, .members = writer_members, .n_members = ELEMENTS(writer_members), .open = true};

/* --- repositories --- */

static const char *const io_classes[] = {"idle", "best-effort", NULL}; /* ioprio_set(2), but for realtime */
static const struct json_spec io_class = CHOICE(io_classes);
static const struct json_spec io_priority = INTEGER(0, 7);
static const struct json_spec nice_value = INTEGER(0, 19);
static const struct json_spec bandwidth = INTEGER(1024, 1000000000000); /* restic and borg count in KiB */
static const struct json_member mover_limit_members[] = {{"io_class", false, &io_class},
                                                         {"io_priority", false, &io_priority},
                                                         {"nice", false, &nice_value},
                                                         {"bandwidth_bytes_per_second", false, &bandwidth}};
static const struct json_spec mover_limits = OBJECT(mover_limit_members);
static const struct json_spec lock_wait = INTEGER(0, 86400);
static const struct json_member archive_members[] = {
    {"name", true, &name}, {"mover", true, &name}, {"path", true, &path}, {"encrypt", false, &yes_or_no}, {"limits", false, &mover_limits},
};
static const struct json_member restic_members[] = {
    {"name", true, &name},          {"mover", true, &name},         {"path", false, &path},         {"url", false, &line},
    {"url_file", false, &path},     {"password_file", true, &path}, {"encrypt", false, &yes_or_no}, {"limits", false, &mover_limits},
    {"environment", false, &environment},
};
static const struct json_member borg_members[] = {
    {"name", true, &name},          {"mover", true, &name},         {"path", false, &path},
    {"url", false, &line},          {"password_file", true, &path}, {"base_dir", false, &path},
    {"rsh", false, &line},          {"lock_wait_seconds", false, &lock_wait},
    {"encrypt", false, &yes_or_no}, {"limits", false, &mover_limits},
};
static const struct json_spec archive_spec = OBJECT(archive_members);
static const struct json_spec restic_spec = OBJECT(restic_members);
static const struct json_spec borg_spec = OBJECT(borg_members);
static const struct conf_kind repository_kinds[] = {{"archive", &archive_spec}, {"restic", &restic_spec}, {"borg", &borg_spec}};
static const char *const mover_names[] = {"archive", "restic", "borg", NULL};
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
    {"user", false, &user},
    {"group", false, &user},
    {"paths", false, &some_paths},
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
                                                 {"client_crl", false, &path},
                                                 {"hostnames", false, &hostnames}};
static const struct json_spec tls = OBJECT(tls_members);

static const struct json_member socket_members[] = {{"enabled", false, &yes_or_no}, {"path", false, &path}};
static const struct json_spec socket_section = OBJECT(socket_members);

static const struct json_member log_members[] = {{"file", false, &path}};
static const struct json_spec log_section = OBJECT(log_members);

static const struct json_member copy_members[] = {{"staging", false, &path}};
static const struct json_spec copy = OBJECT(copy_members);
static const struct json_spec command_seconds = INTEGER(1, 600);
static const struct json_member external_members[] = {{"command", false, &lines},
                                                      {"timeout_seconds", false, &command_seconds}};
static const struct json_spec external = OBJECT(external_members);
static const struct json_member provider_members[] = {{"copy", false, &copy}, {"external", false, &external}};
static const struct json_spec providers = OBJECT(provider_members);

static const struct json_member restore_members[] = {{"roots", false, &paths}};
static const struct json_spec restore = OBJECT(restore_members);

static const struct json_member expose_members[] = {{"roots", false, &paths}};
static const struct json_spec expose = OBJECT(expose_members);

static const struct json_member run_as_members[] = {{"front", false, &user}, {"core", false, &user}, {"courier", false, &user}};
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
static const struct json_spec client_seconds = INTEGER(1, 3600);
static const struct json_spec rate = INTEGER(0, 1000000); /* 0: no least rate */
static const struct json_spec head_bytes = INTEGER(1024, HEAD_BYTES_MAX);
static const struct json_spec headers = INTEGER(16, 100);
static const struct json_spec body_bytes = INTEGER(65536, 1073741824);
static const struct json_spec watchdog_seconds = INTEGER(1, 3600);
static const struct json_spec heartbeat_seconds = INTEGER(1, 300);
static const struct json_spec count = INTEGER(1, 1000000);
static const struct json_spec count_or_none = INTEGER(0, 1000000);
static const struct json_spec login_seconds = INTEGER(1, 2592000);
static const struct json_spec volume_snapshots = INTEGER(1, 4096);
static const struct json_member limit_members[] = {
    {"freeze_seconds", false, &freeze_seconds},
    {"lease_seconds", false, &lease_seconds},
    {"jobs", false, &count},
    {"sessions", false, &count},
    {"snapshots_per_volume", false, &volume_snapshots},
    {"writer_seconds", false, &writer_seconds},
    {"drain_seconds", false, &drain_seconds},
    {"connections", false, &count},
    {"connections_per_address", false, &count},
    {"handshakes", false, &count},
    {"handshake_seconds", false, &handshake_seconds},
    {"head_seconds", false, &client_seconds},
    {"stall_seconds", false, &client_seconds},
    {"least_bytes_per_second", false, &rate},
    {"head_bytes", false, &head_bytes},
    {"headers", false, &headers},
    {"body_bytes", false, &body_bytes},
    {"watchdog_seconds", false, &watchdog_seconds},
    {"wrong_credentials", false, &count_or_none},
    {"address_requests_per_second", false, &count_or_none},
    {"principal_requests_per_second", false, &count_or_none},
    {"login_seconds", false, &login_seconds},
    {"login_idle_seconds", false, &login_seconds},
    {"streams", false, &count},
    {"streams_per_principal", false, &count},
    {"waits_per_principal", false, &count},
    {"heartbeat_seconds", false, &heartbeat_seconds},
};
static const struct json_spec limits = OBJECT(limit_members);

static const struct json_spec days = INTEGER(1, 36500);
static const struct json_spec records = INTEGER(1, 100000000);
static const struct json_member retention_members[] = {{"jobs", false, &records}, {"days", false, &days}, {"events", false, &records}};
static const struct json_spec retention = OBJECT(retention_members);

static const struct json_member audit_members[] = {{"seal_seconds", false, &seconds}, {"seal_records", false, &records}};
static const struct json_spec audit = OBJECT(audit_members);

static const struct json_spec block = TEXT(2, 64);
static const struct json_spec blocks = LIST(&block, 0, 1000);
static const struct json_spec delivery_seconds = INTEGER(1, 60);
static const struct json_spec pause_seconds = INTEGER(0, 604800);
static const struct json_spec pauses = LIST(&pause_seconds, 0, 50);
static const struct json_spec failing_seconds = INTEGER(1, 31536000);
static const struct json_member webhook_members[] = {
    {"allow_private", false, &blocks},         {"allow_http", false, &yes_or_no},
    {"timeout_seconds", false, &delivery_seconds}, {"retry_seconds", false, &pauses},
    {"disable_after_seconds", false, &failing_seconds}, {"log_days", false, &days},
};
static const struct json_spec webhooks = OBJECT(webhook_members);

static const struct json_spec entries = LIST(&any, 0, 1000);
static const struct json_member members[] = {
    {"listen", false, &listen_list},   {"tls", false, &tls},
    {"socket", false, &socket_section},
    {"log", false, &log_section},      {"state_dir", false, &path},
    {"writers", false, &entries},      {"providers", false, &providers},
    {"repositories", false, &entries}, {"restore", false, &restore},
    {"expose", false, &expose},
    {"run_as", false, &run_as},        {"limits", false, &limits},
    {"retention", false, &retention},  {"principals", false, &principals},
    {"webhooks", false, &webhooks},    {"audit", false, &audit},
};
const struct json_spec conf_spec = OBJECT(members);
