/* GET /health/ready, the engine's part: can work be taken, and will it be recorded? Of memory, and of what the kernel knows of the
 * store's file system without reading it. */
#include "engine/audit/audit_seals.h"
#include "engine/engine_private.h"
#include "engine/job/job.h"
#include "engine/session/session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

enum {
    ROOM_BYTES = 8 * 1024 * 1024, /* a commit, the log behind it and its checkpoint fit well into it */
    LITTLE_BYTES = 256 * 1024 * 1024, /* a warning: a busy day's records fit into it */
    STUCK_MS = 5000,              /* a commit that takes longer means a disk that hangs */
};

static void say(json_t *reasons, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(json_t *reasons, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    json_add(reasons, json_string(text));
}

static void store_reasons(struct engine *engine, json_t *reasons, json_t *warnings)
{
    struct store_condition condition;
    struct statvfs place;
    store_condition(engine->store, &condition);
    if (condition.unreadable && !store_parked(engine->store)) { /* it may have been one damaged record */
        struct err err;
        store_get(engine->store, STORE_JOB, "none", NULL, NULL, &err); /* there is no such record: an id is a UUID */
        store_condition(engine->store, &condition);
    }
    if (condition.refuses)
        say(reasons, "the store refuses changes: %s", condition.refusal.text);
    if (condition.unreadable)
        say(reasons, "the store cannot be read: %s", condition.unread.text);
    if (condition.busy_ms > STUCK_MS)
        say(reasons, "the store has been writing one change for %lld s: its disk hangs, or is very slow", (long long)condition.busy_ms / 1000);
    if (statvfs(engine->store_dir, &place) != 0) {
        say(reasons, "the store's directory cannot be looked at: %s", strerrordesc_np(errno));
        return;
    }
    if (place.f_flag & ST_RDONLY)
        say(reasons, "the store's file system is mounted read-only");
    uint64_t room = (uint64_t)place.f_bavail * place.f_frsize;
    if (room >= ROOM_BYTES && room < LITTLE_BYTES)
        say(warnings, "the store's file system is nearly full: %llu MiB are left", (unsigned long long)room / (1024 * 1024));
    if (room < ROOM_BYTES)
        say(reasons, "the store's file system is full: %llu KiB are left", (unsigned long long)(place.f_bavail * place.f_frsize / 1024));
}

void engine_health(struct engine *engine, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err;
    (void)request;
    json_t *reasons = json_array();
    if (engine->draining)
        say(reasons, "the service is stopping");
    if (!engine->recovered)
        say(reasons, "recovery after the last stop is still under way");
    if (!engine->draining && job_admit(engine, &err))
        say(reasons, "%s", err.text);
    if (session_admit(engine, &err))
        say(reasons, "%s, as many as limits.sessions allows", err.text);
    if (freezes_stuck(engine))
        say(reasons, "of %zu freezes no thaw is known: `frozen` of their sessions tells what, and why", freezes_stuck(engine));
    json_t *warnings = json_array();
    store_reasons(engine, reasons, warnings);
    bool ready = json_array_size(reasons) == 0;
    audit_seals_warn(engine, warnings);
    json_array_extend(warnings, engine->clashes);
    answer_body(answer, arg, ready ? 200 : 503, json_pack("{s:b, s:o, s:o}", "ready", ready, "reasons", reasons, "warnings", warnings));
}
