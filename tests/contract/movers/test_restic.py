"""What is the restic mover's own: nothing is read again that did not change, and a restic that misbehaves does no harm."""
import json
import os
import subprocess
import time
import uuid

import pytest

import conftest
from conftest import ROOT


@pytest.fixture
def ground(restic_ground):
    return restic_ground


def test_a_second_backup_of_the_same_data_has_every_file_unmodified(ground):
    first = ground.run()["result"]
    ground.backup = str(uuid.uuid4())
    second = ground.run()["result"]
    assert first["files_unmodified"] == 0 and second["files_unmodified"] == second["files"] == first["files"] > 30
    assert second["stored_bytes"] < 10_000
    assert ground.restore()["result"]["verified"] is True


def age(ground):
    """Files changed within two seconds of the newest change are hashed again: make all but one older."""
    time.sleep(3.1)
    (ground.source / "newest").write_text("newest")


def test_hashes_are_taken_over_for_unmodified_files_and_for_no_others(ground):
    age(ground)
    first = ground.run()["result"]
    before = (ground.source / "file-9").stat()
    (ground.source / "file-9").write_bytes(os.urandom(before.st_size))
    os.utime(ground.source / "file-9", ns=(before.st_atime_ns, before.st_mtime_ns))  # only the ctime tells
    ground.backup = str(uuid.uuid4())
    second = ground.run()["result"]
    twins = 1  # the second name of a hard link is not read anyway
    assert first["hashes_carried"] == 0 and second["hashes_carried"] == second["files_unmodified"] - twins - 1 == second["files"] - twins - 2
    assert ground.verify()["damaged"] == []
    assert ground.restore()["result"]["verified"] is True
    assert ground.copy(f"{ground.source}/file-9").read_bytes() == (ground.source / "file-9").read_bytes()


def test_a_file_that_changed_without_a_sign_makes_restic_read_everything(ground):
    """Two changes within a tick, the first of them backed up: nothing in the metadata tells. Played by a parent whose manifest has another hash."""
    age(ground)
    ground.run()
    records = json.loads(ground.restic("snapshots", "--json", "--tag", "quiesced-record"))
    name = f"quiesced-{ground.backup}.jsonl"
    lines = ground.restic("dump", records[0]["id"], "/" + name).splitlines()
    lines = [json.dumps(dict(json.loads(line), sha256="0" * 64)) if f'{ground.source}/newest"' in line else line for line in lines]
    tags = [word for tag in records[0]["tags"] for word in ("--tag", tag)]
    subprocess.run(["restic", "--no-cache", "-q", "-r", ground.path, "-p", ground.password, "backup", "--stdin", "--stdin-filename", name, *tags],
                   input="\n".join(lines).encode() + b"\n", check=True)
    ground.restic("forget", records[0]["id"])
    ground.backup = str(uuid.uuid4())
    result = ground.run()["result"]
    assert result["files_unmodified"] == 0 and result["hashes_carried"] == 0, result
    assert ground.verify()["damaged"] == [] and len(json.loads(ground.restic("snapshots", "--json", "--tag", f"quiesced-backup={ground.backup}"))) == 2


@pytest.mark.skipif(not ROOT, reason="mounts need root")
def test_it_stays_so_from_snapshot_to_snapshot_with_other_files_added_each_time(ground):
    """Snapshots lie at another path each time and log segments come and go: restic must not notice (restic#4092)."""
    unmodified = []
    for number in range(2):
        ground.backup = str(uuid.uuid4())
        snapshot = ground.place / f"snapshot-{number}"
        if number == 0:
            os.rename(ground.source, snapshot)
            ground.source.mkdir()
        else:
            os.rename(ground.place / "snapshot-0", snapshot)
        (ground.place / f"segment-{number}").write_text(f"segment {number}")
        items = [ground.item(source=str(snapshot)),
                 {"path": f"{ground.source}/deep/{number}", "source": str(ground.place / f"segment-{number}"), "spec": "*", "recursive": False}]
        result = ground.run(items=items, binds=[{"source": str(snapshot), "target": str(ground.source)}])["result"]
        unmodified.append(result["files"] - result["files_unmodified"])
    assert unmodified[1] == 1, "the added file alone is new"


@pytest.mark.skipif(not ROOT, reason="mounts need root")
@pytest.mark.parametrize("label_first", [False, True])
def test_an_added_file_replaces_one_of_the_snapshot_even_when_a_folder_above_grows(ground, label_first):
    """A PostgreSQL backup: log segments that the snapshot holds half written, and a label that it does not hold at all."""
    snapshot = ground.place / "snapshot"
    (ground.source / "deep" / "segment").write_text("half written")
    os.rename(ground.source, snapshot)
    ground.source.mkdir()
    added = {}
    for name in ("deep/segment", "deep/next", "label"):
        (ground.place / name.replace("/", "-")).write_text(f"added: {name}")
        added[name] = {"path": f"{ground.source}/{name}", "source": str(ground.place / name.replace("/", "-")), "spec": "*", "recursive": False}
    extra = [added[name] for name in sorted(added, reverse=label_first)]
    ground.run(items=[ground.item(source=str(snapshot)), *extra], binds=[{"source": str(snapshot), "target": str(ground.source)}])
    restored = ground.restore()
    assert "result" in restored, restored
    for name in added:
        assert ground.copy(f"{ground.source}/{name}").read_text() == f"added: {name}"


def test_the_snapshots_are_plain_restic_snapshots_at_the_original_path(ground):
    data_id = ground.run()["result"]["data_id"]
    names = ground.restic("ls", data_id)
    assert f"{ground.source}/deep/twin" in names.splitlines()
    tags = [set(s["tags"]) for s in json.loads(ground.restic("snapshots", "--json"))]
    assert sorted(t & {"quiesced-data", "quiesced-record"} for t in tags) and all({"quiesced", f"quiesced-backup={ground.backup}"} <= t for t in tags)


def test_data_without_its_record_is_no_backup(ground):
    ground.run()
    record = next(s for s in json.loads(ground.restic("snapshots", "--json")) if "quiesced-record" in s["tags"])
    ground.restic("forget", record["id"])
    assert ground.items() == []
    assert ground.restore()["error"]["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    assert "result" in ground.run(), "what an interrupted attempt left does not stop the next"
    assert len(json.loads(ground.restic("snapshots", "--json"))) == 2


def test_snapshots_of_others_are_neither_listed_nor_touched(ground):
    ground.restic("backup", str(ground.source / "deep"), "--tag", "mine")
    ground.run()
    assert len(ground.items()) == 1
    ground.call("remove")
    assert [s["tags"] for s in json.loads(ground.restic("snapshots", "--json"))] == [["mine"]]


def test_a_wrong_password_says_so(ground):
    ground.password.write_text("wrong")
    error = ground.call("list")["error"]
    assert error["hresult"] == "E_ACCESSDENIED" and "password_file" in error["hint"] and "repository r" in error["detail"]


@pytest.mark.skipif(not ROOT, reason="puts another program in restic's place, which needs mounts")
@pytest.mark.parametrize("name,script,code", [
    ("floods its output", 'head -c 30000000 /dev/zero | tr "\\0" x; exit 0', "VSS_E_UNEXPECTED"),
    ("floods its complaints", 'head -c 30000000 /dev/zero | tr "\\0" x >&2; exit 1', "VSS_E_UNEXPECTED"),
    ("talks no JSON", 'printf "{\\377\\n[\\n\\"x\\"\\n{\\"message_type\\":7}\\n"; exit 0', "VSS_E_UNEXPECTED"),
    ("dies", "kill -9 $$", "VSS_E_UNEXPECTED"),
    ("could not read everything", 'case "$2" in backup) echo "error: read /x: input/output error" >&2; exit 3;; snapshots) echo "[]";; esac', "VSS_E_UNEXPECTED"),
    ("finds the disk full", 'case "$2" in backup) echo "write: no space left on device" >&2; exit 1;; snapshots) echo "[]";; esac', "VSS_E_INSUFFICIENT_STORAGE"),
    ("says that it stored less", 'case "$2" in backup) cat >/dev/null; echo "{\\"message_type\\":\\"summary\\",\\"snapshot_id\\":\\"1\\",\\"total_bytes_processed\\":5}";; snapshots) echo "[]";; esac',
     "VSS_E_UNEXPECTED"),
])
def test_a_restic_that_misbehaves_fails_the_copy(ground, tmp_path, monkeypatch, name, script, code):
    fake = tmp_path / "fake"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    binary = tmp_path / "bin" / "quiesced-agent"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec unshare -m sh -c \'mount --bind {fake} "$(command -v restic)" && exec {conftest.BUILD}/quiesced-agent "$@"\' sh "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setattr(conftest, "BUILD", binary.parent)
    assert ground.run()["error"]["hresult"] == code
