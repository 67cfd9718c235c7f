#include "movers/limits.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/jsonspec.h"
#include "base/str.h"

/* linux/ioprio.h, which Debian's headers have since 6.0 */
enum { WHO_PROCESS = 1, CLASS_BEST_EFFORT = 2, CLASS_IDLE = 3, CLASS_SHIFT = 13, PRIORITY_DEFAULT = 4 };

static int set_io_priority(const json_t *limits, struct err *err)
{
    const char *class = json_str(limits, "io_class", "best-effort");
    bool idle = str_eq(class, "idle");
    int64_t level = json_int(limits, "io_priority", PRIORITY_DEFAULT);
    long value = idle ? CLASS_IDLE << CLASS_SHIFT : CLASS_BEST_EFFORT << CLASS_SHIFT | level;
    if (!idle && !str_eq(class, "best-effort"))
        return err_invalid(err, "/limits/io_class", "%s: no class of ours", class);
    if (level < 0 || level > 7)
        return err_invalid(err, "/limits/io_priority", "must be from 0 to 7");
    return syscall(SYS_ioprio_set, WHO_PROCESS, 0, value) == 0
               ? 0
               : err_errno(err, VSS_E_UNEXPECTED, errno, "Leave limits.io_class and io_priority out.", "cannot set the mover's I/O class");
}

int mover_limits_apply(const json_t *limits, struct err *err)
{
    int64_t nice_level = json_int(limits, "nice", 0);
    if ((json_object_get(limits, "io_class") || json_object_get(limits, "io_priority")) && set_io_priority(limits, err))
        return -1;
    if (nice_level < 0 || nice_level > 19)
        return err_invalid(err, "/limits/nice", "must be from 0 to 19");
    if (nice_level > 0 && setpriority(PRIO_PROCESS, 0, (int)nice_level))
        return err_errno(err, VSS_E_UNEXPECTED, errno, "Leave limits.nice out.", "cannot set the mover's nice value");
    return 0;
}
