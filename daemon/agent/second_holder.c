#include "agent/second_holder.h"

#include <errno.h>
#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guardian/take_over.h"

/* The lowest descriptor from `from` on that this duty needs; INT_MAX when there is none. */
static int next_kept(const struct second_holder *holder, int from)
{
    int next = INT_MAX;
    for (size_t i = 0; i < holder->n + 2; i++) {
        int fd = i < holder->n ? holder->fds[i] : i == holder->n ? holder->guardian_pidfd : holder->record_fd;
        next = fd >= from && fd < next ? fd : next;
    }
    return next;
}

/* The agent's own death must show as end-of-file to workers and guardians, however long this child has to wait. */
static void close_others(const struct second_holder *holder)
{
    for (int from = 3; from < INT_MAX;) {
        int next = next_kept(holder, from);
        if (next > from)
            syscall(SYS_close_range, (unsigned)from, (unsigned)next - 1, 0U);
        from = next == INT_MAX ? INT_MAX : next + 1;
    }
}

__attribute__((noreturn)) static void thaw_and_exit(const struct second_holder *holder)
{
    struct freeze_record record;
    enum thaw_result results[FREEZE_SET_MAX];
    close_others(holder);
    record_adopt(holder->record_fd, holder->record_path, holder->n, &record);
    take_over(&record, holder->fds, holder->guardian_pidfd, results);
    _exit(record_any_frozen(&record));
}

int second_holder_start(const struct second_holder *holder, pid_t *ret_pid, struct err *err)
{
    pid_t pid = fork();
    if (pid == 0)
        thaw_and_exit(holder);
    if (pid < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "cannot fork");
    *ret_pid = pid;
    return 0;
}
