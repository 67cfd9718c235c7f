#pragma once
/* The families that every exporter gives of its own process (process_cpu_seconds and the like), from /proc/self and
 * getrusage: nothing of it waits for a disk. */
#include "base/openmetrics.h"

void process_figures(struct openmetrics *text);
