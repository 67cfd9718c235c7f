"""The parked store: the daemon's state directory, log and repository lie on the file system that is frozen.

Whatever is asked meanwhile, no thread of the daemon gets stuck in the kernel, and what was answered is there after a restart."""
import os
import pathlib
import signal
import threading
import time

import pytest

from daemon import Daemon
from loop_fs import is_frozen
from metrics import scrape
from streams import Stream
from verbs import add, session

CONFIG = """
repositories: [{{name: main, mover: archive, path: {place}/repository}}]
limits: {{freeze_seconds: {seconds}}}
"""


@pytest.fixture
def own(loops):
    """A daemon all of whose files, and the data, lie on one ext4."""
    place = loops("ext4", size=256).path / "all"
    for name in ("", "repository", "data"):
        (place / name).mkdir()
    (place / "data" / "file").write_text("data")
    made = []

    def start(seconds=30):
        one = Daemon(place, CONFIG.format(place=place, seconds=seconds)).start()
        made.append(one)
        return one, place / "data"

    yield start
    for one in made:
        one.stop()
        assert not one.sanitized()


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def prepared(daemon, data):
    path = session(daemon)
    assert add(daemon, path, data, provider="external").status == 201
    assert daemon.job("POST", f"{path}/prepare")["state"] == "succeeded"
    return path


def held(daemon, data):
    """A session whose snapshot waits for its release; its path and the job's id."""
    path = prepared(daemon, data)
    job = daemon.call("POST", f"{path}/snapshot")
    assert job.status == 202, job
    until(lambda: daemon.call("GET", path).json["hold"])
    assert is_frozen(data)
    return path, job.json["id"]


def stat_of(task):
    try:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[1])
    except OSError:
        return "gone", 0


def family(pid):
    processes = {int(p.name): stat_of(p)[1] for p in pathlib.Path("/proc").iterdir() if p.name.isdigit()}
    found = {pid}
    while more := {p for p, parent in processes.items() if parent in found} - found:
        found |= more
    return found


def stuck(daemon):
    """Threads of the daemon's processes that the kernel holds, now and a moment later."""
    def once():
        return {task for pid in family(daemon.process.pid) for task in pathlib.Path(f"/proc/{pid}/task").glob("*") if stat_of(task)[0] == "D"}

    first = once()
    time.sleep(0.3)
    return [(task / "comm").read_text() for task in first & once()]


class Later(threading.Thread):
    """A call that is answered when it can be."""

    def __init__(self, daemon, *call):
        super().__init__(daemon=True)
        self.reply, self.node, self.request = None, daemon, call
        self.start()

    def run(self):
        self.reply = self.node.call(*self.request)

    def answered(self):
        self.join(60)
        return self.reply


def test_the_plan_says_so(own):
    daemon, data = own()
    path = prepared(daemon, data)  # a set with provider external is made verb by verb; the plan chooses the best one, copy
    assert daemon.call("DELETE", path).status == 204
    plan = daemon.call("POST", "/backups", {"paths": [str(data)], "repository": "main", "validate_only": True}).json
    assert plan["freeze"] == [] and plan["parked"] is False and plan["refusals"] == []


def test_polls_are_answered_and_the_rest_waits_for_the_release(own):
    daemon, data = own()
    path, job = held(daemon, data)
    waiting = [Later(daemon, "GET", "/sessions"), Later(daemon, "GET", "/jobs?limit=1"), Later(daemon, "POST", "/sessions", {"kind": "backup"}),
               Later(daemon, "GET", "/repositories"), Later(daemon, "GET", "/errors")]
    for _ in range(5):
        assert daemon.call("GET", "/health/live").status == 200
        assert daemon.call("GET", f"/jobs/{job}").json["state"] == "running"
        assert daemon.call("GET", path).json["hold"]
        metrics = scrape(daemon)
        assert metrics.value("quiesced_store_parked") == 1 and metrics.value("quiesced_applications_frozen_seconds") > 0
    until(lambda: (metrics := scrape(daemon)).value("quiesced_guardian_frozen_sets") == 1 and metrics.value("quiesced_guardian_sets") == 1
          and metrics.value("quiesced_file_systems_frozen_seconds") > 0)
    assert daemon.call("GET", f"/jobs/{job}?wait=1").json["progress"]["phase"] == "hold"
    assert daemon.call("GET", "/nonexistent").status == 404
    assert stuck(daemon) == []
    assert is_frozen(data)
    assert [call.request for call in waiting if call.reply] == []
    released = daemon.call("POST", f"{path}/snapshot-set/release", {})
    assert released.status == 200 and released.json["state"] == "succeeded", released
    assert [call.answered().status for call in waiting] == [200, 200, 201, 200, 200]
    assert not is_frozen(data)
    metrics = scrape(daemon)
    assert metrics.value("quiesced_store_parked") == 0 and metrics.value("quiesced_applications_frozen_seconds") == 0
    assert metrics.value("quiesced_freeze_seconds_count", provider="external", outcome="succeeded") == 1
    until(lambda: (metrics := scrape(daemon)).value("quiesced_guardian_frozen_sets") == 0 and metrics.value("quiesced_file_systems_frozen_seconds") == 0)
    daemon.stop(signal.SIGKILL)
    daemon.start()
    assert daemon.call("GET", f"/jobs/{job}").json["state"] == "succeeded"
    created = waiting[2].reply.json["id"]
    assert daemon.call("GET", f"/sessions/{created}").json["state"] == "aborted"  # acknowledged, found, and ended by the restart


def test_streams_tell_a_freeze_while_it_lasts_and_the_rest_after_it(own):
    daemon, data = own()
    stream = Stream(daemon)
    path, job = held(daemon, data)
    session = path.rpartition("/")[2]
    before = stream.until(lambda event: event["type"] == "session.frozen")
    frozen = before[-1]
    assert frozen["session_id"] == session and frozen["job_id"] == job and frozen["id"] is None
    assert frozen["data"]["file_systems"] == [str(data.parents[1])] and frozen["data"]["since"] < frozen["data"]["deadline"], frozen
    assert daemon.call("GET", path).json["frozen"] == frozen["data"]
    late = Stream(daemon)  # who comes now is told what is so now
    told = late.until(lambda event: event["type"] == "job.progress" and event["data"]["progress"]["phase"] == "hold")
    assert [event["data"] for event in told if event["type"] == "session.frozen"] == [frozen["data"]]
    watched = Stream(daemon, f"/jobs/{job}/events")
    assert watched.next()["data"]["progress"] == {"phase": "hold"}
    first = min(event["id"] for event in before if event["id"])
    again = Stream(daemon, last=first)  # from memory: the store cannot be read
    assert [again.next()["id"] for _ in range(3)] == [first + 1, first + 2, first + 3]
    waiting = Later(daemon, "POST", "/sessions", {"kind": "backup"})
    assert stuck(daemon) == [] and is_frozen(data)
    released = daemon.call("POST", f"{path}/snapshot-set/release", {})
    assert released.status == 200, released
    for one in (stream, late):
        after = one.until(lambda event: event["type"] == "session.changed" and event["data"]["state"] == "snapshotted")
        thawed, = [event for event in after if event["type"] == "session.thawed"]
        assert thawed["id"] and thawed["data"]["since"] == frozen["data"]["since"] and thawed["data"]["window_ms"] > 0
        assert thawed["data"]["file_systems"] == frozen["data"]["file_systems"]
    assert [event["data"]["state"] for event in watched.rest() if event["type"] == "job.changed"] == ["succeeded"]
    assert waiting.answered().status == 201
    assert daemon.call("GET", path).json["frozen"] is None


def test_a_cancel_thaws_at_once_and_is_durable_when_it_is_answered(own):
    daemon, data = own()
    path, job = held(daemon, data)
    cancelled = daemon.call("DELETE", f"/jobs/{job}")
    assert (cancelled.status, cancelled.json["cancel"]) == (202, "S_OK")
    assert daemon.wait(job)["state"] == "cancelled"
    assert not is_frozen(data)
    daemon.stop(signal.SIGKILL)
    daemon.start()
    assert daemon.call("GET", f"/jobs/{job}").json["state"] == "cancelled"
    assert daemon.call("GET", path).json["state"] == "aborted"


@pytest.mark.parametrize("method, tail", [("POST", "/abort"), ("DELETE", "")])
def test_an_end_of_the_session_thaws_at_once(own, method, tail):
    daemon, data = own()
    path, job = held(daemon, data)
    ended = daemon.call(method, path + tail)
    assert ended.status in (200, 202, 204), ended
    until(lambda: not is_frozen(data))
    assert daemon.wait(job)["state"] == "cancelled"


def test_when_nobody_releases_the_deadline_thaws_and_the_store_goes_on(own):
    daemon, data = own(seconds=3)
    path, job = held(daemon, data)
    done = daemon.wait(job)
    assert (done["state"], done["hresult"]) == ("failed", "VSS_E_HOLD_WRITES_TIMEOUT"), done
    assert daemon.call("GET", "/sessions").status == 200
    assert not is_frozen(data)


def test_a_stop_during_the_hold_cancels_it(own):
    daemon, data = own(seconds=60)
    path, job = held(daemon, data)
    daemon.stop()
    assert not is_frozen(data)
    daemon.start()
    assert daemon.call("GET", f"/jobs/{job}").json["state"] in ("cancelled", "failed")
    os.listdir(data)
