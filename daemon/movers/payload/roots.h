#pragma once
/* A name for what is backed up: the same for every backup of the same folders of the same host, so that each finds the one before it. */
#include "movers/mover.h"

enum { ROOTS_SIZE = 17 };
/* Folders only: single files, such as a log's segments, differ from run to run. */
void roots_name(const struct mover_request *request, const char *node, char ret[ROOTS_SIZE]);
/* The document's node, else this host's name. */
void roots_node(const json_t *document, char *ret, size_t size);
