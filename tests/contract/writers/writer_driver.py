"""Drives a built-in writer over pipes, as writer protocol 1 says."""
import json
import os
import select
import signal
import subprocess
import time

import pytest

ANSWER_SECONDS = 120  # far beyond any deadline that a test gives: a writer that is silent so long hangs


def executable(name):
    build = os.environ.get("QUIESCED_BUILD")
    if not build:
        pytest.fail("QUIESCED_BUILD must name the build directory")
    path = os.path.join(build, "quiesced-writer-" + name)
    if not os.access(path, os.X_OK):
        pytest.fail(path + " is not built")
    return path


def until(condition, what):
    """Waits for something that has to happen; how long it takes is not asserted."""
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    pytest.fail("never happened: " + what)


def stop(pid):
    """SIGSTOP takes hold thread by thread: until each of them is stopped a server goes on answering."""
    os.kill(pid, signal.SIGSTOP)

    def states():
        return {open("/proc/%d/task/%s/stat" % (pid, task)).read().rpartition(")")[2].split()[0] for task in os.listdir("/proc/%d/task" % pid)}
    until(lambda: states() == {"T"}, "every thread is stopped")


class Writer:
    def __init__(self, name, configuration, user=None):
        self.configuration = configuration
        self.count = 0
        self.pending = b""
        identity = {"user": user, "group": user, "extra_groups": []} if user else {}
        self.process = subprocess.Popen([executable(name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", **identity)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(ANSWER_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self.process.stdout.close()

    def send_bytes(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, event, **members):
        self.count += 1
        request = {"id": self.count, "event": event, "session": "s", "backup_type": "full", "component_mode": True,
                   "components": [], "deadline_ms": 30000, "volumes": []}
        if event == "identify":
            request["configuration"] = self.configuration
        request.update(members)
        self.send_bytes(json.dumps(request).encode() + b"\n")

    def answer(self):
        end = time.monotonic() + ANSWER_SECONDS
        while b"\n" not in self.pending:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            assert readable, "the writer does not answer"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, "the writer closed its output"
            self.pending += data
        line, self.pending = self.pending.split(b"\n", 1)
        return json.loads(line)

    def ask(self, event, **members):
        self.send(event, **members)
        answer = self.answer()
        assert answer["id"] == self.count
        return answer

    def ok(self, event, **members):
        answer = self.ask(event, **members)
        assert answer["ok"] is True, answer
        return answer

    def refused(self, event, failure, **members):
        answer = self.ask(event, **members)
        assert answer["ok"] is False, answer
        assert answer["failure"] == "VSS_E_WRITERERROR_" + failure, answer
        assert answer["message"]
        return answer

    def metadata(self):
        return self.ok("identify")["metadata"]


def chosen(*names):
    return [{"logical_path": "", "name": name} for name in names]
