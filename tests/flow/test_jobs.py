"""Jobs over HTTPS: cancel at any time, release, waiting; and the release of a session."""
import asyncio
import json
import os
import pathlib
import threading

import pytest

from conduct import Gate, Session, Wire, Writer, address, configuration, gate_writer, tls
from daemon import CONTRACT


@pytest.fixture
def node(daemon):
    """Two writers: one that records, one that a gate can hold in BackupComplete."""
    recorder = Writer(daemon.place, "first")
    one = daemon(configuration(daemon.place, [recorder, gate_writer(daemon.place)]))
    one.recorder = recorder
    return one


def cancelled(session, job):
    """DELETE, and what must follow from its 202."""
    reply = session.wire.call("DELETE", "/jobs/" + job["id"])
    assert reply.status == 202 and reply.json["cancel"] == "S_OK", reply
    ended = session.wire.wait(job)
    assert (ended["state"], ended["hresult"]) == ("cancelled", "VSS_S_ASYNC_CANCELLED"), ended
    again = session.wire.call("DELETE", "/jobs/" + job["id"])
    assert again.status == 200 and again.json["cancel"] == "VSS_S_ASYNC_CANCELLED", again
    return ended


# --- cancel, at any time ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("operation, event, undone", (
    ("metadata", "identify", "initialized"),
    ("prepare", "prepare_backup", "aborted"),
    ("snapshot", "prepare_snapshot", "aborted"),
    ("snapshot", "freeze", "aborted"),
    ("snapshot", "post_snapshot", "aborted"),
    ("complete", "backup_complete", "aborted"),
))
def test_a_job_is_cancelled_while_a_writer_is_being_told(daemon, operation, event, undone):
    quick, slow = Writer(daemon.place, "quick"), Writer(daemon.place, "slow", **{f"DELAY_{event.upper()}": "600"})
    node = daemon(configuration(daemon.place, [quick, slow]))
    session = Session(node)
    session.to({"metadata": "initialized", "prepare": "set_open", "snapshot": "prepared", "complete": "snapshotted"}[operation])
    job = session.begin(operation)
    while not slow.heard(session, event) or not quick.heard(session, event):
        session.view()
    ended = cancelled(session, job)
    assert session.view()["state"] == undone
    if event == "freeze":
        assert quick.heard(session, "thaw"), "everyone else is thawed"
        assert "quick" in ended["result"]["cleanup"]["thawed"], ended
    if operation in ("prepare", "snapshot") and event != "post_snapshot":
        assert quick.heard(session, "abort"), "and told"
    if event == "post_snapshot":
        assert not quick.heard(session, "abort"), "OnAbort is not called once OnPostSnapshot has been"
    if operation in ("snapshot", "complete"):
        assert session.wire.get("/snapshots")["items"] == []
        staged = [name for _, _, names in os.walk(node.place / "state" / "staging") for name in names]  # folders may be going just now
        assert "file" not in staged, "no snapshot stays"
    if undone == "aborted":
        assert len(quick.heard(session, "backup_complete")) == (operation == "complete"), "never on abort"
    assert Session(node).view()["state"] == "initialized"


def test_a_cancelled_copy_leaves_the_session_snapshotted(node):
    for part in range(16):
        (node.place / "data" / f"random-{part}").write_bytes(os.urandom(8 << 20))
    session = Session(node).to("snapshotted")
    job = session.begin("copy", {"repository": "main", "limits": {"bandwidth_bytes_per_second": 8 << 20}})
    session.wire.watch(job, lambda job: ((job["progress"] or {}).get("bytes_done") or 0) > 0)
    cancelled(session, job)
    assert session.view()["state"] == "snapshotted"
    assert session.wire.get("/backups")["items"] == []
    assert not [path for path in (node.place / "backups").rglob("*.zst")], "nothing half-written stays"
    for part in range(16):
        (node.place / "data" / f"random-{part}").unlink()
    session.done("complete")


def test_a_cancelled_complete_keeps_what_was_copied_with_the_reason(node):
    session = Session(node).to("snapshotted")
    backup = session.copy()
    gate = Gate(node.place, session)
    cancelled(session, session.begin("complete"))
    kept = session.wire.get("/backups/" + backup)
    assert kept["complete"] is False and "cancelled" in kept["reason"], kept
    refused = session.call("POST", "/complete")
    assert refused.status == 409 and refused.json["hresult"] == "VSS_E_BAD_STATE"
    gate.close()


def test_what_has_ended_cannot_be_cancelled(node):
    session = Session(node).to("snapshotted")
    job = session.done("complete")
    reply = session.wire.call("DELETE", "/jobs/" + job["id"])
    assert reply.status == 409 and reply.json["hresult"] == "VSS_S_ASYNC_FINISHED", reply
    assert session.wire.get("/jobs/" + job["id"]) == job, "a terminal state never changes"


def test_exactly_one_of_twenty_parallel_deletes_cancels(node):
    session = Session(node).to("snapshotted")
    gate = Gate(node.place, session)
    job = session.begin("complete")
    wires = [Wire(node) for _ in range(20)]
    for wire in wires:
        wire.get("/health/live")  # connected
    start, answers = threading.Barrier(len(wires)), []

    def delete(wire):
        start.wait()
        answers.append(wire.call("DELETE", "/jobs/" + job["id"]))

    threads = [threading.Thread(target=delete, args=(wire,)) for wire in wires]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
    assert sorted(answer.json["cancel"] for answer in answers) == ["S_OK"] + ["VSS_S_ASYNC_CANCELLED"] * 19, answers
    assert all(answer.status == (202 if answer.json["state"] == "cancelling" else 200) for answer in answers)
    assert [answer.status for answer in answers if answer.json["cancel"] == "S_OK"] == [202]
    assert session.wire.wait(job)["state"] == "cancelled"
    gate.close()


# --- waiting ---------------------------------------------------------------------------------------------------------

WAITERS = 1000


async def ask(host, token, job, reader, writer):
    writer.write(f"GET /jobs/{job}?wait=60 HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    await writer.drain()
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:] if line)}
    return int(lines[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def long_poll(node, token, job, connecting, waiting):
    """Waits until the job has ended: a wait that ends first is begun again, as any client would."""
    host, port = address(node)
    async with connecting:
        reader, writer = await asyncio.open_connection(host, port, ssl=tls(node))
    waiting.append(writer)
    state = "running"
    while state == "running":
        answer = await ask(host, token, job, reader, writer)
        state = json.loads(answer[2])["state"]
    writer.close()
    return answer


async def all_poll(node, job, finish):
    token = pathlib.Path(node.ready["token_file"]).read_text().strip()
    connecting, waiting = asyncio.Semaphore(32), []
    polls = [asyncio.create_task(long_poll(node, token, job, connecting, waiting)) for _ in range(WAITERS)]
    while len(waiting) < WAITERS:
        done, _ = await asyncio.wait(polls, timeout=0.1)
        assert not done, next(iter(done)).result()
    await asyncio.to_thread(finish)
    return await asyncio.gather(*polls)


@pytest.mark.parametrize("end", ("succeeded", "cancelled"))
def test_a_thousand_long_polls_all_see_the_end(node, end):
    session = Session(node).to("snapshotted")
    gate = Gate(node.place, session)
    job = session.begin("complete")

    def finish():
        assert session.wire.get("/jobs/" + job["id"])["state"] == "running", "polled while a thousand wait"
        if end == "succeeded":
            gate.open()
        else:
            cancelled(session, job)

    answers = asyncio.run(all_poll(node, job["id"], finish))
    assert len(answers) == WAITERS
    ended = session.wire.wait(job)
    assert ended["state"] == end
    for status, headers, body in answers:
        assert status == 200 and json.loads(body) == ended, body
    CONTRACT.check("GET", "/jobs/" + job["id"], *answers[0])
    assert len({body for _, _, body in answers}) == 1
    gate.close()


# --- release ---------------------------------------------------------------------------------------------------------

def test_release_never_stops_the_work_and_the_record_leaves_when_it_ends(node):
    session = Session(node).to("snapshotted")
    gate = Gate(node.place, session)
    job = session.begin("complete")
    for _ in range(2):
        assert session.wire.call("POST", f"/jobs/{job['id']}/release").status == 204, "idempotent"
    assert session.wire.get("/jobs/" + job["id"])["state"] == "running"
    gate.open()
    while session.view()["state"] != "completed":
        pass
    assert node.recorder.heard(session, "backup_complete")
    for _ in range(2):
        gone = session.wire.call("GET", "/jobs/" + job["id"])
        assert gone.status == 410 and gone.json["hresult"] == "VSS_E_OBJECT_NOT_FOUND", gone
        assert session.wire.call("POST", f"/jobs/{job['id']}/release").status == 204
    assert session.wire.call("DELETE", "/jobs/" + job["id"]).status == 410
    gate.close()


def test_a_released_job_leaves_the_lists(node):
    session = Session(node).to("identified")
    job = session.done("status")
    listed = lambda: [row["id"] for row in session.wire.get(f"/jobs?session={session.id}")["items"]]  # noqa: E731
    assert job["id"] in listed()
    assert session.wire.call("POST", f"/jobs/{job['id']}/release").status == 204
    assert job["id"] not in listed() and len(listed()) == 1
    assert session.wire.call("GET", "/jobs/" + job["id"]).status == 410
    unknown = session.wire.call("POST", "/jobs/0193a8f0-0000-7000-8000-000000000000/release")
    assert unknown.status == 404 and unknown.json["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    # and a restart does not bring it back
    assert node.stop() == 0
    node.start()
    wire = Wire(node)
    assert wire.call("GET", "/jobs/" + job["id"]).status == 410
    assert job["id"] not in [row["id"] for row in wire.get("/jobs")["items"]]


# --- DELETE of a session ---------------------------------------------------------------------------------------------

def test_a_quick_release_of_a_session_is_204(node):
    session = Session(node).to("snapshotted")
    assert session.wire.get("/snapshots")["items"]
    assert session.call("DELETE").status == 204
    assert session.call("GET").status == 404 and session.wire.get("/snapshots")["items"] == []
    assert node.recorder.heard(session, "backup_shutdown") and not node.recorder.heard(session, "backup_complete")


def test_a_long_release_of_a_session_is_202_with_a_job(daemon):
    slow = Writer(daemon.place, "slow", DELAY_BACKUP_SHUTDOWN="4")
    node = daemon(configuration(daemon.place, [slow]))
    session, other = Session(node).to("snapshotted"), Wire(node)
    snapshots = [row["id"] for row in other.get("/snapshots")["items"]]
    session.wire.ask("DELETE", session.path)
    reply = session.wire.hear()
    assert reply.status == 202 and reply.json["operation"] == "Release" and reply.json["cancellable"] is False, reply
    assert reply.headers["location"] == "/jobs/" + reply.json["id"]
    assert other.get(session.path)["pending_job"] == reply.json["id"]
    refused = other.call("DELETE", "/jobs/" + reply.json["id"])
    assert refused.status == 409 and refused.json["hresult"] == "VSS_S_ASYNC_PENDING", refused
    second = Wire(node)
    second.ask("DELETE", session.path)  # waits behind the first
    ended = other.wait(reply.json)
    assert ended["state"] == "succeeded" and ended["result"]["cleanup"]["failed"] == [], ended
    assert len(ended["result"]["cleanup"]["removed"]) == len(snapshots) == 1, ended
    assert other.call("GET", session.path).status == 404
    assert second.hear().status == 404
    assert other.get("/snapshots")["items"] == []


def test_the_release_of_a_session_cancels_its_pending_job(node):
    session = Session(node).to("snapshotted")
    backup = session.copy()
    gate = Gate(node.place, session)
    job = session.begin("complete")
    assert session.call("DELETE").status == 204
    ended = session.wire.get("/jobs/" + job["id"])
    assert ended["state"] == "cancelled"
    assert session.call("GET").status == 404 and session.wire.get("/backups/" + backup)["complete"] is False
    gate.close()


def test_a_release_whose_intent_the_store_refuses_changes_nothing_and_can_be_repeated(node):
    """Nothing is frozen any more: the audit trail comes first."""
    session = Session(node).to("snapshotted")
    (node.faults / "store.commit").write_text("once")
    reply = session.call("DELETE")
    assert (reply.status, reply.json["hresult"], reply.json["reason"]) == (503, "VSS_E_UNEXPECTED", "audit"), reply
    assert session.view()["state"] == "snapshotted"
    assert session.call("DELETE").status == 204
    assert session.call("GET").status == 404
