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

/* One repository by the same tables and rules, for the API: E_INVALIDARG at the member. */
int conf_repository_check(const json_t *repository, struct err *err);

/* Where on this host it lies: its path, or a url of restic's that is one; NULL: elsewhere. Borrowed. */
const char *conf_repository_place(const json_t *repository);
/* The first of n others whose place is the repository's, within it or around it (one of the same name is itself); NULL: none. Borrowed. */
const json_t *conf_repository_shares(const json_t *repository, const json_t *others, size_t n);
/* The first of the roots (restore.roots) that is the repository's place or within it; NULL: none. Borrowed. */
const char *conf_root_within(const json_t *roots, const json_t *repository);

/* Fills what depends on the state directory: state_dir, providers.copy.staging. */
void conf_place(json_t *config, const char *state_dir);

/* A copy without what may be secret: environment values, passwords in connections and URLs, token hashes. New
 * reference. */
json_t *conf_redacted(const json_t *config);

/* What the daemon opens at its start and cannot open now (the files of tls): faults as conf_faults gives them. */
json_t *conf_file_faults(const json_t *config, const json_t *lines, const char *file);

/* Files that the daemon reads only when it needs them (password_file, url_file) and that are not there: as conf_faults gives them. */
json_t *conf_file_warnings(const json_t *config, const json_t *lines, const char *file);

/* Where an installation has its configuration. */
#ifdef QUIESCED_CONFIG_FILE
#define CONF_FILE QUIESCED_CONFIG_FILE
#else
#define CONF_FILE "/etc/quiesced/quiesced.yaml"
#endif

/* quiesced check-config [FILE], without it CONF_FILE: prints "FILE: OK" or every fault, and warnings. Exit status 0, 1 (faults), 2 (usage). */
int conf_check_main(int argc, char **argv);
