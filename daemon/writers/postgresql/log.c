#include "writers/postgresql/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "writers/postgresql/wal.h"

static const char begin_anew[] = "Take a full backup: it begins a new chain.";
static const char unreadable[] = "PostgreSQL gave an answer that cannot be read";

char *pg_log_slot_name(const char *writer, char ret[PG_SLOT_SIZE])
{
    enum { KEPT = 30 }; /* with a hash and pg_log_chain's end 63 bytes: the most that PostgreSQL takes */
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    size_t length = strlen(writer);
    if (length <= KEPT && strspn(writer, allowed) == length) {
        str_format(ret, PG_SLOT_SIZE, "quiesced_log_%s", writer);
        return ret;
    }
    char kept[KEPT + 1] = "";
    uint32_t hash = 2166136261U; /* FNV-1a: "pg-main" and "pg.main" must not share a slot */
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (unsigned char)writer[i]) * 16777619U;
        if (i < KEPT)
            kept[i] = strchr(allowed, writer[i]) ? writer[i] : '_';
    }
    str_format(ret, PG_SLOT_SIZE, "quiesced_log_%s_%08x", kept, hash);
    return ret;
}

/* --- the slot --- */

/* Its name ends with the number of the chain that begins with it. A cluster that was restored in place has the system identifier and
 * the timeline of before, and comes to the same positions again; only its slot is another (backups leave pg_replslot out). */
#define IS_OURS "slot_name::text ~ ('^' || $1::text || '_[0-9a-f]{8}$')"

enum slot_state { SLOT_NONE, SLOT_KEEPS, SLOT_LOST };

struct slot {
    enum slot_state state;
    uint64_t lsn;
    char name[PG_SLOT_SIZE];
    const char *chain; /* within name */
};

static int look(struct pg_session *session, const char *slot, struct slot *ret, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    const char *params[] = {slot, NULL};
    *ret = (struct slot){.state = SLOT_NONE, .chain = ""};
    if (pg_session_query(session, "SELECT slot_type, wal_status, restart_lsn::text, slot_name FROM pg_replication_slots WHERE " IS_OURS,
                         params, &rows, err) != 0)
        return -1;
    if (json_array_size(rows) == 0)
        return 0;
    str_copy(ret->name, sizeof(ret->name), pg_cell(rows, 0, 3) ? pg_cell(rows, 0, 3) : "");
    if (json_array_size(rows) > 1 || !str_eq(pg_cell(rows, 0, 0), "physical") || strlen(ret->name) < PG_CHAIN_SIZE)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Drop it, or give the writer another name.",
                       "replication slot %s is not a physical one, or not the only one of this writer", ret->name);
    ret->chain = ret->name + strlen(ret->name) - (PG_CHAIN_SIZE - 1);
    const char *status = pg_cell(rows, 0, 1);
    bool keeps = (str_eq(status, "reserved") || str_eq(status, "extended")) && wal_lsn_parse(pg_cell(rows, 0, 2), &ret->lsn);
    ret->state = keeps ? SLOT_KEEPS : SLOT_LOST;
    return 0;
}

/* Whoever forgets the slot must not fill the disk: only the server itself can see to that when we are gone. */
static int check_bounded(struct pg_session *session, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    if (pg_session_query(session, "SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'", NULL, &rows, err) != 0)
        return -1;
    if (!str_eq(pg_cell(rows, 0, 0), "-1"))
        return 0;
    return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf();",
                   "log_backups needs a bound to the WAL that a slot may keep: max_slot_wal_keep_size is -1 (no bound)");
}

int pg_log_hold(struct pg_session *session, const char *slot, char ret_chain[PG_CHAIN_SIZE], bool *ret_made, struct err *err)
{
    struct slot found;
    char name[PG_SLOT_SIZE];
    uint32_t number;
    const char *old[] = {found.name, NULL}, *params[] = {name, NULL};
    *ret_made = false;
    if (check_bounded(session, err) != 0 || look(session, slot, &found, err) != 0)
        return -1;
    str_copy(ret_chain, PG_CHAIN_SIZE, found.chain);
    if (found.state == SLOT_KEEPS)
        return 0;
    if (found.state == SLOT_LOST && pg_session_query(session, "SELECT pg_drop_replication_slot($1)", old, NULL, err) != 0)
        return err_prefix(err, "replication slot %s has lost WAL and cannot be made anew", found.name);
    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return err_errno(err, VSS_E_WRITERERROR_RETRYABLE, errno, NULL, "replication slot %s: no random number for its name", slot);
    str_format(ret_chain, PG_CHAIN_SIZE, "%08x", number);
    str_format(name, sizeof(name), "%s_%s", slot, ret_chain);
    if (pg_session_query(session, "SELECT pg_create_physical_replication_slot($1, true, false)", params, NULL, err) != 0)
        return -1;
    *ret_made = true;
    return 0;
}

int pg_log_drop(struct pg_session *session, const char *slot, struct err *err)
{
    const char *params[] = {slot, NULL};
    return pg_session_query(session,
                            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE " IS_OURS
                            " AND slot_type = 'physical' AND NOT active",
                            params, NULL, err);
}

int pg_log_advance(struct pg_session *session, const char *slot, const char *lsn, struct err *err)
{
    struct slot found;
    if (look(session, slot, &found, err) != 0)
        return -1;
    if (found.state != SLOT_KEEPS)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Raise max_slot_wal_keep_size, then take a full backup.",
                       "replication slot %s %s: no log backup can go on from this one", found.state == SLOT_NONE ? slot : found.name,
                       found.state == SLOT_NONE ? "is gone" : "has lost WAL");
    const char *params[] = {found.name, lsn, NULL};
    return pg_session_query(session,
                            "SELECT pg_replication_slot_advance(slot_name, $2::pg_lsn) FROM pg_replication_slots WHERE "
                            "slot_name = $1 AND restart_lsn < $2::pg_lsn",
                            params, NULL, err);
}

/* --- one log backup --- */

char *pg_log_stamp(const struct pg_backup *backup)
{
    return str_new("%llu:%X:%s%s%s", (unsigned long long)backup->cluster->system_identifier, backup->timeline, backup->chain,
                   backup->chain[0] ? ":" : "", backup->stop_lsn);
}

struct stamp {
    unsigned long long system_identifier;
    uint32_t timeline;
    char chain[PG_CHAIN_SIZE]; /* "": no slot has kept the log since that backup */
    char lsn[24];
};

static int read_stamp(const char *text, struct stamp *ret, struct err *err)
{
    uint64_t lsn;
    if (!text)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Set previous_stamp to the backup_stamp of the last backup.",
                       "a log backup needs a previous stamp");
    bool read = sscanf(text, "%llu:%8X:%8[0-9a-f]:%23s", &ret->system_identifier, &ret->timeline, ret->chain, ret->lsn) == 4;
    if (!read) {
        ret->chain[0] = '\0';
        read = sscanf(text, "%llu:%8X:%23s", &ret->system_identifier, &ret->timeline, ret->lsn) == 3;
    }
    if (!read || !wal_lsn_parse(ret->lsn, &lsn))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, begin_anew, "previous stamp \"%.100s\" is none of this writer", text);
    return 0;
}

/* Is the server still on the history that the stamp belongs to? */
static int check_history(const struct pg_backup *backup, const struct stamp *stamp, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    uint64_t now, then;
    uint32_t timeline;
    if (stamp->system_identifier != backup->cluster->system_identifier)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, begin_anew, "the previous stamp is of another cluster");
    if (pg_session_query(backup->session, "SELECT pg_current_wal_insert_lsn()::text, pg_walfile_name(pg_current_wal_insert_lsn())",
                         NULL, &rows, err) != 0)
        return -1;
    const char *segment = pg_cell(rows, 0, 1);
    if (!wal_lsn_parse(pg_cell(rows, 0, 0), &now) || !segment || sscanf(segment, "%8X", &timeline) != 1)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "%s", unreadable);
    wal_lsn_parse(stamp->lsn, &then);
    if (timeline != stamp->timeline || now < then)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, begin_anew,
                       "the server has left the history of the previous stamp (timeline %X at %s; the server is on %X at %s): it was "
                       "restored or promoted since",
                       stamp->timeline, stamp->lsn, timeline, pg_cell(rows, 0, 0));
    return 0;
}

static int check_kept(const struct pg_backup *backup, const char *slot, const struct stamp *stamp, struct err *err)
{
    struct slot found;
    uint64_t then, size = backup->cluster->segment_size;
    if (look(backup->session, slot, &found, err) != 0)
        return -1;
    wal_lsn_parse(stamp->lsn, &then);
    if (found.state == SLOT_NONE)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, begin_anew,
                       "replication slot %s is not there: nothing has kept the WAL since the previous backup", slot);
    if (!str_eq(found.chain, stamp->chain))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, begin_anew,
                       "the previous stamp %s is of chain %s, and replication slot %s was made for another one: the server was restored since, "
                       "or the slot was made anew",
                       stamp->lsn, stamp->chain[0] ? stamp->chain : "(none: a copy, or log_backups was off)", found.name);
    if (found.state == SLOT_LOST)
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, "Raise max_slot_wal_keep_size, then take a full backup.",
                       "replication slot %s has lost WAL: more was written since the previous backup than max_slot_wal_keep_size",
                       found.name);
    if (wal_segment_of(found.lsn, size) > wal_segment_of(then, size))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, begin_anew,
                       "replication slot %s keeps the WAL from a later position than the previous stamp %s: a backup in between went on "
                       "from it",
                       found.name, stamp->lsn);
    return 0;
}

int pg_log_start(struct pg_backup *backup, const char *slot, const char *previous_stamp, struct err *err)
{
    struct stamp stamp = {0};
    if (check_bounded(backup->session, err) != 0 || read_stamp(previous_stamp, &stamp, err) != 0 ||
        check_history(backup, &stamp, err) != 0 || check_kept(backup, slot, &stamp, err) != 0)
        return -1;
    backup->way = PG_WAY_LOG;
    backup->timeline = stamp.timeline;
    str_copy(backup->chain, sizeof(backup->chain), stamp.chain);
    str_copy(backup->start_lsn, sizeof(backup->start_lsn), stamp.lsn);
    return 0;
}

int pg_log_end(struct pg_backup *backup, struct err *err)
{
    AUTO_JSON json_t *rows = NULL;
    uint64_t stop, size = backup->cluster->segment_size;
    if (backup->switched_lsn[0])
        return 0;
    /* Recovery that is to reach this name fails when any segment before it is missing: a gap cannot pass for the end. */
    str_format(backup->restore_point, sizeof(backup->restore_point), "quiesced_%d_%lld", (int)getpid(), (long long)clock_real_ms());
    const char *name[] = {backup->restore_point, NULL};
    if (pg_session_query(backup->session, "SELECT pg_create_restore_point($1)", name, NULL, err) != 0 ||
        pg_session_query(backup->session, "SELECT pg_switch_wal()::text", NULL, &rows, err) != 0)
        return -1;
    if (!wal_lsn_parse(pg_cell(rows, 0, 0), &stop))
        return err_set(err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "%s", unreadable);
    str_copy(backup->switched_lsn, sizeof(backup->switched_lsn), pg_cell(rows, 0, 0));
    stop = (wal_segment_before(stop, size) + 1) * size; /* nothing follows in that segment: the next backup begins with the next */
    str_format(backup->stop_lsn, sizeof(backup->stop_lsn), "%X/%X", (unsigned)(stop >> 32), (unsigned)stop);
    return 0;
}
