#pragma once
#include <jansson.h>

/* Adds every default that a checked configuration does not give. */
void conf_defaults(json_t *config);
