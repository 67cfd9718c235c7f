"""The writers' side over HTTPS (vss-model 2.6, 4.1 to 4.5): which events come in which order, who hears Abort, what a failure's code becomes, and what may still be
written to the document."""
import json
import pathlib
import shutil
import signal
import tempfile

import pytest

import leftovers
from conduct import BACKUP_STATE, Session, Wire, Writer, component, configuration
from daemon import Daemon

BEFORE = ["prepare_backup", "prepare_snapshot"]
WHOLE = BEFORE + ["freeze", "thaw", "post_snapshot", "backup_complete", "backup_shutdown"]
CODES = ("VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT", "VSS_E_WRITERERROR_OUTOFRESOURCES", "VSS_E_WRITERERROR_TIMEOUT", "VSS_E_WRITERERROR_RETRYABLE",
         "VSS_E_WRITERERROR_NONRETRYABLE")
AT = {"prepare_backup": "PREPARE_BACKUP", "prepare_snapshot": "PREPARE_SNAPSHOT", "freeze": "FREEZE", "thaw": "THAW", "post_snapshot": "POST_SNAPSHOT",
      "backup_complete": "BACKUP_COMPLETE"}
FAILING = {f"{how}-{event}": {f"{how.upper()}_{event.upper()}": CODES[number % len(CODES)]}
           for how in ("fail", "soft") for number, event in enumerate(AT)}
# Of two writers of a level each waits at Freeze and at Thaw until the other has heard it, too.
LEVELS = {"front-1": "front_end", "front-2": "front_end", "back-1": "back_end", "back-2": "back_end", "base": "system"}
PAIRS = {"front-1": "front-2", "front-2": "front-1", "back-1": "back-2", "back-2": "back-1"}
TWO = json.dumps([component("good"), component("bad")])


def together(place, name):
    other = PAIRS.get(name)
    return {f"{word}_{event}": f"{place}/{event}-{who}" for event in ("FREEZE", "THAW") for word, who in (("TOUCH", name), ("WAIT", other)) if other}


@pytest.fixture(scope="module")
def ground():
    """One node that knows every writer of this file; a session hears those that its test names."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-test-", dir="/var/tmp"))
    place.chmod(0o755)
    told = {"SAY_" + event.upper(): json.dumps({"stamp": "at " + event, "metadata": "at " + event})
            for event in ("prepare_snapshot", "freeze", "thaw", "backup_complete")}
    kinds = {"well": {}, **FAILING, **{name: {"LEVEL": level, **together(place, name)} for name, level in LEVELS.items()},
             "partial": {"COMPONENTS": TWO, "PARTIAL_POST_SNAPSHOT": "VSS_E_WRITERERROR_RETRYABLE"}, "slow": {"FREEZE_TIMEOUT_MS": "400"}, "slower": {"DELAY_FREEZE": "0.7"},
             "late-writing": {"STAMP": "in time", "SAY_POST_SNAPSHOT": '{"metadata": "in time"}', **told},
             "twice": {"SAY_PREPARE_BACKUP": '{"stamp": "1", "metadata": "first"}', "SAY_POST_SNAPSHOT": '{"stamp": "2", "metadata": "second"}'},
             "partial-late": {"COMPONENTS": TWO, "PARTIAL_BACKUP_COMPLETE": "VSS_E_WRITERERROR_OUTOFRESOURCES"}}
    writers = {name: Writer(place, name, **environment) for name, environment in kinds.items()}
    node = Daemon(place, configuration(place, list(writers.values())))
    node.start()
    node.writers = writers
    node.instances = {writer["name"]: writer["instance_id"] for writer in Wire(node).get("/writers")["items"]}
    yield node
    status, reports = node.stop(), node.sanitized()
    shutil.rmtree(place)
    assert status == 0 and not reports, reports


def session_of(node, *names, **body):
    session = Session(node, **body)
    others = [instance for name, instance in node.instances.items() if name not in names]
    filtered = session.call("PUT", "/writer-filter", {"disable_instances": others})
    assert filtered.status == 200 and filtered.json["writer_filter"] == {"enable": [], "disable": [], "disable_instances": others}
    return session


def released(session):
    reply = session.call("DELETE")
    assert reply.status in (202, 204), reply
    if reply.status == 202:
        session.wire.wait(reply.json)


def heard(node, name, session):
    return [request["event"] for request in node.writers[name].heard(session)][1:]  # without identify


def statuses(session):
    return {status["name"]: status for status in session.wire.get(session.path + "/writer-status")["items"]}


# --- the order -------------------------------------------------------------------------------------------------------

def moments(node, session):
    """(time, writer, event or its answer) of a session, in order."""
    found = []
    for name, writer in node.writers.items():
        lines = [json.loads(line) for line in writer.record.read_text().splitlines()] if writer.record.exists() else []
        mine = {line["pid"] for line in lines if line.get("request", {}).get("session") == session.id}
        found += [(line["t"], name, line["event"]) for line in lines if line["pid"] in mine]
    return sorted(found)


def test_levels_freeze_in_order_side_by_side_and_thaw_in_reverse_with_a_window_each(ground):
    session = session_of(ground, *LEVELS).to("snapshotted")
    session.copy()
    session.done("complete")
    released(session)
    for name in LEVELS:
        assert heard(ground, name, session) == WHOLE
    at = {(name, event): moment for moment, name, event in moments(ground, session)}
    for above, below in (("front_end", "back_end"), ("back_end", "system")):
        for first in (name for name in LEVELS if LEVELS[name] == above):
            for second in (name for name in LEVELS if LEVELS[name] == below):
                assert at[first, "freeze.answered"] < at[second, "freeze"], "the next level waits for the answers"
                assert at[second, "thaw.answered"] < at[first, "thaw"], "and thaws before"
    for one, other in PAIRS.items():
        for event in ("freeze", "thaw"):
            assert at[one, event] < at[other, event + ".answered"], "one level, side by side"
    assert max(at[name, "freeze.answered"] for name in LEVELS) < min(at[name, "thaw"] for name in LEVELS)
    windows = {item["writer"]: item["freeze"] for item in session_components(session)}
    for outer, inner in (("front-1", "back-1"), ("back-1", "base")):
        assert windows[outer]["started_at"] <= windows[inner]["started_at"] and windows[inner]["ended_at"] <= windows[outer]["ended_at"]
        assert windows[outer]["window_ms"] > windows[inner]["window_ms"] > 0, "each writer's own window, from its Freeze to its Thaw"


def session_components(session):
    backup = session.wire.get("/backups/" + session.backup)
    assert backup["freeze"]["window_ms"] >= max(item["freeze"]["window_ms"] for item in backup["components"])
    return backup["components"]


# --- who hears what when something breaks ----------------------------------------------------------------------------

# vss-model 2.6, per phase that fails: the writer that fails, and another one. With writer_failure `fail` the job fails; with `report` the status tells.
STRICT = {
    "prepare_backup": (["prepare_backup"], ["prepare_backup"]),
    "prepare_snapshot": (BEFORE, BEFORE),
    "freeze": (BEFORE + ["freeze", "abort"], BEFORE + ["freeze", "thaw", "abort"]),
    "thaw": (BEFORE + ["freeze", "thaw", "abort"], BEFORE + ["freeze", "thaw", "abort"]),
    "post_snapshot": (BEFORE + ["freeze", "thaw", "post_snapshot"], BEFORE + ["freeze", "thaw", "post_snapshot"]),
}
REPORT = {
    "prepare_backup": ["prepare_backup"],
    "prepare_snapshot": BEFORE,
    "freeze": BEFORE + ["freeze", "abort"],
    "thaw": BEFORE + ["freeze", "thaw", "abort"],
    "post_snapshot": BEFORE + ["freeze", "thaw", "post_snapshot"],
}


@pytest.mark.parametrize("event", STRICT)
def test_a_failure_fails_the_job_and_abort_comes_exactly_where_it_belongs(ground, event):
    for how in ("fail", "soft"):
        name = f"{how}-{event}"
        session = session_of(ground, "well", name)
        operation = "prepare" if event == "prepare_backup" else "snapshot"
        session.to("set_open" if operation == "prepare" else "prepared")
        job = session.job(operation)
        code = next(iter(FAILING[name].values()))
        assert (job["state"], job["hresult"]) == ("failed", code), job
        assert [(status["name"], status["state"], status["failure"]) for status in job["error"]["writers"]] == [(name, "VSS_WS_FAILED_AT_" + AT[event], code)]
        assert session.view()["state"] == ("set_open" if operation == "prepare" else "snapshot_failed")
        failing, other = STRICT[event]
        if how == "soft" and event == "freeze":
            failing = BEFORE + ["freeze", "abort"]
        assert heard(ground, name, session) == failing, (name, heard(ground, name, session))
        assert heard(ground, "well", session) == other, (name, heard(ground, "well", session))
        released(session)
        assert heard(ground, "well", session) == other + ["backup_shutdown"], "Release sends BackupShutdown only"
        assert heard(ground, name, session) == failing + ["backup_shutdown"]
        assert session.wire.get("/snapshots")["items"] == []


@pytest.mark.parametrize("event", REPORT)
def test_in_report_mode_the_set_goes_on_without_the_one_that_failed(ground, event):
    name = f"fail-{event}"
    session = session_of(ground, "well", name, writer_failure="report").to("snapshotted")
    code = next(iter(FAILING[name].values()))
    assert heard(ground, name, session) == REPORT[event], (name, heard(ground, name, session))
    status = statuses(session)
    assert (status[name]["state"], status[name]["failure"]) == ("VSS_WS_FAILED_AT_" + AT[event], code)
    assert status[name]["application_message"] == f"told to fail at {event}"
    assert (status["well"]["state"], status["well"]["failure"]) == ("VSS_WS_WAITING_FOR_BACKUP_COMPLETE", "S_OK")
    session.copy()
    session.done("complete")
    released(session)
    assert heard(ground, "well", session) == WHOLE
    assert heard(ground, name, session) == REPORT[event] + ["backup_shutdown"], "nothing more of this backup"


@pytest.mark.parametrize("event", ("prepare_backup", "prepare_snapshot", "post_snapshot"))
def test_a_failure_that_is_not_fatal_keeps_its_writer_in_the_backup(ground, event):
    name = f"soft-{event}"
    session = session_of(ground, "well", name, writer_failure="report").to("snapshotted")
    status = statuses(session)[name]
    assert (status["state"], status["failure"]) == ("VSS_WS_FAILED_AT_" + AT[event], next(iter(FAILING[name].values())))
    session.done("complete")
    released(session)
    assert heard(ground, name, session) == WHOLE


@pytest.mark.parametrize("event", ("freeze", "thaw"))
def test_a_failure_reported_at_freeze_or_thaw_is_fatal_for_its_writer(ground, event):
    name = f"soft-{event}"
    session = session_of(ground, "well", name, writer_failure="report").to("snapshotted")
    assert statuses(session)[name]["state"] == "VSS_WS_FAILED_AT_" + AT[event]
    assert heard(ground, name, session) == REPORT[event]
    session.done("complete")
    released(session)
    assert heard(ground, "well", session) == WHOLE


@pytest.mark.parametrize("mode", ("fail", "report"))
def test_a_provider_that_fails_raises_abort_for_all_even_beside_a_writer_that_failed_before(ground, mode):
    name = "fail-prepare_snapshot"
    session = session_of(ground, *(("well", name) if mode == "report" else ("well",)), writer_failure=mode).to("prepared")
    (ground.faults / "worker.snapshot.create").write_text("once")
    job = session.job("snapshot")
    assert (job["state"], session.view()["state"]) == ("failed", "snapshot_failed"), job
    assert heard(ground, "well", session) == BEFORE + ["freeze", "thaw", "abort"]
    if mode == "report":
        assert heard(ground, name, session) == BEFORE + ["abort"]
    assert session.call("POST", "/abort").json["state"] == "aborted"
    released(session)
    whole = BEFORE + ["freeze", "thaw", "abort", "backup_shutdown"]  # Abort once; an aborted session's worker ends by itself
    assert not leftovers.settle(lambda: heard(ground, "well", session) != whole), heard(ground, "well", session)


@pytest.mark.parametrize("state, aborted", (("identified", False), ("set_open", False), ("prepared", True), ("snapshotted", False)))
def test_abort_backup_reaches_who_prepared_and_has_not_completed_post_snapshot(ground, state, aborted):
    session = session_of(ground, "well").to(state)
    before = heard(ground, "well", session)
    assert session.call("POST", "/abort").json["state"] == "aborted"
    released(session)
    while heard(ground, "well", session)[-1:] != ["backup_shutdown"]:
        session.wire.get("/health/live")  # the session's worker ends by itself
    assert heard(ground, "well", session) == before + (["abort"] if aborted else []) + ["backup_shutdown"]


def test_the_window_is_each_writers_own(ground):
    """One is frozen while the other takes longer than its window to freeze: it alone fails."""
    session = session_of(ground, "slow", "slower", writer_failure="report").to("snapshotted")
    status = statuses(session)
    assert (status["slow"]["failure"], status["slower"]["failure"]) == ("VSS_E_WRITERERROR_TIMEOUT", "S_OK"), status
    assert heard(ground, "slow", session)[-1] == "abort"
    released(session)


# --- failures of components ------------------------------------------------------------------------------------------

def components_of(session):
    session.done("metadata")
    made = {}
    for writer in session.wire.get(session.path + "/writers")["items"]:
        for item in writer["components"]:
            reply = session.call("POST", "/components", {"instance_id": writer["instance_id"], "logical_path": "", "name": item["name"]})
            assert reply.status == 201, reply
            made[item["name"]] = reply.json["id"]
    session.step("set_open")
    session.done("prepare")
    return made


def test_a_component_fails_alone_with_code_and_message_of_its_application(ground):
    for mode in ("report", "fail"):
        session = session_of(ground, "partial", writer_failure=mode)
        assert session.call("PUT", "/backup-state", BACKUP_STATE).status == 200
        made = components_of(session)
        job = session.job("snapshot")
        status = statuses(session)["partial"] if mode == "report" else job["error"]["writers"][0]
        assert (status["state"], status["failure"]) == ("VSS_WS_FAILED_AT_POST_SNAPSHOT", "VSS_E_WRITERERROR_PARTIAL_FAILURE")
        assert (status["application_code"], status["application_message"]) == (7, "component failed at post_snapshot")
        if mode == "fail":
            assert (job["state"], job["hresult"]) == ("failed", "VSS_E_WRITERERROR_PARTIAL_FAILURE")
            released(session)
            continue
        parts = {name: session.wire.get(f"{session.path}/components/{made[name]}") for name in ("good", "bad")}
        failed, whole = parts["good"], parts["bad"]  # the first component of the answer is the one that fails
        assert (failed["failure"], failed["application_code"], failed["application_message"]) == ("VSS_E_WRITERERROR_RETRYABLE", 7, "component failed at post_snapshot")
        assert (whole["failure"], whole.get("application_code")) == (None, None)
        document = {part["name"]: part for part in session.wire.get(session.path + "/document")["components"]}
        assert document["good"]["failure"] == "VSS_E_WRITERERROR_RETRYABLE" and document["good"]["application_code"] == 7
        assert failed["grade"] != "application"
        session.done("complete")
        assert [part["name"] for part in ground.writers["partial"].heard(session, "backup_complete")[0]["components"]] == ["good", "bad"]
        released(session)


# --- the document ----------------------------------------------------------------------------------------------------

def test_writers_write_to_the_document_in_prepare_and_post_snapshot_only(ground):
    session = session_of(ground, "late-writing").to("snapshotted")
    item = session.wire.get(session.path + "/components")["items"][0]
    assert item["backup_stamp"] == "in time"
    kept = session.wire.get(session.path + "/document")
    assert kept["components"][0]["backup_metadata"] == "in time"
    session.copy()
    session.done("complete")
    after = session.wire.get(session.path + "/document")
    assert [(part["backup_stamp"], part["backup_metadata"], part["failure"]) for part in after["components"]] == [("in time", "in time", None)]
    stored = session.wire.get("/backups/" + session.backup)["components"][0]
    assert (stored["backup_stamp"], stored["failure"]) == ("in time", None)
    for member in ({"succeeded": True}, {"backup_options": "x"}, {"previous_stamp": "x"}):
        refused = session.call("PATCH", "/components/" + item["id"], member)
        assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE"), "the document is read-only"
    released(session)


def test_backup_metadata_is_set_once_and_stamps_may_be_set_again(ground):
    session = session_of(ground, "twice").to("snapshotted")
    part = session.wire.get(session.path + "/document")["components"][0]
    assert (part["backup_stamp"], part["backup_metadata"]) == ("2", "first")
    released(session)


def test_a_component_that_fails_in_backup_complete_is_told_and_not_written(ground):
    session = session_of(ground, "partial-late")
    assert session.call("PUT", "/backup-state", BACKUP_STATE).status == 200
    made = components_of(session)
    session.done("snapshot")
    job = session.done("complete")
    status = job["result"]["writers"][0]
    assert (status["state"], status["failure"], status["application_code"]) == ("VSS_WS_FAILED_AT_BACKUP_COMPLETE", "VSS_E_WRITERERROR_PARTIAL_FAILURE", 7)
    assert session.wire.get(f"{session.path}/components/{made['good']}")["failure"] is None
    released(session)


# --- BackupShutdown without BackupComplete ---------------------------------------------------------------------------

def test_a_requester_that_dies_means_backup_shutdown_and_never_backup_complete(ground):
    """Its lease expires. Abort goes to those that have not completed PostSnapshot; logs must not be truncated."""
    taken = session_of(ground, "well", lease_seconds=5).to("snapshotted")
    prepared = session_of(ground, "well", lease_seconds=5).to("prepared")
    for session, tail in ((taken, ["backup_shutdown"]), (prepared, ["abort", "backup_shutdown"])):
        before = [event for event in heard(ground, "well", session) if event not in tail]
        ended = session.view()
        while ended["state"] != "aborted":
            ended = session.view()  # reading renews nothing
        assert ended["reason"] == "lease_expired"
        assert heard(ground, "well", session) == before + tail
    assert taken.wire.get("/snapshots")["items"] == []


def test_a_daemon_that_is_killed_leaves_no_backup_complete(daemon):
    """SIGKILL of the whole: the workers tell their writers, who hold nothing any more when it serves again."""
    writer = Writer(daemon.place, "well")
    node = daemon(configuration(daemon.place, [writer]))
    node.writers = {"well": writer}
    session = Session(node).to("snapshotted")
    session.copy()
    node.stop(signal.SIGKILL)
    events = [json.loads(line)["event"] for line in writer.record.read_text().splitlines()]
    while events[-1] not in ("end_of_file",):
        events = [json.loads(line)["event"] for line in writer.record.read_text().splitlines()]
    assert "backup_complete" not in events and "backup_shutdown" in events, events
    node.start()
    kept = Wire(node).get("/backups/" + session.backup)
    assert kept["complete"] is False and kept["reason"], kept
