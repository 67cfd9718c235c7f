// What cancelling a job undoes, in words: docs of the contract, section "cancel". Texts are keys of the translation.
import type { Job } from "../api/types";

const SESSION_ENDS = [
  "Whatever is frozen is thawed at once.",
  "Snapshots of this session that are not finished are removed.",
  "The session ends aborted; its writers are told. A new backup needs a new session.",
];

const WHAT: Record<string, string[]> = {
  Backup: [...SESSION_ENDS, "Data that was already copied stays in the catalog as an incomplete backup."],
  GatherWriterMetadata: ["Writers that were started are ended.", "The session stays as it was: the call may be repeated."],
  PrepareForBackup: SESSION_ENDS,
  DoSnapshotSet: SESSION_ENDS,
  BackupComplete: [
    "The session ends aborted. What writers have acknowledged already stands.",
    "The data that was copied stays in the catalog as an incomplete backup; restoring it has to accept that.",
  ],
  Copy: ["What was copied so far stays as an incomplete backup.", "The session stays snapshotted: it can be copied again."],
  Restore: ["Files that were not yet put in their place are removed.", "In the last phase, publish, some may stay; the result then lists them."],
  RestoreFiles: ["Files that were not yet put in their place are removed.", "In the last phase, publish, some may stay; the result then lists them."],
  PreRestore: ["The session ends aborted. Writers put back what they moved and start again."],
  PostRestore: ["The session ends aborted. Some applications may already have been started."],
  Verify: ["Nothing was changed, so nothing is undone."],
  Scan: ["What was found so far stays in the catalog; the scan can be repeated."],
  GatherWriterStatus: ["Nothing was changed, so nothing is undone."],
};

export const undoes = (job: Job): string[] => WHAT[job.operation] ?? ["What the job has begun is undone; the result lists what was thawed, removed and left."];
