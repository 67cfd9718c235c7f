"""What a repository knows by itself: whether BackupComplete was reached, and what a scan makes of it when the state directory is lost."""
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from conftest import SOURCE

BACKUP_STATE = {"component_mode": True, "bootable_system_state": False, "type": "full", "partial_files": False}


def wait_for(condition, seconds=150):  # a seal that failed once is tried again after a minute
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(params=["archive", "restic", pytest.param("borg", marks=pytest.mark.full)])
def mover(request):
    return request.param


@pytest.fixture
def node(daemon, mover):
    yield make_node(daemon, mover)


def make_node(daemon, mover, more=""):
    place = daemon.place
    for name in ("files", "restored"):
        (place / name).mkdir()
    for i in range(12):
        (place / "files" / f"file-{i}").write_bytes(os.urandom(i * 5000))
    (place / "password").write_text("correct horse")
    where = f"{'url' if mover == 'restic' else 'path'}: {place}/repository" + (f", password_file: {place}/password" if mover != "archive" else "")
    one = daemon(f"""
writers:
  - {{name: recorder, type: exec, command: [{SOURCE}/tests/writers/recorder], environment: {{NAME: recorder, FILES: "{place}/files", RECORD: {place}/record, DELAY_BACKUP_COMPLETE: "0.3"}}}}
repositories: [{{name: main, mover: {mover}, {where}}}]
restore: {{roots: [{place}/restored]}}
{more}""")
    one.mover = mover
    return one


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in pathlib.Path(folder).iterdir()}


def copied(node, label="session"):
    """A session up to Copy; its path and the backup's id."""
    s = "/sessions/" + node.call("POST", "/sessions", {"kind": "backup", "label": label}).json["id"]
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    assert node.job("POST", s + "/metadata")["state"] == "succeeded"
    writer = node.call("GET", s + "/writers").json["items"][0]
    added = node.call("POST", s + "/components", {"instance_id": writer["instance_id"], "logical_path": "", "name": "main"})
    assert added.status == 201, added
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    assert node.call("POST", s + "/snapshot-set/volumes", {"path": str(node.place / "files")}).status == 201
    for phase in ("prepare", "snapshot"):
        job = node.job("POST", f"{s}/{phase}")
        assert job["state"] == "succeeded", job
    job = node.job("POST", s + "/copy", {"repository": "main"})
    assert job["state"] == "succeeded", job
    assert node.call("PATCH", f"{s}/components/{added.json['id']}", {"succeeded": True}).status == 200
    return s, job["result"]["backup_id"]


def lose_state(node):
    """The machine is gone; the repository is not."""
    if node.process.poll() is None:
        assert node.stop() == 0
    wait_for(lambda: not (shutil.rmtree(node.place / "state", ignore_errors=True) or (node.place / "state").exists()))  # killed workers still clear up
    node.start()
    assert node.call("GET", "/backups").json["items"] == []


def scanned(node):
    job = node.job("POST", "/repositories/main/scan")
    assert job["state"] == "succeeded", job
    return {item["id"]: item for item in node.call("GET", "/backups").json["items"]}


def sealed(node, backup):
    return node.call("GET", f"/backups/{backup}").json["sealed"]


def test_a_scan_of_a_lost_state_directory_tells_what_was_complete(node):
    one_call = node.job("POST", "/backups", {"paths": [str(node.place / "files")], "repository": "main", "label": "one call"})
    assert one_call["state"] == "succeeded", one_call
    whole = one_call["result"]["backup_id"]
    s, verbs = copied(node, "verbs")
    assert node.call("GET", f"/backups/{verbs}").json["sealed"] is False
    assert node.job("POST", s + "/complete")["state"] == "succeeded"
    s, aborted = copied(node, "aborted")
    assert node.call("POST", s + "/abort").json["state"] == "aborted"
    s, cancelled = copied(node, "cancelled")
    (node.faults / "worker.complete").write_text("hold")
    job = node.call("POST", s + "/complete").json["id"]
    assert node.call("DELETE", f"/jobs/{job}").status == 202
    (node.faults / "worker.complete").unlink()
    assert node.wait(job)["state"] == "cancelled"
    _, undecided = copied(node, "undecided")
    wait_for(lambda: sealed(node, aborted) and sealed(node, cancelled))
    before = {i["id"]: i for i in node.call("GET", "/backups").json["items"]}
    original = hashes(node.place / "files")
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    lose_state(node)
    found = scanned(node)
    assert {b for b, item in found.items() if item["complete"]} == {whole, verbs}
    assert set(found) == {whole, verbs, aborted, cancelled, undecided}
    for backup in (whole, verbs, aborted, cancelled):
        for member in ("complete", "reason", "sealed", "bytes", "files", "label", "type", "mover", "session_id", "data_id", "components", "owner"):
            assert (member, found[backup].get(member)) == (member, before[backup].get(member))
    assert "aborted" in found[aborted]["reason"] and "cancelled" in found[cancelled]["reason"] and found[aborted]["sealed"]
    assert "does not tell" in found[undecided]["reason"] and found[undecided]["sealed"] is False
    target = {"target": str(node.place / "restored" / "a"), "paths": [], "overwrite": False}
    refused = node.call("POST", f"/backups/{cancelled}/restore", target)
    assert refused.status == 409 and refused.json["hresult"] == "VSS_E_BAD_STATE"
    for backup, folder in ((whole, "a"), (verbs, "b")):
        target["target"] = str(node.place / "restored" / folder)
        job = node.job("POST", f"/backups/{backup}/restore", target)
        assert job["state"] == "succeeded" and job["result"]["verified"] is True, job
        assert hashes(f"{target['target']}{node.place}/files") == original
    assert node.job("POST", "/repositories/main/scan")["result"]["added"] == 0


def test_the_final_document_lies_in_the_repository(node):
    s, backup = copied(node)
    assert node.job("POST", s + "/complete")["state"] == "succeeded"
    document = node.call("GET", s + "/document").json
    assert document["components"][0]["succeeded"] is True
    lose_state(node)
    scanned(node)
    session = node.call("POST", "/sessions", {"kind": "restore", "backup_id": backup})
    assert session.status == 201, session
    found = node.call("GET", f"/sessions/{session.json['id']}/document").json
    for member in ("session_id", "writers", "snapshot_set_id", "writer_status", "backup_state"):
        assert found.get(member) == document.get(member), member
    assert all(was.items() <= now.items() for was, now in zip(document["components"], found["components"], strict=True)), "what a restore says comes on top"


def test_a_crash_between_seal_and_store_ends_the_same_in_both(node):
    """The repository says complete, the store never heard it: with the state directory the job is interrupted, and the repository follows."""
    s, backup = copied(node)
    (node.faults / "engine.sealed").write_text("once crash")
    job = node.call("POST", s + "/complete").json["id"]
    wait_for(lambda: (node.faults / "engine.sealed.hit").exists())
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    node.start()
    ended = node.wait(job)
    assert (ended["state"], ended["error"]["reason"]) == ("failed", "interrupted"), ended
    assert node.call("GET", f"/backups/{backup}").json["complete"] is False
    wait_for(lambda: sealed(node, backup))
    lose_state(node)
    found = scanned(node)[backup]
    assert found["complete"] is False and "service stopped" in found["reason"], found


def test_a_store_that_fails_at_the_end_does_not_leave_a_complete_seal(daemon):
    node = make_node(daemon, "archive")
    s, backup = copied(node)
    (node.faults / "engine.sealed").write_text("pause")
    job = node.call("POST", s + "/complete").json["id"]
    wait_for(lambda: (node.faults / "engine.sealed.hit").exists())
    assert json.loads((node.place / "repository" / backup / "seal.json").read_text())["complete"] is True
    (node.faults / "store.commit").write_text("once fail")
    (node.faults / "engine.sealed").unlink()
    ended = node.wait(job)
    assert (ended["state"], ended["hresult"]) == ("failed", "VSS_E_UNEXPECTED"), ended
    node.stop()
    node.start()
    wait_for(lambda: sealed(node, backup))
    assert node.call("GET", f"/backups/{backup}").json["complete"] is False
    assert json.loads((node.place / "repository" / backup / "seal.json").read_text())["complete"] is False


def test_a_repository_that_is_away_is_told_later(daemon):
    node = make_node(daemon, "archive")
    s, backup = copied(node)
    (node.faults / "mover.archive.seal").write_text("fail")
    assert node.job("POST", s + "/complete")["state"] == "succeeded", "BackupComplete is the writers' matter"
    told = node.call("GET", f"/backups/{backup}").json
    assert told["complete"] is True and told["sealed"] is False
    assert f"backup {backup}: its repository does not know yet how it ended" in node.words()
    (node.faults / "mover.archive.seal").unlink()
    node.stop()
    node.start()
    wait_for(lambda: sealed(node, backup))
    lose_state(node)
    assert scanned(node)[backup]["complete"] is True


@pytest.mark.parametrize("cancel", [True, False])
def test_a_repository_that_hangs_keeps_no_job_from_its_end(daemon, cancel):
    """Every writer was told: a DELETE is answered at once that it came too late, and without one the job ends as well."""
    node = make_node(daemon, "archive")
    s, backup = copied(node)
    (node.faults / "mover.archive.seal").write_text("pause")
    job = node.call("POST", s + "/complete").json["id"]
    wait_for(lambda: (node.faults / "mover.archive.seal.hit").exists())
    if cancel:
        reply = node.call("DELETE", f"/jobs/{job}")
        assert reply.status == 409 and reply.json["state"] == "succeeded", reply
    assert node.wait(job)["state"] == "succeeded"
    told = node.call("GET", f"/backups/{backup}").json
    assert told["complete"] is True and told["sealed"] is False
    (node.faults / "mover.archive.seal").unlink()
    wait_for(lambda: sealed(node, backup))
    assert node.call("DELETE", s).status in (202, 204)


def test_a_backup_cancelled_behind_its_complete_phase_stays_complete(daemon):
    node = make_node(daemon, "archive")
    (node.faults / "mover.archive.seal").write_text("pause")
    job = node.call("POST", "/backups", {"paths": [f"{node.place}/files"], "components": [], "repository": "main"}).json
    wait_for(lambda: (node.faults / "mover.archive.seal.hit").exists())
    assert node.call("DELETE", f"/jobs/{job['id']}").status == 202
    ended = node.wait(job["id"])
    assert ended["state"] == "cancelled", ended
    assert node.call("GET", f"/sessions/{job['session_id']}").json["state"] == "completed", "a terminal state stays"
    assert node.call("GET", f"/backups/{ended['result']['backup_id']}").json["complete"] is True
    assert node.call("GET", "/snapshots").json["items"] == []


def test_a_scan_tells_the_repository_again_what_it_lost(daemon):
    node = make_node(daemon, "archive")
    s, backup = copied(node)
    assert node.job("POST", s + "/complete")["state"] == "succeeded"
    seal = node.place / "repository" / backup / "seal.json"
    seal.write_text("{ damaged")
    assert scanned(node)[backup]["complete"] is True
    wait_for(lambda: "damaged" not in seal.read_text() and json.loads(seal.read_text())["complete"] is True)


def test_a_copy_cancelled_after_its_end_leaves_no_data(node):
    s, kept = copied(node)
    (node.faults / "worker.copy.late").write_text("pause")
    job = node.call("POST", s + "/copy", {"repository": "main"}).json["id"]
    wait_for(lambda: (node.faults / "worker.copy.late.hit").exists())
    assert node.call("DELETE", f"/jobs/{job}").json["cancel"] == "S_OK"
    (node.faults / "worker.copy.late").unlink()
    ended = node.wait(job)
    assert ended["state"] == "cancelled" and len(ended["result"]["cleanup"]["removed"]) == 1, ended
    assert node.call("GET", s).json["state"] == "snapshotted", "it can be copied again"
    assert [item["id"] for item in node.call("GET", "/backups").json["items"]] == [kept]
    assert node.job("POST", "/repositories/main/scan")["result"] == {"found": 1, "added": 0, "gone": 0, "damaged": []}
    again = node.job("POST", s + "/copy", {"repository": "main"})
    assert again["state"] == "succeeded", again


def test_a_cancelled_copy_that_cannot_be_removed_is_in_the_catalog(daemon):
    node = make_node(daemon, "archive")
    s, _ = copied(node)
    (node.faults / "worker.copy.late").write_text("pause")
    (node.faults / "worker.remove_backup").write_text("once fail")
    job = node.call("POST", s + "/copy", {"repository": "main"}).json["id"]
    wait_for(lambda: (node.faults / "worker.copy.late.hit").exists())
    assert node.call("DELETE", f"/jobs/{job}").status == 202
    (node.faults / "worker.copy.late").unlink()
    ended = node.wait(job)
    left = ended["result"]["cleanup"]["failed"][0]["object"]
    assert ended["state"] == "cancelled"
    row = node.call("GET", f"/backups/{left}").json
    assert row["complete"] is False and "could not be removed" in row["reason"], row
    assert node.job("DELETE", f"/backups/{left}")["state"] == "succeeded"
    assert node.call("GET", f"/backups/{left}").status == 404


def test_a_session_that_ends_tells_its_backups_why(daemon):
    node = make_node(daemon, "archive")
    s, released = copied(node)
    assert node.call("DELETE", s).status == 204
    row = node.call("GET", f"/backups/{released}").json
    assert row["complete"] is False and "released" in row["reason"]
    s, done = copied(node)
    assert node.job("POST", s + "/complete")["state"] == "succeeded"
    assert node.call("DELETE", s).status == 204
    assert node.call("GET", f"/backups/{done}").json["complete"] is True
