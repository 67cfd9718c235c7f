"""Log backups of the PostgreSQL writer: the slot that keeps the WAL, the chain, and every way in which a chain is refused instead of left with a gap."""
import glob
import json
import os
import shutil

import pytest

from postgresql_server import BIN, Server, directory, own, run
from writer_driver import chosen

MAIN = chosen("main")
SLOT = "quiesced_log_pg_main_"  # and a hash: "pg-main" is no name of a slot
BOUND = "200MB"


@pytest.fixture(scope="module")
def place():
    path = directory()
    os.mkdir(path + "/staging", 0o700)
    own(path + "/staging")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def running(place):
    with Server(place + "/data", place, options=["archive_mode=off"]) as started:  # a failing archiver would keep all WAL
        started.query("CREATE TABLE rows (n serial, filler text)")
        yield started


@pytest.fixture
def server(running):
    """One server for all; each test begins without a slot, and with a bound to what one may keep."""
    running.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    bound(running, BOUND)
    yield running


def bound(server, size):
    server.query("ALTER SYSTEM SET max_slot_wal_keep_size = '%s'" % size)
    server.query("SELECT pg_reload_conf()")
    while server.query("SELECT current_setting('max_slot_wal_keep_size')")[0][0] != size:
        pass


def slots(server):
    return server.query("SELECT slot_name, wal_status, temporary, restart_lsn::text FROM pg_replication_slots")


def write(server, megabytes=3):
    """Some segments of WAL (1 MiB each), and checkpoints that recycle whatever nothing keeps."""
    for _ in range(megabytes):
        server.query("INSERT INTO rows (filler) SELECT repeat(md5(random()::text), 32) FROM generate_series(1, 1000)")
    server.query("CHECKPOINT")
    server.query("CHECKPOINT")


def count(server):
    return server.query("SELECT count(*) FROM rows")[0][0]


def events(server, place, backup_type, previous=None, succeeded=True, upto="backup_complete", log_backups=True):
    """One backup in a session of its own; the component's answer."""
    component = [dict(MAIN[0], **({"previous_stamp": previous} if previous else {}))]
    members = {"components": component, "backup_type": backup_type, "volumes": [{"volume": place, "provider": "copy", "atomic": False}],
               "staging": place + "/staging"}
    answer = None
    with server.writer(log_backups=log_backups) as writer:
        writer.metadata()
        for event in ("prepare_backup", "prepare_snapshot", "freeze", "thaw", "post_snapshot", "backup_complete"):
            more = {"snapshot_taken": True} if event == "thaw" else {}
            if event == "backup_complete":
                more["components"] = [dict(component[0], succeeded=succeeded)]
            told = writer.ok(event, **dict(members, **more))
            if event == "post_snapshot":
                answer = told["components"][0]
                answer["segments"] = keep(place, answer["extra_files"]) if backup_type == "log" else []
            if event == upto:
                break
        writer.ok("abort" if upto != "backup_complete" else "backup_shutdown")
    return answer


def keep(place, extra_files):
    """As Copy would: what was added goes to an archive, by name."""
    os.makedirs(place + "/archive", exist_ok=True)
    for file in extra_files:
        copy = place + "/archive/" + os.path.basename(file["path"])
        shutil.copy(file["source"], copy)
        own(copy)
    return [os.path.basename(file["path"]) for file in extra_files]


def refused(server, place, previous, *words, event="prepare_backup", failure="NONRETRYABLE", **more):
    component = [dict(MAIN[0], **({"previous_stamp": previous} if previous else {}))]
    with server.writer(log_backups=True, **more) as writer:
        writer.metadata()
        answer = writer.refused(event, failure, components=component, backup_type="log", volumes=[], staging=place + "/staging")
    for word in words:
        assert word in answer["message"], answer


def test_what_it_offers_says_that_log_backups_are_on(server):
    with server.writer(log_backups=True) as writer:
        on = writer.metadata()
    with server.writer() as writer:
        off = writer.metadata()
    assert on["backup_schema"] == ["copy", "log", "lsn", "new_target", "roll_forward"] and [s["backup_types"] for s in on["components"][0]["file_sets"]] == [["full"]]
    assert off["backup_schema"] == ["new_target"] and "backup_types" not in off["components"][0]["file_sets"][0]


def test_a_chain_moves_the_slot_and_each_log_goes_on_where_the_last_ended(server, place):
    full = events(server, place, "full")
    (name, status, temporary, restart), = slots(server)
    assert name.startswith(SLOT) and status == "reserved" and not temporary
    facts = json.loads(full["metadata"])
    assert restart == facts["stop_lsn"], "what lies before the complete backup need not be kept"
    previous, seen = full["stamp"], []
    for _ in range(2):
        write(server)
        log = events(server, place, "log", previous)
        facts = json.loads(log["metadata"])
        assert facts["way"] == "log" and previous.endswith(":" + facts["start_lsn"]) and log["stamp"].endswith(":" + facts["stop_lsn"])
        assert log["consistent_at"] == "thaw" and facts["restore_point"].startswith("quiesced_")
        assert slots(server)[0][3] == facts["stop_lsn"]
        assert len(log["segments"]) > 2 and log["segments"] == sorted(log["segments"])
        seen += log["segments"]
        previous = log["stamp"]
    numbers = [int(name[8:16], 16) * 4096 + int(name[16:], 16) for name in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "every segment once, none missing"
    idle = events(server, place, "log", previous)
    assert len(idle["segments"]) >= 1, "a log backup of an idle server ends with a restore point all the same"
    assert os.listdir(place + "/staging") == []


@pytest.mark.parametrize("backup_type, succeeded, upto", [("copy", True, "backup_complete"), ("log", False, "backup_complete"), ("full", False, "backup_complete"),
                                                          ("log", True, "post_snapshot"), ("full", True, "freeze"), ("other", True, "backup_complete")])
def test_wal_is_given_up_only_for_a_complete_backup_that_is_no_copy(server, place, backup_type, succeeded, upto):
    full = events(server, place, "full")
    write(server)
    before = slots(server)
    events(server, place, backup_type, full["stamp"], succeeded, upto)
    assert slots(server) == before
    write(server)
    log = events(server, place, "log", full["stamp"])  # and the chain goes on
    assert len(log["segments"]) > 5


@pytest.mark.parametrize("backup_type, upto, succeeded, stays", [("copy", "backup_complete", True, 0), ("full", "prepare_snapshot", True, 0),
                                                                 ("full", "post_snapshot", True, 0), ("full", "backup_complete", False, 0), ("full", "backup_complete", True, 1),
                                                                 ("incremental", "backup_complete", True, 1)])
def test_a_slot_that_no_complete_backup_goes_on_from_is_dropped(server, place, backup_type, upto, succeeded, stays):
    events(server, place, backup_type, upto=upto, succeeded=succeeded)
    assert len(slots(server)) == stays


def test_switching_log_backups_off_drops_the_slot(server, place):
    events(server, place, "full")
    events(server, place, "copy", log_backups=False)
    assert len(slots(server)) == 1, "a copy leaves everything as it is"
    events(server, place, "full", log_backups=False)
    assert slots(server) == []


def test_a_server_without_a_bound_is_refused(server, place):
    bound(server, "-1")
    members = {"components": MAIN, "volumes": [], "staging": place + "/staging"}
    with server.writer(log_backups=True) as writer:
        writer.metadata()
        writer.ok("prepare_backup", **members)
        answer = writer.refused("prepare_snapshot", "NONRETRYABLE", **members)
        assert "max_slot_wal_keep_size" in answer["message"] and "ALTER SYSTEM" in answer["message"]
        writer.ok("abort")
    assert slots(server) == []


def test_a_forgotten_slot_is_bounded_and_then_refused_and_made_anew(server, place):
    full = events(server, place, "full")
    bound(server, "2MB")
    write(server, 8)
    assert slots(server)[0][1] == "lost", "the server lets go of it"
    assert len(glob.glob(server.data + "/pg_wal/0*")) < 16
    refused(server, place, full["stamp"], "has lost WAL", "max_slot_wal_keep_size", "full backup")
    bound(server, BOUND)
    again = events(server, place, "full")
    assert slots(server)[0][1] == "reserved"
    write(server)
    assert events(server, place, "log", again["stamp"])["segments"]
    refused(server, place, full["stamp"], "made for another one", full["stamp"].split(":")[2])
    refused(server, place, again["stamp"], "later position")


def test_no_chain_no_log_backup(server, place):
    refused(server, place, None, "previous stamp")
    for stamp in ("yesterday", "0/3000100", "1:2", "a:b:c"):
        refused(server, place, stamp, "none of this writer")
    full = events(server, place, "full")
    system, timeline, chain, lsn = full["stamp"].split(":")
    assert slots(server)[0][0].endswith("_" + chain), "the stamp names the slot that keeps the log since"
    refused(server, place, f"{int(system) + 1}:{timeline}:{chain}:{lsn}", "another cluster")
    refused(server, place, f"{system}:2:{chain}:{lsn}", "left the history")
    refused(server, place, f"{system}:1:{chain}:FFFF/0", "left the history")
    refused(server, place, f"{system}:1:{lsn}", "(none: a copy", "full backup")
    copy = events(server, place, "copy")
    refused(server, place, copy["stamp"], "(none: a copy", "full backup")
    server.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    refused(server, place, full["stamp"], "is not there", "full backup")


def test_a_log_backup_needs_its_component_named(server, place):
    events(server, place, "full")
    with server.writer(log_backups=True) as writer:
        writer.metadata()
        writer.refused("prepare_backup", "NONRETRYABLE", components=[], component_mode=False, backup_type="log")


def test_a_missing_segment_is_a_failure_and_the_slot_stays(server, place):
    full = events(server, place, "full")
    write(server)
    before = slots(server)

    component = [dict(MAIN[0], previous_stamp=full["stamp"])]
    members = {"components": component, "backup_type": "log", "volumes": [], "staging": place + "/staging"}
    with server.writer(log_backups=True) as writer:
        writer.metadata()
        for event in ("prepare_backup", "prepare_snapshot", "freeze", "thaw"):
            writer.ok(event, **dict(members, snapshot_taken=True))
        first = before[0][3].split("/")
        lost = f"{server.data}/pg_wal/00000001{first[0]:0>8}{(int(first[1], 16) >> 20) + 1:08X}"
        os.rename(lost, place + "/lost")
        answer = writer.refused("post_snapshot", "NONRETRYABLE", **members)
        os.rename(place + "/lost", lost)
        assert "WAL segment" in answer["message"] and "full backup" in answer["message"], answer
        writer.ok("backup_shutdown")
    assert os.listdir(place + "/staging") == [] and slots(server) == before


def test_a_lost_connection_fails_the_log_backup(server, place):
    full = events(server, place, "full")
    component = [dict(MAIN[0], previous_stamp=full["stamp"])]
    members = {"components": component, "backup_type": "log", "volumes": [], "staging": place + "/staging"}
    with server.writer(log_backups=True) as writer:
        writer.metadata()
        writer.ok("prepare_backup", **members)
        writer.ok("prepare_snapshot", **members)
        server.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'quiesced%'")
        writer.refused("freeze", "RETRYABLE", **members)
        writer.ok("abort")


# --- restored --------------------------------------------------------------------------------------------------------

def base_backup(server, place, name):
    """A plain copy of the living cluster with what its full backup adds."""
    members = {"components": MAIN, "volumes": [{"volume": place, "provider": "copy", "atomic": False}], "staging": place + "/staging"}
    target = f"{place}/{name}"
    with server.writer(log_backups=True) as writer:
        writer.metadata()
        for event in ("prepare_backup", "prepare_snapshot", "freeze"):
            writer.ok(event, **members)
        shutil.copytree(server.data, target, symlinks=True, ignore=shutil.ignore_patterns("*.pid", "pgsql_tmp*"))
        for entry in os.listdir(target + "/pg_replslot"):
            shutil.rmtree(f"{target}/pg_replslot/{entry}")
        writer.ok("thaw", snapshot_taken=True, **members)
        component, = writer.ok("post_snapshot", **members)["components"]
        for file in component["extra_files"]:
            shutil.copy(file["source"], target + file["path"][len(server.data):])
        writer.ok("backup_complete", **dict(members, components=[dict(MAIN[0], succeeded=True)]))
        writer.ok("backup_shutdown")
    run("chown", "-R", "postgres:postgres", target, user=None)
    os.chmod(target, 0o700)
    return target, component


def recover(place, target, restore_point):
    """As docs/writers/postgresql.md says; the server, or AssertionError with its log when it does not start."""
    with open(target + "/postgresql.auto.conf", "a") as settings:
        settings.write(f"restore_command = 'cp {place}/archive/%f \"%p\"'\nrecovery_target_name = '{restore_point}'\nrecovery_target_action = 'promote'\n")
    open(target + "/recovery.signal", "w").close()
    own(target + "/recovery.signal")
    sockets = target + "-sockets"
    os.mkdir(sockets)
    own(sockets)
    return Server(target, sockets, restored=True, options=["hot_standby=off"])  # it lets nobody in before it is recovered


def test_no_log_backup_goes_on_from_a_history_that_a_restore_on_the_same_timeline_gave_up(server, place):
    target, _ = base_backup(server, place, "same")
    full = events(server, place, "full")
    write(server)
    abandoned = events(server, place, "log", full["stamp"])
    position = "SELECT pg_current_wal_insert_lsn() > '%s'::pg_lsn" % abandoned["stamp"].split(":")[-1]
    os.mkdir(target + "-sockets")
    own(target + "-sockets")
    with Server(target, target + "-sockets", restored=True) as restored:
        again = events(restored, place, "full")
        while not restored.query(position)[0][0] in (True, "t"):
            write(restored)
        system, timeline = again["stamp"].split(":")[:2]
        assert abandoned["stamp"].startswith(f"{system}:{timeline}:"), "the same cluster and timeline, and the server is beyond it"
        refused(restored, place, abandoned["stamp"], "made for another one", abandoned["stamp"].split(":")[2], "full backup")
        assert events(restored, place, "log", again["stamp"])["segments"], "the chain of the new full backup goes on"
    shutil.rmtree(target)


def test_full_and_logs_restore_to_the_last_moment_and_a_gap_is_refused(server, place):
    target, full = base_backup(server, place, "base")
    shutil.copytree(target, place + "/gap", symlinks=True)
    run("chown", "-R", "postgres:postgres", place + "/gap", user=None)
    write(server)
    first = events(server, place, "log", full["stamp"])
    write(server)
    acknowledged = count(server)
    second = events(server, place, "log", first["stamp"])
    write(server)
    point = json.loads(second["metadata"])["restore_point"]
    with recover(place, target, point) as restored:
        rows = count(restored)
        assert rows == acknowledged, "everything before the log backup, and nothing after it"
        restored.query("INSERT INTO rows (filler) VALUES ('it takes writes')")
        assert slots(restored) == []
    for segment in first["segments"][1:-1]:
        os.unlink(f"{place}/archive/{segment}")
    with pytest.raises(AssertionError, match="recovery ended before configured recovery target was reached"):
        recover(place, place + "/gap", point)
