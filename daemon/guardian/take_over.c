#include "guardian/take_over.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DYING_MS = 200 /* of the guardian, before the first pass: usually it is gone at once */ };

static bool guardian_gone(int pidfd, int timeout_ms)
{
    struct pollfd wait = {.fd = pidfd, .events = POLLIN};
    int r;
    do
        r = poll(&wait, 1, timeout_ms);
    while (r < 0 && errno == EINTR);
    return r != 0;
}

/* for_good: the guardian is dead, so what is thawed now stays thawed. */
static void pass(const struct freeze_record *record, const int *fds, bool for_good, enum thaw_result *ret)
{
    int ours[FREEZE_SET_MAX];
    enum thaw_result results[FREEZE_SET_MAX];
    for (size_t i = 0; i < record->n; i++)
        ours[i] = record_mark(record, i) == FREEZE_MARK_OURS ? fds[i] : -1;
    freeze_end_all(ours, record->n, results);
    for (size_t i = 0; i < record->n; i++) {
        if (ours[i] < 0)
            continue;
        if (ret[i] != THAW_DONE)
            ret[i] = results[i];
        if (for_good && results[i] != THAW_FAILED)
            record_set(record, i, FREEZE_MARK_THAWED);
    }
}

void take_over(struct freeze_record *record, const int *fds, int guardian_pidfd, enum thaw_result *ret)
{
    for (size_t i = 0; i < record->n; i++)
        ret[i] = THAW_NOT_FROZEN;
    if (guardian_pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, guardian_pidfd, SIGKILL, NULL, 0);
        if (!guardian_gone(guardian_pidfd, DYING_MS)) {
            pass(record, fds, false, ret); /* it hangs in FIFREEZE: what is frozen so far, now */
            guardian_gone(guardian_pidfd, -1);
        }
    }
    pass(record, fds, true, ret);
    if (!record_any_frozen(record))
        record_remove(record);
}
