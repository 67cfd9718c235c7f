#pragma once
/* What a server is and where its files lie. */
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "base/err.h"
#include "writers/mariadb/session.h"

struct maria_server {
    bool offline;                  /* read from the disk alone: version, log_bin and innodb are not known */
    bool log_bin;                  /* writes a binary log */
    char version[64];              /* "10.11.6-MariaDB" */
    char data_directory[PATH_MAX]; /* canonical, no symbolic links */
    json_t *innodb; /* array of canonical directories outside it: tablespaces, redo and undo logs; owned */
    char binlog_directory[PATH_MAX]; /* when the binary log lies outside, else "" */
    char binlog_spec[NAME_MAX + 2];  /* "mysql-bin.*" */
};

/* Asks the server, and looks whether its directories are there for us. Refuses file layouts that cannot be followed. */
int maria_server_read(struct maria_session *session, struct maria_server *ret, struct err *err);
/* Looks at the disk alone, for a restore while the server is down: the directory may even be empty or gone. Refuses one in
 * which a server works. */
int maria_server_read_offline(const char *data_directory, struct maria_server *ret, struct err *err);
void maria_server_clear(struct maria_server *server);
bool maria_server_same_place(const struct maria_server *a, const struct maria_server *b);
/* Refuses tables and databases that lie outside (DATA DIRECTORY, symbolic links): no file set names them. */
int maria_server_check_inside(const struct maria_server *server, struct err *err);
/* Protocol 1's "file_sets" of the component, and the writer's "exclude". New references. */
json_t *maria_server_file_sets(const struct maria_server *server);
json_t *maria_server_excludes(const struct maria_server *server);
/* Do data directory and InnoDB's directories lie in one volume that is snapshotted atomically? When in doubt: false.
 * The binary log need not: nothing is written to it while commits are blocked. */
bool maria_server_in_one_atomic_volume(const struct maria_server *server, const json_t *volumes);
/* With commits blocked: waits until all that was committed is in InnoDB's log. With innodb_flush_log_at_trx_commit 0
 * only the server itself writes it, once in innodb_flush_log_at_timeout seconds: FLUSH ENGINE LOGS leaves it out. With
 * other values that statement does it, and nothing is waited for. Fails at the session's deadline, and when a server
 * before 10.5 does not tell how far its log is. */
int maria_server_wait_written(struct maria_session *session, struct err *err);
