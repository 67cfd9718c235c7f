"""Writers that die, hang, lie, flood or answer out of turn, over HTTPS: that writer fails with the code of its fault, and everyone else is thawed and told."""
import pathlib
import shutil
import tempfile

import pytest

from conduct import Session, Wire, Writer, configuration
from daemon import Daemon

GONE, LATE, WRONG = "VSS_E_WRITER_NOT_RESPONDING", "VSS_E_WRITERERROR_TIMEOUT", "VSS_E_WRITERERROR_NONRETRYABLE"
LIMITS = "writer_seconds: {prepare_backup: 2, prepare_snapshot: 2, post_snapshot: 2}"
# name, kind, its environment, the event at which it is bad, its code
CASES = [
    ("dies-preparing", "dying", {}, "prepare_backup", GONE),
    ("dies-before", "dying", {}, "prepare_snapshot", GONE),
    ("dies-frozen", "dying", {}, "freeze", GONE),
    ("dies-after", "dying", {}, "post_snapshot", GONE),
    ("hangs-preparing", "hanging", {}, "prepare_backup", LATE),
    ("hangs-before", "hanging", {}, "prepare_snapshot", LATE),
    ("hangs-frozen", "hanging", {"FREEZE_TIMEOUT_MS": "2000"}, "freeze", LATE),
    ("hangs-after", "hanging", {}, "post_snapshot", LATE),
    *((f"lies-{lie}", "lying", {"LIE": lie}, "freeze", WRONG) for lie in ("garbage", "array", "no_id", "wrong_types", "deep", "foreign_component", "bad_code")),
    ("lies-foreign-file", "lying", {"LIE": "foreign_file"}, "post_snapshot", WRONG),
    ("floods", "flooding", {}, "freeze", WRONG),
    ("wrong-id", "out-of-turn", {}, "freeze", WRONG),
    ("twice", "out-of-turn", {"TURN": "twice"}, "prepare_snapshot", WRONG),
    ("early", "out-of-turn", {"TURN": "early"}, "prepare_snapshot", WRONG),
]
UNKNOWN = [  # whoever cannot say what it is takes no part
    ("dies-asked", "dying", {}, GONE),
    ("lies-about-itself", "lying", {"LIE": "twice_components"}, WRONG),
    ("relative", "lying", {"LIE": "relative_path"}, WRONG),
]


@pytest.fixture(scope="module")
def ground():
    """One node that knows them all; each test's session hears one of them, and one that is well."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-test-", dir="/var/tmp"))
    place.chmod(0o755)
    well = Writer(place, "well")
    bad = {name: Writer(place, name, kind, BAD_AT=at, **environment) for name, kind, environment, at, _ in CASES}
    bad |= {name: Writer(place, name, kind, BAD_AT="identify", **environment) for name, kind, environment, _ in UNKNOWN}
    chatty = Writer(place, "chatty", "flooding", FLOOD="stderr", BAD_AT="freeze")
    node = Daemon(place, configuration(place, [well, *bad.values(), chatty], LIMITS))
    node.start()
    node.well = well
    node.instances = {writer["name"]: writer["instance_id"] for writer in Wire(node).get("/writers")["items"]}
    yield node
    status, reports = node.stop(), node.sanitized()
    shutil.rmtree(place)
    assert status == 0 and not reports, reports


def session_with(node, name):
    session = Session(node)
    others = [instance for writer, instance in node.instances.items() if writer not in (name, "well")]
    assert session.call("PUT", "/writer-filter", {"disable_instances": others}).status == 200
    return session


@pytest.mark.parametrize("name, kind, environment, at, code", CASES, ids=[case[0] for case in CASES])
def test_the_bad_writer_fails_and_the_others_are_thawed_and_told(ground, name, kind, environment, at, code):
    session = session_with(ground, name)
    operation = "prepare" if at == "prepare_backup" else "snapshot"
    session.to("set_open" if operation == "prepare" else "prepared")
    assert set(session.components) == {"well", name}
    job = session.job(operation)
    assert (job["state"], job["hresult"]) == ("failed", code), job
    assert [(writer["name"], writer["failure"]) for writer in job["error"]["writers"]] == [(name, code)], job
    well = [request["event"] for request in ground.well.heard(session)]
    assert well.count("freeze") == well.count("thaw"), well
    assert session.call("POST", "/abort").json["state"] == "aborted"
    well = [request["event"] for request in ground.well.heard(session)]
    assert "post_snapshot" in well or "abort" in well, well
    assert "backup_complete" not in well and session.wire.get("/snapshots")["items"] == []
    assert session.call("DELETE").status in (202, 204)
    while not ground.well.heard(session, "backup_shutdown"):
        session.wire.get("/health/live")


@pytest.mark.parametrize("name, kind, environment, code", UNKNOWN, ids=[case[0] for case in UNKNOWN])
def test_who_cannot_say_what_it_is_is_missing_and_the_others_go_on(ground, name, kind, environment, code):
    session = session_with(ground, name)
    job = session.done("metadata")
    assert [(missing["name"], missing["error"]["hresult"]) for missing in job["result"]["missing"]] == [(name, code)], job
    assert [writer["name"] for writer in session.wire.get(session.path + "/writers")["items"]] == ["well"]
    assert session.call("DELETE").status in (202, 204)


def test_a_flood_on_standard_error_is_cut_and_hurts_nobody(ground):
    session = session_with(ground, "chatty").to("snapshotted")
    session.done("complete")
    said = [line for line in ground.words().splitlines() if session.id in line and "writer=chatty" in line]
    assert any("says too much" in line for line in said) and len(said) < 1000, len(said)
    assert session.call("DELETE").status in (202, 204)
