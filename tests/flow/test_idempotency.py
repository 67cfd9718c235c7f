"""Idempotency-Key: whatever is sent twice is done once, through restarts and kills, and the second answer is the first one."""
import signal
import sqlite3
import subprocess
import threading
import uuid

import pytest

import leftovers
from conduct import BACKUP_STATE, Writer, configuration
from daemon import CONTRACT

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def node(daemon):
    return daemon(configuration(daemon.place, [Writer(daemon.place, "app")]))


def post(node, path, body=None, key=None, **more):
    return node.call("POST", path, body, headers=[f"Idempotency-Key: {key}"] if key else (), **more)


def same(first, second):
    """Is the second answer the first one, marked as such?"""
    kept = ("location", "retry-after", "content-type")
    return (second.status, second.raw) == (first.status, first.raw) and second.headers.get("idempotent-replayed") == "true" and \
        "idempotent-replayed" not in first.headers and [first.headers.get(name) for name in kept] == [second.headers.get(name) for name in kept]


def twice(node, path, body=None):
    """Asked twice with one key; the first answer."""
    key = str(uuid.uuid4())
    first = post(node, path, body, key)
    assert first.status in (200, 201, 202, 204), (path, first)
    second = post(node, path, body, key)
    assert same(first, second), (path, first, second, second.headers)
    return first


def job_twice(node, path, body=None):
    first = twice(node, path, body)
    assert first.status == 202 and first.headers["location"] == "/jobs/" + first.json["id"]
    job = node.wait(first.json["id"])
    assert job["state"] == "succeeded", job
    assert job["started_at"] == first.json["started_at"], "the record tells what the answer told"
    return job


def labels(node, label):
    return [item for item in node.call("GET", f"/sessions?label={label}").json["items"] if item["label"] == label]


def jobs(node, operation):
    return [job["id"] for job in node.call("GET", f"/jobs?operation={operation}").json["items"]]


# --- once ------------------------------------------------------------------------------------------------------------

def test_every_post_of_a_session_is_done_once(node):
    session = twice(node, "/sessions", {"kind": "backup", "label": "once"})
    assert len(labels(node, "once")) == 1 and session.headers["location"] == "/sessions/" + session.json["id"]
    s = "/sessions/" + session.json["id"]
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    job_twice(node, s + "/metadata")
    writer = node.call("GET", s + "/writers").json["items"][0]
    added = twice(node, s + "/components", {"instance_id": writer["instance_id"], "logical_path": "", "name": "main"})
    assert [item["id"] for item in node.call("GET", s + "/components").json["items"]] == [added.json["id"]]
    assert added.headers["location"] == s + "/components/" + added.json["id"]
    opened = twice(node, s + "/snapshot-set", {})
    assert node.call("GET", s).json["snapshot_set_id"] == opened.json["id"]
    twice(node, s + "/snapshot-set/volumes", {"path": str(node.place / "data"), "provider": None})
    twice(node, s + "/renew")
    for verb in ("/prepare", "/snapshot"):
        job_twice(node, s + verb)
    backup = job_twice(node, s + "/copy", {"repository": "main"})["result"]["backup_id"]
    complete = job_twice(node, s + "/complete")
    job_twice(node, s + "/status")
    assert jobs(node, "BackupComplete") == [complete["id"]] and [b["id"] for b in node.call("GET", "/backups").json["items"]] == [backup]
    assert twice(node, f"/jobs/{complete['id']}/release").status == 204
    aborted = node.call("POST", "/sessions", {"kind": "backup", "label": "aborted"}).json["id"]
    assert twice(node, f"/sessions/{aborted}/abort").json["state"] == "aborted"


def test_every_post_beside_a_session_is_done_once(node):
    body = {"components": [{"writer": "app", "name": "main"}], "repository": "main"}
    assert twice(node, "/backups", {**body, "validate_only": True}).status == 200
    backup = job_twice(node, "/backups", body)["result"]["backup_id"]
    assert [item["id"] for item in node.call("GET", "/backups").json["items"]] == [backup] and len(jobs(node, "Backup")) == 1
    job_twice(node, f"/backups/{backup}/verify")
    job_twice(node, f"/backups/{backup}/restore", {"target": str(node.place / "restored"), "paths": [], "overwrite": False})
    made = twice(node, "/repositories", {"name": "second", "mover": "archive", "path": str(node.place / "second")})
    assert made.headers["location"] == "/repositories/second"
    job_twice(node, "/repositories/second/scan")
    restore = twice(node, "/sessions", {"kind": "restore", "backup_id": backup})
    r = "/sessions/" + restore.json["id"]
    job_twice(node, r + "/metadata")
    component = node.call("GET", r + "/components").json["items"][0]["id"]
    assert node.call("PATCH", f"{r}/components/{component}", {"selected": True}).status == 200
    for verb in ("/pre-restore", "/restore-files", "/post-restore"):
        first = twice(node, r + verb)
        node.wait(first.json["id"])


def test_a_secret_is_in_the_first_answer_alone(node):
    for path, body, member in (("/tokens", {"name": "nightly", "role": "viewer"}, "token"),
                               ("/enrolments", {"name": "console", "role": "viewer"}, "code")):
        key = str(uuid.uuid4())
        first, second = (post(node, path, body, key) for _ in range(2))
        assert first.status == second.status == 201 and second.headers["idempotent-replayed"] == "true"
        assert first.json[member] and second.json == {**first.json, member: None}
        assert second.headers["location"] == first.headers["location"] == f"{path}/{first.json['id']}"
        assert len(node.call("GET", path).json["items"]) == 1
        for file in (node.place / "state" / "store").iterdir():
            assert first.json[member].encode() not in file.read_bytes(), file
        code = first.json[member]
    key = node.place / "key.pem"
    request = subprocess.run(["openssl", "req", "-new", "-newkey", "ed25519", "-nodes", "-keyout", key, "-subj", "/CN=console"],
                             capture_output=True, text=True, check=True).stdout
    issued = twice(node, "/certificates", {"code": code, "csr": request})
    assert "BEGIN CERTIFICATE" in issued.json["certificate"] and len(node.call("GET", "/certificates").json["items"]) == 1


def test_a_key_belongs_to_its_principal_and_its_path(node):
    def others():
        """Another principal with the same rights."""
        return post(node, "/tokens", {"name": "other", "role": "admin"}).json["token"]
    token, key = others(), "one-key"
    mine = post(node, "/sessions", {"kind": "backup"}, key)
    theirs = post(node, "/sessions", {"kind": "backup"}, key, token=token)
    assert (mine.status, theirs.status) == (201, 201) and mine.json["id"] != theirs.json["id"] and theirs.json["owner"] == "other"
    renewed = post(node, f"/sessions/{mine.json['id']}/renew", None, key)
    assert renewed.status == 200 and "idempotent-replayed" not in renewed.headers
    assert same(theirs, post(node, "/sessions", {"kind": "backup"}, key, token=token))
    assert same(mine, post(node, "/sessions", '{ "kind" : "backup" }', f'"{key}"')), "the same body and the same key in other spellings"


# --- refused ---------------------------------------------------------------------------------------------------------

def test_another_body_needs_another_key(node):
    first = post(node, "/sessions", {"kind": "backup", "label": "a"}, "k")
    second = post(node, "/sessions", {"kind": "backup", "label": "b"}, "k")
    assert (first.status, second.status) == (201, 422), second
    assert (second.json["hresult"], second.json["reason"]) == ("E_INVALIDARG", "idempotency_key_reused")
    assert not labels(node, "b") and same(first, post(node, "/sessions", {"kind": "backup", "label": "a"}, "k"))


@pytest.mark.parametrize("key", ("", "x" * 256, '"', '""', '"open', '"a"b"', "tab\there", "caf\u00e9"))
def test_a_bad_key_is_named_and_nothing_is_done(node, key):
    reply = node.call("POST", "/sessions", {"kind": "backup", "label": "bad"}, headers=[f"Idempotency-Key: {key}" if key else "Idempotency-Key;"])
    assert reply.status == 400 and [fault["pointer"] for fault in reply.json["errors"]] == ["Idempotency-Key"], reply
    assert not labels(node, "bad")


def test_two_keys_are_none(node):
    reply = node.call("POST", "/sessions", {"kind": "backup", "label": "bad"}, headers=["Idempotency-Key: a", "Idempotency-Key: b"])
    assert reply.status == 400 and not labels(node, "bad"), reply
    assert post(node, "/sessions", {"kind": "backup", "label": "long"}, "x" * 255).status == 201


def test_a_refusal_is_not_kept(node):
    session = node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    refused = post(node, f"/sessions/{session}/snapshot-set", {}, "k")
    assert refused.status == 409 and refused.json["hresult"] == "VSS_E_BAD_STATE", refused
    assert node.job("POST", f"/sessions/{session}/metadata")["state"] == "succeeded"
    first = post(node, f"/sessions/{session}/snapshot-set", {}, "k")
    assert first.status == 201 and same(first, post(node, f"/sessions/{session}/snapshot-set", {}, "k")), first


def test_the_first_call_is_still_in_hand(node):
    """Its commit is held: whoever repeats it is told to wait, and nothing is done twice."""
    body, replies = {"kind": "backup", "label": "held"}, []
    (node.faults / "store.commit").write_text("pause")
    first = threading.Thread(target=lambda: replies.append(post(node, "/sessions", body, "k", check=False)))
    first.start()
    while not leftovers.hits(node, "store.commit"):
        assert first.is_alive(), replies
    second = post(node, "/sessions", body, "k")
    other = post(node, "/sessions", {"kind": "backup", "label": "other"}, "k")
    (node.faults / "store.commit").unlink()
    first.join()
    assert second.status == 409 and second.json["reason"] == "idempotency_in_flight" and second.headers["retry-after"] == "1", second
    assert other.status == 422, other
    assert replies[0].status == 201 and same(replies[0], post(node, "/sessions", body, "k"))
    assert len(labels(node, "held")) == 1


# --- durable ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGKILL))
def test_a_restart_between_the_two(node, how):
    session = post(node, "/sessions", {"kind": "backup", "label": "kept"}, "k")
    job = post(node, f"/sessions/{session.json['id']}/metadata", None, "k")
    node.wait(job.json["id"])
    node.stop(how)
    node.start()
    assert same(session, post(node, "/sessions", {"kind": "backup", "label": "kept"}, "k"))
    assert same(job, post(node, f"/sessions/{session.json['id']}/metadata", None, "k"))
    assert len(labels(node, "kept")) == 1 and jobs(node, "GatherWriterMetadata") == [job.json["id"]]


BACKUP = {"components": [{"writer": "app", "name": "main"}], "repository": "main"}


def unanswered(node, path, body):
    """A call whose daemon dies."""
    try:
        post(node, path, body, "k", check=False)
    except AssertionError:
        leftovers.ready(node)
        return
    raise AssertionError("the daemon answered")


@pytest.mark.parametrize("path, body, listed", (("/sessions", {"kind": "backup", "label": "killed"}, "/sessions"),
                                                ("/backups", BACKUP, "/jobs?operation=Backup"),
                                                ("/repositories", {"name": "third", "mover": "archive", "path": "PLACE/third"}, "/repositories")))
def test_a_kill_when_it_is_done_and_not_yet_answered(node, path, body, listed):
    body = {**body, "path": str(node.place / "third")} if "path" in body else body
    before = len(node.call("GET", listed).json["items"])
    (node.faults / "engine.idempotency").write_text("once crash")
    unanswered(node, path, body)
    again = post(node, path, body, "k")
    assert again.status in (201, 202) and again.headers["idempotent-replayed"] == "true", again
    assert again.headers["location"].rsplit("/", 1)[1] == again.json.get("id", again.json.get("name"))
    assert node.call("GET", again.headers["location"]).status == 200
    assert len(node.call("GET", listed).json["items"]) == before + 1, "once"


def test_a_kill_before_it_is_done(node):
    body = {"kind": "backup", "label": "killed"}
    (node.faults / "store.commit").write_text("once crash")
    unanswered(node, "/sessions", body)
    again = post(node, "/sessions", body, "k")
    assert again.status == 201 and "idempotent-replayed" not in again.headers, again
    assert [item["id"] for item in labels(node, "killed")] == [again.json["id"]]


def test_a_store_that_refuses_keeps_no_answer(node):
    body = {"kind": "backup", "label": "refused"}
    (node.faults / "store.commit").write_text("fail")
    assert post(node, "/sessions", body, "k").status == 500
    (node.faults / "store.commit").unlink()
    again = post(node, "/sessions", body, "k")
    assert again.status == 201 and "idempotent-replayed" not in again.headers and len(labels(node, "refused")) == 1


def test_a_key_is_forgotten_after_a_day(node):
    first = post(node, "/sessions", {"kind": "backup"}, "k")
    (node.faults / "clock.jump").write_text(str(DAY_MS - 600_000))
    assert same(first, post(node, "/sessions", {"kind": "backup"}, "k"))
    (node.faults / "clock.jump").write_text(str(DAY_MS + 1000))
    again = post(node, "/sessions", {"kind": "backup"}, "k")
    assert again.status == 201 and again.json["id"] != first.json["id"] and "idempotent-replayed" not in again.headers
    (node.faults / "clock.jump").write_text(str(3 * DAY_MS))
    node.stop()
    node.start()  # housekeeping

    def kept():
        database = sqlite3.connect(f"file:{node.place}/state/store/quiesced.db?mode=ro", uri=True)
        try:
            return database.execute("SELECT id FROM idempotency").fetchall()
        finally:
            database.close()
    assert not leftovers.settle(kept)


def test_the_contract_offers_it_on_every_post():
    posts = [operation for method, _, operation in CONTRACT.operations() if method == "POST" and not operation.get("x-repeatable")]
    named = {parameter["name"] for operation in posts for parameter in map(CONTRACT.resolve, operation["parameters"])}
    assert len(posts) > 30 and "Idempotency-Key" in named
    assert all(any(CONTRACT.resolve(p)["name"] == "Idempotency-Key" for p in operation["parameters"]) for operation in posts)
