#pragma once
/* What the providers that keep their snapshots in a place (providers/place.h) have in common: marks,
 * list, removal. A provider supplies the three differences. */
#include <stdbool.h>

#include "providers/place.h"
#include "providers/provider.h"

struct keeper {
    const char *provider;
    const char *fault_create; /* name of the fault point behind the set's first snapshot */
    bool atomic;
    bool sync; /* syncfs in prepare: dirty data is written before the window, not in it */
    /* Path of the place for this volume; -1 with the reason. */
    int (*locate)(const struct provider_environment *env, const struct volume *volume, char ret[PATH_MAX],
                  char reason[256]);
    /* Make snapshot->id in the place from the open volume; fills bytes. What a failure leaves is removed by unmake. */
    int (*make)(const struct provider_environment *env, int volume_fd, const struct place *place,
                struct provider_snapshot *snapshot, struct err *err);
    /* Remove the tree; gone already is success. */
    int (*unmake)(const struct place *place, const char *id, struct err *err);
};

/* Opens the places and writes the marks. After it a set that is given up wants keeper_remove of each snapshot. */
int keeper_prepare(const struct keeper *keeper, const struct provider_environment *env, struct provider_snapshot *set,
                   size_t n, struct err *err);
int keeper_create(const struct keeper *keeper, const struct provider_environment *env, struct provider_snapshot *set,
                  size_t n, struct err *err);
int keeper_list(const struct keeper *keeper, const struct provider_environment *env, const struct volume *volumes,
                size_t n, json_t **ret, struct err *err);
int keeper_remove(const struct keeper *keeper, const struct provider_environment *env,
                  const struct provider_snapshot *snapshot, struct err *err);
/* A snapshot of ours: its place, and its tree. VSS_E_OBJECT_NOT_FOUND when either, or our mark, is gone. */
int keeper_open(const struct keeper *keeper, const struct provider_environment *env,
                const struct provider_snapshot *snapshot, struct place *ret_place, int *ret_tree, struct err *err);
/* The same, of its tree alone: a descriptor, or -1. */
int keeper_open_tree(const struct keeper *keeper, const struct provider_environment *env,
                     const struct provider_snapshot *snapshot, struct err *err);
int keeper_expose(const struct keeper *keeper, const struct provider_environment *env,
                  const struct provider_snapshot *snapshot, int target, struct err *err);
int keeper_unexpose(const struct keeper *keeper, const struct provider_environment *env,
                    const struct provider_snapshot *snapshot, const char *path, struct err *err);
