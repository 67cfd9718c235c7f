#pragma once
/* The session's state machine as data (vss-model 2.2 to 2.4; design, section 4, where the two differ). Pure rules, no I/O. */
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum session_kind { SESSION_BACKUP, SESSION_RESTORE };

enum session_state {
    SESSION_INITIALIZED,
    SESSION_IDENTIFIED,
    SESSION_SET_OPEN,
    SESSION_PREPARED,
    SESSION_SNAPSHOTTED,
    SESSION_SNAPSHOT_FAILED,
    SESSION_PRE_RESTORED,
    SESSION_COMPLETED,
    SESSION_ABORTED,
    SESSION_STATE_COUNT
};

/* Every call that the state matrix rules. */
enum session_operation {
    SESSION_OP_SET_CONTEXT,
    SESSION_OP_WRITER_FILTER,
    SESSION_OP_SET_BACKUP_STATE,
    SESSION_OP_GATHER_METADATA,
    SESSION_OP_ADD_COMPONENT,
    SESSION_OP_SET_OPTIONS,      /* SetBackupOptions, SetPreviousBackupStamp */
    SESSION_OP_SET_SUCCEEDED,
    SESSION_OP_START_SNAPSHOT_SET,
    SESSION_OP_ADD_TO_SNAPSHOT_SET,
    SESSION_OP_PREPARE,
    SESSION_OP_SNAPSHOT,
    SESSION_OP_COPY,
    SESSION_OP_COMPLETE,
    SESSION_OP_GATHER_STATUS,
    SESSION_OP_SAVE_DOCUMENT,
    SESSION_OP_ABORT,
    /* Restore sessions only */
    SESSION_OP_SET_RESTORE_STATE,
    SESSION_OP_SELECT,              /* SetSelectedForRestore, SetSelectedForRestoreEx, AddRestoreSubcomponent */
    SESSION_OP_SET_RESTORE_OPTIONS, /* and SetAdditionalRestores, the three of Ex2 */
    SESSION_OP_ADD_NEW_TARGET,
    SESSION_OP_SET_RANGES_FILE,
    SESSION_OP_PRE_RESTORE,
    SESSION_OP_RESTORE_FILES,
    SESSION_OP_SET_FILE_STATUS,     /* SetFileRestoreStatus, AddAlternativeLocationMapping */
    SESSION_OP_POST_RESTORE,
    SESSION_OP_COUNT
};

/* What the matrix needs to know beside the state. */
struct session_facts {
    enum session_kind kind;
    enum session_state state;
    bool writers_involved;     /* the context has writers */
    bool gathered;             /* GatherWriterMetadata has finished */
    bool context_set;          /* SetContext has been called */
    bool backup_state_set;     /* SetBackupState has been called */
    bool snapshot_needed;      /* a component or a volume needs a snapshot */
    const char *pending_job;   /* id of the job in hand, or NULL */
};

enum session_verdict {
    VERDICT_ALLOWED,
    VERDICT_IGNORED,     /* answers success, changes nothing */
    VERDICT_BAD_STATE,
    VERDICT_IN_PROGRESS, /* VSS_E_SNAPSHOT_SET_IN_PROGRESS */
};

/* The matrix's word; with VERDICT_BAD_STATE or VERDICT_IN_PROGRESS err says which call, which state, and what would be in sequence. */
enum session_verdict session_judge(enum session_operation operation, const struct session_facts *facts, struct err *err);

const char *session_state_name(enum session_state state);                    /* "set_open" */
bool session_state_by_name(const char *name, enum session_state *ret_state);
const char *session_operation_name(enum session_operation operation);        /* "PrepareForBackup" */

/* Contexts (vss-model 5.1). */
struct session_context {
    const char *name;   /* "backup" */
    bool persistent;
    bool auto_release;
    bool writers;
    bool creates;       /* "all" is for administration only */
    bool client_accessible; /* made to be looked into by users, not to be backed up */
};
const struct session_context *session_context_by_name(const char *name);
