/* The repository's directory: what lies where, and that only ours is touched. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/archive/archive_private.h"

static const char MARK[] = "quiesced-repository.json";

const char *arc_path(const json_t *repository)
{
    return json_str(repository, "path", "");
}

int arc_failed(int errnum, const char *what, const char *detail, struct err *err)
{
    bool full = errnum == ENOSPC || errnum == EDQUOT;
    return err_errno(err, full ? (uint32_t)VSS_E_INSUFFICIENT_STORAGE : (uint32_t)VSS_E_UNEXPECTED, errnum,
                     full ? "Make room in the repository, or use another one." : NULL, "%s %s", what, detail);
}

int arc_write_json(const char *dir, const char *name, const json_t *doc, struct err *err)
{
    char path[PATH_MAX + 64];
    str_format(path, sizeof path, "%s/%s", dir, name);
    AUTO_FREE char *text = json_dumps(doc, JSON_INDENT(1) | JSON_SORT_KEYS);
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    size_t length = text ? strlen(text) : 0;
    if (fd < 0 || !text || write(fd, text, length) != (ssize_t)length || fsync(fd))
        return arc_failed(errno, "cannot write", path, err);
    return 0;
}

json_t *arc_read_json(const char *dir, const char *name)
{
    char path[PATH_MAX + 64];
    str_format(path, sizeof path, "%s/%s", dir, name);
    return json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
}

int arc_open(const json_t *repository, bool create, struct err *err)
{
    const char *path = arc_path(repository);
    if (!path_is_canonical(path))
        return err_invalid(err, "/path", "repository %s: path must be absolute and canonical", json_str(repository, "name", ""));
    AUTO_JSON json_t *mark = arc_read_json(path, MARK);
    if (mark) {
        if (json_int(mark, "version", 0) == 1)
            return 0;
        return err_set(err, VSS_E_NOT_SUPPORTED, "Use the program version that wrote it, or a newer one.", "repository %s has an unknown format", path);
    }
    if (!create)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Is the disk mounted?", "%s is not an archive repository", path);
    if (mkdir(path, 0700) && errno != EEXIST)
        return arc_failed(errno, "cannot create the repository", path, err);
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE];
    AUTO_JSON json_t *fresh = json_pack("{s:i, s:s, s:s, s:s}", "version", 1, "format", "quiesced-archive", "id", uuid_v7(id), "created_at",
                                        clock_rfc3339(clock_real_ms(), now));
    return arc_write_json(path, MARK, fresh, err);
}

int arc_place(const json_t *repository, const char *backup_id, const char *suffix, char *ret, size_t size, struct err *err)
{
    if (!uuid_valid(backup_id))
        return err_set(err, E_INVALIDARG, NULL, "backup id %.64s is not an id", backup_id);
    if (!str_format(ret, size, "%s/%s%s", arc_path(repository), backup_id, suffix))
        return err_set(err, E_INVALIDARG, NULL, "the path of repository %s is too long", json_str(repository, "name", ""));
    return 0;
}

void arc_remove_dir(const char *dir)
{
    static const char *const files[] = {"data.tar.zst", "manifest.jsonl", "document.json", "complete.json"};
    char path[PATH_MAX + 64];
    for (size_t i = 0; i < ELEMENTS(files); i++) {
        str_format(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

int arc_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err)
{
    (void)host;
    DIR *dir = opendir(arc_path(repository));
    if (!dir)
        return arc_failed(errno, "cannot read the repository", arc_path(repository), err);
    json_t *items = json_array();
    for (struct dirent *entry; (entry = readdir(dir));) {
        char place[PATH_MAX];
        if (!uuid_valid(entry->d_name) || arc_place(repository, entry->d_name, "", place, sizeof place, NULL))
            continue;
        AUTO_JSON json_t *complete = arc_read_json(place, "complete.json"), *document = arc_read_json(place, "document.json");
        if (!json_is_object(complete) || !json_is_object(document))
            continue; /* damaged: verify tells; a scan must not stop at it */
        json_add(items, json_pack("{s:s, s:s, s:O, s:s?, s:I, s:I}", "backup_id", entry->d_name, "data_id", entry->d_name, "document", document,
                                  "created_at", json_str(complete, "created_at", NULL), "bytes", (json_int_t)json_int(complete, "bytes", 0), "files",
                                  (json_int_t)json_int(complete, "files", 0)));
    }
    closedir(dir);
    *ret_items = items;
    return 0;
}

int arc_remove(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host, struct err *err)
{
    (void)data_id, (void)host;
    char place[PATH_MAX], doomed[PATH_MAX];
    struct stat st;
    if (arc_place(repository, backup_id, "", place, sizeof place, err) || arc_place(repository, backup_id, ".removed", doomed, sizeof doomed, err))
        return -1;
    if (lstat(place, &st))
        return errno == ENOENT ? 0 : arc_failed(errno, "cannot look at", place, err);
    if (rename(place, doomed)) /* gone from the list at once, whatever happens to the files */
        return arc_failed(errno, "cannot remove", place, err);
    arc_remove_dir(doomed);
    return 0;
}
