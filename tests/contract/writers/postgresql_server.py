"""A PostgreSQL cluster of our own: temporary directory, Unix socket only."""
import functools
import glob
import os
import pwd
import shutil
import subprocess
import tempfile

import psycopg2
import pytest

from writer_driver import Writer

BIN = max(glob.glob("/usr/lib/postgresql/*/bin"), default="", key=lambda path: int(path.split("/")[-2]))
USER = "postgres" if os.geteuid() == 0 else None
OPTIONS = ["listen_addresses=", "shared_buffers=32MB", "max_connections=30", "fsync=on", "min_wal_size=4MB", "max_wal_size=8MB",
           "log_min_messages=fatal", "archive_mode=on", "archive_command=false"]


def run(*command, check=True, user=USER):
    identity = {"user": user, "group": user, "extra_groups": []} if user else {}
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", stdin=subprocess.DEVNULL, **identity)
    assert not check or result.returncode == 0, "%s: %s" % (command, result.stdout.decode(errors="replace"))
    return result


def own(path):
    if USER:
        entry = pwd.getpwnam(USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def directory():
    path = tempfile.mkdtemp(prefix="quiesced-pg-", dir="/tmp")
    own(path)
    return path


class Server:
    """data: an existing cluster (a restored one), or a place for a new one (beneath a directory of the server's user)."""

    def __init__(self, data, sockets, restored=False, initdb=(), options=()):
        if not BIN:
            pytest.skip("no PostgreSQL server is installed beneath /usr/lib/postgresql")
        self.data, self.sockets = data, sockets
        if not restored:
            run(BIN + "/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--wal-segsize=1", "-N", *initdb)
        options = [*OPTIONS, "unix_socket_directories=" + sockets, *options]
        self.command = [BIN + "/postgres", "-D", data]
        for option in options:
            self.command += ["-c", option]
        self.log = open(os.path.join(sockets, "log"), "wb")
        self.launch()

    def launch(self):
        identity = {"user": USER, "group": USER, "extra_groups": []} if USER else {}
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd="/", **identity)
        for _ in range(600):
            if run(BIN + "/pg_isready", "-q", "-h", self.sockets, check=False).returncode == 0:
                return
            if self.process.poll() is not None:
                break
            try:
                self.process.wait(0.1)
            except subprocess.TimeoutExpired:
                pass
        self.halt()
        with open(os.path.join(self.sockets, "log"), errors="replace") as log:
            raise AssertionError("the server does not start: " + log.read())

    def halt(self):
        if self.process.poll() is None:
            self.process.send_signal(2)  # fast shutdown
            self.process.wait(120)

    def stop(self):
        self.halt()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()

    @property
    def connection(self):
        return "host=%s user=postgres" % self.sockets

    def query(self, sql, *arguments, database="postgres"):
        db = psycopg2.connect(self.connection + " dbname=" + database)
        try:
            db.autocommit = True
            cursor = db.cursor()
            cursor.execute(sql, arguments or None)
            return cursor.fetchall() if cursor.description else None
        finally:
            db.close()

    def writer(self, **more):
        return Writer("postgresql", {"name": "pg-main", "type": "postgresql", "connection": self.connection, **more}, user=USER)

    def pgbench_init(self, scale=1):
        run(BIN + "/pgbench", "-q", "-i", "-s", str(scale), "-h", self.sockets, "-U", "postgres", "postgres")

    def pgbench(self):
        identity = {"user": USER, "group": USER, "extra_groups": []} if USER else {}
        return subprocess.Popen([BIN + "/pgbench", "-n", "-c", "4", "-T", "600", "-h", self.sockets, "-U", "postgres", "postgres"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **identity)

    def sums(self):
        rows = self.query("SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), "
                          "(SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), "
                          "(SELECT count(*) FROM pgbench_history)")
        return rows[0]

    def history(self):
        return self.query("SELECT count(*) FROM pgbench_history")[0][0]

    def traces(self):
        """What a backup leaves while it lasts: sessions, slots."""
        return (self.query("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'quiesced%'")[0][0],
                self.query("SELECT count(*) FROM pg_replication_slots")[0][0])


@functools.lru_cache(maxsize=1)
def shared():
    """One idle server for the tests that change nothing. Stopped at the end (conftest.py)."""
    place = directory()
    server = Server(place + "/data", place)
    server.place = place
    return server


def stop_shared():
    if shared.cache_info().currsize:
        server = shared()
        server.stop()
        shutil.rmtree(server.place)
        shared.cache_clear()
