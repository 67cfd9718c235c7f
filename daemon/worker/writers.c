#include "worker/writers.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/offspring.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/staging.h"
#include "worker/writer_metadata.h"
#include "worker/writer_spawn.h"

enum { CLOSE_TIMEOUT_MS = 5000 }; /* end-of-file first; who is still there then is killed */

static const char *const level_names[] = {"front_end", "back_end", "system"};

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

/* The children that we know: writers that were not reaped yet, and a mover. Returns how many. */
static size_t own_children(const struct worker *worker, pid_t *ret)
{
    size_t n = 0;
    if (worker->mover_pid > 0)
        ret[n++] = worker->mover_pid;
    if (worker->ready_mover.pid > 0)
        ret[n++] = worker->ready_mover.pid;
    for (size_t i = 0; i < worker->writers.n; i++)
        if (worker->writers.entries[i].client.pid > 0)
            ret[n++] = worker->writers.entries[i].client.pid;
    return n;
}

void writers_end_orphans(struct worker *worker, const struct writer_entry *entry)
{
    AUTO_FREE pid_t *keep = mem_new((worker->writers.n + 2) * sizeof(*keep));
    size_t n = own_children(worker, keep);
    for (size_t i = 0; i < worker->writers.n; i++) {
        const struct writer_entry *other = &worker->writers.entries[i];
        if (entry && other != entry && other->uid == entry->uid && !other->client.broken)
            return; /* whose they are cannot be told: when the other one is done */
    }
    size_t killed = offspring_kill_adopted(keep, n, entry ? entry->uid : (uid_t)OFFSPRING_ANY_USER);
    if (killed)
        log_line(LOG_LEVEL_WARNING, &(struct log_context){.session_id = worker->session, .writer = entry ? entry->name : NULL},
                 "%zu processes that a writer had left behind were ended", killed);
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
    if (writer_spawn(configuration, worker->session, worker->installation, worker->root, &entry->client, &identity, &err) < 0) {
        add_missing(&worker->writers, entry, &err);
        return;
    }
    entry->uid = identity.uid;
    entry->gid = identity.gid;
    entry->asked = WRITER_IDENTIFY;
    entry->started = true;
}

/* Does freeze stop any of its components from changing? (VSS: of every writer it does.) */
static bool holds_any(const json_t *metadata)
{
    const json_t *components = json_object_get(metadata, "components"), *component;
    size_t i;
    json_array_foreach(components, i, component)
    {
        if (str_eq(json_str(component, "hold", "writes"), "writes"))
            return true;
    }
    return json_array_size(components) == 0;
}

/* "Never within one writer" (vss-model 4.6). */
static int check_dependencies(const struct writer_entry *entry, const json_t *metadata, struct err *err)
{
    size_t i, k;
    const json_t *component, *dependency;
    json_array_foreach (json_object_get(metadata, "components"), i, component)
        json_array_foreach (json_object_get(component, "dependencies"), k, dependency)
            if (str_eq(json_str(dependency, "class_id", ""), entry->class_id))
                return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL,
                               "component %s depends on %s of its own writer", json_str(component, "name", ""),
                               json_str(dependency, "name", ""));
    return 0;
}

static void name_class(struct writer_entry *entry, const json_t *metadata)
{
    const char *class_id = json_str(metadata, "class_id", NULL);
    if (class_id)
        str_copy(entry->class_id, sizeof(entry->class_id), class_id);
    else
        uuid_named("class", json_str(entry->configuration, "type", "exec"), entry->class_id);
}

/* A writer whose Identify fails is missing: no document, no status entry (vss-model 1.3). */
static void take_metadata(struct worker *worker, struct writer_entry *entry, const json_t *filter)
{
    struct err err = entry->failure;
    const json_t *metadata = json_object_get(entry->client.answer, "metadata");
    if (!err.hr && !json_is_object(metadata))
        err_set(&err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "writer %s: identify without metadata", entry->name);
    name_class(entry, metadata);
    if (!err.hr && (writer_metadata_check(metadata, &err) < 0 || check_dependencies(entry, metadata, &err) < 0))
        err_prefix(&err, "writer %s: its metadata is wrong", entry->name);
    if (err.hr) {
        add_missing(&worker->writers, entry, &err);
        log_err(LOG_LEVEL_WARNING, &(struct log_context){.session_id = worker->session, .writer = entry->name}, &err,
                "the writer is left out");
        writer_client_clear(&entry->client);
        return;
    }
    if (!class_passes(filter, entry->class_id)) {
        writer_client_clear(&entry->client);
        return;
    }
    int64_t limit = worker_limit_ms(worker, "freeze_seconds", 60);
    int64_t own = json_int(metadata, "freeze_timeout_ms", limit);
    entry->freeze_timeout_ms = own < limit ? own : limit;
    for (size_t level = 0; level < ELEMENTS(level_names); level++)
        if (str_eq(json_str(metadata, "level", "front_end"), level_names[level]))
            entry->level = (enum writer_level)level;
    if (!holds_any(metadata))
        entry->level = LEVEL_UNHELD;
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
        entry->frozen_once = false;
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

json_t *writers_window(const struct writer_entry *entry)
{
    char from[CLOCK_RFC3339_SIZE], to[CLOCK_RFC3339_SIZE];
    if (!entry->frozen_once)
        return json_null();
    return json_pack("{s:s, s:s, s:f}", "started_at", clock_rfc3339(entry->freeze_ms, from), "ended_at",
                     clock_rfc3339(entry->thaw_ms, to), "window_ms",
                     (double)(entry->thaw_us - entry->freeze_us) / 1000.0);
}

json_t *writers_windows(const struct writers *writers)
{
    json_t *windows = json_array();
    for (size_t i = 0; i < writers->n; i++) {
        const struct writer_entry *entry = &writers->entries[i];
        if (entry->frozen_once)
            json_add(windows, json_pack("{s:s, s:f, s:b}", "writer", entry->name, "window_ms", (double)(entry->thaw_us - entry->freeze_us) / 1000.0,
                                        "failed", entry->failure.hr != 0));
    }
    return windows;
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
    writers_end_orphans(worker, NULL);
}
