#include "movers/program/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

enum { HEADER_MAX = 64 << 20 };

int record_make(const char *format, const struct mover_request *request, const json_t *result, FILE *manifest, int *ret_fd, struct err *err)
{
    AUTO_JSON json_t *header = json_copy((json_t *)result);
    const json_t *document = request->document;
    json_put(header, "format", json_string(format));
    json_put(header, "version", json_integer(1));
    json_put(header, "backup_id", json_string(request->backup_id));
    json_put(header, "document", document ? json_incref((json_t *)document) : json_null());
    AUTO_FREE char *text = json_dumps(header, JSON_COMPACT);
    AUTO_FD int fd = memfd_create("record", MFD_CLOEXEC);
    int from = fileno(manifest);
    off_t at = 0;
    if (fd < 0 || !text || dprintf(fd, "%s\n", text) < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the backup's record");
    for (ssize_t n; (n = sendfile(fd, from, &at, 1 << 30)) != 0;)
        if (n < 0)
            return err_errno(err, E_OUTOFMEMORY, errno, NULL, "no room for the backup's record");
    lseek(fd, 0, SEEK_SET);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* Into memory (a memfd, which may be swapped); 1 when the first line is all that is wanted, and there. */
static int fetch(struct program *program, FILE *file, bool header_only, struct err *err)
{
    char block[65536];
    size_t total = 0;
    for (size_t n = 1; n > 0; total += n) {
        if (program_read(program, block, sizeof(block), &n, err))
            return -1;
        if (fwrite(block, 1, n, file) != n)
            return err_set(err, E_OUTOFMEMORY, NULL, "no room for the backup's record");
        if (header_only && memchr(block, '\n', n))
            return 1;
        if (header_only && total > HEADER_MAX)
            return err_set(err, ERROR_FILE_CORRUPT, NULL, "the backup's record has no header");
    }
    return 0;
}

static int parse(const char *format, FILE *file, json_t **ret_header, struct manifest *ret_manifest, struct err *err)
{
    AUTO_FREE char *line = NULL;
    size_t room = 0;
    rewind(file);
    ssize_t n = getline(&line, &room, file);
    AUTO_JSON json_t *header = n > 0 ? json_loadb(line, (size_t)n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (!str_eq(json_str(header, "format", ""), format) || json_int(header, "version", 0) != 1)
        return err_set(err, ERROR_FILE_CORRUPT, "Use the program version that wrote it, or another backup.",
                       "the backup's record is damaged or of an unknown version");
    if (ret_manifest && manifest_read(ret_manifest, file, "the backup's record", err))
        return -1;
    *ret_header = TAKE_PTR(header);
    return 0;
}

int record_read(const char *format, struct program *program, json_t **ret_header, struct manifest *ret_manifest, struct err *err)
{
    int fd = memfd_create("record", MFD_CLOEXEC), result = 0;
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w+e");
    if (!file) {
        fd_cleanup(&fd);
        program_stop(program);
        return err_set(err, E_OUTOFMEMORY, NULL, "no room for the backup's record");
    }
    int fetched = fetch(program, file, !ret_manifest, err);
    if (fetched == 0)
        result = program_finish(program, err);
    else
        program_stop(program); /* the header is enough, or it failed */
    if (fetched < 0)
        result = -1;
    if (!result)
        result = parse(format, file, ret_header, ret_manifest, err);
    fclose(file);
    return result;
}
