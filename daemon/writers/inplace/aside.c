#include "writers/inplace/aside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"

const char aside_pattern[] = ".quiesced-*";

/* TAKEN: the old data is in the store, or about to go there. AWAY: what was restored is out of the way, and the old data on
 * its way back: whatever lies there now may be old data, and is never put away. BACK: the old data is in its place. */
enum place_state { TAKEN, AWAY, BACK };

/* One directory that is emptied: of a file set, or one of these that is a mount point or subvolume of its own. */
struct place {
    char *directory;
    char *spec;
    char *store;  /* where its files went; NULL until there is one, and when they are back */
    char *failed; /* where what is restored goes when it comes to nothing; made first, for an undo must need no space */
    enum place_state state;
};

struct aside {
    char stamp[32];
    struct place *places; /* outer ones before those within them */
    size_t n;
};

struct aside *aside_new(void)
{
    struct aside *aside = mem_new(sizeof(*aside));
    time_t now = (time_t)(clock_real_ms() / 1000);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(aside->stamp, sizeof(aside->stamp), "%Y%m%dT%H%M%SZ", &utc);
    return aside;
}

void aside_free(struct aside *aside)
{
    if (!aside)
        return;
    for (size_t i = 0; i < aside->n; i++) {
        free(aside->places[i].directory);
        free(aside->places[i].spec);
        free(aside->places[i].store);
        free(aside->places[i].failed);
    }
    free(aside->places);
    free(aside);
}

static void add_place(struct aside *aside, const char *directory, const char *spec)
{
    for (size_t i = 0; i < aside->n; i++)
        if (str_eq(aside->places[i].directory, directory) && str_eq(aside->places[i].spec, spec))
            return;
    aside->places = mem_resize(aside->places, (aside->n + 1) * sizeof(*aside->places));
    aside->places[aside->n++] = (struct place){.directory = str_dup(directory), .spec = str_dup(spec)};
}

static bool is_place(const struct aside *aside, const char *directory)
{
    for (size_t i = 0; i < aside->n; i++)
        if (str_eq(aside->places[i].directory, directory))
            return true;
    return false;
}

static void closedir_cleanup(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* Names first, moves afterwards: a directory that changes under readdir may tell an entry twice. One that is not there is
 * empty; NULL: it cannot be read, and nobody knows what is in it. */
static json_t *entries(const struct place *place, const char *directory, int *ret_errnum)
{
    CLEANUP(closedir_cleanup) DIR *dir = opendir(directory);
    *ret_errnum = dir ? 0 : errno;
    if (!dir)
        return *ret_errnum == ENOENT ? json_array() : NULL;
    json_t *names = json_array();
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        *ret_errnum = errno;
        if (!entry)
            break;
        if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, "..") || fnmatch(aside_pattern, entry->d_name, 0) == 0 ||
            fnmatch(place->spec, entry->d_name, 0) != 0)
            continue;
        /* As bytes: a file name need not be UTF-8. */
        json_add(names, json_stringn_nocheck(entry->d_name, strlen(entry->d_name)));
    }
    if (*ret_errnum) {
        json_decref(names);
        return NULL;
    }
    return names;
}

static bool on_device_of_parent(const char *directory)
{
    AUTO_FREE char *parent = str_new("%s/..", directory);
    struct stat inner, outer;
    return stat(directory, &inner) == 0 && stat(parent, &outer) == 0 && inner.st_dev == outer.st_dev;
}

/* Beside the directory: whoever lists it sees the old data at once, and no server takes it for its own. */
static int make_store(const struct aside *aside, const struct place *place, const char *what, char **ret, struct err *err)
{
    struct stat status;
    mode_t mode = stat(place->directory, &status) == 0 ? status.st_mode & 0777 : 0700;
    AUTO_FREE char *beside = str_new("%s.%s-%s", place->directory, what, aside->stamp);
    AUTO_FREE char *within = str_new("%s/.quiesced-%s-%s", place->directory, what, aside->stamp);
    if (on_device_of_parent(place->directory) && (mkdir(beside, mode) == 0 || errno == EEXIST)) {
        *ret = TAKE_PTR(beside);
        return 0;
    }
    if (mkdir(within, mode) != 0 && errno != EEXIST)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno,
                         "The writer's user must be able to write there.", "%s", within);
    *ret = TAKE_PTR(within);
    return 0;
}

static void sync_directory(const char *path)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        fsync(fd);
}

/* A directory of another owner may not be given another parent, but another name where it is. */
static int move_entry(const char *from_directory, const char *name, const char *to_directory)
{
    AUTO_FREE char *from = str_new("%s/%s", from_directory, name);
    AUTO_FREE char *to = str_new("%s/%s", to_directory, name);
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    return errno == EINVAL ? rename(from, to) : -1; /* file systems that do not know the flag */
}

static bool own_file_system(int errnum)
{
    return errnum == EBUSY || errnum == EXDEV; /* a mount point; a subvolume that another one holds */
}

/* Nothing is moved before there is a place for what may have to be put away: the disk may be full by then. */
static int make_failed(const struct aside *aside, struct place *place, struct err *err)
{
    if (place->failed || access(place->directory, F_OK) != 0)
        return 0;
    return make_store(aside, place, "failed-restore", &place->failed, err);
}

static int take_place(struct aside *aside, size_t index, struct err *err)
{
    /* By index: adding a place moves the array. */
    int errnum;
    AUTO_JSON json_t *names = entries(&aside->places[index], aside->places[index].directory, &errnum);
    size_t i;
    const json_t *name;
    if (!names)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errnum, "The writer's user must own it.", "%s",
                         aside->places[index].directory);
    if (make_failed(aside, &aside->places[index], err) != 0)
        return -1;
    json_array_foreach(names, i, name)
    {
        struct place *place = &aside->places[index];
        if (!place->store && make_store(aside, place, "before-restore", &place->store, err) != 0)
            return -1;
        if (move_entry(place->directory, json_string_value(name), place->store) == 0)
            continue;
        errnum = errno;
        AUTO_FREE char *path = str_new("%s/%s", place->directory, json_string_value(name));
        if (!own_file_system(errnum))
            return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errnum,
                             "The writer's user must be able to move the old data aside.", "%s", path);
        add_place(aside, path, "*");
    }
    if (aside->places[index].store) {
        sync_directory(aside->places[index].store);
        sync_directory(aside->places[index].directory);
    }
    return 0;
}

/* Two sets of one directory have one store, and one place for what is put away. */
static bool shares_store(const struct aside *aside, const struct place *place)
{
    for (size_t i = 0; i < aside->n; i++)
        if (&aside->places[i] != place && str_eq(aside->places[i].store, place->store))
            return true;
    return false;
}

/* From the store back to the place; the store goes with its last file, and only then is the place BACK. */
static int give_back(const struct aside *aside, struct place *place, struct err *err)
{
    int errnum = 0;
    AUTO_JSON json_t *names = place->store ? entries(place, place->store, &errnum) : NULL;
    size_t i;
    const json_t *name;
    const char *what = place->store && !names ? place->store : NULL;
    json_array_foreach(names, i, name) if (move_entry(place->store, json_string_value(name), place->directory) != 0)
    {
        errnum = errno;
        what = json_string_value(name);
        break;
    }
    if (!what && place->store && rmdir(place->store) != 0 && errno != ENOENT &&
        !((errno == ENOTEMPTY || errno == EEXIST) && shares_store(aside, place))) {
        errnum = errno;
        what = place->store;
    }
    sync_directory(place->directory);
    if (what) {
        err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errnum, NULL, "%s", what);
        return err_prefix(err, "the old data of %s lies in %s", place->directory, place->store);
    }
    free(place->store);
    place->store = NULL;
    place->state = BACK;
    return 0;
}

/* Where nothing was put away. */
static void drop_failed(struct aside *aside)
{
    for (size_t i = 0; i < aside->n; i++) {
        struct place *place = &aside->places[i];
        if (!place->failed || (rmdir(place->failed) != 0 && errno != ENOENT))
            continue;
        free(place->failed);
        place->failed = NULL;
    }
}

/* aside_take in reverse: what it had not taken yet is old data too, and stays. */
static void untake(struct aside *aside, struct err *err)
{
    struct err one = {0};
    for (size_t i = 0; i < aside->n; i++)
        aside->places[i].state = AWAY;
    for (size_t i = aside->n; i-- > 0;)
        if (give_back(aside, &aside->places[i], &one) != 0)
            err_prefix(err, "%s", one.text);
    drop_failed(aside);
}

int aside_take(struct aside *aside, const json_t *file_sets, struct err *err)
{
    size_t i;
    const json_t *set;
    int result = 0;
    json_array_foreach(file_sets, i, set) add_place(aside, json_str(set, "path", "/"), json_str(set, "spec", "*"));
    for (size_t index = 0; result == 0 && index < aside->n; index++)
        result = make_failed(aside, &aside->places[index], err);
    for (size_t index = 0; result == 0 && index < aside->n; index++)
        result = take_place(aside, index, err);
    if (result != 0)
        untake(aside, err);
    return result;
}

bool aside_is_back(const struct aside *aside)
{
    for (size_t i = 0; i < aside->n; i++)
        if (aside->places[i].state != BACK)
            return false;
    return true;
}

/* What lies there now, into a place of its own; a directory that may not be moved gets another name where it is. */
static int put_away(const struct aside *aside, struct place *place, struct err *err)
{
    int errnum;
    AUTO_JSON json_t *names = entries(place, place->directory, &errnum);
    size_t i;
    const json_t *value;
    if (!names)
        return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errnum, NULL, "%s", place->directory);
    json_array_foreach(names, i, value)
    {
        const char *name = json_string_value(value);
        AUTO_FREE char *path = str_new("%s/%s", place->directory, name);
        if (is_place(aside, path))
            continue;
        if (!place->failed && make_store(aside, place, "failed-restore", &place->failed, err) != 0)
            return -1;
        if (move_entry(place->directory, name, place->failed) == 0)
            continue;
        AUTO_FREE char *renamed = str_new("%s/.quiesced-failed-restore-%s-%s", place->directory, aside->stamp, name);
        if (rename(path, renamed) != 0)
            return err_errno(err, VSS_E_WRITERERROR_NONRETRYABLE, errno, NULL, "%s cannot be moved away", path);
    }
    place->state = AWAY;
    return 0;
}

/* Another set of the directory still has something to put away: it could not tell it from old data. */
static bool waits_for_another(const struct aside *aside, const struct place *place)
{
    for (size_t i = 0; i < aside->n; i++)
        if (aside->places[i].state == TAKEN && str_eq(aside->places[i].directory, place->directory))
            return true;
    return false;
}

static void keep_first(struct err *err, const struct err *one, int *result)
{
    if (*result == 0 && err)
        *err = *one;
    *result = -1;
}

int aside_put_back(struct aside *aside, struct err *err)
{
    int result = 0;
    struct err one = {0};
    for (size_t i = aside->n; i-- > 0;) { /* inner ones first */
        struct place *place = &aside->places[i];
        if (place->state != TAKEN || put_away(aside, place, &one) == 0)
            continue;
        err_prefix(&one, "the old data of %s lies in %s", place->directory, place->store ? place->store : "its place");
        keep_first(err, &one, &result);
    }
    for (size_t i = aside->n; i-- > 0;) {
        struct place *place = &aside->places[i];
        if (place->state == AWAY && !waits_for_another(aside, place) && give_back(aside, place, &one) != 0)
            keep_first(err, &one, &result);
    }
    if (result == 0)
        drop_failed(aside);
    return result;
}

static bool remove_tree(int parent, const char *name, int64_t give_up_ms)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return true;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    CLEANUP(closedir_cleanup) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        fd_cleanup(&fd);
        return false;
    }
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
            continue;
        if (clock_mono_ms() >= give_up_ms || !remove_tree(dirfd(dir), entry->d_name, give_up_ms))
            return false;
    }
    return unlinkat(parent, name, AT_REMOVEDIR) == 0;
}

/* Directories that put_away could only rename. */
static void remove_renamed(const struct aside *aside, const struct place *place, int64_t give_up_ms)
{
    AUTO_FREE char *prefix = str_new(".quiesced-failed-restore-%s-", aside->stamp);
    CLEANUP(closedir_cleanup) DIR *dir = opendir(place->directory);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (str_starts(entry->d_name, prefix))
            remove_tree(dirfd(dir), entry->d_name, give_up_ms);
}

bool aside_remove(struct aside *aside, int64_t give_up_ms)
{
    bool all = true, back = aside_is_back(aside);
    if (!back)
        drop_failed(aside);
    for (size_t i = 0; i < aside->n; i++) {
        struct place *place = &aside->places[i];
        char **useless = back ? &place->failed : &place->store;
        if (back)
            remove_renamed(aside, place, give_up_ms);
        if (!*useless)
            continue;
        /* AWAY: half of the old data may be in the store. */
        if ((!back && place->state != TAKEN) || !remove_tree(AT_FDCWD, *useless, give_up_ms)) {
            all = false;
            continue;
        }
        free(*useless);
        *useless = NULL;
    }
    return all;
}

static char *joined(char *list, const char *more)
{
    char *longer = str_new("%s%s%s", list, list[0] ? ", " : "", more);
    free(list);
    return longer;
}

char *aside_left(const char *directory)
{
    AUTO_FREE char *beside = str_new("%s.before-restore-*", directory);
    AUTO_FREE char *within = str_new("%s/.quiesced-before-restore-*", directory);
    const char *const patterns[] = {beside, within};
    char *list = str_dup("");
    for (size_t i = 0; i < ELEMENTS(patterns); i++) {
        glob_t found = {0};
        if (glob(patterns[i], 0, NULL, &found) == 0)
            for (size_t k = 0; k < found.gl_pathc; k++)
                list = joined(list, found.gl_pathv[k]);
        globfree(&found);
    }
    return list;
}

char *aside_where(const struct aside *aside)
{
    char *where = str_dup("");
    const char *last = NULL;
    for (size_t i = 0; aside && i < aside->n; i++) {
        const struct place *place = &aside->places[i];
        const char *path = place->state == BACK ? place->failed : place->store;
        if (!path || str_eq(path, last))
            continue;
        where = joined(where, path);
        last = path;
    }
    return where;
}
