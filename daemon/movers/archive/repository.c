/* The repository's directory: what lies where, and that only ours is touched. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "movers/archive/archive_private.h"
#include "movers/payload/scan.h"
#include "movers/seen.h"

static const char MARK[] = "quiesced-repository.json";

enum { FORMAT_VERSION = 1 };

const char *arc_path(const json_t *repository)
{
    return json_str(repository, "path", "");
}

static int write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, text, length);
        if (n < 0)
            return -1;
        text += n;
        length -= (size_t)n;
    }
    return 0;
}

static int put_json(const char *dir, const char *name, const json_t *doc, bool durable, struct err *err)
{
    char path[PATH_MAX + 64];
    str_format(path, sizeof(path), "%s/%s", dir, name);
    AUTO_FREE char *text = json_dumps(doc ? doc : json_null(), JSON_INDENT(1) | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || !text || write_all(fd, text, strlen(text)) || (durable && fsync(fd)))
        return payload_failed(errno, "write", path, err);
    return 0;
}

int arc_write_json(const char *dir, const char *name, const json_t *doc, struct err *err)
{
    return put_json(dir, name, doc, true, err);
}

int arc_put_json(const char *dir, const char *name, const json_t *doc, struct err *err)
{
    return put_json(dir, name, doc, false, err);
}

json_t *arc_read_json(const char *dir, const char *name)
{
    char path[PATH_MAX + 64];
    str_format(path, sizeof(path), "%s/%s", dir, name);
    return json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
}

static int create(const char *path, struct err *err)
{
    char id[UUID_SIZE], now[CLOCK_RFC3339_SIZE], scratch[PATH_MAX], mark[PATH_MAX + 64];
    AUTO_JSON json_t *fresh = json_pack("{s:i, s:s, s:s, s:s}", "version", FORMAT_VERSION, "format", "quiesced-archive",
                                        "id", uuid_v7(id), "created_at", clock_rfc3339(clock_real_ms(), now));
    if (mkdir(path, 0700) && errno != EEXIST)
        return payload_failed(errno, "create the repository", path, err);
    /* A crash must not leave half a mark, which would lock the repository for ever. */
    if (!str_format(scratch, sizeof(scratch), "quiesced-%s.partial", id) || arc_write_json(path, scratch, fresh, err))
        return -1;
    char from[2 * PATH_MAX];
    str_format(from, sizeof(from), "%s/%s", path, scratch);
    str_format(mark, sizeof(mark), "%s/%s", path, MARK);
    if (rename(from, mark)) {
        payload_failed(errno, "create", mark, err);
        unlink(from);
        return -1;
    }
    return 0;
}

int arc_open(const json_t *repository, bool create_new, struct err *err)
{
    const char *path = arc_path(repository), *name = json_str(repository, "name", "");
    struct stat st;
    char mark[PATH_MAX + 64];
    if (!path_is_canonical(path))
        return err_invalid(err, "/path", "repository %s: path must be absolute and canonical", name);
    str_format(mark, sizeof(mark), "%s/%s", path, MARK);
    if (stat(mark, &st)) {
        if (errno != ENOENT)
            return payload_failed(errno, "open the repository", path, err);
        if (create_new)
            return create(path, err) ? err_prefix(err, "repository %s", name) : 0;
        if (seen_before(repository))
            return seen_missing(repository, err);
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, "Is its disk mounted?",
                       "repository %s: %s is not an archive repository", name, path);
    }
    AUTO_JSON json_t *found = arc_read_json(path, MARK);
    if (json_int(found, "version", 0) != FORMAT_VERSION)
        return err_set(err, VSS_E_NOT_SUPPORTED, "Use the program version that wrote it, or a newer one.",
                       "repository %s: %s is damaged or of an unknown version", name, mark);
    return seen_check(repository, json_str(found, "id", ""), err);
}

void arc_tell_id(const json_t *repository, json_t *result)
{
    AUTO_JSON json_t *found = arc_read_json(arc_path(repository), MARK);
    json_put(result, "repository_id", json_string(json_str(found, "id", "")));
}

int arc_place(const json_t *repository, const char *backup_id, const char *suffix, char ret[PATH_MAX], struct err *err)
{
    if (!uuid_valid(backup_id))
        return err_set(err, E_INVALIDARG, NULL, "backup id %.64s is not an id", backup_id);
    if (!str_format(ret, PATH_MAX, "%s/%s%s", arc_path(repository), backup_id, suffix))
        return err_set(err, E_INVALIDARG, NULL, "the path of repository %s is too long",
                       json_str(repository, "name", ""));
    return 0;
}

void arc_remove_dir(const char *dir)
{
    static const char *const files[] = {"data.tar.zst",  "manifest.jsonl", "document.json",
                                        "complete.json", "seal.json",      "seal.json.partial"};
    char path[PATH_MAX + 64];
    for (size_t i = 0; i < ELEMENTS(files); i++) {
        str_format(path, sizeof(path), "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

/* Another process's sweep may take the fresh directory before it is locked: then once more. */
int arc_claim(const char *partial, struct err *err)
{
    for (int attempt = 0; attempt < 5; attempt++) {
        struct stat ours, there;
        if (mkdir(partial, 0700) && errno != EEXIST)
            return payload_failed(errno, "create", partial, err);
        AUTO_FD int fd = open(partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &ours) == 0 && lstat(partial, &there) == 0 &&
            ours.st_ino == there.st_ino)
            return TAKE_FD(fd);
    }
    return err_set(err, VSS_E_VOLUME_IN_USE, "Wait for the other copy to end.", "%s is in use", partial);
}

/* "ID.partial", "ID.removed"? */
static bool is_leftover(const char *name)
{
    char id[UUID_SIZE];
    if (strlen(name) < UUID_SIZE)
        return false;
    memcpy(id, name, UUID_SIZE - 1);
    id[UUID_SIZE - 1] = '\0';
    return uuid_valid(id) && (str_eq(name + UUID_SIZE - 1, ".partial") || str_eq(name + UUID_SIZE - 1, ".removed"));
}

void arc_sweep(const json_t *repository)
{
    DIR *dir = opendir(arc_path(repository));
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[PATH_MAX + 260];
        if (!is_leftover(entry->d_name))
            continue;
        str_format(path, sizeof(path), "%s/%s", arc_path(repository), entry->d_name);
        AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
            arc_remove_dir(path);
    }
    if (dir)
        closedir(dir);
}

int arc_list(const json_t *repository, const struct mover_host *host, json_t **ret_items, struct err *err)
{
    (void)host;
    DIR *dir = opendir(arc_path(repository));
    if (!dir)
        return payload_failed(errno, "read the repository", arc_path(repository), err);
    AUTO_JSON json_t *items = json_array();
    for (struct dirent *entry; (entry = readdir(dir));) {
        char place[PATH_MAX];
        if (!uuid_valid(entry->d_name) || arc_place(repository, entry->d_name, "", place, NULL))
            continue;
        AUTO_JSON json_t *complete = arc_read_json(place, "complete.json"),
                         *document = arc_read_json(place, "document.json"), *seal = arc_read_json(place, "seal.json");
        json_t *item =
            json_pack("{s:s, s:s, s:O?, s:s?, s:I, s:I}", "backup_id", entry->d_name, "data_id", entry->d_name,
                      "document", document, "created_at", json_str(complete, "created_at", NULL), "bytes",
                      (json_int_t)json_int(complete, "bytes", 0), "files", (json_int_t)json_int(complete, "files", 0));
        if (!json_is_object(complete) || !json_is_object(document)) /* it is told, and does not stop the scan */
            json_put(item, "damaged",
                     json_string(json_is_object(complete) ? "document.json is damaged" : "complete.json is damaged"));
        if (json_is_object(seal))
            json_put(item, "seal", json_incref(seal));
        json_add(items, item);
    }
    closedir(dir);
    *ret_items = TAKE_PTR(items);
    return 0;
}

int arc_seal(const json_t *repository, const char *backup_id, const json_t *seal, const struct mover_host *host,
             struct err *err)
{
    (void)host;
    char place[PATH_MAX], fresh[PATH_MAX + 64], path[PATH_MAX + 64];
    if (arc_place(repository, backup_id, "", place, err))
        return -1;
    AUTO_FD int dir = open(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0 && errno == ENOENT)
        return err_set(err, VSS_E_OBJECT_NOT_FOUND, NULL, "repository %s holds no backup %s",
                       json_str(repository, "name", ""), backup_id);
    str_format(fresh, sizeof(fresh), "%s/seal.json.partial", place);
    str_format(path, sizeof(path), "%s/seal.json", place);
    if (dir < 0 || fault("mover.archive.seal"))
        return payload_failed(dir < 0 ? errno : EIO, "write", path, err);
    if (arc_write_json(place, "seal.json.partial", seal, err))
        return -1;
    return rename(fresh, path) || fsync(dir) ? payload_failed(errno, "write", path, err) : 0;
}

int arc_remove(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host,
               struct err *err)
{
    (void)data_id, (void)host;
    char place[PATH_MAX], doomed[PATH_MAX], proof[PATH_MAX + 64];
    struct stat st;
    if (arc_place(repository, backup_id, "", place, err) || arc_place(repository, backup_id, ".removed", doomed, err))
        return -1;
    if (lstat(place, &st))
        return errno == ENOENT ? 0 : payload_failed(errno, "look at", place, err);
    str_format(proof, sizeof(proof), "%s/complete.json", place);
    if (!S_ISDIR(st.st_mode) || lstat(proof, &st))
        return err_set(err, VSS_E_UNEXPECTED, "Look at it, and remove it by hand; then delete the backup once more.", "%s is not a backup of ours",
                       place);
    if (rename(place, doomed)) /* gone from the list at once, whatever happens to the files */
        return payload_failed(errno, "remove", place, err);
    arc_remove_dir(doomed);
    return 0;
}
