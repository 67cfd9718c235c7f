"""A volume that is itself what is mounted (a btrfs's top, a subvolume): its snapshots lie in .quiesced at its top, inside the tree that they show."""
import json
import os
import subprocess
import tarfile

import pytest

from conduct import Writer
from restoring import component, tree
from snapshot_ground import ground, loop_btrfs, shown  # noqa: F401
from test_archive_stream import fetched
from test_expose_revert import loop_of


@pytest.fixture
def volumes(daemon):
    """(the mount of a btrfs's top, the mount of a subvolume of it that holds another one)"""
    with loop_btrfs.mounted() as top:
        top, inner = type(daemon.place)(top), daemon.place / "inner"
        loop_btrfs.subvolume(top / "sub")
        inner.mkdir()
        subprocess.run(["mount", "-o", "subvol=/sub", loop_of(top), inner], check=True)
        try:
            loop_btrfs.subvolume(inner / "nested")
            for folder in (top / "files", inner / "app", inner / "nested" / "deep"):
                folder.mkdir()
                for i in range(6):
                    (folder / f"file-{i}").write_bytes(os.urandom(i * 5000))
            yield top, inner
        finally:
            loop_btrfs.unmount(inner)


@pytest.mark.parametrize("mover", ["restic", pytest.param("borg", marks=pytest.mark.full)])
def test_a_backup_of_a_volume_that_is_itself_mounted(volumes, daemon, mover):
    (top, inner), place = volumes, daemon.place
    (place / "restored").mkdir()
    (place / "password").write_text("correct horse")
    writer = Writer(place, "app", COMPONENTS=json.dumps([component("main", inner / "app")]))
    node = daemon(f"""
writers:
{writer.entry()}
repositories: [{{name: main, mover: {mover}, {"url" if mover == "restic" else "path"}: {place}/repository, password_file: {place}/password}}]
restore: {{roots: [{place}/restored]}}
""")
    kept = node.call("POST", "/sessions", {"kind": "backup", "context": "nas_rollback"}).json["id"]
    assert node.call("POST", f"/sessions/{kept}/snapshot-set", {}).status == 201
    snapshot, nested = (node.call("POST", f"/sessions/{kept}/snapshot-set/volumes", {"path": str(path)}).json["snapshot_id"] for path in (inner, inner / "nested"))
    taken = node.job("POST", f"/sessions/{kept}/snapshot")
    assert taken["state"] == "succeeded", taken
    assert (inner / ".quiesced" / snapshot / "app" / "file-3").exists(), "the next snapshot of the volume has its .quiesced in it"
    for i, (body, saved) in enumerate([({"paths": [str(top / "files")]}, top / "files"), ({"components": [{"writer": "app", "name": "main"}]}, inner / "app"),
                                       ({"paths": [str(inner / "app" / "file-5")]}, inner / "app" / "file-5"),
                                       ({"paths": [str(inner), str(inner / "nested")]}, inner)]):
        job = node.job("POST", "/backups", {**body, "repository": "main"})
        assert job["state"] == "succeeded", (body, job)
        backup = job["result"]["backup_id"]
        assert node.job("POST", f"/backups/{backup}/verify")["result"]["damaged"] == []
        target = place / "restored" / str(i)
        restored = node.job("POST", f"/backups/{backup}/restore", {"target": str(target), "paths": []})
        assert restored["state"] == "succeeded", (body, restored)
        came = target / saved.relative_to("/")
        if saved.is_file():
            assert came.read_bytes() == saved.read_bytes() and os.listdir(came.parent) == [saved.name]
        else:
            assert tree(came) == {name: what for name, what in tree(saved).items() if not name.startswith(".quiesced")} != {}
    for one in (snapshot, nested):
        assert node.call("DELETE", f"/snapshots/{one}?force=true").status == 200
    assert not list((inner / ".quiesced").glob("*")) and not list((top / ".quiesced").glob("*")), "nothing is left of the snapshots"


def test_what_a_snapshot_of_a_mounted_volume_shows(ground, shown):
    """Its directories, its archive and its exposure, while it lies in the tree that it shows."""
    (ground.mount / "files").mkdir()
    (ground.mount / "files" / "one").write_text("before\n")
    _, (snapshot,) = ground.take(ground.mount)
    (ground.mount / "files" / "one").write_text("after\n")
    listed = ground.node.call("GET", f"/snapshots/{snapshot}/files?path=/files")
    assert [item["name"] for item in listed.json["items"]] == ["one"], listed
    fetched(ground, f"/snapshots/{snapshot}/archive?path=/files", ground.place / "out.tar")
    with tarfile.open(ground.place / "out.tar") as archive:
        assert archive.extractfile("files/one").read() == b"before\n"
    assert ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)}).status == 201
    assert (shown / "files" / "one").read_text() == "before\n"
    assert ground.node.call("DELETE", f"/snapshots/{snapshot}/exposure").status == 204
