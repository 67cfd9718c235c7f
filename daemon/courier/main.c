/* quiesced-courier: started by serve when core asks for it. An executable of its own, so that no other role links libcurl. */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/ipc.h"
#include "base/join.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/str.h"
#include "courier/courier.h"

enum { CONTROL_FD = 3 };

struct courier {
    struct loop *loop;
    struct ipc_channel *control;
    struct multi *multi;
};

static void on_done(void *arg, CURL *easy, CURLcode result)
{
    struct courier *courier = arg;
    struct transfer *transfer = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&transfer);
    AUTO_JSON json_t *answer = transfer_answer(transfer, result);
    multi_remove(courier->multi, easy);
    transfer_free(transfer);
    fault("courier.delivered");
    ipc_channel_send(courier->control, answer, NULL, 0);
}

static void on_message(void *arg, json_t *msg, int *fds, size_t n_fds)
{
    struct courier *courier = arg;
    (void)fds;
    (void)n_fds;
    if (!str_eq(json_str(msg, "type", ""), "deliver")) {
        log_line(LOG_LEVEL_ERROR, NULL, "unknown message from core");
        return;
    }
    fault("courier.send");
    multi_add(courier->multi, transfer_easy(transfer_new(msg)));
}

static void on_closed(void *arg, const struct err *err)
{
    struct courier *courier = arg;
    if (err)
        log_err(LOG_LEVEL_ERROR, NULL, err, "control channel");
    loop_quit(courier->loop, err ? 1 : 0);
}

/* What it may hold in memory of what strangers sent must not be readable by whoever else has this user. */
static void confine(void)
{
    const struct rlimit none = {0, 0};
    prctl(PR_SET_DUMPABLE, 0);
    setrlimit(RLIMIT_CORE, &none);
}

int main(int argc, char **argv)
{
    struct stat status;
    struct courier courier = {0};
    bool over = false;
    int code = argc > 2 ? join_by_arguments("courier", argc, argv, CONTROL_FD, &over) : 0;
    if (code != 0 || over)
        return code;
    if (fstat(CONTROL_FD, &status) != 0 || !S_ISSOCK(status.st_mode)) {
        fputs("quiesced-courier: started by quiesced serve, not by hand\n", stderr);
        return 2;
    }
    log_init("courier", LOG_LEVEL_INFO);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    confine();
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        log_line(LOG_LEVEL_ERROR, NULL, "libcurl cannot be used");
        return 1;
    }
    courier.loop = loop_new();
    courier.multi = multi_new(courier.loop, on_done, &courier);
    courier.control = ipc_channel_new(courier.loop, CONTROL_FD, on_message, on_closed, &courier);
    /* Transfers in hand end with the process: core counts them as not answered. */
    _exit(loop_run(courier.loop));
}
