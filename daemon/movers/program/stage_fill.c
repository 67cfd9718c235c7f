#include "movers/program/stage_fill.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "movers/payload/choice.h"

void stage_fill_tick(void *arg, pid_t pid)
{
    struct stage *stage = arg;
    char path[64];
    long long written = 0;
    str_format(path, sizeof(path), "/proc/%d/io", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (fscanf(file, "rchar: %*d\nwchar: %lld", &written) == 1 && written > stage->progress.bytes_done &&
        written <= stage->progress.bytes_total)
        stage->progress.bytes_done = written;
    fclose(file);
    stage->host->progress(stage->host->arg, &stage->progress);
}

void stage_fill_drop(const struct stage *stage, bool widened)
{
    bool dropped = false;
    for (size_t i = stage->manifest->n; i-- > 0;) {
        const struct manifest_entry *entry = &stage->manifest->entries[i];
        const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, entry->mtime};
        AUTO_FD int folder = dropped && entry->wanted && S_ISDIR(entry->mode)
                                 ? stage_open_beneath(stage->fd, entry->path + 1, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
                                 : -1;
        if (folder >= 0)
            futimens(folder, times);
        if (widened ? entry->wanted || entry->helper : !choice_left_out(stage->restore, entry))
            continue;
        dropped = true;
        AUTO_FREE char *above = str_dup(entry->path + 1);
        char *slash = strrchr(above, '/');
        if (slash)
            *slash = '\0';
        AUTO_FD int dir = stage_open_beneath(stage->fd, slash ? above : "", O_RDONLY | O_DIRECTORY);
        if (dir >= 0)
            unlinkat(dir, strrchr(entry->path, '/') + 1, S_ISDIR(entry->mode) ? AT_REMOVEDIR : 0);
    }
}
