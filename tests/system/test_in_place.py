"""Rounds of backup and restore in place over HTTPS, by the databases' own writers, under a load that reconnects: consistent every time."""
import collections
import glob
import itertools
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time

import psycopg2
import pymysql
import pytest

import mariadb_server
import postgresql_server
import steps
from load import Pgbench
from service_manager import Manager

FULL = os.environ.get("QUIESCED_FULL") == "1"
WAIT_SECONDS = 120  # for what must happen; how long it takes is not asserted
ENGINES = ("InnoDB", "MyISAM", "Aria")


def until(condition, what):
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "never happened: " + what
        time.sleep(0.05)


class Counter:
    """Writes 1, 2, 3..., and notes when each was acknowledged. When the server goes away it comes again, and goes on from what it finds."""

    def __init__(self, connect, lost, table):
        self.connect, self.lost, self.table = connect, lost, table
        self.acknowledged, self.found, self.fault, self.ended = [], [], None, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.ended.is_set():
                try:
                    self.count()
                except self.lost:
                    self.ended.wait(0.05)
        except Exception as fault:  # told by stop()
            self.fault = fault

    def count(self):
        db = self.connect()
        try:
            cursor = db.cursor()
            cursor.execute(f"SELECT count(*), coalesce(max(n), 0) FROM {self.table}")
            rows, number = cursor.fetchone()
            self.found.append((rows, number))
            while not self.ended.wait(0.005):
                number += 1
                cursor.execute(f"INSERT INTO {self.table} VALUES ({number})")
                self.acknowledged.append((number, time.time()))
        finally:
            try:
                db.close()
            except self.lost:
                pass

    def begin_round(self):
        self.acknowledged, self.found = [], []

    def last(self, before=float("inf")):
        return max((number for number, at in list(self.acknowledged) if at < before), default=0)

    def stop(self):
        self.ended.set()
        self.thread.join()
        assert self.fault is None, self.fault


class Again:
    """Runs a program without end, and again when it has ended because its server went away."""

    def __init__(self, start):
        self.start, self.ended = start, threading.Event()
        self.program = start()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ended.wait(0.1):
            if self.program.process.poll() is not None:
                self.program.log.close()
                self.program = self.start()

    def stop(self):
        self.ended.set()
        self.thread.join()
        self.program.process.kill()
        self.program.process.wait()
        self.program.log.close()


class World:
    """A server in subvolumes of the test's file system, with whoever starts and stops it, and its load."""
    numbers = itertools.count(1)

    def __init__(self, mounted, name, module):
        self.module = module
        self.sockets = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-in-place-", dir="/tmp"))
        module.own(self.sockets)
        self.volume = mounted / f"{name}-{next(self.numbers)}"  # the file system is that of all tests here
        self.subvolume(self.volume)
        self.data = self.volume / "data"
        self.loads = []

    def subvolume(self, path):
        subprocess.run(["btrfs", "-q", "subvolume", "create", path], check=True)
        self.module.own(path)

    def manage(self):
        self.manager = Manager(self.server, str(self.sockets / "manager"))

    def commands(self):
        return ", ".join(f"{order}: {json.dumps(command)}" for order, command in self.manager.commands.items())

    def round(self, node, writer, seen):
        """One backup under load, and the restore of it in place. seen(): what must be there afterwards."""
        for counter in self.counters:
            counter.begin_round()
        until(lambda: all(counter.last() for counter in self.counters), "the load goes on")
        before = []
        backup = steps.one_call_backup(node, [(writer, "main")], [], lambda: before.append(seen()))
        freeze = steps.backup_of(node, backup)["freeze"]
        acknowledged = [counter.last(steps.moment(freeze["started_at"])) for counter in self.counters]
        assert all(acknowledged)
        ended = [counter.last() for counter in self.counters]
        until(lambda: all(counter.last() > last for counter, last in zip(self.counters, ended)), "the load goes on after the backup")

        def stopped():
            assert self.server.process.poll() is not None, "the server still runs"

        steps.restore_session(node, backup, writer, stopped)
        newest = [counter.last() for counter in self.counters]
        until(lambda: all(counter.found for counter in self.counters), "the load came again")
        for counter, least, most in zip(self.counters, acknowledged, newest):
            rows, last = counter.found[-1]
            assert rows == last >= least, f"{counter.table}: has {rows} rows up to {last}, and {least} were acknowledged before the freeze"
            assert last < most, f"{counter.table}: what came after the backup is still there"
        assert not [left for top in {self.data, *self.extra} for left in glob.glob(f"{top}*-restore-*") + glob.glob(f"{top}/.quiesced*")]
        return backup, before[0]

    def stop(self):
        try:
            for load in self.loads:
                load.stop()
        finally:
            self.manager.__exit__()
            self.server.stop()
            shutil.rmtree(self.sockets)


class Postgresql(World):
    def __init__(self, mounted, layout):
        super().__init__(mounted, "pg-" + layout, postgresql_server)
        self.extra, initdb = [], ()
        if layout == "wal-apart":
            wal = mounted / (self.volume.name + "-wal")
            self.subvolume(wal)
            self.extra = [wal / "wal"]
            initdb = ("-X", str(wal / "wal"))
        self.server = postgresql_server.Server(str(self.data), str(self.sockets), initdb=initdb)
        self.manage()
        self.server.query("CREATE EXTENSION amcheck")
        self.server.query("CREATE TABLE numbers (n bigint PRIMARY KEY)")
        self.server.pgbench_init()
        self.counters = [Counter(self.connect, psycopg2.Error, "numbers")]
        self.loads = [*self.counters, Again(lambda: Pgbench(self.server, self.sockets / "pgbench.log"))]

    def connect(self):
        db = psycopg2.connect(self.server.connection + " dbname=postgres")
        db.autocommit = True
        return db

    def configuration(self, place):
        return f"""
writers:
  - {{name: db, type: postgresql, connection: "{self.server.connection} dbname=postgres", user: postgres, {self.commands()}}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{self.volume.parent}, {place}]}}
"""

    def history(self):
        return collections.Counter(self.server.query("SELECT tid, bid, aid, delta, mtime::text FROM pgbench_history"))

    def check(self, server, seen):
        accounts, tellers, branches, delta, count = server.sums()
        assert accounts == tellers == branches == delta
        missing = seen - collections.Counter(server.query("SELECT tid, bid, aid, delta, mtime::text FROM pgbench_history"))
        assert count >= sum(seen.values()) > 0 and not missing, f"{len(missing)} acknowledged rows of pgbench_history are missing"
        postgresql_server.run(postgresql_server.BIN + "/pg_amcheck", "-h", server.sockets, "-U", "postgres", "--heapallindexed", "-d", "postgres")


class Mariadb(World):
    ACCOUNTS = 200

    def __init__(self, mounted, layout):
        super().__init__(mounted, "maria-" + layout, mariadb_server)
        self.extra = []
        self.server = mariadb_server.Server(str(self.data), str(self.sockets), options=["--log-bin=binlog"])
        os.chown(self.volume, 0, 0)  # as /var/lib: the old data has to go aside within the data directory
        self.manage()
        self.server.query("CREATE DATABASE test")
        self.server.query("CREATE TABLE test.balances (id int PRIMARY KEY, balance bigint NOT NULL) ENGINE=InnoDB")
        self.server.query("INSERT INTO test.balances VALUES " + ",".join("(%d, 1000)" % i for i in range(self.ACCOUNTS)))
        for engine in ENGINES:
            self.server.query(f"CREATE TABLE test.numbers_{engine} (n bigint PRIMARY KEY) ENGINE={engine}")
        self.counters = [Counter(self.server.connect, pymysql.Error, f"test.numbers_{engine}") for engine in ENGINES]
        self.loads = [*self.counters, Transfers(self.server)]

    def configuration(self, place):
        return f"""
writers:
  - {{name: db, type: mariadb, socket: {self.server.socket}, user: mysql, {self.commands()}}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{self.volume.parent}, {place}]}}
"""

    def history(self):
        return None

    def check(self, server, seen):
        assert seen is None
        assert server.query("SELECT sum(balance), count(*) FROM test.balances") == [(1000 * self.ACCOUNTS, self.ACCOUNTS)]
        faults = [found for found in server.check_tables() if (found[1], found[2]) != ("status", "OK") and found[1] != "note"]
        assert not faults


class Transfers:
    """Moves amounts between rows; their sum never changes."""

    def __init__(self, server):
        self.server, self.ended, self.fault = server, threading.Event(), None
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(2)]
        for thread in self.threads:
            thread.start()

    def run(self, step):
        while not self.ended.is_set():
            try:
                db = self.server.connect("test")
                cursor = db.cursor()
                while not self.ended.wait(0.002):
                    step = (step * 7 + 13) % 39999
                    low, high = sorted({step % 200, step // 200}) if step % 200 != step // 200 else (0, 1)
                    cursor.execute("BEGIN")
                    cursor.execute("UPDATE balances SET balance = balance - %s WHERE id = %s", (step % 100, low))
                    cursor.execute("UPDATE balances SET balance = balance + %s WHERE id = %s", (step % 100, high))
                    cursor.execute("COMMIT")
            except pymysql.Error:
                self.ended.wait(0.05)

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def world(request, btrfs):
    made = request.param[0](btrfs, request.param[1])
    yield made
    made.stop()


@pytest.mark.parametrize("mode", ["wal", pytest.param("delete", marks=pytest.mark.full)])
def test_sqlite_beneath_an_application_that_goes_on(mode, daemon):
    place = daemon.place
    for name in ("backups", "app", "copy"):
        (place / name).mkdir()
    database = place / "app" / "app.db"
    app = sqlite3.connect(database, isolation_level=None, timeout=60)
    app.execute(f"PRAGMA journal_mode = {mode}")
    app.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
    app.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(1000)])
    node = daemon(f"""
writers:
  - {{name: db, type: sqlite, databases: [{database}]}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{place}/app, {place}/copy]}}
""")
    for _ in range(10 if FULL else 1):
        backup = steps.one_call_backup(node, [("db", "app")], [], lambda: None)
        before = os.stat(database).st_ino
        app.execute("DELETE FROM numbers WHERE n > 10")
        steps.restore_session(node, backup, "db", lambda: app.execute("INSERT INTO numbers VALUES (5000)"))
        assert app.execute("SELECT count(*), max(n) FROM numbers").fetchone() == (1000, 999), "the application did not open it anew"
        assert os.stat(database).st_ino == before and not [name for name in os.listdir(place / "app") if "quiesced" in name]
    app.execute("DELETE FROM numbers")
    steps.restore_session(node, backup, "db", targets=[place / "copy"] * 3)
    copy = sqlite3.connect(place / "copy" / "app.db")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",) and copy.execute("SELECT count(*) FROM numbers").fetchone() == (1000,)
    copy.close()
    assert app.execute("SELECT count(*) FROM numbers").fetchone() == (0,), "the living one was left alone"
    app.close()


def second(world, place, copies):
    sockets = place / "second"
    sockets.mkdir()
    world.module.own(sockets)
    if isinstance(world, Mariadb):
        shutil.copy(world.sockets / "account", sockets / "account")
        return mariadb_server.Server(str(copies[0]), str(sockets), restored=True, options=["--log-bin=binlog"])
    return postgresql_server.Server(str(copies[0]), str(sockets), restored=True)


@pytest.mark.parametrize("world,rounds", [pytest.param((Postgresql, "together"), 5, marks=pytest.mark.full), ((Postgresql, "wal-apart"), 5 if FULL else 2),
                                          ((Mariadb, "together"), 10 if FULL else 2)], indirect=["world"], ids=["postgresql-together", "postgresql-wal-apart", "mariadb"])
def test_restored_in_place_it_is_whole_every_time(world, rounds, daemon):
    place = daemon.place
    (place / "backups").mkdir()
    node = daemon(world.configuration(place))
    for _ in range(rounds):
        backup, seen = world.round(node, "db", world.history)
        world.check(world.server, seen)
    assert world.manager.asked == ["stop", "start"] * rounds
    copies = [place / f"copy-{number}" for number in range(1 + len(world.extra))]
    for copy in copies:
        copy.mkdir(mode=0o700)
        world.module.own(copy)
    newest = [counter.last() for counter in world.counters]
    steps.restore_session(node, backup, "db", targets=copies)
    until(lambda: all(counter.last() > last for counter, last in zip(world.counters, newest)), "the server was left alone")
    with second(world, place, copies) as copy:
        world.check(copy, seen)
    assert node.call("GET", "/snapshots").json["items"] == []


class LogBackups(Postgresql):
    """With a writer that makes log backups, too."""

    def __init__(self, mounted, layout):
        super().__init__(mounted, layout)
        self.server.query("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'")
        self.server.query("SELECT pg_reload_conf()")

    def configuration(self, place):
        return super().configuration(place).replace("user: postgres,", "user: postgres, log_backups: true,")

    def mark(self):
        """A number that is acknowledged now, and the time."""
        last = self.counters[0].last()
        until(lambda: self.counters[0].last() > last, "the load goes on")
        return self.counters[0].acknowledged[-1]


def back_up(node, backup_type):
    job = steps.succeeded(node.job("POST", "/backups", {"components": [{"writer": "db", "name": "main"}], "repository": "main", "type": backup_type}))
    return steps.backup_of(node, job["result"]["backup_id"])


def log_chain(node, world):
    """A full backup and two of its log: their ids, and what was acknowledged between the logs and before the last one."""
    for counter in world.counters:
        counter.begin_round()
    full, first = back_up(node, "full"), back_up(node, "log")
    between = world.mark()
    until(lambda: world.mark()[1] > between[1] + 0.5, "the load goes on")
    before = world.mark()
    last = back_up(node, "log")
    world.mark()
    return [full["id"], first["id"], last["id"]], between, before


def rows(server):
    found, = server.query("SELECT count(*), max(n) FROM numbers")
    assert found[0] == found[1], "a gapless prefix"
    return found[1]


def sound(world, server):
    accounts, tellers, branches, delta, _ = server.sums()
    assert accounts == tellers == branches == delta
    postgresql_server.run(postgresql_server.BIN + "/pg_amcheck", "-h", server.sockets, "-U", "postgres", "--heapallindexed", "-d", "postgres")


def left_of_a_chain(data):
    settings = pathlib.Path(data, "postgresql.auto.conf").read_text()
    return [name for name in ("recovery_target", "restore_command") if name in settings] + glob.glob(f"{data}/quiesced_wal*") + glob.glob(f"{data}/recovery.signal")


def restored(node, world, backup, **members):
    """In its place: the last number that is there. What came after it was lost, and the load goes on from it."""
    counter, = world.counters

    def stopped():
        until(lambda: world.server.process.poll() is not None, "the server is stopped")
        counter.begin_round()

    steps.restore_session(node, backup, "db", stopped, **members)
    until(lambda: counter.acknowledged, "the load came again")
    last = counter.acknowledged[0][0] - 1
    assert (last, last) in counter.found, "a gapless prefix"
    sound(world, world.server)
    assert left_of_a_chain(world.data) == []
    return last


@pytest.mark.parametrize("world", [(LogBackups, "together"), pytest.param((LogBackups, "wal-apart"), marks=pytest.mark.full)], indirect=True,
                         ids=["together", "wal-apart"])
def test_a_log_backup_brings_its_chain(world, daemon):
    """In its place to the last one's end, in its place to a moment between, and to another directory beside the living server."""
    place = daemon.place
    (place / "backups").mkdir()
    node = daemon(world.configuration(place))
    chain, between, before = log_chain(node, world)
    newest = world.counters[0].last()
    counter, = world.counters
    until(lambda: counter.last() > newest, "the load goes on after the backup")
    copies = [place / f"copy-{number}" for number in range(1 + len(world.extra))]
    for copy in copies:
        copy.mkdir(mode=0o700)
        world.module.own(copy)
    steps.restore_session(node, chain[-1], "db", targets=copies)
    with second(world, place, copies) as copy:
        until(lambda: copy.query("SELECT pg_is_in_recovery()") == [(False,)], "the copy has recovered")
        assert before[0] <= rows(copy) <= newest
        sound(world, copy)
    assert counter.last() > newest, "the server was left alone"
    newest = counter.last()
    assert before[0] <= restored(node, world, chain[-1]) < newest
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(between[1])) + f".{int(between[1] % 1 * 1e6):06d}Z"
    assert between[0] <= restored(node, world, chain[-1], roll_forward={"type": "partial", "point": moment}) < before[0]
    assert world.manager.asked == ["stop", "start"] * 2


@pytest.mark.parametrize("world", [(LogBackups, "together")], indirect=True, ids=["together"])
def test_a_chain_with_a_gap_is_refused_and_the_missing_link_named(world, daemon):
    place = daemon.place
    (place / "backups").mkdir()
    node = daemon(world.configuration(place))
    (full, first, last), _, _ = log_chain(node, world)
    assert node.call("DELETE", f"/backups/{first}").status == 409, "it cannot be deleted"
    node.stop()
    shutil.rmtree(place / "state")
    shutil.rmtree(place / "backups" / first)
    node.start()
    assert steps.succeeded(node.job("POST", "/repositories/main/scan"))["result"]["added"] == 2
    s = "/sessions/" + node.call("POST", "/sessions", {"kind": "restore", "backup_id": last}).json["id"]
    steps.succeeded(node.job("POST", s + "/metadata"))
    component, = node.call("GET", s + "/components").json["items"]
    c = f"{s}/components/{component['id']}"
    assert node.call("PATCH", c, {"selected": True}).status == 200
    refused = node.call("POST", s + "/pre-restore")
    assert (refused.status, refused.json["hresult"], refused.json["reason"]) == (409, "VSS_E_BAD_STATE", "chain_gap"), refused
    assert last in refused.json["detail"] and first in refused.json["detail"], refused
    assert world.manager.asked == [] and world.server.process.poll() is None and node.call("GET", s).json["state"] == "identified"
    assert node.call("DELETE", s).status in (202, 204)
