/* A Backup Components Document that a client brings, or that a repository kept: checked, it gives components and a plan of
 * where their files go; every place is an absolute path. */
#include <stdio.h>
#include <stdlib.h>

#include "api/request.h"
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "engine/engine_private.h"
#include "engine/restore/restore.h"
#include "model/restore_plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *what, const char *more)
{
    fprintf(stderr, "%s: %s\n", what, more);
    abort();
}

static void check_items(const json_t *items)
{
    size_t i;
    const json_t *item;
    json_array_foreach (items, i, item)
        if (json_str(item, "path", "")[0] != '/' || json_str(item, "to", "")[0] != '/')
            fail("no place", json_str(item, "to", ""));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    AUTO_JSON json_t *document = json_parse_strict((const char *)data, size, REQUEST_DEPTH_MAX, &err);
    if (!json_is_object(document))
        return 0;
    if (restore_document_check(document, &err) < 0) {
        if (!err.text[0])
            fail("refused without words", "");
        return 0;
    }
    AUTO_JSON json_t *components = restore_components(document);
    if (json_array_size(components) > json_array_size(json_object_get(document, "components")))
        fail("more components than the document has", "");
    size_t i;
    json_t *component;
    json_array_foreach (components, i, component)
        json_put(component, "selected", json_true());
    AUTO_JSON json_t *unspoken = restore_plan_unspoken(document, components);
    AUTO_JSON json_t *items = restore_plan(document, components, &err);
    check_items(unspoken);
    check_items(items);
    return 0;
}
