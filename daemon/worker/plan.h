#pragma once
/* The planner's rules for a session that is driven verb by verb: what POST /backups would refuse, its verbs refuse. */
#include <jansson.h>

#include "base/err.h"

struct worker;

/* AddToSnapshotSet: args.volumes is the set so far, args.path the new one, provider the one that was found for it.
 * Refuses with the rule's code (VSS_E_VOLUME_NOT_SUPPORTED, VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER) and name
 * (err->reason), or with VSS_E_OBJECT_ALREADY_EXISTS when one snapshot would hold both. */
int plan_check_addition(struct worker *worker, const json_t *args, const char *provider, struct err *err);
/* PrepareForBackup and DoSnapshotSet: the whole set (args.volumes) against everything that is to be carried
 * (components, args.paths), nested volumes included. What is to be read from a snapshot and lies on no volume of the set
 * is VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT (a component's; it is named, and so is the path) or VSS_E_OBJECT_NOT_FOUND
 * (a plain path), reason `volume-missing`. */
int plan_check_set(struct worker *worker, const json_t *args, struct err *err);
