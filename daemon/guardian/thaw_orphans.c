#include "guardian/thaw_orphans.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "base/log.h"
#include "base/proc.h"
#include "guardian/record.h"
#include "guardian/thaw_all.h"

static void tell(void *arg, bool failed, const char *line)
{
    (void)arg;
    log_line(failed ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, NULL, "left frozen by an earlier run: %s", line);
}

/* The records of root's daemon are closed to a daemon of a plain user, which makes none of its own kind: nothing is known to be frozen. */
static bool out_of_sight(const char *records)
{
    static bool told;
    if (geteuid() == 0 || access(records, R_OK | X_OK) == 0 || errno != EACCES)
        return false;
    if (!told)
        log_line(LOG_LEVEL_INFO, NULL, "%s is closed to this user: what a daemon of root may have left frozen cannot be looked at", records);
    told = true;
    return true;
}

/* In a child: a FITHAW waits for a FIFREEZE that hangs in a dead disk, and the service must start all the same, to say so. */
void thaw_orphans(void)
{
    enum { THAW_MS = 15000 };
    char records[PATH_MAX];
    const struct thaw_all options = {.records = records, .orphans = true, .tell = tell};

    record_directory(records);
    if (out_of_sight(records))
        return;
    pid_t pid = fork();
    if (pid == 0) /* a child that goes on must not keep our lock, our sockets, or a channel: the next start needs them */
        close_range(STDERR_FILENO + 1, ~0U, 0);
    if (pid <= 0)
        thaw_all(&options);
    if (pid == 0)
        _exit(0);
    if (pid > 0 && !proc_reap(pid, -1, THAW_MS, NULL))
        log_line(LOG_LEVEL_ERROR, NULL, "what an earlier run left frozen is not thawed after %d s; process %d goes on trying",
                 THAW_MS / 1000, (int)pid);
}
