#pragma once
/* Every named fault point, in the order in which a backup meets them. `quiesced --list-faults` prints this table (builds
 * with QUIESCED_FAULTS), tests walk it, and a point that is not in it ends the process that meets it: the list is whole.
 * ROLE points exist per role: the name is composed by fault_role. */
#define FAULT_WRITER_EVENT(POINT, event)                                                                               \
    POINT("writer." event ".before", "the writer dies when it is about to be told " event)                             \
    POINT("writer." event ".after", "the writer dies when it has answered " event)

#define FAULT_POINTS(POINT)                                                                                            \
    POINT("core.ipc.send", "core cannot send to serve or agent or worker")                                             \
    POINT("core.ipc.receive", "core cannot read from serve or agent or worker")                                        \
    POINT("front.ipc.send", "front cannot send to serve")                                                              \
    POINT("front.ipc.receive", "front cannot read from serve")                                                         \
    POINT("agent.ipc.send", "the agent cannot send to serve or core or worker")                                        \
    POINT("agent.ipc.receive", "the agent cannot read from serve or core")                                             \
    POINT("worker.ipc.send", "a worker cannot send to core")                                                           \
    POINT("worker.ipc.receive", "a worker cannot read from core or agent")                                             \
    POINT("serve.ipc.send", "serve cannot send to a role")                                                             \
    POINT("serve.ipc.receive", "serve cannot read from a role")                                                        \
    POINT("serve.spawn", "serve cannot start a role")                                                                  \
    POINT("agent.spawn", "the agent cannot start a worker")                                                            \
    POINT("worker.spawn", "a worker cannot start a writer or mover")                                                   \
    POINT("mover.spawn", "a mover cannot start its program")                                                           \
    POINT("store.open", "the store cannot be opened")                                                                  \
    POINT("engine.audit", "an audited call is done, and its outcome not written")                                      \
    POINT("store.audit", "a record cannot be appended to the audit trail")                                             \
    POINT("signer.seal", "the signer is about to seal the audit trail, and has remembered nothing")                     \
    POINT("signer.sealed", "the signer has remembered a seal that nobody has heard of")                                \
    POINT("store.commit", "the store cannot commit")                                                                   \
    POINT("store.read", "the store cannot be read")                                                                    \
    POINT("engine.webhook.settle", "the receiver has answered, the store does not know it yet")                        \
    POINT("courier.send", "the courier has a delivery in hand and has sent nothing")                                   \
    POINT("courier.delivered", "the receiver has answered, core does not know it yet")                                 \
    POINT("engine.jobs.full", "the table of jobs is full")                                                             \
    POINT("engine.recover", "recovery is about to write what it found")                                                \
    POINT("engine.idempotency", "a call with an Idempotency-Key is durable, its caller has not been answered")           \
    POINT("engine.phase", "POST /backups is about to begin its next phase")                                            \
    POINT("engine.finish", "a job's end is about to be decided")                                                       \
    POINT("agent.launch", "the agent is about to launch a worker")                                                     \
    POINT("worker.inventory", "operation")                                                                             \
    POINT("worker.resolve", "operation")                                                                               \
    POINT("worker.covered", "operation")                                                                               \
    POINT("worker.root", "operation")                                                                                  \
    POINT("worker.plan", "operation")                                                                                  \
    POINT("worker.metadata", "operation")                                                                              \
    FAULT_WRITER_EVENT(POINT, "identify")                                                                              \
    POINT("worker.prepare", "operation")                                                                               \
    FAULT_WRITER_EVENT(POINT, "prepare_backup")                                                                        \
    POINT("provider.plan", "the provider cannot say what a snapshot would take")                                       \
    POINT("worker.snapshot", "operation")                                                                              \
    FAULT_WRITER_EVENT(POINT, "prepare_snapshot")                                                                      \
    POINT("provider.prepare", "the provider's work before the window fails")                                           \
    POINT("agent.guard", "the agent is about to start a guardian")                                                      \
    POINT("guardian.ready", "the guardian has its record, and is about to say so")                                     \
    POINT("guardian.ipc.send", "a guardian cannot send to agent or worker")                                            \
    POINT("guardian.ipc.receive", "a guardian cannot read from agent or worker")                                       \
    POINT("worker.snapshot.guard", "the guardian holds, nothing is frozen")                                            \
    POINT("worker.snapshot.freeze", "the first Freeze is about to be sent")                                            \
    FAULT_WRITER_EVENT(POINT, "freeze")                                                                                \
    POINT("guardian.mark", "the record cannot say that a file system is ours to thaw")                                 \
    POINT("guardian.freeze", "the guardian is about to freeze a file system")                                          \
    POINT("guardian.frozen", "everything is frozen, the worker does not know it yet")                                  \
    POINT("worker.snapshot.create", "every writer is frozen, no snapshot exists")                                      \
    POINT("provider.create", "the provider refuses")                                                                   \
    POINT("provider.btrfs.create", "behind the set's first snapshot")                                                  \
    POINT("provider.reflink.create", "behind the set's first snapshot")                                                \
    POINT("provider.copy.create", "behind the set's first snapshot")                                                   \
    POINT("worker.snapshot.thaw", "the snapshots exist, every writer is frozen")                                       \
    POINT("guardian.thaw", "the guardian is about to thaw")                                                            \
    POINT("freeze.thaw", "FITHAW fails: in a guardian, the agent, thaw-all")                                            \
    POINT("worker.snapshot.stuck", "the guardian has not thawed, and the worker does not wait for the agent's word")   \
    FAULT_WRITER_EVENT(POINT, "thaw")                                                                                  \
    POINT("worker.snapshot.post", "everything is thawed, PostSnapshot is about to be sent")                            \
    FAULT_WRITER_EVENT(POINT, "post_snapshot")                                                                         \
    POINT("worker.copy", "operation")                                                                                  \
    POINT("mover.start", "the mover child has its request and has done nothing")                                       \
    POINT("mover.archive.write", "the repository takes no more bytes")                                                 \
    POINT("mover.archive.rename", "the backup's data is durable and has no name yet")                                  \
    POINT("mover.progress", "the mover child is about to tell progress")                                               \
    POINT("mover.end", "the mover child's data is whole, nobody knows it yet")                                         \
    POINT("worker.copy.done", "the mover has ended well, core does not know it yet")                                   \
    POINT("worker.copy.late", "a cancel can no longer reach the copy, core does not know that it has ended")           \
    POINT("worker.complete", "operation")                                                                              \
    FAULT_WRITER_EVENT(POINT, "backup_complete")                                                                       \
    POINT("worker.complete.done", "every writer has been told, core does not know it yet")                             \
    POINT("worker.seal", "operation")                                                                                  \
    POINT("mover.archive.seal", "the seal cannot be written")                                                          \
    POINT("engine.sealed", "the repositories know the outcome of BackupComplete, the store does not")                  \
    POINT("worker.status", "operation")                                                                                \
    POINT("worker.abort", "operation")                                                                                 \
    FAULT_WRITER_EVENT(POINT, "abort")                                                                                 \
    POINT("worker.release", "operation")                                                                               \
    POINT("provider.remove", "the provider cannot remove a snapshot")                                                  \
    FAULT_WRITER_EVENT(POINT, "backup_shutdown")                                                                       \
    POINT("worker.pre_restore", "operation")                                                                           \
    FAULT_WRITER_EVENT(POINT, "pre_restore")                                                                           \
    POINT("worker.restore_files", "operation")                                                                         \
    POINT("worker.restore_files.next", "some of the files are at their places, others are not yet")                     \
    POINT("worker.post_restore", "operation")                                                                          \
    FAULT_WRITER_EVENT(POINT, "post_restore")                                                                          \
    POINT("worker.restore", "operation")                                                                               \
    POINT("mover.publish", "a restored file is at its place, others are not yet")                                       \
    POINT("worker.verify", "operation")                                                                                \
    POINT("worker.remove_backup", "operation")                                                                         \
    POINT("worker.open_repository", "operation")                                                                       \
    POINT("worker.scan", "operation")                                                                                  \
    POINT("worker.remove_snapshot", "operation")                                                                       \
    POINT("worker.expose", "operation")                                                                                \
    POINT("provider.expose", "the provider cannot mount a snapshot")                                                   \
    POINT("engine.exposed", "a snapshot is mounted, its record does not say so yet")                                   \
    POINT("worker.unexpose", "operation")                                                                              \
    POINT("provider.unexpose", "the provider cannot unmount a snapshot")                                               \
    POINT("worker.list_files", "operation")                                                                            \
    POINT("worker.list_backup_files", "operation")                                                                     \
    POINT("worker.mover.late", "the patience with a mover that somebody waits for is over")                            \
    POINT("worker.archive", "operation")                                                                               \
    POINT("mover.read_out", "the mover child has listed an entry of a snapshot, and not read it")                      \
    POINT("worker.revert_check", "operation")                                                                          \
    POINT("worker.revert", "operation")                                                                                \
    POINT("provider.btrfs.revert.copied", "the copy is beside the snapshot, the volume is as it was")                  \
    POINT("provider.btrfs.revert.exchanged", "the volume is the copy, the old one is beside the snapshot")             \
    POINT("worker.revert_outcome", "operation")                                                                        \
    POINT("worker.recover", "operation")                                                                               \
    POINT("worker.sweep", "operation")                                                                                 \
    POINT("provider.list", "the provider cannot list its snapshots")
