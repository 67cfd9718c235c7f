/* What GET /metrics tells of the engine: counted where it happens, written from memory. Only the last success of each label (successes.c)
 * outlives the process. */
#include "engine/audit/audit_seals.h"
#include "engine/engine_private.h"

#include <search.h>

#include "base/openmetrics.h"
#include "engine/session/session.h"
#include "engine/webhook/webhooks.h"

enum {
    PROVIDERS_MOST = 50,  /* by outcome: there are three outcomes of five providers */
    WRITERS_MOST = 400,   /* two outcomes each */
    OPERATIONS_MOST = 100 /* 16 operations, three outcomes */
};

struct figures {
    struct histograms freezes, writers, jobs;
    uint64_t leases_expired, incidents;
};

/* --- counting --- */

struct figures *figures_new(void)
{
    struct figures *figures = mem_new(sizeof *figures);
    figures->freezes = (struct histograms){.bounds = &histogram_freeze_bounds, .most = PROVIDERS_MOST};
    figures->writers = (struct histograms){.bounds = &histogram_freeze_bounds, .most = WRITERS_MOST};
    figures->jobs = (struct histograms){.bounds = &histogram_job_bounds, .most = OPERATIONS_MOST};
    return figures;
}

void figures_free(struct figures *figures)
{
    if (!figures)
        return;
    histograms_clear(&figures->freezes);
    histograms_clear(&figures->writers);
    histograms_clear(&figures->jobs);
    free(figures);
}

void figures_phase(struct job *job, const json_t *progress)
{
    const char *phase = json_str(progress, "phase", "");
    bool frozen = str_eq(phase, "freeze") || str_eq(phase, "hold");
    if (!frozen)
        job->frozen_us = 0;
    else if (!job->frozen_us)
        job->frozen_us = clock_mono_us();
}

/* The provider of all volumes, or that there were several. */
static const char *provider_of(const struct job *job)
{
    size_t i;
    const json_t *volume;
    const char *provider = NULL;
    json_array_foreach(json_object_get(session_private(job->session->doc), "volumes"), i, volume)
    {
        const char *one = json_str(volume, "provider", "none");
        if (provider && !str_eq(provider, one))
            return "several";
        provider = one;
    }
    return provider ? provider : "none";
}

static const char *outcome_of(const struct err *err)
{
    if (!err)
        return "succeeded";
    return err->hr == (uint32_t)VSS_S_ASYNC_CANCELLED ? "cancelled" : "failed";
}

void figures_snapshot(struct job *job, const json_t *result, const struct err *err)
{
    struct figures *figures = job->engine->figures;
    const json_t *window = json_object_get(json_object_get(result, "freeze"), "window_ms"), *writer;
    size_t i;
    if (json_is_number(window))
        histograms_add(&figures->freezes, provider_of(job), outcome_of(err), json_number_value(window) / 1000);
    json_array_foreach(json_object_get(result, "windows"), i, writer)
        histograms_add(&figures->writers, json_str(writer, "writer", "unknown"), json_bool(writer, "failed", false) ? "failed" : "succeeded",
                       json_number_value(json_object_get(writer, "window_ms")) / 1000);
}

void figures_job_ended(const struct job *job)
{
    int64_t took = job->started_us ? clock_mono_us() - job->started_us : 0;
    histograms_add(&job->engine->figures->jobs, job->kind->name, job_state_name(job->state), (double)took / 1e6);
}

void figures_lease_expired(struct engine *engine)
{
    engine->figures->leases_expired++;
}

void figures_incident(struct engine *engine)
{
    engine->figures->incidents++;
}

/* --- what there is now --- */

struct census {
    size_t jobs[JOB_STATE_COUNT];
    size_t sessions[SESSION_STATE_COUNT];
    int64_t frozen_us; /* the oldest freeze of applications, or 0 */
};

static void count_job(const void *node, VISIT visit, void *arg)
{
    const struct job *job = *(struct job *const *)node;
    struct census *census = arg;
    if (visit != postorder && visit != leaf)
        return;
    census->jobs[job->state]++;
    if (job->frozen_us && (!census->frozen_us || job->frozen_us < census->frozen_us))
        census->frozen_us = job->frozen_us;
}

static void count_session(const void *node, VISIT visit, void *arg)
{
    const struct session *session = *(struct session *const *)node;
    struct census *census = arg;
    if (visit == postorder || visit == leaf)
        census->sessions[session_state(session->doc)]++;
}

/* --- writing --- */

static void write_now(struct engine *engine, struct openmetrics *text)
{
    struct census census = {0};
    twalk_r(engine->jobs, count_job, &census);
    twalk_r(engine->sessions, count_session, &census);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_jobs", "Jobs that have not ended, by state.");
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        if (!job_state_terminal((enum job_state)i))
            openmetrics_one(text, "state", job_state_name((enum job_state)i), (double)census.jobs[i]);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_jobs_unsaved", "Jobs whose end the store has refused to record so far.");
    openmetrics_plain(text, (double)engine->n_unsaved);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_sessions", "Sessions in memory, by state: those that are open, and completed ones until they are released.");
    for (int i = 0; i < SESSION_STATE_COUNT; i++)
        openmetrics_one(text, "state", session_state_name((enum session_state)i), (double)census.sessions[i]);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_applications_frozen_seconds",
                       "For how long the oldest freeze of applications that is going on has lasted; 0 when none is.");
    openmetrics_plain(text, census.frozen_us ? (double)(clock_mono_us() - census.frozen_us) / 1e6 : 0);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_workers", "Worker processes.");
    openmetrics_plain(text, (double)agent_link_workers(engine->agent));
}

static void write_history(const struct figures *figures, struct openmetrics *text)
{
    openmetrics_family(text, OPENMETRICS_HISTOGRAM, "quiesced_freeze_seconds",
                       "Freeze windows: first writer frozen to last writer thawed, by provider and outcome of DoSnapshotSet.");
    openmetrics_histograms(text, "provider", "outcome", &figures->freezes);
    openmetrics_family(text, OPENMETRICS_HISTOGRAM, "quiesced_writer_freeze_seconds", "Freeze sent to Thaw answered, by writer and whether it failed.");
    openmetrics_histograms(text, "writer", "outcome", &figures->writers);
    openmetrics_family(text, OPENMETRICS_HISTOGRAM, "quiesced_job_seconds", "Jobs that ended, by operation and outcome.");
    openmetrics_histograms(text, "operation", "outcome", &figures->jobs);
    openmetrics_family(text, OPENMETRICS_COUNTER, "quiesced_leases_expired", "Sessions that were aborted because their lease expired.");
    openmetrics_plain(text, (double)figures->leases_expired);
    openmetrics_family(text, OPENMETRICS_COUNTER, "quiesced_errors", "Rows of GET /errors: VSS_E_UNEXPECTED and VSS_E_UNEXPECTED_WRITER_ERROR.");
    openmetrics_plain(text, (double)figures->incidents);
}

static void write_store(struct engine *engine, struct openmetrics *text)
{
    struct store_figures store;
    store_figures(engine->store, &store);
    openmetrics_family(text, OPENMETRICS_HISTOGRAM, "quiesced_store_commit_seconds",
                       "A change handed to the store until it is durable. It waits while the store is parked.");
    openmetrics_histogram(text, NULL, 0, &histogram_latency_bounds, &store.commits);
    openmetrics_family(text, OPENMETRICS_COUNTER, "quiesced_store_refusals", "Changes that the store refused.");
    openmetrics_plain(text, (double)store.failures);
    openmetrics_family(text, OPENMETRICS_COUNTER, "quiesced_store_transactions", "Transactions: one carries all changes that waited for it.");
    openmetrics_plain(text, (double)store.transactions);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_store_waiting", "Changes that wait for a transaction.");
    openmetrics_plain(text, (double)store.waiting);
    openmetrics_family(text, OPENMETRICS_GAUGE, "quiesced_store_parked", "1 while the store waits for its own file system to be thawed.");
    openmetrics_plain(text, store.parked);
}

void engine_metrics(struct engine *engine, struct openmetrics *text, bool labels)
{
    write_now(engine, text);
    write_history(engine->figures, text);
    if (labels)
        successes_write(engine->successes, text);
    write_store(engine, text);
    webhooks_metrics(engine, text);
    audit_seals_metrics(engine, text);
}
