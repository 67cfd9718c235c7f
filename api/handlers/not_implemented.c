/* Calls of VSS without a counterpart here: E_NOTIMPL with the reason. They say so before anything is looked up, so that
 * the answer tells nothing of a session or a set. */
#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "base/cleanup.h"
#include "base/str.h"

#define NO_ARRAY "no provider here makes snapshots in a storage array, and none has LUNs to "

static const struct {
    const char *operation_id;
    const char *call, *reason, *hint;
} calls[] = {
    {"sessionImport", "ImportSnapshots", NO_ARRAY "import",
     "Restore the backup on the other machine from its repository."},
    {"sessionRecoverySet", "AddSnapshotToRecoverySet", NO_ARRAY "resynchronize", "Restore the backup."},
    {"sessionRecover", "RecoverSet", NO_ARRAY "resynchronize", "Restore the backup."},
    {"sessionPreFastRecovery", "PreFastRecovery", "VSS itself reserves this call and does not support it", NULL},
    {"sessionFastRecovery", "FastRecovery", "VSS itself reserves this call and does not support it", NULL},
    {"snapshotSetBreak", "BreakSnapshotSet", NO_ARRAY "break off",
     "A snapshot of a persistent context lives on by itself."},
};

static void not_implemented(struct exchange *exchange)
{
    struct err err = {0};

    for (size_t i = 0; i < ELEMENTS(calls); i++)
        if (str_eq(calls[i].operation_id, exchange->match.route->operation_id))
            err_set(&err, E_NOTIMPL, calls[i].hint, "%s: %s", calls[i].call, calls[i].reason);
    const struct engine_answer refused = {.err = &err};
    reply_engine(exchange, &refused, NULL);
}

static const struct handler rows[] = {
    {"sessionImport", .own = not_implemented},        {"sessionRecoverySet", .own = not_implemented},
    {"sessionRecover", .own = not_implemented},       {"sessionPreFastRecovery", .own = not_implemented},
    {"sessionFastRecovery", .own = not_implemented},  {"snapshotSetBreak", .own = not_implemented},
};
const struct handler_table handlers_not_implemented = {rows, ELEMENTS(rows)};
