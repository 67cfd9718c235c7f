#pragma once
/* ?fields=id,state: of an item, or of each item of a list, the members that are named and no others. */
#include "api/exchange.h"

/* The first name that no item of the route has, in ret; false: they are all known. */
bool sparse_unknown(const struct api_route *route, const char *fields, char ret[64]);
/* New reference. fields: as sparse_unknown let it pass. */
json_t *sparse_view(const struct api_route *route, const char *fields, const json_t *body);
