#pragma once
/* The tables that say what a configuration may hold. */
#include "base/jsonspec.h"

/* writers and repositories are arrays of anything here: each entry is checked against the table of its kind. */
extern const struct json_spec conf_spec;

struct conf_kind {
    const char *name; /* "exec" */
    const struct json_spec *spec;
};
/* One list whose entries come in kinds. */
struct conf_kinds {
    const char *list; /* "writers" */
    const char *key;  /* "type": the member that names an entry's kind */
    const struct conf_kind *kinds;
    size_t n_kinds;
    const struct json_spec *unknown; /* for an entry without a known kind: says which ones there are */
};
extern const struct conf_kinds conf_kinds[];
extern const size_t conf_n_kinds;
