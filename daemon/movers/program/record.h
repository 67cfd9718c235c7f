#pragma once
/* The record of a backup whose mover is a program: one file in its repository, a header line (what run returned, with the document), then
 * the manifest. */
#include "movers/payload/manifest.h"
#include "movers/program/program.h"

/* {"format","version":1} of the header. ret_fd: a memfd at its beginning, the caller's. */
int record_make(const char *format, const struct mover_request *request, const json_t *result, FILE *manifest, int *ret_fd, struct err *err);
/* Reads one that the started program prints, and ends the program whatever happens. ret_manifest NULL: the header alone is read. */
int record_read(const char *format, struct program *program, json_t **ret_header, struct manifest *ret_manifest, struct err *err);
