"""MariaDB restored by its writer: into its own place (stop, files, start, verify), undone when that fails, and beside it."""
import fcntl
import glob
import json
import os
import shutil
import signal
import subprocess

import pytest

from mariadb_server import Server, directory, own
from service_manager import Manager
from trees import excluded
from writer_driver import chosen

MAIN = chosen("main")


def volume_of(path):
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return [{"volume": path, "provider": "external", "atomic": True}]


class Backup:
    """What a mover would keep: every file of the sets, copied while the idle server is held, and what the writer answered."""

    def __init__(self, server, place):
        self.sets = []
        os.mkdir(place + "/store")
        members = {"components": MAIN, "volumes": volume_of(place)}
        with server.writer() as writer:
            metadata = writer.metadata()
            for event in ("prepare_backup", "prepare_snapshot", "freeze"):
                writer.ok(event, **members)
            for number, files in enumerate(metadata["components"][0]["file_sets"]):
                self.sets.append((files["path"], files["spec"], "%s/store/%d" % (place, number)))
                self.keep(*self.sets[-1], metadata["exclude"])
            writer.ok("thaw", snapshot_taken=True, **members)
            answer, = writer.ok("post_snapshot", **members)["components"]
            self.facts = answer["metadata"]

    def keep(self, path, spec, kept, excludes):
        os.mkdir(kept)
        for source in glob.glob(path + "/" + spec):
            if not excluded(source, excludes):
                subprocess.run(["cp", "-a", source, kept], check=True)

    def component(self, **members):
        return [{"logical_path": "", "name": "main", "backup_metadata": self.facts, **members}]

    def restore(self, *targets):
        for (path, _, kept), target in zip(self.sets, targets or [path for path, _, _ in self.sets]):
            subprocess.run(["cp", "-a", *glob.glob(kept + "/*"), target], check=True)


@pytest.fixture(scope="module")
def world():
    """One server with its binary log elsewhere, its manager and one backup of it: each test ends with a server that runs."""
    path = directory()
    for name in ("/logs", "/sockets"):
        os.mkdir(path + name)
        own(path + name)
    with Server(path + "/data", path + "/sockets", options=["--log-bin=" + path + "/logs/shop-bin"]) as server, Manager(server, path + "/manager") as manager:
        server.query("CREATE DATABASE test")
        for engine in ("innodb", "myisam", "aria"):
            server.query("CREATE TABLE test.t_%s ENGINE=%s AS SELECT seq AS i FROM test.seq_1_to_1000" % (engine, engine))
        backup = Backup(server, path)
        yield path, server, manager, backup
    shutil.rmtree(path)


@pytest.fixture
def place(world):
    yield world[0]
    for left in aside(world[0]):
        shutil.rmtree(left, ignore_errors=True)


@pytest.fixture
def server(world):
    """In its newest state: what an undo must bring back."""
    for engine in ("innodb", "myisam", "aria"):
        world[1].query("DELETE FROM test.t_%s WHERE i > 10" % engine)
    world[1].query("CREATE DATABASE IF NOT EXISTS later")
    world[1].query("FLUSH BINARY LOGS")
    return world[1]


@pytest.fixture
def manager(world):
    world[2].asked, world[2].on = [], {}
    return world[2]


@pytest.fixture
def backup(world):
    return world[3]


def counts(server):
    return {server.query("SELECT count(*) FROM test.t_" + engine)[0][0] for engine in ("innodb", "myisam", "aria")}


def databases(server):
    return {row[0] for row in server.query("SHOW DATABASES")}


def is_restored(server):
    assert counts(server) == {1000} and "later" not in databases(server)
    server.query("INSERT INTO test.t_innodb VALUES (5000)")  # it takes writes
    server.query("DELETE FROM test.t_innodb WHERE i = 5000")
    return True


def is_as_before(server):
    return counts(server) == {10} and "later" in databases(server)


def aside(place):
    return glob.glob(place + "/*-restore-*") + glob.glob(place + "/*/.quiesced*")


def taken(place):
    return [path for path in aside(place) if "before-restore-" in path]


def test_a_server_is_restored_in_its_place_with_its_binary_log(server, manager, backup, place):
    open(place + "/logs/other", "w").close()  # not of the component
    with server.writer(**manager.commands) as writer:
        assert "new_target" in writer.metadata()["backup_schema"]
        living = [{"path": path, "spec": spec, "new_path": server.data + "/copy"} for path, spec, _ in backup.sets]
        assert "lives" in writer.refused("pre_restore", "NONRETRYABLE", components=backup.component(new_targets=living))["message"]
        for members in ({}, {"restore_target": "original"}):  # and the same again
            answer, = writer.ok("pre_restore", components=backup.component(**members))["components"]
            assert (answer["name"], answer["restore_target"]) == ("main", "original")
        assert server.process.poll() is not None and manager.asked == ["stop"]
        assert os.listdir(server.data) == [] and os.listdir(place + "/logs") == ["other"]
        assert len(taken(place)) == 2
        backup.restore()
        open(server.data + "/stale.pid", "w").close()
        own(server.data + "/stale.pid")
        writer.ok("post_restore", components=backup.component(file_restore_status="all"))
        assert manager.asked == ["stop", "start"] and not os.path.exists(server.data + "/stale.pid")
        writer.ok("backup_shutdown")
    assert is_restored(server) and aside(place) == []
    assert [found for found in server.check_tables() if found[1] == "error"] == []


def test_a_new_target_in_which_a_server_works_is_refused(server, manager, backup, place):
    os.mkdir(place + "/busy")
    with open(place + "/busy/ibdata1", "w") as file:
        own(place + "/busy/ibdata1")
        own(place + "/busy")
        fcntl.lockf(file, fcntl.LOCK_EX)
        busy = [{"path": path, "spec": spec, "new_path": place + "/busy"} for path, spec, _ in backup.sets]
        with server.writer(**manager.commands) as writer:
            writer.metadata()
            answer = writer.refused("pre_restore", "NONRETRYABLE", components=backup.component(new_targets=busy))
            assert "a server works" in answer["message"]
    shutil.rmtree(place + "/busy")
    assert manager.asked == [] and is_as_before(server) and aside(place) == []


def test_a_data_directory_whose_parent_may_not_be_written_keeps_the_old_data_within(server, manager, backup, place):
    os.chown(place, 0, 0)
    os.chmod(place, 0o755)
    try:
        with server.writer(**manager.commands) as writer:
            writer.metadata()
            writer.ok("pre_restore", components=backup.component())
            kept, empty = sorted(os.listdir(server.data))
            assert empty.startswith(".quiesced-failed-restore-") and kept.startswith(".quiesced-before-restore-") and os.path.exists(server.data + "/" + kept + "/ibdata1")
            backup.restore()
            writer.ok("post_restore", components=backup.component(file_restore_status="all"))
        assert is_restored(server) and aside(place) == []
    finally:
        own(place)


@pytest.mark.parametrize("end", ["failed", "end-of-file"])
def test_the_old_data_comes_back_after(end, server, manager, backup, place):
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        open(server.data + "/ibdata1", "w").close()  # a restore that did not get far, as root
        if end == "failed":
            writer.ok("post_restore", components=backup.component(file_restore_status=end))
        else:
            writer.process.stdin.close()
            assert writer.process.wait(60) == 0
        assert manager.asked == ["stop", "start"]
    assert is_as_before(server) and aside(place) == []


def spoil_a_table(data):
    with open(data + "/test/t_myisam.MYD", "r+b") as file:
        file.truncate(100)


def lose_the_tables_of_the_system(data):
    shutil.rmtree(data + "/mysql")


@pytest.mark.parametrize("damage,says", [(spoil_a_table, "test.t_myisam"), (lose_the_tables_of_the_system, "/mysql")])
def test_a_restored_server_that_is_not_whole_is_put_away(damage, says, server, manager, backup, place):
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        backup.restore()
        damage(server.data)
        answer = writer.refused("post_restore", "NONRETRYABLE", components=backup.component(file_restore_status="all"))
        assert says in answer["message"] and "old data is in its place again" in answer["message"]
        assert all(kept in answer["message"] for kept in aside(place)) and aside(place)
    assert is_as_before(server)


def test_what_cannot_be_restored_here_is_refused_and_nothing_changes(server, manager, backup, place):
    facts = json.loads(backup.facts)
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        other = json.dumps({**facts, "version": "11.4.2-MariaDB"})
        answer = writer.refused("pre_restore", "NONRETRYABLE", components=[{**backup.component()[0], "backup_metadata": other}])
        assert "11.4.2" in answer["message"]
        assert "components" not in writer.ok("pre_restore", components=[])
    with server.writer() as writer:
        writer.metadata()
        assert "no stop command" in writer.refused("pre_restore", "NONRETRYABLE", components=backup.component())["message"]
    assert manager.asked == [] and is_as_before(server)


@pytest.mark.full
def test_a_backup_with_a_binary_log_needs_one(server, manager, backup, place):
    second = directory()
    try:
        with Server(second + "/data", second) as plain, Manager(plain, second + "/manager") as other:
            facts = {**backup.component()[0]}
            with plain.writer(**other.commands) as writer:
                writer.metadata()
                answer = writer.refused("pre_restore", "NONRETRYABLE", components=[facts])
                assert "binary log" in answer["message"]
            assert other.asked == [] and plain.query("SELECT 1")[0][0] == 1
    finally:
        shutil.rmtree(second)


def test_a_server_that_is_down_is_restored_and_started(server, manager, backup, place):
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    for path in glob.glob(server.data + "/*"):  # the disk was new
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    with server.writer(**manager.commands) as writer:
        writer.refused("identify", "RETRYABLE")
    with server.writer(data_directory=server.data, **manager.commands) as writer:
        assert "down" in writer.metadata()["components"][0]["caption"]
        assert writer.ask("prepare_backup", components=MAIN)["ok"] is False, "a backup of it is refused"
        writer.ok("pre_restore", components=backup.component())
        backup.restore()
        writer.ok("post_restore", components=backup.component(file_restore_status="all"))
        assert manager.asked == ["start"]
    assert is_restored(server) and aside(place) == []


@pytest.mark.full
def test_new_targets_leave_the_server_alone(server, manager, backup, place):
    copies = [place + "/copy", place + "/copy-logs"]
    for copy in copies:
        os.mkdir(copy, 0o700)
        own(copy)
    targets = [{"path": path, "spec": spec, "recursive": True, "new_path": copy} for (path, spec, _), copy in zip(backup.sets, copies)]
    with server.writer() as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component(new_targets=targets))
        backup.restore(*copies)
        writer.ok("post_restore", components=backup.component(new_targets=targets, file_restore_status="all"))
    assert is_as_before(server)
    sockets = place + "/second"
    os.mkdir(sockets)
    own(sockets)
    shutil.copy(place + "/sockets/account", sockets + "/account")
    with Server(copies[0], sockets, restored=True, options=["--log-bin=" + copies[1] + "/shop-bin"]) as second:
        assert is_restored(second)
    assert is_as_before(server)
