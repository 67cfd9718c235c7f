"""BackupComplete over HTTPS: the six return values of its page, and each remark. Law: the page IVssBackupComponents::BackupComplete."""
import pytest

from conduct import BACKUP_STATE, Gate, Session, Wire, Writer, configuration, gate_writer


@pytest.fixture
def start(daemon):
    """A node with the writers of (name, kind, environment)."""

    def make(*writers, limits="", gate=False):
        made = {name: Writer(daemon.place, name, kind, **environment) for name, kind, environment in writers}
        node = daemon(configuration(daemon.place, list(made.values()) + ([gate_writer(daemon.place)] if gate else []), limits))
        node.writers = made
        return node

    return make


def two(start, **more):
    return start(("first", "recorder", {}), ("second", "recorder", {}), **more)


def refused(reply, status, hresult):
    assert reply.status == status and reply.json["hresult"] == hresult, reply
    return reply


def incidents(node, session, code):
    """The log lines and the rows of GET /errors that name the code and the session. A row is committed after its line."""
    rows = []
    while not rows:
        rows = [row for row in session.wire.get(f"/errors?session={session.id}")["items"] if row["hresult"] == code]
    return [line for line in node.words().splitlines() if code + ":" in line and session.id in line], rows


# --- the six return values -------------------------------------------------------------------------------------------

def test_s_ok_is_a_job_that_tells_every_writer(start):
    node = two(start)
    session = Session(node).to("snapshotted")
    session.copy()
    accepted = session.begin("complete")
    assert (accepted["operation"], accepted["session_id"]) == ("BackupComplete", session.id)
    assert accepted["hresult"] == "VSS_S_ASYNC_PENDING" and accepted["cancellable"] is True
    job = session.wire.wait(accepted)
    assert (job["state"], job["hresult"], job["code"].lower(), job["error"]) == ("succeeded", "VSS_S_ASYNC_FINISHED", "0x0004230a", None), job
    assert session.view()["state"] == "completed"
    for writer in node.writers.values():
        assert len(writer.heard(session, "backup_complete")) == 1


def test_e_invalidarg_names_the_member_and_changes_nothing(start):
    node = two(start)
    session = Session(node).to("snapshotted")
    before = session.view()
    reply = refused(session.call("POST", "/complete", {"ppAsync": None}), 400, "E_INVALIDARG")
    assert [error["pointer"] for error in reply.json["errors"]] == ["/ppAsync"]
    for text in ("{", "[]", '{"a":1,"a":2}', "null", '"x"'):
        refused(session.call("POST", "/complete", text), 400, "E_INVALIDARG")
    after = session.view()
    assert (after["state"], after["pending_job"], after["updated_at"]) == (before["state"], None, before["updated_at"])
    session.done("complete", {})


def test_e_outofmemory_when_the_job_table_is_full(start):
    node = start(gate=True, limits="jobs: 1")
    holder, other = Session(node).to("snapshotted"), None
    other = Session(node).to("snapshotted")
    gate = Gate(node.place, holder)
    held = holder.begin("complete")
    reply = refused(other.call("POST", "/complete"), 503, "E_OUTOFMEMORY")
    assert int(reply.headers["retry-after"]) > 0
    assert other.view()["state"] == "snapshotted" and other.view()["pending_job"] is None
    gate.open()
    assert holder.wire.wait(held)["state"] == "succeeded"
    (node.faults / "engine.jobs.full").write_text("once")
    refused(other.call("POST", "/complete"), 503, "E_OUTOFMEMORY")
    other.done("complete")
    gate.close()


def test_vss_e_bad_state_from_every_wrong_state(start):
    node = start(("first", "recorder", {}), gate=True)
    session = Session(node)
    for state in ("initialized", "identified", "set_open", "prepared"):
        session.to(state)
        reply = refused(session.call("POST", "/complete"), 409, "VSS_E_BAD_STATE")
        assert reply.json["session_state"] == state and session.view()["state"] == state
    session.to("snapshotted")
    gate = Gate(node.place, session)
    pending = session.begin("complete")
    reply = refused(session.call("POST", "/complete"), 409, "VSS_E_BAD_STATE")
    assert reply.json["job"] == pending["id"], "a job of this session is pending"
    gate.open()
    assert session.wire.wait(pending)["state"] == "succeeded"
    assert refused(session.call("POST", "/complete"), 409, "VSS_E_BAD_STATE").json["session_state"] == "completed"
    aborted = Session(node).to("prepared")
    assert aborted.call("POST", "/abort").json["state"] == "aborted"
    assert refused(aborted.call("POST", "/complete"), 409, "VSS_E_BAD_STATE").json["session_state"] == "aborted"
    gate.close()


def test_vss_e_bad_state_after_a_failed_do_snapshot_set(start):
    node = two(start)
    session = Session(node).to("prepared")
    (node.faults / "worker.snapshot.create").write_text("once")
    job = session.job("snapshot")
    assert job["state"] == "failed" and session.view()["state"] == "snapshot_failed", job
    assert refused(session.call("POST", "/complete"), 409, "VSS_E_BAD_STATE").json["session_state"] == "snapshot_failed"
    assert session.call("POST", "/abort").json["state"] == "aborted"
    for writer in node.writers.values():
        assert not writer.heard(session, "backup_complete")


def test_vss_e_bad_state_in_a_restore_and_without_writers(start):
    node = two(start)
    wire = Wire(node)
    restore = wire.call("POST", "/sessions", {"kind": "restore", "document": {"version": 1, "components": [], "writers": []}})
    assert restore.status == 201, restore
    refused(wire.call("POST", f"/sessions/{restore.json['id']}/complete"), 409, "VSS_E_BAD_STATE")
    session = Session(node, context="file_share_backup")
    session.step("set_open")
    session.done("snapshot")
    assert refused(session.call("POST", "/complete"), 409, "VSS_E_BAD_STATE").json["session_state"] == "snapshotted"
    refused(wire.call("POST", "/sessions/0193a8f0-0000-7000-8000-000000000000/complete"), 404, "VSS_E_OBJECT_NOT_FOUND")


def test_prepared_is_enough_when_nothing_needs_a_snapshot(start):
    node = two(start)
    session = Session(node)
    assert session.call("PUT", "/backup-state", dict(BACKUP_STATE, component_mode=False)).status == 200
    session.done("metadata")
    assert session.call("POST", "/snapshot-set", {}).status == 201
    session.done("prepare")
    session.done("complete")
    assert session.view()["state"] == "completed"


@pytest.mark.parametrize("lasting", (False, True))
def test_vss_e_unexpected_when_the_store_refuses_the_job(start, lasting):
    node = two(start)
    session = Session(node).to("snapshotted")
    fault = node.faults / "store.commit"
    fault.write_text("" if lasting else "once")
    refused(session.call("POST", "/complete"), 500, "VSS_E_UNEXPECTED")
    if lasting:
        fault.unlink()
    assert session.view()["state"] == "snapshotted" and session.view()["pending_job"] is None
    session.done("complete")  # and the store has what it refused before
    lines, rows = incidents(node, session, "VSS_E_UNEXPECTED")
    assert len(lines) == 1 and len(rows) == 1, (lines, rows)


def test_vss_e_unexpected_when_the_store_refuses_the_end(start):
    node = start(("first", "recorder", {}), gate=True)
    session = Session(node).to("snapshotted")
    gate = Gate(node.place, session)
    accepted = session.begin("complete")
    (node.faults / "store.commit").write_text("")
    gate.open()
    job = session.wire.wait(accepted)
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_UNEXPECTED"), "what is not durable is no success"
    assert session.view()["state"] == "aborted"
    (node.faults / "store.commit").unlink()
    other = Session(node)  # the next change brings the rest in
    lines, rows = incidents(node, session, "VSS_E_UNEXPECTED")
    assert len(lines) == 1 and len(rows) == 1 and rows[0]["job"] == job["id"], (lines, rows)
    assert other.wire.get(f"/jobs/{job['id']}")["state"] == "failed"
    gate.close()


@pytest.mark.parametrize("kind, environment, limits, text", (
    ("dying", {}, "", "died"),
    ("hanging", {}, "writer_seconds: {backup_complete: 1}", "deadline"),
    ("lying", {"LIE": "garbage"}, "", "protocol 1"),
    ("out-of-turn", {}, "", "out of turn"),
    ("flooding", {}, "", "1 MiB"),
))
def test_vss_e_unexpected_writer_error_keeps_the_data_and_tells_the_others(start, kind, environment, limits, text):
    node = start(("first", "recorder", {}), ("bad", kind, dict(environment, BAD_AT="backup_complete")), ("last", "recorder", {}), limits=limits)
    session = Session(node).to("snapshotted")
    backup = session.copy()
    for name in session.components:
        session.succeed(name)
    job = session.job("complete")
    assert (job["state"], job["hresult"], job["code"].lower()) == ("failed", "VSS_E_UNEXPECTED_WRITER_ERROR", "0x80042315"), job
    assert "bad" in job["error"]["detail"] and text in job["error"]["detail"], job
    for name in ("first", "last"):
        told = node.writers[name].heard(session, "backup_complete")
        assert len(told) == 1 and told[0]["components"][0]["succeeded"] is True, "every other writer is still told"
    lines, rows = incidents(node, session, "VSS_E_UNEXPECTED_WRITER_ERROR")
    assert len(lines) == 1 and len(rows) == 1, (lines, rows)
    assert (rows[0]["writer"], rows[0]["job"]) == ("bad", job["id"])
    assert session.view()["state"] == "aborted", "a failed BackupComplete is never repeated"
    refused(session.call("POST", "/complete"), 409, "VSS_E_BAD_STATE")
    kept = session.wire.get("/backups/" + backup)
    assert kept["complete"] is False and "BackupComplete" in kept["reason"], kept
    target = {"target": str(node.place / "restored"), "paths": [], "overwrite": False}
    refused(session.wire.call("POST", f"/backups/{backup}/restore", target), 409, "VSS_E_BAD_STATE")
    restored = session.wire.call("POST", f"/backups/{backup}/restore", dict(target, accept_incomplete=True))
    assert session.wire.wait(restored.json)["state"] == "succeeded"


# --- the remarks -----------------------------------------------------------------------------------------------------

def test_writers_see_set_backup_succeeded_per_component_and_unset_is_false(start):
    node = start(("yes", "recorder", {}), ("no", "recorder", {}), ("unset", "recorder", {}))
    session = Session(node).to("snapshotted")
    session.copy()
    session.succeed("yes")
    session.succeed("no", False)
    session.done("complete")
    for name, succeeded in (("yes", True), ("no", False), ("unset", False)):
        told = node.writers[name].heard(session, "backup_complete")
        assert [component["succeeded"] for component in told[0]["components"]] == [succeeded], (name, told)


def test_succeeded_is_per_component_within_one_writer(start):
    components = '[' + ",".join(f'{{"type":"filegroup","logical_path":"","name":"{name}","selectable":true,"file_sets":[]}}' for name in "abc") + ']'
    node = start(("many", "recorder", {"COMPONENTS": components}))
    session = Session(node)
    session.to("snapshotted")
    items = session.wire.get(session.path + "/components")["items"]
    assert [item["succeeded"] for item in items] == [False] * 3
    chosen = next(item for item in items if item["name"] == "b")
    assert session.call("PATCH", "/components/" + chosen["id"], {"succeeded": True}).status == 200
    session.done("complete")
    told = node.writers["many"].heard(session, "backup_complete")[0]["components"]
    assert {component["name"]: component["succeeded"] for component in told} == {"a": False, "b": True, "c": False}


def test_it_is_asynchronous_and_query_status_tells(start):
    node = start(("first", "recorder", {}), gate=True)
    session = Session(node).to("snapshotted")
    gate = Gate(node.place, session)
    accepted = session.begin("complete")
    other = Wire(node)
    for _ in range(3):
        job = other.get(f"/jobs/{accepted['id']}")
        assert (job["state"], job["hresult"], job["code"].lower()) == ("running", "VSS_S_ASYNC_PENDING", "0x00042309")
        assert job["finished_at"] is None and job["result"] is None
    waited = other.get(f"/jobs/{accepted['id']}?wait=1")
    assert waited["state"] == "running", "a wait that ends first is still 200"
    assert session.view()["pending_job"] == accepted["id"]
    gate.open()
    assert other.wait(accepted)["state"] == "succeeded"
    assert session.view()["pending_job"] is None
    gate.close()


def test_writer_status_can_be_gathered_afterwards(start):
    node = start(("well", "recorder", {}), ("complaining", "recorder", {"FAIL_BACKUP_COMPLETE": "VSS_E_WRITERERROR_RETRYABLE"}))
    session = Session(node).to("snapshotted")
    job = session.done("complete")
    assert session.view()["state"] == "completed", "a failure that a writer reports never fails the job: the snapshot is good"
    by_name = {status["name"]: status for status in job["result"]["writers"]}
    assert by_name["complaining"]["state"] == "VSS_WS_FAILED_AT_BACKUP_COMPLETE"
    session.done("status")
    by_name = {status["name"]: status for status in session.wire.get(session.path + "/writer-status")["items"]}
    assert (by_name["well"]["state"], by_name["well"]["failure"]) == ("VSS_WS_STABLE", "S_OK")
    assert (by_name["complaining"]["state"], by_name["complaining"]["failure"]) == ("VSS_WS_FAILED_AT_BACKUP_COMPLETE", "VSS_E_WRITERERROR_RETRYABLE")
