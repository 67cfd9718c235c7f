"""Streams of events: in order, once each, across reconnects and restarts; to those who may see them; and at nobody else's expense."""
import http.client
import itertools
import os
import pathlib
import random
import select
import signal
import socket
import threading
import time

import pytest

from conduct import BACKUP_STATE, Gate, Session, Wire, Writer, configuration, gate_writer
from metrics import scrape
from test_login import Browser
from streams import Background, Stream, ended, past, principals, token_of

UNKNOWN = "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c"


@pytest.fixture
def node(daemon):
    return daemon(configuration(daemon.place, [Writer(daemon.place, "first"), gate_writer(daemon.place)], "heartbeat_seconds: 1"))


def changes(events, kind="session.changed"):
    """The states in their order, each once."""
    states = [event["data"]["state"] for event in events if event["type"] == kind]
    return [state for i, state in enumerate(states) if i == 0 or states[i - 1] != state]


# --- what is told ----------------------------------------------------------------------------------------------------

def test_a_session_is_told_as_it_goes_and_the_same_again_afterwards(node):
    stream = Stream(node)
    begin = stream.last
    session = Session(node).to("snapshotted")
    session.copy()
    session.done("complete")
    assert session.call("DELETE").status in (202, 204)
    live = stream.until(lambda event: event["type"] == "session.released")
    assert changes(live) == ["initialized", "identified", "set_open", "prepared", "snapshotted", "completed"]
    assert {event["session_id"] for event in live if event["type"] != "job.released"} == {session.id}
    kept = [event for event in live if event["id"]]
    assert [event["id"] for event in kept] == list(range(begin + 1, stream.last + 1)), "no gap, in order"
    assert [event["type"] for event in kept if event["type"].startswith(("snapshot", "backup"))][:2] == ["snapshot.created", "backup.changed"]
    assert "snapshot.deleted" in [event["type"] for event in kept]
    frozen, = [event for event in live if event["type"] == "session.frozen"]
    thawed, = [event for event in live if event["type"] == "session.thawed"]
    assert frozen["id"] is None and sorted(frozen["data"]["writers"]) == ["first", "gate"] and frozen["data"]["file_systems"] == []
    assert frozen["data"]["since"] == thawed["data"]["since"] <= thawed["data"]["until"] < frozen["data"]["deadline"]
    assert thawed["data"]["window_ms"] > 0 and thawed["id"]
    assert past(node, begin) == kept
    assert past(node)[-len(kept):] == kept


def test_a_change_that_nobody_could_see_is_not_told(node):
    """Set again to what it is, or kept by the daemon alone: GET and its updated_at stay, and so there is nothing to tell."""
    session = Session(node)
    session.done("metadata")
    session.add_all()
    component = "/components/" + session.components["first"]["id"]

    def told(*changes):
        begin, before = past(node)[-1]["id"], node.call("GET", session.path)
        for method, path, body in changes:
            assert session.call(method, path, body).status == 200
        after = node.call("GET", session.path)
        same = [before.json["updated_at"], before.json["state"]] == [after.json["updated_at"], after.json["state"]]
        events = [event for event in past(node, begin) if event["type"] == "session.changed" and event["session_id"] == session.id]
        assert same == (not events), (before, after, events)
        return len(events)

    options = ("PATCH", component, {"backup_options": "fast", "previous_stamp": "x"})
    assert told(options) == 1 and told(options, options) == 0
    assert told(("PATCH", component, {"backup_options": "fast"})) == 0 and told(("PATCH", component, {"backup_options": "slow"})) == 1
    state = ("PUT", "/backup-state", BACKUP_STATE)
    assert told(state) == 1 and told(state) == 0
    session.step("set_open")
    session.done("prepare")
    session.done("snapshot")
    begin, before = past(node)[-1]["id"], node.call("GET", session.path).json
    session.copy()
    kinds = [event["type"] for event in past(node, begin) if event["session_id"] == session.id]
    assert "backup.changed" in kinds and "job.changed" in kinds and "session.changed" not in kinds, kinds
    assert node.call("GET", session.path).json["updated_at"] == before["updated_at"]


def test_filters(node):
    first, second = Session(node), Session(node)
    first.done("metadata")
    second.done("metadata")
    everything = past(node)
    only = Stream(node, f"/events?after=0&follow=false&session={first.id}").rest()
    assert only == [event for event in everything if event["session_id"] == first.id] and only
    jobs = Stream(node, "/events?after=0&follow=false&types=job.changed&types=backup.changed").rest()
    assert jobs == [event for event in everything if event["type"] == "job.changed"] and jobs
    assert Stream(node, f"/events?after=0&follow=false&session={UNKNOWN}").rest() == []


@pytest.mark.parametrize("path, named", (
    ("/events?after=x", "?after"), ("/events?after=-1", "?after"), ("/events?after=9007199254740992", "?after"), ("/events?types=session", "?types"),
    ("/events?session=x", "?session"), ("/events?follow=maybe", "?follow"), ("/events?topics=x", "?topics"),
))
def test_a_bad_argument_is_named(node, path, named):
    stream = Stream(node, path)
    assert stream.status == 400 and stream.problem["errors"][0]["pointer"].split("/")[0] == named, stream.problem


@pytest.mark.parametrize("value", ("x", "-1", "1x", "9007199254740992", "99999999999999999999", " 1 2"))
def test_a_bad_last_event_id_is_named(node, value):
    for path in ("/events", f"/jobs/{UNKNOWN}/events"):
        stream = Stream(node, path, last=value)
        assert stream.status == 400 and stream.problem["errors"][0]["pointer"] == "Last-Event-ID", stream.problem


def test_heartbeats_keep_a_quiet_stream_and_tell_where_it_is(node):
    everything, quiet = Stream(node), Stream(node, f"/events?session={UNKNOWN}")
    Session(node)
    everything.next()
    while quiet.last < everything.last:
        assert quiet.take() is None, "nothing but heartbeats"
    assert quiet.heartbeats


def test_a_worker_that_dies_frozen_has_thawed(node):
    session = Session(node).to("prepared")
    stream = Stream(node)
    (node.faults / "worker.snapshot.thaw").write_text("once crash")
    job = session.begin("snapshot")
    told = stream.until(ended(job))
    assert told[-1]["data"]["state"] == "failed"
    if "session.thawed" not in [event["type"] for event in told]: # of its writers the agent knows a moment later
        told += stream.until(lambda event: event["type"] == "session.thawed")
    frozen = [event["data"] for event in told if event["type"] == "session.frozen"]
    thawed, = [event for event in told if event["type"] == "session.thawed"]
    assert thawed["data"]["window_ms"] is None and thawed["data"]["since"] == frozen[0]["since"] <= thawed["data"]["until"]
    assert "stuck" not in frozen[0] and all("worker process is gone" in data["stuck"] for data in frozen[1:])
    assert session.view()["frozen"] is None
    late = Stream(node)
    Session(node)
    assert "session.frozen" not in [event["type"] for event in late.until(lambda event: event["id"])], "a new stream is not told of it"


# --- one job ---------------------------------------------------------------------------------------------------------

def test_a_job_is_watched_to_its_end(node):
    session = Session(node).to("snapshotted")
    gate = Gate(node.place, session)
    job = session.begin("complete")
    stream = Stream(node, f"/jobs/{job['id']}/events")
    first = stream.next()
    assert first["type"] == "job" and first["data"]["id"] == job["id"] and first["data"]["state"] == "running"
    begin = stream.last
    gate.open()
    rest = stream.rest()
    assert ended(job)(rest[-1]) and rest[-1]["data"]["state"] == "succeeded"
    assert {event["type"] for event in rest} <= {"job.progress", "job.changed"}
    assert {event["job_id"] for event in rest} == {job["id"]}
    gate.close()
    # Who comes back with the id gets what it missed, or is told that this was all.
    again = Stream(node, f"/jobs/{job['id']}/events", last=begin)
    assert again.rest() == [event for event in rest if event["id"]]
    assert Stream(node, f"/jobs/{job['id']}/events", last=stream.last).status == 204
    late = Stream(node, f"/jobs/{job['id']}/events").rest()
    assert [event["type"] for event in late] == ["job"] and late[0]["data"] == session.wire.get("/jobs/" + job["id"])


def test_a_job_is_told_as_get_shows_it_and_only_when_it_changes(node):
    session = Session(node).to("snapshotted")
    stream = Stream(node, f"/events?session={session.id}&types=job.changed")
    gate = Gate(node.place, session)
    job = session.begin("complete")
    first = stream.next()
    shown = session.wire.get("/jobs/" + job["id"])
    assert first["data"] == {name: shown[name] for name in ("operation", "state", "hresult", "code")} and shown["state"] == "running"
    assert job["id"] in [row["id"] for row in session.wire.get("/jobs?state=running")["items"]]
    assert node.call("POST", f"/jobs/{job['id']}/release").status == 204  # it goes on, and nothing about it has changed
    assert node.call("GET", f"/jobs/{job['id']}").json["state"] == "running"
    gate.open()
    Stream(node, f"/events?after={first['id']}&types=job.released").next()
    gate.close()
    kept = [(event["type"], event["data"]["state"]) for event in past(node, first["id"]) if event["job_id"] == job["id"] and event["type"].startswith("job.")]
    assert kept == [("job.released", "succeeded")], kept
    whole = node.job("POST", "/backups", {"components": [{"writer": "first", "name": "main"}], "repository": "main"})
    told = [event["data"]["state"] for event in past(node) if event["type"] == "job.changed" and event["job_id"] == whole["id"]]
    assert told == ["running", "succeeded"], "each phase is a commit, and no news"


def test_the_progress_of_a_copy_comes_live(node):
    size = 64 << 20
    (node.place / "data" / "random").write_bytes(os.urandom(size))
    session = Session(node).to("snapshotted")
    everything = Stream(node, f"/events?session={session.id}&types=job.progress&types=job.changed")
    job = session.begin("copy", {"repository": "main"})
    seen = Stream(node, f"/jobs/{job['id']}/events").rest()
    done = [event["data"]["progress"]["bytes_done"] for event in seen if event["type"] == "job.progress" and "bytes_done" in (event["data"]["progress"] or {})]
    assert done and done == sorted(done) and done[-1] <= size + 100 and ended(job)(seen[-1])
    assert "job.progress" in {event["type"] for event in everything.until(ended(job))}
    (node.place / "data" / "random").unlink()


def test_a_job_that_is_not_there_has_no_stream(node):
    assert Stream(node, f"/jobs/{UNKNOWN}/events").problem["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    session = Session(node)
    job = session.done("metadata")
    assert session.wire.call("POST", f"/jobs/{job['id']}/release").status == 204
    assert Stream(node, f"/jobs/{job['id']}/events").status == 410


# --- no gap, nothing twice -------------------------------------------------------------------------------------------

def work(node, sessions):
    for _ in range(sessions):
        session = Session(node)
        session.done("metadata")
        assert session.call("DELETE").status in (202, 204)
        session.wire.close()


def follow(node, last, patience, stop):
    """One client that stays as long as `patience` says and then comes back with the id that it has; what it got."""
    got = []
    while True:
        stream = Stream(node, last=last)
        try:
            for _ in range(patience()):
                event = stream.take()
                if event and event["id"]:
                    got.append(event)
                if stop(stream.last):
                    stream.close()
                    return got
        except EOFError:
            pass
        last = stream.last
        stream.close()


def test_reconnecting_under_load_misses_nothing_and_repeats_nothing(node):
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    begin, final = past(node)[-1:] or [{"id": 0}], threading.Event()
    begin, last = begin[0]["id"], [None]

    def stop(at):
        return final.is_set() and at >= last[0]

    followers = [Background(follow, node, begin, patience, stop)
                 for patience in (lambda: 1 << 30, lambda: 1 << 30, lambda: 1 + chance.randrange(12), lambda: 1 + chance.randrange(3))]
    workers = [Background(work, node, 6) for _ in range(3)]
    for worker in workers:
        worker.done()
    last[0] = past(node)[-1]["id"]
    final.set()
    everything = past(node, begin)
    assert [event["id"] for event in everything] == list(range(begin + 1, last[0] + 1))
    for follower in followers:
        assert follower.done() == everything, f"seed {seed}"


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGKILL))
def test_a_stream_goes_on_after_a_restart_of_the_daemon(node, how):
    stream = Stream(node)
    begin = stream.last
    session = Session(node).to("set_open")
    got = [event for event in stream.until(lambda event: event["type"] == "session.changed" and event["data"]["state"] == "set_open") if event["id"]]
    last = stream.last
    node.stop(how)
    node.start()
    stream = Stream(node, last=last)
    other = Session(node)
    more = stream.until(lambda event: event["session_id"] == other.id)
    assert [event["data"] for event in more if event["session_id"] == session.id and event["type"] == "session.changed"][-1]["state"] == "aborted", "the restart ended it"
    assert got + [event for event in more if event["id"]] == past(node, begin)[:len(got) + len(more)]


def test_who_asks_for_what_is_gone_is_told_to_begin_anew(daemon):
    node = daemon(configuration(daemon.place, [], "") + "retention: {events: 4}\n")
    for _ in range(8):
        Session(node).call("DELETE")
    newest = past(node)[-1]["id"]
    for _ in range(2):  # the first start drops what is too much, the second one does not even have it in memory
        node.stop()
        node.start()
    stream = Stream(node, last=1)
    told = stream.next()
    assert told["type"] == "reset" and told["data"] == {"reason": "expired", "asked_after": 1, "oldest": newest - 3} and told["id"] == newest
    Session(node)
    assert stream.next()["id"] == newest + 1, "and it goes on"
    kept = Stream(node, last=newest - 4)
    assert [kept.next()["id"] for _ in range(5)] == list(range(newest - 3, newest + 2)), "what is kept is told"
    unknown = Stream(node, "/events?after=4711&follow=false").rest()
    assert [(event["type"], event["data"]["reason"]) for event in unknown] == [("reset", "unknown")]


# --- who sees what ---------------------------------------------------------------------------------------------------

def test_each_sees_what_is_his(daemon):
    node = daemon(configuration(daemon.place, [Writer(daemon.place, "first")], "") +
                  principals(one="operator", two="operator", res="restorer", eye="viewer", aud="auditor"))
    mine, theirs = {}, {}
    streams = {name: Stream(node, token=token_of(name)) for name in ("one", "two", "res", "eye", "aud")}
    for name in ("one", "two"):
        call = lambda *arguments: node.call(*arguments, token=token_of(name))  # noqa: B023, E731
        job = call("POST", "/backups", {"components": [{"writer": "first", "name": "main"}], "paths": [str(node.place / "data")], "repository": "main"}).json
        while call("GET", f"/jobs/{job['id']}?wait=20").json["state"] not in ("succeeded", "failed"):
            pass
        mine[name] = job
        theirs[name] = call("GET", f"/jobs/{job['id']}").json
    streams["all"] = Stream(node, "/events?after=0&types=snapshot.deleted")
    for _ in mine:  # each backup's snapshot goes after its job has ended
        streams["all"].next()
    streams.pop("all").close()
    everything = past(node)
    assert all(job["state"] == "succeeded" for job in theirs.values()), theirs
    for name, stream in streams.items():
        past_of = past(node, token=token_of(name))
        live = [event for event in stream.until(lambda event: event["id"] and event["id"] >= past_of[-1]["id"])]
        assert [event for event in live if event["id"]] == past_of, name
        if name in ("eye", "aud"):
            assert past_of == everything
        elif name == "res":
            assert past_of and {event["type"].split(".")[0] for event in past_of} == {"backup", "snapshot"}
            assert past_of == [event for event in everything if event["type"].startswith(("backup.", "snapshot."))]
        else:
            other = {"one": "two", "two": "one"}[name]
            told = str(live)
            assert mine[name]["id"] in told and mine[other]["id"] not in told
            assert past_of == [event for event in everything if event["job_id"] == mine[name]["id"] or event["session_id"] in {e["session_id"] for e in past_of}]
    job = mine["one"]["id"]
    assert Stream(node, f"/jobs/{job}/events", token=token_of("two")).status == 404
    assert Stream(node, f"/jobs/{job}/events", token=token_of("eye")).status == 200


def test_a_stream_ends_with_its_credential(daemon):
    node = daemon(configuration(daemon.place, [], ""))
    made = [node.call("POST", "/tokens", {"name": name, "role": "viewer", "scopes": scopes, **more}).json
            for name, scopes, more in (("revoked", [], {}), ("short", [], {"expires_in_seconds": 5}), ("scoped", ["read:/events"], {}), ("other", ["/sessions"], {}))]
    revoked, short, scoped = (Stream(node, token=token["token"]) for token in made[:3])
    assert Stream(node, token=made[3]["token"]).problem["reason"] == "scope"
    session = Session(node)
    assert revoked.next()["session_id"] == session.id
    assert node.call("DELETE", "/tokens/" + made[0]["id"]).status == 204
    late = Session(node)
    assert late.id not in str(revoked.rest()), "it ends, and tells nothing more"
    short.rest()
    assert late.id in str(scoped.until(lambda event: event["session_id"] == late.id))


def test_a_stream_ends_with_its_login_and_does_not_keep_it_alive(daemon):
    node = daemon(configuration(daemon.place, [], "login_idle_seconds: 3, heartbeat_seconds: 1"))
    browser = Browser(node)
    assert browser.log_in(pathlib.Path(node.ready["token_file"]).read_text().strip()).status == 200
    stream = Stream(node, cookie=browser.cookie)
    assert stream.rest() == [] and stream.heartbeats, "nothing but the stream has used it"
    assert browser("GET", "/whoami").status == 401


# --- at nobody else's expense ----------------------------------------------------------------------------------------

def test_there_are_so_many_streams_and_no_more_and_who_leaves_makes_room(daemon):
    limits = "streams: 5, streams_per_principal: 3"
    node = daemon(configuration(daemon.place, [], limits) + principals(one="operator", two="operator"))
    one = [Stream(node, token=token_of("one")) for _ in range(3)]
    refused = Stream(node, token=token_of("one"))
    assert refused.status == 429 and refused.problem["reason"] == "streams" and int(refused.headers["retry-after"]) > 0, refused.problem
    two = [Stream(node, token=token_of("two")) for _ in range(2)]
    refused = Stream(node, token=token_of("two"))
    assert refused.status == 503 and refused.problem["reason"] == "streams" and int(refused.headers["retry-after"]) > 0, refused.problem
    assert scrape(node).value("quiesced_event_streams") == 5
    for stream in one + two:
        stream.close()
    open_again(node, "one").close()
    while scrape(node).value("quiesced_event_streams"):
        pass


def open_again(node, name):
    """A stream, as soon as there is room for it."""
    deadline = time.monotonic() + 60
    while (stream := Stream(node, token=token_of(name))).status != 200:
        assert time.monotonic() < deadline, stream.problem
    return stream


def test_long_polls_are_bounded_per_principal(daemon):
    node = daemon(configuration(daemon.place, [gate_writer(daemon.place)], "waits_per_principal: 2") + principals(eye="viewer"))
    session = Session(node).to("snapshotted")
    gate = Gate(node.place, session)
    job = session.begin("complete")
    turns = scrape(node).value("quiesced_loop_turn_seconds_count")
    waiting = [Wire(node) for _ in range(2)]
    for wire in waiting:
        wire.ask("GET", f"/jobs/{job['id']}?wait=60")
    while (refused := node.call("GET", f"/jobs/{job['id']}?wait=1")).status == 200:
        assert refused.json["state"] == "running"
    assert refused.status == 429 and refused.json["reason"] == "waits" and int(refused.headers["retry-after"]) > 0, refused
    metrics = scrape(node)
    assert metrics.value("quiesced_waiters") == 2 and metrics.value("quiesced_loop_turn_seconds_count") > turns
    assert node.call("GET", f"/jobs/{job['id']}").status == 200, "who does not wait is answered"
    assert node.call("GET", f"/jobs/{job['id']}?wait=1", token=token_of("eye")).status == 200
    gate.open()
    assert [wire.hear().json["state"] for wire in waiting] == ["succeeded"] * 2
    assert scrape(node).value("quiesced_waiters") == 0
    assert node.call("GET", f"/jobs/{job['id']}?wait=1").status == 200
    gate.close()


class Deaf:
    """Asks for a stream on the local socket, whose buffers are small, and reads nothing of it."""

    def __init__(self, node):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(node.ready["socket"])
        self.socket.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.poll = select.poll()
        self.poll.register(self.socket, 0)

    def dropped(self):
        return any(found & select.POLLHUP for _, found in self.poll.poll(0))


@pytest.mark.parametrize("rate", (
    pytest.param(100, id="front drops him"),
    pytest.param(0, id="core drops him", marks=pytest.mark.full),  # when front has no patience to lose: thousands of events
))
def test_who_does_not_read_loses_his_stream_and_holds_nobody_up(daemon, rate):
    node = daemon(configuration(daemon.place, [], f"stall_seconds: 1, least_bytes_per_second: {rate}"))
    deaf, reader = Deaf(node), Stream(node)
    begin, session = reader.last, Session(node)
    reading = Background(lambda: [event["id"] for event in reader.until(lambda event: event["type"] == "session.released")])
    kinds = itertools.cycle(("full", "copy"))  # an event tells of a change that can be seen, not of a value that is set again
    while not deaf.dropped():
        for _ in range(20):
            assert session.call("PUT", "/backup-state", dict(BACKUP_STATE, type=next(kinds))).status == 200, "others are answered"
    deaf.socket.close()
    assert session.call("DELETE").status in (202, 204)
    ids = reading.done()
    assert ids == list(range(begin + 1, ids[-1] + 1)), "who reads gets all of it"
    if rate == 0:
        assert "its client does not take them" in node.words()


STREAMS = 1000


@pytest.mark.full
def test_a_thousand_streams_are_told_and_others_are_answered(daemon):
    node = daemon(configuration(daemon.place, [], f"streams_per_principal: {STREAMS}") + principals(eye="viewer"))
    streams = [Stream(node, token=token_of("eye")) for _ in range(STREAMS)]
    assert Stream(node, token=token_of("eye")).status == 429
    wire, sessions = Wire(node), []
    for _ in range(20):
        sessions.append(Session(node, wire))
        assert wire.get(f"/sessions/{sessions[-1].id}")["state"] == "initialized"
    for stream in streams:
        told = stream.until(lambda event: event["session_id"] == sessions[-1].id)
        assert [event["session_id"] for event in told] == [session.id for session in sessions]
        stream.close()
    open_again(node, "eye")


# --- the daemon's own life -------------------------------------------------------------------------------------------

def test_streams_survive_a_reload_and_end_in_order_when_the_daemon_stops(node):
    stream, gone = Stream(node), Stream(node)
    gone.close()
    (node.place / "quiesced.yaml").write_text((node.place / "quiesced.yaml").read_text().replace("heartbeat_seconds: 1", "heartbeat_seconds: 2"))
    node.process.send_signal(signal.SIGHUP)
    session = Session(node)
    assert stream.next()["session_id"] == session.id
    session.to("snapshotted")
    gate = Gate(node.place, session)
    job = session.begin("complete")
    stopping = Background(node.stop)
    try:
        told = stream.rest()  # http.client raises when the last chunk is missing
    except http.client.IncompleteRead as broken:
        raise AssertionError("it was broken off") from broken
    assert changes(told)[-1] == "snapshotted"
    refused = session.wire.call("GET", "/events")  # no new connection is taken any more
    assert refused.status == 503 and refused.json["reason"] == "draining" and int(refused.headers["retry-after"]) > 0
    gate.open()
    assert stopping.done() == 0
    gate.close()
    assert job
