"""What was said to have succeeded is there after a power cut. The image of a loop device is what its disk holds: a copy of it, taken when the
word was given, is mounted and looked at."""
import hashlib
import json
import pathlib
import subprocess
import tempfile

import pytest

from test_external import make_fs  # noqa: F401

import loop_fs


class Cut:
    """The disk of a file system as it is now, mounted."""

    def __init__(self, fs):
        self.image = pathlib.Path(f"{fs.image}.cut")
        subprocess.run(["cp", "--sparse=always", fs.image, self.image], check=True)
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-mnt-", dir="/var/tmp"))
        options = "loop,nouuid" if fs.kind == "xfs" else "loop"  # the other one is mounted, too
        loop_fs.run("mount", "-o", options, self.image, self.path)

    def close(self):
        loop_fs.run("umount", self.path)
        self.path.rmdir()
        self.image.unlink()


@pytest.fixture
def cut():
    made = []

    def now(fs):
        made.append(Cut(fs))
        return made[-1].path

    yield now
    for one in made:
        one.close()


def fill(folder, subvolume=False):
    if subvolume:
        loop_fs.run("btrfs", "subvolume", "create", folder)
    else:
        folder.mkdir()
    for i in range(20):
        (folder / f"file-{i}").write_bytes(bytes([i + 1]) * (i * 3000 + 1))


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def configuration(place, staging):
    (place / "backups").mkdir(exist_ok=True)
    return f"""
repositories: [{{name: main, mover: archive, path: {place}/backups}}]
providers: {{copy: {{staging: {staging}}}}}
"""


@pytest.mark.parametrize("provider, kind", [("copy", "ext4"), ("reflink", "xfs"), ("reflink", "btrfs"), ("btrfs", "btrfs")])
def test_a_persistent_snapshot(daemon, make_fs, cut, provider, kind):  # noqa: F811
    fs = make_fs(kind)
    data = fs.path / "data"
    fill(data, provider == "btrfs")
    node = daemon(configuration(daemon.place, fs.path / "staging"))
    s = "/sessions/" + node.call("POST", "/sessions", {"kind": "backup", "context": "nas_rollback"}).json["id"]
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    volume = node.call("POST", s + "/snapshot-set/volumes", {"path": str(data), "provider": provider})
    assert volume.status == 201, volume
    job = node.job("POST", s + "/snapshot")
    disk = cut(fs)
    assert job["state"] == "succeeded", job
    snapshot = pathlib.Path(job["result"]["snapshots"][0]["path"])
    kept = disk / snapshot.relative_to(fs.path)
    assert kept.is_dir() and contents(kept) == contents(data)
    assert (kept.parent / f"{kept.name}.json").stat().st_size > 0, "and its mark, without which nobody would know whose it is"


def test_a_backup(daemon, make_fs, cut):  # noqa: F811
    fs = make_fs()
    fill(daemon.place / "data")
    node = daemon(f"repositories: [{{name: main, mover: archive, path: {fs.path}/backups}}]\n")
    job = node.job("POST", "/backups", {"components": [], "paths": [str(daemon.place / "data")], "repository": "main", "type": "full"})
    disk = cut(fs)
    assert job["state"] == "succeeded", job
    stored = disk / "backups" / job["result"]["backup_id"]
    complete, seal = (json.loads((stored / name).read_text()) for name in ("complete.json", "seal.json"))
    assert seal["complete"] is True
    for name, file in (("data_sha256", "data.tar.zst"), ("manifest_sha256", "manifest.jsonl")):
        assert hashlib.sha256((stored / file).read_bytes()).hexdigest() == complete[name]


def test_a_restore(daemon, make_fs, cut):  # noqa: F811
    fs = make_fs()
    data = daemon.place / "data"
    fill(data)
    node = daemon(configuration(daemon.place, daemon.place / "staging") + f"restore: {{roots: [{fs.path}]}}\n")
    job = node.job("POST", "/backups", {"components": [], "paths": [str(data)], "repository": "main", "type": "full"})
    target = fs.path / "restored"
    target.mkdir()
    job = node.job("POST", f"/backups/{job['result']['backup_id']}/restore", {"target": str(target), "paths": [], "overwrite": False})
    disk = cut(fs)
    assert job["state"] == "succeeded", job
    assert contents(pathlib.Path(f"{disk}/restored{data}")) == contents(data)
