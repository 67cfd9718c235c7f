"""A daemon that goes away while quiescectl waits for it: said at once, and so is its return; and a SIGTERM that finds it hanging."""
import os
import pathlib
import re
import signal
import subprocess
import threading

import pytest

from ctl import OK, UNREACHED
from daemon import BUILD
from test_quiescectl_commands import Server, Slow, on_a_terminal, pending, until

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
AWAY = r"quiescectl: the daemon does not answer \(.+\); it is asked again for \d+ s\n"
BACK = "quiescectl: the daemon answers again\n"


class Fickle(Slow):
    """One look is broken off; the next is answered when it is let."""

    def do_GET(self):
        self.server.looks += 1
        if self.server.looks == 1:
            self.close_connection = True
            return
        self.server.let.wait(60)
        if "/events" in self.path:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b'retry: 1000\n\nid: 1\ndata: {"id": 1, "time": "2026-01-01T00:00:00.000Z", "type": "job.changed", "job_id": "j", "data": {"state": "succeeded"}}\n\n')
            self.close_connection = True
            return
        self.answer(200, {**self.job, "state": "succeeded", "hresult": "VSS_S_ASYNC_FINISHED"})


class Hanging(Slow):
    """It takes a call, and never answers."""

    def do_GET(self):
        self.server.asked.set()
        self.server.let.wait(120)
        self.close_connection = True

    do_POST = do_DELETE = do_GET


class Stopping(Hanging):
    """It answers until its first job is to be waited for: that call, and whatever comes then, it takes and never answers."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(*((201, {"id": "s"}) if self.path.endswith("/sessions") else (202, self.job)))

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(200, {})

    def do_DELETE(self):
        if self.path.endswith("/sessions/s"):
            self.server.cancelled.set()
        self.do_GET()


@pytest.fixture
def serve(tmp_path):
    made = []

    def start(handler):
        server = Server(tmp_path / "api.sock")
        server.RequestHandlerClass, server.looks = handler, 0
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made.append((server, thread))
        return server

    yield start
    for server, thread in made:
        server.let.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def run(tmp_path):
    started = []

    def start(*arguments, stderr=subprocess.PIPE):
        started.append(subprocess.Popen([BUILD / "quiescectl", "--socket", tmp_path / "api.sock", *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True,
                                        stdin=subprocess.DEVNULL, env={**ENVIRONMENT, "HOME": str(tmp_path)}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("arguments", [("job", "watch", Slow.job["id"]), ("job", "log", "-f", Slow.job["id"]), ("events", "-f", "--limit", "1")], ids=" ".join)
def test_in_a_pipe_it_is_said_while_the_daemon_is_away_and_when_it_is_back(serve, run, arguments):
    server = serve(Fickle)
    process = run(*arguments)
    assert re.fullmatch(AWAY, process.stderr.readline()), "before the daemon is back"
    server.let.set()
    told, said = process.communicate(timeout=60)
    assert process.returncode == OK and said == BACK and "succeeded" in told, (told, said)


def test_on_a_terminal_it_is_said_too_and_quiet_is_quiet(serve, run):
    server = serve(Fickle)
    server.let.set()

    def watch(its, *options):
        server.looks = 0
        process = run(*options, "job", "watch", Slow.job["id"], stderr=its)
        told = process.communicate(timeout=60)[0]
        assert process.returncode == OK
        return subprocess.CompletedProcess((), OK, told)

    told, shown = on_a_terminal(watch)
    assert re.search(AWAY + BACK, shown.replace("\r\n", "\n")) and told.startswith("Backup succeeded"), shown
    told, shown = on_a_terminal(watch, "--quiet")
    assert shown == "" and told.startswith("Backup succeeded")
    server.looks = 0
    process = run("--quiet", "events", "-f", "--limit", "1")
    assert process.communicate(timeout=60)[1] == "" and process.returncode == OK


@pytest.mark.parametrize("signals", [1, 2])
def test_a_hold_that_is_terminated_does_not_wait_for_a_daemon_that_hangs(serve, run, signals):
    """One signal leaves the call in hand a while, since its answer names what has to be released; the second one does not."""
    server = serve(Hanging)
    process = run("hold", "freeze", "--path", "/srv")
    assert server.asked.wait(60)
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        until(lambda: not pathlib.Path(f"/proc/{process.pid}").exists() or process.poll() is not None or not pending(process, signal.SIGTERM))
    told, said = process.communicate(timeout=120)
    assert process.returncode == UNREACHED and told == "", (told, said)
    assert "the daemon did not answer in time" in said and "limits.freeze_seconds" in said and not server.let.is_set(), said
    assert os.path.exists(server.server_address)


def test_a_hold_that_is_terminated_while_it_watches_a_job_does_not_wait_for_a_daemon_that_hangs(serve, run):
    """The interrupts are the watch's then; the release that follows knows of them."""
    server = serve(Stopping)
    process = run("hold", "create", "/srv")
    assert server.asked.wait(60)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None or not pending(process, signal.SIGTERM))
    assert server.cancelled.wait(60), "it tries to release its session"
    told, said = process.communicate(timeout=60)
    assert process.returncode == UNREACHED and told == "" and not server.let.is_set(), (told, said)
