/* Documents that are served as they are: the contract, and the certificates that others need to believe us. */
#include <string.h>

#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "base/cleanup.h"
#include "base/str.h"

static void contract_yaml(struct exchange *exchange)
{
    reply_static(exchange, "application/yaml", openapi_yaml, openapi_yaml_size);
    exchange_send(exchange);
}

static void contract_json(struct exchange *exchange)
{
    reply_static(exchange, "application/json", openapi_json, openapi_json_size);
    exchange_send(exchange);
}

static void certificate(struct exchange *exchange, const char *pem, const char *missing)
{
    if (pem)
        reply_text_copy(exchange, "application/pem-certificate-chain", pem);
    else
        reply_not_found(exchange, missing);
    exchange_send(exchange);
}

static void ca(struct exchange *exchange)
{
    certificate(exchange, exchange->api->ca_pem, "there is no private CA");
}

static void audit_key(struct exchange *exchange)
{
    certificate(exchange, exchange->api->audit_pem, "there is no key that seals the audit trail");
}

static const struct handler rows[] = {
    {"openapiYaml", .own = contract_yaml},
    {"openapiJson", .own = contract_json},
    {"caPem", .own = ca},
    {"auditKey", .own = audit_key},
};
const struct handler_table handlers_documents = {rows, ELEMENTS(rows)};
