#pragma once
/* Role guardian: the first holder of one freeze set, a process of its own (docs/architecture.md, "A freeze"). It has an
 * fd on each file system, locks its memory, ignores signals, issues FIFREEZE itself, and thaws on word, when the worker
 * or the agent is gone, or at its deadline. The agent, which has the same fds, is the second holder.
 *
 * fd 3, the agent:
 *   <- {"type":"guard","records":DIR,"freeze_ms":N,"record":{...}} + one fd per record.file_systems
 *   -> {"type":"ready","path":RECORD,"weak":REASON?} + [fd of the record]  |  {"type":"failed","error":ERR}
 *   -> {"type":"freezing","deadline_us":N} before the first FIFREEZE; {"type":"thawed"} when nothing is frozen any more
 * fd 4, the worker:
 *   <- {"type":"freeze"}  -> {"type":"frozen","deadline_us":N}  |  {"type":"freeze_failed","error":ERR} (all thawed)
 *   <- {"type":"thaw"}    -> {"type":"thawed","held":[bool per file system],"expired":bool,
 *                             "spans":[[FROM_US,UNTIL_US] or null (it did not hold, or was lent), per file system]}
 *                             (CLOCK_MONOTONIC: FIFREEZE asked to FITHAW answered)
 *   -> {"type":"expired"} unasked, when the deadline has thawed
 * End of file on either: thaw, remove the record, exit. */

int guardian_main(void);
