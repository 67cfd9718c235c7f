#include "worker/capabilities.h"

#include <cap-ng.h>

#include "base/cleanup.h"

static const unsigned kept[] = {
    CAP_SYS_ADMIN, /* snapshots, mount namespaces, trusted.* attributes */
    CAP_DAC_READ_SEARCH,
    CAP_DAC_OVERRIDE, /* read what is backed up, write what is restored */
    CAP_FOWNER,
    CAP_CHOWN,
    CAP_FSETID, /* modes, owners and set-id bits of restored files */
    CAP_SETUID,
    CAP_SETGID, /* writers run as their users */
    CAP_KILL,   /* and are ended when they hang */
    CAP_MKNOD,
    CAP_SETFCAP,
    CAP_SYS_PTRACE, /* see who has files open on a volume that is to be reverted */
    CAP_LINUX_IMMUTABLE, /* device files, file capabilities and flags in a restore */
};

int capabilities_reduce(struct err *err)
{
    if (capng_get_caps_process() < 0)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "cannot read our capabilities");
    unsigned have[ELEMENTS(kept)], n = 0;
    for (size_t i = 0; i < ELEMENTS(kept); i++)
        if (capng_have_capability(CAPNG_PERMITTED, kept[i]))
            have[n++] = kept[i];
    capng_clear(CAPNG_SELECT_BOTH);
    for (unsigned i = 0; i < n; i++)
        if (capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET, have[i]) < 0)
            return err_set(err, VSS_E_UNEXPECTED, NULL, "cannot choose capability %u", have[i]);
    if (capng_apply(CAPNG_SELECT_BOTH) < 0)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "cannot reduce our capabilities");
    return 0;
}
