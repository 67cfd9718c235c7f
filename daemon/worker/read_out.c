/* GET /snapshots/{id}/archive: a mover child writes the tar into a pipe, whose other end core gets as soon as the child runs. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ipc.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/mover_client.h"
#include "worker/stored.h"

/* What is under way when the client stops reading, besides one record in front: as much as the kernel allows without asking. */
enum { PIPE_SIZE = 1024 * 1024 };

/* Is there such an entry, below the top, and is it no way out? The producer asks again, beneath the same descriptor. */
static int check_path(int tree, const char *path, struct err *err)
{
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    AUTO_FD int fd = (int)syscall(SYS_openat2, tree, path[1] ? path + 1 : ".", &how, sizeof(how));
    if (fd >= 0)
        return 0;
    bool absent = errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EXDEV || errno == ENAMETOOLONG;
    return err_errno(err, absent ? VSS_E_OBJECT_NOT_FOUND : VSS_E_UNEXPECTED, errno,
                     "Name a file or directory of the snapshot; symbolic links are not followed.", "%.300s in the snapshot", path);
}

static void hand_out(struct worker *worker, int *read_end)
{
    AUTO_JSON json_t *message = json_pack("{s:s, s:O}", "type", "stream", "id", worker->wait.current);
    if (worker->wait.core_fd >= 0)
        ipc_send(worker->wait.core_fd, message, read_end, 1, NULL);
    close(TAKE_FD(*read_end)); /* so that the producer hears it when nobody reads any more */
}

int operation_archive(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    const char *path = json_str(args, "path", "/");
    AUTO_FD int tree = stored_open(worker, json_object_get(args, "snapshot"), err);
    if (tree < 0 || check_path(tree, path, err))
        return -1;
    if (json_bool(args, "only_head", false))
        return 0;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return err_errno(err, E_OUTOFMEMORY, errno, NULL, "cannot make a pipe");
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE); /* or the smaller one that it is */
    AUTO_JSON json_t *request = json_pack("{s:s, s:s, s:s}", "verb", "archive", "path", path, "format", json_str(args, "format", "tar"));
    AUTO_JSON json_t *told = NULL;
    struct mover_output output = {.tree = tree, .write_end = ends[1], .read_end = ends[0], .hand_out = hand_out};
    int r = mover_client_produce(worker, request, &output, &told, err);
    fd_cleanup(&output.read_end);
    fd_cleanup(&output.write_end);
    json_object_update(result, told);
    return r;
}
