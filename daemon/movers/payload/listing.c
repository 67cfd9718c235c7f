#include "movers/payload/listing.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "base/utf8.h"

enum { PAGE_MAX = 500, SHOWN_SIZE = 4 * PATH_MAX + 1 };

/* The name of an entry that lies in the directory itself; NULL: it lies elsewhere, or deeper. */
static const char *name_within(const char *path, const char *directory)
{
    size_t length = directory[1] ? strlen(directory) : 0;
    if (strncmp(path, directory, length) != 0 || path[length] != '/')
        return NULL;
    const char *name = path + length + 1;
    return *name && !strchr(name, '/') ? name : NULL;
}

static json_t *describe(const struct manifest_entry *entry, const char *name)
{
    char shown[SHOWN_SIZE] = "", target[SHOWN_SIZE] = "", modified[CLOCK_RFC3339_SIZE], mode[8];
    utf8_escape(shown, sizeof(shown), name);
    if (entry->link)
        utf8_escape(target, sizeof(target), entry->link);
    str_format(mode, sizeof(mode), "%04o", (unsigned)(entry->mode & 07777));
    clock_rfc3339((int64_t)entry->mtime.tv_sec * 1000 + entry->mtime.tv_nsec / 1000000, modified);
    return json_pack("{s:s, s:s, s:I, s:s, s:I, s:I, s:s, s:s?}", "name", shown, "type", manifest_type(entry->mode), "bytes",
                     (json_int_t)entry->size, "mode", mode, "uid", (json_int_t)entry->uid, "gid", (json_int_t)entry->gid, "modified_at",
                     modified, "target", entry->link ? target : NULL);
}

/* Where in the manifest the page begins: a backup does not change, so that a place in it stays the same. */
static int page_begins(const struct manifest *manifest, const char *after, size_t *ret, struct err *err)
{
    char *end = NULL;
    unsigned long long last = after && *after >= '0' && *after <= '9' ? strtoull(after, &end, 10) : 0;
    if (after && (!end || *end || last >= manifest->n))
        return err_invalid(err, "?cursor", "is no page of this directory");
    *ret = after ? (size_t)last + 1 : 0;
    return 0;
}

int listing_page(const struct manifest *manifest, const struct listing *asked, json_t **ret, struct err *err)
{
    const struct manifest_entry *directory = manifest_find(manifest, asked->path);
    bool top = str_eq(asked->path, "/");
    size_t at = 0, limit = asked->limit < 1 ? 1 : asked->limit > PAGE_MAX ? PAGE_MAX : (size_t)asked->limit;
    if (!top && (!directory || !S_ISDIR(directory->mode)))
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Name a directory that the backup holds, by its original path.", "%.300s in the backup: no such directory",
                       asked->path);
    if (page_begins(manifest, asked->after, &at, err))
        return -1;
    json_t *items = json_array();
    json_t *page = json_pack("{s:o}", "items", items);
    char next[24] = "";
    for (; at < manifest->n; at++) {
        const char *name = name_within(manifest->entries[at].path, asked->path);
        if (!name)
            continue;
        if (json_array_size(items) == limit) {
            json_put(page, "next", json_string(next));
            break;
        }
        json_add(items, describe(&manifest->entries[at], name));
        str_format(next, sizeof(next), "%zu", at);
    }
    *ret = page;
    return 0;
}
