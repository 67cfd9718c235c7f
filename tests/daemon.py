"""A daemon of one's own for each test: started on a free loopback port, driven with curl as a stranger would, stopped afterwards.

A folder's conftest.py takes the fixture over: `from daemon import daemon`."""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import zlib

import pytest

SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", pathlib.Path(__file__).resolve().parents[1]))
BUILD = pathlib.Path(os.environ.get("QUIESCED_BUILD", SOURCE / "build" / "asan"))
sys.path.insert(0, str(SOURCE / "tests" / "api"))
from contract import Contract  # noqa: E402

CONTRACT = Contract(SOURCE / "openapi.yaml")


ASAN = os.environ.get("QUIESCED_ASAN", "")  # more options, by ./check


def looks_for_leaks(test):
    """In each sixth test, the same ones always: half of what a short process costs under the sanitizers. ./check --full looks in all."""
    return os.environ.get("QUIESCED_FULL") == "1" or zlib.crc32(test.encode()) % 6 == 0


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.raw = status, headers, body
        self.json = json.loads(body) if body.strip() and headers.get("content-type", "").split(";")[0].endswith(("/json", "+json")) else None

    def __repr__(self):
        return f"<{self.status} {self.raw[:2000]!r}>"


class Daemon:
    def __init__(self, place, config="", options=(), binaries=BUILD, user=None):
        """user: whom the daemon runs as, from binaries that this user can reach; None is the caller."""
        self.place, self.binaries, self.user = pathlib.Path(place), binaries, user
        self.faults = self.place / "faults"
        self.faults.mkdir()
        self.faults.chmod(0o777)
        self.reports = self.place / "sanitizer"  # of every role and child, whatever user it runs as
        self.reports.mkdir()
        self.reports.chmod(0o1777)
        (self.place / "quiesced.yaml").write_text(config)
        self.options, self.process, self.leaks = options, None, True
        self.client, self.curl = (), ()  # words before curl (another network namespace, say), and more arguments of it

    def start(self):
        ready = self.place / "ready.json"
        ready.unlink(missing_ok=True)
        self.log = open(self.place / "daemon.log", "ab")
        environment = dict(os.environ, QUIESCED_FAULT_DIR=str(self.faults), ASAN_OPTIONS=f"detect_leaks={int(self.leaks)}:{ASAN}:abort_on_error=0:log_path={self.reports}/asan",
                           UBSAN_OPTIONS=f"print_stacktrace=1:log_path={self.reports}/ubsan", TSAN_OPTIONS=f"log_path={self.reports}/tsan")
        self.process = subprocess.Popen([self.binaries / "quiesced", "serve", "--config", self.place / "quiesced.yaml", "--state-dir", self.place / "state",
                                         "--listen", "127.0.0.1:0", "--ready-file", ready, *self.options],
                                        stdout=self.log, stderr=self.log, env=environment, start_new_session=True, user=self.user,
                                        group=self.user, extra_groups=None if self.user is None else [])
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.words()
            time.sleep(0.02)
        self.ready = json.loads(ready.read_text())
        return self

    def settled(self):
        """Has the logger written everything? True as well when there is none any more."""
        for pid in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if b"--role=logger" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                continue
            pipe = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                waiting = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
            finally:
                os.close(pipe)
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return waiting == 0 and state in "SZ"
        return True

    def words(self):
        """The log so far: what was said before the call is in it, unless the logger cannot write."""
        deadline = time.monotonic() + 5
        try:
            while not self.settled() and time.monotonic() < deadline:
                time.sleep(0.01)
        except OSError:
            pass  # daemon or logger have just ended
        return (self.place / "daemon.log").read_text(errors="replace")

    def sanitized(self):
        """Reports of the sanitizers: files of those that took our options over, lines of those that did not (writers)."""
        files = []
        for report in self.reports.glob("*"):
            # Not a finding: a thread that ended while the leak checker looked (a process killed at its own end).
            lines = [line for line in report.read_text(errors="replace").splitlines() if "Unable to get registers from thread" not in line]
            files += [f"{report.name}: {chr(10).join(lines)[:4000]}"] if any(lines) else []
        return files + [line for line in self.words().splitlines() if "Sanitizer" in line or "runtime error" in line]

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        status = self.process.returncode if self.process else None
        return status

    def call(self, method, path, body=None, headers=(), token=None, check=True):
        """curl, as a stranger would; the reply must keep the contract."""
        argv = [*self.client, "curl", *self.curl, "-sS", "-i", "--max-time", "120", "--cacert", self.ready["ca"], "-X", method, self.ready["url"] + path]
        if token is None:
            argv += ["--cert", self.ready["cert"], "--key", self.ready["key"]]
        elif token:
            argv += ["-H", f"Authorization: Bearer {token}"]
        if method == "HEAD":
            argv.append("-I")
        if body is not None:
            text = body if isinstance(body, (str, bytes)) else json.dumps(body)
            argv += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        for header in headers:
            argv += ["-H", header]
        done = subprocess.run(argv, input=(text.encode() if isinstance(text, str) else text) if body is not None else None, capture_output=True)
        assert done.returncode == 0, done.stderr.decode() + self.words()[-3000:]
        head, _, payload = done.stdout.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head, _, payload = payload.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        status = int(lines[0].split()[1])
        if check:
            CONTRACT.check(method, path, status, fields, payload)
        return Reply(status, fields, payload)

    def wait(self, job_id, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            reply = self.call("GET", f"/jobs/{job_id}?wait=20")
            assert reply.status == 200, reply
            if reply.json["state"] in ("succeeded", "failed", "cancelled"):
                return reply.json
        raise AssertionError(f"job {job_id} did not end: {reply}\n{self.words()[-3000:]}")

    def job(self, method, path, body=None):
        reply = self.call(method, path, body)
        assert reply.status == 202, (reply, self.words()[-3000:])
        assert reply.headers["location"] == f"/jobs/{reply.json['id']}"
        return self.wait(reply.json["id"])


@pytest.fixture
def daemon(request):
    place = tempfile.mkdtemp(prefix="quiesced-test-", dir="/var/tmp")
    os.chmod(place, 0o755)
    made = []

    def start(config="", options=(), **more):
        one = Daemon(place, config, options, **more)
        one.place = pathlib.Path(place)
        one.leaks = looks_for_leaks(request.node.nodeid)
        made.append(one)
        return one.start()

    start.place = pathlib.Path(place)
    yield start
    for one in made:
        one.stop()
        reports = one.sanitized()
        shutil.rmtree(place, ignore_errors=True)
        assert not reports, "\n".join(reports)
    shutil.rmtree(place, ignore_errors=True)
