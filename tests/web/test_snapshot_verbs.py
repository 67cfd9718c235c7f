"""A kept snapshot on a btrfs of the test's own: shown, hidden, gone back to and deleted by pressing in a real browser; asserted on the machine."""
import pathlib
import sys

from daemon import SOURCE
from project import PICTURES, browse

sys.path.append(str(SOURCE / "tests" / "flow"))
from snapshot_ground import data, ground, shown  # noqa: E402,F401


def mounted_at(path):
    """Options of what is mounted there."""
    lines = [line.split() for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    return [set(fields[5].split(",")) for fields in lines if fields[4] == str(path)]


def test_expose_unexpose_revert_and_delete(ground, data, shown):  # noqa: F811
    _, (snapshot,) = ground.take(data)
    (data / "file").write_text("after\n")
    (data / "later").write_text("made since\n")
    (other,) = ground.take(data)[1]
    ready = ground.node.ready
    PICTURES.mkdir(parents=True, exist_ok=True)
    given = {"pictures": str(PICTURES), "url": ready["url"], "token": pathlib.Path(ready["token_file"]).read_text().strip(), "snapshot": snapshot, "volume": str(data),
             "shown": str(shown), "outside": str(ground.place)}

    def refused():
        assert not mounted_at(shown) and not mounted_at(ground.place)
        return True

    def exposed():
        (options,) = mounted_at(shown)
        assert {"ro", "nosuid", "nodev"} <= options
        assert (shown / "file").read_text() == "before\n" and not (shown / "later").exists()
        assert ground.get(snapshot)["exposed_path"] == str(shown)
        return True

    def hidden():
        assert not mounted_at(shown) and list(shown.iterdir()) == [] and ground.get(snapshot)["exposed_path"] is None
        return True

    def reverted():
        assert (data / "file").read_text() == "before\n" and not (data / "later").exists()
        (data / "file").write_text("it can be written to\n")
        return True

    def deleted():
        assert ground.listed() == [other] and ground.on_disk() == [other, f"{other}.json"]
        assert not mounted_at(shown) and list(shown.iterdir()) == []
        return True

    browse("snapshot_verbs/all", given, refused=refused, exposed=exposed, hidden=hidden, reverted=reverted, deleted=deleted)
    assert (data / "file").read_text() == "it can be written to\n"
