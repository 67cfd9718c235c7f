"""Every hold of a writer ends at its deadline, whatever holds it: the lock is free, the processes are gone, the daemon goes on."""
import json
import pathlib
import signal
import sqlite3
import time
import os

import pytest

import leftovers
from conftest import SOURCE

KINDS = ["self", "child", "session", "orphan", "blank"]


def configuration(place, kind, event, stop):
    environment = {"CLING": kind, "BAD_AT": event, "DATABASE": f"{place}/data/app.db", "PIDS": f"{place}/pids", "FILES": f"{place}/data",
                   "FREEZE_TIMEOUT_MS": "2000", **({"STOP": "1"} if stop else {})}
    return json.dumps({
        "writers": [{"name": "app", "type": "exec", "command": [f"{SOURCE}/tests/writers/clinging"], "environment": environment},
                    {"name": "good", "type": "exec", "command": [f"{SOURCE}/tests/writers/recorder"],
                     "environment": {"FILES": f"{place}/files", "RECORD": f"{place}/events"}}],
        "repositories": [{"name": "main", "mover": "archive", "path": f"{place}/backups"}],
        "limits": {"writer_seconds": {"prepare_backup": 2, "post_snapshot": 2, "backup_complete": 2}}})


@pytest.fixture
def place(daemon):
    for name in ("data", "files", "backups"):
        (daemon.place / name).mkdir()
    (daemon.place / "files" / "one").write_text("1")
    connection = sqlite3.connect(daemon.place / "data" / "app.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (n INTEGER)")
    connection.commit()
    connection.close()
    return daemon.place


def alive(place):
    pids = [int(line) for line in (place / "pids").read_text().split()] if (place / "pids").exists() else []
    return [pid for pid in pids if leftovers.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])]


def assert_free(place):
    """Nobody holds the lock: a writer gets it without waiting."""
    connection = sqlite3.connect(place / "data" / "app.db", timeout=0, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("COMMIT")
    connection.close()


BODY = {"components": [{"writer": "app", "name": "main"}, {"writer": "good", "name": "main"}], "repository": "main"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_hung_writer_and_all_that_it_started_end_at_the_deadline(daemon, place, kind):
    node = daemon(configuration(place, kind, "freeze", False))
    job = node.job("POST", "/backups", BODY)
    assert job["state"] == "failed" and job["hresult"] == "VSS_E_WRITERERROR_TIMEOUT", job
    assert alive(place) == [], "ended before the job did"
    assert_free(place)
    leftovers.assert_nothing_left(node, place / "backups")


@pytest.mark.parametrize("event", ["prepare_backup", "post_snapshot"])
def test_a_stopped_writer_ends_at_the_deadline_of_any_event(daemon, place, event):
    node = daemon(configuration(place, "session", event, True))
    job = node.job("POST", "/backups", BODY)
    assert job["state"] == "failed" and job["hresult"] == "VSS_E_WRITERERROR_TIMEOUT", job
    assert alive(place) == []
    assert_free(place)
    leftovers.assert_nothing_left(node, place / "backups")


@pytest.mark.parametrize("kind", ["child", "orphan"])
def test_what_a_killed_workers_writer_left_is_ended(daemon, place, kind):
    """The worker dies while the writer hangs: the writer dies with it, and what left its group is found by its mark."""
    node = daemon(configuration(place, kind, "prepare_backup", False).replace('"prepare_backup": 2', '"prepare_backup": 600'))
    job = node.call("POST", "/backups", BODY).json
    assert leftovers.settle(lambda: len(alive(place)) < 2, 60) is False
    worker = next(pid for pid in leftovers.running(node) if "--role=worker" in leftovers.command(pid))
    os.kill(worker, signal.SIGKILL)
    assert node.wait(job["id"])["state"] == "failed"
    assert leftovers.settle(lambda: alive(place)) == []
    assert_free(place)
    leftovers.assert_nothing_left(node, place / "backups")


def end_worker(node, how):
    worker = next(pid for pid in leftovers.running(node) if "--role=worker" in leftovers.command(pid))
    agent = leftovers.role(node, "agent")
    if how == "agent and worker":
        os.kill(agent, signal.SIGSTOP)  # it must not see to it
    os.kill(worker, signal.SIGSTOP if how == "stopped worker" else signal.SIGKILL)
    if how == "agent and worker":
        os.kill(agent, signal.SIGKILL)


@pytest.mark.parametrize("how", ["worker", "stopped worker", "agent and worker"])
def test_a_hold_that_outlives_its_writer_is_undone_when_the_worker_dies(daemon, place, how):
    """Nobody kills a writer that is about to undo: what it holds does not end with its process."""
    hold = place / "hold"
    configured = json.loads(configuration(place, "self", "prepare_backup", False))
    configured["writers"][0].update(command=[f"{SOURCE}/tests/writers/outliving"],
                                    environment={"HOLD": str(hold), "FILES": f"{place}/data", "BAD_AT": "prepare_backup", "UNDO_SECONDS": "2"})
    configured["limits"]["writer_seconds"]["prepare_backup"] = 600
    node = daemon(json.dumps(configured))
    job = node.call("POST", "/backups", BODY).json
    assert leftovers.settle(lambda: not hold.exists(), 60) is False
    end_worker(node, how)
    assert leftovers.settle(hold.exists) is False, "undone, not killed"
    leftovers.ready(node)
    assert node.wait(job["id"])["state"] == "failed"
    leftovers.assert_nothing_left(node, place / "backups")


def test_a_mover_that_hangs_while_it_takes_a_copy_back_does_not_keep_a_cancel_waiting(daemon, place):
    """The cancel is heard after the copy; the mover that is to remove its data has its own deadline."""
    configured = json.loads(configuration(place, "self", "freeze", False))
    configured["writers"].pop(0)
    node = daemon(json.dumps(configured))
    (node.faults / "worker.copy.done").write_text("hold")
    job = node.call("POST", "/backups", {"components": BODY["components"][1:], "repository": "main"}).json
    assert leftovers.settle(lambda: not (node.faults / "worker.copy.done.hit").exists(), 60) is False
    hit = node.faults / "mover.start.hit"
    hit.unlink(missing_ok=True)
    (node.faults / "mover.start").write_text("pause")
    assert node.call("DELETE", f"/jobs/{job['id']}").status == 202
    (node.faults / "worker.copy.done").unlink()
    assert leftovers.settle(lambda: not hit.exists(), 60) is False, "it is asked to take the copy back"
    assert node.wait(job["id"])["state"] == "cancelled"
    (node.faults / "mover.start").unlink()
    leftovers.assert_nothing_left(node, place / "backups")


@pytest.mark.parametrize("point, path, body", [
    ("worker.open_repository", "/repositories", {"name": "second", "mover": "archive", "path": "{place}/second"}),
    ("worker.metadata", "/backups", {"paths": ["/etc/hostname"], "repository": "main", "validate_only": True}),
    ("worker.plan", "/backups", {"paths": ["/etc/hostname"], "repository": "main", "validate_only": True}),
])
def test_who_waits_for_a_worker_that_dies_is_told(daemon, point, path, body):
    """Whoever asked lets go of the worker first, and says then why it died."""
    node = daemon("repositories: [{name: main, mover: archive, path: %s/backups}]\n" % daemon.place)
    leftovers.ready(node)
    body = {key: value.format(place=daemon.place) if isinstance(value, str) else value for key, value in body.items()}
    (node.faults / point).write_text("once crash")
    reply = node.call("POST", path, body)
    assert reply.status >= 500 and "worker" in reply.json["detail"], reply
    assert node.call("POST", path, body).status in (200, 201)


def test_a_worker_that_dies_between_two_phases_ends_the_job_not_the_session_under_it(daemon):
    node = daemon("repositories: [{name: main, mover: archive, path: %s/backups}]\n" % daemon.place)
    leftovers.ready(node)
    points = {name: node.faults / name for name in ("worker.metadata", "store.commit")}
    points["worker.metadata"].write_text("pause")
    job = node.call("POST", "/backups", {"paths": ["/etc/hostname"], "repository": "main"}).json
    assert not leftovers.settle(lambda: not leftovers.hits(node, "worker.metadata"))
    leftovers.forget(node, "store.commit")
    points["store.commit"].write_text("pause")
    points["worker.metadata"].unlink()
    assert not leftovers.settle(lambda: not leftovers.hits(node, "store.commit")), "the phase's end is being committed"
    os.kill(leftovers.role(node, "worker"), signal.SIGKILL)
    assert not leftovers.settle(lambda: leftovers.role(node, "worker"))
    time.sleep(0.5)  # core has been told of it, and has it queued
    points["store.commit"].unlink()
    ended = leftovers.terminal(node, job["id"])
    assert ended["state"] == "failed" and "worker" in ended["error"]["detail"], ended
    session = node.call("GET", f"/sessions/{job['session_id']}").json
    assert (session["state"], session["pending_job"]) == ("aborted", None), session
    leftovers.assert_nothing_left(node)
    assert node.job("POST", "/backups", {"paths": ["/etc/hostname"], "repository": "main"})["state"] == "succeeded"
