"""The audit trail: whoever changes something leaves an intent before it and an outcome after it, in a chain that shows what was done to it."""
import json
import re
import signal
import sqlite3
import subprocess

import pytest

import journey
import leftovers
import receiver
from conftest import BUILD, CONTRACT
from test_access import Caller, operations


def trail(node, seals=False, limit=7, **more):
    """The lines of the whole trail, page by page; the records alone, or with their seals."""
    lines, path = [], f"/audit?format=ndjson&limit={limit}"
    while path:
        reply = node.call("GET", path, **more)
        assert reply.status == 200 and reply.headers["content-type"] == "application/x-ndjson", reply
        lines += reply.raw.decode().splitlines()
        path = (re.match(r'<(.*)>; rel="next"', reply.headers.get("link", "")) or [None, None])[1]
    return [line for line in lines if seals or not line.startswith('{"seal"')]


def records(node, **query):
    return [record for record in map(json.loads, trail(node)) if all(record.get(key) == value for key, value in query.items())]


def verify(tmp_path, lines, *options):
    file = tmp_path / "trail.ndjson"
    file.write_text("".join(line + "\n" for line in lines))
    done = subprocess.run([BUILD / "quiesced", "audit-verify", *options, file], capture_output=True, text=True)
    assert done.stderr == "", done
    return done.returncode, done.stdout


@pytest.fixture
def node(daemon):
    return daemon(journey.lay_out(daemon.place))


def test_every_change_has_an_intent_and_an_outcome(node, tmp_path):
    backup = journey.back_up(node)
    job = node.job("POST", "/backups", {"paths": [str(node.place / "data")], "repository": "main", "label": "by path", "limits": {"nice": 7, "io_class": "idle"}})
    token = node.call("POST", "/tokens", {"name": "console", "role": "viewer"}).json
    code = node.call("POST", "/enrolments", {"name": "laptop", "role": "viewer"}).json
    assert node.call("DELETE", f"/tokens/{token['id']}").status == 204
    assert node.call("POST", "/sessions", {"label": "one"}, headers=["Idempotency-Key: k"]).status == 201
    assert node.call("POST", "/sessions", {"label": "one"}, headers=["Idempotency-Key: k"]).status == 201
    lines = trail(node)
    assert verify(tmp_path, lines)[0] == 0
    found = [json.loads(line) for line in lines]
    assert [record["seq"] for record in found] == list(range(1, len(found) + 1))
    intents = {record["call"]: record["seq"] for record in found if record["kind"] == "intent"}
    outcomes = {record["call"]: record for record in found if record["kind"] == "outcome"}
    assert set(intents) <= set(outcomes)
    for call, outcome in outcomes.items():
        if outcome["succeeded"] and not outcome.get("replayed"):
            assert intents[call] < outcome["seq"], outcome
    operations = [outcome["operation"] for outcome in outcomes.values()]
    assert {"sessionCreate", "jobPrepare", "jobSnapshot", "jobCopy", "jobComplete", "componentAdd", "backupCreate", "tokenCreate",
            "tokenDelete", "enrolmentCreate"} <= set(operations), operations
    created = next(record for record in found if record["operation"] == "backupCreate" and record["kind"] == "intent")
    assert (created["principal"], created["from"], created["asked"]["label"]) == ("admin", "127.0.0.1", "by path")
    assert created["asked"]["limits"] == {"nice": 7, "io_class": "idle"}
    assert outcomes[created["call"]]["location"] == f"/jobs/{job['id']}" and outcomes[created["call"]]["status"] == 202
    assert sum(outcome.get("replayed", False) for outcome in outcomes.values()) == 1
    text = "\n".join(lines)
    assert token["token"] not in text and code["code"] not in text and backup


def test_no_operation_that_could_change_something_is_left_out(node):
    """Each of the contract, asked for what is not there; those that do not exist at all have changed nothing, and say nothing."""
    caller, asked = Caller(node, certificate=True), {}
    for (method, path, body, _), (_, _, operation) in zip(operations(node.place), CONTRACT.operations()):
        if method != "GET":
            asked[operation["operationId"]] = caller.call(method, path, body)[0]
    assert len(asked) > 50
    told = {record["operation"] for record in records(node, kind="outcome")}
    assert set(asked) - told == {name for name, status in asked.items() if status == 501}


def test_refusals_are_told_and_have_changed_nothing(node):
    viewer = node.call("POST", "/tokens", {"name": "curious", "role": "viewer"}).json["token"]
    assert node.call("POST", "/backups", {"repository": "main"}, token=viewer).status == 403
    assert node.call("DELETE", "/sessions/01900000-0000-7000-8000-000000000000").status == 404
    forbidden = records(node, principal="curious", kind="outcome")[-1]
    assert (forbidden["operation"], forbidden["succeeded"], forbidden["hresult"], forbidden["reason"]) == ("backupCreate", False, "E_ACCESSDENIED", "forbidden")
    missing = records(node, operation="sessionDelete", kind="outcome")[-1]
    assert (missing["succeeded"], missing["hresult"], missing["id"]) == (False, "VSS_E_OBJECT_NOT_FOUND", "01900000-0000-7000-8000-000000000000")
    assert (forbidden["status"], missing["status"]) == (403, 404), "what the caller was answered"


def test_who_is_not_believed_is_told_and_counted(node):
    """The first of a kind and an address at once, the others as a number: who floods us does not fill the store."""
    for _ in range(4):
        assert node.call("POST", "/login", {"token": "qsd1_wrong"}, token="").status == 401
    assert node.call("POST", "/login", {}, token="").status == 401
    for _ in range(2):
        assert node.call("POST", "/sessions", {}, token="qsd1_wrong").status == 401
    assert node.call("GET", "/sessions", token="qsd1_wrong").status == 401, "reads are not recorded"
    assert node.call("POST", "/sessions", {}, token="", headers=["Sec-Fetch-Site: cross-site"]).status == 403

    def told():
        return [(record["operation"], record["status"], record["reason"], record.get("repeated")) for record in records(node, kind="outcome")]

    first = [("loginCreate", 401, "unauthorized", None), ("sessionCreate", 401, "unauthorized", None), ("sessionCreate", 403, "cross_site", None)]
    assert not leftovers.settle(lambda: len(told()) < len(first), 60), "a refusal does not wait for its record"
    assert told() == first
    record = records(node, operation="loginCreate")[0]
    assert (record["principal"], record["from"], record["succeeded"], record["hresult"], record["asked"]) == ("", "127.0.0.1", False, "E_ACCESSDENIED", {})
    node.stop()  # before the minute is over: nothing that was counted is lost
    node.start()
    assert told() == first + [("loginCreate", 401, "unauthorized", 4), ("sessionCreate", 401, "unauthorized", 1)]
    assert "qsd1_wrong" not in "\n".join(trail(node))


def test_a_lockout_is_told(daemon):
    node = daemon("limits: {wrong_credentials: 2}\n")
    receiver.until(lambda: node.call("POST", "/login", {"token": "qsd1_wrong"}, token="").status == 429)
    assert [(record["status"], record["reason"]) for record in records(node, operation="loginCreate")] == [(401, "unauthorized"), (429, "locked_out")]


def test_members_that_are_asked_for(node):
    assert node.call("POST", "/sessions", {"label": "mine"}).status == 201
    receiver.until(lambda: len(records(node)) == 2)  # the outcome is written behind the reply
    assert [set(item) for item in node.call("GET", "/audit?fields=seq,operation").json["items"]] == [{"seq", "operation"}] * 2
    for query, pointer in [("fields=seq,sequence", "?fields"), ("operation=sessionCreat", "?operation"), ("format=ndjson&fields=seq", "?fields")]:
        refused = node.call("GET", f"/audit?{query}")
        assert refused.status == 400 and [one["pointer"] for one in refused.json["errors"]] == [pointer], refused
    assert node.call("GET", "/audit?operation=sessionDelete").json["items"] == []


def test_who_may_read_it_and_filters(node):
    tokens = {role: node.call("POST", "/tokens", {"name": role, "role": role}).json["token"] for role in ("viewer", "operator", "restorer", "auditor")}
    for role, token in tokens.items():
        assert node.call("GET", "/audit", token=token).status == (200 if role == "auditor" else 403)
    session = node.call("POST", "/sessions", {"label": "mine"}, token=tokens["operator"]).json["id"]
    receiver.until(lambda: len(node.call("GET", "/audit?principal=operator").json["items"]) == 2)  # an outcome is written behind its answer
    assert node.call("DELETE", f"/sessions/{session}", token=tokens["operator"]).status == 204
    receiver.until(lambda: len(node.call("GET", "/audit?principal=operator").json["items"]) == 4)
    mine = node.call("GET", "/audit?principal=operator").json["items"]
    assert [(item["operation"], item["kind"]) for item in mine] == [
        ("sessionDelete", "outcome"), ("sessionDelete", "intent"), ("sessionCreate", "outcome"), ("sessionCreate", "intent")]
    assert node.call("GET", f"/audit?object={session}").json["items"] == mine[:2]
    assert node.call("GET", f"/audit?call={mine[0]['call']}").json["items"] == mine[:2]
    assert len(node.call("GET", "/audit?operation=tokenCreate").json["items"]) == 8
    page = node.call("GET", "/audit?limit=3").json
    rest = node.call("GET", f"/audit?limit=3&cursor={page['next_cursor']}").json
    assert [item["seq"] for item in page["items"] + rest["items"]] == list(range(12, 6, -1))


def edited(lines):
    return lines[:4] + [lines[4].replace('"principal":"admin"', '"principal":"nobody"')] + lines[5:]


def rehashed(lines):
    """A forger who knows how: the record is sound in itself, and the next one tells."""
    import hashlib
    bare = lines[4][:lines[4].index(',"hash"')].replace('"principal":"admin"', '"principal":"nobody"') + "}"
    return lines[:4] + [bare[:-1] + f',"hash":"{hashlib.sha256(bare.encode()).hexdigest()}"}}'] + lines[5:]


@pytest.fixture(scope="module")
def sound():
    import os
    import tempfile
    from daemon import Daemon
    with tempfile.TemporaryDirectory(prefix="quiesced-test-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)
        one = Daemon(place).start()
        for number in range(5):
            assert one.call("POST", "/sessions", {"label": f"session {number}"}).status == 201
        lines = trail(one)
        one.stop()
        assert not one.sanitized()
    return lines


@pytest.mark.parametrize("change, line, words", [
    (edited, 5, "record 5 was edited"),
    (rehashed, 6, "record 6 does not continue record 5"),
    (lambda lines: lines[:4] + lines[5:], 5, "record 6 comes after record 4: 1 records were removed"),
    (lambda lines: lines[1:], 1, "record 2 comes after record 0: 1 records were removed"),
    (lambda lines: lines[:3] + [lines[4], lines[3]] + lines[5:], 4, "record 5 comes after record 3"),
    (lambda lines: lines[:4] + [lines[3]] + lines[4:], 5, "record 4 comes after record 4: reordered, or inserted"),
    (lambda lines: lines[:4] + ["{}"] + lines[4:], 5, "this is no audit record"),
    (lambda lines: lines[:4] + [""] + lines[4:], 5, "this is no audit record"),
    (lambda lines: lines[:4] + [lines[4][:-40]] + lines[5:], 5, "this is no audit record"),
], ids=["edited", "edited-and-hashed", "removed", "beginning-removed", "reordered", "repeated", "inserted", "empty-line", "cut-line"])
def test_tampering_is_named(sound, tmp_path, change, line, words):
    status, said = verify(tmp_path, change(sound))
    assert status == 1 and said.startswith(f"BROKEN at line {line}: {words}"), said


def test_a_cut_end_is_found_by_whoever_kept_the_head(sound, tmp_path):
    status, said = verify(tmp_path, sound)
    head = re.search(r"head (\d+:[0-9a-f]{64})", said)[1]
    assert status == 0 and head.startswith(f"{len(sound)}:")
    assert verify(tmp_path, sound, "--head", head)[0] == 0
    status, said = verify(tmp_path, sound[:-2], "--head", head)
    assert status == 1 and f"the trail ends with record {len(sound) - 2}, not {len(sound)}" in said
    status, said = verify(tmp_path, sound, "--head", f"{len(sound)}:{'0' * 64}")
    assert status == 1 and "written anew" in said
    after = json.loads(sound[3])
    assert verify(tmp_path, sound[4:], "--after", f"4:{after['hash']}")[0] == 0
    assert subprocess.run([BUILD / "quiesced", "audit-verify", tmp_path / "none"], capture_output=True).returncode == 2
    assert subprocess.run([BUILD / "quiesced", "audit-verify", "--head", "x", tmp_path], capture_output=True).returncode == 2


def test_it_fails_closed(node):
    session = node.call("POST", "/sessions", {"label": "before"}).json["id"]
    token = node.call("POST", "/tokens", {"name": "stays", "role": "viewer"}).json

    def seen():  # but for the lease, which a refused call of the session's owner prolongs like any other
        return [[{**item, "lease_expires_at": None} for item in node.call("GET", path).json["items"]] for path in ("/sessions", "/jobs", "/tokens")]

    before = seen()
    (node.faults / "store.audit").write_text("fail")
    for method, path, body in [("POST", "/sessions", {}), ("PUT", f"/sessions/{session}/backup-state", journey.BACKUP_STATE), ("POST", f"/sessions/{session}/metadata", None),
                               ("POST", f"/sessions/{session}/abort", None), ("DELETE", f"/sessions/{session}", None), ("POST", "/tokens", {"name": "new", "role": "viewer"}),
                               ("DELETE", f"/tokens/{token['id']}", None), ("POST", "/backups", {"paths": [str(node.place / "data")], "repository": "main"})]:
        refused = node.call(method, path, body)
        assert (refused.status, refused.json["reason"]) == (503, "audit"), (method, path, refused)
        assert refused.headers["retry-after"]
    assert seen() == before
    assert node.call("GET", "/whoami", token=token["token"]).status == 200
    (node.faults / "store.audit").unlink()
    assert node.call("DELETE", f"/sessions/{session}").status == 204


def test_a_crash_leaves_an_intent_and_the_next_start_says_so(node, tmp_path):
    (node.faults / "engine.audit").write_text("once crash")
    with pytest.raises(AssertionError):
        node.call("POST", "/sessions", {"label": "lost answer"})
    leftovers.ready(node)
    intent = records(node, kind="intent", operation="sessionCreate")[-1]
    outcome = records(node, kind="outcome", call=intent["call"])
    assert [(one["succeeded"], one["reason"]) for one in outcome] == [(None, "interrupted")]
    assert node.call("POST", "/sessions", {}).status == 201
    node.stop(signal.SIGKILL)
    node.start()
    assert verify(tmp_path, trail(node))[0] == 0
    assert len(records(node, kind="outcome", call=intent["call"])) == 1


def test_a_restart_leaves_the_trail_as_it_is(node, tmp_path):
    """Also the records of calls about an object, whose `id` is the object's."""
    session = node.call("POST", "/sessions", {}).json["id"]
    assert node.call("PUT", f"/sessions/{session}/backup-state", journey.BACKUP_STATE).status == 200
    assert node.call("DELETE", f"/sessions/{session}").status == 204
    receiver.until(lambda: len(trail(node)) == 6)
    node.stop()
    node.start()
    lines = trail(node)
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, 7)) and verify(tmp_path, lines)[0] == 0
    assert node.call("GET", "/errors").json["items"] == []


@pytest.mark.parametrize("damaged", ["the newest", "all"])
def test_a_number_is_never_given_again(node, tmp_path, damaged):
    """What is damaged in the store is put aside at the start; the gap that it leaves is seen."""
    for _ in range(3):
        assert node.call("POST", "/sessions", {"kind": "backup"}).status == 201
    node.stop()
    store = sqlite3.connect(next((node.place / "state" / "store").glob("*.db")))
    newest = store.execute("SELECT max(id) FROM audit").fetchone()[0]
    store.execute("UPDATE audit SET doc = '{' " + ("WHERE id = ?" if damaged == "the newest" else "WHERE id <= ?"), (newest,))
    store.commit()
    store.close()
    node.start()
    assert node.call("POST", "/sessions", {"kind": "backup"}).status == 201
    lines = trail(node)
    numbers = [json.loads(line)["seq"] for line in lines]
    assert int(newest) not in numbers and max(numbers) > int(newest)
    code, said = verify(tmp_path, lines)
    assert code == 1 and "were removed" in said, said
