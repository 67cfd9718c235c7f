#include "api/handlers/handlers.h"

#include "base/cleanup.h"

static const struct handler rows[] = {
    {"webhookCreate", .call = engine_webhook_create},
    {"webhookList", .call = engine_webhook_list},
    {"webhookGet", .call = engine_webhook_get},
    {"webhookPatch", .call = engine_webhook_patch},
    {"webhookDelete", .call = engine_webhook_delete},
    {"webhookRotate", .call = engine_webhook_rotate},
    {"webhookTest", .call = engine_webhook_test},
    {"deliveryList", .call = engine_delivery_list},
    {"deliveryGet", .call = engine_delivery_get},
    {"deliveryRedeliver", .call = engine_delivery_redeliver},
};
const struct handler_table handlers_webhooks = {rows, ELEMENTS(rows)};
