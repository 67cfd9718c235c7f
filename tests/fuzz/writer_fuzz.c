/* What a writer says on its standard output: lines, an answer, metadata. A lying one is refused with words; what is taken
 * has the API's shape, and no component that was not asked about. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/lines.h"
#include "worker/writer_metadata.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LINE_MAX_BYTES = 4096, DEPTH = 32 };

static const char asked_text[] = "[{\"logical_path\":\"\",\"name\":\"main\"},{\"logical_path\":\"a\",\"name\":\"b\"}]";

static void fail(const char *what, const char *more)
{
    fprintf(stderr, "%s: %s\n", what, more);
    abort();
}

static void take_metadata(const json_t *metadata)
{
    struct err err = {0};
    if (writer_metadata_check(metadata, &err) < 0) {
        if (!err.text[0])
            fail("metadata refused without words", "");
        return;
    }
    AUTO_JSON json_t *api = writer_metadata_to_api(metadata, "n", "i", "c");
    size_t i;
    const json_t *component;
    if (!json_is_array(json_object_get(api, "components")) || !json_is_array(json_object_get(api, "exclude")))
        fail("not the API's shape", "");
    json_array_foreach (json_object_get(api, "components"), i, component)
        if (!json_str(component, "name", "")[0] || !json_is_array(json_object_get(component, "file_sets")))
            fail("a component without a name or file sets", "");
}

static void take_line(const char *line, size_t length, const json_t *asked)
{
    struct err err = {0};
    AUTO_JSON json_t *answer = json_parse_strict(line, length, DEPTH, &err);
    if (!answer || writer_answer_check(answer, &err) < 0) {
        if (!err.text[0])
            fail("refused without words", line);
        return;
    }
    const json_t *components = json_object_get(answer, "components");
    if (components && writer_components_check(components, asked, &err) == 0 && json_array_size(components) > json_array_size(asked))
        fail("more components than were asked about", line);
    if (json_object_get(answer, "metadata"))
        take_metadata(json_object_get(answer, "metadata"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lines lines;
    size_t length;
    const char *line;
    int fd = memfd_create("writer", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) != 0)
        fail("memfd", "");
    AUTO_JSON json_t *asked = json_loads(asked_text, 0, NULL);
    lines_init(&lines, LINE_MAX_BYTES);
    while (lines_fill(&lines, fd) > 0 && !lines.overlong)
        while ((line = lines_next(&lines, &length)) && length <= LINE_MAX_BYTES)
            take_line(line, length, asked);
    lines_clear(&lines);
    close(fd);
    return 0;
}
