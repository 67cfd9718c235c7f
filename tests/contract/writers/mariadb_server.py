"""A MariaDB server of our own: temporary directory, Unix socket only."""
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
import time

import pymysql
import pytest

from writer_driver import Writer

SERVER = shutil.which("mariadbd", path="/usr/sbin:/usr/bin")
INSTALL = shutil.which("mariadb-install-db", path="/usr/bin:/usr/sbin")
USER = "mysql" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
IDENTITY = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
SMALL = ["--skip-networking", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--key-buffer-size=1M", "--aria-pagecache-buffer-size=1M",
         "--performance-schema=OFF", "--max-connections=30", "--innodb-fast-shutdown=1"]


def own(path):
    if IDENTITY:
        entry = pwd.getpwnam(USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def directory():
    path = tempfile.mkdtemp(prefix="quiesced-maria-", dir="/tmp")
    own(path)
    return path


def install(data, options=()):
    """Its temporary tables lie beside it: a server that starts clears its tmpdir of those of every other one, and then both fail."""
    made = subprocess.run([INSTALL, "--no-defaults", "--datadir=" + data, "--tmpdir=" + os.path.dirname(data), "--auth-root-authentication-method=socket", "--skip-test-db",
                           "--innodb-log-file-size=8M", "--auth-root-socket-user=" + USER, *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", **IDENTITY)
    assert made.returncode == 0, made.stdout.decode(errors="replace")


@functools.lru_cache(maxsize=1)
def template():
    """Making the system tables takes seconds: once, and then they are copied."""
    place = directory()
    install(place + "/data")
    return place


class Server:
    """data: an existing data directory (a restored one), or a place for a new one (beneath a directory of the server's user)."""

    def __init__(self, data, sockets, restored=False, options=()):
        if not SERVER or not INSTALL:
            pytest.skip("no MariaDB server is installed")
        self.data, self.sockets, self.socket = str(data), str(sockets), os.path.join(sockets, "mariadb.sock")
        self.log = open(os.path.join(sockets, "log"), "ab")
        if not restored:
            own_layout = [o for o in options if "-directory=" in o or "-dir=" in o]
            if own_layout:
                install(self.data, own_layout)
            else:
                subprocess.run(["cp", "-a", template() + "/data", self.data], check=True)
        self.command = [SERVER, "--no-defaults", "--datadir=" + self.data, "--socket=" + self.socket, "--tmpdir=" + self.sockets,
                        "--pid-file=" + os.path.join(self.data, "server.pid"), *SMALL, *options]
        self.launch()

    def launch(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd="/", **IDENTITY)
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.connect().close()
                return
            except pymysql.err.OperationalError:
                time.sleep(0.1)
        self.halt()
        raise AssertionError("the server does not start: " + self.said())

    def said(self):
        with open(self.log.name, errors="replace") as log:
            return log.read()[-3000:]

    def connect(self, database=None, **more):
        """The server's user is let in by the socket; the tests, which run as another, have an account of their own."""
        return pymysql.connect(unix_socket=self.socket, user="tester", password="secret", database=database, autocommit=True, **more) \
            if os.path.exists(os.path.join(self.sockets, "account")) else self.first_connect()

    def first_connect(self):
        """Makes the tests' account, by the server's own client as the server's own user."""
        sql = "CREATE OR REPLACE USER tester@localhost IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO tester@localhost WITH GRANT OPTION"
        made = subprocess.run(["mariadb", "--no-defaults", "--socket=" + self.socket, "-u", USER, "-e", sql], stdin=subprocess.DEVNULL,
                              stdout=self.log, stderr=self.log, cwd="/", **IDENTITY)
        if made.returncode != 0:
            raise pymysql.err.OperationalError(2002, "not yet")
        open(os.path.join(self.sockets, "account"), "w").close()
        return self.connect()

    def query(self, sql, *arguments, database=None):
        db = self.connect(database)
        try:
            cursor = db.cursor()
            cursor.execute(sql, arguments or None)
            return list(cursor.fetchall())
        finally:
            db.close()

    def halt(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(120)

    def stop(self):
        self.halt()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()

    def writer(self, **more):
        return Writer("mariadb", {"name": "shop", "type": "mariadb", "socket": self.socket, **more}, user=USER if IDENTITY else None)

    def sessions(self):
        """Sessions of the writer: it connects as the server's user, the tests do not."""
        return self.query("SELECT count(*) FROM information_schema.PROCESSLIST WHERE USER = %s", USER)[0][0]

    def held(self):
        """Does anybody hold up a commit or a change of a table? Asked by trying, with the shortest wait."""
        db = self.connect("test")
        try:
            cursor = db.cursor()
            cursor.execute("SET lock_wait_timeout = 0, innodb_lock_wait_timeout = 0, max_statement_time = 0.3")
            for table in ("probe_innodb", "probe_myisam"):
                cursor.execute("REPLACE INTO %s VALUES (1)" % table)
            return False
        except pymysql.err.OperationalError as error:
            assert error.args[0] in (1205, 1969, 3024), error
            return True
        finally:
            db.close()

    def make_probes(self):
        self.query("CREATE DATABASE IF NOT EXISTS test")
        for engine in ("innodb", "myisam"):
            self.query("CREATE TABLE test.probe_%s (i int PRIMARY KEY) ENGINE=%s" % (engine, engine))

    def check_tables(self):
        """CHECK TABLE EXTENDED of every table; returns what it said of each: [(table, type, text)]."""
        found = []
        for schema, table in self.query("SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND "
                                        "TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema')"):
            found += [(row[0], row[2], row[3]) for row in self.query("CHECK TABLE `%s`.`%s` EXTENDED" % (schema, table))]
        return found


@functools.lru_cache(maxsize=1)
def shared():
    """One idle server for the tests that change nothing. Stopped at the end (conftest.py)."""
    place = directory()
    server = Server(place + "/data", place)
    server.place = place
    return server


def stop_shared():
    if template.cache_info().currsize:
        shutil.rmtree(template())
        template.cache_clear()
    if shared.cache_info().currsize:
        server = shared()
        server.stop()
        shutil.rmtree(server.place)
        shared.cache_clear()
