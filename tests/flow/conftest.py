"""A daemon of one's own for each test: started on a free loopback port, stopped afterwards, its log shown when a test fails."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("QUIESCED_BUILD", SOURCE / "build" / "asan"))
sys.path.insert(0, str(SOURCE / "tests" / "api"))
from contract import Contract  # noqa: E402

CONTRACT = Contract(SOURCE / "openapi.yaml")


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.raw = status, headers, body
        self.json = json.loads(body) if body.strip() else None

    def __repr__(self):
        return f"<{self.status} {self.raw[:2000]!r}>"


class Daemon:
    def __init__(self, place, config="", options=()):
        self.place = pathlib.Path(place)
        self.faults = self.place / "faults"
        self.faults.mkdir()
        self.faults.chmod(0o777)
        (self.place / "quiesced.yaml").write_text(config)
        self.options, self.process = options, None

    def start(self):
        ready = self.place / "ready.json"
        ready.unlink(missing_ok=True)
        self.log = open(self.place / "daemon.log", "ab")
        environment = dict(os.environ, QUIESCED_FAULT_DIR=str(self.faults), ASAN_OPTIONS="detect_leaks=0:abort_on_error=0")
        self.process = subprocess.Popen([BUILD / "quiesced", "serve", "--config", self.place / "quiesced.yaml", "--state-dir", self.place / "state",
                                         "--listen", "127.0.0.1:0", "--ready-file", ready, *self.options],
                                        stdout=self.log, stderr=self.log, env=environment, start_new_session=True)
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.words()
            time.sleep(0.02)
        self.ready = json.loads(ready.read_text())
        return self

    def words(self):
        return (self.place / "daemon.log").read_text(errors="replace")

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
        argv = ["curl", "-sS", "-i", "--max-time", "120", "--cacert", self.ready["ca"], "-X", method, self.ready["url"] + path]
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

    def start(config="", options=()):
        one = Daemon(place, config, options)
        one.place = pathlib.Path(place)
        made.append(one)
        return one.start()

    start.place = pathlib.Path(place)
    yield start
    for one in made:
        one.stop()
        reports = [line for line in one.words().splitlines() if "Sanitizer" in line or "runtime error" in line]
        shutil.rmtree(place, ignore_errors=True)
        assert not reports, reports
    shutil.rmtree(place, ignore_errors=True)
