/* Snapshots for which the guest agent of a hypervisor or a cloud (qemu-ga, VMware Tools, Azure's extension) freezes and thaws the file
 * systems itself, between two calls of its hook. Ours are the writers, and the lease: the guardian holds the same file systems without
 * freezing them, and thaws them when the hold ends in any other way than by the hook's word. */
#include "base/cleanup.h"
#include "providers/outside.h"

enum { WINDOW_MS = 5000 /* estimate for the planner: a hypervisor's snapshot */ };

static int guest_plan(const struct provider_environment *env, const struct volume *volume, struct provider_plan *ret,
                      struct err *err)
{
    (void)env;
    (void)volume;
    (void)err;
    *ret = (struct provider_plan){.atomic = true, .bytes = 0, .window_ms = WINDOW_MS, .freeze = FREEZE_LENT};
    return 0;
}

static int guest_create(const struct provider_environment *env, struct provider_snapshot *set, size_t n,
                        struct err *err)
{
    return outside_hold(env, set, n, err);
}

const struct provider provider_guest = {
    .abi = PROVIDER_ABI,
    .name = "guest",
    .title = "applications held while a hypervisor's guest agent freezes the file systems and the snapshot is taken outside",
    .outside = true,
    .by_name = true,
    .probe = outside_probe,
    .match = outside_match,
    .plan = guest_plan,
    .create = guest_create,
    .list = outside_list,
    .remove = outside_remove};
PROVIDER_EXPORT(guest);
