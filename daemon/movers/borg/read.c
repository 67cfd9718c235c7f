/* Back out of a borg repository: extract into the staging directory, verify as a tar stream against the manifest. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "base/utf8.h"
#include "movers/borg/borg_private.h"
#include "movers/payload/choice.h"
#include "movers/payload/scan.h"
#include "movers/payload/stage.h"
#include "movers/payload/tar_check.h"
#include "movers/program/stage_fill.h"

struct stored {
    struct borg borg;
    struct borg_backup backup;
    struct manifest manifest;
    json_t *header;
};

static void stored_close(struct stored *stored)
{
    borg_backup_clear(&stored->backup);
    manifest_clear(&stored->manifest);
    json_decref(stored->header);
}

static int stored_open(struct stored *stored, const char *backup_id, struct err *err)
{
    const char *name = borg_name(stored->borg.repository);
    if (borg_find(&stored->borg, backup_id, &stored->backup, err))
        return -1;
    if (!stored->backup.record)
        return payload_no_backup(name, backup_id, err);
    if (!stored->backup.data)
        return err_set(err, ERROR_FILE_CORRUPT, "Restore from another backup.", "repository %s: the data of backup %s is gone", name,
                       backup_id);
    return borg_load(&stored->borg, backup_id, &stored->header, &stored->manifest, err);
}

/* --- restore --- */

static bool in_chosen(const struct mover_restore *restore, const char *path)
{
    for (size_t i = 0; i < restore->n_sets; i++)
        if (choice_is_whole(&restore->sets[i]) && path_beneath(path, restore->sets[i].path))
            return true;
    for (size_t i = 0; !restore->n_sets && restore->paths && restore->paths[i]; i++)
        if (path_beneath(path, restore->paths[i]))
            return true;
    return false;
}

/* Patterns that match what is literally there: pp: a path and all beneath it, pf: one entry (borg help patterns). They come in a file, as there
 * may be more of them than a command line can hold. */
struct patterns {
    FILE *file;
    size_t n;
};

/* borg reads the file as lines of UTF-8. */
static bool fits_line(const char *path)
{
    for (size_t left = strlen(path), span; left > 0; path += span, left -= span)
        if ((unsigned char)*path < ' ' || !(span = utf8_span(path, left)))
            return false;
    return true;
}

/* The path, or the path and all beneath it, as a regular expression: borg has neither the leading slash nor bytes that are no UTF-8, which are
 * surrogates to it (PEP 383). */
static void add_odd(struct patterns *patterns, bool beneath, const char *path)
{
    fputs("+ re:\\A", patterns->file);
    for (size_t left = strlen(++path), span; left > 0; path += span, left -= span) {
        span = utf8_span(path, left);
        if (span > 1)
            fwrite(path, 1, span, patterns->file);
        else
            fprintf(patterns->file, span ? "\\x%02x" : "\\udc%02x", (unsigned)(unsigned char)*path);
        span = span ? span : 1;
    }
    fputs(beneath ? "(/|\\Z)\n" : "\\Z\n", patterns->file);
}

/* Its slash keeps white space at the end of the name. */
static void add_pattern(struct patterns *patterns, bool beneath, const char *path)
{
    patterns->n++;
    if (fits_line(path))
        fprintf(patterns->file, "+ %s:%s%s\n", beneath ? "pp" : "pf", path, path[1] ? "/" : "");
    else
        add_odd(patterns, beneath, path);
}

/* Whole folders by their own name; what else is wanted, the folders above it, and the first names of hard links, one by one. */
static int choose(const struct stage *stage, struct patterns *ret, struct err *err)
{
    const struct mover_restore *restore = stage->restore;
    int fd = memfd_create("patterns", MFD_CLOEXEC);
    *ret = (struct patterns){.file = fd < 0 ? NULL : fdopen(fd, "we")};
    if (!ret->file)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the list of files");
    for (size_t i = 0; i < restore->n_sets; i++)
        if (choice_is_whole(&restore->sets[i]))
            add_pattern(ret, true, restore->sets[i].path);
    for (size_t i = 0; !restore->n_sets && restore->paths && restore->paths[i]; i++)
        add_pattern(ret, true, restore->paths[i]);
    for (size_t i = 0; i < stage->manifest->n; i++) {
        const struct manifest_entry *entry = &stage->manifest->entries[i];
        if ((entry->wanted || entry->helper) && !in_chosen(restore, entry->path) && !str_eq(entry->path, "/"))
            add_pattern(ret, false, entry->path);
    }
    return fflush(ret->file) || ferror(ret->file) ? err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the list of files") : 0;
}

static bool is_whole(const struct mover_restore *restore)
{
    return !restore->n_sets && (!restore->paths || !restore->paths[0]);
}

/* What of it none of the patterns of fd matches is left where it is; -1: all of it comes. */
static int extract(struct stored *stored, struct stage *stage, int fd, struct err *err)
{
    struct borg_run run;
    size_t i;
    const json_t *warning;
    AUTO_FREE char *archive = str_new("::%s", stored->backup.data);
    const char *const all[] = {"extract", "--numeric-ids", "--sparse", archive, NULL};
    /* A path to include, though nothing is there: without any, borg takes what no pattern matches, too. */
    const char *const some[] = {"extract", "--numeric-ids", "--sparse", "--patterns-from", "/proc/self/fd/0", archive, "pf:/", NULL};
    if (borg_start(&run, &stored->borg, fd < 0 ? all : some, &(const struct borg_io){.in_fd = fd, .work_fd = stage->fd, .warnings_pass = true}, err))
        return -1;
    AUTO_JSON json_t *warnings = run.warnings = json_array();
    run.program.tick = stage_fill_tick;
    run.program.tick_arg = stage;
    if (program_drain(&run.program, err) || program_finish(&run.program, err))
        return -1;
    json_array_foreach(warnings, i, warning)
        /* borg does not count what pf: matches. What is missing is found by our own eyes. */
        if (!str_starts(json_string_value(warning), "Include pattern "))
            stage_warn(stage, "borg", json_string_value(warning));
    return 0;
}

static int fill_stage(struct stored *stored, struct stage *stage, struct err *err)
{
    struct patterns patterns = {0};
    int result = is_whole(stage->restore) ? 0 : choose(stage, &patterns, err);
    /* Sets of which nothing was there to be backed up: no borg to bring them. */
    if (!result && !(patterns.file && !patterns.n))
        result = extract(stored, stage, patterns.file ? fileno(patterns.file) : -1, err);
    if (!result)
        stage_fill_drop(stage, false);
    if (patterns.file)
        fclose(patterns.file);
    return result;
}

int borg_restore(const struct mover_restore *request, const struct mover_host *host, json_t **ret_result, struct err *err)
{
    struct stored stored = {.borg = {.repository = request->repository, .host = host}};
    struct stage stage = {.fd = -1};
    int result = stored_open(&stored, request->backup_id, err);
    if (!result)
        result = stage_open(&stage, request, host, &stored.manifest, err);
    stage.half_sparse = true; /* borg's holes are whole chunks of zeros */
    if (!result)
        result = fill_stage(&stored, &stage, err) || stage_verify(&stage, err) || stage_publish(&stage, err) ? -1 : 0;
    if (!result) {
        stage.progress.bytes_done = stage.progress.bytes_total;
        host->progress(host->arg, &stage.progress);
        *ret_result = stage_result(&stage);
    }
    stage_close(&stage);
    stored_close(&stored);
    return result;
}

/* --- verify --- */

/* Reads this backup's data alone (`borg check` would read everybody's): borg proves each chunk's id and authenticity while it
 * exports, and what comes out is held against the manifest. */
static int check_data(struct stored *stored, struct tar_check *check, struct err *err)
{
    struct borg_run run;
    struct err cause = {0};
    struct manifest_entry *top = manifest_find(&stored->manifest, "/");
    check->manifest = &stored->manifest;
    if (top) /* is not stored: see list_paths */
        top->found = true;
    for (size_t i = 0; i < stored->manifest.n; i++) {
        check->progress.bytes_total += stored->manifest.entries[i].size;
        check->progress.files_total += S_ISREG(stored->manifest.entries[i].mode);
    }
    AUTO_FREE char *archive = str_new("::%s", stored->backup.data);
    if (borg_start(&run, &stored->borg, (const char *const[]){"export-tar", archive, "-", NULL}, &borg_no_io, err))
        return -1;
    const struct tar_input input = {.read = program_read, .arg = &run.program, .links = true};
    if (tar_check_run(check, &input, err)) {
        program_stop(&run.program);
        return -1;
    }
    if (program_finish(&run.program, &cause) == 0)
        return 0;
    if (program_tells_nothing(&cause)) {
        *err = cause;
        return -1;
    }
    tar_check_damage(check, "/", cause.text);
    return 0;
}

int borg_verify(const json_t *repository, const char *backup_id, const char *data_id, const struct mover_host *host, json_t **ret_result,
                struct err *err)
{
    (void)data_id;
    struct stored stored = {.borg = {.repository = repository, .host = host}};
    struct tar_check check = {.host = host, .damaged = json_array()};
    struct err cause = {0};
    int result = stored_open(&stored, backup_id, &cause);
    if (!result)
        result = check_data(&stored, &check, &cause);
    if (result && cause.hr == (uint32_t)ERROR_FILE_CORRUPT) { /* an answer of verify, not a failure to verify */
        tar_check_damage(&check, "/", cause.text);
        result = 0;
    }
    if (!result)
        *ret_result = json_pack("{s:I, s:I, s:O}", "files", (json_int_t)check.progress.files_done, "bytes", (json_int_t)check.progress.bytes_done,
                                "damaged", check.damaged);
    else if (err)
        *err = cause;
    json_decref(check.damaged);
    stored_close(&stored);
    return result;
}

int borg_manifest(const json_t *repository, const char *backup_id, const struct mover_host *host, struct manifest *ret, struct err *err)
{
    struct stored stored = {.borg = {.repository = repository, .host = host}};
    int result = stored_open(&stored, backup_id, err);
    *ret = stored.manifest;
    stored.manifest = (struct manifest){0};
    stored_close(&stored);
    return result;
}
