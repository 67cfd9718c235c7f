"""What is the restic mover's own: nothing is read again that did not change, and a restic that misbehaves does no harm."""
import json
import os
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
    binary = tmp_path / "bin" / "quiesced"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec unshare -m sh -c \'mount --bind {fake} "$(command -v restic)" && exec {conftest.BUILD}/quiesced "$@"\' sh "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setattr(conftest, "BUILD", binary.parent)
    assert ground.run()["error"]["hresult"] == code
