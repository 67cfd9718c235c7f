#include "api/handlers/handlers.h"

#include "base/cleanup.h"

static const struct handler rows[] = {
    {"backupCreate", .call = engine_backup_create},
    {"backupList", .call = engine_backup_list},
    {"backupGet", .call = engine_backup_get},
    {"backupFiles", .call = engine_backup_files},
    {"backupDelete", .call = engine_backup_delete},
    {"backupRestore", .call = engine_backup_restore},
    {"backupVerify", .call = engine_backup_verify},
};
const struct handler_table handlers_backups = {rows, ELEMENTS(rows)};
