/* GET /metrics is core's, but front and agent count too, and serve knows which roles died: serve alone has channels to all. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "serve/serve_private.h"

static json_t *restarts(const struct serve *serve)
{
    json_t *told = json_object();

    for (size_t i = 0; i < ROLE_NAMES; i++)
        json_put(told, serve->roles[i].name, json_integer((json_int_t)serve->restarts[i]));
    return told;
}

void generation_figures_take(struct role *role, json_t *figures)
{
    struct serve *serve = role->serve;
    struct role *core = &serve->roles[ROLE_NAME_CORE];
    AUTO_JSON json_t *roles = json_object();

    if (!json_is_object(figures))
        return;
    json_decref(serve->figures[role - serve->roles]);
    serve->figures[role - serve->roles] = json_incref(figures);
    for (size_t i = 0; i < ROLE_NAMES; i++)
        if (serve->figures[i])
            json_put(roles, serve->roles[i].name, json_incref(serve->figures[i]));
    AUTO_JSON json_t *message = json_pack("{s:s, s:O, s:o}", "type", "figures", "roles", roles, "restarts", restarts(serve));
    if (core->channel && core->ready)
        ipc_channel_send(core->channel, message, NULL, 0);
}

void generation_figures_drop(struct serve *serve)
{
    for (size_t i = 0; i < ROLE_NAMES; i++)
        json_decref(TAKE_PTR(serve->figures[i]));
}
