"""The PostgreSQL writer against a real server under pgbench load. Way (a): one atomic snapshot; way (b): label and log."""
import glob
import json
import os
import shutil
import signal
import time

import pytest

import loop_btrfs
import postgresql_server
from postgresql_server import BIN, Server, directory, own, run
from trees import add_extra, copy_tree, excluded, staging_of, volume
from writer_driver import Writer, chosen, stop, until

MAIN = chosen("main")


@pytest.fixture
def place():
    path = directory()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(place):
    with Server(place + "/data", place) as started:
        yield started


@pytest.fixture
def btrfs():
    """A loop-mounted btrfs of our own with one subvolume, or a reason why not."""
    with loop_btrfs.mounted() as mount:
        loop_btrfs.subvolume(mount + "/pg")
        own(mount + "/pg")
        yield mount


def prepare(writer, **members):
    metadata = writer.metadata()
    writer.ok("prepare_backup", components=MAIN, **members)
    writer.ok("prepare_snapshot", components=MAIN, **members)
    return metadata


def check_restored(data, place, at_least):
    sockets = place + "/restored"
    os.mkdir(sockets)
    own(sockets)
    with Server(data, sockets, restored=True) as restored:
        accounts, tellers, branches, history, rows = restored.sums()
        assert accounts == tellers == branches == history
        assert rows >= at_least
        run(BIN + "/pg_amcheck", "-h", sockets, "-U", "postgres", "--install-missing", "--heapallindexed", "postgres")
        restored.query("CREATE TABLE proof(i int)")  # it takes writes
    shutil.rmtree(sockets)
    return rows


def test_the_component_is_the_data_directory_without_what_the_server_rebuilds(server):
    with server.writer() as writer:
        metadata = writer.metadata()
    component, = metadata["components"]
    assert (component["type"], component["logical_path"], component["name"]) == ("database", "", "main")
    assert component["file_sets"] == [{"path": server.data, "spec": "*", "recursive": True}]
    for path in ("/postmaster.pid", "/pg_replslot/some/state", "/pg_notify/0000", "/base/pgsql_tmp/pgsql_tmp12.0", "/pg_subtrans/0000"):
        assert excluded(server.data + path, metadata["exclude"])
    for path in ("/postmaster.opts", "/PG_VERSION", "/global/pg_control", "/base/1/1259", "/pg_wal/000000010000000000000001", "/pg_xact/0000"):
        assert not excluded(server.data + path, metadata["exclude"])


def test_the_log_and_tablespaces_elsewhere_are_file_sets_of_their_own(place):
    os.makedirs(place + "/space/PG_14_202107181")  # another version's, in the same location
    own(place + "/space")
    with Server(place + "/data", place, initdb=["-X", place + "/log-elsewhere"]) as server:
        server.query("CREATE TABLESPACE extra LOCATION '%s/space'" % place)
        ours, = [path for path in glob.glob(place + "/space/*") if not path.endswith("PG_14_202107181")]
        with server.writer() as writer:
            sets = writer.metadata()["components"][0]["file_sets"]
    assert [s["path"] for s in sets] == [place + "/data", place + "/log-elsewhere", ours]


def test_a_cluster_name_becomes_the_component_name(place):
    with Server(place + "/data", place) as server:
        server.query("ALTER SYSTEM SET cluster_name = '15/main'")
    with Server(place + "/data", place, restored=True) as server, server.writer() as writer:
        assert writer.metadata()["components"][0]["name"] == "15-main"


def test_identify_keeps_one_idle_session_and_no_hold(server):
    with server.writer() as writer:
        writer.metadata()
        writer.metadata()
        assert server.traces() == (1, 0)
        assert server.query("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'quiesced%'") == [("quiesced: pg-main",)]
    until(lambda: server.traces() == (0, 0), "the session ends with the writer")


def test_way_b_a_plain_copy_under_load_restores_with_equal_sums(server, place):
    """Told at thaw that the snapshot is taken, the cluster's moment is the thaw; told nothing, it is some time later."""
    server.pgbench_init()
    staging = staging_of(place)
    load = server.pgbench()
    try:
        for turn, (told, point) in enumerate([({}, "later"), ({"snapshot_taken": True}, "thaw")]):
            with server.writer() as writer:
                members = {"volumes": volume(place, False), "staging": staging}
                metadata = prepare(writer, **members)
                writer.ok("freeze", components=MAIN, **members)
                target = "%s/copy-%d" % (place, turn)
                copy_tree(server.data, target, metadata["exclude"])
                server.query("CHECKPOINT")  # recycles every segment that nothing keeps
                before_stop = server.history()
                writer.ok("thaw", components=MAIN, **told, **members)
                after_thaw = server.history()
                until(lambda: server.history() > after_thaw, "the load goes on after the thaw")
                server.query("CHECKPOINT")
                before_stop = before_stop if point == "thaw" else server.history()
                component, = writer.ok("post_snapshot", components=MAIN, **members)["components"]
                facts = json.loads(component["metadata"])
                assert facts["way"] == "backup-label" and facts["timeline"] == 1 and component["stamp"].endswith(":1:" + facts["stop_lsn"])
                assert component["consistent_at"] == point
                assert facts["system_identifier"] == str(server.query("SELECT system_identifier FROM pg_control_system()")[0][0])
                assert sorted(os.path.basename(e["path"]) for e in component["extra_files"])[-1] == "backup_label"
                assert len(component["extra_files"]) > 2, "the load filled more than one segment"
                assert server.query("SELECT count(*) FROM pg_replication_slots") == [(0,)]
                add_extra(component, (server.data, target))
                writer.ok("backup_complete", components=MAIN)
                writer.ok("backup_shutdown")
                assert os.listdir(staging) == []
            assert not os.path.exists(target + "/postmaster.pid")
            # Everything acknowledged before pg_backup_stop is in the log that came with it.
            rows = check_restored(target, place, before_stop)
            assert point == "later" or rows <= after_thaw, "what was committed after the thaw is not in it"
            shutil.rmtree(target)
        assert load.poll() is None, "pgbench went on all the time"
    finally:
        load.terminate()
        load.wait(60)


def test_way_a_atomic_snapshots_under_load_recover_with_equal_sums(btrfs, place):
    with Server(btrfs + "/pg/data", place) as server:
        server.pgbench_init()
        load = server.pgbench()
        try:
            for turn in range(2):
                with server.writer() as writer:
                    members = {"volumes": volume(btrfs + "/pg", True), "staging": place}
                    metadata = prepare(writer, **members)
                    assert server.query("SELECT count(*) FROM pg_replication_slots") == [(0,)]
                    at_least = server.history()
                    writer.ok("freeze", components=MAIN, **members)
                    snapshot = "%s/snapshot-%d" % (btrfs, turn)
                    run("btrfs", "subvolume", "snapshot", "-r", btrfs + "/pg", snapshot, user=None)
                    writer.ok("thaw", components=MAIN, snapshot_taken=True, **members)
                    component, = writer.ok("post_snapshot", components=MAIN, **members)["components"]
                    facts = json.loads(component["metadata"])
                    assert component["consistent_at"] == "snapshot"
                    assert facts["way"] == "atomic-snapshot" and component["extra_files"] == []
                    assert facts["start_lsn"] and component["stamp"].endswith(":" + facts["stop_lsn"])
                target = place + "/copy"
                copy_tree(snapshot + "/data", target, metadata["exclude"], server.data)
                run("btrfs", "subvolume", "delete", snapshot, user=None)
                check_restored(target, place, at_least)
                shutil.rmtree(target)
            assert load.poll() is None
        finally:
            load.terminate()
            load.wait(60)


@pytest.mark.parametrize("nested", ["pg_wal", "base"])
def test_a_subvolume_within_the_data_directory_forbids_way_a(btrfs, place, nested):
    server = Server(btrfs + "/pg/data", place)
    server.stop()
    inner = "%s/pg/data/%s" % (btrfs, nested)
    os.rename(inner, btrfs + "/pg/aside")
    run("btrfs", "subvolume", "create", inner, user=None)
    shutil.copytree(btrfs + "/pg/aside", inner, dirs_exist_ok=True)
    run("chown", "-R", "postgres:postgres", inner, user=None)
    os.chmod(inner, 0o700)
    staging = staging_of(place)
    with Server(btrfs + "/pg/data", place, restored=True) as server, server.writer() as writer:
        members = {"volumes": volume(btrfs + "/pg", True) + volume(inner, True), "staging": staging}
        prepare(writer, **members)
        writer.ok("freeze", components=MAIN, **members)
        component, = writer.ok("post_snapshot", components=MAIN, **members)["components"]
        assert json.loads(component["metadata"])["way"] == "backup-label"
        writer.ok("abort")
        prepare(writer, volumes=volume(btrfs + "/pg", True), staging=staging)
        assert server.query("SELECT count(*) FROM pg_replication_slots") == [(1,)], "a subvolume that nobody named counts as well"


def test_a_tablespace_comes_with_its_map_and_restores(place):
    os.mkdir(place + "/space")
    own(place + "/space")
    staging = staging_of(place)
    with Server(place + "/data", place) as server:
        server.query("CREATE TABLESPACE extra LOCATION '%s/space'" % place)
        server.query("CREATE TABLE t TABLESPACE extra AS SELECT generate_series(1, 1000) AS i")
        members = {"volumes": volume(place, False), "staging": staging}
        with server.writer() as writer:
            metadata = prepare(writer, **members)
            writer.ok("freeze", components=MAIN, **members)
            copy_tree(server.data, place + "/copy", metadata["exclude"])
            writer.ok("thaw", components=MAIN, **members)
            component, = writer.ok("post_snapshot", components=MAIN, **members)["components"]
            assert server.data + "/tablespace_map" in [e["path"] for e in component["extra_files"]]
            add_extra(component, (server.data, place + "/copy"))
    sockets = place + "/restored"
    os.mkdir(sockets)
    own(sockets)
    with Server(place + "/copy", sockets, restored=True) as restored:  # the first server is down: the place is free
        assert restored.query("SELECT sum(i) FROM t") == [(500500,)]


def test_a_tablespace_made_after_identify_fails_the_backup(server, place):
    os.mkdir(place + "/space")
    own(place + "/space")
    members = {"volumes": volume(place, False), "staging": staging_of(place)}
    with server.writer() as writer:
        prepare(writer, **members)
        writer.ok("freeze", components=MAIN, **members)
        server.query("CREATE TABLESPACE extra LOCATION '%s/space'" % place)
        writer.refused("post_snapshot", "RETRYABLE", components=MAIN, **members)
        writer.refused("prepare_backup", "RETRYABLE", components=MAIN)


@pytest.mark.parametrize("end", ["abort", "backup_shutdown", "end-of-file", "SIGTERM", "SIGKILL"])
def test_backup_mode_and_slot_end_by(end, server, place):
    members = {"volumes": volume(place, False), "staging": staging_of(place)}
    with server.writer() as writer:
        prepare(writer, **members)
        assert server.traces() == (1, 1)
        if end == "end-of-file":
            writer.process.stdin.close()
            assert writer.process.wait(60) == 0
        elif end == "SIGTERM":
            writer.process.terminate()
            assert writer.process.wait(60) == 0
        elif end == "SIGKILL":
            writer.process.kill()
            writer.process.wait(60)
        else:
            writer.ok(end)
        until(lambda: server.traces() == (0, 0), "the server ends session and slot")
    with server.writer() as writer:  # and the next backup goes
        prepare(writer, **members)


@pytest.mark.parametrize("end", ["abort", "end-of-file"])
def test_what_was_staged_is_removed_by(end, server, place):
    staging = staging_of(place)
    members = {"volumes": volume(place, False), "staging": staging}
    with server.writer() as writer:
        prepare(writer, **members)
        writer.ok("freeze", components=MAIN, **members)
        writer.ok("thaw", components=MAIN, **members)
        writer.ok("post_snapshot", components=MAIN, **members)
        assert os.listdir(staging)
        if end == "abort":
            writer.ok("abort")
        else:
            writer.process.stdin.close()
            writer.process.wait(60)
        assert os.listdir(staging) == []


@pytest.mark.parametrize("atomic", [False, True])
def test_a_lost_connection_fails_the_next_event_and_can_be_begun_anew(server, place, atomic):
    members = {"volumes": volume(place, atomic), "staging": staging_of(place)}
    with server.writer() as writer:
        prepare(writer, **members)
        writer.ok("freeze", components=MAIN, **members)
        (backend, _), = server.query("SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'quiesced%'")
        # A backend leaves pg_stat_activity before its socket is closed: only the end of its process is what the writer notices.
        until(lambda: not os.path.exists(f"/proc/{backend}"), "the backend is gone")
        assert server.traces() == (0, 0)
        answer = writer.refused("thaw", "RETRYABLE", components=MAIN, **members)
        assert "connection lost" in answer["message"]
        writer.refused("post_snapshot", "RETRYABLE", components=MAIN, **members)
        writer.ok("abort")
        prepare(writer, **members)


def test_a_server_that_hangs_is_given_up_at_the_deadline(server):
    with server.writer() as writer:
        writer.metadata()
        pid = server.query("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'quiesced%'")[0][0]
        stop(pid)
        try:
            writer.refused("prepare_backup", "TIMEOUT", components=MAIN, deadline_ms=500)
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: server.traces() == (0, 0), "the session is gone")


def test_a_requester_that_leaves_ends_a_wait_for_the_server(server):
    with server.writer() as writer:
        writer.metadata()
        pid = server.query("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'quiesced%'")[0][0]
        stop(pid)
        try:
            writer.send("prepare_backup", components=MAIN, deadline_ms=3600 * 1000)
            writer.process.stdin.close()
            assert writer.process.wait(60) == 0
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_cluster_that_is_not_selected_is_left_alone(server, place):
    with server.writer() as writer:
        writer.metadata()
        for event in ("prepare_backup", "prepare_snapshot", "freeze", "thaw", "post_snapshot"):
            assert "components" not in writer.ok(event, components=[], volumes=volume(place, False))
        assert server.traces() == (1, 0)


def test_another_clusters_data_directory_is_refused(server, place):
    os.mkdir(place + "/other")
    own(place + "/other")
    run(BIN + "/initdb", "-D", place + "/other/data", "-U", "postgres", "-A", "trust", "-N")
    with server.writer(data_directory=place + "/other/data") as writer:
        answer = writer.refused("identify", "NONRETRYABLE")
        assert "another cluster" in answer["message"]


def test_a_standby_is_refused_with_a_reason(server, place):
    run(BIN + "/pg_basebackup", "-h", server.sockets, "-U", "postgres", "-D", place + "/standby", "-R", "-c", "fast")
    os.mkdir(place + "/second")
    own(place + "/second")
    with Server(place + "/standby", place + "/second", restored=True) as standby, standby.writer() as writer:
        answer = writer.refused("identify", "NONRETRYABLE")
        assert "standby" in answer["message"]


def test_no_server_and_no_right_are_told_apart(server, place):
    with Writer("postgresql", {"name": "pg", "connection": "host=/nowhere/at/all"}) as writer:
        writer.refused("identify", "RETRYABLE")
    with Writer("postgresql", {"name": "pg", "connection": "no=such keyword"}) as writer:
        writer.refused("identify", "NONRETRYABLE")
    server.query("CREATE ROLE weak LOGIN")
    with Writer("postgresql", {"name": "pg", "connection": "host=%s user=weak" % server.sockets}, user=postgresql_server.USER) as writer:
        answer = writer.refused("identify", "NONRETRYABLE")
        assert "superuser" in answer["message"]


def test_a_password_never_shows_in_an_answer(place):
    with Writer("postgresql", {"name": "pg", "connection": "host=%s password=hunter2" % place}) as writer:
        assert "hunter2" not in json.dumps(writer.refused("identify", "RETRYABLE"))
