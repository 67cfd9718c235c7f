"""A backup's files in a real browser: looked at, chosen, and brought back; asserted on the disk."""
import os
import pathlib
import shutil

import pytest

from project import PICTURES, browse, given

MANY = 230  # more than a page


@pytest.fixture(params=("archive", "restic"))
def kept(daemon, request):
    """A node with one backup of a folder that has what folders have."""
    place = daemon.place
    for name in ("srv/data/folder/deeper", "srv/data/many", "srv/data/empty", "restored"):
        (place / name).mkdir(parents=True)
    data = place / "srv" / "data"
    (data / "folder" / "inside.txt").write_text("inside\n")
    (data / "folder" / "beside.txt").write_text("beside\n")
    (data / "folder" / "deeper" / "deep.bin").write_bytes(os.urandom(70_000))
    (data / "link").symlink_to("folder/inside.txt")
    for i in range(MANY):
        (data / "many" / f"{i:03}.txt").write_text(f"{i}\n")
    odd = os.fsencode(data) + b"/odd\xff"
    os.mkdir(odd)
    pathlib.Path(os.fsdecode(odd), "held.txt").write_text("held\n")
    (place / "password").write_text("correct horse")
    where = f"url: {place}/repository, password_file: {place}/password" if request.param == "restic" else f"path: {place}/repository"
    one = daemon(f"repositories: [{{name: main, mover: {request.param}, {where}}}]\nrestore: {{roots: [{place}/restored]}}\n")
    one.token = pathlib.Path(one.ready["token_file"]).read_text().strip()
    job = one.job("POST", "/backups", {"paths": [str(data)], "repository": "main", "label": "nightly"})
    assert job["state"] == "succeeded", job
    one.mover, one.backup, one.data = request.param, job["result"]["backup_id"], data
    return one


def files_beneath(folder):
    return sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def test_one_file_is_found_by_looking_and_comes_back_alone(kept):
    def away():
        shutil.move(kept.place / "repository", kept.place / "elsewhere")
        return True

    def back():
        shutil.move(kept.place / "elsewhere", kept.place / "repository")
        return True

    done = browse("restore_files/choose", given(kept, backup=kept.backup, data=str(kept.data), mover=kept.mover), away=away, back=back)
    restored = kept.place / "restored" / kept.data.relative_to("/") / "folder" / "deeper" / "deep.bin"
    original = kept.data / "folder" / "deeper" / "deep.bin"
    assert done["paths"] == [str(original)]
    assert files_beneath(kept.place / "restored") == [restored]
    assert restored.read_bytes() == original.read_bytes()
    assert restored.stat().st_mtime_ns == original.stat().st_mtime_ns


@pytest.mark.parametrize("kept", ("archive",), indirect=True)
def test_a_folder_and_a_path_by_hand(kept):
    done = browse("restore_files/several", given(kept, backup=kept.backup, data=str(kept.data)))
    assert sorted(done["paths"]) == [str(kept.data / "folder"), str(kept.data / "many" / "007.txt")]
    beneath = kept.place / "restored" / kept.data.relative_to("/")
    names = ("folder/beside.txt", "folder/deeper/deep.bin", "folder/inside.txt", "many/007.txt")
    assert files_beneath(kept.place / "restored") == [beneath / name for name in names]
    assert all((beneath / name).read_bytes() == (kept.data / name).read_bytes() for name in names)


@pytest.mark.parametrize("kept", ("archive",), indirect=True)
def test_a_look_without_a_choice(kept):
    browse("restore_files/look", given(kept, backup=kept.backup, data=str(kept.data)))


@pytest.mark.parametrize("kept", ("archive",), indirect=True)
def test_the_wizard_in_both_themes_and_narrow(kept):
    for old in PICTURES.glob("wizard_*.png"):
        old.unlink()
    seen = browse("restore_files/pictures", given(kept, backup=kept.backup, data=str(kept.data)))["seen"]
    assert len(seen) == 4 and len(list(PICTURES.glob("wizard_*.png"))) == 8
