#pragma once
/* Where writers put files that must be added to the backup: staging/SESSION/INSTANCE, owned by the writer's user. What
 * a writer puts there is moved into a folder of ours before anything of ours opens it: a link that it plants leads
 * nowhere. */
#include <jansson.h>

#include "base/err.h"

struct worker;
struct writer_entry;

/* Makes the session's and the writer's directory; without them a writer simply cannot add files. */
int staging_prepare(struct worker *worker, struct writer_entry *entry, struct err *err);
/* Takes over the "extra_files" of one component's answer. */
int staging_adopt(struct worker *worker, struct writer_entry *entry, const json_t *component, struct err *err);
/* Removes what sessions left whose workers are gone; adds paths to removed, {"object","reason"} to failed. */
void staging_sweep(struct worker *worker, json_t *removed, json_t *failed);
/* Row of the undo stack. */
void staging_remove(struct worker *worker, json_t *cleanup);
