#pragma once
/* What serve passed on of the other roles' figures, as families of GET /metrics. */
#include <jansson.h>

#include "base/openmetrics.h"

void role_figures_write(const json_t *figures /* NULL: none yet */, struct openmetrics *text);
