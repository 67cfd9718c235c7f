"""The real qemu-ga calls our hook; open-vm-tools' scripts as vmtoolsd calls them (the program itself does not run without a hypervisor).

qemu-ga never sees more than it must: it runs in mount and pid namespaces of its own, from which every other test's file system is gone, its
command that freezes everything is off, and it is asked for one named mount point alone."""
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess

import pytest

import doors
import loop_fs
import manual_blocks
from doors import FAILED, NOT_THERE, SCRIPTS, until

# Unmounts, in the namespace alone, whatever lies on a device and is neither the root nor ours; then there is nothing else to be frozen or thawed.
ENTER = """
set -eu
ours=$1; shift
mount --make-rprivate /
awk '$1 ~ "^/dev/" && $2 != "/" {print $2}' /proc/self/mounts | sort -r | while read -r place; do
  case $place in "$ours") ;; /etc/*|/dev*|/proc*|/sys*) ;; *) umount -l "$place" || : ;; esac  # gone meanwhile: another test has removed it
done
mount -t proc proc /proc
exec "$@"
"""


def of_the_manual():
    """What the manual has for /etc/default/qemu-guest-agent, read as a shell reads it: qemu-ga's arguments."""
    (text,) = manual_blocks.of("front-doors.md", __file__, [("/usr/lib/quiesced/front-doors", SCRIPTS)])
    name, _, arguments = shlex.split(text, comments=True)[0].partition("=")
    assert name == "DAEMON_ARGS"
    return arguments.split()


class Agent:
    def __init__(self, node, fs, **more):
        self.fs, self.place = fs, node.place / "qga"
        self.place.mkdir(exist_ok=True)
        self.path = self.place / "socket"
        self.path.unlink(missing_ok=True)
        if not shutil.which("qemu-ga"):
            pytest.skip("qemu-guest-agent is not installed")
        self.log = open(self.place / "log", "ab")
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh", str(fs.path),
             "qemu-ga", "-m", "unix-listen", "-p", str(self.path), "-t", str(self.place), "-f", str(self.place / "pid"), "-b", "guest-fsfreeze-freeze",
             *of_the_manual(), "-v"],
            stdout=self.log, stderr=self.log, env=doors.environment(node, QUIESCED_HOLD_OPTIONS=f"--path {fs.path}", **more), start_new_session=True)
        until(lambda: self.path.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, (self.place / "log").read_text()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(180)
        self.socket.connect(str(self.path))
        self.lines = self.socket.makefile("rb")

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        return json.loads(self.lines.readline())

    def freeze(self):
        return self.ask("guest-fsfreeze-freeze-list", mountpoints=[str(self.fs.path)])

    def thaw(self):
        return self.ask("guest-fsfreeze-thaw")

    def only_ours(self):
        """What this agent could freeze at all."""
        pid = self.pids()[-1]
        mounts = [line.split()[:2] for line in pathlib.Path(f"/proc/{pid}/mounts").read_text().splitlines()]
        return {place for device, place in mounts if device.startswith("/dev/") and not place.startswith(("/etc/", "/dev"))} - {"/"}

    def pids(self):
        """unshare, and what it has started."""
        found = [self.process.pid]
        for pid in found:
            found += [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return found

    def kill(self):
        for pid in reversed(self.pids()):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.close()

    def close(self):
        self.socket.close()
        self.lines.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


@pytest.fixture
def guest(daemon, file_systems, load):
    """guest(…): daemon, file system with a busy database, qemu-ga."""
    agents = []

    def start(freeze_seconds=60, **more):
        fs = file_systems()
        node = daemon(f"writers: [{{name: app, type: sqlite, databases: [{fs.path}/app.db]}}]\nlimits: {{freeze_seconds: {freeze_seconds}}}\n")
        agents.append(Agent(node, fs, **more))
        assert agents[-1].only_ours() == {str(fs.path)}
        return node, fs, load(fs.path / "app.db"), agents[-1]

    yield start
    for agent in agents:
        agent.close()


def test_qemu_ga_freezes_and_thaws_with_the_applications_held(guest):
    node, fs, load, agent = guest()
    assert agent.freeze() == {"return": 1}
    assert agent.ask("guest-fsfreeze-status") == {"return": "frozen"}
    assert loop_fs.is_frozen(fs.path)
    held = node.call("GET", "/holds").json["items"]
    assert [(one["label"], one["frozen"]) for one in held] == [("hold:qemu-ga", True)]
    assert agent.thaw()["return"] >= 1
    assert agent.ask("guest-fsfreeze-status") == {"return": "thawed"}
    assert not loop_fs.is_frozen(fs.path)
    load.goes_on()
    assert node.call("GET", "/holds").json["items"] == [] and doors.sessions_of_holds(node) == []
    jobs = node.call("GET", "/jobs?limit=500").json["items"]
    assert [job["state"] for job in jobs if job["operation"] in ("DoSnapshotSet", "BackupComplete")] == ["succeeded"] * 2
    assert "return" in agent.thaw(), "a thaw without a freeze is none of ours"


def test_a_freeze_that_the_applications_refuse_is_told_to_the_host(guest):
    node, fs, load, agent = guest()
    node.stop()
    answer = agent.freeze()
    assert "fsfreeze hook has failed" in answer["error"]["desc"], answer
    assert not loop_fs.is_frozen(fs.path)
    load.goes_on()


def test_qemu_ga_is_killed_while_it_has_frozen(guest):
    """Its own freeze would stay for ever; it is within our lease, and ends with that."""
    node, fs, load, agent = guest(freeze_seconds=4)
    assert agent.freeze() == {"return": 1}
    agent.kill()
    load.goes_on()
    assert not loop_fs.is_frozen(fs.path)
    assert "did not stay frozen" in doors.hold(node, "thaw", "--name", "qemu-ga", code=FAILED).stderr


def test_the_daemon_is_killed_while_qemu_ga_has_frozen(guest):
    """Nothing waits for it, and the host hears that its snapshot is not consistent."""
    node, fs, load, agent = guest()
    assert agent.freeze() == {"return": 1}
    node.process.kill()
    node.process.wait()
    load.goes_on()
    node.start()
    answer = agent.thaw()
    assert "fsfreeze hook has failed" in answer["error"]["desc"], answer
    assert not loop_fs.is_frozen(fs.path)
    assert agent.freeze() == {"return": 1}, "the next one is good again"
    assert "return" in agent.thaw()
    load.goes_on()


def test_the_hook_is_killed_while_it_freezes(guest):
    node, fs, load, agent = guest(freeze_seconds=4)
    (node.faults / "worker.snapshot.freeze").write_text("hold")
    agent.socket.sendall(json.dumps({"execute": "guest-fsfreeze-freeze-list", "arguments": {"mountpoints": [str(fs.path)]}}).encode() + b"\n")
    until(lambda: (node.faults / "worker.snapshot.freeze.hit").exists())
    hooks = [pid for pid in agent.pids() if b"quiescectl" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(hooks) == 1
    os.kill(hooks[0], signal.SIGKILL)
    assert "fsfreeze hook" in json.loads(agent.lines.readline())["error"]["desc"]
    assert not loop_fs.is_frozen(fs.path)
    (node.faults / "worker.snapshot.freeze").unlink()
    load.goes_on()
    assert doors.hold(node, "thaw", "--name", "qemu-ga", code=None).returncode in (FAILED, 0)
    until(lambda: doors.sessions_of_holds(node) == [])
    load.goes_on()


# --- open-vm-tools ---

def vmtoolsd(node, fs, verb, code=0):
    """As vmtoolsd does: the script of backupScripts.d with the phase as its only argument."""
    scripts = node.place / "backupScripts.d"
    scripts.mkdir(exist_ok=True)
    script = scripts / "10-quiesced"
    if not script.exists():
        shutil.copy(SCRIPTS / "open-vm-tools", script)
    return doors.run(node, verb, program=script, code=code, QUIESCED_HOLD_OPTIONS=f"--path {fs.path}")


def test_the_scripts_of_open_vm_tools(daemon, file_systems, load):
    fs = file_systems("xfs")
    node = daemon(f"writers: [{{name: app, type: sqlite, databases: [{fs.path}/app.db]}}]\nlimits: {{freeze_seconds: 5}}\n")
    writes = load(fs.path / "app.db")
    vmtoolsd(node, fs, "freeze")
    assert loop_fs.freeze(fs.path) == 0 and loop_fs.thaw(fs.path) == 0  # the sync driver's part
    vmtoolsd(node, fs, "thaw")
    writes.goes_on()
    vmtoolsd(node, fs, "freeze")
    vmtoolsd(node, fs, "freezeFail")
    writes.goes_on()
    vmtoolsd(node, fs, "freezeFail")
    vmtoolsd(node, fs, "thaw", code=NOT_THERE)
    vmtoolsd(node, fs, "freeze")
    assert loop_fs.freeze(fs.path) == 0
    writes.goes_on()  # nobody calls any more
    vmtoolsd(node, fs, "thaw", code=FAILED)
    vmtoolsd(node, fs, "sideways", code=2)
