/* The embedded default mover: one data.tar.zst per backup, a manifest with a SHA-256 per file, the document beside it.
 */
#include "movers/archive/archive_private.h"

static void probe(char ret_reason[256])
{
    ret_reason[0] = '\0'; /* libarchive is linked: it runs anywhere */
}

const struct mover mover_archive = {
    .abi = MOVER_ABI,
    .name = "archive",
    .title = "Archive: one .tar.zst with a manifest",
    .needs_original_path = false,
    .probe = probe,
    .open = arc_open,
    .run = arc_run,
    .restore = arc_restore,
    .verify = arc_verify,
    .manifest = arc_manifest,
    .seal = arc_seal,
    .list = arc_list,
    .remove = arc_remove,
    .sweep = arc_sweep,
};
MOVER_EXPORT(archive);
