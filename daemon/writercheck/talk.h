#pragma once
/* One conversation with a writer process. Unlike the worker, which breaks off at the first fault, it notes the fault
 * under its rule and goes on as far as it can, so that one fault is reported as one. */
#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "worker/lines.h"
#include "writercheck/rules.h"

enum said { SAID_NOTHING, SAID_OK, SAID_FAILED };
/* The documented order of a backup (docs/writers/exec.md). */
enum phase {
    PHASE_IDENTIFY,
    PHASE_PREPARE_BACKUP,
    PHASE_PREPARE_SNAPSHOT,
    PHASE_FREEZE,
    PHASE_THAW,
    PHASE_POST_SNAPSHOT,
    PHASE_BACKUP_COMPLETE,
    PHASE_BACKUP_SHUTDOWN,
    PHASE_COUNT
};

struct talk {
    struct check *check;
    pid_t pid; /* 0 = it is gone */
    int pidfd, in_fd, out_fd;
    struct lines out;
    json_int_t next_id;
    json_t *answer;       /* the last one, or NULL */
    enum rule death_rule; /* what an unexpected end tells against */
    const char *backup_type;
    bool component_mode, unknown_members;
    bool abused; /* it may answer what it likes until the next answer with the right id */
    bool killed; /* it did not end by itself: what it left says nothing */
};

/* Starts the writer. false: it cannot be started (told under RULE_STARTS, and the check is over). */
bool talk_open(struct talk *talk, struct check *check);
/* Sends event and waits for its answer. extra: members that replace or join the usual ones; taken, may be NULL. */
enum said talk_ask(struct talk *talk, const char *event, json_t *extra);
/* Sends bytes that are no request; any one answer, or an orderly end, or silence is fine. false: it crashed. */
bool talk_abuse(struct talk *talk, const char *bytes, size_t length);
/* The first n events of the documented order; false when one of them did not succeed. */
bool talk_reach(struct talk *talk, int n_phases);
const char *phase_name(enum phase phase);
/* End of file: it must exit and leave no process. Closes everything. */
void talk_close(struct talk *talk);
/* Waits for its exit up to the limit, else kills it. false: it had to be killed. ret_status as of waitpid. */
bool talk_await_exit(struct talk *talk, int *ret_status);

/* Is the application free to write? Only with a probe (check->probe). A probe that cannot run ends the program. */
bool application_is_free(const struct check *check);
