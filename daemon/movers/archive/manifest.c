/* The manifest: one JSON line per entry, so that a reader needs no tar to know what was saved. */
#include <errno.h>
#include <string.h>

#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/archive/archive_private.h"

static const char *type_name(mode_t mode)
{
    static const struct {
        mode_t mode;
        const char *name;
    } types[] = {{S_IFREG, "file"}, {S_IFDIR, "directory"}, {S_IFLNK, "symlink"}, {S_IFIFO, "fifo"}, {S_IFCHR, "character"}, {S_IFBLK, "block"}};
    for (size_t i = 0; i < ELEMENTS(types); i++) {
        if (types[i].mode == (mode & S_IFMT))
            return types[i].name;
    }
    return "other";
}

/* Text when it is UTF-8, else base64url under NAME64: JSON has no raw bytes. */
static void put_bytes(json_t *line, const char *name, const char *name64, const char *bytes)
{
    json_t *text = json_string(bytes);
    if (text) {
        json_put(line, name, text);
        return;
    }
    AUTO_FREE char *encoded = hash_base64url(bytes, strlen(bytes));
    json_put(line, name64, json_string(encoded));
}

int manifest_add(FILE *file, const char *path, const struct stat *st, const char *sha256, const char *link, const char *hard_link, struct err *err)
{
    AUTO_JSON json_t *line =
        json_pack("{s:s, s:I, s:i, s:I, s:I, s:I, s:i}", "type", type_name(st->st_mode), "size", (json_int_t)(S_ISREG(st->st_mode) ? st->st_size : 0),
                  "mode", (int)(st->st_mode & 07777), "uid", (json_int_t)st->st_uid, "gid", (json_int_t)st->st_gid, "mtime",
                  (json_int_t)st->st_mtim.tv_sec, "mtime_ns", (int)st->st_mtim.tv_nsec);
    put_bytes(line, "path", "path64", path);
    if (sha256)
        json_put(line, "sha256", json_string(sha256));
    if (link)
        put_bytes(line, "link", "link64", link);
    if (hard_link)
        put_bytes(line, "hard_link", "hard_link64", hard_link);
    AUTO_FREE char *text = json_dumps(line, JSON_COMPACT);
    if (!text || fprintf(file, "%s\n", text) < 0)
        return arc_failed(errno, "cannot write", "the manifest", err);
    return 0;
}

char *manifest_key(const char *path)
{
    AUTO_JSON json_t *text = json_string(path);
    if (text)
        return str_dup(path);
    AUTO_FREE char *encoded = hash_base64url(path, strlen(path));
    return str_new("base64:%s", encoded);
}

json_t *manifest_load(const char *dir, struct err *err)
{
    char path[PATH_MAX + 64];
    str_format(path, sizeof path, "%s/manifest.jsonl", dir);
    FILE *file = fopen(path, "re");
    if (!file) {
        arc_failed(errno, "cannot read", path, err);
        return NULL;
    }
    json_t *manifest = json_object();
    AUTO_FREE char *line = NULL;
    size_t room = 0, number = 0;
    for (ssize_t n; (n = getline(&line, &room, file)) > 0;) {
        number++;
        json_t *entry = json_loadb(line, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
        const char *name = json_str(entry, "path", NULL), *name64 = json_str(entry, "path64", NULL);
        if (!name && !name64) {
            err_set(err, VSS_E_CORRUPT_XML_DOCUMENT, "Restore from another backup, or restore and compare by hand.", "%s: line %zu is damaged", path, number);
            json_decref(entry);
            json_decref(manifest);
            fclose(file);
            return NULL;
        }
        AUTO_FREE char *key = name ? str_dup(name) : str_new("base64:%s", name64);
        json_put(manifest, key, entry);
    }
    fclose(file);
    return manifest;
}
