"""Each role a process that somebody else has started, as under systemd (packaging/systemd): sockets passed to serve, where the roles report for duty."""
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest

import journey
from conftest import BUILD, Daemon
from daemon import ASAN
from receiver import Receiver, until

ROLES = {"front": "daemon", "core": "bin", "agent": "root", "courier": "games"}  # users that every Debian has
RUN_AS = "run_as: {front: daemon, core: bin, courier: games}\n"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="roles of several users need root")


class Unit:
    """What a service manager does for a role: starts it as its user, and again whenever it ends."""

    def __init__(self, node, role, user):
        self.node, self.role, self.user, self.ending, self.process = node, role, user, False, None
        self.starts = 0
        self.thread = threading.Thread(target=self.keep, daemon=True)
        self.thread.start()

    def command(self):
        program = f"quiesced-{self.role}" if self.role in ("agent", "courier") else "quiesced"
        return [self.node.binaries / program, f"--role={self.role}", "--join", self.node.place / f"{self.role}.sock"]

    def keep(self):
        entry = pwd.getpwnam(self.user)
        while not self.ending:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=self.node.log, stderr=self.node.log, env=self.node.environment, cwd="/",
                                            start_new_session=True, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], umask=0o077)
            self.starts += 1
            self.process.wait()
            time.sleep(0.05)

    def stop(self):
        self.ending = True
        self.thread.join(60)
        if self.thread.is_alive():
            self.process.kill()
            self.thread.join(60)


class Apart(Daemon):
    """A daemon whose roles are no children of serve."""

    def __init__(self, place, config, listen=False):
        super().__init__(place, RUN_AS + config)
        self.binaries = self.place / "bin"
        self.binaries.mkdir()
        for binary in BUILD.glob("quiesced*"):
            if binary.is_file() and os.access(binary, os.X_OK):
                shutil.copy(binary, self.binaries)
        self.sockets, self.units = {}, {}
        for role, user in ROLES.items():
            one = socket.socket(socket.AF_UNIX)
            one.bind(str(self.place / f"{role}.sock"))
            os.chown(self.place / f"{role}.sock", pwd.getpwnam(user).pw_uid, 0)
            os.chmod(self.place / f"{role}.sock", 0o600)
            one.listen(8)
            self.sockets[role] = one
        if listen:
            self.sockets["listen"] = socket.create_server(("127.0.0.1", 0))

    def start(self):
        self.log = open(self.place / "daemon.log", "ab")
        self.environment = dict(os.environ, QUIESCED_FAULT_DIR=str(self.faults), ASAN_OPTIONS=f"detect_leaks=1:{ASAN}:abort_on_error=0:log_path={self.reports}/asan",
                                UBSAN_OPTIONS=f"print_stacktrace=1:log_path={self.reports}/ubsan")
        self.serve()
        for role, user in ROLES.items():
            self.units[role] = Unit(self, role, user)
        self.await_ready()
        return self

    def serve(self):
        """As systemd passes sockets: from descriptor 3 on, their names and the process they are meant for in the environment."""
        names, fds = list(self.sockets), [one.fileno() for one in self.sockets.values()]
        high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
        script = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(high))
        closing = " ".join(f"{fd}<&-" for fd in high)
        options = [] if "listen" in self.sockets else ["--listen", "127.0.0.1:0"]
        self.ready_file = self.place / "ready.json"
        self.ready_file.unlink(missing_ok=True)
        self.process = subprocess.Popen(["bash", "-c", f'exec {script} {closing}; LISTEN_PID=$$ exec "$@"', "bash", self.binaries / "quiesced", "serve", "--config",
                                         self.place / "quiesced.yaml", "--state-dir", self.place / "state", *options, "--ready-file", self.ready_file],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, pass_fds=high, start_new_session=True,
                                        env={**self.environment, "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(names), **self.notify()})
        for fd in high:
            os.close(fd)

    def notify(self):
        return {}

    def await_ready(self):
        deadline = time.monotonic() + 90
        while not self.ready_file.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.words()
            time.sleep(0.02)
        self.ready = json.loads(self.ready_file.read_text())

    def served_anew(self, before):
        """Every role is another process than before, and serves."""
        until(lambda: self.ready_file.exists() and all(self.units[role].process.pid != before[role] for role in before))
        until(lambda: self.answers())

    def answers(self):
        return subprocess.run(["curl", "-sS", "--fail", "--max-time", "20", "--cacert", self.ready["ca"], "--cert", self.ready["cert"], "--key", self.ready["key"],
                               self.ready["url"] + "/health/ready"], capture_output=True).returncode == 0

    def pids(self):
        return {role: unit.process.pid for role, unit in self.units.items() if role != "courier"}

    def end(self):
        for unit in self.units.values():
            unit.ending = True
        status = self.stop()
        for unit in self.units.values():
            if unit.process and unit.process.poll() is None and unit.role == "courier":
                unit.process.terminate()
            unit.stop()
        for one in self.sockets.values():
            one.close()
        return status


@pytest.fixture
def apart():
    place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-test-", dir="/var/tmp"))
    place.chmod(0o755)
    made = []

    def start(config="", kind=Apart, **more):
        made.append(kind(place, config, **more))
        return made[-1].start()

    start.place = place
    yield start
    for one in made:
        one.end()
        reports = one.sanitized()
        shutil.rmtree(place, ignore_errors=True)
        assert not reports, "\n".join(reports)
    shutil.rmtree(place, ignore_errors=True)


def test_a_backup_and_its_restore_and_an_end_in_order(apart):
    node = apart(journey.lay_out(apart.place))
    children = subprocess.run(["pgrep", "-P", str(node.process.pid), "-a"], capture_output=True, text=True).stdout
    assert "--role=" not in children.replace("--role=logger", ""), f"serve starts no role: {children}"
    backup = journey.back_up(node, "copy")
    journey.restore(node, backup)
    place = node.place / "restored" / "made" / "on the way"
    job = node.job("POST", f"/backups/{backup}/restore", {"target": str(place), "paths": [], "overwrite": True})
    assert job["state"] == "succeeded", job
    assert [oct(folder.stat().st_mode & 0o7777) for folder in (place.parent, place)] == ["0o755", "0o755"], "as without units, whatever their UMask="
    for unit in node.units.values():
        unit.ending = True
    assert node.stop() == 0
    assert all(node.units[role].process.wait(60) == 0 for role in ("front", "core", "agent")), node.words()[-2000:]


@pytest.mark.parametrize("victim", ["front", "core", "agent"])
def test_one_that_is_killed_takes_the_others_along_and_all_report_again(apart, victim):
    node = apart()
    before = node.pids()
    node.ready_file.unlink()
    os.kill(before[victim], signal.SIGKILL)
    node.served_anew(before)
    assert node.process.poll() is None


def test_roles_outlive_a_killed_serve_only_to_serve_the_next_one(apart):
    node = apart()
    before = node.pids()
    node.process.kill()
    node.process.wait()
    until(lambda: all(node.units[role].process.pid != before[role] for role in before))
    node.serve()
    node.await_ready()
    assert node.answers()


def test_a_stopped_role_is_replaced(apart):
    node = apart("limits: {watchdog_seconds: 1}\n")
    before = node.pids()
    node.ready_file.unlink()
    os.kill(before["core"], signal.SIGSTOP)
    node.served_anew(before)
    assert "does not answer: killed" in node.words()


def test_who_runs_as_somebody_else_is_sent_away(apart):
    node = apart()
    intruder = subprocess.run([node.binaries / "quiesced", "--role=core", "--join", node.place / "core.sock"], capture_output=True, text=True, timeout=60,
                              env=node.environment)  # root reaches the socket, and is not core
    assert intruder.returncode == 0, intruder
    until(lambda: "core reports for duty, and is sent away: it runs as user 0" in node.words())
    assert node.answers()


def test_the_sockets_of_a_service_manager_stand_in_for_the_configurations(apart):
    node = apart("listen: ['127.0.0.1:1']\n", listen=True)
    port = node.sockets["listen"].getsockname()[1]
    assert node.ready["url"] == f"https://127.0.0.1:{port}" and node.answers()
    node.process.send_signal(signal.SIGHUP)
    until(lambda: "configuration read again" in node.words())
    assert "listen has changed" not in node.words() and node.answers()


def test_webhooks_are_delivered_by_a_courier_that_is_a_unit(apart, tmp_path):
    receiver = Receiver(tmp_path)
    try:
        node = apart("webhooks: {allow_private: ['127.0.0.0/8', '::1/128']}\n")
        made = node.call("POST", "/webhooks", {"url": receiver.url, "ca_pem": receiver.ca})
        assert made.status == 201, made
        session = node.call("POST", "/sessions", {"kind": "backup", "label": "told"}).json
        assert node.call("DELETE", "/sessions/" + session["id"]).status in (202, 204)
        until(lambda: [one for one in receiver.received if one.event["data"].get("session_id") == session["id"]])
    finally:
        receiver.close()


class Watched(Apart):
    def __init__(self, place, config, **more):
        super().__init__(place, config, **more)
        self.heard, self.socket = [], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.place / "notify.sock"))
        threading.Thread(target=self.hear, daemon=True).start()

    def hear(self):
        while True:
            try:
                self.heard.append(self.socket.recv(4096).decode())
            except OSError:
                return

    def notify(self):
        return {"NOTIFY_SOCKET": str(self.place / "notify.sock"), "WATCHDOG_USEC": "300000"}

    def end(self):
        status = super().end()
        self.socket.close()
        return status


def test_the_service_manager_hears_that_it_is_alive_only_while_its_roles_answer(apart):
    node = apart(kind=Watched)  # limits.watchdog_seconds 20: a third of the service manager's 0.3 s is the round
    until(lambda: node.heard.count("WATCHDOG=1") >= 5 and "READY=1" in node.heard)
    before = node.pids()
    node.ready_file.unlink()
    os.kill(before["core"], signal.SIGSTOP)
    node.served_anew(before)  # killed after three rounds without an answer
    heard = len(node.heard)
    until(lambda: node.heard[heard:].count("WATCHDOG=1") >= 3)


@pytest.mark.parametrize("missing", ["front", "agent"])
def test_sockets_of_some_roles_alone_are_refused(apart, missing):
    place = apart.place
    node = Apart(place, "")
    node.sockets.pop(missing).close()
    node.log = open(place / "daemon.log", "ab")
    node.environment = dict(os.environ)
    node.serve()
    assert node.process.wait(60) == 1
    assert "the sockets of some roles, and not of all" in (place / "daemon.log").read_text()
