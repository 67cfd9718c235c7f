"""With the journal at standard error, lines go to journald's socket with their fields, and nobody but the logger waits for it."""
import os
import pathlib
import socket
import threading

import pytest

import leftovers
from receiver import until


class Journal:
    """journald's socket, as far as who writes to it can see."""

    def __init__(self, path):
        self.path, self.entries, self.socket = pathlib.Path(path), [], None
        self.open()

    def open(self):
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.path.chmod(0o666)

    def listen(self):
        threading.Thread(target=self.run, args=(self.socket,), daemon=True).start()

    def run(self, own):
        while True:
            try:
                datagram = own.recv(65536)
            except OSError:
                return
            if not datagram or own is not self.socket:
                return
            self.entries.append(self.parse(datagram))

    @staticmethod
    def parse(datagram):
        """NAME=value lines, or NAME, a length of eight bytes and so many bytes."""
        entry, at = {}, 0
        while at < len(datagram):
            end = datagram.index(b"\n", at)
            name, equals, value = datagram[at:end].partition(b"=")
            if not equals:
                length = int.from_bytes(datagram[end + 1:end + 9], "little")
                value, end = datagram[end + 9:end + 9 + length], end + 9 + length
                assert datagram[end:end + 1] == b"\n"
            assert name.decode().replace("_", "").isalnum() and name == name.upper() and name.decode() not in entry
            entry[name.decode()] = value.decode()
            at = end + 1
        return entry

    def close(self):
        own, self.socket = self.socket, None
        if own:
            own.shutdown(socket.SHUT_RDWR)  # whoever listens wakes up
            own.close()

    def found(self, **fields):
        return [entry for entry in list(self.entries) if all(words in entry.get(name, "") for name, words in fields.items())]


@pytest.fixture
def journal(daemon, monkeypatch):
    one = Journal(daemon.place / "journal.socket")
    log = daemon.place / "daemon.log"
    log.touch()
    monkeypatch.setenv("JOURNAL_STREAM", f"{log.stat().st_dev}:{log.stat().st_ino}")
    monkeypatch.setenv("QUIESCED_JOURNAL_SOCKET", str(one.path))
    yield one
    one.close()


def fail_a_job(node):
    """An incident: one line at priority 3 that knows session, job and request."""
    session = node.call("POST", "/sessions", {"label": "x job=forged"}, headers=["X-Request-Id: asked-by-me"]).json["id"]
    (node.faults / "worker.metadata").write_text("once fail")
    reply = node.call("POST", f"/sessions/{session}/metadata", headers=["X-Request-Id: asked-by-me"])
    job = node.wait(reply.json["id"])
    assert job["state"] == "failed", job
    return session, job["id"]


def test_lines_have_their_fields(daemon, journal):
    journal.listen()
    node = daemon()
    session, job = fail_a_job(node)
    entry = until(lambda: journal.found(JOB_ID=job, PRIORITY="3"))[0]
    assert (entry["SESSION_ID"], entry["SYSLOG_IDENTIFIER"], entry["QUIESCED_ROLE"]) == (session, "quiesced", "core"), entry
    assert entry["MESSAGE"].startswith("core: VSS_E_UNEXPECTED: "), entry
    assert journal.found(REQUEST_ID="asked-by-me"), journal.entries
    assert node.stop() == 0
    until(lambda: journal.found(MESSAGE="draining"))
    assert all({"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"} <= set(entry) and not set("\x1e\x1f") & set("".join(entry.values())) for entry in journal.entries)
    words = node.words()
    assert "<3>" not in words and job not in words, "no line goes both ways"
    token = pathlib.Path(node.ready["token_file"]).read_text().strip()
    assert token not in str(journal.entries)


def test_a_journal_that_takes_nothing_holds_up_the_logger_alone(daemon, journal):
    """Its queue is full (net.unix.max_dgram_qlen), nobody reads."""
    node = daemon()
    logger = leftovers.role(node, "logger")
    pipe = os.open(f"/proc/{node.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    most = int(pathlib.Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 5
    for number in range(most):
        os.write(pipe, b"<6>test info\x1enumber %d\n" % number)
    os.close(pipe)
    until(lambda: not node.settled())
    _, job = fail_a_job(node)
    assert node.call("GET", "/health/ready").status == 200
    assert leftovers.role(node, "logger") == logger and not journal.entries
    journal.listen()
    until(lambda: journal.found(JOB_ID=job) and len(journal.found(MESSAGE="test: number ")) == most)
    assert node.stop() == 0


def test_a_journal_that_starts_anew_is_found_again(daemon, journal):
    journal.listen()
    node = daemon()
    fail_a_job(node)
    until(lambda: journal.found(PRIORITY="3"))
    journal.close()
    journal.path.unlink()
    _, lost = fail_a_job(node)
    until(lambda: lost in node.words())  # its stream is still there: one of the daemon's own ends
    line = next(line for line in node.words().splitlines() if lost in line)
    assert line.startswith("<3>core error session=") and " job=" + lost in line and not set("\x1e\x1f") & set(line), line
    journal.open()
    journal.listen()
    _, job = fail_a_job(node)
    until(lambda: journal.found(JOB_ID=job))
    assert node.stop() == 0


def test_log_file_has_whole_lines_whatever_the_journal(daemon, journal):
    journal.listen()
    log = daemon.place / "own.log"
    node = daemon(f"log: {{file: {log}}}\n")
    session, job = fail_a_job(node)
    assert node.stop() == 0
    assert f" core error session={session} job={job} " in log.read_text() and not journal.found(JOB_ID=job)


def test_without_the_journal_lines_are_as_ever(daemon, journal, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    journal.listen()
    node = daemon()
    session, job = fail_a_job(node)
    until(lambda: f"Z core error session={session} job={job} " in node.words())
    assert node.stop() == 0 and not journal.entries
