#pragma once
/* YAML 1.2 core schema -> JSON, strictly: one document, no anchors, aliases, tags or duplicate keys, bounded depth and
 * size. A member without a value ("limits:") counts as absent. */
#include <jansson.h>
#include <stddef.h>

#include "base/err.h"

enum {
    YAML_SIZE_MAX = 1024 * 1024,
    YAML_DEPTH_MAX = 32,
    YAML_NODES_MAX = 50000,
};

/* name: the file's, for messages ("name:line: reason"). *ret: new reference (an empty text gives {}). *ret_lines: new
 * reference to an object that maps each value's JSON pointer to its line (from 1). */
int yaml_load(const char *text, size_t size, const char *name, json_t **ret, json_t **ret_lines, struct err *err);
/* Appends "/part", escaped (RFC 6901), to a pointer: malloc'ed. */
char *yaml_pointer_to(const char *parent, const char *part);
