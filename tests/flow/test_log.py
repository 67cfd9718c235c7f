"""The log on a file system that is frozen: only the logger waits for the thaw. And what becomes of the log when the logger dies or
the file is renamed."""
import os
import pathlib
import signal
import subprocess

import pytest
import leftovers
from test_external import configuration, held, make_fs, prepared, until  # noqa: F401

import loop_fs

REFUSED = "client certificate of"  # what front says of a certificate that it does not accept


def state(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""  # it has just ended


def roles(node):
    """{pid: its arguments} of the daemon's processes."""
    return {pid: " ".join(leftovers.command(pid)) for pid in leftovers.running(node) if "curl" not in leftovers.command(pid)[0]}


@pytest.fixture
def foreign(tmp_path):
    """A client certificate of somebody else's authority."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=stranger",
                    "-days", "1", "-keyout", tmp_path / "key", "-out", tmp_path / "certificate"], check=True, capture_output=True)
    return tmp_path


def knock(node, foreign):
    """A client whom front refuses, and so has to log about."""
    done = subprocess.run(["curl", "-sS", "--max-time", "60", "--cacert", node.ready["ca"], "--cert", foreign / "certificate", "--key", foreign / "key",
                           node.ready["url"] + "/sessions"], capture_output=True)
    assert done.returncode not in (0, 28), done  # refused, and at once


@pytest.mark.parametrize("where", ["log.file", "standard error"])
def test_a_frozen_log_blocks_the_logger_alone(make_fs, daemon, foreign, where):  # noqa: F811
    fs = make_fs()
    log = fs.path / "daemon.log"
    if where == "standard error":
        (daemon.place / "daemon.log").symlink_to(log)
    node = daemon(configuration(daemon.place, more=f"log: {{file: {log}}}\n" if where == "log.file" else ""))
    s, _ = prepared(node, fs.path)
    node.words()
    held(node, s)
    logger = leftovers.role(node, "logger")
    before = log.stat().st_size
    knock(node, foreign)
    until(lambda: state(logger) == "D")
    for _ in range(3):
        knock(node, foreign)
    os.kill(node.process.pid, signal.SIGHUP)  # serve, the signer, core and agent have something to say, too
    other = node.call("GET", s)
    assert other.status == 200 and other.json["hold"], other
    assert loop_fs.is_frozen(fs.path) and log.stat().st_size == before
    waiting = {pid: words for pid, words in roles(node).items() if state(pid) == "D"}
    assert set(waiting) == {logger}, waiting
    reply = node.call("POST", s + "/snapshot-set/release", {"outside_id": "x"})
    assert reply.status == 200 and reply.json["state"] == "succeeded", reply
    assert not loop_fs.is_frozen(fs.path)
    assert node.stop() == 0
    words = log.read_text()
    assert words.count(REFUSED) == 4 and "configuration read again" in words, words
    assert "dropped" not in words and words.endswith("\n")


def test_a_worker_that_dies_during_the_hold_is_told_of_though_the_log_is_frozen(make_fs, daemon):  # noqa: F811
    """The agent has to thaw, and logs before that; neither waits for the other."""
    fs = make_fs()
    node = daemon(configuration(daemon.place, freeze_seconds=60, more=f"log: {{file: {fs.path}/log}}\n"))
    s, _ = prepared(node, fs.path)
    job = held(node, s)
    os.kill(leftovers.role(node, "worker"), signal.SIGKILL)
    assert node.wait(job)["state"] == "failed"
    assert not loop_fs.is_frozen(fs.path)
    assert node.stop() == 0
    words = (fs.path / "log").read_text()
    assert "See the log for its last words" in words and "draining" in words, words


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_logger_that_dies_or_stops_is_replaced(daemon, foreign, how):
    log = daemon.place / "own.log"
    node = daemon(f"log: {{file: {log}}}\n")
    first, front = leftovers.role(node, "logger"), leftovers.role(node, "front")
    os.kill(first, how)
    knock(node, foreign)
    assert node.call("GET", "/sessions").status == 200
    until(lambda: leftovers.role(node, "logger") not in (first, None))
    until(lambda: REFUSED in log.read_text())
    assert leftovers.role(node, "front") == front, "no role has suffered"
    assert node.stop() == 0
    assert "logger ended: signal 9 (Killed)" in log.read_text()


def test_a_flood_while_the_logger_stands_is_counted_and_told(daemon, foreign):
    """More than the pipe takes: whoever writes goes on, and says how much is missing."""
    log = daemon.place / "own.log"
    node = daemon(f"log: {{file: {log}}}\n")
    logger = leftovers.role(node, "logger")
    flood = os.open(f"/proc/{node.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    os.kill(node.process.pid, signal.SIGSTOP)  # it would replace the logger
    os.kill(logger, signal.SIGSTOP)
    try:
        with pytest.raises(BlockingIOError):
            while True:
                os.write(flood, b"x" * 4095 + b"\n")
        for _ in range(3):
            knock(node, foreign)
        assert node.call("GET", "/sessions").status == 200
    finally:
        os.close(flood)
        os.kill(logger, signal.SIGCONT)
        os.kill(node.process.pid, signal.SIGCONT)
    until(lambda: "x\n" in log.read_text() and node.settled())
    knock(node, foreign)
    assert node.stop() == 0
    words = log.read_text().splitlines()
    told = [line for line in words if " lines were dropped since 2" in line]
    assert len(told) == 1 and " front warning 3 lines" in told[0], told
    assert sum(REFUSED in line for line in words) == 1 and all(len(line) == 4095 for line in words if line.startswith("x"))


@pytest.fixture
def small(tmp_path):
    """A file system that is soon full."""
    if loop_fs.unavailable():
        pytest.skip(loop_fs.unavailable())
    place = tmp_path / "small"
    place.mkdir()
    loop_fs.run("mount", "-t", "tmpfs", "-o", "size=256k", "quiesced-test", place)
    yield place
    loop_fs.run("umount", place)


def test_lines_that_a_full_disk_refused_are_counted_and_told(small, daemon, foreign):
    log = small / "own.log"
    node = daemon(f"log: {{file: {log}}}\n")
    with pytest.raises(OSError), open(small / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    flood = os.open(f"/proc/{node.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    for _ in range(5):  # the file's last page may have room
        os.write(flood, b"x" * 4095 + b"\n")
    os.close(flood)
    until(node.settled)
    knock(node, foreign)
    assert node.call("GET", "/sessions").status == 200
    until(node.settled)
    (small / "filler").unlink()
    knock(node, foreign)
    assert node.stop() == 0
    words = log.read_text()
    assert " logger warning " in words and " lines could not be written: No space left on device\n" in words, words
    assert words.count(REFUSED) == 1


def test_the_file_is_opened_again_on_sighup(daemon, foreign):
    log = daemon.place / "own.log"
    node = daemon(f"log: {{file: {log}}}\n")
    knock(node, foreign)
    until(lambda: REFUSED in log.read_text())
    log.rename(daemon.place / "own.log.1")
    os.kill(node.process.pid, signal.SIGHUP)
    until(log.exists)
    knock(node, foreign)
    assert node.stop() == 0
    assert log.read_text().count(REFUSED) == 1 and (daemon.place / "own.log.1").read_text().count(REFUSED) == 1


def test_what_is_said_when_it_ends_reaches_its_place(daemon):
    """A start that fails: the reason is in the log, and where whoever started it looks, by the time that it has ended."""
    log = daemon.place / "own.log"
    with pytest.raises(AssertionError):
        daemon(f"log: {{file: {log}}}\n", options=("--listen", "192.0.2.1:1"))  # no address of this host (RFC 5737)
    assert "cannot start: " in log.read_text() and "192.0.2.1:1" in log.read_text()
    assert "quiesced: " in (daemon.place / "daemon.log").read_text()


def test_an_ordinary_end_of_a_worker_is_no_warning(daemon):
    """Core lets go of the worker of a plan, and of an aborted session, with writers in its hands."""
    node = daemon(configuration(daemon.place))
    (daemon.place / "data").mkdir(exist_ok=True)
    for _ in range(2):
        plan = node.call("POST", "/backups", {"components": [], "paths": [str(daemon.place / "data")], "repository": "main", "validate_only": True})
        assert plan.status == 200, plan
    session = node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    assert node.job("POST", f"/sessions/{session}/metadata")["state"] == "succeeded"
    assert node.call("POST", f"/sessions/{session}/abort").status == 200
    until(lambda: not [1 for words in roles(node).values() if "--role=worker" in words])
    assert "undoing everything" not in node.words(), node.words()[-3000:]


def test_a_worker_whose_agent_dies_says_what_it_undoes(daemon):
    node = daemon(configuration(daemon.place))
    session = node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    assert node.job("POST", f"/sessions/{session}/metadata")["state"] == "succeeded"
    os.kill(leftovers.role(node, "agent"), signal.SIGKILL)
    until(lambda: "undoing everything: agent" in node.words() or "undoing everything: core" in node.words())
