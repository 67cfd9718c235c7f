"""Redis restored by its writer: into its own place (stop, files, start, verify), undone when that fails, and beside it."""
import glob
import os
import shutil
import subprocess

import pytest

from redis_server import Server, directory, own
from service_manager import Manager
from writer_driver import Writer, chosen

MAIN = chosen("main")


class Backup:
    def __init__(self, server, place):
        self.store = place + "/store"
        os.mkdir(self.store)
        with server.writer() as writer:
            files, = writer.metadata()["components"][0]["file_sets"]
            self.set = files
            for event in ("prepare_backup", "prepare_snapshot", "freeze"):
                writer.ok(event, components=MAIN)
            subprocess.run(["cp", "-a", *glob.glob(files["path"] + "/" + files["spec"]), self.store], check=True)
            writer.ok("thaw", components=MAIN)
            answer, = writer.ok("post_snapshot", components=MAIN)["components"]
            self.facts = answer["metadata"]

    def component(self, **members):
        return [{"logical_path": "", "name": "main", "backup_metadata": self.facts, **members}]

    def restore(self, target=None):
        subprocess.run(["cp", "-a", *glob.glob(self.store + "/*"), target or self.set["path"]], check=True)


@pytest.fixture(params=["aof", "rdb"])
def world(request):
    """A server of 1000 keys and a backup of it; since then it has ten, and one that is new."""
    place = directory()
    with Server(place + "/data", place, aof=request.param == "aof", options=["--save", "3600 1"] if request.param == "rdb" else []) as server, \
            Manager(server, place + "/manager") as manager:
        server.client().mset({"key-%d" % i: "x" * 100 for i in range(1000)})
        backup = Backup(server, place)
        server.client().flushall()
        server.client().mset({"later": 1, **{"key-%d" % i: 2 for i in range(10)}})
        yield place, server, manager, backup
    shutil.rmtree(place)


def is_restored(server):
    return server.client().dbsize() == 1000 and server.client().set("proof", 1) and server.client().delete("proof")


def is_as_before(server):
    return server.client().dbsize() == 11 and server.client().get("later") == b"1"


def aside(place):
    return glob.glob(place + "/data*-restore-*") + glob.glob(place + "/data/*-restore-*") + glob.glob(place + "/data/.quiesced*")


def taken(place):
    return [path for path in aside(place) if "before-restore-" in path]


def test_a_server_is_restored_in_its_place(world):
    place, server, manager, backup = world
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        living = [{**backup.set, "new_path": place}]
        assert "lives" in writer.refused("pre_restore", "NONRETRYABLE", components=backup.component(new_targets=living))["message"]
        first, = writer.ok("pre_restore", components=backup.component())["components"]
        again, = writer.ok("pre_restore", components=backup.component(restore_target="original"))["components"]
        assert first == again
        assert server.process.poll() is not None and len(taken(place)) == 1
        assert glob.glob(backup.set["path"] + "/" + backup.set["spec"]) == []
        backup.restore()
        writer.ok("post_restore", components=backup.component(file_restore_status="all"))
        assert manager.asked == ["stop", "start"]
    assert is_restored(server) and aside(place) == []


@pytest.mark.parametrize("end", ["failed", "end-of-file", "cut off", "no files"])
def test_the_old_data_comes_back_after(end, world):
    place, server, manager, backup = world
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        writer.ok("pre_restore", components=backup.component())
        if end != "no files":
            backup.restore()
        if end == "cut off":
            path, = glob.glob(backup.set["path"] + "/*.incr.aof") or glob.glob(backup.set["path"] + "/*.rdb")
            os.truncate(path, os.path.getsize(path) - 50)
        if end == "end-of-file":
            writer.process.stdin.close()
            assert writer.process.wait(60) == 0
        elif end == "failed":
            writer.ok("post_restore", components=backup.component(file_restore_status="failed"))
        else:
            answer = writer.refused("post_restore", "NONRETRYABLE", components=backup.component(file_restore_status="all"))
            assert "old data is in its place again" in answer["message"]
        assert manager.asked[-1] == "start"
    assert is_as_before(server) and bool(aside(place)) == (end == "cut off")


def test_without_a_command_and_with_another_persistence_nothing_is_changed(world):
    place, server, manager, backup = world
    with server.writer() as writer:
        writer.metadata()
        assert "no stop command" in writer.refused("pre_restore", "NONRETRYABLE", components=backup.component())["message"]
    other = backup.facts.replace('"aof"', '"x"').replace('"rdb"', '"aof"').replace('"x"', '"rdb"')
    with server.writer(**manager.commands) as writer:
        writer.metadata()
        answer = writer.refused("pre_restore", "NONRETRYABLE", components=[{**backup.component()[0], "backup_metadata": other}])
        assert "would load" in answer["message"]
    assert manager.asked == [] and is_as_before(server) and aside(place) == []


def test_a_new_target_in_which_a_server_works_is_refused(world):
    place, server, manager, backup = world
    new = place + "/new"
    target = new + "/appendonlydir" if server.aof else new
    os.makedirs(target)
    own(new)
    identity = {"user": "redis", "group": "redis", "extra_groups": []} if os.geteuid() == 0 else {}
    other = subprocess.Popen(["sleep", "600"], cwd=new, **identity)
    try:
        with server.writer() as writer:
            writer.metadata()
            answer = writer.refused("pre_restore", "NONRETRYABLE", components=backup.component(new_targets=[{**backup.set, "new_path": target}]))
            assert "a server works" in answer["message"]
    finally:
        other.kill()
        other.wait()
    assert is_as_before(server)


def test_a_new_target_leaves_the_server_alone(world):
    place, server, manager, backup = world
    new = place + "/new"
    os.makedirs(new + ("/appendonlydir" if server.aof else ""))
    target = new + "/appendonlydir" if server.aof else new
    targets = [{**backup.set, "new_path": target}]
    with server.writer() as writer:
        assert "new_target" in writer.metadata()["backup_schema"]
        writer.ok("pre_restore", components=backup.component(new_targets=targets))
        backup.restore(target)
        subprocess.run(["chown", "-R", "redis:redis", new], check=True)
        writer.ok("post_restore", components=backup.component(new_targets=targets, file_restore_status="all"))
    os.mkdir(place + "/second")
    own(place + "/second")
    with Server(new, place + "/second", aof=server.aof) as second:
        assert is_restored(second)
    assert is_as_before(server)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run the writer as somebody else")
def test_a_server_whose_process_is_not_to_be_seen_is_not_taken_for_stopped(world):
    place, server, manager, backup = world
    with Writer("redis", {"name": "cache", "type": "redis", "socket": server.socket, **manager.commands}, user="daemon") as writer:
        os.chmod(place, 0o755)
        os.chmod(server.data, 0o755)
        writer.metadata()
        answer = writer.refused("pre_restore", "NONRETRYABLE", components=backup.component())
        assert "no process of it is to be seen" in answer["message"]
    assert manager.asked == [] and is_as_before(server) and aside(place) == []
