"""A freeze of which nobody says that it is thawed is told as one: beyond its worker, its session, and a restart."""
import json
import os
import pathlib
import signal
import subprocess

import pytest

from leftovers import role
from streams import Stream, past
from test_external import configuration, freeze_records, held, make_fs, prepared, records_of_our_own, until  # noqa: F401
from test_external import role as descendant  # looks at no process but the daemon's

import loop_fs


def test_a_worker_that_dies_frozen_is_told_as_thawed_when_it_is(daemon, make_fs):  # noqa: F811
    """Killed before it could say anything, with a thaw that fails: nobody says that it is thawed, neither its session's end nor its removal."""
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    job = held(node, s)
    (node.faults / "freeze.thaw").touch()
    os.kill(role(node, "worker"), signal.SIGKILL)
    ended = node.wait(job)
    assert ended["state"] == "failed" and ended["error"]["reason"] == "worker_lost", ended
    assert ended["result"]["cleanup"]["failed"][0]["object"] == str(fs.path) and ended["result"]["cleanup"]["thawed"] == [], ended
    session = node.call("GET", s).json
    assert session["state"] == "aborted" and session["frozen"]["file_systems"] == [str(fs.path)] and session["frozen"]["stuck"], session
    assert next(row for row in node.call("GET", "/sessions").json["items"] if row["id"] == session["id"])["frozen"] == session["frozen"]
    ready = node.call("GET", "/health/ready")
    assert ready.status == 503 and "no thaw is known" in " ".join(ready.json["reasons"]), ready
    told = Stream(node, "/events?follow=false&types=session.frozen").rest()
    assert [event["data"]["stuck"] for event in told] == [session["frozen"]["stuck"]], told
    assert node.call("DELETE", s).status == 204 and loop_fs.is_frozen(fs.path)
    assert [event for event in past(node) if event["type"] == "session.thawed"] == []
    assert node.call("GET", "/health/ready").status == 503
    (node.faults / "freeze.thaw").unlink()
    until(lambda: node.call("GET", "/health/ready").status == 200)
    assert not loop_fs.is_frozen(fs.path)
    thaws = [event for event in past(node) if event["type"] == "session.thawed"]
    assert [event["data"]["file_systems"] for event in thaws] == [[str(fs.path)]], thaws


def test_what_an_earlier_run_could_not_thaw_is_shown_and_tried_again(daemon, make_fs, records_of_our_own):  # noqa: F811
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    held(node, s)
    (node.faults / "freeze.thaw").touch()
    victims = [role(node, name) for name in ("guardian", "worker", "agent", "core", "front")] + [node.process.pid]
    for pid in victims:
        os.kill(pid, signal.SIGSTOP)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    node.process.wait()
    node.start()
    until(lambda: node.call("GET", s).json["frozen"] is not None)
    session = node.call("GET", s).json
    assert session["state"] == "aborted" and session["frozen"]["file_systems"] == [str(fs.path)], session
    assert "earlier run" in session["frozen"]["stuck"] and session["frozen"]["since"] < session["frozen"]["deadline"], session
    assert node.call("GET", "/health/ready").status == 503 and loop_fs.is_frozen(fs.path)
    (node.faults / "freeze.thaw").unlink()
    until(lambda: node.call("GET", s).json["frozen"] is None, 60)
    assert not loop_fs.is_frozen(fs.path) and freeze_records(node) == []
    assert [event["data"]["file_systems"] for event in past(node) if event["type"] == "session.thawed"] == [[str(fs.path)]]
    until(lambda: node.call("GET", "/health/ready").status == 200)


def test_what_an_earlier_run_left_is_tried_again_although_another_record_hangs(daemon, make_fs, records_of_our_own):  # noqa: F811
    """Its guardian hangs in a disk: whoever thaws in its place waits for it, and nothing else does."""
    fs, dead = make_fs(), make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    held(node, s)
    (node.faults / "freeze.thaw").touch()
    victims = [role(node, name) for name in ("guardian", "worker", "agent", "core", "front")] + [node.process.pid]
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for pid in victims:
            os.kill(pid, how)
    node.process.wait()
    ours, = (pathlib.Path(records_of_our_own) / "freezes").glob("*.freeze")
    assert loop_fs.freeze(dead.path) == 0
    hangs = subprocess.Popen(["/usr/bin/python3", "-c", "import os, sys; os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)", str(dead.path / "new")])

    def stat():
        return pathlib.Path(f"/proc/{hangs.pid}/stat").read_text().rpartition(")")[2].split()
    try:
        until(lambda: stat()[0] == "D")
        entry = {"device": dead.devno, "mount_point": str(dead.path), "source": dead.device, "fs_type": dead.kind}
        stuck = dict(json.loads(ours.read_text().split("\n", 1)[1]), guardian={"pid": hangs.pid, "start": int(stat()[19])}, file_systems=[entry])
        other = ours.with_name("test.stuck.freeze")
        other.write_text("-\n" + json.dumps(stuck))
        node.start()
        until(lambda: node.call("GET", s).json["frozen"] is not None)
        assert loop_fs.is_frozen(fs.path)
        (node.faults / "freeze.thaw").unlink()
        until(lambda: not loop_fs.is_frozen(fs.path))
        until(lambda: not ours.exists())
        assert other.exists() and loop_fs.is_frozen(dead.path)
    finally:
        assert loop_fs.thaw(dead.path) == 0
        hangs.kill()
        hangs.wait()
    until(lambda: not other.exists())


# One thread waits for a page of a file that is frozen, another one to change the memory map under it: until the thaw nobody can read what lies
# in this process, its environment among it. Databases that map their files (LMDB) do so whenever they grow.
MAPS = """
import ctypes, os, pathlib, sys, threading, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(fd, 8192)
os.fsync(fd)
at = libc.mmap(None, 8192, 3, 1, fd, 0)
tasks = []

def waits():
    stat = pathlib.Path(f"/proc/self/task/{tasks[0]}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "D"

def write():
    tasks.append(threading.get_native_id())
    libc.memset(at, 1, 1)

print("ready", flush=True)
sys.stdin.readline()
threading.Thread(target=write).start()
while not (tasks and waits()):
    time.sleep(0.01)
threading.Thread(target=libc.mprotect, args=(at, 8192, 1)).start()
"""


def waiting_tasks(pid):
    stats = [(task / "stat").read_text() for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    return sum(stat.rpartition(")")[2].split()[0] == "D" for stat in stats)


@pytest.fixture
def maps():
    """Starts a process that maps a file; its function to call once that is frozen."""
    made = []

    def start(path):
        process = subprocess.Popen(["/usr/bin/python3", "-c", MAPS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        made.append(process)
        assert process.stdout.readline() == "ready\n"

        def wait():
            process.stdin.write("\n")
            process.stdin.flush()
            until(lambda: waiting_tasks(process.pid) == 2)
        return wait

    yield start
    for process in made:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_the_second_holder_waits_for_no_process_that_waits_for_the_thaw(daemon, make_fs, maps):  # noqa: F811
    """The guardian is stopped, the worker dies: the agent thaws, whoever of its writers it has to look for among processes that cannot be looked at."""
    fs = make_fs()
    wait = maps(fs.path / "mapped")
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    job = held(node, s)
    wait()
    agent, guardian, worker = (descendant(node, name) for name in ("agent", "guardian", "worker"))
    os.kill(guardian, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    until(lambda: not loop_fs.is_frozen(fs.path))
    assert descendant(node, "agent") == agent, "somebody else had to thaw for it: " + node.words()[-3000:]
    assert node.wait(job)["error"]["reason"] == "worker_lost"


def test_a_process_that_cannot_be_looked_at_does_not_keep_the_daemon_from_its_start(daemon, make_fs, maps):  # noqa: F811
    fs = make_fs()
    wait = maps(fs.path / "mapped")
    assert loop_fs.freeze(fs.path) == 0  # by somebody else, for as long as he likes
    try:
        wait()
        node = daemon(configuration(daemon.place))
        assert node.call("GET", "/health/ready").status == 200
        assert "not every process could be looked at" in node.words()
    finally:
        assert loop_fs.thaw(fs.path) == 0


def test_a_writer_of_an_earlier_run_is_ended_although_another_process_cannot_be_looked_at(daemon, make_fs, maps):  # noqa: F811
    """It comes behind the one whose environment nobody can read."""
    fs = make_fs()
    node = daemon("")
    installation = (node.place / "state" / "installation").read_text().strip()
    assert node.stop() == 0
    wait = maps(fs.path / "mapped")
    somebody = subprocess.Popen(["/usr/bin/sleep", "3600"])
    writer = subprocess.Popen(["/usr/bin/sleep", "3600"], env={"QUIESCED_WRITER": f"{installation}:{somebody.pid}:"})
    assert loop_fs.freeze(fs.path) == 0
    try:
        wait()
        node.start()
        assert writer.wait(60) == -signal.SIGKILL
        assert loop_fs.is_frozen(fs.path)
    finally:
        assert loop_fs.thaw(fs.path) == 0
        for process in (somebody, writer):
            process.kill()
            process.wait()


def test_a_writer_of_an_earlier_run_is_ended_although_its_workers_number_is_somebody_elses(daemon):
    """What it holds, a lock say, ends with it. It neither hears the end of its input nor has a parent left who would end it."""
    node = daemon("")
    installation = (node.place / "state" / "installation").read_text().strip()
    assert node.stop() == 0
    somebody = subprocess.Popen(["/usr/bin/sleep", "3600"])
    writer = subprocess.Popen(["/usr/bin/sleep", "3600"], env={"QUIESCED_WRITER": f"{installation}:{somebody.pid}:"})
    try:
        node.start()
        assert writer.wait(60) == -signal.SIGKILL
        assert somebody.poll() is None
    finally:
        for process in (somebody, writer):
            process.kill()
            process.wait()
