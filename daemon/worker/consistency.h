#pragma once
/* The grades of a taken set: from what the writers said and where the files lie to model/consistency. */
#include <jansson.h>

struct worker;

/* After PostSnapshot. paths: the plain paths (array of strings). New reference: {"grade","one_instant",
 * "components":[{"id","grade","reason","freeze"}],"paths":[{"path","grade","reason"}]}; a component's freeze is
 * {"started_at","ended_at","window_ms"} of its writer, or null when that was never frozen. */
json_t *consistency_result(const struct worker *worker, const json_t *paths);
