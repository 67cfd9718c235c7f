#pragma once
/* quiescectl hold create, delete, check PATH: a snapshot by one call, for backup programs and file servers. */
#include "cli/ctl.h"

int hold_create(struct ctl *ctl, int argc, char **argv);
int hold_delete(struct ctl *ctl, int argc, char **argv);
int hold_check_path(struct ctl *ctl, const char *path);
