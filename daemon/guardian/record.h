#pragma once
/* The intent record of a freeze set: a file that says, before the first FIFREEZE, what is going to be frozen, by whom
 * and until when, so that whoever finds it can thaw. It lies on tmpfs (never on a file system of the set). The first
 * line holds one mark per file system, changed in place by a write of one byte; the rest is a JSON object:
 *   {"installation","set","session","boot_id","agent":{"pid","start"},"guardian":{"pid","start"},"freeze_ms",
 *    "since_ms","file_systems":[{"device":"7:0","mount_point","source","fs_type","lent","dev","fsid","magic"}]}
 * in the order of freezing; device is what the mount table shows; dev, fsid and magic are those of stat and statfs.
 * freeze_ms: how long at most; since_ms: CLOCK_REALTIME of the record. */
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

enum { FREEZE_SET_MAX = 28 }; /* file systems in a set: one message carries all fds (IPC_FDS_MAX) and a few more */

enum freeze_mark {
    FREEZE_MARK_NONE = '-',    /* not begun */
    FREEZE_MARK_OURS = 'f',    /* frozen by us, or about to be */
    FREEZE_MARK_FOREIGN = 'b', /* it was frozen by somebody else: never thawed by us */
    FREEZE_MARK_THAWED = 't',
};

struct freeze_record {
    int fd;
    char path[PATH_MAX];
    json_t *doc; /* NULL when it was taken over as a descriptor */
    size_t n;
};

/* DIR/INSTALLATION.SET.freeze; false when it is too long. */
bool record_path(const char *directory, const json_t *doc, char ret[PATH_MAX]);
/* Writes it; DIR is made when missing (0700). Every mark is FREEZE_MARK_NONE. doc is borrowed.
 */
int record_create(const char *directory, const json_t *doc, struct freeze_record *ret, struct err *err);
/* Opens what record_create wrote. VSS_E_UNEXPECTED when it is no record (damaged). */
int record_open(const char *path, struct freeze_record *ret, struct err *err);
/* A record that another process opened: fd is taken. */
void record_adopt(int fd, const char *path, size_t n, struct freeze_record *ret);
enum freeze_mark record_mark(const struct freeze_record *record, size_t i);
/* 0, or errno: the record does not say so. Nothing may be frozen that it does not call ours: nobody would thaw it. */
int record_set(const struct freeze_record *record, size_t i, enum freeze_mark mark);
/* Is any file system still marked as ours? */
bool record_any_frozen(const struct freeze_record *record);
void record_remove(struct freeze_record *record); /* the file; the record stays open */
void record_close(struct freeze_record *record);  /* a zeroed or closed one is fine */

/* "dev" and "fsid" of an open file system, put into its entry. */
void record_identify(int fd, json_t *file_system);
/* Is that (still) the same one? Type and id must agree. */
bool record_identifies(const json_t *file_system, int fd);

/* A process, told apart from a later one with the same number: {"pid","start"} (clock ticks since boot, proc(5)). */
json_t *record_process(pid_t pid);
bool record_process_lives(const json_t *process);
/* The same, but for one that was killed and cannot end, since it waits for a file system that stands still: it will do nothing any more. */
bool record_process_acts(const json_t *process);
/* /proc/sys/kernel/random/boot_id; "" when it cannot be read. */
void record_boot_id(char ret[64]);

/* $RUNTIME_DIRECTORY/freezes (systemd.exec(5)), else quiesced/freezes in /run, or in /dev/shm where only that is tmpfs.
 */
void record_directory(char ret[PATH_MAX]);
