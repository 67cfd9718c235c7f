"""What is the archive mover's own: its files, their damage, its fault points."""
import json
import os
import subprocess

import pytest

from conftest import ROOT, Ground, fill


@pytest.fixture
def ground(tmp_path):
    made = Ground("archive", tmp_path)
    fill(made.source)
    return made


def test_the_archive_is_a_plain_tar_that_other_programs_read(ground):
    ground.run()
    archive = ground.path / ground.backup / "data.tar.zst"
    unzstd = subprocess.run(["zstd", "-dc", archive], stdout=subprocess.PIPE, check=True)
    names = subprocess.run(["tar", "-tf", "-"], input=unzstd.stdout, stdout=subprocess.PIPE, check=True).stdout
    assert f"{ground.source}/file-1".lstrip("/").encode() in names.splitlines()


@pytest.mark.parametrize("name", ["data.tar.zst", "manifest.jsonl", "document.json", "complete.json"])
@pytest.mark.parametrize("how", ["missing", "cut", "garbage"])
def test_a_damaged_file_is_told_by_verify_and_stops_neither_list_nor_others(ground, name, how):
    ground.run()
    file = ground.path / ground.backup / name
    content = file.read_bytes()
    file.unlink()
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "garbage":
        file.write_bytes(b"\xff" * len(content))
    assert ground.verify()["damaged"]
    assert len(ground.items()) == 1
    assert ("damaged" in ground.items()[0]) == (name in ("document.json", "complete.json"))
    if name != "document.json":
        assert "error" in ground.restore()
        assert list(ground.restored.iterdir()) == []


@pytest.mark.parametrize("point,code", [("mover.archive.write", "VSS_E_INSUFFICIENT_STORAGE"), ("mover.archive.rename", "VSS_E_UNEXPECTED")])
def test_a_failure_of_the_repository_leaves_nothing_behind(ground, tmp_path_factory, point, code):
    faults = tmp_path_factory.mktemp("faults")
    (faults / point).write_text("")
    assert ground.run(faults=faults)["error"]["hresult"] == code
    assert ground.is_clean()


@pytest.fixture
def refusing(ground):
    """A repository whose file system has room, on a disk that takes no more data: the blocks that were free are gone from under it
    (the metadata's are not), as on a thin volume that is full."""
    if not ROOT:
        pytest.skip("loop devices need root")
    below, image = ground.place / "below", ground.place / "below" / "image"
    below.mkdir()
    ground.path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", below], check=True)
    try:
        image.write_bytes(bytes(32 << 20))
        subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", image], check=True)
        image.write_bytes(image.read_bytes())  # mkfs zeroes by holes
        if subprocess.run(["mount", "-o", "loop", image, ground.path]).returncode != 0:
            pytest.skip("this machine mounts no loop device")
        try:
            assert "result" in ground.call("open", create=True)
            os.sync()
            before = image.stat().st_blocks
            subprocess.run(["fstrim", ground.path], check=True)
            assert image.stat().st_blocks < before, "the free blocks have no room below"
            with pytest.raises(OSError), open(below / "rest", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            yield ground
        finally:
            subprocess.run(["umount", ground.path], check=True)
    finally:
        subprocess.run(["umount", "--lazy", below], check=True)  # the loop device lets go of the image a little later


def test_what_the_disk_refuses_behind_the_page_cache_is_no_backup(refusing):
    (refusing.source / "large").write_bytes(os.urandom(10 << 20))  # more than is sent at once: see SEND_EVERY
    answer = refusing.run()
    assert answer.get("error", {}).get("hresult") in ("VSS_E_UNEXPECTED", "VSS_E_INSUFFICIENT_STORAGE"), answer
    assert refusing.items() == [] and {p.name for p in refusing.path.iterdir()} == {"lost+found", "quiesced-repository.json"}


def test_every_byte_of_the_stored_data_counts(ground):
    """A hash in the manifest cannot be changed together with the data: complete.json holds both files' hashes."""
    ground.run()
    manifest = ground.path / ground.backup / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[-1]["mode"] ^= 0o001
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ground.verify()["damaged"] and "error" in ground.restore()


def test_a_directory_that_is_no_backup_is_not_removed(ground):
    ground.run()
    (ground.path / ground.backup / "complete.json").unlink()
    assert "error" in ground.call("remove")
    assert (ground.path / ground.backup / "data.tar.zst").exists()


def test_a_repository_of_another_version_is_refused(ground):
    ground.run()
    (ground.path / "quiesced-repository.json").write_text('{"version": 2}')
    assert ground.run()["error"]["hresult"] == "VSS_E_NOT_SUPPORTED"
