"""restic with a repository that is not here: `rclone serve restic` over loopback, as a user with a password, which is in a file and nowhere else."""
import os
import pathlib
import re
import select
import signal
import subprocess
import time
import uuid

import pytest

PASSWORD = "sesame-opens"


class Server:
    """Debian's rclone, on a port of its own that it keeps when it comes back."""

    def __init__(self, place):
        self.place, self.port, self.child = place / "served", 0, None
        self.place.mkdir()
        self.start()

    def start(self):
        environment = dict(os.environ, RCLONE_USER="operator", RCLONE_PASS=PASSWORD, RCLONE_CONFIG="/dev/null")
        self.child = subprocess.Popen(["rclone", "serve", "restic", "--addr", f"127.0.0.1:{self.port}", self.place], stderr=subprocess.PIPE, env=environment)
        said = b""
        while not (found := re.search(rb"http://127\.0\.0\.1:(\d+)/", said)):
            assert select.select([self.child.stderr], [], [], 30)[0], said
            more = os.read(self.child.stderr.fileno(), 4096)
            assert more, said
            said += more
        self.port = int(found[1])

    def kill(self):
        self.child.kill()
        self.child.wait()
        self.child.stderr.close()

    @property
    def url(self):
        return f"rest:http://operator:{PASSWORD}@127.0.0.1:{self.port}/"


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def ground(restic_ground, server):
    ground = restic_ground
    ground.server = server
    (ground.place / "url").write_text(server.url + "\n")
    ground.more.update(url=None, url_file=str(ground.place / "url"))
    ground.path = server.place
    return ground


def test_a_repository_behind_http_with_a_password(ground):
    """Made, filled, listed, sealed, verified, restored and emptied; the second backup reads nothing again."""
    first = ground.run()["result"]
    ground.backup = str(uuid.uuid4())
    assert ground.run()["result"]["files_unmodified"] == first["files"]
    seal = {"version": 1, "complete": True, "reason": None}
    assert "result" in ground.call("seal", seal=seal)
    assert [item.get("seal") for item in ground.items() if item["backup_id"] == ground.backup] == [seal]
    assert ground.verify()["damaged"] == []
    assert ground.restore()["result"]["verified"] is True
    assert "result" in ground.call("remove") and len(ground.items()) == 1


def test_which_repository_it_is_is_asked_of_it(ground):
    """What was seen there is not taken for another one, nor another one for it; both are still there afterwards."""
    told = ground.run()["result"]["repository_id"]
    assert re.fullmatch("[0-9a-f]{64}", told)
    ground.backup, ground.more["seen"] = str(uuid.uuid4()), told
    assert ground.run()["result"]["repository_id"] == told
    ground.server.kill()  # it remembers what it has listed
    (ground.place / "first").mkdir()
    for part in list(ground.path.iterdir()):
        part.rename(ground.place / "first" / part.name)
    ground.server.start()
    ground.backup = str(uuid.uuid4())
    error = ground.run()["error"]
    assert error["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and "there is none" in error["detail"], error
    del ground.more["seen"]
    other = ground.run()["result"]["repository_id"]
    assert re.fullmatch("[0-9a-f]{64}", other) and other != told, "the first copy makes it, and tells"
    ground.backup, ground.more["seen"] = str(uuid.uuid4()), told
    error = ground.run()["error"]
    assert error["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and "another repository than before" in error["detail"] and PASSWORD not in str(error), error
    assert len(ground.items()) == 1, "nothing was stored in it"


def test_its_password_is_in_nobodys_arguments_environment_or_complaints(ground):
    (ground.source / "large").write_bytes(os.urandom(60 << 20))
    child = ground.start("run", items=[ground.item()], document={}, excludes=[])
    seen = 0
    while child.poll() is None and not ground.has_begun():
        for pid in [str(child.pid), *pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]:
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() + pathlib.Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:  # it has ended
                continue
            assert PASSWORD.encode() not in words
            seen += b"RESTIC_REPOSITORY_FILE" in words
    assert "result" in ground.finish(child) and seen > 0
    (ground.place / "url").write_text(ground.server.url.replace("sesame", "simsim"))
    error = ground.call("list")["error"]
    assert error["hresult"] == "E_ACCESSDENIED" and "url_file" in error["hint"] and "opens" not in str(error), error


@pytest.mark.full
def test_it_goes_away_in_the_middle(ground):
    """restic asks again for about a minute; then the copy has failed, and the next one works. What was stored meanwhile is no backup."""
    with open(ground.source / "large", "wb") as file:
        for _ in range(300):
            file.write(os.urandom(1 << 20))
    child = ground.start("run", items=[ground.item()], document={}, excludes=[], limits={"bandwidth_bytes_per_second": 20_000_000})
    while not ground.has_begun():
        assert child.poll() is None
        time.sleep(0.005)
    ground.server.kill()
    try:
        error = ground.finish(child)["error"]
        assert error["hresult"] == "VSS_E_UNEXPECTED" and error["reason"] == "repository_unreachable" and error["hint"], error
        assert PASSWORD not in str(error)
    finally:
        ground.server.start()
    assert ground.items() == []
    assert "result" in ground.run() and ground.verify()["damaged"] == []
    assert [item["backup_id"] for item in ground.items()] == [ground.backup]


def test_it_is_away_from_the_beginning(ground):
    ground.run()
    ground.server.kill()
    try:
        error = ground.call("verify")["error"]
        assert error["reason"] == "repository_unreachable", error
    finally:
        ground.server.start()
    assert ground.verify()["damaged"] == []


def test_a_rate_reaches_restic_in_its_own_unit(ground):
    (ground.source / "large").write_bytes(os.urandom(40 << 20))
    child = ground.start("run", items=[ground.item()], document={}, excludes=[], limits={"bandwidth_bytes_per_second": 1_000_000})
    programs = []
    while not any(b"--limit-upload\x00976\x00" in words for words in programs):
        assert child.poll() is None, programs
        programs = []
        for pid in pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split():
            try:
                programs.append(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
            except OSError:
                pass
    child.send_signal(signal.SIGTERM)
    assert ground.finish(child)["error"]["hresult"] == "VSS_S_ASYNC_CANCELLED"
