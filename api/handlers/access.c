/* Credentials: tokens, enrolments, client certificates. */
#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "api/scope.h"
#include "base/cleanup.h"
#include "base/str.h"

static void answered(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;

    reply_engine(exchange, answer, NULL);
    exchange_unref(exchange);
}

/* Only the API knows paths and operations. */
static void token_create(struct exchange *exchange)
{
    size_t i;
    const json_t *scope;

    json_array_foreach(json_object_get(exchange->body, "scopes"), i, scope)
    {
        if (scope_known(json_string_value(scope)) || exchange->n_faults == EXCHANGE_FAULTS_MAX)
            continue;
        struct json_fault *fault = &exchange->faults[exchange->n_faults++];
        str_format(fault->pointer, sizeof(fault->pointer), "/scopes/%zu", i);
        str_copy(fault->detail, sizeof(fault->detail), "covers no operation: read, a path, read:PATH, or an operationId");
    }
    if (exchange->n_faults == 0) {
        exchange_call(exchange, engine_token_create, answered);
        return;
    }
    reply_invalid(exchange);
    exchange_send(exchange);
}

/* Its certificates would be the other one's, with his role, and could not be revoked. */
static void enrolment_create(struct exchange *exchange)
{
    const char *name = json_str(exchange->body, "name", "");
    struct err err = {0};

    if (!auth_knows_own(exchange->api->auth, name)) {
        exchange_call(exchange, engine_enrolment_create, answered);
        return;
    }
    err_set(&err, VSS_E_OBJECT_ALREADY_EXISTS, "Choose another name.",
            "the configuration knows certificates of the private CA by the name %s", name);
    const struct engine_answer refused = {.err = &err};
    reply_engine(exchange, &refused, NULL);
}

/* The code is the credential: a wrong one counts like a wrong token. */
static void redeemed(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;

    if (answer->err && answer->err->hr == (uint32_t)E_ACCESSDENIED)
        throttle_wrong(exchange->api->throttle, &exchange->address);
    answered(exchange, answer);
}

static void certificate_create(struct exchange *exchange)
{
    int wait = throttle_blocked(exchange->api->throttle, &exchange->address);

    if (wait == 0) {
        exchange_call(exchange, engine_certificate_create, redeemed);
        return;
    }
    reply_locked_out(exchange, wait);
    exchange_turned_away(exchange);
    exchange_send(exchange);
}

static void audit_listed(void *arg, const struct engine_answer *answer)
{
    struct exchange *exchange = arg;

    if (!answer->err && exchange->http && str_eq(json_str(exchange->query, "format", ""), "ndjson"))
        reply_lines(exchange, answer);
    else
        reply_engine(exchange, answer, NULL);
    exchange_unref(exchange);
}

static bool has_operation(const char *operation)
{
    for (size_t i = 0; i < api_n_routes; i++)
        if (str_eq(api_routes[i].operation_id, operation))
            return true;
    return false;
}

static void fault_add(struct exchange *exchange, const char *pointer, const char *detail)
{
    struct json_fault *fault = &exchange->faults[exchange->n_faults++];

    str_copy(fault->pointer, sizeof(fault->pointer), pointer);
    str_copy(fault->detail, sizeof(fault->detail), detail);
}

/* A line has to be what was hashed, whole; and a misspelt operation must not look like one that nobody called. */
static void audit_list(struct exchange *exchange)
{
    const char *operation = json_str(exchange->query, "operation", NULL);

    if (operation && !has_operation(operation))
        fault_add(exchange, "?operation", "no such operation: an operationId of GET /openapi.yaml");
    if (json_object_get(exchange->query, "fields") && str_eq(json_str(exchange->query, "format", ""), "ndjson"))
        fault_add(exchange, "?fields", "not with format=ndjson: its lines are whole, as they are chained");
    if (exchange->n_faults == 0) {
        exchange_call(exchange, engine_audit_list, audit_listed);
        return;
    }
    reply_invalid(exchange);
    exchange_send(exchange);
}

static const struct handler rows[] = {
    {"auditList", .own = audit_list},
    {"tokenCreate", .own = token_create},
    {"tokenList", .call = engine_token_list},
    {"tokenGet", .call = engine_token_get},
    {"tokenDelete", .call = engine_token_delete},
    {"enrolmentCreate", .own = enrolment_create},
    {"enrolmentList", .call = engine_enrolment_list},
    {"enrolmentGet", .call = engine_enrolment_get},
    {"enrolmentDelete", .call = engine_enrolment_delete},
    {"certificateCreate", .own = certificate_create},
    {"certificateList", .call = engine_certificate_list},
    {"certificateGet", .call = engine_certificate_get},
    {"certificateDelete", .call = engine_certificate_delete},
};
const struct handler_table handlers_access = {rows, ELEMENTS(rows)};
