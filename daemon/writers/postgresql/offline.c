/* A cluster whose server is down, as its directory tells it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "writers/inplace/service.h"
#include "writers/postgresql/cluster.h"

static void read_line(const char *path, char *ret, size_t size)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
    ret[n > 0 ? n : 0] = '\0';
    ret[strcspn(ret, " \n")] = '\0';
}

static void read_tablespaces(struct pg_cluster *cluster)
{
    AUTO_FREE char *path = str_new("%s/pg_tblspc", cluster->data_directory);
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char place[PATH_MAX];
        AUTO_FREE char *link = str_new("%s/%s", path, entry->d_name);
        if (entry->d_type == DT_LNK && realpath(link, place))
            pg_cluster_add_tablespace(cluster, place);
    }
    if (dir)
        closedir(dir);
}

/* How global/pg_control begins (PostgreSQL source, catalog/pg_control.h). */
struct control_head {
    uint64_t system_identifier;
    uint32_t control_version, catalog_version;
};

int pg_cluster_read_offline(const char *data_directory, struct pg_cluster *ret, struct err *err)
{
    *ret = (struct pg_cluster){.offline = true, .name = "main", .tablespaces = json_array()};
    if (!realpath(data_directory, ret->data_directory))
        str_copy(ret->data_directory, sizeof(ret->data_directory), data_directory);
    struct control_head head;
    pid_t process = service_process_in(ret->data_directory);
    if (process) {
        err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "process %d works in %s", (int)process, ret->data_directory);
        pg_cluster_clear(ret);
        return -1;
    }
    AUTO_FREE char *version = str_new("%s/PG_VERSION", ret->data_directory);
    AUTO_FREE char *control = str_new("%s/global/pg_control", ret->data_directory);
    AUTO_FREE char *wal = str_new("%s/pg_wal", ret->data_directory);
    AUTO_FD int fd = open(control, O_RDONLY | O_CLOEXEC);
    read_line(version, ret->version, sizeof(ret->version));
    if (fd >= 0 && read(fd, &head, sizeof(head)) == sizeof(head)) {
        ret->system_identifier = head.system_identifier;
        ret->catalog_version = head.catalog_version;
    }
    if (!realpath(wal, ret->wal_directory))
        str_copy(ret->wal_directory, sizeof(ret->wal_directory), wal);
    if (ret->catalog_version)
        read_tablespaces(ret);
    return 0;
}
