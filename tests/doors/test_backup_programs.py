"""restic and borg through with-snapshot: what they have backed up while the application wrote is consistent, and nothing stays behind."""
import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

import cluster
import doors
import manual_blocks
from doors import FAILED, NOT_THERE, SCRIPTS, until

PASSWORD = "none of your business"


class Restic:
    def __init__(self, place):
        self.place, self.repository = place, place / "restic"
        self.environment = {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(place / "cache")}
        self.call("init")

    def call(self, *argv):
        return subprocess.run(["restic", "-q", *map(str, argv)], check=True, capture_output=True, text=True, env={**os.environ, **self.environment}).stdout

    def count(self):
        return len(json.loads(self.call("--json", "snapshots")))

    def restore(self, target):
        self.call("restore", "latest", "--target", target)


class Borg:
    def __init__(self, place):
        self.place, self.repository = place, place / "borg"
        self.environment = {"BORG_REPO": str(self.repository), "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(place), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self.call("init", "--encryption", "repokey")

    def call(self, *argv, cwd=None):
        return subprocess.run(["borg", *map(str, argv)], check=True, capture_output=True, text=True, env={**os.environ, **self.environment}, cwd=cwd).stdout

    def count(self):
        return len(json.loads(self.call("list", "--json"))["archives"])

    def restore(self, target):
        target.mkdir()
        newest = json.loads(self.call("list", "--json"))["archives"][-1]["name"]
        self.call("extract", f"::{newest}", cwd=target)


@pytest.fixture
def node(daemon, file_systems):
    fs = file_systems("btrfs", 256)
    (fs.path / "tree").mkdir()
    (fs.path / "tree" / "file").write_bytes(os.urandom(100000))
    one = daemon(f"writers: [{{name: app, type: sqlite, databases: [{fs.path}/app.db]}}]\n{doors.shown_as_the_manual_says(daemon.place)}")
    one.fs = fs
    return one


def nothing_stays(node):
    assert node.call("GET", "/snapshots").json["items"] == []
    assert doors.sessions_of_holds(node) == []
    assert str(node.place / "shown") not in pathlib.Path("/proc/self/mounts").read_text()


def of_the_manual(program, path, shown):
    """The manual's line for that program, as words of a shell."""
    (text,) = manual_blocks.of("front-doors.md", __file__, [("/usr/lib/quiesced/front-doors", SCRIPTS), ("/srv/data", path), ("/mnt/quiesced/data", shown)])
    (line,) = [line for line in text.splitlines() if f" {program} " in line]
    return ["-euc", line]


@pytest.mark.parametrize("program, times", [(Restic, 2), (Borg, 1)], ids=["restic", "borg"])
def test_a_backup_program_backs_the_snapshot_up(node, load, program, times):
    writes = load(node.fs.path / "app.db")
    it, shown = program(node.place), node.place / "shown" / "data"
    for n in range(1, times + 1):  # the second time it finds the same paths
        before = writes.done
        doors.run(node, *of_the_manual(program.__name__.lower(), node.fs.path, shown), program="sh", **it.environment)
        after = writes.done
        nothing_stays(node)
        assert it.count() == n
        restored = node.place / f"restored-{n}"
        it.restore(restored)
        top = restored / str(shown).lstrip("/")
        assert before <= doors.rows_of(top / "app.db") <= after + 1
        assert (top / "tree" / "file").read_bytes() == (node.fs.path / "tree" / "file").read_bytes()
        shutil.rmtree(restored)
    writes.goes_on()


def test_a_postgresql_server_under_load_comes_back_out_of_restic(daemon, file_systems, database):
    """While pgbench went on: what restic has read starts, has every row that was acknowledged before, and agrees with itself."""
    fs = file_systems("btrfs", 1024)
    server = database(fs.path)
    shown = daemon.place / "shown" / "data"
    node = daemon(f"writers: [{server.writer}]\n{doors.shown_as_the_manual_says(daemon.place)}")
    it, least = Restic(node.place), server.acknowledged()
    doors.run(node, *of_the_manual("restic", fs.path, shown), program="sh", **it.environment)
    most = server.acknowledged()
    nothing_stays(node)
    job = node.call("GET", "/jobs?operation=DoSnapshotSet").json["items"][0]
    assert [one["grade"] for one in job["result"]["consistency"]["components"]] == ["application"], job
    it.restore(node.place / "restored")
    copy = node.place / "copy"  # where its server's user comes to
    (node.place / "restored" / str(shown).lstrip("/") / "cluster" / "data").rename(copy)
    assert cluster.started(copy, least) <= most + 1
    until(lambda: server.acknowledged() > most)


def test_with_snapshot_ends_as_its_command_does_and_leaves_nothing(node, load):
    load(node.fs.path / "app.db")
    shown, script = node.place / "shown" / "data", SCRIPTS / "with-snapshot"
    doors.run(node, node.fs.path, shown, "sh", "-c", "exit 7", program=script, code=7)
    nothing_stays(node)
    told = doors.run(node, node.fs.path / "tree", shown, "sh", "-c", "ls $QUIESCED_PLACE; ls " + str(shown), program=script).stdout.split()
    assert told[0] == "file" and {"app.db", "tree"} <= set(told[1:])
    nothing_stays(node)
    ran = node.place / "ran"
    doors.run(node, node.fs.path / "nowhere", shown, "touch", ran, program=script, code=NOT_THERE)
    assert not ran.exists(), "without a snapshot nothing is backed up"
    doors.run(node, node.fs.path, program=script, code=2)
    process = subprocess.Popen([script, node.fs.path, shown, "sh", "-c", f"touch {ran}; exec sleep 600"], env=doors.environment(node), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(ran.exists)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(120) == 143
    nothing_stays(node)


@pytest.mark.parametrize("command, ends", [("trap 'touch {told}; exit 5' TERM; touch {ran}; while :; do sleep 0.1; done", True), ("trap '' TERM; touch {ran}; exec sleep 600", False)],
                         ids=["ends when it is told", "does not listen"])
def test_a_signal_to_with_snapshot_alone_ends_its_command_and_removes_the_snapshot(node, command, ends):
    """A shell that waits for its command hears nothing until that has ended: hours, for a backup."""
    ran, told, shown = node.place / "ran", node.place / "told", node.place / "shown" / "data"
    process = subprocess.Popen([SCRIPTS / "with-snapshot", node.fs.path, shown, "sh", "-c", command.format(ran=ran, told=told)], env=doors.environment(node), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(ran.exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143 and told.exists() == ends
    nothing_stays(node)


def test_a_signal_while_the_snapshot_is_made_leaves_nothing(node, load):
    load(node.fs.path / "app.db")
    ran = node.place / "ran"
    gate = node.faults / "worker.snapshot.freeze"
    gate.write_text("hold")
    process = subprocess.Popen([SCRIPTS / "with-snapshot", node.fs.path, node.place / "shown" / "data", "touch", ran], env=doors.environment(node), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until((node.faults / "worker.snapshot.freeze.hit").exists)
    process.send_signal(signal.SIGTERM)
    until(lambda: doors.sessions_of_holds(node) == [])
    gate.unlink()
    assert process.wait(120) == 143 and not ran.exists()
    nothing_stays(node)


def test_a_signal_to_all_of_its_processes_while_the_snapshot_is_shown_leaves_nothing(node):
    """What systemd does: quiescectl has its signal already, and is not told to hurry by the script as well."""
    ran, gate = node.place / "ran", node.faults / "provider.expose"
    gate.write_text("hold")
    process = subprocess.Popen([SCRIPTS / "with-snapshot", node.fs.path, node.place / "shown" / "data", "touch", ran], env=doors.environment(node), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until((node.faults / "provider.expose.hit").exists)
    os.killpg(process.pid, signal.SIGTERM)
    until(lambda: process.poll() is not None or node.call("GET", "/audit?operation=snapshotDelete").json["items"])
    gate.unlink()
    assert process.wait(120) == 143 and not ran.exists()
    nothing_stays(node)


@pytest.mark.parametrize("happens, code", [("kill -TERM $PPID", 143), ("kill -KILL $$", 137)], ids=["a signal", "quiescectl is killed"])
def test_what_happens_right_after_the_snapshot_is_made_leaves_nothing(node, happens, code):
    """That there is one is known by its place, which is told, and by nothing that comes later."""
    ran, program = node.place / "ran", node.place / "bin" / "quiescectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n{doors.BUILD}/quiescectl "$@" || exit\n[ "$2" != create ] || {happens}\n')
    program.chmod(0o755)
    search = f"{program.parent}:{doors.environment(node)['PATH']}"
    doors.run(node, node.fs.path, node.place / "shown" / "data", "touch", ran, program=SCRIPTS / "with-snapshot", code=code, PATH=search)
    assert not ran.exists() and [one["operation"] for one in node.call("GET", "/audit?operation=snapshotDelete").json["items"]]
    nothing_stays(node)


def test_a_command_of_with_snapshot_has_its_input_and_hears_an_interrupt(node):
    shown = node.place / "shown" / "data"
    done = subprocess.run([SCRIPTS / "with-snapshot", node.fs.path, shown, "sh", "-c", "cat; kill -INT $$; sleep 600"], env=doors.environment(node), input="from a pipe", capture_output=True,
                          text=True, timeout=120)
    assert done.stdout == "from a pipe" and done.returncode == 130, done
    nothing_stays(node)


def test_pre_and_post_scripts_around_an_outside_snapshot(node, load):
    """AWS, Azure, Velero: two calls, and the second one tells whether the snapshot in between is good."""
    writes = load(node.fs.path / "app.db")
    script = SCRIPTS / "pre-post"
    doors.run(node, "pre", "--path", node.fs.path, program=script)
    assert doors.loop_fs.is_frozen(node.fs.path)
    doors.run(node, "post", program=script)
    writes.goes_on()
    doors.run(node, "pre", "--guest", "--path", node.fs.path, program=script)
    doors.run(node, "fail", program=script)
    writes.goes_on()
    doors.run(node, "post", program=script, code=NOT_THERE)
    doors.run(node, "sideways", program=script, code=2)
    doors.run(node, "pre", "--path", node.fs.path, program=script, QUIESCED_HOLD_NAME="mine")
    assert doors.loop_fs.thaw(node.fs.path) == 0
    doors.run(node, "post", program=script, code=FAILED, QUIESCED_HOLD_NAME="mine")
    nothing_stays(node)
