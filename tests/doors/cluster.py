"""A PostgreSQL cluster under load on a file system of the test's, and what a copy of it that came through a front door has to be: started, whole, and not older than the snapshot."""
import os
import pathlib
import pwd
import shutil

import load
from postgresql_server import BIN, USER, Server, directory, run


class Cluster:
    """pgbench's tables and a table of numbers, of which each is noted when its commit was acknowledged."""

    def __init__(self, top):
        self.home = pathlib.Path(top) / "cluster"
        self.home.mkdir()
        chown(self.home)
        self.sockets = pathlib.Path(directory())
        self.server = Server(str(self.home / "data"), str(self.sockets), initdb=["--allow-group-access"], options=["archive_mode=off"])
        self.server.pgbench_init()
        self.server.query("CREATE EXTENSION amcheck")
        self.numbers = load.Numbers(self.server)
        self.pgbench = load.Pgbench(self.server, self.sockets / "pgbench.log")

    @property
    def writer(self):
        """Its line of the configuration."""
        return f'{{name: pg, type: postgresql, connection: "{self.server.connection} dbname=postgres", user: {USER}}}'

    def acknowledged(self):
        return self.numbers.acknowledged[-1][0] if self.numbers.acknowledged else 0

    def stop(self):
        try:
            self.numbers.stop()
            self.pgbench.stop()
        finally:
            self.server.stop()
            shutil.rmtree(self.sockets)


def chown(path):
    entry = pwd.getpwnam(USER)
    os.chown(path, entry.pw_uid, entry.pw_gid)


def started(data, least):
    """data: a copy of the data directory, its server's user's own. least: what had been acknowledged before the snapshot. Returns the newest number in it."""
    data = pathlib.Path(data)
    (data / "postmaster.pid").unlink(missing_ok=True)
    sockets = pathlib.Path(directory())
    try:
        with Server(str(data), str(sockets), restored=True, options=["archive_mode=off"]) as copy:
            count, newest = copy.query("SELECT count(*), max(n) FROM numbers")[0]
            assert count == newest >= least > 0, (count, newest, least)
            accounts, tellers, branches, delta, rows = copy.sums()
            assert accounts == tellers == branches == delta and rows > 0
            run(BIN + "/pg_amcheck", "-h", str(sockets), "-U", "postgres", "--heapallindexed", "-d", "postgres")
            copy.query("INSERT INTO numbers VALUES (-1)")
        return newest
    finally:
        shutil.rmtree(sockets)
