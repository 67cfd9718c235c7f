#pragma once
/* What the undoing of a restore may take when nobody waits for it any more: a writer puts the old data back and starts its application, and
 * whoever ends what is late (worker, agent, serve) waits so long for it. Each waits longer than what it waits for. */
enum {
    RESTORE_UNDO_MS = 60000,         /* a writer's; the built-in ones keep to it */
    RESTORE_UNDO_WORKER_MS = 75000,  /* a worker's, with its writers' exit; and a writer's whose worker has died */
    RESTORE_UNDO_AGENT_MS = 90000,   /* the agent's, with its workers' */
};
