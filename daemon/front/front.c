#include "front/front.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "front/front_private.h"
#include "front/tls.h"

enum { CONTROL_FD = 3, LISTENERS_AT = 4, HANDSHAKE_SECONDS = 10, CONNECTIONS = 10000 };

static void answer(struct front *front, json_t *msg /* taken */)
{
    if (front->control)
        ipc_channel_send(front->control, msg, NULL, 0);
    json_decref(msg);
}

void front_connection_gone(struct front *front)
{
    front_listeners_update(front);
    if (front->draining && front->n_connections == 0)
        answer(front, json_pack("{s:s}", "type", "drained"));
}

/* fds: chain, key, private CA [, client CA]. The new context serves new connections; old ones go on with theirs. */
static int take_certificates(struct front *front, const json_t *msg, const int *fds, size_t n_fds, size_t *ret_used, struct err *err)
{
    bool client_ca = json_bool(msg, "has_client_ca", false);
    *ret_used = client_ca ? 4 : 3;
    if (n_fds < *ret_used)
        return err_set(err, VSS_E_UNEXPECTED, NULL, "%zu descriptors came with the certificates", n_fds);
    const struct tls_files files = {.chain = fds[0], .key = fds[1], .private_ca = fds[2], .client_ca = client_ca ? fds[3] : -1};
    SSL_CTX *fresh = tls_context_new(&files, err);
    if (!fresh)
        return -1;
    SSL_CTX_free(front->tls);
    front->tls = fresh;
    return 0;
}

static void take_limits(struct front *front, const json_t *msg)
{
    const json_t *limits = json_object_get(msg, "limits");
    front->limit = (size_t)json_int(limits, "connections", CONNECTIONS);
    front->handshake_ms = 1000 * json_int(limits, "handshake_seconds", HANDSHAKE_SECONDS);
}

static void on_start(struct front *front, json_t *msg, int *fds, size_t n_fds)
{
    struct err err;
    size_t used = 0;
    take_limits(front, msg);
    if (n_fds < LISTENERS_AT || front->handover >= 0 || take_certificates(front, msg, fds + 1, n_fds - 1, &used, &err)) {
        if (n_fds >= LISTENERS_AT && front->handover < 0)
            log_err(LOG_LEVEL_ERROR, NULL, &err, "cannot start");
        loop_quit(front->loop, 1);
        return;
    }
    front->handover = TAKE_FD(fds[0]);
    front_listeners_take(front, fds + 1 + used, n_fds - 1 - used);
    answer(front, json_pack("{s:s}", "type", "ready"));
}

static void on_reload(struct front *front, json_t *msg, int *fds, size_t n_fds)
{
    struct err err;
    size_t used;
    if (take_certificates(front, msg, fds, n_fds, &used, &err)) {
        answer(front, json_pack("{s:s, s:o}", "type", "reload_failed", "error", err_to_json(&err)));
        return;
    }
    take_limits(front, msg);
    front_listeners_update(front);
    answer(front, json_pack("{s:s}", "type", "ready"));
}

static void on_drain(struct front *front, json_t *msg, int *fds, size_t n_fds)
{
    (void)msg, (void)fds, (void)n_fds;
    front->draining = true;
    front_listeners_close(front);
    if (front->n_connections == 0)
        answer(front, json_pack("{s:s}", "type", "drained"));
}

static const struct {
    const char *type;
    void (*fn)(struct front *front, json_t *msg, int *fds, size_t n_fds);
} messages[] = {{"start", on_start}, {"reload", on_reload}, {"drain", on_drain}};

static void on_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    for (size_t i = 0; i < ELEMENTS(messages); i++) {
        if (str_eq(json_str(msg, "type", ""), messages[i].type))
            messages[i].fn(arg, msg, fds, n_fds);
    }
}

static void on_closed(void *arg, const struct err *err)
{
    struct front *front = arg;
    loop_quit(front->loop, err ? 1 : 0);
}

int front_main(void)
{
    log_init("front", LOG_LEVEL_INFO);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, SIG_IGN); /* serve says when */
    signal(SIGINT, SIG_IGN);
    prctl(PR_SET_DUMPABLE, 0); /* the key lives here */
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    struct front *front = mem_new(sizeof *front);
    front->handover = -1;
    front->loop = loop_new();
    front->control = ipc_channel_new(front->loop, CONTROL_FD, on_message, on_closed, front);
    int code = loop_run(front->loop);
    front->draining = false;
    ipc_channel_free(TAKE_PTR(front->control));
    connections_close(front);
    front_listeners_close(front);
    loop_timer_free(front->accept_retry);
    if (front->handover >= 0)
        close(front->handover);
    SSL_CTX_free(front->tls);
    loop_free(front->loop);
    free(front);
    return code;
}
