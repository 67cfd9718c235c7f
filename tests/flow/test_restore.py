"""Restore sessions over HTTPS, with real files: backed up, destroyed, brought back by PreRestore, RestoreFiles and PostRestore, and compared."""
import hashlib
import json
import os
import shutil
import signal
import sqlite3

import pytest

import leftovers
from conduct import Writer, configuration
from restoring import Ground, Restore, back_up, component, fill, tree
from test_repository import wait_for


def test_in_place_from_a_backup(daemon):
    """The thin and whole path: writers hear PreRestore and PostRestore about what was selected, the files are as they were."""
    ground = Ground(daemon)
    shutil.rmtree(ground.main)
    (ground.side / "table-0").write_text("changed since")
    session = ground.session()
    assert session.view()["state"] == "initialized" and session.view()["backup_id"] == ground.backup
    assert [(c["name"], c["selected"], c["file_restore_status"]) for c in session.wire.get(session.path + "/components")["items"]] == [
        ("main", False, None), ("side", False, None)]
    session.identify().select("main")
    session.done("pre-restore")
    assert session.view()["state"] == "pre_restored"
    job = session.done("restore-files", {})
    assert job["result"]["verified"] is True and job["result"]["files"] == 6, job
    assert tree(ground.main) == ground.before["main"]
    assert (ground.side / "table-0").read_text() == "changed since", "it was not selected"
    assert session.component("main")["file_restore_status"] == "all" and session.component("side")["file_restore_status"] is None
    session.done("post-restore")
    assert session.view()["state"] == "completed"
    assert session.call("DELETE").status in (202, 204)
    heard = ground.writer.heard(session)
    assert [r["event"] for r in heard] == ["identify", "pre_restore", "post_restore", "backup_shutdown"], "no Abort in a restore"
    assert [c["name"] for c in heard[1]["components"]] == ["main"] and heard[1]["restore_type"] == "by_copy"
    assert heard[2]["components"][0]["file_restore_status"] == "all"


def test_a_database_is_destroyed_and_comes_back_in_place_and_elsewhere(daemon):
    """SQLite, by its own writer: what was committed before the backup is there afterwards, at its place and beneath a new target."""
    place = daemon.place
    (place / "app").mkdir()
    database = sqlite3.connect(place / "app" / "app.db")
    database.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, text)")
    database.executemany("INSERT INTO rows VALUES (?, ?)", ((n, "x" * n) for n in range(500)))
    database.commit()
    database.close()
    text = configuration(place, []) .replace(f"roots: [{place}/restored]", f"roots: [{place}/app, {place}/restored]")
    node = daemon(f"writers:\n  - {{name: app, type: sqlite, databases: [{place}/app/app.db]}}\n" + text)
    name = node.call("GET", "/writers").json["items"][0]["components"][0]["name"]
    backup = back_up(node, [{"writer": "app", "name": name}])
    before = hashlib.sha256((place / "app" / "app.db").read_bytes()).hexdigest()
    (place / "app" / "app.db").write_bytes(b"not a database any more")
    session = Restore(node, backup_id=backup).identify().select(name)
    for verb in ("pre-restore", "restore-files", "post-restore"):
        session.done(verb)
    assert hashlib.sha256((place / "app" / "app.db").read_bytes()).hexdigest() == before
    elsewhere = Restore(node, session.wire, backup_id=backup)
    for file_set in elsewhere.call("GET", "/document").json["writers"][0]["components"][0]["file_sets"]:
        elsewhere.add(name, "new-targets", {**{k: file_set[k] for k in ("path", "spec", "recursive")}, "new_path": f"{place}/restored/copy"})
    elsewhere.identify().select(name)
    for verb in ("pre-restore", "restore-files", "post-restore"):
        elsewhere.done(verb)
    assert hashlib.sha256((place / "restored" / "copy" / "app.db").read_bytes()).hexdigest() == before
    for path in (place / "app" / "app.db", place / "restored" / "copy" / "app.db"):
        database = sqlite3.connect(path)
        assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert database.execute("SELECT count(*), sum(length(text)) FROM rows").fetchone() == (500, sum(range(500)))
        database.close()


# --- writers that fail ----------------------------------------------------------------------------------------------------------------------------

def status_of(session, name="app"):
    return next(s for s in session.wire.get(session.path + "/writer-status")["items"] if s["name"] == name)


def test_a_writer_that_refuses_pre_restore(daemon):
    """writer_failure fail: the job fails by the writer's code, and the call may be repeated; report: it succeeds, the status tells, and the writer
    hears no more of it."""
    ground = Ground(daemon, FAIL_PRE_RESTORE="VSS_E_WRITERERROR_RETRYABLE")
    session = ground.session("main")
    for _ in range(2):
        job = session.job("pre-restore")
        assert (job["state"], job["hresult"]) == ("failed", "VSS_E_WRITERERROR_RETRYABLE"), job
        assert [w["state"] for w in job["error"]["writers"]] == ["VSS_WS_FAILED_AT_PRE_RESTORE"]
        assert session.view()["state"] == "identified"
    assert session.call("DELETE").status in (202, 204)
    reported = ground.session("main", writer_failure="report")
    reported.done("pre-restore")
    assert status_of(reported)["state"] == "VSS_WS_FAILED_AT_PRE_RESTORE"
    refused = reported.call("POST", "/restore-files", {})
    assert refused.status == 409 and refused.json["hresult"] == "VSS_E_BAD_STATE", "its application may be at work on those files"
    reported.done("restore-files", {"components": [reported.component("main")["id"]]})  # whoever names it decides
    reported.done("post-restore")
    assert reported.view()["state"] == "completed"
    assert [r["event"] for r in ground.writer.heard(reported)] == ["identify", "pre_restore"]


def test_pre_restore_is_repeated_after_one_of_two_writers_refused(daemon):
    """The one that had stopped its application stays so, and the failed job says it; the call again tells both again, and the restore goes on."""
    place = daemon.place
    writers = {name: Writer(place, name, COMPONENTS=json.dumps([component(name, place / "data" / name)]), **more) for name, more in {
        "ready": {}, "late": {"FAIL_PRE_RESTORE": "VSS_E_WRITERERROR_RETRYABLE", "UNLESS_PRE_RESTORE": f"{place}/now"}}.items()}
    for name in writers:
        fill(place / "data" / name)
    node = daemon(configuration(place, writers.values()).replace(f"roots: [{place}/restored]", f"roots: [{place}/data]"))
    backup = back_up(node, [{"writer": name, "name": name} for name in writers])
    before = tree(place / "data")
    session = Restore(node, backup_id=backup).identify().select(*writers)
    job = session.job("pre-restore")
    assert (job["state"], job["hresult"], session.view()["state"]) == ("failed", "VSS_E_WRITERERROR_RETRYABLE", "identified"), job
    left, = job["result"]["cleanup"]["left_behind"]
    assert left["object"] == "ready" and "stopped" in left["reason"], job
    assert tree(place / "data") == before and session.call("POST", "/restore-files", {}).json["hresult"] == "VSS_E_BAD_STATE"
    (place / "now").touch()
    (place / "data" / "late" / "table-0").write_text("newer")
    for verb in ("pre-restore", "restore-files", "post-restore"):
        session.done(verb)
    assert session.view()["state"] == "completed" and tree(place / "data") == before
    for writer in writers.values():
        assert [r["event"] for r in writer.heard(session)] == ["identify", "pre_restore", "pre_restore", "post_restore"], writer.name


def test_a_component_that_fails_at_pre_restore_says_why(daemon):
    ground = Ground(daemon, PARTIAL_PRE_RESTORE="VSS_E_WRITERERROR_NONRETRYABLE")
    session = ground.session("main", "side", writer_failure="report")
    session.done("pre-restore")
    assert status_of(session)["failure"] == "VSS_E_WRITERERROR_PARTIAL_FAILURE" and status_of(session)["application_code"] == 7
    assert session.component("main")["failure"] == "VSS_E_WRITERERROR_NONRETRYABLE" and session.component("side")["failure"] is None
    told = session.done("restore-files", {})["result"]["components"]
    assert told == [{"id": session.component("side")["id"], "file_restore_status": "all"}], "the one that failed is left alone unless it is named"
    session.done("post-restore")
    assert [r["event"] for r in ground.writer.heard(session)][-1] == "post_restore", "it is not out: it said ok"


def test_a_writer_that_refuses_post_restore(daemon):
    """fail: the restore ends aborted, every writer was told, and nothing is repeated. report: completed, the status tells."""
    ground = Ground(daemon, FAIL_POST_RESTORE="VSS_E_WRITERERROR_NONRETRYABLE")
    session = ground.session("main")
    session.done("pre-restore")
    job = session.job("post-restore")
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_WRITERERROR_NONRETRYABLE"), job
    assert session.view()["state"] == "aborted" and status_of(session)["state"] == "VSS_WS_FAILED_AT_POST_RESTORE"
    assert session.call("POST", "/post-restore").json["hresult"] == "VSS_E_BAD_STATE"
    reported = ground.session("main", writer_failure="report")
    reported.done("pre-restore")
    reported.done("post-restore")
    assert reported.view()["state"] == "completed" and status_of(reported)["state"] == "VSS_WS_FAILED_AT_POST_RESTORE"


def test_a_writer_that_vanished_makes_post_restore_fail(daemon):
    ground = Ground(daemon, kind="dying", BAD_AT="post_restore")
    for failure, code in (("report", "VSS_E_OBJECT_NOT_FOUND"), ("fail", "VSS_E_WRITER_NOT_RESPONDING")):
        session = ground.session("main", writer_failure=failure)
        session.done("pre-restore")
        job = session.job("post-restore")
        assert (job["state"], job["hresult"], session.view()["state"]) == ("failed", code, "aborted"), job


# --- cancelled, killed ----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("job, state", [("pre-restore", "aborted"), ("restore-files", "pre_restored"), ("post-restore", "aborted")])
def test_each_job_is_cancelled_truthfully(daemon, job, state):
    """No Abort is sent; the writers hear BackupShutdown when the session is let go, which a cancelled RestoreFiles does not do."""
    ground = Ground(daemon, WAIT_PRE_RESTORE=f"{daemon.place}/gate" if job == "pre-restore" else "", WAIT_POST_RESTORE=f"{daemon.place}/gate")
    ground.destroy()
    session = ground.session("main")
    if job != "pre-restore":
        session.done("pre-restore")
    hold = ground.node.faults / "mover.start"
    if job == "restore-files":
        hold.write_text("delay 1000")
    pending = session.begin(job)
    if job == "restore-files":
        wait_for(lambda: (ground.node.faults / "mover.start.hit").exists())
    else:
        wait_for(lambda: ground.writer.heard(session, job.replace("-", "_")))
    assert session.wire.call("DELETE", "/jobs/" + pending["id"]).status == 202
    ended = session.wire.wait(pending)
    hold.unlink(missing_ok=True)
    assert ended["state"] == "cancelled" and session.view()["state"] == state, ended
    assert not ground.main.exists(), "nothing of it is there"
    if job == "restore-files":
        assert session.component("main")["file_restore_status"] == "none"
        session.done("restore-files")
        assert tree(ground.main) == ground.before["main"] and session.component("main")["file_restore_status"] == "all"
    (ground.place / "gate").touch()
    assert session.call("DELETE").status in (202, 204)
    heard = [r["event"] for r in ground.writer.heard(session)]
    assert "abort" not in heard and ("post_restore" in heard) == (job == "post-restore"), heard


def test_a_worker_killed_while_files_move(daemon):
    """The job is interrupted, the session ends, no component claims that all is there; the writer hears the end of its input."""
    ground = Ground(daemon)
    for path in ground.main.iterdir():
        if path.is_file():
            path.unlink()
    session = ground.session("main", "side")
    session.done("pre-restore")
    (ground.node.faults / "mover.publish").write_text("pause")
    pending = session.begin("restore-files")
    wait_for(lambda: (ground.node.faults / "mover.publish.hit").exists())
    worker = next(pid for pid, command in leftovers.processes(ground.node) if "--role=worker" in command)
    os.kill(worker, signal.SIGKILL)
    ended = session.wire.wait(pending)
    (ground.node.faults / "mover.publish").unlink()
    assert (ended["state"], ended["hresult"]) == ("failed", "VSS_E_UNEXPECTED"), ended
    assert session.view()["state"] == "aborted"
    assert {c["file_restore_status"] for c in session.wire.get(session.path + "/components")["items"]} == {"failed"}
    assert "some of" in ended["result"]["cleanup"]["left_behind"][0]["reason"], ended
    leftovers.assert_nothing_left(ground.node, ground.place / "backups")
    assert "end_of_file" in ground.writer.record.read_text() and "post_restore" not in [r["event"] for r in ground.writer.heard(session)]
    again = ground.session("main", "side")
    for verb in ("pre-restore", "restore-files", "post-restore"):
        again.done(verb)
    assert tree(ground.main) == ground.before["main"] and not list(ground.place.rglob(".quiesced-restore-*"))


def test_core_killed_while_files_are_restored_again(daemon):
    """The job is interrupted, the session aborted, and what an earlier call had said of the files is no longer said."""
    ground = Ground(daemon)
    session = ground.session("main")
    session.done("pre-restore")
    session.done("restore-files")
    assert session.component("main")["file_restore_status"] == "all"
    (ground.node.faults / "mover.start").write_text("pause")
    pending = session.begin("restore-files")
    wait_for(lambda: (ground.node.faults / "mover.start.hit").exists())
    os.kill(leftovers.role(ground.node, "core"), signal.SIGKILL)
    leftovers.settle(lambda: leftovers.role(ground.node, "core"), 5)
    (ground.node.faults / "mover.start").unlink()
    leftovers.ready(ground.node)
    ended = leftovers.terminal(ground.node, pending["id"])
    assert (ended["state"], ended["error"]["reason"]) == ("failed", "interrupted"), ended
    assert ground.node.call("GET", session.path).json["state"] == "aborted"
    components = ground.node.call("GET", session.path + "/components").json["items"]
    assert [c["file_restore_status"] for c in components] == [None, None], components
    wait_for(lambda: "end_of_file" in ground.writer.record.read_text())
    assert tree(ground.main) == ground.before["main"]


@pytest.mark.full
def test_a_lease_that_expires_between_pre_and_post_restore(daemon):
    ground = Ground(daemon)
    session = ground.session("main", lease_seconds=5)
    session.done("pre-restore")
    wait_for(lambda: session.view()["state"] == "aborted")
    assert session.view()["reason"] == "lease_expired"
    wait_for(lambda: [r["event"] for r in ground.writer.heard(session)] == ["identify", "pre_restore", "backup_shutdown"])


@pytest.mark.full
@pytest.mark.parametrize("victims,done,delays", [(["worker"], "undone", {"DELAY_END": "15"}),
                                                 (["core"], "backup_shutdown.answered", {"DELAY_BACKUP_SHUTDOWN": "20"}),
                                                 (["agent"], "backup_shutdown.answered", {"DELAY_BACKUP_SHUTDOWN": "24"}),
                                                 (["agent", "worker"], "undone", {"DELAY_END": "24"})])
def test_an_undo_that_takes_longer_than_any_other_is_waited_for(daemon, victims, done, delays):
    """The writer has stopped its application: killed before its undo is done, it would leave that stopped."""
    ground = Ground(daemon, RESTORE_METHOD="stop_restore_start", **delays)
    ground.session("main").done("pre-restore")
    for pid in [leftovers.role(ground.node, name) for name in victims]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: f'"{done}"' in ground.writer.record.read_text())
    wait_for(lambda: leftovers.answers(ground.node) and leftovers.processes(ground.node) == [])
    assert ": killed" not in ground.node.words(), "nobody was ended before"
