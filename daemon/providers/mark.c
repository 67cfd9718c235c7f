#include "providers/mark.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ident.h"
#include "base/jsonspec.h"
#include "base/str.h"

enum { MARK_MAX = 16384, NAME_SIZE = UUID_SIZE + 16 };

static int mark_errno(const struct place *place, const char *id, int errnum, const char *verb, struct err *err)
{
    return err_errno(err, provider_hresult(errnum), errnum, NULL, "cannot %s the ownership mark %s/%s.json", verb,
                     place->path, id);
}

/* A new reference, or NULL with errno (EBADMSG: not JSON). */
static json_t *mark_read(int place_fd, const char *name)
{
    AUTO_FD int fd = openat(place_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    AUTO_FREE char *text = mem_new(MARK_MAX);
    ssize_t n = read(fd, text, MARK_MAX);
    if (n < 0)
        return NULL;
    json_t *mark = json_parse_strict(text, (size_t)n, 8, NULL);
    if (!mark)
        errno = EBADMSG;
    return mark;
}

static bool is_ours(const json_t *mark, const char *provider, const char *node)
{
    return str_eq(json_str(mark, "provider", NULL), provider) && str_eq(json_str(mark, "node", NULL), node);
}

int mark_check(const struct place *place, const char *provider, const char *node, const char *id, struct err *err)
{
    char name[NAME_SIZE];
    str_format(name, sizeof(name), "%s.json", id);
    AUTO_JSON json_t *mark = mark_read(place->fd, name);
    if (!mark)
        return errno == ENOENT ? 0 : mark_errno(place, id, errno, "read", err);
    if (!is_ours(mark, provider, node) || !str_eq(json_str(mark, "id", NULL), id))
        return err_set(err, VSS_E_PROVIDER_VETO, NULL, "%s/%s carries the mark of provider %s on node %s", place->path,
                       id, json_str(mark, "provider", "?"), json_str(mark, "node", "?"));
    return 1;
}

static int write_all(int fd, const char *text)
{
    for (size_t left = strlen(text); left;) {
        ssize_t n = write(fd, text, left);
        if (n < 0 && errno != EINTR)
            return errno;
        text += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    return fsync(fd) < 0 ? errno : 0;
}

/* A file without a name until it is whole: a worker that is killed meanwhile leaves nothing. */
static int write_unnamed(const struct place *place, const char *name, const char *text)
{
    char path[64];
    AUTO_FD int fd = openat(place->fd, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    int r = write_all(fd, text);
    str_format(path, sizeof(path), "/proc/self/fd/%d", fd);
    return r ? r : linkat(AT_FDCWD, path, place->fd, name, AT_SYMLINK_FOLLOW) < 0 ? errno : 0;
}

/* Where the file system has no such files (open(2): EOPNOTSUPP, EISDIR, ENOENT). */
static int write_renamed(const struct place *place, const char *id, const char *name, const char *text)
{
    char new_name[NAME_SIZE];
    str_format(new_name, sizeof(new_name), "%s.new", id);
    AUTO_FD int fd = openat(place->fd, new_name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int r = fd < 0 ? errno : write_all(fd, text);
    if (!r && renameat(place->fd, new_name, place->fd, name) < 0)
        r = errno;
    if (r)
        unlinkat(place->fd, new_name, 0);
    return r;
}

int mark_write(const struct place *place, const char *provider, const char *node,
               const struct provider_snapshot *snapshot, struct err *err)
{
    char name[NAME_SIZE], created[CLOCK_RFC3339_SIZE];
    int r = mark_check(place, provider, node, snapshot->id, err);
    if (r)
        return r < 0 ? -1 : 0;
    AUTO_JSON json_t *mark =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "provider", provider, "node", node, "id", snapshot->id,
                  "set_id", snapshot->set_id, "session_id", snapshot->session_id, "volume", snapshot->volume.path,
                  "created", clock_rfc3339(clock_real_ms(), created));
    AUTO_FREE char *text = mark ? json_dumps(mark, JSON_COMPACT) : NULL;
    if (!text)
        return err_set(err, E_INVALIDARG, NULL, "volume of snapshot %s: its path is not UTF-8", snapshot->id);
    str_format(name, sizeof(name), "%s.json", snapshot->id);
    r = write_unnamed(place, name, text);
    if (r == EOPNOTSUPP || r == EISDIR || r == ENOENT)
        r = write_renamed(place, snapshot->id, name, text);
    if (!r && fsync(place->fd) < 0)
        r = errno;
    return r ? mark_errno(place, snapshot->id, r, "write", err) : 0;
}

int mark_remove(const struct place *place, const char *id, struct err *err)
{
    char name[NAME_SIZE];
    str_format(name, sizeof(name), "%s.json", id);
    if (unlinkat(place->fd, name, 0) < 0)
        return errno == ENOENT ? 0 : mark_errno(place, id, errno, "remove", err);
    return fsync(place->fd) < 0 ? mark_errno(place, id, errno, "remove", err) : 0;
}

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* Is this directory entry a mark of ours? Its id and content then, else NULL. */
static json_t *ours_by_name(const struct place *place, const char *name, const char *provider, const char *node,
                            char ret_id[UUID_SIZE])
{
    if (strlen(name) != UUID_SIZE - 1 + strlen(".json") || !str_eq(name + UUID_SIZE - 1, ".json"))
        return NULL;
    memcpy(ret_id, name, UUID_SIZE - 1);
    ret_id[UUID_SIZE - 1] = '\0';
    AUTO_JSON json_t *mark = uuid_valid(ret_id) ? mark_read(place->fd, name) : NULL;
    bool ours = mark && is_ours(mark, provider, node) && str_eq(json_str(mark, "id", NULL), ret_id);
    return ours ? TAKE_PTR(mark) : NULL;
}

static bool has_tree(const struct place *place, const char *id)
{
    struct stat stat;
    return fstatat(place->fd, id, &stat, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

static void list_one(const struct place *place, const char *name, const char *provider, const char *node, json_t *items)
{
    char id[UUID_SIZE];
    AUTO_JSON json_t *mark = ours_by_name(place, name, provider, node, id);
    if (!mark)
        return;
    AUTO_FREE char *path = str_new("%s/%s", place->path, id);
    json_t *item = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "id", id, "set_id", json_str(mark, "set_id", ""),
                             "session_id", json_str(mark, "session_id", ""), "path", path, "volume",
                             json_str(mark, "volume", ""), "present", has_tree(place, id));
    if (item)
        json_add(items, item);
}

void mark_sweep(const struct place *place, const char *provider, const char *node, int64_t max_age_s)
{
    int fd = openat(place->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(closedir_cleanup) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char id[UUID_SIZE];
        struct stat stat;
        AUTO_JSON json_t *mark = ours_by_name(place, entry->d_name, provider, node, id);
        if (mark && !has_tree(place, id) && fstatat(place->fd, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) == 0 &&
            stat.st_mtim.tv_sec < clock_real_ms() / 1000 - max_age_s)
            unlinkat(place->fd, entry->d_name, 0);
    }
}

int mark_list(const struct place *place, const char *provider, const char *node, json_t *items, struct err *err)
{
    int fd = openat(place->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(closedir_cleanup) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return err_errno(err, provider_hresult(errno), errno, NULL, "cannot read %s", place->path);
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry)
            return errno ? err_errno(err, provider_hresult(errno), errno, NULL, "cannot read %s", place->path) : 0;
        list_one(place, entry->d_name, provider, node, items);
    }
}
