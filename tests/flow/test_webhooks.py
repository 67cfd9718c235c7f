"""Webhooks: what is sent, how it is signed, when it is repeated, and where nothing is ever sent."""
import datetime
import json
import os
import pathlib
import re
import signal
import threading
import time

import pytest

import leftovers
from conftest import Daemon
from metrics import scrape
from receiver import Receiver, until
from test_access import ROLES, Caller, token_of
from test_external import configuration, held, make_fs, prepared  # noqa: F401

import loop_fs

ALLOWED = "allow_private: [127.0.0.0/8]"


@pytest.fixture
def receiver(tmp_path):
    one = Receiver(tmp_path)
    yield one
    one.close()


def configured(*words):
    return "webhooks: {" + ", ".join(words) + "}\n"


def hook(node, receiver, **more):
    made = node.call("POST", "/webhooks", {"url": receiver.url, "ca_pem": receiver.ca, **more})
    assert made.status == 201 and made.headers["location"] == "/webhooks/" + made.json["id"], made
    return made.json


def session(node):
    """Something happens: a session is made, and tells of itself."""
    made = node.call("POST", "/sessions", {"kind": "backup"})
    assert made.status == 201, made
    assert node.call("POST", f"/sessions/{made.json['id']}/abort").status == 200
    return made.json["id"]


def released(node):
    """One event of type session.released; of which session."""
    made = node.call("POST", "/sessions", {"kind": "backup"})
    assert made.status == 201 and node.call("DELETE", "/sessions/" + made.json["id"]).status == 204, made
    return made.json["id"]


def changed(node, method, path, body=None):
    return node.call(method, path, body, headers=["If-Match: *"])


def seen(node, made):
    return node.call("GET", "/webhooks/" + made["id"]).json


def deliveries(node, made, query=""):
    return node.call("GET", f"/webhooks/{made['id']}/deliveries{query}").json["items"]


def ended(node, path, state):
    return until(lambda: (d := node.call("GET", path).json)["state"] == state and d)


def send_test(node, made):
    """The path of a test delivery."""
    sent = node.call("POST", f"/webhooks/{made['id']}/test")
    assert sent.status == 202, sent
    return sent.headers["location"]


def courier(node):
    """Pid of the courier; None when there is none."""
    return leftovers.role(node, "courier")


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_what_happens_is_sent_signed_and_logged(daemon, receiver):
    node = daemon(configured(ALLOWED))
    session(node)  # before the webhook: not its business
    made = hook(node, receiver, name="console")
    assert made["state"] == "active" and made["events"] == [] and re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", made["secret"])
    sid = session(node)
    told = until(lambda: [r for r in receiver.of("session.changed") if r.event["data"]["state"] == "aborted"])[0]
    assert all(r.event["data"]["session_id"] == sid for r in receiver.of("session.changed"))
    event = told.event
    assert (event["specversion"], event["subject"], event["datacontenttype"]) == ("1.0", f"/sessions/{sid}", "application/json")
    assert event["source"].startswith("/nodes/") and event["time"].endswith("Z") and event["id"].isdecimal()
    assert told.method == "POST" and told.path == "/hook" and told.headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert told.headers["User-Agent"].startswith("quiesced-webhook/") and abs(int(told.headers["webhook-timestamp"]) - time.time()) < 300
    assert all(r.signed_with(made["secret"]) == 0 and " " not in r.headers["webhook-signature"] for r in receiver.received)
    log = until(lambda: (rows := deliveries(node, made)) and all(r["state"] == "delivered" for r in rows) and rows)
    assert {row["id"] for row in log} == {r.id for r in receiver.received}
    row = next(row for row in log if row["id"] == told.id)
    assert row["event_type"] == "session.changed" and str(row["event_id"]) == event["id"] and row["next_attempt_at"] is None
    assert [(a["status"], a["error"]) for a in row["attempts"]] == [(204, None)] and row["attempt_count"] == 1
    assert deliveries(node, made, "?state=failed") == [] and len(deliveries(node, made, "?limit=1")) == 1
    # The secret was in the first reply and nowhere else.
    for path in ("/webhooks", "/webhooks/" + made["id"], f"/webhooks/{made['id']}/deliveries"):
        assert made["secret"][6:] not in node.call("GET", path).raw.decode()
    assert made["secret"][6:] not in node.words() and "whsec_" not in node.words()
    assert not [r for r in receiver.received if made["secret"][6:].encode() in r.body]


def test_the_cause_of_a_job_goes_along(daemon, receiver):
    """X-Request-Id and trace of the call that started it."""
    node = daemon(configured(ALLOWED))
    hook(node, receiver, events=["job.changed"])
    made = node.call("POST", "/sessions", {"kind": "backup"}, headers=["X-Request-Id: not-this-one"]).json["id"]
    job = node.call("POST", f"/sessions/{made}/metadata", headers=["X-Request-Id: night-run-7", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
    assert job.status == 202, job
    node.wait(job.json["id"])
    told = until(lambda: [r for r in receiver.of("job.changed") if r.event["data"]["state"] == "succeeded"])[0]
    assert told.event["data"]["operation"] == "GatherWriterMetadata" and told.event["subject"] == "/jobs/" + job.json["id"]
    assert {r.headers.get("X-Request-Id") for r in receiver.of("job.changed")} == {"night-run-7"}
    assert all(re.fullmatch(r"00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01", r.headers.get("traceparent", "")) for r in receiver.of("job.changed"))


def test_a_replayed_call_tells_no_secret(daemon):
    node = daemon("")
    body = {"url": "https://example.org/", "enabled": False}
    first, again = (node.call("POST", "/webhooks", body, headers=["Idempotency-Key: one"]) for _ in range(2))
    assert again.status == 201 and again.headers["idempotent-replayed"] == "true" and again.headers["location"] == first.headers["location"]
    assert again.json == {**first.json, "secret": None} and first.json["secret"]
    path = first.headers["location"]
    new, again = (node.call("POST", path + "/rotate", headers=["Idempotency-Key: two"]) for _ in range(2))
    assert again.status == 200 and again.json == {**new.json, "secret": None} and new.json["secret"] != first.json["secret"]
    one, other = (node.call("POST", path + "/test", headers=["Idempotency-Key: three"]) for _ in range(2))
    assert one.status == other.status == 202 and one.headers["location"] == other.headers["location"] and len(deliveries(node, first.json)) == 1
    assert len(node.call("GET", "/webhooks").json["items"]) == 1


def test_what_somebody_else_has_changed_is_not_overwritten(daemon, receiver):
    node = daemon(configured(ALLOWED))
    made = hook(node, receiver)
    path = "/webhooks/" + made["id"]
    tag = node.call("GET", path).headers["etag"]
    ended(node, send_test(node, made), "delivered")
    released(node)
    until(lambda: receiver.of("session.released"))
    assert node.call("GET", path, headers=[f"If-None-Match: {tag}"]).status == 304  # deliveries do not change it
    assert node.call("PATCH", path, {"name": "x"}).status == node.call("DELETE", path).status == 428
    assert node.call("PATCH", path, {"name": "mine"}, headers=[f"If-Match: {tag}"]).json["name"] == "mine"
    for method, body in (("PATCH", {"name": "other"}), ("DELETE", None)):
        refused = node.call(method, path, body, headers=[f"If-Match: {tag}"])
        assert refused.status == 412 and refused.json["reason"] == "precondition_failed", refused
    assert seen(node, made)["name"] == "mine"


def test_the_courier_has_a_user_of_its_own_and_nothing_to_lose(daemon, receiver):
    node = daemon(configured(ALLOWED))
    assert courier(node) is None  # nobody asked for one
    made = hook(node, receiver)
    ended(node, send_test(node, made), "delivered")
    pid = courier(node)
    core, front = leftovers.role(node, "core"), leftovers.role(node, "front")
    uid = {p: os.stat(f"/proc/{p}/exe", follow_symlinks=False).st_uid if os.geteuid() else int(re.search(r"^Uid:\t(\d+)", pathlib.Path(f"/proc/{p}/status").read_text(), re.M)[1])
           for p in (pid, core, front)}
    assert os.geteuid() != 0 or len(set(uid.values()) | {0}) == 4, uid
    held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert all(re.match(r"(socket|pipe):|anon_inode:|/dev/null$", what) for what in held), held
    assert "libcurl" not in pathlib.Path(f"/proc/{core}/maps").read_text() and "libcurl" in pathlib.Path(f"/proc/{pid}/maps").read_text()
    assert changed(node, "DELETE", "/webhooks/" + made["id"]).status == 204
    until(lambda: courier(node) is None)  # nothing is to be sent


def test_only_the_events_that_were_asked_for(daemon, receiver):
    node = daemon(configured(ALLOWED))
    made = hook(node, receiver, events=["job.changed", "session.released"])
    session(node)
    released(node)
    until(lambda: receiver.of("session.released"))
    assert {r.event["type"] for r in receiver.received} == {"session.released"}
    assert changed(node, "PATCH", "/webhooks/" + made["id"], {"events": ["session.changed"]}).json["events"] == ["session.changed"]
    other = session(node)
    until(lambda: receiver.of("session.changed"))
    assert all(r.event["data"]["session_id"] == other for r in receiver.of("session.changed"))


def test_the_documented_receiver_verifies(daemon, receiver, tmp_path):
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert len(code.strip().splitlines()) <= 15
    place = {}
    exec(code, place)
    verified = place["verified"]
    node = daemon(configured(ALLOWED))
    made = hook(node, receiver)
    ended(node, send_test(node, made), "delivered")
    told = receiver.received[0]
    headers = {name.lower(): value for name, value in told.headers.items()}
    assert verified(headers, told.body, made["secret"]) and json.loads(told.body)["type"] == "webhook.test"
    assert not verified(headers, told.body + b" ", made["secret"])
    assert not verified(headers, told.body, "whsec_" + "A" * 43 + "=")
    assert not verified({**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 3600)}, told.body, made["secret"])
    assert not verified({**headers, "webhook-id": "other"}, told.body, made["secret"])


def test_the_former_secret_signs_until_its_overlap_ends(daemon, receiver):
    node = daemon(configured(ALLOWED))
    made = hook(node, receiver)
    rotated = node.call("POST", f"/webhooks/{made['id']}/rotate", {"overlap_seconds": 3600})
    assert rotated.status == 200 and rotated.json["secret"] != made["secret"] and rotated.json["former_secret_until"], rotated
    node.stop(signal.SIGKILL)  # both survive
    node.start()
    ended(node, send_test(node, made), "delivered")
    told = receiver.received[-1]
    assert (told.signed_with(rotated.json["secret"]), told.signed_with(made["secret"])) == (0, 1)
    last = node.call("POST", f"/webhooks/{made['id']}/rotate", {"overlap_seconds": 0})
    assert last.status == 200 and last.json["former_secret_until"] is None, last
    ended(node, send_test(node, made), "delivered")
    told = receiver.received[-1]
    assert told.signed_with(last.json["secret"]) == 0
    assert told.signed_with(rotated.json["secret"]) is None and told.signed_with(made["secret"]) is None


# --- when it is repeated --------------------------------------------------------------------------------------------


def test_a_failed_delivery_is_repeated_and_then_given_up(daemon, receiver):
    node = daemon(configured(ALLOWED, "retry_seconds: [0, 1]"))
    made = hook(node, receiver, events=["session.released"])
    answers = iter([500, 429, 204])
    receiver.answer = lambda request: next(answers)
    released(node)
    row = until(lambda: deliveries(node, made, "?state=delivered"))[0]
    assert [(a["status"], a["error"]) for a in row["attempts"]] == [(500, "HTTP 500"), (429, "HTTP 429"), (204, None)]
    assert len({r.id for r in receiver.received}) == 1 and len({r.body for r in receiver.received}) == 1 and len(receiver.received) == 3
    assert all(r.signed_with(made["secret"]) == 0 for r in receiver.received)
    assert seen(node, made)["state"] == "active"
    # Three attempts are all there are.
    receiver.answer = lambda request: 503
    released(node)
    row = until(lambda: deliveries(node, made, "?state=failed"))[0]
    figures = scrape(node)
    assert (figures.value("quiesced_webhook_attempts_total", outcome="failed"), figures.value("quiesced_webhook_attempts_total", outcome="delivered")) == (5, 1)
    assert figures.value("quiesced_webhooks", state="failing") == 1 and figures.value("quiesced_webhook_deliveries_pending") == 0
    assert [a["status"] for a in row["attempts"]] == [503] * 3 and row["attempt_count"] == 3
    assert seen(node, made)["state"] == "failing" and seen(node, made)["failing_since"]
    # Once more, on demand: the same body, the same id; and the receiver is well again.
    receiver.answer = lambda request: 200
    path = f"/webhooks/{made['id']}/deliveries/{row['id']}"
    again = node.call("POST", path + "/redeliver")
    assert again.status == 202 and again.headers["location"] == path and again.json["state"] == "pending", again
    assert ended(node, path, "delivered")["attempt_count"] == 4
    assert receiver.received[-1].id == row["id"] and receiver.received[-1].body == receiver.received[-2].body
    assert seen(node, made)["state"] == "active" and seen(node, made)["failing_since"] is None


def test_redeliver_does_not_wait_for_the_next_attempt(daemon, receiver):
    node = daemon(configured(ALLOWED, "retry_seconds: [86400]"))
    made = hook(node, receiver, events=["session.released"])
    receiver.answer = lambda request: 500
    released(node)
    row = until(lambda: [row for row in deliveries(node, made, "?state=pending") if row["attempt_count"] == 1])[0]
    receiver.answer = lambda request: 204
    path = f"/webhooks/{made['id']}/deliveries/{row['id']}"
    assert node.call("POST", path + "/redeliver").status == 202
    ended(node, path, "delivered")


def test_410_disables_and_nothing_is_lost_meanwhile(daemon, receiver):
    node = daemon(configured(ALLOWED, "retry_seconds: [0, 0, 0]"))
    made = hook(node, receiver, events=["session.released"])
    watch = hook(node, receiver, events=["webhook.disabled"], url=receiver.url + "/watch")
    receiver.answer = lambda request: 204 if request.path.endswith("watch") else 410
    released(node)
    off = until(lambda: (w := seen(node, made))["state"] == "disabled" and w)
    assert off["disabled_reason"] == "the receiver answered 410 Gone" and off["disabled_at"] and not off["enabled"]
    told = until(lambda: receiver.of("webhook.disabled"))[0]
    assert told.event["data"]["webhook"] == made["id"] and told.signed_with(watch["secret"]) == 0
    gone = deliveries(node, made)[0]
    assert gone["state"] == "failed" and [a["status"] for a in gone["attempts"]] == [410]
    refused = node.call("POST", f"/webhooks/{made['id']}/deliveries/{gone['id']}/redeliver")
    assert refused.status == 409 and refused.json["hresult"] == "VSS_E_BAD_STATE", refused
    missed = released(node)
    ended(node, send_test(node, made), "failed")  # a test is sent all the same
    assert seen(node, made)["state"] == "disabled" and not [r for r in receiver.of("session.released") if r.event["data"]["session_id"] == missed]
    receiver.answer = lambda request: 204
    on = changed(node, "PATCH", "/webhooks/" + made["id"], {"enabled": True})
    assert on.status == 200 and on.json["state"] == "active" and on.json["disabled_reason"] is None, on
    until(lambda: [r for r in receiver.of("session.released") if r.event["data"]["session_id"] == missed])
    assert seen(node, made)["missed_events"] == 0


def test_a_receiver_that_fails_for_too_long_is_no_longer_called(daemon, receiver):
    node = daemon(configured(ALLOWED, "retry_seconds: [1, 1, 1, 1, 1, 1]", "disable_after_seconds: 1"))
    made = hook(node, receiver, events=["session.released"])
    receiver.answer = lambda request: 500
    released(node)
    off = until(lambda: (w := seen(node, made))["state"] == "disabled" and w)
    assert off["disabled_reason"] == f"no delivery has succeeded since {off['failing_since']}; the last one: HTTP 500", off
    assert f"webhook {made['id']} is disabled" in node.words()
    assert [row["state"] for row in deliveries(node, made)] == ["pending"]


@pytest.mark.parametrize("how", ["crash", "stop", "restart"])
def test_the_queue_survives(daemon, receiver, how):
    """Killed with deliveries in hand, and with answers that the store does not know yet: each comes at least once."""
    node = daemon(configured(ALLOWED, "retry_seconds: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"))
    made = hook(node, receiver, events=["session.released"])
    receiver.answer = lambda request: 503
    first = [released(node) for _ in range(3)]
    until(lambda: receiver.received)
    if how == "restart":
        (node.faults / "engine.webhook.settle").write_text("once crash")  # core, with an answer in memory alone
        receiver.answer = lambda request: 204
        until(lambda: not (node.faults / "engine.webhook.settle").exists())
    else:
        node.stop(signal.SIGKILL if how == "crash" else signal.SIGTERM)
        receiver.answer = lambda request: 204
        node.start()
    until(lambda: set(first) <= {r.event["data"]["session_id"] for r in receiver.of("session.released")})
    until(lambda: leftovers.answers(node))
    until(lambda: (rows := deliveries(node, made)) and {r["state"] for r in rows} == {"delivered"} and len(rows) == len(first))
    last = released(node)
    until(lambda: [r for r in receiver.of("session.released") if r.event["data"]["session_id"] == last])


def test_a_courier_that_dies_harms_nobody(daemon, receiver):
    node = daemon(configured(ALLOWED, "retry_seconds: [0, 0, 0]"))
    made = hook(node, receiver, events=["session.released"])
    roles = [leftovers.role(node, name) for name in ("core", "front", "agent")]
    for point in ("courier.send", "courier.delivered"):
        (node.faults / point).write_text("once crash")
        sid = released(node)
        until(lambda: [r for r in receiver.of("session.released") if r.event["data"]["session_id"] == sid])
        row = until(lambda: [r for r in deliveries(node, made) if r["state"] == "delivered" and r["attempt_count"] == 2])[0]
        assert [a["error"] for a in row["attempts"]] == ["the courier ended before there was an answer", None]
    assert "courier ended: signal 9" in node.words()
    assert roles == [leftovers.role(node, name) for name in ("core", "front", "agent")]


def test_a_courier_that_is_stopped_is_replaced(daemon, receiver):
    node = daemon(configured(ALLOWED, "retry_seconds: [0, 0, 0]"))
    made = hook(node, receiver, events=["session.released"])
    ended(node, send_test(node, made), "delivered")
    before = courier(node)
    os.kill(before, signal.SIGSTOP)
    sid = released(node)
    until(lambda: [r for r in receiver.of("session.released") if r.event["data"]["session_id"] == sid])
    assert courier(node) != before
    row = until(lambda: [row for row in deliveries(node, made, "?state=delivered") if row["event_type"] == "session.released"])[0]
    lost = ["the courier ended before there was an answer", None]
    assert [a["error"] for a in row["attempts"]] in (lost, lost[1:]), row  # it may have been replaced before it was given anything


@pytest.mark.full
def test_a_courier_that_hangs_is_replaced(daemon, receiver):
    """It runs and says nothing: core lets go of it some time after the delivery's own time is over."""
    node = daemon(configured(ALLOWED, "timeout_seconds: 1", "retry_seconds: [0, 0, 0]"))
    made = hook(node, receiver, events=["session.released"])
    ended(node, send_test(node, made), "delivered")
    before = courier(node)
    (node.faults / "courier.send").write_text("pause")
    sid = released(node)
    until(lambda: courier(node) not in (before, None), 120)
    (node.faults / "courier.send").unlink()
    until(lambda: [r for r in receiver.of("session.released") if r.event["data"]["session_id"] == sid])
    assert "the courier does not answer: it is replaced" in node.words()


def test_a_frozen_store_holds_no_delivery_up_and_loses_none(make_fs, receiver):  # noqa: F811
    """Parked: the receiver's answer waits in memory, and is recorded after the thaw."""
    place = make_fs(size=256).path / "all"
    for name in ("", "data"):
        (place / name).mkdir()
    (place / "data" / "file").write_text("data")
    node = Daemon(place, configuration(place, more=configured(ALLOWED, "timeout_seconds: 60"))).start()
    try:
        made = hook(node, receiver)
        s, _ = prepared(node, place / "data")
        until(lambda: deliveries(node, made) and not deliveries(node, made, "?state=pending"))
        gate = threading.Event()
        receiver.answer = lambda request: gate.wait(60) and 204
        path = send_test(node, made)
        asked = until(lambda: receiver.of("webhook.test"))[0]
        held(node, s)
        assert loop_fs.is_frozen(place)
        gate.set()
        waiting = threading.Thread(target=lambda: waited.append(node.call("GET", path)))
        waited = []
        waiting.start()
        for _ in range(5):
            assert node.call("GET", "/health/live").status == 200
        assert not waited and loop_fs.is_frozen(place)
        assert node.call("POST", s + "/snapshot-set/release", {}).status == 200
        waiting.join(60)
        assert waited[0].status == 200
        row = ended(node, path, "delivered")
        assert row["attempt_count"] == 1 and [r.id for r in receiver.of("webhook.test")] == [asked.id]
        sid = s.rpartition("/")[2]
        until(lambda: [r for r in receiver.of("session.changed") if r.event["data"] == {"state": "snapshotted", "session_id": sid, "job_id": None}
                       or (r.event["data"]["session_id"], r.event["data"]["state"]) == (sid, "snapshotted")])
    finally:
        status, reports = node.stop(), node.sanitized()
    assert status == 0 and not reports, reports


def test_a_store_that_refuses_loses_no_answer(daemon, receiver):
    node = daemon(configured(ALLOWED, "timeout_seconds: 60"))
    made = hook(node, receiver)
    gate = threading.Event()
    receiver.answer = lambda request: gate.wait(60) and 204
    path = send_test(node, made)
    until(lambda: receiver.received)
    (node.faults / "store.commit").write_text("")
    gate.set()
    until(lambda: f"webhook {made['id']}: deliveries wait" in node.words())
    assert node.call("GET", path).json["state"] == "pending"
    (node.faults / "store.commit").unlink()
    assert ended(node, path, "delivered")["attempt_count"] == 1 and len(receiver.received) == 1


def test_a_store_that_cannot_be_read_is_asked_seldom_and_loses_no_event(daemon, receiver):
    node = daemon(configured(ALLOWED))
    made = hook(node, receiver)
    (node.faults / "store.read").write_text("fail")
    happened = session(node)
    refused = re.compile(rf"^(\S+)Z .*webhook {made['id']}: events wait", re.M)
    until(lambda: len(refused.findall(node.words())) >= 2)
    (node.faults / "store.read").unlink()
    first, second = [datetime.datetime.fromisoformat(time) for time in refused.findall(node.words())[:2]]
    assert second - first >= datetime.timedelta(seconds=4), "it rests for 5 s by the monotonic clock"
    until(lambda: [r for r in receiver.of("session.changed") if r.event["data"]["session_id"] == happened])


def test_the_log_is_kept_for_some_days(daemon, receiver):
    node = daemon(configured(ALLOWED, "log_days: 2"))
    made = hook(node, receiver)
    path = send_test(node, made)
    ended(node, path, "delivered")
    for days, kept in ((1, 200), (3, 404)):
        node.stop()
        (node.faults / "clock.jump").write_text(str(days * 86400 * 1000))
        node.start()
        until(lambda: node.call("GET", path).status == kept)
    assert deliveries(node, made) == [] and seen(node, made)["state"] == "active"


def test_events_that_retention_dropped_are_counted(daemon, receiver):
    node = daemon(configured(ALLOWED))
    made = hook(node, receiver, enabled=False)
    sessions = [released(node) for _ in range(5)]  # two events each
    node.stop()
    (node.place / "quiesced.yaml").write_text(configured(ALLOWED) + "retention: {events: 3}\n")
    node.start()
    before = changed(node, "PATCH", "/webhooks/" + made["id"], {"enabled": True})
    assert before.status == 200, before
    told = until(lambda: [r for r in receiver.of("session.released") if r.event["data"]["session_id"] == sessions[-1]])[0]
    known = until(lambda: (w := seen(node, made))["missed_events"] and w)
    assert known["missed_events"] + len({r.event["id"] for r in receiver.received}) == int(told.event["id"]), known  # the first event has 1
    assert f"webhook {made['id']}: {known['missed_events']} events were dropped by retention" in node.words()


@pytest.mark.full
def test_more_than_fits_waits_as_events(daemon, receiver):
    """500 deliveries are pending at most; the rest is read from the events when there is room, and each is delivered."""
    node = daemon(configured(ALLOWED, "retry_seconds: [3600]"))
    made = hook(node, receiver, events=["session.changed", "session.released"])
    receiver.answer = lambda request: 503
    sessions = [released(node) for _ in range(260)]  # two events each
    def pending():
        count, cursor = 0, ""
        while True:
            page = node.call("GET", f"/webhooks/{made['id']}/deliveries?state=pending&limit=500{cursor}").json
            count += len(page["items"])
            if not page["next_cursor"]:
                return count
            cursor = "&cursor=" + page["next_cursor"]
    until(lambda: pending() == 500)
    receiver.answer = lambda request: 204
    for enabled in (False, True):  # at once, not in an hour
        assert changed(node, "PATCH", "/webhooks/" + made["id"], {"enabled": enabled}).status == 200
    for kind in ("session.changed", "session.released"):
        until(lambda: {r.event["data"]["session_id"] for r in receiver.of(kind) if r.event["data"].get("state") != "aborted"} >= set(sessions), 300)
    until(lambda: pending() == 0)


# --- where nothing is sent ------------------------------------------------------------------------------------------


def test_a_name_does_not_lead_to_a_private_address(daemon, receiver):
    """The address counts that is connected to, whatever the name was when the webhook was made."""
    node = daemon("")
    for url in (f"https://localhost:{receiver.port}/", f"https://2130706433:{receiver.port}/", f"https://0x7f000001:{receiver.port}/"):
        made = node.call("POST", "/webhooks", {"url": url, "ca_pem": receiver.ca})
        assert made.status == 201, made
        row = ended(node, send_test(node, made.json), "failed")
        assert re.fullmatch(r"(127\.0\.0\.1|::1) is not on the public internet, and webhooks.allow_private does not allow it", row["attempts"][0]["error"]), row
    assert receiver.connections == 0


def test_redirects_are_not_followed(daemon, receiver):
    node = daemon(configured(ALLOWED))
    made = hook(node, receiver)
    receiver.answer = lambda request: (307, {"Location": receiver.url + "/elsewhere"})
    row = ended(node, send_test(node, made), "failed")
    assert (row["attempts"][0]["status"], row["attempts"][0]["error"]) == (307, "HTTP 307: redirects are not followed")
    assert [r.path for r in receiver.received] == ["/hook"]


def test_a_certificate_that_nobody_vouches_for(daemon, receiver):
    node = daemon(configured(ALLOWED))
    made = hook(node, receiver, ca_pem=None)
    row = ended(node, send_test(node, made), "failed")
    assert row["attempts"][0]["status"] is None and "certificate" in row["attempts"][0]["error"], row
    other = hook(node, receiver, ca_pem=pathlib.Path(node.ready["ca"]).read_text())
    assert "certificate" in ended(node, send_test(node, other), "failed")["attempts"][0]["error"]
    assert receiver.received == []


def test_slow_and_endless_answers_end(daemon, receiver):
    node = daemon(configured(ALLOWED, "timeout_seconds: 1"))
    made = hook(node, receiver)

    def endless(handler):  # a good status, and a body without end
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            handler.wfile.write(b"x" * 4096)

    def headers(handler):  # a good status, and a head without end
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(b"X-More: " + b"y" * 4000 + b"\r\n")

    def silent(handler):
        handler.rfile.read()

    def trickling(handler):
        handler.wfile.write(b"HTTP/1.1 ")
        while True:
            handler.wfile.write(b"2")
            handler.wfile.flush()

    for answer, state in ((endless, "delivered"), (headers, "delivered"), (silent, "failed"), (trickling, "failed")):
        receiver.answer = lambda request: answer
        row = ended(node, send_test(node, made), state)
        assert len(row["attempts"]) == 1 and (state == "failed") == bool(row["attempts"][0]["error"]), row
    assert courier(node)
    receiver.answer = lambda request: 204
    ended(node, send_test(node, made), "delivered")


def test_plain_http_only_where_it_is_allowed(daemon, tmp_path):
    plain = Receiver(tmp_path, tls=False)
    node = daemon(configured(ALLOWED, "allow_http: true"))
    made = node.call("POST", "/webhooks", {"url": plain.url})
    assert made.status == 201, made
    ended(node, send_test(node, made.json), "delivered")
    assert plain.received[0].signed_with(made.json["secret"]) == 0
    plain.close()
    # Nobody listens any more: an error, not a hang.
    assert ended(node, send_test(node, made.json), "failed")["attempts"][0]["status"] is None
    # The configuration may change its mind.
    (node.place / "quiesced.yaml").write_text(configured(ALLOWED))
    node.process.send_signal(signal.SIGHUP)
    until(lambda: node.call("POST", "/webhooks", {"url": plain.url}).status == 400)
    row = ended(node, send_test(node, made.json), "failed")
    assert "rotocol" in row["attempts"][0]["error"], row


BAD = [({}, ""), ({"url": "http://example.org/"}, "/url"), ({"url": "ftp://example.org/"}, "/url"), ({"url": "https://user:pw@example.org/"}, "/url"),
       ({"url": "https://example.org/#x"}, "/url"), ({"url": "https:///x"}, "/url"), ({"url": "https://example.org:0/"}, "/url"),
       ({"url": "https://example.org:99999/"}, "/url"), ({"url": "https://exa mple.org/"}, "/url"), ({"url": "https://b\u00fccher.example/"}, "/url"),
       ({"url": "https://[::1"}, "/url"), ({"url": "https://example.org", "events": ["job.changed", "nonsense"]}, "/events/1"),
       ({"url": "https://example.org", "ca_pem": "no certificate"}, "/ca_pem"), ({"url": "https://example.org", "secret": "mine"}, "/secret"),
       ({"url": "https://example.org", "enabled": "yes"}, "/enabled")] + [
       ({"url": f"https://{host}/"}, "/url") for host in ("127.0.0.1", "10.1.2.3:8443", "172.31.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
                                                         "224.0.0.1", "255.255.255.255", "[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[ff02::1]",
                                                         "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]")]


def test_what_is_no_receiver_is_refused(daemon):
    node = daemon("")
    for body, pointer in BAD:
        refused = node.call("POST", "/webhooks", body)
        assert refused.status == 400 and refused.json["hresult"] == "E_INVALIDARG", (body, refused)
        assert pointer in [fault["pointer"] for fault in refused.json["errors"]] or not pointer, (body, refused)
    assert node.call("GET", "/webhooks").json["items"] == []
    made = node.call("POST", "/webhooks", {"url": "https://example.org/hook", "enabled": False, "name": "off"})
    assert made.status == 201 and (made.json["state"], made.json["name"]) == ("disabled", "off"), made
    path = "/webhooks/" + made.json["id"]
    for body, pointer in BAD[1:]:
        if "secret" in body or "url" not in body:
            continue
        refused = changed(node, "PATCH", path, body)
        assert refused.status == 400 and pointer in [fault["pointer"] for fault in refused.json["errors"]], (body, refused)
    same = node.call("GET", path).json
    assert same["url"] == "https://example.org/hook" and same["events"] == [] and not same["enabled"]
    other = changed(node, "PATCH", path, {"url": "https://example.net/", "name": "b", "ca_pem": pathlib.Path(node.ready["ca"]).read_text()})
    assert other.status == 200 and other.json["url"] == "https://example.net/" and "BEGIN CERTIFICATE" in other.json["ca_pem"]
    assert changed(node, "PATCH", path, {"ca_pem": None}).json["ca_pem"] is None
    node.stop()
    node.start()
    assert node.call("GET", path).json["name"] == "b" and [w["id"] for w in node.call("GET", "/webhooks").json["items"]] == [made.json["id"]]
    assert changed(node, "DELETE", path).status == 204
    other = "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c"
    for method, target in (("GET", path), ("DELETE", path), ("GET", path + "/deliveries"), ("POST", path + "/test"), ("POST", path + "/rotate"),
                           ("GET", f"{path}/deliveries/{other}"), ("POST", f"{path}/deliveries/{other}/redeliver")):
        assert node.call(method, target).status == 404, (method, target)
    assert changed(node, "PATCH", path, {"enabled": True}).status == 404


def test_a_delivery_belongs_to_its_webhook(daemon, receiver):
    node = daemon(configured(ALLOWED))
    one, two = hook(node, receiver, events=["webhook.disabled"]), hook(node, receiver, events=["webhook.disabled"])
    path = send_test(node, one)
    ended(node, path, "delivered")
    later = send_test(node, one)
    assert [row["id"] for row in deliveries(node, one, "?sort=id")] == [where.rpartition("/")[2] for where in (path, later)]
    assert deliveries(node, two, "?sort=id") == []
    stray = f"/webhooks/{two['id']}/deliveries/{path.rpartition('/')[2]}"
    assert node.call("GET", stray).status == 404 and node.call("POST", stray + "/redeliver").status == 404
    assert deliveries(node, two) == [] and len(deliveries(node, one)) == 2


def test_administrators_alone(daemon):
    import hashlib
    rows = "".join(f"  - {{name: {role}-1, role: {role}, token_sha256: {hashlib.sha256(token_of(role).encode()).hexdigest()}}}\n" for role in ROLES)
    node = daemon("principals:\n" + rows)
    caller = Caller(node)
    status, made = caller.call("POST", "/webhooks", {"url": "https://example.org/secret-path", "enabled": False}, token_of("admin"))
    assert status == 201
    path = "/webhooks/" + json.loads(made)["id"]
    for role in ROLES:
        for method, target, body in (("GET", "/webhooks", None), ("GET", path, None), ("PATCH", path, {"name": role}), ("GET", path + "/deliveries", None),
                                     ("POST", path + "/rotate", {})):
            assert caller.call(method, target, body, token_of(role))[0] == (403 if role != "admin" else 428 if method == "PATCH" else 200), (role, method, target)
    assert caller.call("DELETE", path, None, token_of("operator"))[0] == 403
    assert "secret-path" not in node.words()
