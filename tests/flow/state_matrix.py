"""The state matrices as data: every call in every state, transcribed from the VSS documentation's own words (IVssBackupComponents, its
overviews, and where those are silent docs/vss.md). Not from daemon/model: these tables are what that one is held against.

A cell is
    ->STATE  it succeeds (a job: it ends succeeded), and the session is then in STATE
    =        it succeeds, and the session's state stays
    ignored  it answers success and changes nothing at all
    bad      VSS_E_BAD_STATE, and nothing changes
    busy     VSS_E_SNAPSHOT_SET_IN_PROGRESS, and nothing changes
    absent   VSS_E_OBJECT_NOT_FOUND, and nothing changes
    unsupported  VSS_E_UNSUPPORTED_CONTEXT, and nothing changes
    gone     it succeeds, and the session is no longer there
"""

# A set is open, or taken, in a context with writers: the session has been gathered, has one component and one volume.
BACKUP_STATES = ("initialized", "identified", "set_open", "prepared", "snapshotted", "snapshot_failed", "completed", "aborted")
BACKUP = {
    #                           initialized    identified   set_open        prepared        snapshotted     snapshot_failed completed     aborted
    "SetContext":              ("=",           "bad",       "bad",          "bad",          "bad",          "bad",          "bad",        "bad"),
    "EnableWriterClasses":     ("=",           "ignored",   "ignored",      "ignored",      "ignored",      "ignored",      "ignored",    "ignored"),
    "DisableWriterClasses":    ("=",           "ignored",   "ignored",      "ignored",      "ignored",      "ignored",      "ignored",    "ignored"),
    "DisableWriterInstances":  ("=",           "ignored",   "ignored",      "ignored",      "ignored",      "ignored",      "ignored",    "ignored"),
    "SetBackupState":          ("=",           "=",         "=",            "bad",          "bad",          "bad",          "bad",        "bad"),
    "GatherWriterMetadata":    ("->identified", "bad",      "bad",          "bad",          "bad",          "bad",          "bad",        "bad"),
    "GetWriterMetadata":       ("bad",         "=",         "=",            "=",            "=",            "=",            "=",          "="),
    "AddComponent":            ("bad",         "=",         "=",            "bad",          "bad",          "bad",          "bad",        "bad"),
    "GetWriterComponents":     ("=",           "=",         "=",            "=",            "=",            "=",            "=",          "="),
    "SetBackupOptions":        ("absent",      "=",         "=",            "bad",          "bad",          "bad",          "bad",        "bad"),
    "SetPreviousBackupStamp":  ("absent",      "=",         "=",            "bad",          "bad",          "bad",          "bad",        "bad"),
    "SetBackupSucceeded":      ("absent",      "bad",       "bad",          "bad",          "=",            "bad",          "bad",        "bad"),
    "StartSnapshotSet":        ("bad",         "->set_open", "busy",        "busy",         "bad",          "bad",          "bad",        "bad"),
    "AddToSnapshotSet":        ("bad",         "bad",       "=",            "bad",          "bad",          "bad",          "bad",        "bad"),
    "PrepareForBackup":        ("bad",         "bad",       "->prepared",   "bad",          "bad",          "bad",          "bad",        "bad"),
    "DoSnapshotSet":           ("bad",         "bad",       "bad",          "->snapshotted", "bad",         "bad",          "bad",        "bad"),
    "GetSnapshotProperties":   ("absent",      "absent",    "absent",       "absent",       "=",            "absent",       "=",          "absent"),
    "DeleteSnapshots":         ("absent", "absent", "absent", "absent", "=", "absent", "=", "absent"),
    "ExposeSnapshot":          ("absent", "absent", "absent", "absent", "unsupported", "absent", "unsupported", "absent"),
    "UnexposeSnapshot":        ("absent", "absent", "absent", "absent", "absent", "absent", "absent", "absent"),
    "RevertToSnapshot":        ("absent", "absent", "absent", "absent", "unsupported", "absent", "unsupported", "absent"),
    "QueryRevertStatus":       ("absent", "absent", "absent", "absent", "absent", "absent", "absent", "absent"),
    "Copy":                    ("bad",         "bad",       "bad",          "bad",          "=",            "bad",          "bad",        "bad"),
    "BackupComplete":          ("bad",         "bad",       "bad",          "bad",          "->completed",  "bad",          "bad",        "bad"),
    "GatherWriterStatus":      ("bad",         "=",         "=",            "=",            "=",            "=",            "=",          "bad"),
    "SaveAsXML":               ("bad",         "bad",       "bad",          "=",            "=",            "=",            "=",          "="),
    "AbortBackup":             ("->aborted",   "->aborted", "->aborted",    "->aborted",    "->aborted",    "->aborted",    "ignored",    "ignored"),
    "Release":                 ("gone",        "gone",      "gone",         "gone",         "gone",         "gone",         "gone",       "gone"),
}

# Context file_share_backup, chosen with POST /sessions: nobody is told anything, gathering is optional. `set_open` has gathered nothing.
NO_WRITERS_STATES = ("initialized", "identified", "set_open", "snapshotted", "snapshot_failed", "aborted")
NO_WRITERS = {
    #                           initialized    identified    set_open        snapshotted     snapshot_failed aborted
    "SetContext":              ("bad",         "bad",        "bad",          "bad",          "bad",          "bad"),
    "EnableWriterClasses":     ("=",           "ignored",    "ignored",      "ignored",      "ignored",      "ignored"),
    "SetBackupState":          ("=",           "=",          "=",            "bad",          "bad",          "bad"),
    "GatherWriterMetadata":    ("->identified", "bad",       "=",            "bad",          "bad",          "bad"),
    "AddComponent":            ("bad",         "bad",        "bad",          "bad",          "bad",          "bad"),
    "SetBackupOptions":        ("absent",      "absent",     "absent",       "absent",       "absent",       "absent"),
    "SetPreviousBackupStamp":  ("absent",      "absent",     "absent",       "absent",       "absent",       "absent"),
    "SetBackupSucceeded":      ("absent",      "absent",     "absent",       "absent",       "absent",       "absent"),
    "StartSnapshotSet":        ("->set_open",  "->set_open", "busy",         "bad",          "bad",          "bad"),
    "AddToSnapshotSet":        ("bad",         "bad",        "=",            "bad",          "bad",          "bad"),
    "PrepareForBackup":        ("bad",         "bad",        "bad",          "bad",          "bad",          "bad"),
    "DoSnapshotSet":           ("bad",         "bad",        "->snapshotted", "bad",         "bad",          "bad"),
    "GetSnapshotProperties":   ("absent",      "absent",     "absent",       "=",            "absent",       "absent"),
    "DeleteSnapshots":         ("absent", "absent", "absent", "=", "absent", "absent"),
    "ExposeSnapshot":          ("absent", "absent", "absent", "unsupported", "absent", "absent"),
    "UnexposeSnapshot":        ("absent", "absent", "absent", "absent", "absent", "absent"),
    "RevertToSnapshot":        ("absent", "absent", "absent", "unsupported", "absent", "absent"),
    "QueryRevertStatus":       ("absent", "absent", "absent", "absent", "absent", "absent"),
    "Copy":                    ("bad",         "bad",        "bad",          "=",            "bad",          "bad"),
    "BackupComplete":          ("bad",         "bad",        "bad",          "bad",          "bad",          "bad"),
    "GatherWriterStatus":      ("bad",         "=",          "bad",          "bad",          "bad",          "bad"),
    "SaveAsXML":               ("bad",         "bad",        "bad",          "=",            "=",            "="),
    "AbortBackup":             ("->aborted",   "->aborted",  "->aborted",    "->aborted",    "->aborted",    "ignored"),
    "Release":                 ("gone",        "gone",       "gone",         "gone",         "gone",         "gone"),
}

# While a job of the session is pending: reads, AbortBackup and Release go on; every other call is out of sequence. The columns are the
# job in hand; where the document, a writer or a snapshot cannot be there yet, reading it is refused as without the job.
PENDING_JOBS = ("metadata", "prepare", "snapshot", "copy", "complete", "status")
PENDING = {
    #                           metadata       prepare        snapshot       copy           complete       status
    "SetContext":              ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "EnableWriterClasses":     ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "SetBackupState":          ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "GatherWriterMetadata":    ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "GetWriterMetadata":       ("bad",         "=",           "=",           "=",           "=",           "="),
    "AddComponent":            ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "GetWriterComponents":     ("=",           "=",           "=",           "=",           "=",           "="),
    "SetBackupOptions":        ("absent",      "bad",         "bad",         "bad",         "bad",         "bad"),
    "SetPreviousBackupStamp":  ("absent",      "bad",         "bad",         "bad",         "bad",         "bad"),
    "SetBackupSucceeded":      ("absent",      "bad",         "bad",         "bad",         "bad",         "bad"),
    "StartSnapshotSet":        ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "AddToSnapshotSet":        ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "PrepareForBackup":        ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "DoSnapshotSet":           ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "GetSnapshotProperties":   ("absent",      "absent",      "absent",      "=",           "=",           "="),
    "DeleteSnapshots":         ("absent", "absent", "absent", "bad", "bad", "bad"),
    "ExposeSnapshot":          ("absent", "absent", "absent", "unsupported", "unsupported", "unsupported"),
    "UnexposeSnapshot":        ("absent", "absent", "absent", "absent", "absent", "absent"),
    "RevertToSnapshot":        ("absent", "absent", "absent", "unsupported", "unsupported", "unsupported"),
    "QueryRevertStatus":       ("absent", "absent", "absent", "absent", "absent", "absent"),
    "Copy":                    ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "BackupComplete":          ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "GatherWriterStatus":      ("bad",         "bad",         "bad",         "bad",         "bad",         "bad"),
    "SaveAsXML":               ("bad",         "bad",         "=",           "=",           "=",           "="),
    "AbortBackup":             ("->aborted",   "->aborted",   "->aborted",   "->aborted",   "->aborted",   "->aborted"),
}

# A restore session, of a document that it brought along, with the component `main` selected from identified on. Cancelling PreRestore is the
# way to aborted: there is no Abort in a restore.
RESTORE_STATES = ("initialized", "identified", "pre_restored", "completed", "aborted")
RESTORE = {
    #                           initialized    identified    pre_restored    completed       aborted
    "SetContext":              ("bad",         "bad",        "bad",          "bad",          "bad"),
    "EnableWriterClasses":     ("=",           "ignored",    "ignored",      "ignored",      "ignored"),
    "DisableWriterClasses":    ("=",           "ignored",    "ignored",      "ignored",      "ignored"),
    "DisableWriterInstances":  ("=",           "ignored",    "ignored",      "ignored",      "ignored"),
    "SetBackupState":          ("bad",         "bad",        "bad",          "bad",          "bad"),
    "SetRestoreState":         ("=",           "=",          "bad",          "bad",          "bad"),
    "GatherWriterMetadata":    ("->identified", "bad",       "bad",          "bad",          "bad"),
    "GetWriterMetadata":       ("bad",         "=",          "=",            "=",            "="),
    "AddComponent":            ("bad",         "bad",        "bad",          "bad",          "bad"),
    "GetWriterComponents":     ("=",           "=",          "=",            "=",            "="),
    "SetBackupOptions":        ("bad",         "bad",        "bad",          "bad",          "bad"),
    "SetPreviousBackupStamp":  ("bad",         "bad",        "bad",          "bad",          "bad"),
    "SetBackupSucceeded":      ("bad",         "bad",        "bad",          "bad",          "bad"),
    "SetSelectedForRestore":   ("bad",         "=",          "bad",          "bad",          "bad"),
    "SetSelectedForRestoreEx": ("bad",         "=",          "bad",          "bad",          "bad"),
    "AddRestoreSubcomponent":  ("bad",         "=",          "bad",          "bad",          "bad"),
    "SetRestoreOptions":       ("=",           "=",          "bad",          "bad",          "bad"),
    "SetAdditionalRestores":   ("=",           "=",          "bad",          "bad",          "bad"),
    "AddNewTarget":            ("=",           "=",          "bad",          "bad",          "bad"),
    "SetAuthoritativeRestore": ("=",           "=",          "bad",          "bad",          "bad"),
    "SetRollForward":          ("=",           "=",          "bad",          "bad",          "bad"),
    "SetRestoreName":          ("=",           "=",          "bad",          "bad",          "bad"),
    "SetRangesFilePath":       ("=",           "=",          "=",            "bad",          "bad"),
    "PreRestore":              ("bad",         "->pre_restored", "bad",      "bad",          "bad"),
    "RestoreFiles":            ("bad",         "bad",        "=",            "bad",          "bad"),
    "SetFileRestoreStatus":    ("bad",         "bad",        "=",            "bad",          "bad"),
    "AddAlternativeLocationMapping": ("bad",   "bad",        "=",            "bad",          "bad"),
    "PostRestore":             ("bad",         "bad",        "->completed",  "bad",          "bad"),
    "StartSnapshotSet":        ("bad",         "bad",        "bad",          "bad",          "bad"),
    "AddToSnapshotSet":        ("bad",         "bad",        "bad",          "bad",          "bad"),
    "PrepareForBackup":        ("bad",         "bad",        "bad",          "bad",          "bad"),
    "DoSnapshotSet":           ("bad",         "bad",        "bad",          "bad",          "bad"),
    "GetSnapshotProperties":   ("absent",      "absent",     "absent",       "absent",       "absent"),
    "Copy":                    ("bad",         "bad",        "bad",          "bad",          "bad"),
    "BackupComplete":          ("bad",         "bad",        "bad",          "bad",          "bad"),
    "GatherWriterStatus":      ("bad",         "=",          "=",            "=",            "bad"),
    "SaveAsXML":               ("=",           "=",          "=",            "=",            "="),
    "AbortBackup":             ("ignored",     "ignored",    "ignored",      "ignored",      "ignored"),
    "Release":                 ("gone",        "gone",       "gone",         "gone",         "gone"),
}

# The calls that only a restore has: out of sequence in every state of a backup.
RESTORE_ONLY = ("SetRestoreState", "SetSelectedForRestore", "SetSelectedForRestoreEx", "AddRestoreSubcomponent", "SetRestoreOptions",
                "SetAdditionalRestores", "AddNewTarget", "SetAuthoritativeRestore", "SetRollForward", "SetRestoreName", "SetRangesFilePath",
                "PreRestore", "RestoreFiles", "SetFileRestoreStatus", "AddAlternativeLocationMapping", "PostRestore")

# While a job of a restore session is pending: reads and Release go on, AbortBackup is ignored, every other call is out of sequence.
RESTORE_PENDING_JOBS = ("metadata", "pre-restore", "restore-files", "post-restore", "status")
RESTORE_PENDING = {call: {"GetWriterComponents": "=", "SaveAsXML": "=", "GetSnapshotProperties": "absent", "AbortBackup": "ignored"}.get(call, "bad")
                   for call in RESTORE if call not in ("GetWriterMetadata", "Release")}

MATRICES = {"backup": (BACKUP_STATES, BACKUP), "no_writers": (NO_WRITERS_STATES, NO_WRITERS), "restore": (RESTORE_STATES, RESTORE)}
UNCHANGED = ("ignored", "bad", "busy", "absent", "unsupported")
READS = ("GetWriterMetadata", "GetWriterComponents", "GetSnapshotProperties", "QueryRevertStatus", "SaveAsXML")


def changes(operation, cell):
    return cell not in UNCHANGED and operation not in READS


def cells(states, rows):
    """(state, operation, cell), state by state, those that change nothing first: they share a session."""
    found = [(states.index(state), changes(operation, cell), state, operation, cell)
             for operation, row in rows.items() for state, cell in zip(states, row, strict=True)]
    return [rest[2:] for rest in sorted(found, key=lambda cell: cell[:2])]
