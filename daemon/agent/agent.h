#pragma once
/* Role agent: launches workers and keeps a lease on each. No network, no OpenSSL, no policy. */
#include "base/proc.h"

/* Runs until the control channel (fd 3) or core's channel closes; returns the exit status. */
int agent_main(void);
