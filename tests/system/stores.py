"""Five stores that keep a growing list of numbers durably, and read it again from a restored set. A number is acknowledged when write() is back.

Each takes a directory that may be a subvolume of its own, and a place for its sockets that a restore does not touch."""
import fcntl
import os
import sqlite3

import psycopg2

import mariadb_server
import postgresql_server
import redis_server
from daemon import SOURCE


class Store:
    def __init__(self, place, sockets, **options):
        self.place, self.sockets = place, self.fresh(sockets / self.name)
        self.build(**options)

    def fresh(self, path):
        path.mkdir()
        if self.owner:
            self.owner(path)
        return path

    @staticmethod
    def below(root, path):
        return root / str(path)[1:]

    def stop(self):
        """The load's connection is closed already."""


class Postgresql(Store):
    name, component, owner = "pg-main", "main", staticmethod(postgresql_server.own)

    def build(self, wal=None):
        self.data, self.wal = self.place / "pgdata", wal / "wal" if wal else None
        for path in {self.place, wal or self.place}:
            self.owner(path)
        self.server = postgresql_server.Server(str(self.data), str(self.sockets), initdb=("-X", str(self.wal)) if wal else ())
        self.server.query("CREATE TABLE numbers (n bigint PRIMARY KEY)")

    def configuration(self):
        return f'{{name: pg-main, type: postgresql, connection: "{self.server.connection} dbname=postgres", user: postgres}}'

    def connect(self):
        database = psycopg2.connect(self.server.connection + " dbname=postgres")
        database.autocommit = True
        return lambda n: database.cursor().execute("INSERT INTO numbers VALUES (%s)", (n,)), database.close

    def restored(self, root, sockets):
        data = self.below(root, self.data)
        if self.wal:  # the link names the original's place (docs/writers/postgresql.md)
            (data / "pg_wal").unlink()
            (data / "pg_wal").symlink_to(self.below(root, self.wal))
        with postgresql_server.Server(str(data), str(self.fresh(sockets / self.name)), restored=True) as server:
            return [n for n, in server.query("SELECT n FROM numbers ORDER BY n")]

    def stop(self):
        traces = self.server.traces()
        self.server.stop()
        assert traces == (0, 0)


class Sqlite(Store):
    name, component, owner = "app", "app", None

    def build(self):
        self.database = self.place / "app.db"

    def configuration(self):
        return f"{{name: app, type: sqlite, databases: [{self.database}]}}"

    def connect(self):
        database = sqlite3.connect(self.database, timeout=60, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        return lambda n: database.execute("INSERT INTO numbers VALUES (?)", (n,)), database.close

    def restored(self, root, sockets):
        database = sqlite3.connect(self.below(root, self.database))
        try:
            assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            return [n for n, in database.execute("SELECT n FROM numbers ORDER BY n")]
        finally:
            database.close()


class File(Store):
    """Lines, written under a lock: with held its writer takes it, else the directory is a plain path of the backup."""
    name, component, owner = "file", "file", None

    def build(self, held):
        self.held, self.files = held, self.place / "files"
        self.files.mkdir()

    def configuration(self):
        return f"{{name: file, type: exec, command: [{SOURCE}/tests/system/lock-writer, {self.files}], user: root}}" if self.held else None

    def append(self, name, number, durable):
        with open(self.files / "lock", "a") as lock, open(self.files / name, "a") as file:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file.write(f"{number}\n")
            file.flush()
            if durable:
                os.fsync(file.fileno())

    def connect(self):
        return lambda n: self.append("numbers", n, True), lambda: None

    def restored(self, root, sockets, name="numbers"):
        return [int(line) for line in self.below(root, self.files / name).read_text().split("\n")[:-1]]


class Mariadb(Store):
    """log_bin: None, "inside" the data directory, or a directory elsewhere."""
    name, component, owner = "shop", "main", staticmethod(mariadb_server.own)

    def build(self, engine="InnoDB", log_bin=None):
        self.data, self.logs = self.place / "mariadb", None if log_bin == "inside" else log_bin
        options = ["--innodb-flush-log-at-trx-commit=0"]  # the freeze writes out what the server itself does not
        if log_bin:
            options.append(f"--log-bin={self.fresh(self.logs / 'binlog') / 'log' if self.logs else 'log'}")
        self.options = options
        self.server = mariadb_server.Server(self.data, self.sockets, options=options)
        self.server.query("CREATE DATABASE numbers")
        self.server.query(f"CREATE TABLE numbers.numbers (n bigint PRIMARY KEY) ENGINE={engine}")

    def configuration(self):
        return f"{{name: shop, type: mariadb, socket: {self.server.socket}}}"

    def connect(self):
        database = self.server.connect("numbers")
        cursor = database.cursor()
        return lambda n: cursor.execute("INSERT INTO numbers VALUES (%s)", (n,)), database.close

    def restored(self, root, sockets):
        """With the same log_bin (docs/writers/mariadb.md); the log's index names the original's files when they lie elsewhere."""
        options = [option.replace("--log-bin=/", f"--log-bin={root}/") for option in self.options]
        if self.logs:
            index = self.below(root, self.logs / "binlog" / "log.index")
            index.write_text(index.read_text().replace(f"{self.logs}/", f"{root}{self.logs}/"))
        with mariadb_server.Server(self.below(root, self.data), self.fresh(sockets / self.name), restored=True, options=options) as server:
            assert server.query("CHECK TABLE numbers.numbers EXTENDED")[0][2:] == ("status", "OK")
            return [n for n, in server.query("SELECT n FROM numbers.numbers ORDER BY n")]

    def stop(self):
        sessions = self.server.sessions()
        self.server.stop()
        assert sessions == 0


class Redis(Store):
    name, component, owner = "cache", "main", staticmethod(redis_server.own)

    def build(self, aof=True):
        self.owner(self.place)
        self.data, self.aof = self.place / "redis", aof
        self.server = redis_server.Server(self.data, self.sockets, aof=aof)

    def configuration(self):
        return f"{{name: cache, type: redis, socket: {self.server.socket}}}"

    def connect(self):
        client = self.server.client()
        return lambda n: client.rpush("numbers", n), client.close

    def restored(self, root, sockets):
        with redis_server.Server(self.below(root, self.data), self.fresh(sockets / self.name), aof=self.aof) as server:
            return [int(n) for n in server.client().lrange("numbers", 0, -1)]

    def stop(self):
        held = self.server.held()
        self.server.stop()
        assert not held


ORDER = {"postgresql": Postgresql, "sqlite": Sqlite, "file": File, "mariadb": Mariadb, "redis": Redis}  # in which each number is written
