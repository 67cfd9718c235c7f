#pragma once
/* What the providers share whose snapshots are taken by somebody else: nothing of them is on this host, and the window lasts until
 * the session's owner says that it is over. */
#include "providers/provider.h"

/* vtable entries. probe: freezing takes root. match: file systems that Linux can freeze (super_operations.freeze_fs), with the lowest
 * score, since such snapshots are not ours to read. list: none. remove: VSS_E_PROVIDER_VETO for one that has a name outside. */
void outside_probe(const struct provider_environment *env, struct provider_availability *ret);
void outside_match(const struct provider_environment *env, const struct volume *volume, struct provider_match *ret);
int outside_list(const struct provider_environment *env, const struct volume *volumes, size_t n, json_t **ret, struct err *err);
int outside_remove(const struct provider_environment *env, const struct provider_snapshot *snapshot, struct err *err);

/* Waits for the end of the hold (env->await_release) and takes the names that it brings. -1: it failed, was cancelled or is late. */
int outside_hold(const struct provider_environment *env, struct provider_snapshot *set, size_t n, struct err *err);
/* The snapshot's name outside, when words {"outside_id"} has one. */
void outside_name(struct provider_snapshot *snapshot, const json_t *words);
