#include "worker/writers.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/staging.h"
#include "worker/writer_metadata.h"
#include "worker/writer_spawn.h"

enum { CLOSE_TIMEOUT_MS = 5000 }; /* end-of-file first; who is still there then is killed */

static const char *const level_names[LEVEL_COUNT] = {"front_end", "back_end", "system"};

static bool listed(const json_t *list, const char *id)
{
    size_t i;
    const json_t *item;
    json_array_foreach (list, i, item)
        if (str_eq(json_string_value(item), id))
            return true;
    return false;
}

/* Filter algebra (vss-model 1.2): an Enable makes "only those", a Disable subtracts. */
static bool class_passes(const json_t *filter, const char *class_id)
{
    const json_t *enable = json_object_get(filter, "enable");
    if (json_array_size(enable) > 0 && !listed(enable, class_id))
        return false;
    return !listed(json_object_get(filter, "disable"), class_id);
}

static void add_missing(struct writers *writers, const struct writer_entry *entry, const struct err *err)
{
    json_add(writers->missing, json_pack("{s:s, s:s, s:o}", "name", entry->name, "instance_id", entry->instance_id,
                                         "error", err_to_json(err)));
}

static void forget_entry(struct writer_entry *entry)
{
    writer_client_clear(&entry->client);
    json_decref(entry->metadata);
    json_decref(entry->raw);
    json_decref(entry->components);
    json_decref(entry->application_code);
    entry->metadata = entry->raw = entry->components = entry->application_code = NULL;
}

static void forget_all(struct writers *writers)
{
    for (size_t i = 0; i < writers->n; i++)
        forget_entry(&writers->entries[i]);
    free(writers->entries);
    json_decref(writers->missing);
    json_decref(writers->answers);
    *writers = (struct writers){0};
}

static void start_entry(struct worker *worker, struct writer_entry *entry, const json_t *configuration,
                        const json_t *filter)
{
    *entry =
        (struct writer_entry){.configuration = configuration, .asked = WRITER_EVENT_COUNT, .state = "VSS_WS_STABLE"};
    entry->client = (struct writer_client){.pidfd = -1, .in_fd = -1, .out_fd = -1, .err_fd = -1, .broken = true};
    str_copy(entry->name, sizeof(entry->name), json_str(configuration, "name", json_str(configuration, "type", "?")));
    uuid_named("writer", entry->name, entry->instance_id);
    if (listed(json_object_get(filter, "disable_instances"), entry->instance_id))
        return;
    struct err err = {0};
    struct proc_identity identity = {0};
    if (writer_spawn(configuration, worker->session, worker->root, &entry->client, &identity, &err) < 0) {
        add_missing(&worker->writers, entry, &err);
        return;
    }
    entry->uid = identity.uid;
    entry->gid = identity.gid;
    entry->asked = WRITER_IDENTIFY;
    entry->started = true;
}

/* A writer whose Identify fails is missing: no document, no status entry (vss-model 1.3). */
static void take_metadata(struct worker *worker, struct writer_entry *entry, const json_t *filter)
{
    struct err err = entry->failure;
    const json_t *metadata = json_object_get(entry->client.answer, "metadata");
    if (!err.hr && !json_is_object(metadata))
        err_set(&err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "writer %s: identify without metadata", entry->name);
    if (!err.hr && writer_metadata_check(metadata, &err) < 0)
        err_prefix(&err, "writer %s: its metadata is wrong", entry->name);
    if (err.hr) {
        add_missing(&worker->writers, entry, &err);
        log_err(LOG_LEVEL_WARNING, &(struct log_context){.session_id = worker->session, .writer = entry->name}, &err,
                "the writer is left out");
        writer_client_clear(&entry->client);
        return;
    }
    const char *class_id = json_str(metadata, "class_id", NULL);
    if (class_id)
        str_copy(entry->class_id, sizeof(entry->class_id), class_id);
    else
        uuid_named("class", json_str(entry->configuration, "type", "exec"), entry->class_id);
    if (!class_passes(filter, entry->class_id)) {
        writer_client_clear(&entry->client);
        return;
    }
    int64_t limit = worker_limit_ms(worker, "freeze_seconds", 60);
    int64_t own = json_int(metadata, "freeze_timeout_ms", limit);
    entry->freeze_timeout_ms = own < limit ? own : limit;
    for (int level = 0; level < LEVEL_COUNT; level++)
        if (str_eq(json_str(metadata, "level", "front_end"), level_names[level]))
            entry->level = (enum writer_level)level;
    entry->raw = json_deep_copy(metadata);
    entry->metadata = writer_metadata_to_api(metadata, entry->name, entry->instance_id, entry->class_id);
    if (staging_prepare(worker, entry, &err) < 0)
        log_err(LOG_LEVEL_WARNING, &(struct log_context){.session_id = worker->session, .writer = entry->name}, &err,
                "the writer cannot add files");
}

int writers_gather(struct worker *worker, const json_t *filter, struct err *err)
{
    struct writers *writers = &worker->writers;
    const json_t *configured = json_object_get(worker->config, "writers");
    forget_all(writers);
    writers->n = json_array_size(configured);
    writers->entries = mem_new((writers->n + 1) * sizeof(*writers->entries));
    writers->missing = json_array();
    writers->answers = json_object();
    undo_push(&worker->undo, HOLD_WRITERS);
    for (size_t i = 0; i < writers->n; i++)
        start_entry(worker, &writers->entries[i], json_array_get(configured, i), filter);
    writers_tell(worker, TELL_STOPPABLE);
    if (wait_stopped(&worker->wait))
        return worker_stopped(worker, err);
    for (size_t i = 0; i < writers->n; i++)
        if (writers->entries[i].started)
            take_metadata(worker, &writers->entries[i], filter);
    writers->failures = 0;
    return 0;
}

void writers_begin(struct writers *writers)
{
    for (size_t i = 0; i < writers->n; i++) {
        struct writer_entry *entry = &writers->entries[i];
        entry->out = false;
        entry->failed_order = 0;
        entry->failure = (struct err){0};
        entry->state = "VSS_WS_STABLE";
        entry->application_message[0] = '\0';
        json_decref(entry->application_code);
        entry->application_code = NULL;
    }
    writers->failures = 0;
}

struct writer_entry *writers_by_instance(struct writers *writers, const char *instance_id)
{
    for (size_t i = 0; i < writers->n; i++)
        if (writers->entries[i].metadata && str_eq(writers->entries[i].instance_id, instance_id))
            return &writers->entries[i];
    return NULL;
}

void writers_turn(struct worker *worker, const struct wait_source *extra, size_t n_extra, int64_t deadline_ms)
{
    struct writers *writers = &worker->writers;
    AUTO_FREE struct wait_source *sources =
        mem_new((n_extra + writers->n * WRITER_CLIENT_SOURCES + 1) * sizeof(*sources));
    size_t n = n_extra;
    if (n_extra)
        memcpy(sources, extra, n_extra * sizeof(*sources));
    for (size_t i = 0; i < writers->n; i++)
        n += writer_client_sources(&writers->entries[i].client, sources + n);
    wait_turn(&worker->wait, sources, n, deadline_ms);
}

static json_t *status_of(const struct writer_entry *entry)
{
    char hex[11];
    bool dead = entry->client.broken && !entry->failure.hr;
    uint32_t hr = dead ? (uint32_t)VSS_E_WRITER_NOT_RESPONDING : entry->failure.hr;
    hresult_hex(hr, hex);
    json_t *status = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "instance_id", entry->instance_id, "class_id",
                               entry->class_id, "name", entry->name, "state", dead ? "VSS_WS_UNKNOWN" : entry->state,
                               "failure", hresult_name(hr), "code", hex);
    const char *message = entry->application_message;
    if (!message[0])
        message = dead ? entry->client.err.text : entry->failure.hr ? entry->failure.text : "";
    json_put(status, "application_code", entry->application_code ? json_incref(entry->application_code) : json_null());
    json_put(status, "application_message", message[0] ? json_string(message) : json_null());
    return status;
}

json_t *writers_status(const struct writers *writers)
{
    json_t *all = json_array();
    for (size_t i = 0; i < writers->n; i++)
        if (writers->entries[i].metadata)
            json_add(all, status_of(&writers->entries[i]));
    return all;
}

json_t *writers_failed(const struct writers *writers)
{
    json_t *failed = json_array();
    for (unsigned order = 1; order <= writers->failures; order++)
        for (size_t i = 0; i < writers->n; i++)
            if (writers->entries[i].metadata && writers->entries[i].failed_order == order)
                json_add(failed, status_of(&writers->entries[i]));
    return failed;
}

int writers_first_failure(const struct writers *writers, struct err *err)
{
    const struct writer_entry *first = NULL;
    for (size_t i = 0; i < writers->n; i++) {
        const struct writer_entry *entry = &writers->entries[i];
        if (entry->failure.hr && (!first || entry->failed_order < first->failed_order))
            first = entry;
    }
    if (!first)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "a writer failed");
    *err = first->failure;
    return -1;
}

void writers_hold_logs(struct writers *writers, bool held)
{
    for (size_t i = 0; i < writers->n; i++) {
        if (held)
            writers->entries[i].client.log_held = true;
        else
            writer_client_release_log(&writers->entries[i].client);
    }
}

void writers_close(struct worker *worker)
{
    struct writers *writers = &worker->writers;
    int64_t deadline = clock_mono_ms() + CLOSE_TIMEOUT_MS;
    for (size_t i = 0; i < writers->n; i++)
        writer_client_hang_up(&writers->entries[i].client);
    for (;;) {
        bool any = false;
        for (size_t i = 0; i < writers->n; i++)
            any |= !writer_client_gone(&writers->entries[i].client) && !writers->entries[i].client.broken;
        if (!any || clock_mono_ms() >= deadline)
            break;
        /* A writer that closed its output may live on for a moment: look again soon, whatever the pipes say. */
        int64_t soon = clock_mono_ms() + 5;
        writers_turn(worker, NULL, 0, soon < deadline ? soon : deadline);
    }
    forget_all(writers);
}
