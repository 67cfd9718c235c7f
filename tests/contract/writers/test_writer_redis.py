"""The Redis writer against a real server under load, with an AOF and without."""
import json
import os
import shutil
import signal
import subprocess
import threading

import pytest
import redis

import loop_btrfs
import redis_server
from redis_server import Server, directory, own
from writer_driver import Writer, chosen, stop, until

MAIN = {"components": chosen("main"), "volumes": []}
BOTH = pytest.mark.parametrize("aof", [True, False], ids=["aof", "rdb"])


@pytest.fixture
def place():
    path = directory()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def aof():
    return True


@pytest.fixture
def server(place, aof):
    with Server(place + "/data", place, aof) as started:
        yield started


def prepare(writer, members=MAIN):
    metadata = writer.metadata()
    writer.ok("prepare_backup", **members)
    writer.ok("prepare_snapshot", **members)
    return metadata


class Load:
    """Each thread appends 1, 2, 3... to a list of its own and counts it in the same transaction."""

    def __init__(self, server, rewrites=False):
        self.server, self.ended, self.errors, self.last = server, threading.Event(), [], [0] * 3
        self.threads = [threading.Thread(target=self.guard, args=(self.append, number)) for number in range(3)]
        if rewrites:
            self.threads.append(threading.Thread(target=self.guard, args=(self.rewrite, 0)))
        for thread in self.threads:
            thread.start()

    def guard(self, work, number):
        client = self.server.client()
        try:
            while not self.ended.is_set():
                work(client, number)
        except redis.exceptions.RedisError as error:
            self.errors.append(error)

    def append(self, client, number):
        with client.pipeline(transaction=True) as pipe:
            pipe.rpush("list-%d" % number, self.last[number] + 1)
            pipe.incr("count-%d" % number)
            pipe.execute()
        self.last[number] += 1

    def rewrite(self, client, _):
        try:
            client.bgrewriteaof()
        except redis.exceptions.ResponseError as error:  # one is under way
            assert "in progress" in str(error), error
        self.ended.wait(0.5)

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        assert not self.errors, self.errors


def check_restored(server, data, place, at_least):
    """Exactly what was acknowledged before, and at most what was in flight."""
    sockets = place + "/restored"
    os.mkdir(sockets)
    own(sockets)
    subprocess.run(["chown", "-R", redis_server.USER, data], check=True)
    if server.aof:
        manifests = [name for name in os.listdir(data + "/appendonlydir") if name.endswith(".manifest")]
        assert manifests == ["appendonly.aof.manifest"]
    with Server(data, sockets, server.aof) as restored:
        for number, count in enumerate(at_least):
            numbers = [int(n) for n in restored.client().lrange("list-%d" % number, 0, -1)]
            assert numbers == list(range(1, len(numbers) + 1)), "a gap"
            assert len(numbers) == int(restored.client().get("count-%d" % number) or 0)
            assert count <= len(numbers) <= count + 1
        restored.client().set("proof", 1)
    with open(sockets + "/log", errors="replace") as log:
        assert "truncated" not in log.read()
    shutil.rmtree(sockets)


def copy_sets(metadata, target, at=lambda path: path):
    """Copies what the file sets name; at(): where a path is to be found."""
    os.mkdir(target)
    for file_set in metadata["components"][0]["file_sets"]:
        source = at(file_set["path"])
        if file_set["recursive"]:
            shutil.copytree(source, target + "/" + os.path.basename(source), ignore=shutil.ignore_patterns("temp*"))
        else:
            shutil.copy(source + "/" + file_set["spec"], target)


@BOTH
@pytest.mark.parametrize("atomic", [True, False], ids=["btrfs", "file-by-file"])
def test_restored_under_load_exactly_what_was_acknowledged(place, aof, atomic):
    with loop_btrfs.mounted() as mount:
        loop_btrfs.subvolume(mount + "/db")
        own(mount + "/db")
        with Server(mount + "/db/data", place, aof) as server:
            load = Load(server, rewrites=aof and atomic)
            members = {**MAIN, "volumes": [{"volume": mount + "/db", "provider": "btrfs" if atomic else "copy", "atomic": atomic}]}
            try:
                for _ in range(3):
                    begun = list(load.last)
                    until(lambda: load.errors or all(last > before + 20 for last, before in zip(load.last, begun)), "the load goes on")
                    with server.writer() as writer:
                        metadata = prepare(writer, members)
                        writer.ok("freeze", **members)
                        at_least = list(load.last)
                        assert server.held()
                        if atomic:
                            loop_btrfs.snapshot(mount + "/db", mount + "/snapshot")
                        else:
                            copy_sets(metadata, place + "/copy")
                        writer.ok("thaw", snapshot_taken=True, **members)
                        component, = writer.ok("post_snapshot", **members)["components"]
                        facts = json.loads(component["metadata"])
                        assert facts["way"] == ("aof" if aof else "rdb") and facts["version"] and component["stamp"]
                    if atomic:
                        copy_sets(metadata, place + "/copy", lambda path: path.replace(mount + "/db", mount + "/snapshot"))
                        loop_btrfs.delete(mount + "/snapshot")
                    check_restored(server, place + "/copy", place, at_least)
                    shutil.rmtree(place + "/copy")
            finally:
                load.stop()


@BOTH
def test_the_component_is_what_the_server_loads(server, place):
    with server.writer() as writer:
        metadata = writer.metadata()
    component, = metadata["components"]
    assert component["file_sets"] == ([{"path": place + "/data/appendonlydir", "spec": "*", "recursive": True}] if server.aof else
                                      [{"path": place + "/data", "spec": "dump.rdb", "recursive": False}])
    assert metadata["restore_method"] == "stop_restore_start" and "Redis 7" in component["caption"]


@BOTH
@pytest.mark.parametrize("end", ["thaw", "abort", "backup_shutdown", "end-of-file", "SIGTERM", "SIGKILL"])
def test_the_pause_ends_by(end, server):
    with server.writer() as writer:
        prepare(writer)
        assert not server.held()
        writer.ok("freeze", **MAIN)
        assert server.held()
        if end in ("thaw", "abort", "backup_shutdown"):
            writer.ok(end, **MAIN)
        elif end == "end-of-file":
            writer.process.stdin.close()
            assert writer.process.wait(60) == 0
        else:
            writer.process.send_signal(getattr(signal, end))
            writer.process.wait(60)
        if end == "SIGKILL":
            until(lambda: not server.held(), "the server goes on by itself")
        else:
            assert not server.held()


def test_the_pause_is_renewed_as_long_as_the_freeze_lasts_and_no_longer(server):
    """Longer than one pause of five seconds; then the writer's own limit ends it."""
    with server.writer(freeze_timeout_ms=9000) as writer:
        prepare(writer)
        writer.ok("freeze", **MAIN)
        blocked = server.client(socket_timeout=7)
        with pytest.raises(redis.exceptions.TimeoutError):
            blocked.set("blocked", 1)
        until(lambda: not server.held(), "the hold ends by itself")
        writer.refused("thaw", "TIMEOUT", **MAIN)
        writer.ok("abort")
        prepare(writer)


def test_a_stopped_writer_holds_no_longer_than_one_pause_and_its_thaw_fails(server):
    with server.writer() as writer:
        prepare(writer)
        writer.ok("freeze", **MAIN)
        writer.process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: not server.held(), "the server goes on by itself")
        finally:
            writer.process.send_signal(signal.SIGCONT)
        answer = writer.ask("thaw", **MAIN)
        assert answer["ok"] is False and answer["failure"] == "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT", answer
        writer.ok("abort")
        assert not server.held()


@BOTH
def test_a_pause_that_somebody_else_ends_fails_the_thaw(server):
    with server.writer() as writer:
        prepare(writer)
        writer.ok("freeze", **MAIN)
        server.client().execute_command("CLIENT", "UNPAUSE")
        server.client().set("written", "while it should have been held")
        writer.refused("thaw", "INCONSISTENTSNAPSHOT", **MAIN)
        writer.refused("post_snapshot", "INCONSISTENTSNAPSHOT", **MAIN)
        assert not server.held()


def test_a_rewrite_while_files_are_copied_one_by_one_fails_the_thaw(server):
    with server.writer() as writer:
        prepare(writer)
        writer.ok("freeze", **MAIN)
        server.client().bgrewriteaof()
        until(lambda: not server.client().info("persistence")["aof_rewrite_in_progress"], "the rewrite ends")
        answer = writer.refused("thaw", "INCONSISTENTSNAPSHOT", **MAIN)
        assert "changed" in answer["message"] and not server.held()


def test_a_lost_connection_ends_the_pause_and_fails_the_thaw(server):
    with server.writer() as writer:
        prepare(writer)
        writer.ok("freeze", **MAIN)
        server.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        until(lambda: not server.held(), "the writer comes back to end it")
        answer = writer.refused("thaw", "RETRYABLE", **MAIN)
        assert "connection lost" in answer["message"]
        writer.ok("abort")
        prepare(writer)


@pytest.mark.parametrize("aof", [False])
def test_a_save_that_fails_fails_the_prepare(server, place):
    server.client().set("a", 1)
    os.chmod(place + "/data", 0o500)
    try:
        with server.writer() as writer:
            writer.metadata()
            writer.ok("prepare_backup", **MAIN)
            answer = writer.refused("prepare_snapshot", "RETRYABLE", **MAIN)
            assert "BGSAVE failed" in answer["message"]
    finally:
        os.chmod(place + "/data", 0o700)


@pytest.mark.parametrize("aof", [False])
def test_a_save_that_takes_longer_than_the_window_leaves_nothing_paused(server):
    client = server.client()
    client.config_set("rdb-key-save-delay", 1000000)
    with server.writer() as writer:
        prepare(writer)
        for i in range(100):
            client.set("key-%d" % i, i)
        writer.refused("freeze", "TIMEOUT", deadline_ms=1500, **MAIN)
        assert not server.held()
        client.config_set("rdb-key-save-delay", 0)


def test_a_server_that_hangs_is_given_up_at_the_deadline(server):
    with server.writer() as writer:
        prepare(writer)
        stop(server.process.pid)
        try:
            writer.refused("freeze", "TIMEOUT", deadline_ms=500, **MAIN)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        until(lambda: not server.held(), "no pause stays")


def test_a_server_that_is_not_selected_is_left_alone(server):
    with server.writer() as writer:
        writer.metadata()
        for event in ("prepare_backup", "prepare_snapshot", "freeze", "thaw", "post_snapshot"):
            assert "components" not in writer.ok(event, components=[], volumes=[])
            assert not server.held()


def test_events_out_of_turn_are_refused(server):
    with server.writer() as writer:
        writer.metadata()
        writer.refused("post_snapshot", "INCONSISTENTSNAPSHOT", **MAIN)
        writer.ok("prepare_backup", **MAIN)
        writer.refused("freeze", "NONRETRYABLE", **MAIN)


def test_a_change_of_persistence_fails_the_next_event(server):
    with server.writer() as writer:
        prepare(writer)
        server.client().config_set("appendonly", "no")
        writer.refused("freeze", "RETRYABLE", **MAIN)
        assert not server.held()


def test_a_replica_is_refused_with_a_reason(server):
    server.client().execute_command("REPLICAOF", "127.0.0.1", "1")
    with server.writer() as writer:
        answer = writer.refused("identify", "NONRETRYABLE")
        assert "replica" in answer["message"]


def test_passwords_come_from_files_and_rights_are_told(place):
    with Server(place + "/data", place, options=["--requirepass", "hunter2"]) as server:
        server.client(password="hunter2").execute_command("ACL", "SETUSER", "weak", "on", ">secret", "+info", "+ping", "+config|get")
        with server.writer() as writer:
            answer = writer.refused("identify", "NONRETRYABLE")
            assert "password_file" in answer["message"]
        for name, text in (("password", "hunter2\n"), ("wrong", "hunter3\n"), ("weak", "secret"), ("empty", "\n")):
            with open(place + "/" + name, "w") as file:
                file.write(text)
        with server.writer(password_file=place + "/password") as writer:
            prepare(writer)
            writer.ok("freeze", **MAIN)
            writer.ok("thaw", **MAIN)
        for name in ("wrong", "empty", "missing"):
            with server.writer(password_file=place + "/" + name) as writer:
                answer = writer.refused("identify", "NONRETRYABLE")
                assert "hunter" not in answer["message"]
        with server.writer(login="weak", password_file=place + "/weak") as writer:
            prepare(writer)
            answer = writer.refused("freeze", "NONRETRYABLE", **MAIN)
            assert "client|pause" in answer["message"]


def test_no_server_and_no_address_are_told_apart(place):
    with Writer("redis", {"name": "cache", "socket": place + "/nowhere.sock"}) as writer:
        writer.refused("identify", "RETRYABLE")
    with Writer("redis", {"name": "cache", "host": "127.0.0.1", "port": 1}) as writer:
        writer.refused("identify", "RETRYABLE")
    with Writer("redis", {"name": "cache"}) as writer:
        writer.refused("identify", "NONRETRYABLE")
