/* restic's status lines while it saves: its progress never falls and never passes ours, whatever it prints. */
#include "movers/restic/backup.c"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mover_progress last;

static void watch(void *arg, const struct mover_progress *progress)
{
    (void)arg;
    if (progress->bytes_done < last.bytes_done || progress->files_done < last.files_done ||
        progress->bytes_done > progress->bytes_total || progress->files_done > progress->files_total)
        abort();
    last = *progress;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct mover_host host = {.progress = watch, .cancel_fd = -1};
    static struct backup backup;
    static char line[LINE_MAX_BYTES];
    backup = (struct backup){.host = &host, .line = line, .progress = {.bytes_total = 1000, .files_total = 10}};
    last = backup.progress;
    for (size_t at = 0; at < size; at += 7)
        take_output(&backup, (const char *)data + at, size - at < 7 ? size - at : 7);
    json_decref(backup.summary);
    return 0;
}
