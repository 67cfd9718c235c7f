#include "api/handlers/handlers.h"

#include "base/cleanup.h"

static const struct handler rows[] = {
    {"sessionCreate", .call = engine_session_create},
    {"sessionList", .call = engine_session_list},
    {"sessionGet", .call = engine_session_get},
    {"sessionDelete", .call = engine_session_delete},
    {"sessionBackupState", .call = engine_session_backup_state},
    {"sessionContext", .call = engine_session_context},
    {"sessionWriterFilter", .call = engine_session_writer_filter},
    {"sessionWriters", .call = engine_session_writers},
    {"sessionWriterStatus", .call = engine_session_writer_status},
    {"sessionDocument", .call = engine_session_document},
    {"sessionRenew", .call = engine_session_renew},
    {"sessionAbort", .call = engine_session_abort},
    {"snapshotSetStart", .call = engine_snapshot_set_start},
    {"snapshotSetAdd", .call = engine_snapshot_set_add},
    {"snapshotSetComponents", .call = engine_snapshot_set_components},
    {"holdList", .call = engine_hold_list},
    {"snapshotSetRelease", .call = engine_snapshot_set_release},
    {"jobMetadata", .call = engine_job_metadata},
    {"jobPrepare", .call = engine_job_prepare},
    {"jobSnapshot", .call = engine_job_snapshot},
    {"jobCopy", .call = engine_job_copy},
    {"jobComplete", .call = engine_job_complete},
    {"jobStatus", .call = engine_job_status},
    {"sessionRestoreState", .call = engine_session_restore_state},
    {"jobPreRestore", .call = engine_job_pre_restore},
    {"jobRestoreFiles", .call = engine_job_restore_files},
    {"jobPostRestore", .call = engine_job_post_restore},
};
const struct handler_table handlers_sessions = {rows, ELEMENTS(rows)};
