#pragma once
/* What a writer may say (protocol 1), checked strictly: a lying writer fails, it never makes us wrong. */
#include <jansson.h>

#include "base/err.h"

/* The outer shape of any answer: "id", "ok", "failure", "message", "components", "metadata". */
int writer_answer_check(const json_t *answer, struct err *err);
/* The metadata of identify: types, bounds, canonical paths, no (logical_path, name) twice. */
int writer_metadata_check(const json_t *metadata, struct err *err);
/* A checked answer's components: only those that were asked about, each once. asked: the request's "components". */
int writer_components_check(const json_t *answered, const json_t *asked, struct err *err);
/* The API's shape of a writer (design, section 5) from checked metadata; defaults are filled in. New reference. */
json_t *writer_metadata_to_api(const json_t *metadata, const char *name, const char *instance_id, const char *class_id);
