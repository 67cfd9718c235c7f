"""X-Request-Id and traceparent: from the request into the log lines of what it began, to the writers, onto the job for webhooks."""
import json
import re
import sqlite3

import pytest

from conduct import BACKUP_STATE, Writer, configuration

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def node(daemon):
    writer = Writer(daemon.place, "app")
    one = daemon(configuration(daemon.place, [writer]))
    one.writer = writer
    return one


def heard(node):
    """{event: traceparent} of all that the writer was asked."""
    return {request["event"]: request.get("traceparent") for request in node.writer.heard()}


def ours(traceparent):
    """Is it the caller's trace, with a span of the daemon's own?"""
    found = re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-01", traceparent or "")
    return bool(found) and found[1] not in (SPAN, "0" * 16)


def lines(node, *words):
    return [line for line in node.words().splitlines() if all(word in line for word in words)]


def origin(node, job):
    """What webhooks find in the job's record."""
    database = sqlite3.connect(f"file:{node.place}/state/store/quiesced.db?mode=ro", uri=True)
    try:
        return json.loads(database.execute("SELECT doc FROM jobs WHERE id = ?", (job,)).fetchone()[0])["_"]
    finally:
        database.close()


def test_a_trace_reaches_writers_log_and_record(node):
    headers = [f"traceparent: {PARENT}", "X-Request-Id: console-7"]
    session = node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    s = f"/sessions/{session}"
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    accepted = node.call("POST", s + "/metadata", headers=headers)
    assert accepted.status == 202 and accepted.headers["x-request-id"] == "console-7"
    assert node.wait(accepted.json["id"])["state"] == "succeeded"
    assert ours(heard(node)["identify"]), heard(node)
    kept = origin(node, accepted.json["id"])
    assert (kept["request_id"], kept["trace_id"]) == ("console-7", TRACE) and kept["traceparent"] == heard(node)["identify"]
    assert lines(node, f"job={accepted.json['id']}", "request=console-7", f"trace={TRACE}", "succeeded"), node.words()[-3000:]


def test_without_a_valid_one_there_is_none(node):
    for number, header in enumerate(([], ["traceparent: ff-" + PARENT[3:]], [f"traceparent: {PARENT.upper()}"], [f"traceparent: {PARENT}"] * 2)):
        session = node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
        accepted = node.call("POST", f"/sessions/{session}/metadata", headers=[*header, f"X-Request-Id: plain-{number}"])
        assert node.wait(accepted.json["id"])["state"] == "succeeded"
        assert heard(node) == {"identify": None}, header
        assert origin(node, accepted.json["id"])["request_id"] == f"plain-{number}" and "traceparent" not in origin(node, accepted.json["id"])
        assert lines(node, f"request=plain-{number}") and not lines(node, f"request=plain-{number}", "trace=")
        assert node.call("DELETE", f"/sessions/{session}").status in (202, 204)
        node.writer.record.unlink()


def test_a_whole_backup_is_one_trace(node):
    body = {"components": [{"writer": "app", "name": "main"}], "repository": "main"}
    accepted = node.call("POST", "/backups", body, headers=[f"traceparent: {PARENT}"])
    assert node.wait(accepted.json["id"])["state"] == "succeeded"
    told = heard(node)
    assert {"identify", "prepare_backup", "freeze", "thaw", "backup_complete"} <= set(told)
    assert all(ours(told[event]) for event in ("identify", "prepare_backup", "freeze", "thaw", "backup_complete")), told


@pytest.mark.parametrize("given", ("with space", "a" * 65, "caf\u00e9", "semi;colon"))
def test_a_bad_request_id_is_replaced(node, given):
    reply = node.call("GET", "/whoami", headers=[f"X-Request-Id: {given}"])
    assert reply.status == 200 and re.fullmatch(r"[0-9a-f-]{36}", reply.headers["x-request-id"]), reply.headers
    assert node.call("GET", "/whoami", headers=["X-Request-Id: " + "a" * 64]).headers["x-request-id"] == "a" * 64


def test_what_goes_wrong_says_whose_request_it_was(node):
    (node.faults / "store.commit").write_text("fail")
    refused = node.call("POST", "/sessions", {"kind": "backup"}, headers=["X-Request-Id: unlucky", f"traceparent: {PARENT}"])
    (node.faults / "store.commit").unlink()
    assert refused.status == 500 and lines(node, "VSS_E_UNEXPECTED", "request=unlucky", f"trace={TRACE}"), node.words()[-2000:]
