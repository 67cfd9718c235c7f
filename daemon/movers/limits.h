#pragma once
/* How much of the machine a mover may take: {"io_class":"idle"|"best-effort","io_priority":0..7,"nice":0..19,"bandwidth_bytes_per_second"},
 * all optional. The classes and priorities are those of ioprio_set(2); the disk's scheduler has to know them (bfq, mq-deadline). */
#include <jansson.h>

#include "base/err.h"

/* For this process, what it starts from now on, and no other. NULL or empty: nothing. The bandwidth is the mover's own matter. */
int mover_limits_apply(const json_t *limits, struct err *err);
