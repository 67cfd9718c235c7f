#pragma once
/* GET /backups/{id}/files: one directory of a backup, page by page, as its manifest tells. */
#include <jansson.h>
#include <stdint.h>

#include "movers/payload/manifest.h"

struct listing {
    const char *path;  /* of the directory, canonical, or "/" */
    const char *after; /* "next" of the page before; NULL: the first page */
    int64_t limit;     /* entries, 1 to 500; what is outside is taken as the nearest */
};

/* ret: {"items":[{"name","type","bytes","mode","uid","gid","modified_at","target"?}],"next"?}, by the bytes of their names; new reference.
 * VSS_E_OBJECT_NOT_FOUND: it holds no such directory. E_INVALIDARG: after is none of its pages. */
int listing_page(const struct manifest *manifest, const struct listing *asked, json_t **ret, struct err *err);
