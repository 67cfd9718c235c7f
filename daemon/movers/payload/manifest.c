#include "movers/payload/manifest.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

static const struct {
    mode_t mode;
    const char *name;
} types[] = {{S_IFREG, "file"}, {S_IFDIR, "directory"}, {S_IFLNK, "symlink"},
             {S_IFIFO, "fifo"}, {S_IFCHR, "character"}, {S_IFBLK, "block"}};

const char *manifest_type(mode_t mode)
{
    for (size_t i = 0; i < ELEMENTS(types); i++)
        if (types[i].mode == (mode & S_IFMT))
            return types[i].name;
    return "other";
}

static mode_t type_mode(const char *name)
{
    for (size_t i = 0; i < ELEMENTS(types); i++)
        if (str_eq(types[i].name, name))
            return types[i].mode;
    return 0;
}

/* --- bytes in JSON --- */

static void put_bytes(json_t *line, const char *name, const char *bytes)
{
    json_t *text = json_string(bytes);
    if (text) {
        json_put(line, name, text);
        return;
    }
    AUTO_FREE char *name64 = str_new("%s64", name);
    AUTO_FREE char *encoded = hash_base64url(bytes, strlen(bytes));
    json_put(line, name64, json_string(encoded));
}

static int digit64(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static char *decode64(const char *text)
{
    char *bytes = mem_new(strlen(text) + 1), *to = bytes;
    uint32_t bits = 0;
    unsigned have = 0;
    for (; *text; text++) {
        int digit = digit64(*text);
        if (digit < 0) {
            free(bytes);
            return NULL;
        }
        bits = (bits << 6) | (uint32_t)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            *to++ = (char)(bits >> have);
        }
    }
    return bytes;
}

static char *get_bytes(const json_t *line, const char *name)
{
    const char *text = json_str(line, name, NULL);
    if (text)
        return str_dup(text);
    AUTO_FREE char *name64 = str_new("%s64", name);
    text = json_str(line, name64, NULL);
    return text ? decode64(text) : NULL;
}

char *manifest_readable(const char *path)
{
    AUTO_JSON json_t *whole = json_string(path);
    if (whole)
        return str_dup(path);
    char *text = mem_new(4 * strlen(path) + 1), *to = text;
    for (const char *at = path; *at; at++) {
        if ((unsigned char)*at < 0x80)
            *to++ = *at;
        else
            to += snprintf(to, 5, "\\x%02x", (unsigned char)*at);
    }
    return text;
}

/* --- writing --- */

void manifest_write(FILE *file, const struct manifest_entry *entry)
{
    char hex[HASH_HEX_SIZE];
    AUTO_JSON json_t *line = json_pack("{s:s, s:I, s:i, s:I, s:I, s:I, s:i}", "type", manifest_type(entry->mode),
                                       "size", (json_int_t)entry->size, "mode", (int)(entry->mode & 07777), "uid",
                                       (json_int_t)entry->uid, "gid", (json_int_t)entry->gid, "mtime",
                                       (json_int_t)entry->mtime.tv_sec, "mtime_ns", (int)entry->mtime.tv_nsec);
    put_bytes(line, "path", entry->path);
    if (entry->has_sha256)
        json_put(line, "sha256", json_string(hash_hex(entry->sha256, hex)));
    if (entry->link)
        put_bytes(line, "link", entry->link);
    if (entry->hard_link)
        put_bytes(line, "hard_link", entry->hard_link);
    if (entry->parent)
        json_put(line, "parent", json_true());
    if (entry->sparse)
        json_put(line, "sparse", json_true());
    if (entry->inode) {
        json_put(line, "inode", json_integer((json_int_t)entry->inode));
        json_put(line, "ctime", json_integer((json_int_t)entry->ctime.tv_sec));
        json_put(line, "ctime_ns", json_integer((json_int_t)entry->ctime.tv_nsec));
    }
    if (json_dumpf(line, file, JSON_COMPACT) == 0)
        fputc('\n', file);
}

/* --- reading --- */

static bool parse_entry(const json_t *line, struct manifest_entry *entry)
{
    const char *sha256 = json_str(line, "sha256", NULL);
    *entry = (struct manifest_entry){.path = get_bytes(line, "path"),
                                     .mode = type_mode(json_str(line, "type", "")),
                                     .uid = (uid_t)json_int(line, "uid", 0),
                                     .gid = (gid_t)json_int(line, "gid", 0),
                                     .size = json_int(line, "size", 0),
                                     .mtime = {json_int(line, "mtime", 0), (long)json_int(line, "mtime_ns", 0)},
                                     .link = get_bytes(line, "link"),
                                     .hard_link = get_bytes(line, "hard_link"),
                                     .parent = json_bool(line, "parent", false),
                                     .sparse = json_bool(line, "sparse", false),
                                     .inode = (ino_t)json_int(line, "inode", 0),
                                     .ctime = {json_int(line, "ctime", 0), (long)json_int(line, "ctime_ns", 0)}};
    bool good = entry->mode && entry->path && (path_is_canonical(entry->path) || str_eq(entry->path, "/")) &&
                entry->size >= 0 && entry->mtime.tv_nsec >= 0 && entry->mtime.tv_nsec < 1000000000 &&
                (!S_ISLNK(entry->mode) || entry->link) && (!entry->hard_link || path_is_canonical(entry->hard_link));
    entry->mode |= (mode_t)json_int(line, "mode", 0) & 07777;
    entry->has_sha256 = sha256 && hash_from_hex(sha256, entry->sha256);
    return good && S_ISREG(entry->mode) == entry->has_sha256;
}

static bool add_line(struct manifest *manifest, const char *text, size_t length)
{
    AUTO_JSON json_t *line = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    if (manifest->n == manifest->room) {
        manifest->room = manifest->room ? 2 * manifest->room : 1024;
        manifest->entries = mem_resize(manifest->entries, manifest->room * sizeof(*manifest->entries));
    }
    struct manifest_entry *entry = &manifest->entries[manifest->n];
    if (!parse_entry(line, entry)) {
        manifest_entry_clear(entry);
        return false;
    }
    manifest->n++; /* sorted strictly: no path twice, parents first, and found by halving */
    return manifest->n < 2 || strcmp(manifest->entries[manifest->n - 2].path, entry->path) < 0;
}

int manifest_read(struct manifest *ret, FILE *file, const char *name, struct err *err)
{
    AUTO_FREE char *text = NULL;
    size_t room = 0, number = 0;
    for (ssize_t n; (n = getline(&text, &room, file)) > 0;) {
        number++;
        if (add_line(ret, text, (size_t)n))
            continue;
        manifest_clear(ret);
        return err_set(err, ERROR_FILE_CORRUPT, "The stored data is damaged: restore from another backup.",
                       "%s: line %zu is damaged", name, number);
    }
    if (ferror(file)) {
        manifest_clear(ret);
        return err_errno(err, VSS_E_UNEXPECTED, errno, NULL, "cannot read %s", name);
    }
    return 0;
}

bool manifest_unmodified(const struct manifest_entry *then, const struct manifest_entry *now)
{
    return S_ISREG(then->mode) && S_ISREG(now->mode) && then->inode && then->inode == now->inode &&
           then->size == now->size && then->mtime.tv_sec == now->mtime.tv_sec &&
           then->mtime.tv_nsec == now->mtime.tv_nsec && then->ctime.tv_sec == now->ctime.tv_sec &&
           then->ctime.tv_nsec == now->ctime.tv_nsec;
}

static int compare_path(const void *key, const void *entry)
{
    return strcmp(key, ((const struct manifest_entry *)entry)->path);
}

struct manifest_entry *manifest_find(const struct manifest *manifest, const char *path)
{
    return manifest->n ? bsearch(path, manifest->entries, manifest->n, sizeof(*manifest->entries), compare_path) : NULL;
}

static bool selected(const struct manifest_entry *entry, const char *const *paths)
{
    for (const char *const *prefix = paths; *prefix; prefix++)
        if (path_beneath(entry->path, *prefix) || (S_ISDIR(entry->mode) && path_beneath(*prefix, entry->path)))
            return true;
    return false;
}

/* With the directories that it lies in: all of them are staged, then dropped. */
static void mark_helper(const struct manifest *manifest, struct manifest_entry *entry)
{
    AUTO_FREE char *at = str_dup(entry->path);
    entry->helper = true;
    for (char *slash; (slash = strrchr(at, '/')) && slash > at;) {
        *slash = '\0';
        struct manifest_entry *above = manifest_find(manifest, at);
        if (above && !above->wanted)
            above->helper = true;
    }
}

void manifest_select(struct manifest *manifest, const char *const *paths)
{
    bool all = !paths || !paths[0];
    for (size_t i = 0; i < manifest->n; i++)
        manifest->entries[i].wanted = all || selected(&manifest->entries[i], paths);
    manifest_select_helpers(manifest);
}

void manifest_select_helpers(struct manifest *manifest)
{
    for (size_t i = 0; i < manifest->n; i++) {
        const struct manifest_entry *entry = &manifest->entries[i];
        struct manifest_entry *first =
            entry->wanted && entry->hard_link ? manifest_find(manifest, entry->hard_link) : NULL;
        if (first && !first->wanted)
            mark_helper(manifest, first);
    }
}

void manifest_entry_clear(struct manifest_entry *entry)
{
    free(entry->path);
    free(entry->link);
    free(entry->hard_link);
    *entry = (struct manifest_entry){0};
}

void manifest_clear(struct manifest *manifest)
{
    for (size_t i = 0; i < manifest->n; i++)
        manifest_entry_clear(&manifest->entries[i]);
    free(manifest->entries);
    *manifest = (struct manifest){0};
}
