"""PostgreSQL restored by its writer: into its own place (stop, files, start, verify), undone when that fails, and beside it."""
import glob
import json
import os
import shutil
import signal
import subprocess

import pytest

from postgresql_server import BIN, Server, directory, own, run
from service_manager import Manager
from trees import add_extra, copy_tree, staging_of, volume
from writer_driver import chosen

MAIN = chosen("main")


class Backup:
    """What a mover would keep of one backup: the files of every file set, and what the writer answered."""

    def __init__(self, server, place):
        self.store, self.sets = place + "/store", []
        os.mkdir(self.store)
        own(self.store)
        members = {"components": MAIN, "volumes": volume(place, False), "staging": staging_of(place)}
        with server.writer() as writer:
            metadata = writer.metadata()
            writer.ok("prepare_backup", **members)
            writer.ok("prepare_snapshot", **members)
            writer.ok("freeze", **members)
            for number, files in enumerate(metadata["components"][0]["file_sets"]):
                self.sets.append((files["path"], "%s/%d" % (self.store, number)))
                copy_tree(files["path"], self.sets[-1][1], metadata["exclude"])
            writer.ok("thaw", snapshot_taken=True, **members)
            answer, = writer.ok("post_snapshot", **members)["components"]
            add_extra(answer, *self.sets)
            self.facts = answer["metadata"]

    def component(self, **members):
        return [{"logical_path": "", "name": "main", "backup_metadata": self.facts, **members}]

    def restore(self, *targets):
        """Every file to its place, owners and modes kept, as root's mover does."""
        for (path, kept), target in zip(self.sets, targets or [path for path, _ in self.sets]):
            subprocess.run(["cp", "-a", kept + "/.", target], check=True)


@pytest.fixture(scope="module")
def world():
    """One server, its manager and one backup of it for all tests: each ends with a server that runs."""
    path = directory()
    with Server(path + "/data", path) as server, Manager(server, path + "/manager") as manager:
        server.query("CREATE EXTENSION amcheck")
        server.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
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
    world[1].query("DELETE FROM t WHERE i > 10")
    world[1].query("CREATE TABLE IF NOT EXISTS later(i int)")
    return world[1]


@pytest.fixture
def manager(world):
    world[2].asked, world[2].on = [], {}
    return world[2]


@pytest.fixture
def backup(world):
    return world[3]


@pytest.fixture
def own_place():
    path = directory()
    yield path
    shutil.rmtree(path)


def is_restored(server):
    assert server.query("SELECT count(*) FROM t") == [(1000,)]
    assert server.query("SELECT to_regclass('later')") == [(None,)]
    server.query("CREATE TABLE proof(i int)")  # it takes writes
    return True


def is_as_before(server):
    return server.query("SELECT count(*) FROM t") == [(10,)] and server.query("SELECT count(*) FROM later") == [(0,)]


def aside(place):
    return glob.glob(place + "/*-restore-*") + glob.glob(place + "/*/.quiesced*")


def taken(place):
    return [path for path in aside(place) if "before-restore-" in path]


def test_a_cluster_is_restored_in_its_place(server, manager, backup, place):
    inode = os.stat(server.data).st_ino
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        answer, = writer.ok("pre_restore", components=backup.component())["components"]
        assert (answer["name"], answer["restore_target"]) == ("main", "original")
        assert server.process.poll() is not None and manager.asked == ["stop"]
        assert os.listdir(server.data) == [] and os.stat(server.data).st_ino == inode
        kept, = taken(place)
        assert os.path.exists(kept + "/PG_VERSION")
        backup.restore()
        for stale in ("recovery.signal", "standby.signal"):  # would have it wait for a log that nobody brings
            open(server.data + "/" + stale, "w").close()
            own(server.data + "/" + stale)
        assert writer.ok("post_restore", components=backup.component(file_restore_status="all"))
        assert manager.asked == ["stop", "start"]
        writer.ok("backup_shutdown")
    assert server.traces() == (0, 0)
    assert is_restored(server) and aside(place) == []


def test_a_log_and_a_tablespace_elsewhere_are_restored_with_it(own_place):
    place = own_place
    foreign = place + "/space/PG_14_202107181/1/2"  # a cluster of another version has its tablespace in the same location
    os.makedirs(os.path.dirname(foreign))
    with open(foreign, "w") as file:
        file.write("then")
    own(place + "/space")
    with Server(place + "/data", place, initdb=["-X", place + "/log-elsewhere"]) as server, Manager(server, place + "/manager") as manager:
        server.query("CREATE TABLESPACE extra LOCATION '%s/space'" % place)
        server.query("CREATE TABLE t TABLESPACE extra AS SELECT generate_series(1, 1000) AS i")
        backup = Backup(server, place)
        assert not any("PG_14" in path for _, kept in backup.sets for path, _, _ in os.walk(kept))
        with open(foreign, "w") as file:
            file.write("now")
        server.query("DELETE FROM t WHERE i > 10")
        server.query("CREATE TABLE later(i int)")
        with server.writer(**manager.commands) as writer:
            writer.metadata()
            writer.ok("pre_restore", components=backup.component())
            assert [os.listdir(path) for path, _ in backup.sets] == [[], [], []]
            assert open(foreign).read() == "now", "the other cluster goes on"
            backup.restore()
            writer.ok("post_restore", components=backup.component(file_restore_status="all"))
        assert is_restored(server) and aside(place) == []
        assert open(foreign).read() == "now"
        assert sorted(os.listdir(place + "/space")) == ["PG_14_202107181", os.path.basename(backup.sets[2][0])]


@pytest.mark.parametrize("lacking", ["stop", "start"])
def test_without_a_command_nothing_is_changed(lacking, server, manager, backup, place):
    commands = {name: command for name, command in manager.commands.items() if name != lacking}
    with server.writer(**commands) as writer:
        writer.metadata()
        answer = writer.refused("pre_restore", "NONRETRYABLE", components=backup.component())
        assert "no %s command" % lacking in answer["message"] and lacking + ": [" in answer["message"]
        writer.refused("post_restore", "NONRETRYABLE", components=backup.component(file_restore_status="all"))
    assert manager.asked == [] and is_as_before(server) and aside(place) == []


@pytest.mark.parametrize("lacking", ["stop", "start"])
def test_a_server_that_is_down_needs_both_commands_too(lacking, server, manager, backup, place):
    commands = {name: command for name, command in manager.commands.items() if name != lacking}
    server.halt()
    try:
        with server.writer(data_directory=server.data, **commands) as writer:
            writer.metadata()
            answer = writer.refused("pre_restore", "NONRETRYABLE", components=backup.component())
            assert "no %s command" % lacking in answer["message"]
        assert manager.asked == [] and os.path.exists(server.data + "/PG_VERSION") and aside(place) == []
    finally:
        server.launch()
    assert is_as_before(server)


def test_what_was_restored_is_not_swapped_beneath_a_server_that_does_not_stop(server, manager, backup, place):
    """Stopped before, started by the restore, not whole, and it cannot be stopped again: the undo is owed, and done at the end."""
    index = server.query("SELECT pg_relation_filepath('pg_description_o_c_o_index')")[0][0]
    server.halt()
    orders = []

    def refuse_to_stop():
        orders.append("stop")
        if len(orders) == 1:
            raise AssertionError("not today")
        server.halt()

    manager.on["stop"] = refuse_to_stop
    with server.writer(data_directory=server.data, **manager.commands) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        kept, = taken(place)
        backup.restore()
        spoil_an_index(server.data, index)
        answer = writer.ask("post_restore", components=backup.component(file_restore_status="all"))
        assert answer["ok"] is False and "still runs" in answer["message"] and kept in answer["message"], answer
        assert server.process.poll() is None and os.path.exists(kept + "/PG_VERSION")
        assert server.query("SELECT count(*) FROM t") == [(1000,)], "it works on what it was started on"
        writer.ok("backup_shutdown")
        assert server.process.poll() is not None and orders == ["stop", "stop"]
    server.launch()
    assert is_as_before(server)


def test_a_stop_that_fails_changes_nothing(server, manager, backup, place):
    with server.writer(stop=["/bin/false"], start=manager.command("start")) as writer:
        writer.metadata()
        assert "exit status 1" in writer.refused("pre_restore", "NONRETRYABLE", components=backup.component())["message"]
    assert is_as_before(server) and aside(place) == []


def test_a_stop_that_stops_nothing_is_not_believed(server, manager, backup, place):
    with server.writer(stop=["true"], start=manager.command("start")) as writer:
        writer.metadata()
        answer = writer.refused("pre_restore", "TIMEOUT", components=backup.component(), deadline_ms=1500)
        assert "did not stand still" in answer["message"]
    assert is_as_before(server) and aside(place) == []


@pytest.mark.parametrize("end", ["failed", "end-of-file", "SIGTERM"] + [pytest.param(end, marks=pytest.mark.full) for end in ("none", "abort", "backup_shutdown")])
def test_the_old_data_comes_back_after(end, server, manager, backup, place):
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        os.mkdir(server.data + "/base")  # a restore that did not get far, as root
        open(server.data + "/base/1", "w").close()
        if end in ("none", "failed"):
            writer.ok("post_restore", components=backup.component(file_restore_status=end))
        elif end == "end-of-file":
            writer.process.stdin.close()
            assert writer.process.wait(60) == 0
        elif end == "SIGTERM":  # a mover may be moving files there: the worker knows, and ends its input when none does
            writer.process.terminate()
            writer.ok("pre_restore", components=backup.component())
            assert manager.asked == ["stop"], "the same restore, and nothing was undone"
            writer.process.stdin.close()
            assert writer.process.wait(60) == 0
        else:
            writer.ok(end)
        assert manager.asked == ["stop", "start"]
        assert is_as_before(server)
    assert [left for left in aside(place) if not left.endswith("-base")] == [], "what may not be removed is root's"


def lose_the_label(data, _):
    os.unlink(data + "/backup_label")


def spoil_an_index(data, path):
    with open(data + "/" + path, "r+b") as file:
        file.seek(8192)  # past the meta page
        file.write(bytes(8192))


def spoil_the_control_file(data, _):
    with open(data + "/global/pg_control", "r+b") as file:
        file.write(b"\x01" * 8)


def spoil_what_it_starts_with(data, _):
    for path in glob.glob(data + "/pg_xact/*"):
        os.unlink(path)


@pytest.mark.parametrize("damage,says", [(lose_the_label, "backup_label"), (spoil_an_index, "pg_description_o_c_o_index"),
                                         pytest.param(spoil_the_control_file, "pg_control", marks=pytest.mark.full),
                                         pytest.param(spoil_what_it_starts_with, "not be started", marks=pytest.mark.full)])
def test_a_restored_cluster_that_is_not_whole_is_put_away(damage, says, server, manager, backup, place):
    index = server.query("SELECT pg_relation_filepath('pg_description_o_c_o_index')")[0][0]
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        backup.restore()
        damage(server.data, index)
        answer = writer.ask("post_restore", components=backup.component(file_restore_status="all"))
        assert answer["ok"] is False and says in answer["message"]
        kept, = aside(place)
        assert "old data is in its place again" in answer["message"] and kept in answer["message"], answer
        assert os.path.exists(kept + "/PG_VERSION"), "for people to look at"
    assert is_as_before(server)


def test_a_start_that_fails_is_undone(server, manager, backup, place):
    first = [True]

    def start_once_not():
        if first.pop() if first else False:
            raise AssertionError("not today")
        manager.start()

    manager.on["start"] = start_once_not
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        backup.restore()
        answer = writer.refused("post_restore", "NONRETRYABLE", components=backup.component(file_restore_status="all"))
        assert "could not be started" in answer["message"] and "was started again" in answer["message"]
    assert is_as_before(server)


@pytest.mark.full
def test_a_start_that_makes_the_server_a_child_of_the_session_is_told(server, manager, backup, place):
    start = [BIN + "/pg_ctl", "-w", "-D", server.data, "-o", " ".join(server.command[3:]), "-l", place + "/second.log", "start"]
    with server.writer(stop=[BIN + "/pg_ctl", "-D", server.data, "-m", "fast", "stop"], start=start) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        backup.restore()
        answer = writer.refused("post_restore", "NONRETRYABLE", components=backup.component(file_restore_status="all"))
        assert "ends with this session" in answer["message"]
        assert is_as_before(server)
        run(BIN + "/pg_ctl", "-D", server.data, "-m", "fast", "stop")
    server.launch()


@pytest.mark.full
def test_somebody_who_starts_the_server_meanwhile_is_noticed(server, manager, backup, place):
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        backup.restore()
        server.launch()
        answer = writer.refused("post_restore", "NONRETRYABLE", components=backup.component(file_restore_status="all"))
        assert "somebody started" in answer["message"]
    assert is_as_before(server)


def test_a_server_that_is_down_is_restored_and_started(server, manager, backup, place):
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    shutil.rmtree(server.data)  # the disk was new
    os.mkdir(server.data, 0o700)
    own(server.data)
    with server.writer(**manager.commands) as writer:
        writer.refused("identify", "RETRYABLE")
    with server.writer(data_directory=server.data, **manager.commands) as writer:
        component, = writer.metadata()["components"]
        assert component["file_sets"][0]["path"] == server.data and "down" in component["caption"]
        assert writer.ask("prepare_backup", components=MAIN)["ok"] is False, "a backup of it is refused"
        writer.ok("pre_restore", components=backup.component())
        backup.restore()
        writer.ok("post_restore", components=backup.component(file_restore_status="all"))
        assert manager.asked == ["start"]
    assert is_restored(server) and aside(place) == []


def test_another_version_and_another_place_are_refused(server, manager, backup, place):
    other = json.dumps({**json.loads(backup.facts), "version": "14.2"})
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        answer = writer.refused("pre_restore", "NONRETRYABLE", components=[{**backup.component()[0], "backup_metadata": other}])
        assert "14.2" in answer["message"]
        writer.refused("pre_restore", "NONRETRYABLE", components=backup.component(additional_restores=True))
        log = json.dumps({**json.loads(backup.facts), "way": "log"})
        answer = writer.refused("pre_restore", "NONRETRYABLE", components=[{**backup.component()[0], "backup_metadata": log}])
        assert "holds WAL, and no cluster" in answer["message"]
        targets = [{"path": "/elsewhere", "spec": "*", "recursive": True, "new_path": place + "/copy"}]
        answer = writer.refused("pre_restore", "NONRETRYABLE", components=backup.component(new_targets=targets))
        assert "new target" in answer["message"]
        assert "components" not in writer.ok("pre_restore", components=[]), "a cluster that is not selected is left alone"
        writer.ok("post_restore", components=[])
    assert manager.asked == [] and is_as_before(server)


def targets_of(backup, place):
    return [{"path": path, "spec": "*", "recursive": True, "new_path": place} for path, _ in backup.sets]


@pytest.mark.parametrize("where", ["", "/base", "/..", "/../link"])
def test_a_new_target_where_the_server_lives_is_refused(where, server, manager, backup, place):
    if not os.path.lexists(place + "/link"):
        os.symlink(server.data, place + "/link")
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        for target in (server.data + where, os.path.normpath(server.data + where)):
            answer = writer.refused("pre_restore", "NONRETRYABLE", components=backup.component(new_targets=targets_of(backup, target)))
            assert "lives" in answer["message"]
    assert manager.asked == [] and os.path.exists(server.data + "/postmaster.pid") and is_as_before(server) and aside(place) == []


def test_a_new_target_in_which_another_server_works_is_refused(server, manager, backup, place, own_place):
    with Server(own_place + "/data", own_place) as other:
        with server.writer() as writer:
            writer.metadata()
            answer = writer.refused("pre_restore", "NONRETRYABLE", components=backup.component(new_targets=targets_of(backup, other.data)))
            assert "a server works" in answer["message"]
        assert os.path.exists(other.data + "/postmaster.pid") and other.query("SELECT 1") == [(1,)]


def test_two_restores_of_one_server_exclude_each_other(server, manager, backup, place):
    offline = {"data_directory": server.data, **manager.commands}
    with server.writer(**manager.commands) as first, server.writer(**offline) as second:
        first.metadata()
        answer, = first.ok("pre_restore", components=backup.component())["components"]
        again, = first.ok("pre_restore", components=backup.component(restore_target="original"))["components"]
        assert again == answer and manager.asked == ["stop"] and len(taken(place)) == 1
        assert "already" in first.refused("pre_restore", "NONRETRYABLE", components=backup.component(new_targets=targets_of(backup, place + "/x")))["message"]
        second.metadata()  # of a server that is down: the first one has stopped it
        assert "another restore session" in second.refused("pre_restore", "NONRETRYABLE", components=backup.component())["message"]
        assert len(taken(place)) == 1 and server.process.poll() is not None
        first.ok("backup_shutdown")
        second.ok("pre_restore", components=backup.component())
        second.ok("post_restore", components=backup.component(file_restore_status="none"))
    assert is_as_before(server) and aside(place) == []


def test_a_pid_file_that_a_dead_server_left_names_nobody(server, manager, backup, place):
    """Its number is another user's process by now."""
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    path = server.data + "/postmaster.pid"
    with open(path) as file:
        lines = file.read().split("\n", 1)
    with open(path, "w") as file:
        file.write("%d\n%s" % (os.getpid(), lines[1]))
    with server.writer(data_directory=server.data, **manager.commands) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        assert manager.asked == [], "nothing to stop"
        backup.restore()
        writer.ok("post_restore", components=backup.component(file_restore_status="all"))
    assert is_restored(server) and aside(place) == []


@pytest.mark.full
def test_new_targets_leave_the_server_alone_and_lead_no_link_to_it(own_place):
    place = own_place
    os.mkdir(place + "/space")
    own(place + "/space")
    with Server(place + "/data", place, initdb=["-X", place + "/log-elsewhere"]) as server:
        server.query("CREATE TABLESPACE extra LOCATION '%s/space'" % place)
        server.query("CREATE TABLE t TABLESPACE extra AS SELECT generate_series(1, 1000) AS i")
        backup = Backup(server, place)
        server.query("DELETE FROM t WHERE i > 10")
        server.query("CREATE TABLE later(i int)")
        copies = [place + "/copy-%d" % number for number in range(2)] + [place + "/copy-2/" + os.path.basename(backup.sets[2][0])]
        for copy in copies:
            os.makedirs(copy, 0o700)
        for number in range(3):
            own(place + "/copy-%d" % number)
        targets = [{"path": path, "spec": "*", "recursive": True, "new_path": copy} for (path, _), copy in zip(backup.sets, copies)]
        with server.writer() as writer:
            assert "new_target" in writer.metadata()["backup_schema"]
            renamed = targets[:2] + [{**targets[2], "new_path": place + "/copy-2"}]
            assert "another name" in writer.refused("pre_restore", "NONRETRYABLE", components=backup.component(new_targets=renamed))["message"]
            writer.ok("pre_restore", components=backup.component(new_targets=targets))
            backup.restore(*copies)
            writer.ok("post_restore", components=backup.component(new_targets=targets, file_restore_status="all"))
        assert os.readlink(copies[0] + "/pg_wal") == copies[1]
        assert os.readlink(*glob.glob(copies[0] + "/pg_tblspc/*")) == place + "/copy-2"
        assert is_as_before(server)
        sockets = place + "/second"
        os.mkdir(sockets)
        own(sockets)
        with Server(copies[0], sockets, restored=True) as second:
            assert is_restored(second)
        assert is_as_before(server)
        server.query("CHECKPOINT")
