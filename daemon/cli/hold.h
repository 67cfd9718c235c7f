#pragma once
/* What `quiescectl hold` is made of: one session over the API, from its beginning to a set that is taken, or held frozen. What a hold
 * is lives in the daemon, under a label; nothing of it is kept here, so any later call can go on with it. */
#include <jansson.h>

#include "cli/ctl.h"

/* The label of the session of the hold of that name. malloc'ed. */
char *hold_label(const char *name);

/* One call. CTL_OK with *ret (a new reference, NULL when there is no body; ret NULL: not wanted), else the exit code, told. */
int hold_call(struct ctl *ctl, const char *method, const char *path, const json_t *body, json_t **ret);
/* The same, untold: the HTTP status, or -1 with the code CTL_UNREACHED told. *ret may be a problem. */
int hold_ask(struct ctl *ctl, const char *method, const char *path, const json_t *body, json_t **ret);
/* POST of a job, waited for. CTL_OK when it succeeded; else why not, on standard error. *ret: as it ended, or NULL; a new reference. */
int hold_job(struct ctl *ctl, const char *path, json_t **ret);
/* Says on standard error how a job ended that did not succeed. */
void hold_tell_job(const json_t *job);

struct hold_set {
    const char *label;
    const char *context;    /* of VSS: backup, app_rollback */
    const char *provider;   /* NULL: the best one */
    const json_t *paths;    /* of text; NULL: every file system of the host that the provider fits */
    const json_t *excludes; /* of text, or NULL */
};
/* From CreateVssBackupComponents to PrepareForBackup: the set, and every component that has files on it. CTL_OK with the session's id
 * (malloc'ed); otherwise nothing is left of it. */
int hold_prepare(struct ctl *ctl, const struct hold_set *set, char **ret_session);
/* DELETE of the session, which ends whatever it holds; waits for a release that takes long. Failures are told. */
int hold_release(struct ctl *ctl, const char *session);
/* From now until hold_signals_end an interrupt is noticed by hold_interrupted instead of ending the program. */
void hold_signals_begin(void);
void hold_signals_end(void);
bool hold_interrupted(void);
