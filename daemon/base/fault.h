#pragma once
/* Named fault points. In a build with QUIESCED_FAULTS, fault("store.commit") is true while the file of that name
 * exists in $QUIESCED_FAULT_DIR (a file that contains "once" is removed by the hit). Otherwise it is constant false and costs nothing. */
#include <stdbool.h>

#ifdef QUIESCED_FAULTS
bool fault(const char *name);
#else
#define fault(name) false
#endif
