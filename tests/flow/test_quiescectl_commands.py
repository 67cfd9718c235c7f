"""Every command of quiescectl does its work against a real daemon, as text and as a document; none is left out. And Ctrl-C, at the moments where it is hardest to be truthful."""
import http.server
import json
import os
import pathlib
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time

import pytest

import journey
from ctl import BAD_STATE, CANCELLED, OK, UNREACHED, Ctl
from daemon import BUILD, SOURCE

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "contract" / "guardian"))
import loop_fs  # noqa: E402


@pytest.fixture
def ctl(daemon, tmp_path):
    return Ctl(daemon(journey.lay_out(daemon.place)), tmp_path)


def until(condition):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def commands():
    return {command["command"] for command in json.loads(subprocess.run([BUILD / "quiescectl", "--help", "--json"], capture_output=True, check=True).stdout)["commands"]}


def names_of(called, table):
    """Which commands of the table these calls were."""
    found = set()
    for arguments in called:
        two, one = " ".join(arguments[:2]), arguments[0] if arguments else ""
        found |= {two} if two in table else {one} & table
    return found


def back_up_by_verbs(ctl):
    aborted = ctl.json("session", "create", "kind=backup", "label=verbs")["id"]
    assert ctl.json("session", "abort", aborted)["state"] == "aborted"
    session = ctl.json("session", "create", "kind=backup", "label=verbs")["id"]
    assert ctl.json("session", "set-context", session, "context=app_rollback")["context"] == "app_rollback"
    ctl.run("session", "set-state", session, "component_mode=true", "bootable_system_state=false", "type=full", "partial_files=false")
    ctl.run("session", "filter-writers", session, "disable=[]")
    assert "GatherWriterMetadata succeeded" in ctl.run("session", "metadata", session).stdout
    (offer,) = ctl.json("session", "writers", session)["items"]
    component = ctl.json("session", "add-component", session, f"instance_id={offer['instance_id']}", "name=app")["id"]
    assert ctl.json("session", "components", session)["items"][0]["id"] == component
    ctl.json("session", "renew", session)
    ctl.json("session", "start-set", session)
    assert ctl.json("session", "add-volume", session, f"path={ctl.node.place}/data", "provider=copy")["provider"] == "copy"
    for verb, operation in (("prepare", "PrepareForBackup"), ("snapshot", "DoSnapshotSet"), ("status", "GatherWriterStatus")):
        assert ctl.run("session", verb, session).stdout.startswith(f"{operation} succeeded\n")
    assert ctl.json("session", "writer-status", session)["items"][0]["failure"] == "S_OK"
    assert ctl.json("snapshots", f"session={session}")[0]["provider"] == "copy" and "copy" in ctl.run("snapshots").stdout
    backup = ctl.json("session", "copy", session, "repository=main")["result"]["backup_id"]
    assert ctl.json("session", "set-component", session, component, "succeeded=true")["succeeded"] is True
    assert ctl.json("session", "complete", session)["state"] == "succeeded"
    assert ctl.json("session", "document", session)["components"]
    assert ctl.json("session", "show", session)["state"] == "completed" and session in ctl.run("session", "list").stdout
    ctl.json("session", "release", session)
    return backup


def restore_by_verbs(ctl, backup):
    session = ctl.json("session", "create", "kind=restore", f"backup_id={backup}")["id"]
    ctl.run("session", "set-restore-state", session, "type=by_copy")
    ctl.run("session", "metadata", session)
    (component,) = ctl.json("session", "components", session)["items"]
    ctl.run("session", "set-component", session, component["id"], "selected=true")
    for verb in ("pre-restore", "restore-files", "post-restore"):
        assert " succeeded\n" in ctl.run("session", verb, session).stdout
    ctl.run("session", "release", session)


def use_the_catalog(ctl, backup):
    place = ctl.node.place
    assert ctl.json("backups")[0]["id"] == backup and ctl.json("backup", "show", backup)["complete"] is True
    assert ctl.json("verify", backup)["state"] == "succeeded"
    assert "app.db" in [entry["name"] for entry in ctl.json("backup", "files", backup, place / "data")]
    assert ctl.json("restore", backup, place / "restored")["result"]["verified"] is True
    assert ctl.json("plan", "--repository", "main", "--path", place / "data")["refusals"] == []
    another = ctl.json("backup", "--repository", "main", "--path", place / "data" / "file", "--label", "files", "--limit", "nice=10", "--limit=io_class=idle", "--wait")["result"]["backup_id"]
    assert [row["id"] for row in ctl.json("backups")] == [another, backup] and [row["id"] for row in ctl.json("backups", "sort=id")] == [backup, another]
    assert ctl.json("backup", "delete", another)["state"] == "succeeded"
    assert ctl.json("repository", "create", "name=second", "mover=archive", f"path={place}/second")["name"] == "second"
    assert ctl.json("repository", "show", "second")["mover"] == "archive" and ctl.json("repository", "scan", "second")["state"] == "succeeded"
    assert ctl.json("doctor")[0]["verdict"] == "ok" and ctl.json("status")["protected"] is True


def use_jobs(ctl):
    job = ctl.run("backup", "--repository", "main", "--component", "app", "--no-wait").stdout.strip()
    assert ctl.json("job", "watch", job)["state"] == "succeeded"
    assert ctl.json("job", "show", job)["id"] == job and job in ctl.run("job", "list").stdout
    told = [json.loads(line) for line in ctl.run("--json", "job", "log", job).stdout.splitlines()]
    assert told[-1]["data"]["state"] == "succeeded" and all(event["job_id"] == job for event in told)
    followed = ctl.run("job", "log", "-f", job).stdout.splitlines()
    assert len(followed) == len(told) and "succeeded" in followed[-1]
    assert ctl.run("job", "cancel", job, code=BAD_STATE).stdout == ""
    ctl.json("job", "release", job)
    assert ctl.json("events", "--limit", "1")["id"] == 1


def use_credentials(ctl):
    assert ctl.json("whoami")["principal"] == "admin"
    token = ctl.json("token", "create", "console", "viewer")
    assert [row["id"] for row in ctl.json("token", "list")] == [token["id"]]
    assert ctl.json("token", "revoke", token["id"]) is None
    request = subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-keyout", ctl.home / "key"],
                             capture_output=True, text=True, check=True).stdout
    code = ctl.json("call", "POST", "/enrolments", "name=console", "role=viewer")["code"]
    ctl.json("call", "POST", "/certificates", f"code={code}", f"csr={request}")
    (row,) = ctl.json("cert", "list")
    assert row["principal"] == "console" and ctl.json("cert", "revoke", row["id"]) is None
    ready = ctl.node.ready
    assert ctl.json("login", "--url", ready["url"], "--ca", ready["ca"], "--token-file", ready["token_file"], base=ctl.argv[:1])["principal"] == "admin"
    assert ctl.json("logout", base=ctl.argv[:1])["removed"].endswith("quiescectl.json")
    assert ctl.json("curl-config")["url"] == ready["url"]


def test_every_command_does_its_work(ctl):
    for name in ("writers", "providers", "movers", "volumes", "repositories", "errors"):
        assert isinstance(ctl.json(name), list)
    backup = back_up_by_verbs(ctl)
    restore_by_verbs(ctl, backup)
    use_the_catalog(ctl, backup)
    use_jobs(ctl)
    use_credentials(ctl)
    assert all(ctl.run("completion", shell).stdout for shell in ("bash", "zsh", "fish"))
    table = commands()
    doors = "".join(path.read_text() for path in (SOURCE / "tests" / "doors").glob("*.py"))  # with disks, and with the programs of the other side
    elsewhere = {f"hold {verb}" for verb in re.findall(r'\bhold\(\w+, "([a-z]+)"', doors)} | {"job cancel", "session release-set"}  # these two below, or in test_quiescectl.py
    elsewhere |= {f"session {verb}" for verb in re.findall(r'"session", "([a-z-]+)"', (SOURCE / "tests/flow/test_quiescectl_sessions.py").read_text())}
    assert table - names_of(ctl.called, table) - elsewhere == set()


@pytest.mark.skipif(bool(loop_fs.unavailable()), reason=str(loop_fs.unavailable()))
def test_a_hold_is_released_when_the_outside_has_its_snapshot(daemon, tmp_path):
    disk = loop_fs.LoopFs("ext4")  # mounted
    try:
        ctl = Ctl(daemon("limits: {freeze_seconds: 30}\n"), tmp_path)
        session = ctl.json("session", "create", "kind=backup")["id"]
        ctl.run("session", "set-state", session, "component_mode=true", "bootable_system_state=false", "type=full", "partial_files=false")
        ctl.run("session", "metadata", session)
        ctl.run("session", "start-set", session)
        ctl.run("session", "add-volume", session, f"path={disk.path}", "provider=external")
        ctl.run("session", "prepare", session)
        job = ctl.run("session", "snapshot", session, "--no-wait").stdout.strip()
        until(lambda: ctl.json("session", "show", session)["hold"])
        assert ctl.json("session", "release-set", session, "outside_id=lun7-0412")["state"] == "succeeded"
        assert ctl.json("job", "watch", job)["state"] == "succeeded"
        ctl.run("session", "release", session)
    finally:
        disk.close()


# --- a fake daemon ---

class Slow(http.server.BaseHTTPRequestHandler):
    """A daemon that answers the POST only when it is let, and then has the job that it was asked for."""
    protocol_version = "HTTP/1.1"
    job = {"id": "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c", "operation": "Backup", "state": "running", "hresult": "VSS_S_ASYNC_PENDING"}

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.set()
        self.server.let.wait(60)
        self.answer(202, self.job)

    def do_DELETE(self):
        self.server.cancelled.set()
        self.answer(202, {**self.job, "state": "cancelling"})

    def do_GET(self):
        state = "cancelled" if self.server.cancelled.is_set() else "running"
        self.answer(200, {**self.job, "state": state, "hresult": "VSS_S_ASYNC_CANCELLED" if state == "cancelled" else "VSS_S_ASYNC_PENDING"})

    def log_message(self, *_):
        pass

    def address_string(self):
        return "local"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path):
        self.asked, self.let, self.cancelled = threading.Event(), threading.Event(), threading.Event()
        super().__init__(str(path), Slow)


@pytest.fixture
def slow(tmp_path):
    server = Server(tmp_path / "api.sock")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    process = subprocess.Popen([BUILD / "quiescectl", "--socket", tmp_path / "api.sock", "backup", "--repository", "main", "--path", "/srv"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert server.asked.wait(60)
    yield server, process
    server.let.set()
    process.kill()
    process.wait()
    server.shutdown()
    thread.join()
    server.server_close()


# --- Ctrl-C ---

def test_an_interrupt_before_the_answer_cancels_the_job_that_the_answer_names(slow):
    server, process = slow
    process.send_signal(signal.SIGINT)
    until(lambda: not pending(process, signal.SIGINT))
    server.let.set()
    told, said = process.communicate(timeout=60)
    assert process.returncode == CANCELLED and server.cancelled.is_set(), (told, said)
    assert told.startswith("Backup cancelled") and "the daemon cancels it" in said


def test_who_insists_before_the_answer_is_told_that_nothing_is_known(slow):
    server, process = slow
    process.send_signal(signal.SIGINT)
    until(lambda: not pending(process, signal.SIGINT))
    process.send_signal(signal.SIGTERM)
    told, said = process.communicate(timeout=60)
    assert process.returncode == UNREACHED and not server.cancelled.is_set() and told == ""
    assert "whether the daemon has begun is not known here" in said and "quiescectl job list" in said


def pending(process, number):
    """Has the signal not been taken yet? (Two of one kind at once are one.)"""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    masks = [int(mask, 16) for mask in re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)", status, re.M)]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_wait_is_the_default_and_the_last_word_counts(ctl):
    place = ctl.node.place
    what = ["backup", "--repository", "main", "--path", place / "data" / "file"]
    assert "Backup succeeded" in ctl.run(*what, "--no-wait", "--wait").stdout
    job = ctl.json(*what, "--wait", "--no-wait")
    assert job["operation"] == "Backup" and ctl.run("job", "watch", job["id"]).returncode == OK


# --- progress ---

MIB = 1 << 20


class Copying(Slow):
    """A copy of 4 MiB, of which each look sees one more; then it has succeeded."""

    def do_GET(self):
        time.sleep(0.05)  # it waits for news, as the daemon does: a speed needs some time between two looks
        self.server.looks += 1
        done = min(self.server.looks, 4)
        state = "running" if self.server.looks <= 4 else "succeeded"
        self.answer(200, {**self.job, "operation": "Copy", "state": state, "hresult": "VSS_S_ASYNC_PENDING" if state == "running" else "VSS_S_ASYNC_FINISHED",
                          "progress": {"phase": "copy", "bytes_done": done * MIB, "bytes_total": 4 * MIB, "files_done": done}})


@pytest.fixture
def copying(tmp_path):
    """copying(stderr, …): quiescectl that watches the copy, its standard error there; gives what it said on standard output."""
    server = Server(tmp_path / "api.sock")
    server.RequestHandlerClass = Copying
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def watch(stderr, *options):
        server.looks = 0
        done = subprocess.run([BUILD / "quiescectl", "--socket", tmp_path / "api.sock", *options, "job", "watch", Slow.job["id"]], stdout=subprocess.PIPE, stderr=stderr,
                              stdin=subprocess.DEVNULL, text=True, timeout=120, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
        assert done.returncode == OK, done
        return done

    yield watch
    server.shutdown()
    thread.join()
    server.server_close()


def on_a_terminal(watch, *options):
    """(what it said on standard output, what the terminal got)"""
    ours, its = os.openpty()
    try:
        said = watch(its, *options).stdout
        os.set_blocking(ours, False)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except BlockingIOError:
            pass
        return said, shown.decode()
    finally:
        os.close(ours)
        os.close(its)


def test_progress_has_a_bar_speed_and_what_remains_on_a_terminal(copying):
    said, shown = on_a_terminal(copying)
    assert said.startswith("Copy succeeded")
    lines = shown.split("\r\033[K")
    assert lines[0] == lines[-1] == "", "its last word is an empty line"
    bars = [line for line in lines if "[" in line]
    assert [re.search(r"Copy copy \[(#*) *\] +(\d+)%", line).groups() for line in bars[:4]] == [("#" * 6 * n, str(25 * n)) for n in (1, 2, 3, 4)], bars
    assert re.search(r" 2\.0 MiB of 4\.0 MiB, 2 files, [\d.]+ [KMG]iB/s, \d+ s left$", bars[1]), bars
    assert " left" not in bars[3]


def test_progress_is_not_for_pipes_and_not_for_who_wants_quiet(copying):
    done = copying(subprocess.PIPE)
    assert done.stdout.startswith("Copy succeeded") and done.stderr == ""
    said, shown = on_a_terminal(copying, "--quiet")
    assert said == done.stdout and shown == ""
    assert json.loads(copying(subprocess.PIPE, "--json").stdout)["state"] == "succeeded"
