"""Provider `external` over HTTPS with the real daemon and real file systems: an outside snapshot in the window, by a command or by
POST …/snapshot-set/release, and every way in which that goes wrong."""
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "contract" / "guardian"))
import loop_fs  # noqa: E402
from streams import past  # noqa: E402

BACKUP_STATE = {"component_mode": True, "bootable_system_state": False, "type": "full", "partial_files": False}


@pytest.fixture
def make_fs():
    reason = loop_fs.unavailable()
    if reason:
        pytest.skip(reason)
    made = []

    def make(kind="ext4", **options):
        made.append(loop_fs.LoopFs(kind, **options))
        return made[-1]

    yield make
    for one in reversed(made):
        one.close()


def configuration(place, command=None, freeze_seconds=20, more=""):
    external = f"  external: {{command: {json.dumps([str(c) for c in command])}, timeout_seconds: 10}}\n" if command else ""
    (place / "backups").mkdir(exist_ok=True)
    return f"""
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
providers:
  copy: {{}}
{external}limits: {{freeze_seconds: {freeze_seconds}}}
{more}"""


def prepared(node, *paths, provider="external", **more):
    session = node.call("POST", "/sessions", {"kind": "backup", "label": "outside", **more})
    s = "/sessions/" + session.json["id"]
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    assert node.job("POST", s + "/metadata")["state"] == "succeeded"
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    volumes = []
    for path in paths:
        volume = node.call("POST", s + "/snapshot-set/volumes", {"path": str(path), "provider": provider})
        assert volume.status == 201, volume
        volumes.append(volume.json)
    job = node.job("POST", s + "/prepare")
    assert job["state"] == "succeeded", job
    return s, volumes


def held(node, s):
    """DoSnapshotSet, up to the hold. The job's id."""
    job = node.call("POST", s + "/snapshot")
    assert job.status == 202, job
    until(lambda: node.call("GET", s).json["hold"] or node.call("GET", "/jobs/" + job.json["id"]).json["state"] != "running")
    assert node.call("GET", s).json["hold"], (node.call("GET", "/jobs/" + job.json["id"]), node.words()[-3000:])
    return job.json["id"]


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def children(pid):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                if int(stat[stat.rindex(")") + 2:].split()[1]) == pid:
                    found.append(int(entry.name))
            except (OSError, ValueError):
                pass
    return found


def role(node, name):
    """The pid of a role of this daemon (a worker and a guardian are the agent's children)."""
    todo = [node.process.pid]
    while todo:
        for child in children(todo.pop()):
            try:
                line = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"--role={name}".encode() in line:
                return child
            todo.append(child)
    raise AssertionError(f"no {name} runs")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_hold_and_release(daemon, make_fs, kind):
    fs = make_fs(kind)
    node = daemon(configuration(daemon.place))
    s, volumes = prepared(node, fs.path)
    assert volumes[0]["provider"] == "external" and volumes[0]["volume"] == str(fs.path)
    judge = loop_fs.Judge(fs.path)
    job = held(node, s)
    session = node.call("GET", s).json
    assert session["hold"]["since"] < session["hold"]["deadline"] and session["pending_job"] == job
    assert node.call("GET", f"/jobs/{job}").json["progress"]["phase"] == "hold"
    assert loop_fs.is_frozen(fs.path)
    time.sleep(0.2)
    assert loop_fs.is_frozen(fs.path)
    reply = node.call("POST", s + "/snapshot-set/release", {"snapshots": [{"snapshot_id": volumes[0]["snapshot_id"], "outside_id": "vol-77"}]})
    assert reply.status == 200 and reply.json["id"] == job and reply.json["state"] == "succeeded", (reply, node.words()[-2000:])
    assert not loop_fs.is_frozen(fs.path)
    snapshot = reply.json["result"]["snapshots"][0]
    assert snapshot["outside_id"] == "vol-77" and snapshot["path"] == "" and snapshot["atomic"] is True
    window = reply.json["result"]["freeze"]
    assert window["window_ms"] >= 200
    own, = window["file_systems"]
    assert (own["mount_point"], own["fs_type"]) == (str(fs.path), kind)
    assert 200 <= own["window_ms"] <= window["window_ms"] and window["started_at"] <= own["started_at"] < own["ended_at"] <= window["ended_at"]
    assert node.call("GET", s + "/document").json["freeze"] == window, "the document keeps it"
    assert judge.longest() >= 0.2
    session = node.call("GET", s).json
    assert session["hold"] is None and session["state"] == "snapshotted"
    twice = node.call("POST", s + "/snapshot-set/release", {})
    assert twice.status == 409 and twice.json["hresult"] == "VSS_E_BAD_STATE"
    snapshots = [x for x in node.call("GET", "/snapshots").json["items"] if x["session_id"] == session["id"]]
    assert [x["outside_id"] for x in snapshots] == ["vol-77"]
    copy = node.job("POST", s + "/copy", {"repository": "main"})
    assert copy["state"] == "failed" and copy["hresult"] == "VSS_E_NOT_SUPPORTED" and "outside of this host" in copy["error"]["detail"]
    assert node.job("POST", s + "/complete")["state"] == "succeeded"
    assert node.call("DELETE", s).status == 204


def test_stacked_and_bound_file_systems_in_one_set(daemon, make_fs, tmp_path):
    below = make_fs("ext4", size=700)
    above = make_fs("xfs", home=below.path)
    node = daemon(configuration(daemon.place))
    s, volumes = prepared(node, below.path, above.path)
    held(node, s)
    assert loop_fs.is_frozen(below.path) and loop_fs.is_frozen(above.path)
    reply = node.call("POST", s + "/snapshot-set/release", {"outside_id": "vm-snap"})
    assert reply.json["state"] == "succeeded", reply
    assert {x["outside_id"] for x in reply.json["result"]["snapshots"]} == {"vm-snap"}
    consistency = reply.json["result"]["consistency"]
    assert [path["grade"] for path in consistency["paths"]] == ["filesystem", "filesystem"] and consistency["one_instant"] is True
    (above.path / "after").write_text("written")


def test_an_outside_snapshot_is_not_ours_to_show_or_to_remove(daemon, make_fs):
    """It can be forgotten, by force; nothing is done to it."""
    fs = make_fs()
    node = daemon(configuration(daemon.place, more=f"expose: {{roots: [{daemon.place}]}}\n"))
    s, volumes = prepared(node, fs.path, context="app_rollback")
    held(node, s)
    assert node.call("POST", s + "/snapshot-set/release", {"outside_id": "vol-1"}).json["state"] == "succeeded"
    row = "/snapshots/" + volumes[0]["snapshot_id"]
    shown = node.call("GET", row).json
    assert shown["outside_id"] == "vol-1" and shown["attributes"] == ["persistent", "no_auto_release"], shown
    for method, path, body in (("POST", row + "/exposure", {"path": str(daemon.place / "backups")}), ("POST", row + "/revert", {}),
                               ("GET", row + "/files", None)):
        reply = node.call(method, path, body)
        assert (reply.status, reply.json["hresult"]) == (501, "E_NOTIMPL") and reply.json["detail"], reply
    refused = node.call("DELETE", row)
    assert (refused.status, refused.json["hresult"]) == (502, "VSS_E_PROVIDER_VETO") and "vol-1" in refused.json["detail"], refused
    assert node.call("GET", row).json == shown
    assert node.call("DELETE", row + "?force=true").json["deleted"] == 1
    assert node.call("GET", row).status == 404
    assert node.call("DELETE", s).status == 204


def test_failed_outside(daemon, make_fs):
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    held(node, s)
    reply = node.call("POST", s + "/snapshot-set/release", {"failed": True, "reason": "the array is full"})
    assert reply.status == 200 and reply.json["state"] == "failed" and reply.json["hresult"] == "VSS_E_PROVIDER_VETO"
    assert "the array is full" in reply.json["error"]["detail"]
    assert not loop_fs.is_frozen(fs.path)
    assert node.call("GET", s).json["state"] == "snapshot_failed"


def test_release_refuses_what_it_does_not_know(daemon, make_fs):
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    early = node.call("POST", s + "/snapshot-set/release", {})
    assert early.status == 409 and early.json["hresult"] == "VSS_E_BAD_STATE"
    held(node, s)
    other = "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c"
    bad = node.call("POST", s + "/snapshot-set/release", {"snapshots": [{"snapshot_id": other, "outside_id": "x"}]})
    assert bad.status == 400 and "/snapshots/0/snapshot_id" in bad.raw.decode()
    unknown = node.call("POST", s + "/snapshot-set/release", {"done": True})
    assert unknown.status == 400
    assert node.call("POST", "/sessions/" + other + "/snapshot-set/release", {}).status == 404
    assert loop_fs.is_frozen(fs.path), "refusals change nothing"
    assert node.call("POST", s + "/snapshot-set/release", {}).json["state"] == "succeeded"


def test_nobody_releases(daemon, make_fs):
    """The client has disappeared: the deadline thaws, and the job says so."""
    fs = make_fs()
    node = daemon(configuration(daemon.place, freeze_seconds=2))
    s, _ = prepared(node, fs.path)
    judge = loop_fs.Judge(fs.path)
    job = node.wait(held(node, s))
    assert job["state"] == "failed" and job["hresult"] == "VSS_E_HOLD_WRITES_TIMEOUT", job
    assert not loop_fs.is_frozen(fs.path)
    assert judge.longest() >= 1.5
    late = node.call("POST", s + "/snapshot-set/release", {})
    assert late.status == 409
    assert node.call("GET", s).json["hold"] is None


def test_cancel_during_the_hold(daemon, make_fs):
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    job = held(node, s)
    assert node.call("DELETE", f"/jobs/{job}").status == 202
    ended = node.wait(job)
    assert ended["state"] == "cancelled" and str(fs.path) in ended["result"]["cleanup"]["thawed"], ended
    assert not loop_fs.is_frozen(fs.path)
    assert node.call("GET", s).json["state"] == "aborted"


def test_abort_during_the_hold(daemon, make_fs):
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    job = held(node, s)
    assert node.call("POST", s + "/abort").json["state"] == "aborted"
    assert not loop_fs.is_frozen(fs.path)
    assert node.call("GET", f"/jobs/{job}").json["state"] == "cancelled"


def test_thawed_behind_our_back(daemon, make_fs):
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    held(node, s)
    assert loop_fs.thaw(fs.path) == 0
    reply = node.call("POST", s + "/snapshot-set/release", {"outside_id": "worthless"})
    assert reply.json["state"] == "failed" and reply.json["hresult"] == "VSS_E_HOLD_WRITES_TIMEOUT"
    assert any("worthless" in x["reason"] for x in reply.json["result"]["cleanup"]["failed"]), reply.json["result"]["cleanup"]


DAY_MS = 24 * 3600 * 1000


@pytest.mark.parametrize("jump", [DAY_MS, -DAY_MS], ids=["forward", "back"])
def test_the_wall_clock_jumps_during_the_hold(daemon, make_fs, jump):
    """Deadlines and leases go by the monotonic clock: nothing thaws early, nothing stays frozen, no session expires."""
    fs = make_fs()
    node = daemon(configuration(daemon.place, freeze_seconds=3))
    kept = node.call("POST", "/sessions", {"kind": "backup", "label": "kept"}).json["id"]
    s, _ = prepared(node, fs.path)
    job = held(node, s)
    (node.faults / "clock.jump").write_text(str(jump))
    time.sleep(1)  # a third of the window
    assert loop_fs.is_frozen(fs.path), "a jump does not end the window"
    ended = node.wait(job)
    assert (ended["state"], ended["hresult"]) == ("failed", "VSS_E_HOLD_WRITES_TIMEOUT"), ended
    assert not loop_fs.is_frozen(fs.path)
    assert node.call("GET", f"/sessions/{kept}").json["state"] == "initialized", "its lease is not over"
    assert node.call("POST", s + "/abort").json["state"] == "aborted"
    backup = node.job("POST", "/backups", {"paths": ["/etc/hostname"], "repository": "main"})
    assert backup["state"] == "succeeded", backup
    (node.faults / "clock.jump").unlink()
    assert node.call("GET", f"/sessions/{kept}").json["state"] == "initialized"
    assert node.job("POST", "/backups", {"paths": ["/etc/hostname"], "repository": "main"})["state"] == "succeeded"


def test_somebody_elses_freeze(daemon, make_fs):
    ours, theirs = make_fs(), make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, ours.path, theirs.path)
    # Held behind syncfs, which would wait for the thaw.
    node.faults.joinpath("worker.snapshot.guard").write_text("hold")
    job = node.call("POST", s + "/snapshot").json["id"]
    until(lambda: (node.faults / "worker.snapshot.guard.hit").exists())
    assert loop_fs.freeze(theirs.path) == 0
    node.faults.joinpath("worker.snapshot.guard").unlink()
    ended = node.wait(job)
    assert loop_fs.thaw(theirs.path) == 0, "it was still frozen"
    assert ended["state"] == "failed" and ended["hresult"] == "VSS_E_VOLUME_IN_USE", ended
    assert not loop_fs.is_frozen(ours.path)


# --- the command ---

def script(place, text):
    path = place / "outside"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_command_in_the_window(daemon, make_fs):
    fs = make_fs()
    (fs.path / "file").write_text("content")
    place = daemon.place
    frozen = f"{sys.executable} -c 'import sys; sys.path.insert(0, \"{loop_fs.__file__.rsplit('/', 1)[0]}\"); import loop_fs; print(loop_fs.freeze(\"{fs.path}\"))'"
    command = script(place, f"cat > {place}/asked; {frozen} > {place}/errno; echo $QUIESCED_SET_ID > {place}/set\necho working\necho snap-42\n")
    node = daemon(configuration(place, [command]))
    s, volumes = prepared(node, fs.path)
    job = node.job("POST", s + "/snapshot")
    assert job["state"] == "succeeded", (job, node.words()[-2000:])
    assert job["result"]["snapshots"][0]["outside_id"] == "snap-42"
    assert (place / "errno").read_text().strip() == "16", "the file system was frozen while the command ran"
    asked = json.loads((place / "asked").read_text())
    assert asked["volumes"][0]["snapshot_id"] == volumes[0]["snapshot_id"] and asked["volumes"][0]["mount_point"] == str(fs.path)
    assert asked["set_id"] == (place / "set").read_text().strip()
    assert not loop_fs.is_frozen(fs.path)
    assert node.job("POST", s + "/complete")["state"] == "succeeded"


def test_command_that_prints_a_path_can_be_copied(daemon, make_fs):
    fs = make_fs()
    (fs.path / "file").write_text("content")
    place = daemon.place
    (place / "shown").mkdir()
    # What an array's snapshot, mounted on this host, would be.
    command = script(place, f"cp -a {fs.path}/file {place}/shown/\necho '{{\"outside_id\": \"lun-1\", \"path\": \"{place}/shown\"}}'\n")
    node = daemon(configuration(place, [command], more=f"restore: {{roots: [{place}/restored]}}\n"))
    (place / "restored").mkdir()
    s, _ = prepared(node, fs.path)
    job = node.job("POST", s + "/snapshot")
    assert job["state"] == "succeeded" and job["result"]["snapshots"][0]["path"] == f"{place}/shown", job
    copy = node.job("POST", s + "/copy", {"repository": "main"})
    assert copy["state"] == "succeeded", (copy, node.words()[-2000:])
    assert node.job("POST", s + "/complete")["state"] == "succeeded"
    restored = node.job("POST", f"/backups/{copy['result']['backup_id']}/restore", {"target": f"{place}/restored/x"})
    assert restored["state"] == "succeeded", restored
    assert [p.read_text() for p in (place / "restored").rglob("file")] == ["content"]


@pytest.mark.parametrize("text,code,word", [
    ("echo no room >&2; exit 3", "VSS_E_UNEXPECTED_PROVIDER_ERROR", "no room"),
    ("exec sleep 600", "VSS_E_HOLD_WRITES_TIMEOUT", "killed"),
    ("echo '{\"path\": \"relative\"}'", "VSS_E_UNEXPECTED_PROVIDER_ERROR", "not absolute"),
    ("echo '{\"path\": '", "VSS_E_UNEXPECTED_PROVIDER_ERROR", "neither JSON"),
    ("kill -9 $$", "VSS_E_UNEXPECTED_PROVIDER_ERROR", "signal 9"),
])
def test_command_fails(daemon, make_fs, text, code, word):
    fs = make_fs()
    node = daemon(configuration(daemon.place, [script(daemon.place, text + "\n")]).replace("timeout_seconds: 10", "timeout_seconds: 1"))
    s, _ = prepared(node, fs.path)
    job = node.job("POST", s + "/snapshot")
    assert job["state"] == "failed" and job["hresult"] == code and word in job["error"]["detail"], job
    assert not loop_fs.is_frozen(fs.path)


def test_command_that_writes_to_what_is_frozen(daemon, make_fs):
    """It cannot die before the thaw, and must not delay it."""
    fs = make_fs()
    command = script(daemon.place, f"echo x > {fs.path}/blocked\n")
    node = daemon(configuration(daemon.place, [command]).replace("timeout_seconds: 10", "timeout_seconds: 1"))
    s, _ = prepared(node, fs.path)
    job = node.job("POST", s + "/snapshot")
    assert job["state"] == "failed" and job["hresult"] == "VSS_E_HOLD_WRITES_TIMEOUT", job
    assert not loop_fs.is_frozen(fs.path)


def test_a_command_that_is_not_there(daemon, make_fs):
    fs = make_fs()
    node = daemon(configuration(daemon.place, ["/nonexistent/command"]))
    s, _ = prepared(node, fs.path)
    job = node.job("POST", s + "/snapshot")
    assert job["state"] == "failed" and "/nonexistent/command" in job["error"]["detail"], job
    assert not loop_fs.is_frozen(fs.path)


# --- mixed sets, other providers ---

def test_never_chosen_by_itself_where_another_fits(daemon, make_fs):
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, volumes = prepared(node, fs.path, provider=None)
    assert volumes[0]["provider"] == "copy"
    assert any(x["name"] == "external" and x["available"] for x in node.call("GET", "/providers").json["items"])
    refused = node.call("POST", s + "/snapshot-set/volumes", {"path": "/dev/shm", "provider": "external"})
    assert refused.status in (409, 422)


def test_btrfs_snapshot_beside_a_freeze_of_the_same_file_system_is_refused(daemon, make_fs):
    fs = make_fs("btrfs")
    loop_fs.run("btrfs", "subvolume", "create", fs.path / "sub")
    node = daemon(configuration(daemon.place))
    session = node.call("POST", "/sessions", {"kind": "backup", "label": "mixed"})
    s = "/sessions/" + session.json["id"]
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    assert node.job("POST", s + "/metadata")["state"] == "succeeded"
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    assert node.call("POST", s + "/snapshot-set/volumes", {"path": str(fs.path), "provider": "external"}).status == 201
    second = node.call("POST", s + "/snapshot-set/volumes", {"path": str(fs.path / "sub"), "provider": "btrfs"})
    if second.status == 201:
        assert node.job("POST", s + "/prepare")["state"] == "succeeded"
        job = node.job("POST", s + "/snapshot")
        assert job["state"] == "failed" and job["hresult"] == "VSS_E_PROVIDER_VETO", job
    assert not loop_fs.is_frozen(fs.path)


# --- who dies, who stops ---

@pytest.mark.parametrize("victim,how", [(name, signal.SIGKILL) for name in ("guardian", "worker", "agent", "core", "front")]
                         + [(name, signal.SIGTERM) for name in ("guardian", "worker", "agent")])
def test_a_process_is_killed_during_the_hold(daemon, make_fs, victim, how):
    fs = make_fs()
    node = daemon(configuration(daemon.place, freeze_seconds=10))
    s, _ = prepared(node, fs.path)
    judge = loop_fs.Judge(fs.path)
    held(node, s)
    os.kill(role(node, victim), how)
    until(lambda: not loop_fs.is_frozen(fs.path), 60)
    judge.gaps()  # it could write again
    until(lambda: node.process.poll() is None and next_session_works(node, fs), 120)


def next_session_works(node, fs):
    """Through the new generation, if there is one: its port is the same."""
    try:
        s, _ = prepared(node, fs.path)
        held(node, s)
        return node.call("POST", s + "/snapshot-set/release", {}).json.get("state") == "succeeded"
    except AssertionError:  # the roles are being started again
        time.sleep(0.3)
        return False


@pytest.mark.parametrize("victim", ["guardian", "worker", "agent"])
def test_a_process_is_stopped_during_the_hold(daemon, make_fs, victim):
    fs = make_fs()
    node = daemon(configuration(daemon.place, freeze_seconds=3))
    s, _ = prepared(node, fs.path)
    judge = loop_fs.Judge(fs.path)
    held(node, s)
    pid = role(node, victim)
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: not loop_fs.is_frozen(fs.path), 60)
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
    judge.gaps()


def test_a_guardian_that_dies_spoils_the_snapshot(daemon, make_fs):
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    job = held(node, s)
    os.kill(role(node, "guardian"), signal.SIGKILL)
    ended = node.wait(job)
    assert ended["state"] == "failed" and ended["hresult"] == "VSS_E_HOLD_WRITES_TIMEOUT", ended
    assert not loop_fs.is_frozen(fs.path)


@pytest.mark.parametrize("victim", ["guardian", "worker"])
def test_nobody_says_thawed_while_the_second_holder_cannot_thaw(daemon, make_fs, victim):
    """FITHAW fails in the agent: it tries again, and the job, which waits for its word, does not end before it is so."""
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    job = held(node, s)
    fault, hit = node.faults / "freeze.thaw", node.faults / "freeze.thaw.hit"
    fault.touch()
    os.kill(role(node, victim), signal.SIGKILL)
    until(lambda: hit.exists() and sum("agent" in line for line in hit.read_text().splitlines()) >= 3)
    assert loop_fs.is_frozen(fs.path)
    if victim == "guardian":
        assert node.call("GET", f"/jobs/{job}").json["state"] == "running"
    fault.unlink()
    until(lambda: not loop_fs.is_frozen(fs.path))
    ended = node.wait(job)
    assert ended["state"] == "failed", ended
    if victim == "guardian":
        assert str(fs.path) in ended["result"]["cleanup"]["thawed"] and not ended["result"]["cleanup"]["failed"], ended


ENDS = {"release": ("POST", "/snapshot-set/release"), "cancel": ("DELETE", None), "abort": ("POST", "/abort"), "delete": ("DELETE", "")}


@pytest.mark.parametrize("point, kind", [("store.commit", "fail"), ("store.audit", "fail"), ("store.commit", "pause")])
def test_what_ends_a_freeze_waits_for_no_store(daemon, make_fs, point, kind):
    """The store, which lies elsewhere, refuses, or its disk hangs: a release, a cancel, an abort and a DELETE thaw all the same."""
    fs = make_fs()
    node = daemon(configuration(daemon.place, freeze_seconds=600))
    for number, (verb, (method, path)) in enumerate(ENDS.items(), 1):
        s, _ = prepared(node, fs.path)
        job = held(node, s)
        (node.faults / point).write_text(kind)
        target = f"/jobs/{job}" if path is None else s + path
        headers = ["Idempotency-Key: " + verb] if method == "POST" else []
        replies = []
        caller = threading.Thread(target=lambda: replies.append(node.call(method, target, {} if verb == "release" else None, headers=headers)))
        caller.start()
        try:
            until(lambda: not loop_fs.is_frozen(fs.path))
            if kind == "fail":  # the record is tried behind the thaw
                until(lambda: node.words().count("which went on at once, is lost") >= number)
        finally:
            (node.faults / point).unlink()
            caller.join()
        if kind == "pause":
            assert replies[0].status in (200, 202, 204), (verb, replies)
        # else: what could not be recorded may be answered by an error, although it was carried out
        if verb != "delete":
            assert node.wait(job)["state"] in ("succeeded", "failed", "cancelled"), verb
        until(lambda: node.call("DELETE", s).status in (204, 404))
    calls = [item for item in node.call("GET", "/audit?limit=500").json["items"] if item["operation"] == "snapshotSetRelease"]
    if kind == "pause":
        assert [item["kind"] for item in calls] == ["outcome", "intent"] and calls[0]["succeeded"], calls


def test_a_thaw_that_failed_is_not_told_as_one(daemon, make_fs):
    """Neither guardian nor agent says that it is thawed: it is shown as frozen, with the reason, until the agent can thaw it."""
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    job = held(node, s)
    (node.faults / "freeze.thaw").touch()
    (node.faults / "worker.snapshot.stuck").write_text("fail")
    os.kill(role(node, "guardian"), signal.SIGKILL)
    ended = node.wait(job)
    assert ended["state"] == "failed" and ended["result"]["cleanup"]["failed"][0]["object"] == str(fs.path), ended
    assert loop_fs.is_frozen(fs.path)
    session = node.call("GET", s).json
    assert session["state"] == "snapshot_failed" and session["hold"] is None, session
    assert session["frozen"]["file_systems"] == [str(fs.path)] and session["frozen"]["writers"] == [], session
    assert "quiesced thaw-all" in session["frozen"]["stuck"] and session["frozen"]["since"] < session["frozen"]["deadline"], session
    thaws = [event for event in past(node) if event["type"] == "session.thawed"]
    assert thaws == []
    (node.faults / "freeze.thaw").unlink()
    until(lambda: node.call("GET", s).json["frozen"] is None)
    assert not loop_fs.is_frozen(fs.path)
    thaws = [event for event in past(node) if event["type"] == "session.thawed"]
    assert [event["data"]["file_systems"] for event in thaws] == [[str(fs.path)]], thaws
    assert thaws[0]["data"]["window_ms"] is None and "stuck" not in thaws[0]["data"], thaws
    assert node.call("DELETE", s).status == 204


@pytest.fixture
def records_of_our_own(monkeypatch):
    """Whichever daemon starts on this machine thaws what nobody answers for any more: those of other tests must not see ours."""
    place = tempfile.mkdtemp(prefix="quiesced-test-", dir="/dev/shm")
    monkeypatch.setenv("RUNTIME_DIRECTORY", place)
    yield place
    shutil.rmtree(place)


def test_everything_is_killed_at_once(daemon, make_fs, records_of_our_own):
    """Nobody is left to thaw: the next start does, before it touches its own state directory, which lies on the frozen file system."""
    fs = make_fs()
    node = daemon(configuration(daemon.place))
    s, _ = prepared(node, fs.path)
    held(node, s)
    victims = [role(node, name) for name in ("guardian", "worker", "agent", "core", "front")] + [node.process.pid]
    for pid in victims:
        os.kill(pid, signal.SIGSTOP)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    node.process.wait()
    assert loop_fs.is_frozen(fs.path)
    node.start()
    assert not loop_fs.is_frozen(fs.path)
    assert "left frozen by an earlier run" in node.words()


def freeze_records(node):
    """Of this daemon, wherever this machine keeps them (daemon/guardian/record.c)."""
    installation = (node.place / "state" / "installation").read_text().strip()
    tops = ("/run/quiesced/freezes", "/dev/shm/quiesced/freezes", os.environ.get("RUNTIME_DIRECTORY", "/nowhere") + "/freezes")
    return [str(path) for top in tops for path in pathlib.Path(top).glob(f"{installation}.*")]


@pytest.mark.parametrize("point,kinds", [
    ("agent.guard", ["fail"]), ("guardian.ready", ["fail", "crash"]), ("guardian.mark", ["fail", "crash", "stop"]),
    ("guardian.freeze", ["fail", "crash", "stop"]),
    ("guardian.frozen", ["fail", "crash", "stop"]), ("guardian.thaw", ["crash", "stop"]), ("worker.snapshot.guard", ["fail", "crash"]),
    ("guardian.ipc.send", ["fail"]), ("guardian.ipc.receive", ["fail"]), ("worker.snapshot.create", ["crash"]), ("provider.create", ["fail", "crash"]),
    ("worker.snapshot.thaw", ["fail", "crash"]),
])
def test_fault_points(daemon, make_fs, point, kinds):
    """Nothing stays frozen, no record stays behind, and the next one succeeds."""
    fs = make_fs()
    node = daemon(configuration(daemon.place, [script(daemon.place, "echo done\n")], freeze_seconds=2))
    for kind in kinds:
        s, _ = prepared(node, fs.path)
        judge = loop_fs.Judge(fs.path)
        (node.faults / point).write_text(f"once {kind}")
        job = node.wait(node.call("POST", s + "/snapshot").json["id"])
        (node.faults / point).unlink(missing_ok=True)
        assert (node.faults / f"{point}.hit").exists(), f"{point} was not met"
        until(lambda: not loop_fs.is_frozen(fs.path), 60)
        assert job["state"] == "failed", (kind, job)
        judge.gaps()
        until(lambda: freeze_records(node) == [])
        node.call("DELETE", s)
        (node.faults / f"{point}.hit").unlink()
    s, _ = prepared(node, fs.path)
    assert node.job("POST", s + "/snapshot")["state"] == "succeeded"
