#pragma once
/* The configuration: YAML file -> checked JSON document with every default filled in (design, section 5). */
#include <jansson.h>

#include "base/err.h"

/* The configuration of a daemon that has no configuration file. New reference. */
json_t *conf_default(void);

/* Reads, checks, fills defaults. Returns 0 and *ret (new reference), or -1 with every fault that there is, one
 * "file:line: member: reason (hint)" each, as an array of strings in *ret_faults (new reference, never empty). */
int conf_read(const char *path, json_t **ret, json_t **ret_faults);
/* The same with the faults in err, one a line; what does not fit is counted. */
int conf_load(const char *path, json_t **ret, struct err *err);

/* Checks a document. lines: JSON pointer -> line (from yaml_load), or NULL. file: its name, or NULL. New reference to
 * an array of strings. */
json_t *conf_faults(const json_t *config, const json_t *lines, const char *file);

/* Fills what depends on the state directory: state_dir, providers.copy.staging. */
void conf_place(json_t *config, const char *state_dir);

/* A copy without what may be secret: environment values, passwords in connections and URLs, token hashes. New
 * reference. */
json_t *conf_redacted(const json_t *config);

/* quiesced check-config FILE: prints "FILE: OK" or every fault. Exit status 0, 1 (faults), 2 (usage). */
int conf_check_main(int argc, char **argv);
