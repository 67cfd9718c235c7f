#pragma once
/* Snapshots outside of the session that made them, by the records that core keeps of them. */
#include <jansson.h>

#include "base/err.h"
#include "providers/provider.h"

struct worker;

/* Removes one; its exposure (`exposed_path`) first. */
int stored_remove(struct worker *worker, const struct provider *provider, const json_t *doc, struct err *err);
/* Opens its tree to be read: a descriptor, or -1 with err (E_NOTIMPL when it does not lie on this host). */
int stored_open(struct worker *worker, const json_t *doc, struct err *err);
/* exposures: [{"snapshot","path","wanted"}]. After a restart of the machine those that are wanted come back, after a kill those
 * that are not go, as do those that may not come back. result.exposures: [{"id","exposed" (it is mounted),"reason"}]. */
void stored_restore_exposures(struct worker *worker, const json_t *exposures, json_t *result);
