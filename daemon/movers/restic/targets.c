#include "movers/restic/targets.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "movers/payload/roots.h"

char *restic_pattern(const char *path)
{
    char *pattern = mem_new(2 * strlen(path) + 1), *to = pattern;
    for (; *path; path++) {
        if (strchr("*?[\\", *path))
            *to++ = '\\';
        *to++ = *path;
    }
    return pattern;
}

/* The exclude file is trimmed, split at newlines, and expands variables. */
static bool fits_file(const char *pattern)
{
    for (const char *at = pattern; *at; at++)
        if ((unsigned char)*at < ' ' || *at == '$' || (unsigned char)*at >= 0x7f)
            return false;
    return !isspace((unsigned char)pattern[strlen(pattern) - 1]);
}

struct making {
    struct targets *targets;
    const struct scan *scan;
    FILE *list, *excludes;
};

static void exclude(struct making *making, const char *path, const char *below)
{
    AUTO_FREE char *literal = restic_pattern(path);
    AUTO_FREE char *pattern = str_new("%s%s", literal, below);
    if (fits_file(pattern))
        fprintf(making->excludes, "%s\n", pattern);
    else
        path_list_add(&making->targets->patterns, pattern);
}

static void add(struct making *making, const char *path)
{
    fwrite(path, 1, strlen(path) + 1, making->list);
}

static int compare(const void *key, const void *entry)
{
    return strcmp(key, ((const struct scan_entry *)entry)->path);
}

/* Does the scan hold something below the directory? Sorting put it not far behind; "/a-b" may lie between. */
static bool has_children(const struct scan *scan, const char *path)
{
    const struct scan_entry *entry = scan->n ? bsearch(path, scan->entries, scan->n, sizeof(*entry), compare) : NULL;
    size_t length = strlen(path);
    for (entry = entry ? entry + 1 : NULL; entry && entry < scan->entries + scan->n; entry++) {
        if (strncmp(entry->path, path, length) != 0 || (unsigned char)entry->path[length] > '/')
            return false;
        if (entry->path[length] == '/')
            return true;
    }
    return false;
}

static bool is_whole(const struct mover_item *item)
{
    return item->recursive && str_eq(item->spec, "*");
}

static void add_items(struct making *making)
{
    const struct scan *scan = making->scan;
    const struct mover_request *request = scan->request;
    for (size_t i = 0; i < request->n_items; i++)
        if (is_whole(&request->items[i]) &&
            bsearch(request->items[i].path, scan->entries, scan->n, sizeof(*scan->entries), compare))
            add(making, request->items[i].path);
    for (size_t i = 0; i < scan->n; i++) {
        const struct scan_entry *entry = &scan->entries[i];
        if (entry->parent || is_whole(&request->items[entry->item]))
            continue;
        if (S_ISDIR(entry->type) && has_children(scan, entry->path))
            continue; /* comes with them */
        add(making, entry->path);
        if (S_ISDIR(entry->type))
            exclude(making, entry->path, "/*");
    }
}

static void add_excludes(struct making *making)
{
    const struct scan *scan = making->scan;
    for (size_t i = 0; i < scan->left_out.n; i++)
        exclude(making, scan->left_out.paths[i], "");
    for (size_t i = 0; i < scan->not_entered.n; i++)
        if (!has_children(scan, scan->not_entered.paths[i]))
            exclude(making, scan->not_entered.paths[i], "/*");
}

static FILE *memory(int *ret_fd)
{
    *ret_fd = memfd_create("targets", MFD_CLOEXEC);
    int again = *ret_fd < 0 ? -1 : dup(*ret_fd);
    return again < 0 ? NULL : fdopen(again, "we");
}

int targets_make(struct targets *ret, const struct scan *scan, const char *host, struct err *err)
{
    *ret = (struct targets){.list_fd = -1, .exclude_fd = -1};
    struct making making = {
        .targets = ret, .scan = scan, .list = memory(&ret->list_fd), .excludes = memory(&ret->exclude_fd)};
    int result = 0;
    if (making.list && making.excludes) {
        add_items(&making);
        add_excludes(&making);
        roots_name(scan->request, host, ret->roots);
        if (fflush(making.list) || fflush(making.excludes))
            result = -1;
    } else {
        result = -1;
    }
    if (making.list)
        fclose(making.list);
    if (making.excludes)
        fclose(making.excludes);
    if (result)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the list of files");
    lseek(ret->list_fd, 0, SEEK_SET); /* shared with restic: it becomes its standard input */
    return 0;
}

void targets_clear(struct targets *targets)
{
    fd_cleanup(&targets->list_fd);
    fd_cleanup(&targets->exclude_fd);
    path_list_clear(&targets->patterns);
}
