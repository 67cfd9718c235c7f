"""PostgreSQL under pgbench load, backed up over HTTPS, restored, and started as a second server. Ten runs."""
import collections
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import load
import steps
from postgresql_server import BIN, Server, own, run

# Where the cluster lies, how it is backed up, and which of the writer's two ways (docs/writers/postgresql.md) that must lead to.
RUNS = [("together", "verbs", None, "atomic-snapshot"), ("together", "call", None, "atomic-snapshot"), ("together", "verbs", None, "atomic-snapshot"),
        ("together", "call", None, "atomic-snapshot"), ("together", "verbs", "reflink", "backup-label"), ("together", "call", None, "atomic-snapshot"),
        ("wal-apart", "verbs", None, "backup-label"), ("wal-apart", "call", None, "backup-label"), ("wal-apart", "verbs", None, "backup-label"),
        ("wal-apart", "call", None, "backup-label")]


class World:
    """A cluster with its load, in subvolumes of the test's file system."""

    def __init__(self, mounted, layout):
        self.layout = layout
        self.sockets = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-pg-", dir="/tmp"))
        own(self.sockets)
        self.volume, self.wal = mounted / layout, None
        self.subvolume(self.volume)
        initdb = ()
        if layout == "wal-apart":
            self.wal = mounted / (layout + "-wal")
            self.subvolume(self.wal)
            initdb = ("-X", str(self.wal / "wal"))
        (self.volume / "files").mkdir()
        self.hashes = load.fill(self.volume / "files", len(layout))
        self.data = self.volume / "pgdata"
        self.server = Server(str(self.data), str(self.sockets), initdb=initdb)
        self.server.query("CREATE EXTENSION amcheck")
        self.server.pgbench_init()
        self.numbers = load.Numbers(self.server)
        self.pgbench = load.Pgbench(self.server, self.sockets / "pgbench.log")

    def subvolume(self, path):
        subprocess.run(["btrfs", "-q", "subvolume", "create", path], check=True)
        own(path)

    def volumes(self, provider):
        """What a session adds to its set so that the files are carried as well: a path that no component claims."""
        if provider:
            return [(self.data, provider), (self.volume / "files", provider)]
        return [(self.volume / "files", None)] + ([(self.wal, None)] if self.wal else [])

    def stop(self):
        try:
            self.numbers.stop()
            return self.pgbench.stop()
        finally:
            self.server.stop()
            shutil.rmtree(self.sockets)


@pytest.fixture(scope="module")
def worlds(btrfs):
    made = {}

    def enter(layout):
        for other in [name for name in made if name != layout]:  # one load at a time
            leave(other)
        if layout not in made:
            made[layout] = World(btrfs, layout)
        return made[layout]

    def leave(layout):
        rates = made.pop(layout).stop()
        assert rates and min(rates) > 0, f"{layout}: pgbench stood still: {rates}"

    yield enter
    for layout in list(made):
        leave(layout)


def configuration(place, world):
    return f"""
writers:
  - {{name: pg-main, type: postgresql, connection: "{world.server.connection} dbname=postgres", user: postgres}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{place}]}}
"""


class Seen:
    """What must be in the backup, because it was acknowledged before the freeze."""

    def __init__(self, world):
        self.world, self.history = world, None

    def look(self):
        self.history = history(self.world.server)


def history(server):
    return collections.Counter(server.query("SELECT tid, bid, aid, delta, mtime::text FROM pgbench_history"))


def second_server(world, root, sockets):
    data = root / str(world.data)[1:]
    if world.wal:  # the link names the original's place (docs/writers/postgresql.md)
        (data / "pg_wal").unlink()
        (data / "pg_wal").symlink_to(root / str(world.wal / "wal")[1:])
    assert not (data / "postmaster.pid").exists()
    return Server(str(data), str(sockets), restored=True)


def check_restored(world, root, sockets, seen, freeze_started):
    assert load.hashes(root / str(world.volume / "files")[1:]) == world.hashes
    with second_server(world, root, sockets) as restored:
        accounts, tellers, branches, delta, count = restored.sums()
        assert accounts == tellers == branches == delta
        assert count >= sum(seen.history.values()) > 0
        missing = seen.history - history(restored)
        assert not missing, f"{len(missing)} acknowledged rows of pgbench_history are missing"
        numbers, last = restored.query("SELECT count(*), max(n) FROM numbers")[0]
        assert numbers == last >= world.numbers.before(freeze_started) > 0
        run(BIN + "/pg_amcheck", "-h", restored.sockets, "-U", "postgres", "--heapallindexed", "-d", "postgres")


@pytest.mark.parametrize("number,row", list(enumerate(RUNS)), ids=[f"{n}-{row[0]}-{row[1]}-{row[2] or 'btrfs'}" for n, row in enumerate(RUNS)])
def test_a_restored_cluster_is_whole(worlds, daemon, number, row):
    layout, manner, provider, way = row
    world = worlds(layout)
    place = daemon.place
    (place / "backups").mkdir()
    (place / "second").mkdir()
    own(place / "second")
    node = daemon(configuration(place, world))
    seen = Seen(world)
    before = len(world.pgbench.rates())
    if manner == "verbs":
        backup = steps.session_backup(node, [("pg-main", "main")], world.volumes(provider), seen.look)
    else:
        backup = steps.one_call_backup(node, [("pg-main", "main")], [world.volume / "files"], seen.look)
    assert world.server.traces() == (0, 0), "a session in backup mode or a replication slot is left"
    record = steps.backup_of(node, backup)
    assert f'"way":"{way}"' in record["components"][0]["backup_metadata"].replace(" ", "")
    assert record["components"][0]["grade"] == "application"
    assert [path["grade"] for path in record["consistency"]["paths"]] == ["none" if provider else "filesystem"]
    root = steps.restore(node, backup, place / "restored")
    check_restored(world, root, place / "second", seen, steps.moment(record["freeze"]["started_at"]))
    assert world.pgbench.process.poll() is None
    assert all(rate > 0 for rate in world.pgbench.rates()[before:])
    assert node.call("GET", "/snapshots").json["items"] == []
