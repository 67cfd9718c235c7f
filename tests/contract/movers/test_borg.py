"""What is the borg mover's own: nothing is read again that did not change, whose locks it breaks, where its password is seen, and a borg that
misbehaves does no harm."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import uuid

import pytest

import conftest
from conftest import ROOT

needs_mounts = pytest.mark.skipif(not ROOT, reason="mounts need root")


@pytest.fixture
def ground(borg_ground):
    return borg_ground


def age(ground):
    """borg does not trust the newest change time that it has seen, nor do we the last two seconds before it: make all but one file older."""
    time.sleep(3.1)
    (ground.source / "newest").write_text("newest")


def again(ground, **more):
    ground.backup = str(uuid.uuid4())
    return ground.run(**more)["result"]


TWINS = 1  # the second name of a hard link is not read anyway


def test_a_second_backup_of_the_same_data_reads_and_stores_next_to_nothing(ground):
    age(ground)
    first = ground.run()["result"]
    second = again(ground)
    assert first["files_unmodified"] == 0 and first["files_new"] == first["files"] - TWINS
    assert second["files_unmodified"] == second["files"] - TWINS - 1 == second["hashes_carried"] and second["files"] == first["files"] > 30
    assert second["stored_bytes"] < 20_000
    assert ground.verify()["damaged"] == [] and ground.restore()["result"]["verified"] is True


def test_a_change_that_only_the_change_time_tells_is_seen(ground):
    age(ground)
    ground.run()
    before = (ground.source / "file-9").stat()
    (ground.source / "file-9").write_bytes(os.urandom(before.st_size))
    os.utime(ground.source / "file-9", ns=(before.st_atime_ns, before.st_mtime_ns))
    second = again(ground)
    assert second["files_changed"] == 1 and second["hashes_carried"] == second["files_unmodified"]
    assert ground.verify()["damaged"] == [] and ground.restore()["result"]["verified"] is True
    assert ground.copy(f"{ground.source}/file-9").read_bytes() == (ground.source / "file-9").read_bytes()


def test_a_file_that_changed_without_a_sign_makes_borg_read_everything(ground):
    """Two changes within a tick, the first of them backed up: nothing in the metadata tells. Played by a parent whose manifest has another hash."""
    age(ground)
    ground.run()
    record, file = f"::quiesced-{ground.backup}.record", f"quiesced-{ground.backup}.jsonl"
    lines = ground.borg("extract", "--stdout", record, file).splitlines()
    lines = [json.dumps(dict(json.loads(line), sha256="0" * 64)) if f'{ground.source}/newest"' in line else line for line in lines]
    ground.borg("delete", record)
    ground.borg("create", "--stdin-name", file, record, "-", input="\n".join(lines).encode() + b"\n")
    second = again(ground)
    assert second["files_unmodified"] == 0 and second["hashes_carried"] == 0, second
    assert ground.verify()["damaged"] == []
    assert len([name for name in ground.archives() if ground.backup in name]) == 2


def test_a_lost_cache_costs_time_and_nothing_else(ground):
    age(ground)
    ground.run()
    shutil.rmtree(ground.base)
    second = again(ground)
    assert second["files_unmodified"] == 0 and second["hashes_carried"] == 0 and second["stored_bytes"] < 20_000
    assert ground.verify()["damaged"] == [] and ground.restore()["result"]["verified"] is True


@needs_mounts
def test_it_stays_so_from_snapshot_to_snapshot_with_other_files_added_each_time(ground):
    """Snapshots lie at another path each time and log segments come and go; borg's own directory lies in the volume, hidden by its snapshot."""
    age(ground)
    unmodified = []
    for number in range(2):
        ground.backup = str(uuid.uuid4())
        snapshot = ground.place / f"snapshot-{number}"
        os.rename(ground.source if number == 0 else ground.place / "snapshot-0", snapshot)
        ground.source.mkdir(exist_ok=True)
        ground.more["base_dir"] = str(ground.source / "base")
        (ground.place / f"segment-{number}").write_text(f"segment {number}")
        items = [ground.item(source=str(snapshot)),
                 {"path": f"{ground.source}/deep/{number}", "source": str(ground.place / f"segment-{number}"), "spec": "*", "recursive": False}]
        result = ground.run(items=items, binds=[{"source": str(snapshot), "target": str(ground.source)}])["result"]
        unmodified.append(result["files"] - TWINS - result["files_unmodified"])
    assert unmodified[1] <= 2, "the added file is new, and borg is not sure of the one before"
    assert ground.verify()["damaged"] == []


def test_the_archives_are_plain_borg_archives_at_the_original_path(ground):
    data_id = ground.run()["result"]["data_id"]
    listed = json.loads(ground.borg("list", "--json"))["archives"]
    names = {one["name"]: one["id"] for one in listed}
    data = next(name for name in names if ".data-" in name)
    assert names[data] == data_id and set(names) == {data, f"quiesced-{ground.backup}.record"}
    assert f"{ground.source}/deep/twin".lstrip("/") in ground.borg("list", "--short", f"::{data}").splitlines()


def test_data_without_its_record_is_no_backup(ground):
    ground.run()
    ground.borg("delete", f"::quiesced-{ground.backup}.record")
    assert ground.items() == []
    assert ground.restore()["error"]["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    assert "result" in ground.run(), "what an interrupted attempt left does not stop the next"
    assert len(ground.archives()) == 2


def test_archives_of_others_are_neither_listed_nor_touched(ground):
    ground.borg("create", "::mine", str(ground.source / "deep"))
    ground.borg("create", "::quiesced-of-mine", str(ground.source / "deep"))
    ground.run()
    assert len(ground.items()) == 1
    ground.call("remove")
    assert ground.archives() == ["mine", "quiesced-of-mine"]


def test_a_removed_backup_gives_its_room_back(ground):
    (ground.source / "large").write_bytes(os.urandom(8 << 20))
    ground.run()
    def size():
        return sum(p.stat().st_size for p in ground.path.glob("data/*/*"))
    before = size()
    ground.call("remove")
    assert size() < before - (8 << 20)


def test_a_wrong_password_says_so(ground):
    ground.password.write_text("wrong")
    error = ground.call("list")["error"]
    assert error["hresult"] == "E_ACCESSDENIED" and "password_file" in error["hint"] and "repository r" in error["detail"]


def test_the_password_is_in_nobodys_arguments_or_environment(ground):
    (ground.source / "large").write_bytes(os.urandom(60 << 20))
    child = ground.start("run", items=[ground.item()], document={}, excludes=[])
    seen = set()
    while child.poll() is None and not ground.has_begun():
        for pid in [str(child.pid), *pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]:
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() + pathlib.Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:  # it has ended
                continue
            assert b"horse" not in words
            seen.add(b"BORG_PASSPHRASE_FD" in words)
    assert "result" in ground.finish(child) and seen == {True, False}


# --- locks ---

def lock(ground, holder):
    (ground.path / "lock.exclusive").mkdir()
    (ground.path / "lock.exclusive" / holder).touch()


def gone_pid():
    return subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()


def own_host():
    machine = pathlib.Path("/etc/machine-id")
    known = machine.read_text().strip() if machine.exists() else ""
    return f"quiesced@{known or socket.gethostname()}"


def test_only_a_lock_of_ours_whose_process_is_gone_is_broken(ground):
    ground.more["lock_wait_seconds"] = 1
    holders = [f"otherhost@1234.{gone_pid()}-0", f"{socket.getfqdn()}@{uuid.getnode()}.{gone_pid()}-0", f"{own_host()}.{os.getpid()}-0"]
    for holder in holders:
        lock(ground, holder)
        for verb in ("list", "sweep", "run"):
            answer = ground.call(verb) if verb != "run" else ground.run()
            assert answer["error"]["hresult"] == "VSS_E_VOLUME_IN_USE", (holder, verb)
        assert [p.name for p in (ground.path / "lock.exclusive").iterdir()] == [holder]
        shutil.rmtree(ground.path / "lock.exclusive")
    lock(ground, f"{own_host()}.{gone_pid()}-0")
    assert "result" in ground.call("sweep") and not (ground.path / "lock.exclusive").exists()
    assert "result" in ground.run()


# --- elsewhere ---

@pytest.fixture
def remote(ground, tmp_path):
    """A repository behind ssh: the shell that borg is given plays ssh and runs the other side's borg here; it notes what it is asked to run."""
    shell = tmp_path / "ssh"
    shell.write_text(f'#!/bin/sh\necho "$$" >> {tmp_path}/served\nshift\nBORG_BASE_DIR={tmp_path}/other exec "$@"\n')
    shell.chmod(0o755)
    ground.other = tmp_path / "served"
    ground.more.update(url=f"ssh://backup.example.org{ground.path}", rsh=str(shell), path=None)
    return ground


def test_a_repository_behind_ssh(remote):
    assert "result" in remote.run()
    assert remote.verify()["damaged"] == []
    assert remote.restore()["result"]["verified"] is True
    assert [item["backup_id"] for item in remote.items()] == [remote.backup]
    assert remote.other.read_text()


def test_the_other_side_goes_away_in_the_middle(remote):
    with open(remote.source / "large", "wb") as file:
        for _ in range(200):
            file.write(os.urandom(1 << 20))
    child = remote.start("run", items=[remote.item()], document={}, excludes=[], limits={"bandwidth_bytes_per_second": 50_000_000})
    while not remote.has_begun():
        assert child.poll() is None
        time.sleep(0.005)
    program = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0]
    assert b"\0--upload-ratelimit\x0048828\0" in pathlib.Path(f"/proc/{program}/cmdline").read_bytes()
    os.kill(int(remote.other.read_text().split()[-1]), signal.SIGKILL)
    error = remote.finish(child)["error"]
    assert error["hresult"] == "VSS_E_UNEXPECTED" and error["reason"] == "repository_unreachable" and error["hint"], error
    assert remote.items() == []
    assert "result" in remote.run() and remote.verify()["damaged"] == []


def test_a_rate_for_a_path_is_refused_since_borg_would_not_keep_it(ground):
    ground.more["limits"] = {"bandwidth_bytes_per_second": 1_000_000}
    error = ground.run()["error"]
    assert error["hresult"] == "E_INVALIDARG" and error["pointer"] == "/limits/bandwidth_bytes_per_second"


# --- what does not fit ---

def test_a_name_that_borg_cannot_be_told_is_refused_by_name(ground):
    (ground.source / "icon\r").write_text("x")
    error = ground.run()["error"]
    assert error["hresult"] == "VSS_E_NOT_SUPPORTED" and "carriage return" in error["detail"] and f"{ground.source}/icon" in error["detail"]
    assert ground.is_clean()
    assert "result" in ground.run(excludes=[f"{ground.source}/icon?"])


@pytest.mark.parametrize("member,value", [("url", "ssh://-oProxyCommand=x/r"), ("url", "ssh://a@-b/r"), ("url", "/srv/r"), ("path", "/srv/{now}")])
def test_a_place_that_means_something_else_is_refused(ground, member, value):
    ground.more.update({"path": None, member: value})
    for answer in (ground.call("open", create=True), ground.run(), ground.call("list")):
        assert answer["error"]["hresult"] == "E_INVALIDARG" and answer["error"]["pointer"] == f"/{member}"


@needs_mounts
@pytest.mark.parametrize("name,script,code", [
    ("floods its output", 'head -c 30000000 /dev/zero | tr "\\0" x; exit 0', "VSS_E_UNEXPECTED"),
    ("floods its complaints", 'head -c 30000000 /dev/zero | tr "\\0" x >&2; exit 1', "VSS_E_UNEXPECTED"),
    ("talks no JSON", 'printf "{\\377\\n[\\n\\"x\\"\\n{\\"type\\":7}\\n"; exit 0', "VSS_E_UNEXPECTED"),
    ("dies", "kill -9 $$", "VSS_E_UNEXPECTED"),
    ("warns", 'case "$1" in create) echo "{\\"type\\":\\"log_message\\",\\"levelname\\":\\"WARNING\\",\\"message\\":\\"/x: read: Input/output error\\"}" >&2; exit 1;; list) echo "{\\"archives\\":[]}";; esac',
     "VSS_E_UNEXPECTED"),
    ("finds the disk full", 'case "$1" in create) echo "OSError: [Errno 28] No space left on device" >&2; exit 2;; list) echo "{\\"archives\\":[]}";; esac', "VSS_E_INSUFFICIENT_STORAGE"),
    ("says that it stored less", 'case "$1" in create) cat >/dev/null; echo "{\\"archive\\":{\\"id\\":\\"1\\",\\"stats\\":{\\"nfiles\\":3}}}";; list) echo "{\\"archives\\":[]}";; esac',
     "VSS_E_UNEXPECTED"),
])
def test_a_borg_that_misbehaves_fails_the_copy(ground, tmp_path, monkeypatch, name, script, code):
    fake = tmp_path / "fake"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    binary = tmp_path / "bin" / "quiesced-agent"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec unshare -m sh -c \'mount --bind {fake} "$(command -v borg)" && exec {conftest.BUILD}/quiesced-agent "$@"\' sh "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setattr(conftest, "BUILD", binary.parent)
    assert ground.run()["error"]["hresult"] == code
