/* The courier: started on core's word, restarted on core's word. */
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "serve/serve_private.h"

enum { CONTROL_FD = 3 };

static void reap(struct courier_process *courier, int *ret_status)
{
    proc_reap(courier->pid, courier->pidfd, -1, ret_status);
    loop_io_remove(TAKE_PTR(courier->exit_io));
    close(TAKE_FD(courier->pidfd));
    courier->pid = 0;
}

static void on_exit_io(void *arg, uint32_t events)
{
    struct courier_process *courier = arg;
    int status = 0;
    char text[64];

    (void)events;
    reap(courier, &status);
    if (status != 0)
        log_line(LOG_LEVEL_WARNING, NULL, "courier ended: %s", proc_status_text(status, text, sizeof(text)));
}

void courier_stop(struct serve *serve)
{
    int status;

    if (serve->courier.pid == 0)
        return;
    syscall(SYS_pidfd_send_signal, serve->courier.pidfd, SIGKILL, NULL, 0);
    reap(&serve->courier, &status);
}

int courier_start(struct serve *serve, int fd, struct err *err)
{
    char program[PATH_MAX];
    const char *const argv[] = {program, "--role=courier", NULL};
    const struct proc_fd fds[] = {{STDERR_FILENO, STDERR_FILENO}, {fd, CONTROL_FD}};
    const struct proc_spec spec = {
        .argv = argv,
        .environment = children_environment(),
        .fds = fds,
        .n_fds = ELEMENTS(fds),
        .identity = serve->root ? &serve->courier_user : NULL,
        .new_group = true,
        .die_with_parent = true,
        .no_new_privileges = true,
    };
    struct courier_process *courier = &serve->courier;

    if (serve->joining.active)
        return joining_courier(serve, fd, err);
    courier_stop(serve);
    if (!proc_find_program("quiesced-courier", program))
        return err_set(err, VSS_E_UNEXPECTED, "It belongs beside quiesced, or in libexec/quiesced.",
                       "no executable quiesced-courier: webhooks are not delivered");
    if (proc_spawn(&spec, &courier->pid, &courier->pidfd, err) != 0) {
        courier->pid = 0;
        return -1;
    }
    courier->exit_io = loop_io_add(serve->loop, courier->pidfd, EPOLLIN, on_exit_io, courier);
    return 0;
}
