"""One number, written to PostgreSQL, SQLite, a file, MariaDB and Redis in that order: what the grades promise of them together
(docs/consistency.md)."""
import bisect
import contextlib
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time

import pytest

import steps
from stores import ORDER

LAYOUTS = {
    # name: ({store: subvolume}, {store: options; what begins with @ is a subvolume}, grade of the file, one instant of all)
    "one-subvolume": (dict.fromkeys(ORDER, "all"), {"file": {"held": False}, "mariadb": {"log_bin": "inside"}}, "filesystem", True),
    "all-held-apart": ({"postgresql": "a", "sqlite": "c", "file": "d", "mariadb": "e", "redis": "g"},
                       {"postgresql": {"wal": "@b"}, "file": {"held": True}, "mariadb": {"log_bin": "@f"}}, "application", True),
    "path-apart": ({"postgresql": "a", "sqlite": "c", "file": "d", "mariadb": "e", "redis": "e"},
                   {"file": {"held": False}, "mariadb": {"engine": "Aria"}, "redis": {"aof": False}}, "filesystem", False),
}


class Numbers:
    """Writes 1, 2, 3..., each to every store in turn, and notes when each store acknowledged it."""

    def __init__(self, stores):
        self.acknowledged = {store: [] for store in [*ORDER, "unsynced"]}  # times; the number is the index + 1
        self.error, self.ended, self.stores = None, threading.Event(), stores
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            with contextlib.ExitStack() as closed:
                writes = {}
                for name, store in self.stores.items():
                    writes[name], close = store.connect()
                    closed.callback(close)
                writes["unsynced"] = lambda n: self.stores["file"].append("unsynced", n, False)
                self.write(writes)
        except Exception as error:  # told by stop()
            self.error = error

    def write(self, writes):
        number = 0
        while not self.ended.is_set():
            number += 1
            for store, write in writes.items():
                write(number)
                self.acknowledged[store].append(time.time())

    def before(self, store, moment):
        return bisect.bisect_left(self.acknowledged[store], moment)

    def written(self):
        return len(self.acknowledged["unsynced"])

    def go_on(self):
        begun, deadline = self.written(), time.monotonic() + 60
        while self.written() <= begun and self.error is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.written() > begun, f"the load stands still: {self.error}"

    def stop(self):
        self.ended.set()
        self.thread.join()
        assert self.error is None, self.error


class World:
    def __init__(self, mounted, name, closed):
        subvolumes, options, file_grade, self.one_instant = LAYOUTS[name]
        self.grades = {store: file_grade if store == "file" else "application" for store in ORDER}
        base = mounted / name
        base.mkdir()
        options = {store: {key: base / value[1:] if str(value).startswith("@") else value for key, value in options.get(store, {}).items()} for store in ORDER}
        more = [value for row in options.values() for value in row.values() if isinstance(value, pathlib.Path)]
        for volume in sorted({base / subvolume for subvolume in subvolumes.values()} | set(more)):
            subprocess.run(["btrfs", "-q", "subvolume", "create", volume], check=True)
        sockets = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-cross-", dir="/tmp"))
        closed.callback(shutil.rmtree, sockets)
        sockets.chmod(0o755)
        self.stores = {}
        for store, kind in ORDER.items():
            self.stores[store] = kind(base / subvolumes[store], sockets, **options[store])
            closed.callback(self.stores[store].stop)
        self.files, self.held = self.stores["file"].files, self.stores["file"].held
        self.numbers = Numbers(self.stores)
        closed.callback(self.numbers.stop)

    def configuration(self, place):
        writers = "".join(f"  - {store.configuration()}\n" for store in self.stores.values() if store.configuration())
        return f"""
writers:
{writers}repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{place}]}}
"""

    def components(self):
        return [(store.name, store.component) for store in self.stores.values() if store.configuration()]

    def stored(self, root, sockets):
        """The numbers that each store of a restored set holds, in the order in which the store keeps them."""
        sockets.mkdir()
        found = {name: store.restored(root, sockets) for name, store in self.stores.items()}
        found["unsynced"] = self.stores["file"].restored(root, sockets, "unsynced")
        return found


@pytest.fixture
def world(request, btrfs):
    with contextlib.ExitStack() as closed:
        yield World(btrfs, request.param, closed)


def grades_of(world, record):
    by_writer = {component["writer"]: component["grade"] for component in record["components"]}
    grades = {name: by_writer.get(store.name) for name, store in world.stores.items()}
    if not world.held:
        grades["file"], = [path["grade"] for path in record["consistency"]["paths"]]
    return grades


def check_record(world, record):
    assert grades_of(world, record) == world.grades, record
    assert record["consistency"]["one_instant"] is world.one_instant, record
    assert record["consistency"]["grade"] == world.grades["file"], "no other is lower"
    start, end = steps.moment(record["freeze"]["started_at"]), steps.moment(record["freeze"]["ended_at"])
    assert start <= end and record["freeze"]["window_ms"] > 0
    for component in record["components"]:
        own_window = component["freeze"]
        assert start <= steps.moment(own_window["started_at"]) <= steps.moment(own_window["ended_at"]) <= end
        assert 0 < own_window["window_ms"] <= record["freeze"]["window_ms"]
    return start


def check_stores(world, found, freeze_started):
    last = {store: len(numbers) for store, numbers in found.items()}
    for store, numbers in found.items():
        assert numbers == list(range(1, last[store] + 1)), f"{store} has a gap"
        assert last[store] >= world.numbers.before(store, freeze_started), f"{store} lacks what was acknowledged before the freeze"
    together = [store for store in ORDER if world.one_instant or world.grades[store] == "application"]
    assert len(together) >= 4
    lasts = [last[store] for store in together]
    assert lasts == sorted(lasts, reverse=True), f"a store is ahead of one that was written before it: {last}"
    assert lasts[0] - lasts[-1] <= 1, f"more than the one number in flight apart: {last}"


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.full)])
@pytest.mark.parametrize("world", LAYOUTS, indirect=True)
def test_restored_stores_agree_as_their_grades_promise(world, rounds, daemon):
    place = daemon.place
    (place / "backups").mkdir()
    node = daemon(world.configuration(place))
    for turn in range(rounds):
        world.numbers.go_on()
        backup = steps.one_call_backup(node, world.components(), [] if world.held else [world.files], lambda: None)
        record = steps.backup_of(node, backup)
        freeze_started = check_record(world, record)
        assert world.numbers.before("redis", freeze_started) > 0
        root = steps.restore(node, backup, place / f"restored-{turn}")
        check_stores(world, world.stored(root, place / f"second-{turn}"), freeze_started)
        shutil.rmtree(root)
    world.numbers.go_on()
