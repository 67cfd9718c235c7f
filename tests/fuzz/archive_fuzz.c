/* What lies in a repository, or what restic dumps: a manifest and a tar stream that claims to fit it. A damaged one is told,
 * and never crashes whoever reads it. Input: flags, the manifest's length (two bytes), the manifest, the stream. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "movers/payload/manifest.h"
#include "movers/payload/tar_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FLAG_ZSTD = 1, FLAG_OURS = 2, HEAD = 3 };

struct stream {
    const uint8_t *bytes;
    size_t left;
};

static int read_some(void *arg, void *buffer, size_t size, size_t *ret_n, struct err *err)
{
    struct stream *stream = arg;
    (void)err;
    *ret_n = size < stream->left ? size : stream->left;
    memcpy(buffer, stream->bytes, *ret_n);
    stream->bytes += *ret_n;
    stream->left -= *ret_n;
    return 0;
}

static void no_progress(void *arg, const struct mover_progress *progress)
{
    (void)arg;
    (void)progress;
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    abort();
}

static void check_stream(struct manifest *manifest, const struct tar_input *input)
{
    static const struct mover_host host = {.progress = no_progress, .cancelled = never, .cancel_fd = -1};
    struct tar_check check = {.host = &host, .manifest = manifest, .damaged = json_array()};
    struct err err = {0};
    if (tar_check_run(&check, input, &err) < 0)
        fail("a failure, though nothing but the stream can be wrong");
    if (json_array_size(check.damaged) > TAR_DAMAGED_MAX + 1)
        fail("more damage than is told");
    AUTO_FREE char *told = json_dumps(check.damaged, 0);
    if (!told)
        fail("damage that cannot be told");
    json_decref(check.damaged);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    size_t length = (size_t)data[1] << 8 | data[2];
    if (length > size - HEAD)
        length = size - HEAD;
    struct manifest manifest = {0};
    struct err err = {0};
    FILE *file = length ? fmemopen((void *)(data + HEAD), length, "r") : NULL;
    if (!file)
        return 0;
    int result = manifest_read(&manifest, file, "manifest", &err);
    fclose(file);
    struct stream stream = {data + HEAD + length, size - HEAD - length};
    const struct tar_input input = {.read = read_some, .arg = &stream, .zstd = data[0] & FLAG_ZSTD, .ours = data[0] & FLAG_OURS};
    if (result == 0)
        check_stream(&manifest, &input);
    else if (!err.text[0])
        fail("a manifest refused without words");
    manifest_clear(&manifest);
    return 0;
}
