// Which call of a session belongs where: the state matrix of daemon/model/session_model.c, held against it by a unit test.
// It decides what is offered; the daemon decides what happens.
import type { Session, SessionState } from "../api/types";

export const STATES: SessionState[] = [
  "initialized", "identified", "set_open", "prepared", "snapshotted", "snapshot_failed", "pre_restored", "completed", "aborted",
];

export interface Verb {
  /** Name of the VSS call, as in the matrix. */
  name: string;
  /** = allowed; i accepted without effect; . out of sequence; n, g, z, p as in session_model.c; one letter per state. */
  backup: string;
  restore: string;
  writersOnly?: boolean;
  whilePending?: boolean;
  /** Where the call belongs. */
  belongs: string;
}

export const VERBS = {
  context: { name: "SetContext", backup: "=........", restore: ".........", belongs: "Set the context once, right after the session was created." },
  writerFilter: { name: "EnableWriterClasses", backup: "=iiiiiiii", restore: "=iiiiiiii", belongs: "Filter writers before GatherWriterMetadata." },
  backupState: { name: "SetBackupState", backup: "===......", restore: ".........", belongs: "Set the backup state before PrepareForBackup." },
  metadata: { name: "GatherWriterMetadata", backup: "=.g......", restore: "=........", belongs: "Writer metadata is gathered once, before the snapshot set is prepared; create a new session to gather again." },
  addComponent: { name: "AddComponent", backup: ".==......", restore: ".........", writersOnly: true, belongs: "Add components after GatherWriterMetadata and before PrepareForBackup." },
  options: { name: "SetBackupOptions", backup: ".==......", restore: ".........", writersOnly: true, belongs: "Set options and stamps after AddComponent and before PrepareForBackup." },
  succeeded: { name: "SetBackupSucceeded", backup: "...z=....", restore: ".........", writersOnly: true, belongs: "Report success after the copy and before BackupComplete." },
  startSet: { name: "StartSnapshotSet", backup: "n=pp.....", restore: ".........", belongs: "Start the snapshot set after GatherWriterMetadata; a session has one set." },
  addVolume: { name: "AddToSnapshotSet", backup: "..=......", restore: ".........", belongs: "Add volumes between StartSnapshotSet and PrepareForBackup." },
  prepare: { name: "PrepareForBackup", backup: "..=......", restore: ".........", writersOnly: true, belongs: "Prepare after SetBackupState and StartSnapshotSet, once." },
  snapshot: { name: "DoSnapshotSet", backup: "..n=.....", restore: ".........", belongs: "Take the snapshot after PrepareForBackup, once." },
  copy: { name: "Copy", backup: "....=....", restore: ".........", belongs: "Copy after DoSnapshotSet and before BackupComplete." },
  complete: { name: "BackupComplete", backup: "...z=....", restore: ".........", writersOnly: true, belongs: "Call BackupComplete once, after a successful DoSnapshotSet, in a backup session." },
  restoreState: { name: "SetRestoreState", backup: ".........", restore: "==.......", belongs: "Set the restore state in a restore session, before PreRestore." },
  select: { name: "SetSelectedForRestore", backup: ".........", restore: ".=.......", belongs: "Select components in a restore session, after GatherWriterMetadata and before PreRestore." },
  restoreOptions: { name: "SetRestoreOptions", backup: ".........", restore: "==.......", belongs: "Say how to restore in a restore session, before PreRestore." },
  ranges: { name: "SetRangesFilePath", backup: ".........", restore: "==....=..", belongs: "Name the ranges file in a restore session, before PostRestore." },
  preRestore: { name: "PreRestore", backup: ".........", restore: ".=.......", belongs: "Call PreRestore once, in a restore session, after GatherWriterMetadata and the selection." },
  restoreFiles: { name: "RestoreFiles", backup: ".........", restore: "......=..", belongs: "Restore files between PreRestore and PostRestore." },
  fileStatus: { name: "SetFileRestoreStatus", backup: ".........", restore: "......=..", belongs: "Tell what became of the files between PreRestore and PostRestore." },
  postRestore: { name: "PostRestore", backup: ".........", restore: "......=..", belongs: "Call PostRestore once, in a restore session, after PreRestore." },
  status: { name: "GatherWriterStatus", backup: ".========", restore: ".========", belongs: "Gather the status after GatherWriterMetadata." },
  abort: { name: "AbortBackup", backup: "=======ii", restore: "iiiiiiiii", whilePending: true, belongs: "" },
} satisfies Record<string, Verb>;

export type VerbName = keyof typeof VERBS;

const WITH_WRITERS = new Set(["backup", "app_rollback", "client_accessible_writers"]);

export interface Facts {
  session: Session;
  /** GatherWriterMetadata has finished. */
  gathered: boolean;
  /** A component or a volume needs a snapshot. */
  snapshotNeeded: boolean;
}

/** Why a call is not possible now, or null where it is. The texts are English keys of the translation. */
export function whyNot(verb: VerbName, { session, gathered, snapshotNeeded }: Facts): string | null {
  const row: Verb = VERBS[verb];
  const writers = WITH_WRITERS.has(session.context);
  const letter = (session.kind === "restore" ? row.restore : row.backup)[STATES.indexOf(session.state)];
  if (session.pending_job && !row.whilePending) return "A job of this session is pending: wait for it, or cancel it.";
  if (letter === "i" && verb !== "abort") return row.belongs; // accepted, and without effect
  if (letter === "i") return session.state === "aborted" ? "The session is aborted already." : "The session has ended.";
  if (letter === "p") return "This session's snapshot set is in creation.";
  if (letter === "n" && writers) return row.belongs;
  if (letter === "g" && gathered) return row.belongs;
  if (letter === "z" && snapshotNeeded) return row.belongs;
  if (letter === "." || letter === undefined) return row.belongs;
  if (row.writersOnly && !writers) return "This context works without writers: snapshot, copy, then release the session.";
  if (verb === "context" && session.context !== "backup") return "The context was chosen already.";
  if (verb === "prepare" && !session.backup_state) return "Set the backup state first.";
  if (verb === "status" && !gathered) return row.belongs;
  return null;
}
