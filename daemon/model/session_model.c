#include "model/session_model.h"

#include "base/cleanup.h"
#include "base/str.h"

static const char *const state_names[SESSION_STATE_COUNT] = {
    [SESSION_INITIALIZED] = "initialized", [SESSION_IDENTIFIED] = "identified",
    [SESSION_SET_OPEN] = "set_open",       [SESSION_PREPARED] = "prepared",
    [SESSION_SNAPSHOTTED] = "snapshotted", [SESSION_SNAPSHOT_FAILED] = "snapshot_failed",
    [SESSION_PRE_RESTORED] = "pre_restored", [SESSION_COMPLETED] = "completed",
    [SESSION_ABORTED] = "aborted",
};

static const struct session_context contexts[] = {
    /* name                         persistent auto-release writers creates client_accessible */
    {"backup",                      false, true,  true,  true,  false},
    {"file_share_backup",           false, true,  false, true,  false},
    {"nas_rollback",                true,  false, false, true,  false},
    {"app_rollback",                true,  false, true,  true,  false},
    {"client_accessible",           true,  false, false, true,  true},
    {"client_accessible_writers",   true,  false, true,  true,  true},
    {"all",                         true,  false, false, false, false},
};

/* One letter per state: = allowed; i ignored; . out of sequence; p another set is in creation;
 * n allowed in a context without writers; g allowed while nothing was gathered; z allowed when nothing needs a snapshot.
 * Columns: initialized, identified, set_open, prepared, snapshotted, snapshot_failed, pre_restored, completed, aborted. */
struct matrix_row {
    const char *name;
    const char *backup;
    const char *restore;
    bool writers_only;   /* an error in contexts without writers */
    bool while_pending;  /* allowed while a job of the session is pending */
    const char *in_sequence; /* hint: where the call belongs */
};

static const struct matrix_row matrix[SESSION_OP_COUNT] = {
    [SESSION_OP_SET_CONTEXT] = {"SetContext", "=........", ".........", false, false,
        "Set the context once, right after the session was created."},
    [SESSION_OP_WRITER_FILTER] = {"EnableWriterClasses", "=iiiiiiii", "=iiiiiiii", false, false,
        "Filter writers before GatherWriterMetadata."},
    [SESSION_OP_SET_BACKUP_STATE] = {"SetBackupState", "===......", ".........", false, false,
        "Set the backup state before PrepareForBackup."},
    [SESSION_OP_GATHER_METADATA] = {"GatherWriterMetadata", "=.g......", "=........", false, false,
        "Writer metadata is gathered once, before the snapshot set is prepared; create a new session to gather again."},
    [SESSION_OP_ADD_COMPONENT] = {"AddComponent", ".==......", ".........", true, false,
        "Add components after GatherWriterMetadata and before PrepareForBackup."},
    [SESSION_OP_SET_OPTIONS] = {"SetBackupOptions", ".==......", ".........", true, false,
        "Set options and stamps after AddComponent and before PrepareForBackup."},
    [SESSION_OP_SET_SUCCEEDED] = {"SetBackupSucceeded", "...z=....", ".........", true, false,
        "Report success after the copy and before BackupComplete."},
    [SESSION_OP_START_SNAPSHOT_SET] = {"StartSnapshotSet", "n=pp.....", ".........", false, false,
        "Start the snapshot set after GatherWriterMetadata; a session has one set."},
    [SESSION_OP_ADD_TO_SNAPSHOT_SET] = {"AddToSnapshotSet", "..=......", ".........", false, false,
        "Add volumes between StartSnapshotSet and PrepareForBackup."},
    [SESSION_OP_PREPARE] = {"PrepareForBackup", "..=......", ".........", true, false,
        "Prepare after SetBackupState and StartSnapshotSet, once."},
    [SESSION_OP_SNAPSHOT] = {"DoSnapshotSet", "..n=.....", ".........", false, false,
        "Take the snapshot after PrepareForBackup, once."},
    [SESSION_OP_COPY] = {"Copy", "....=....", ".........", false, false,
        "Copy after DoSnapshotSet and before BackupComplete."},
    [SESSION_OP_COMPLETE] = {"BackupComplete", "...z=....", ".........", true, false,
        "Call BackupComplete once, after a successful DoSnapshotSet, in a backup session."},
    [SESSION_OP_GATHER_STATUS] = {"GatherWriterStatus", ".========", ".========", false, false,
        "Gather the status after GatherWriterMetadata."},
    [SESSION_OP_SAVE_DOCUMENT] = {"SaveAsXML", "...======", "=========", false, true,
        "The document exists from PrepareForBackup on."},
    [SESSION_OP_ABORT] = {"AbortBackup", "=======ii", "iiiiiiiii", false, true, ""},
    [SESSION_OP_SET_RESTORE_STATE] = {"SetRestoreState", ".........", "==.......", false, false,
        "Set the restore state in a restore session, before PreRestore."},
    [SESSION_OP_SELECT] = {"SetSelectedForRestore", ".........", ".=.......", false, false,
        "Select components in a restore session, after GatherWriterMetadata and before PreRestore."},
    [SESSION_OP_SET_RESTORE_OPTIONS] = {"SetRestoreOptions", ".........", "==.......", false, false,
        "Say how to restore in a restore session, before PreRestore."},
    [SESSION_OP_ADD_NEW_TARGET] = {"AddNewTarget", ".........", "==.......", false, false,
        "Say where to restore to in a restore session, before PreRestore."},
    [SESSION_OP_SET_RANGES_FILE] = {"SetRangesFilePath", ".........", "==....=..", false, false,
        "Name the ranges file in a restore session, before PostRestore."},
    [SESSION_OP_PRE_RESTORE] = {"PreRestore", ".........", ".=.......", false, false,
        "Call PreRestore once, in a restore session, after GatherWriterMetadata and the selection."},
    [SESSION_OP_RESTORE_FILES] = {"RestoreFiles", ".........", "......=..", false, false,
        "Restore files between PreRestore and PostRestore."},
    [SESSION_OP_SET_FILE_STATUS] = {"SetFileRestoreStatus", ".........", "......=..", false, false,
        "Tell what became of the files between PreRestore and PostRestore."},
    [SESSION_OP_POST_RESTORE] = {"PostRestore", ".........", "......=..", false, false,
        "Call PostRestore once, in a restore session, after PreRestore."},
};

const char *session_state_name(enum session_state state)
{
    return state_names[state];
}

bool session_state_by_name(const char *name, enum session_state *ret_state)
{
    for (int i = 0; i < SESSION_STATE_COUNT; i++) {
        if (str_eq(name, state_names[i])) {
            *ret_state = (enum session_state)i;
            return true;
        }
    }
    return false;
}

const char *session_operation_name(enum session_operation operation)
{
    return matrix[operation].name;
}

const struct session_context *session_context_by_name(const char *name)
{
    for (size_t i = 0; i < ELEMENTS(contexts); i++) {
        if (str_eq(name, contexts[i].name))
            return &contexts[i];
    }
    return NULL;
}

static enum session_verdict out_of_sequence(const struct matrix_row *row, const struct session_facts *facts, struct err *err)
{
    err_set(err, VSS_E_BAD_STATE, row->in_sequence, "%s: out of sequence: the %s session is %s", row->name,
            facts->kind == SESSION_RESTORE ? "restore" : "backup", state_names[facts->state]);
    return VERDICT_BAD_STATE;
}

/* Rules that the letters cannot say. */
static enum session_verdict judge_extra(enum session_operation operation, const struct matrix_row *row,
                                        const struct session_facts *facts, struct err *err)
{
    if (row->writers_only && !facts->writers_involved) {
        err_set(err, VSS_E_BAD_STATE, "This context works without writers: snapshot, copy, then DELETE the session.",
                "%s: not possible in a context without writers", row->name);
        return VERDICT_BAD_STATE;
    }
    if (operation == SESSION_OP_SET_CONTEXT && facts->context_set) {
        err_set(err, VSS_E_BAD_STATE, row->in_sequence, "SetContext: the context was set before");
        return VERDICT_BAD_STATE;
    }
    if (operation == SESSION_OP_PREPARE && !facts->backup_state_set) {
        err_set(err, VSS_E_BAD_STATE, "PUT backup-state first.", "PrepareForBackup: SetBackupState was not called");
        return VERDICT_BAD_STATE;
    }
    if (operation == SESSION_OP_GATHER_STATUS && !facts->gathered)
        return out_of_sequence(row, facts, err);
    return VERDICT_ALLOWED;
}

enum session_verdict session_judge(enum session_operation operation, const struct session_facts *facts, struct err *err)
{
    const struct matrix_row *row = &matrix[operation];
    const char *cells = facts->kind == SESSION_RESTORE ? row->restore : row->backup;
    if (facts->pending_job && !row->while_pending) {
        err_set(err, VSS_E_BAD_STATE, "Wait for the job, or cancel it with DELETE.",
                "%s: job %s of this session is still pending", row->name, facts->pending_job);
        return VERDICT_BAD_STATE;
    }
    switch (cells[facts->state]) {
    case '=':
        break;
    case 'i':
        return VERDICT_IGNORED;
    case 'p':
        err_set(err, VSS_E_SNAPSHOT_SET_IN_PROGRESS, "Finish or abort the set that this session has open.",
                "%s: this session's snapshot set is in creation", row->name);
        return VERDICT_IN_PROGRESS;
    case 'n':
        if (!facts->writers_involved)
            break;
        return out_of_sequence(row, facts, err);
    case 'g':
        if (!facts->gathered)
            break;
        return out_of_sequence(row, facts, err);
    case 'z':
        if (!facts->snapshot_needed)
            break;
        return out_of_sequence(row, facts, err);
    default:
        return out_of_sequence(row, facts, err);
    }
    return judge_extra(operation, row, facts, err);
}
