"""A disk that does not answer while applications are held: the worker that waits for it can be neither woken nor killed, and nothing stays
held for that."""
import fcntl
import os
import pathlib
import signal

import pytest

from daemon import SOURCE
from test_external import BACKUP_STATE, make_fs, role, until  # noqa: F401

import loop_fs


def is_locked(path):
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def state_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.fixture
def disk(make_fs):  # noqa: F811
    """Where copies are staged. Frozen by somebody else, it lets nobody write: as a disk or a server of files that is gone."""
    fs = make_fs()
    yield fs
    if loop_fs.is_frozen(fs.path):
        assert loop_fs.thaw(fs.path) == 0


def gone(pid):
    return not pathlib.Path(f"/proc/{pid}").exists() or state_of(pid) == "Z"


def hung(daemon, disk, limits):
    """A worker that hangs in its provider's call, with a writer frozen: the daemon, the session, the job, and the worker's pid."""
    place = daemon.place
    for name in ("gate", "files", "backups"):
        (place / name).mkdir()
    (place / "files" / "one").write_text("1")
    environment = f"{{GATE: {place}/gate, LOCK: {place}/lock, RECORD: {place}/record, FILES: {place}/files, NAME: holder}}"
    node = daemon(f"""
writers:
  - {{name: holder, type: exec, command: [{SOURCE}/tests/writers/holding], environment: {environment}}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
providers: {{copy: {{staging: {disk.path}/staging}}}}
limits: {{{limits}}}
""")
    s = "/sessions/" + node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    assert node.job("POST", s + "/metadata")["state"] == "succeeded"
    instance, = (writer["instance_id"] for writer in node.call("GET", s + "/writers").json["items"])
    assert node.call("POST", s + "/components", {"instance_id": instance, "logical_path": "", "name": "main"}).status == 201
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    volume = node.call("POST", s + "/snapshot-set/volumes", {"path": str(place / "files"), "provider": "copy"})
    assert volume.status == 201, volume
    assert node.job("POST", s + "/prepare")["state"] == "succeeded"

    create = node.faults / "worker.snapshot.create"
    create.write_text("hold")
    job = node.call("POST", s + "/snapshot").json["id"]
    until(lambda: (node.faults / "worker.snapshot.create.hit").exists())
    assert is_locked(place / "lock")
    assert loop_fs.freeze(disk.path) == 0
    create.unlink()
    worker = role(node, "worker")
    until(lambda: state_of(worker) == "D")
    return node, s, job, worker


def test_a_writer_is_let_go_although_its_worker_hangs(daemon, disk):
    place = daemon.place
    node, s, job, worker = hung(daemon, disk, "freeze_seconds: 2")
    until(lambda: not is_locked(place / "lock"))
    assert state_of(worker) == "D" and loop_fs.is_frozen(disk.path)
    view = node.call("GET", f"/jobs/{job}").json
    assert view["state"] == "running", "what its worker does not know yet is not said"
    assert loop_fs.thaw(disk.path) == 0

    view = node.wait(job)
    assert (view["state"], view["hresult"]) == ("failed", "VSS_E_HOLD_WRITES_TIMEOUT"), view
    assert [writer["name"] for writer in view["error"]["writers"]] == ["holder"], view
    assert node.call("POST", s + "/abort").status == 200
    assert node.call("GET", "/snapshots").json["items"] == []


@pytest.mark.parametrize("victims", [("worker",), ("worker", "agent"), ("agent",)], ids=" and ".join)
def test_a_writer_is_ended_although_its_killed_worker_cannot_end(daemon, disk, victims):
    """Its thread that would have ended the writer with its window died at once, and its main thread keeps the writer's input open. A worker whose
    agent died is killed by serve."""
    node, _, job, worker = hung(daemon, disk, "freeze_seconds: 600")
    assert is_locked(daemon.place / "lock")
    for pid in [role(node, name) for name in victims]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not is_locked(daemon.place / "lock"), 120)
    assert state_of(worker) == "D" and loop_fs.is_frozen(disk.path)
    assert loop_fs.thaw(disk.path) == 0
    until(lambda: gone(worker))
    assert node.wait(job)["state"] == "failed"


def test_who_stops_leaves_no_writer_frozen_behind_a_worker_that_cannot_end(daemon, disk):
    node, _, _, worker = hung(daemon, disk, "freeze_seconds: 600, drain_seconds: 1")
    assert is_locked(daemon.place / "lock")
    node.stop()
    assert not is_locked(daemon.place / "lock")
    assert state_of(worker) == "D" and loop_fs.is_frozen(disk.path)
    assert loop_fs.thaw(disk.path) == 0
    until(lambda: gone(worker))
