/* If-Match and If-None-Match of a call that changes something: compared with what GET would answer at this moment. */
#include "engine/engine_private.h"
#include "engine/etag.h"

#include <string.h>

struct seen {
    struct err err; /* hr 0: there is a representation */
    char etag[ETAG_SIZE];
};

/* Each call that request->read can be answers at once: it reads memory, or the store. */
static void capture(void *arg, const struct engine_answer *answer)
{
    struct seen *seen = arg;
    if (answer->err) {
        seen->err = *answer->err;
        return;
    }
    AUTO_FREE char *text = answer->text ? str_new("%s\n", answer->text) : json_line(answer->body);
    etag_make(text, strlen(text), seen->etag);
}

static int refuse(struct err *err, int *ret_status, int status, const char *detail)
{
    bool required = status == 428;
    err_set(err, required ? E_INVALIDARG : VSS_E_BAD_STATE,
            required ? "GET it, and send its ETag as If-Match: what somebody else has changed since is not overwritten then."
                     : "GET it again, and decide anew.",
            "%s", detail);
    str_copy(err->reason, sizeof err->reason, required ? "precondition_required" : "precondition_failed");
    *ret_status = status;
    return -1;
}

int precondition_check(struct engine *engine, const struct engine_request *request, struct err *err, int *ret_status)
{
    struct seen seen = {0};
    if (!request->read)
        return 0;
    request->read(engine, request, capture, &seen);
    *ret_status = 0;
    if (seen.err.hr == (uint32_t)VSS_E_OBJECT_NOT_FOUND)
        return request->if_match && request->creates ? refuse(err, ret_status, 412, "If-Match: there is no such thing") : 0;
    if (seen.err.hr) {
        *err = seen.err;
        return -1;
    }
    if (request->if_match && !etag_listed(request->if_match, seen.etag, true))
        return refuse(err, ret_status, 412, "If-Match: it is not what it was any more");
    if (request->if_none_match && etag_listed(request->if_none_match, seen.etag, false))
        return refuse(err, ret_status, 412, "If-None-Match: it is there already");
    if (request->must_match && !request->if_match)
        return refuse(err, ret_status, 428, "changing it needs If-Match");
    return 0;
}

void precondition_call(struct engine *engine, engine_call_fn call, const struct engine_request *request, engine_answer_fn answer, void *arg)
{
    struct err err = {0};
    struct engine_answer refused = {.err = &err};
    if (precondition_check(engine, request, &err, &refused.status_override) == 0)
        call(engine, request, answer, arg);
    else
        answer(arg, &refused);
}
