/* Callers that nobody knows, or believes: each may be a mistake, a thousand of them are somebody who tries. The trail gets the first at once and the number of
 * the others a minute later, for each address and kind; of more addresses than there is room for, together. */
#include "engine/audit/audit.h"
#include "engine/engine_private.h"

#include "base/log.h"

enum { PLACES = 64, OTHERS = PLACES, WINDOW_MS = 60 * 1000 };

struct refusal {
    int64_t ends_ms; /* CLOCK_MONOTONIC; 0 = free */
    char from[64], operation[64], path[128], principal[128], request_id[80];
    int status;
    struct err err;
    int64_t repeated;
};

struct refusals {
    struct engine *engine;
    struct loop_timer *timer;
    struct refusal places[PLACES + 1]; /* the last one: of all for whom there is no place */
};

static void tell_repeated(struct engine *engine, const struct refusal *refusal)
{
    struct principal principal = {.role = ROLE_NONE};
    str_copy(principal.name, sizeof principal.name, refusal->principal);
    struct engine_request request = {.principal = &principal, .request_id = refusal->request_id, .path = refusal->path, .operation = refusal->operation,
                                     .from = refusal->from};
    const struct engine_answer answer = {.err = &refusal->err, .status_override = refusal->status};
    AUTO_JSON json_t *extra = json_pack("{s:I}", "repeated", (json_int_t)refusal->repeated);
    audit_outcome(engine, &request, &answer, extra);
}

static void end_windows(struct refusals *refusals, int64_t now)
{
    int64_t next = 0;
    for (size_t i = 0; i <= PLACES; i++) {
        struct refusal *refusal = &refusals->places[i];
        if (!refusal->ends_ms)
            continue;
        if (refusal->ends_ms > now) {
            next = !next || refusal->ends_ms < next ? refusal->ends_ms : next;
            continue;
        }
        if (refusal->repeated)
            tell_repeated(refusals->engine, refusal);
        refusal->ends_ms = 0;
    }
    if (next)
        loop_timer_set(refusals->timer, next - now);
}

static void on_timer(void *arg)
{
    end_windows(arg, clock_mono_ms());
}

void refusals_end(struct engine *engine)
{
    struct refusals *refusals = TAKE_PTR(engine->refusals);
    if (!refusals)
        return;
    end_windows(refusals, INT64_MAX);
    loop_timer_free(refusals->timer);
    free(refusals);
}

static struct refusal *place_of(struct refusals *refusals, const struct engine_request *request, const struct err *err)
{
    struct refusal *free_one = NULL;
    for (size_t i = 0; i < PLACES; i++) {
        struct refusal *refusal = &refusals->places[i];
        if (!refusal->ends_ms)
            free_one = free_one ? free_one : refusal;
        else if (str_eq(refusal->from, request->from ? request->from : "") && str_eq(refusal->operation, request->operation) &&
                 str_eq(refusal->err.reason, err->reason))
            return refusal;
    }
    return free_one ? free_one : &refusals->places[OTHERS];
}

void engine_audit_turned_away(struct engine *engine, struct engine_request *request, const struct engine_answer *answer)
{
    if (!engine->refusals) {
        engine->refusals = mem_new(sizeof *engine->refusals);
        engine->refusals->engine = engine;
        engine->refusals->timer = loop_timer_new(engine->loop, on_timer, engine->refusals);
    }
    struct refusals *refusals = engine->refusals;
    struct refusal *place = place_of(refusals, request, answer->err);
    if (place->ends_ms) {
        place->repeated++;
        str_copy(place->request_id, sizeof place->request_id, request->request_id);
        return;
    }
    *place = (struct refusal){.ends_ms = clock_mono_ms() + WINDOW_MS, .status = engine_failure_status(answer), .err = *answer->err};
    str_copy(place->from, sizeof place->from, place == &refusals->places[OTHERS] ? "" : request->from ? request->from : "");
    str_copy(place->operation, sizeof place->operation, request->operation);
    str_copy(place->path, sizeof place->path, request->path);
    str_copy(place->principal, sizeof place->principal, request->principal->name);
    str_copy(place->request_id, sizeof place->request_id, request->request_id);
    if (!loop_timer_armed(refusals->timer))
        loop_timer_set(refusals->timer, WINDOW_MS);
    audit_outcome(engine, request, answer, NULL);
}
