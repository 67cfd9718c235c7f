"""quiescectl hold: a freeze that lasts across calls and ends in every way, and snapshots by one call."""
import errno
import json
import os
import signal
import sqlite3
import subprocess

import pytest

import doors
import loop_fs
from streams import principals, token_of
from doors import BAD_STATE, FAILED, NOT_THERE, OK, USAGE, hold, until


def configuration(place, database=None, freeze_seconds=60, more=""):
    (place / "shown").mkdir(exist_ok=True)
    writers = f"writers: [{{name: app, type: sqlite, databases: [{database}]}}]\n" if database else ""
    return f"{writers}limits: {{freeze_seconds: {freeze_seconds}}}\nexpose: {{roots: [{place}/shown]}}\nproviders: {{copy: {{}}}}\n{more}"


def is_held(database):
    """Would a write have to wait?"""
    try:
        other = sqlite3.connect(database, timeout=0, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        return False
    except sqlite3.OperationalError as trouble:
        assert "locked" in str(trouble)
        return True


@pytest.fixture
def held(daemon, file_systems, load):
    """held(kind, …): a daemon, and a file system with a database that is written to."""
    def start(kind="ext4", **more):
        fs = file_systems(kind)
        node = daemon(configuration(daemon.place, fs.path / "app.db", **more))
        return node, fs, load(fs.path / "app.db")
    return start


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_frozen_by_one_call_and_thawed_by_another(held, kind):
    node, fs, load = held(kind)
    hold(node, "check", code=NOT_THERE)
    hold(node, "thaw", code=NOT_THERE)
    hold(node, "freezefail", code=OK)
    assert hold(node, "--json", "freezefail", code=OK).stdout == "null\n", "also when nothing is held"
    told = hold(node, "freeze", "--path", fs.path).stdout
    assert "default: frozen since" in told
    assert loop_fs.is_frozen(fs.path)
    assert "frozen since" in hold(node, "check").stdout
    hold(node, "check", "--name", "other", code=NOT_THERE)
    assert "frozen already" in hold(node, "freeze", "--path", fs.path, code=BAD_STATE).stderr
    assert loop_fs.is_frozen(fs.path), "a refusal changes nothing"
    at_freeze = load.done
    assert "thawed; it stayed frozen for" in hold(node, "thaw", "--outside-id", "vol-7").stdout
    assert not loop_fs.is_frozen(fs.path)
    assert at_freeze <= load.done
    load.goes_on()
    hold(node, "thaw", code=NOT_THERE)
    assert doors.sessions_of_holds(node) == []
    jobs = node.call("GET", "/jobs?operation=BackupComplete").json["items"]
    assert [job["state"] for job in jobs] == ["succeeded"]
    assert node.call("GET", "/snapshots").json["items"] == [], "what is outside is not ours"


def test_what_is_outside_of_the_named_file_systems_is_not_held(daemon, file_systems, load):
    inside, outside = file_systems(), file_systems()
    config = configuration(daemon.place).replace("limits:", f"""writers:
  - {{name: in, type: sqlite, databases: [{inside.path}/app.db]}}
  - {{name: out, type: sqlite, databases: [{outside.path}/app.db]}}
limits:""")
    node = daemon(config)
    loads = [load(inside.path / "app.db"), load(outside.path / "app.db")]
    hold(node, "freeze", "--path", inside.path)
    assert not loop_fs.is_frozen(outside.path)
    loads[1].goes_on()
    hold(node, "thaw")
    loads[0].goes_on()


def test_an_application_at_another_mount_of_what_is_frozen_is_held(daemon, file_systems, load):
    fs = file_systems("btrfs")
    subprocess.run(["btrfs", "-q", "subvolume", "create", fs.path / "inner"], check=True, capture_output=True)
    other = daemon.place / "other"
    other.mkdir()
    subprocess.run(["mount", "-o", "subvol=inner", fs.device, other], check=True)
    try:
        node = daemon(configuration(daemon.place, other / "app.db"))
        writes = load(other / "app.db")
        hold(node, "freeze", "--path", fs.path)
        job = node.call("GET", "/jobs?operation=PrepareForBackup").json["items"][0]
        assert [writer["failure"] for writer in job["result"]["writers"]] == ["S_OK"]
        assert [one["frozen"]["writers"] for one in node.call("GET", "/sessions").json["items"]] == [["app"]], "it is frozen with its file system"
        hold(node, "thaw")
        writes.goes_on()
        writes.stop()
        node.stop()
    finally:
        subprocess.run(["umount", "-l", other], check=True)


def test_an_application_of_which_a_part_lies_elsewhere_is_no_half_success(daemon, file_systems):
    """Its files are on two volumes, and one of them would be in the snapshot: refused, with both names; nothing is left."""
    fs, other = file_systems("btrfs"), file_systems("btrfs")
    sets = json.dumps([{"type": "filegroup", "logical_path": "", "name": "main", "selectable": True,
                        "file_sets": [{"path": str(one.path), "spec": "*", "recursive": True} for one in (fs, other)]}])
    node = daemon(configuration(daemon.place, more=f"""writers:
  - {{name: wide, type: exec, command: [{doors.SOURCE}/tests/writers/recorder], environment: {{COMPONENTS: '{sets}'}}}}
"""))
    said = hold(node, "create", fs.path, code=None)
    assert said.returncode != OK and str(other.path) in said.stderr and "wide" in said.stderr, said
    assert node.call("GET", "/snapshots").json["items"] == [] and doors.sessions_of_holds(node) == []
    hold(node, "freeze", "--path", fs.path, "--path", other.path)
    hold(node, "thaw")


def test_nobody_comes_back(held):
    """The daemon thaws at the deadline, and the thaw that comes later says that the snapshot is worth nothing: once."""
    node, fs, load = held(freeze_seconds=2)
    hold(node, "freeze", "--path", fs.path)
    load.goes_on()
    assert not loop_fs.is_frozen(fs.path)
    until(lambda: node.call("GET", "/holds").json["items"][0]["state"] == "snapshot_failed")
    assert "not frozen any more" in hold(node, "check", code=FAILED).stderr
    said = hold(node, "thaw", code=FAILED).stderr
    assert "did not stay frozen" in said and "not consistent" in said and "DoSnapshotSet failed: " in said
    assert "nobody released the hold before its deadline" in said and "The release came too late: release sooner, or give every hold more time" in said, said
    hold(node, "thaw", code=NOT_THERE)
    hold(node, "freeze", "--path", fs.path)
    hold(node, "thaw")


def test_the_one_who_thaws_behind_our_back_is_told(held):
    node, fs, load = held()
    hold(node, "freeze", "--path", fs.path)
    assert loop_fs.thaw(fs.path) == 0
    assert "did not stay frozen" in hold(node, "thaw", code=FAILED).stderr
    load.goes_on()


def test_given_up(held):
    node, fs, load = held()
    hold(node, "freeze", "--name", "vm", "--path", fs.path)
    assert hold(node, "--json", "freezefail", "--name", "vm").stdout == "null\n"
    assert not loop_fs.is_frozen(fs.path)
    load.goes_on()
    hold(node, "thaw", "--name", "vm", code=NOT_THERE)
    assert doors.sessions_of_holds(node) == []


def test_the_daemon_dies_in_between(held):
    node, fs, load = held()
    hold(node, "freeze", "--path", fs.path)
    node.process.kill()
    node.process.wait()
    load.goes_on()
    assert not loop_fs.is_frozen(fs.path)
    until(lambda: not doors.answers(node))
    assert "Is the daemon running?" in hold(node, "thaw", code=doors.UNREACHED).stderr
    node.start()
    assert "did not stay frozen" in hold(node, "thaw", code=FAILED).stderr
    hold(node, "thaw", code=NOT_THERE)


def test_a_freeze_that_fails_leaves_nothing(held):
    node, fs, load = held()
    assert "proc cannot be frozen" in hold(node, "freeze", "--path", "/proc", code=BAD_STATE).stderr
    hold(node, "freeze", "--path", fs.path / "nowhere", code=NOT_THERE)
    assert not loop_fs.is_frozen(fs.path)
    assert doors.sessions_of_holds(node) == []
    load.goes_on()
    hold(node, "freeze", "--path", fs.path)
    hold(node, "thaw")


def test_an_interrupt_while_it_freezes_leaves_nothing(held):
    node, fs, load = held()
    (node.faults / "worker.snapshot.freeze").write_text("hold")
    process = subprocess.Popen([str(doors.BUILD / "quiescectl"), "hold", "freeze", "--path", str(fs.path)], env=doors.environment(node),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: (node.faults / "worker.snapshot.freeze.hit").exists())
    process.send_signal(signal.SIGTERM)
    until(lambda: doors.sessions_of_holds(node) == [])
    (node.faults / "worker.snapshot.freeze").unlink()
    _, said = process.communicate(timeout=120)
    assert process.returncode == doors.CANCELLED, said
    assert not loop_fs.is_frozen(fs.path)
    load.goes_on()


@pytest.mark.parametrize("signals", [1, 2])
def test_an_interrupt_while_the_snapshot_is_being_shown_removes_it(daemon, file_systems, signals):
    """Its exposure is in the daemon's hands still when it is given up: what is to be removed is then asked for until it is let go of."""
    fs, node = file_systems("btrfs"), daemon(configuration(daemon.place))
    (node.place / "shown" / "app").mkdir()
    gate = node.faults / "provider.expose"
    gate.write_text("hold")
    process = subprocess.Popen([str(doors.BUILD / "quiescectl"), "hold", "create", str(fs.path), "--at", str(node.place / "shown" / "app")], env=doors.environment(node),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until((node.faults / "provider.expose.hit").exists)
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None or not doors.pending(process, signal.SIGTERM))
    until(lambda: process.poll() is not None or node.call("GET", "/audit?operation=snapshotDelete").json["items"])
    gate.unlink()
    told, said = process.communicate(timeout=120)
    assert process.returncode == doors.UNREACHED and told == "", said
    assert node.call("GET", "/snapshots").json["items"] == [] and doors.sessions_of_holds(node) == [], said


# --- the guest's agent freezes, we hold the applications ---

def test_a_guest_agent_freezes_within_our_hold(held):
    node, fs, load = held()
    hold(node, "freeze", "--guest", "--path", fs.path)
    assert is_held(fs.path / "app.db")
    assert loop_fs.freeze(fs.path) == 0, "it is the agent's to freeze"
    assert loop_fs.thaw(fs.path) == 0
    hold(node, "thaw")
    load.goes_on()
    assert node.call("GET", "/holds").json["items"] == []


@pytest.mark.parametrize("who", ["agent", "daemon"])
def test_the_file_system_of_our_own_store_is_frozen(daemon, file_systems, who):
    """The ordinary case: all of the machine is frozen, by a guest's agent or by us. Who has to thaw finds the hold all the same."""
    fs = file_systems()
    state = daemon.place / "state"
    state.mkdir()
    subprocess.run(["mount", "--bind", fs.path, state], check=True)
    try:
        node = daemon(configuration(daemon.place))
        hold(node, "freeze", *(["--guest"] if who == "agent" else []), "--path", fs.path)
        assert loop_fs.freeze(fs.path) == (0 if who == "agent" else errno.EBUSY)
        assert "frozen since" in hold(node, "check").stdout
        if who == "agent":
            assert loop_fs.thaw(fs.path) == 0
        hold(node, "thaw")
        assert not loop_fs.is_frozen(fs.path)
        assert doors.sessions_of_holds(node) == []
        node.stop()
    finally:
        subprocess.run(["umount", "-l", state], check=True)


@pytest.mark.parametrize("death", ["agent", "daemon", "worker", "everything"])
def test_an_agent_that_dies_leaves_nothing_frozen(held, death):
    """Its freeze is within our lease: it ends at the deadline, or with whoever of us dies."""
    node, fs, load = held(freeze_seconds=4 if death == "agent" else 60)
    hold(node, "freeze", "--guest", "--path", fs.path)
    assert loop_fs.freeze(fs.path) == 0
    if death == "daemon":
        node.process.kill()
        node.process.wait()
    elif death == "worker":
        os.kill(next(pid for pid in descendants(node) if role_of(pid) == "worker"), signal.SIGKILL)
    elif death == "everything":  # at once: only the record on tmpfs knows of it, and the next start
        victims = [pid for pid in descendants(node) if role_of(pid)] + [node.process.pid]
        for how in (signal.SIGSTOP, signal.SIGKILL):
            for pid in victims:
                os.kill(pid, how)
        node.process.wait()
        assert loop_fs.is_frozen(fs.path)
        node.start()
    load.goes_on()
    assert not loop_fs.is_frozen(fs.path)
    if death == "daemon":
        node.start()
    assert "did not stay frozen" in hold(node, "thaw", code=FAILED).stderr


def descendants(node):
    todo, found = [node.process.pid], []
    while todo:
        pid = todo.pop()
        try:
            children = [int(child) for task in os.listdir(f"/proc/{pid}/task") for child in open(f"/proc/{pid}/task/{task}/children").read().split()]
        except OSError:
            continue
        todo += children
        found += children
    return found


def role_of(pid):
    """Of a process of the daemon; None of a writer."""
    try:
        words = open(f"/proc/{pid}/cmdline", "rb").read().decode().split("\0")
    except OSError:
        return None
    return next((word.removeprefix("--role=") for word in words if word.startswith("--role=")), None)


# --- snapshots by one call ---

def test_a_snapshot_is_made_shown_and_removed(held):
    node, fs, load = held("btrfs")
    (fs.path / "file").write_text("before")
    assert hold(node, "check", fs.path).stdout.strip() == str(fs.path)
    at = node.place / "shown" / "app"
    at.mkdir()
    before = load.done
    made = hold(node, "create", fs.path, "--at", at, "--at-least", "application")
    after = load.done
    assert made.stdout == f"{at}\n" and "grade application" in made.stderr
    (fs.path / "file").write_text("after")
    assert (at / "file").read_text() == "before"
    assert before <= doors.rows_of(at / "app.db") <= after + 1
    assert doors.sessions_of_holds(node) == []
    hold(node, "delete", at)
    assert list(at.iterdir()) == [] and node.call("GET", "/snapshots").json["items"] == []
    hold(node, "delete", at, code=NOT_THERE)
    one = json.loads(hold(node, "--json", "create", fs.path).stdout)
    assert one["place"].endswith(one["snapshot_id"]) and one["provider"] == "btrfs" and one["consistency"]["grade"] == "application"
    assert doors.rows_of(one["place"] + "/app.db") >= after
    assert hold(node, "--json", "delete", one["place"]).stdout == "null\n"
    load.goes_on()


def test_a_snapshot_that_is_not_good_enough_is_not_made(daemon, file_systems):
    fs = file_systems("btrfs")
    (fs.path / "inner").mkdir()
    node = daemon(configuration(daemon.place))
    said = hold(node, "create", fs.path, "--at-least", "application", code=FAILED).stderr
    assert "would be of grade filesystem, and application was asked for" in said
    assert node.call("GET", "/snapshots").json["items"] == []
    at = node.place / "shown" / "here"
    at.mkdir()
    (at / "occupied").touch()
    hold(node, "create", fs.path, "--at", at, code=doors.BAD_ARGUMENT)
    hold(node, "create", fs.path, "--at", "/mnt/elsewhere", code=doors.BAD_ARGUMENT)
    assert node.call("GET", "/snapshots").json["items"] == [] and doors.sessions_of_holds(node) == []
    (at / "occupied").unlink()
    assert hold(node, "create", fs.path / "inner", "--at", at).stdout == f"{at}/inner\n"
    hold(node, "delete", at / "inner")
    assert node.call("GET", "/snapshots").json["items"] == []


def test_a_hold_is_seen_by_its_owner_and_by_those_who_watch(daemon, file_systems):
    fs = file_systems()
    node = daemon(configuration(daemon.place, more=principals(anna="operator", otto="operator", viktor="viewer")))
    made = hold(node, "freeze", "--path", fs.path, "--name", "hers", *as_token(node, "anna"))
    assert "hers: frozen" in made.stdout
    for name, sees in (("anna", True), ("otto", False), ("viktor", True)):
        items = node.call("GET", "/holds", token=token_of(name)).json["items"]
        assert [one["label"] for one in items] == (["hold:hers"] if sees else []), name
    assert node.call("GET", "/holds?label=hold:his").json["items"] == []
    hold(node, "thaw", "--name", "hers", *as_token(node, "otto"), code=NOT_THERE)
    assert loop_fs.is_frozen(fs.path)
    hold(node, "thaw", "--name", "hers", *as_token(node, "anna"))


def as_token(node, name):
    """The options with which quiescectl is that principal."""
    path = node.place / f"{name}.token"
    path.write_text(token_of(name))
    return ["--url", node.ready["url"], "--ca", node.ready["ca"], "--token-file", path]


def test_words_that_are_none(daemon):
    node = daemon()
    for words in (["freeze", "--sideways"], ["thaw", "--path", "/srv"], ["create"], ["create", "/a", "/b"], ["create", "/a", "--at-least", "perfect"],
                  ["delete"], ["check", "/a", "/b"], ["freeze", "more"], ["fly"]):
        hold(node, *words, code=USAGE)
    helped = hold(node, "--help").stdout
    for name in ("freeze", "thaw", "freezefail", "check", "create", "delete"):
        assert f"hold {name}" in helped
    assert "hold) names=\"$names freezefail\"" in doors.run(node, "completion", "bash").stdout


def test_a_repository_of_the_api_beneath_what_is_held_does_not_keep_it_from_being_held(held):
    """Nobody copies what is held for an outside snapshot: what lies where in it is the concern of who takes that."""
    node, fs, _ = held()
    (fs.path / "backups").mkdir()
    made = node.call("POST", "/repositories", {"name": "inside", "mover": "archive", "path": str(fs.path / "backups")})
    assert made.status == 201, made
    assert "frozen since" in hold(node, "freeze", "--path", fs.path).stdout
    assert loop_fs.is_frozen(fs.path)
    hold(node, "thaw")
