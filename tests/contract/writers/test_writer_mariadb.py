"""The MariaDB writer against a real server under load."""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time

import pymysql
import pytest

import loop_btrfs
import mariadb_server
from mariadb_server import Server, directory, own
from writer_driver import Writer, chosen, stop, until

MAIN = chosen("main")
ENGINES = ("innodb", "myisam", "aria")


@pytest.fixture
def place():
    path = directory()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(place):
    with Server(place + "/data", place) as started:
        started.make_probes()
        yield started


def on_disk(path):
    """The file system beneath path as a volume: the tests here take no snapshot of it, unless it is btrfs."""
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return {"components": MAIN, "volumes": [{"volume": path, "provider": "external", "atomic": True}]}


def prepare(writer, members):
    metadata = writer.metadata()
    writer.ok("prepare_backup", **members)
    writer.ok("prepare_snapshot", **members)
    return metadata


class Load:
    """Moves amounts between InnoDB rows, appends to a table of each engine, and makes, alters and drops tables beside it."""

    def __init__(self, server):
        self.server, self.ended, self.errors, self.last = server, threading.Event(), [], {engine: 0 for engine in ENGINES}
        server.query("CREATE TABLE test.balances (id int PRIMARY KEY, balance bigint NOT NULL) ENGINE=InnoDB")
        server.query("INSERT INTO test.balances VALUES " + ",".join("(%d, 1000)" % i for i in range(200)))
        for engine in ENGINES:
            server.query("CREATE TABLE test.numbers_%s (n bigint PRIMARY KEY, filler varchar(200), KEY(filler)) ENGINE=%s" % (engine, engine))
        self.threads = [threading.Thread(target=self.guard, args=(work, *more)) for work, more in
                        [(self.transfers, ()), (self.transfers, ()), (self.tables, ())] + [(self.numbers, (engine,)) for engine in ENGINES]]
        for thread in self.threads:
            thread.start()

    def guard(self, work, *more):
        db = self.server.connect("test")
        try:
            cursor = db.cursor()
            while not self.ended.is_set():
                work(cursor, *more)
        except pymysql.Error as error:
            self.errors.append(error)
        finally:
            db.close()

    def transfers(self, cursor):
        a, b = sorted(random.sample(range(200), 2))
        amount = random.randint(-100, 100)
        cursor.execute("BEGIN")
        cursor.execute("UPDATE balances SET balance = balance - %s WHERE id = %s", (amount, a))
        cursor.execute("UPDATE balances SET balance = balance + %s WHERE id = %s", (amount, b))
        cursor.execute("COMMIT")

    def numbers(self, cursor, engine):
        cursor.execute("INSERT INTO numbers_" + engine + " VALUES (%s, repeat(md5(%s), 6))", (self.last[engine] + 1, self.last[engine]))
        self.last[engine] += 1

    def tables(self, cursor):
        engine = random.choice(ENGINES)
        cursor.execute("CREATE TABLE passing (i int PRIMARY KEY, t text) ENGINE=" + engine)
        cursor.execute("INSERT INTO passing SELECT n, filler FROM numbers_myisam LIMIT 20")
        cursor.execute("ALTER TABLE passing ADD COLUMN x int, ADD KEY(x)")
        cursor.execute("RENAME TABLE passing TO passed")
        cursor.execute("DROP TABLE passed")

    def settle(self):
        """Waits until what was answered before a hold has been counted too: a thread learns of its answer after the server gave it."""
        seen = None
        while seen != (seen := dict(self.last)):
            time.sleep(0.2)

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        assert not self.errors, self.errors


def check_restored(data, place, at_least, at_most, options):
    """options: the same log_bin as before, or the server does not know what to do with transactions that were on their way to it."""
    sockets = place + "/restored"
    os.mkdir(sockets)
    own(sockets)
    with Server(data, sockets, restored=True, options=options) as restored:
        faults = [found for found in restored.check_tables() if (found[1], found[2]) != ("status", "OK") and found[1] != "note"]
        assert not faults
        assert restored.query("SELECT sum(balance), count(*) FROM test.balances") == [(200000, 200)]
        for engine in ENGINES:
            count, last = restored.query("SELECT count(*), max(n) FROM test.numbers_" + engine)[0]
            assert at_least[engine] <= count == last <= at_most[engine], engine
        restored.query("INSERT INTO test.numbers_myisam VALUES (-1, '')")  # it takes writes
    shutil.rmtree(sockets)


@pytest.mark.parametrize("options", [["--innodb-flush-log-at-trx-commit=0", "--log-bin=binlog"], ["--innodb-flush-method=fsync"]], ids=["binlog", "no-binlog"])
def test_atomic_snapshots_under_load_and_ddl_are_whole_in_every_engine(place, options):
    """Also with the log of InnoDB written once a second only: what was acknowledged before the freeze is there."""
    with loop_btrfs.mounted() as mount:
        loop_btrfs.subvolume(mount + "/db")
        own(mount + "/db")
        with Server(mount + "/db/data", place, options=options) as server:
            server.make_probes()
            load = Load(server)
            try:
                members = {"components": MAIN, "volumes": [{"volume": mount + "/db", "provider": "btrfs", "atomic": True}]}
                for _ in range(3):
                    begun = dict(load.last)
                    until(lambda: load.errors or all(load.last[engine] > begun[engine] + 5 for engine in ENGINES), "the load goes on")
                    with server.writer() as writer:
                        prepare(writer, members)
                        assert not server.held(), "nothing is held before freeze"
                        at_least = dict(load.last)
                        writer.ok("freeze", **members)
                        assert server.held()
                        load.settle()
                        at_most = {engine: number + 1 for engine, number in load.last.items()}  # one in flight
                        loop_btrfs.snapshot(mount + "/db", mount + "/snapshot")
                        assert all(load.last[engine] < at_most[engine] for engine in ENGINES), "nothing was acknowledged while it was held"
                        writer.ok("thaw", snapshot_taken=True, **members)
                        component, = writer.ok("post_snapshot", **members)["components"]
                        facts = json.loads(component["metadata"])
                        assert component["stamp"] and (facts["binlog_file"] is None if "--log-bin=binlog" not in options else int(facts["binlog_position"]) > 0)
                        writer.ok("backup_complete", components=MAIN)
                    shutil.copytree(mount + "/snapshot/data", place + "/copy", ignore=shutil.ignore_patterns("*.pid", "ibtmp*"))
                    subprocess.run(["chown", "-R", "mysql:mysql", place + "/copy"], check=True)
                    loop_btrfs.delete(mount + "/snapshot")
                    check_restored(place + "/copy", place, at_least, at_most, options)
                    shutil.rmtree(place + "/copy")
            finally:
                load.stop()


def test_the_freeze_waits_until_innodb_has_written_its_log(place):
    """With 0 no statement writes it: a snapshot right after FLUSH ENGINE LOGS lacked what was acknowledged before."""
    with Server(place + "/data", place, options=["--innodb-flush-log-at-trx-commit=0"]) as server:
        server.make_probes()
        members = on_disk(place)
        log = lambda: {name: int(lsn) for name, lsn in server.query("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_%'")}  # noqa: E731
        with server.writer() as writer:
            for turn in range(2):  # one of them may meet the server's own moment
                prepare(writer, members)
                for number in range(20):
                    server.query("INSERT INTO test.probe_innodb VALUES (%s)", 1000 * turn + number)
                acknowledged = log()["Innodb_lsn_current"]
                writer.ok("freeze", **members)
                assert log()["Innodb_lsn_flushed"] >= acknowledged and server.held()
                writer.ok("abort")


def test_snapshots_under_sysbench_are_whole(place):
    """sysbench's own read-write mix, and a second server on what the snapshot holds."""
    if not shutil.which("sysbench"):
        pytest.skip("no sysbench is installed")
    with loop_btrfs.mounted() as mount:
        loop_btrfs.subvolume(mount + "/db")
        own(mount + "/db")
        with Server(mount + "/db/data", place) as server:
            server.query("CREATE DATABASE bench")
            words = ["sysbench", "oltp_read_write", "--db-driver=mysql", "--mysql-socket=" + server.socket, "--mysql-user=tester", "--mysql-password=secret",
                     "--mysql-db=bench", "--tables=4", "--table-size=2000", "--threads=4", "--time=600", "--mysql-ignore-errors=1213,1020"]
            subprocess.run(words + ["prepare"], check=True, stdout=subprocess.DEVNULL)
            load = subprocess.Popen(words + ["run"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            done = lambda: int(server.query("SHOW GLOBAL STATUS LIKE 'Com_commit'")[0][1])  # noqa: E731
            try:
                members = {"components": MAIN, "volumes": [{"volume": mount + "/db", "provider": "btrfs", "atomic": True}]}
                for _ in range(2):
                    begun = done()
                    until(lambda: load.poll() is not None or done() > begun + 50, "the load goes on")
                    assert load.poll() is None, load.stdout.read().decode()
                    with server.writer() as writer:
                        prepare(writer, members)
                        writer.ok("freeze", **members)
                        loop_btrfs.snapshot(mount + "/db", mount + "/snapshot")
                        writer.ok("thaw", snapshot_taken=True, **members)
                        writer.ok("post_snapshot", **members)
                        writer.ok("backup_complete", components=MAIN)
                    shutil.copytree(mount + "/snapshot/data", place + "/copy", ignore=shutil.ignore_patterns("*.pid", "ibtmp*"))
                    subprocess.run(["chown", "-R", "mysql:mysql", place + "/copy"], check=True)
                    loop_btrfs.delete(mount + "/snapshot")
                    os.mkdir(place + "/restored")
                    own(place + "/restored")
                    with Server(place + "/copy", place + "/restored", restored=True) as restored:
                        faults = [found for found in restored.check_tables() if (found[1], found[2]) != ("status", "OK") and found[1] != "note"]
                        assert not faults
                        # Each transaction deletes a row and puts it back.
                        assert [restored.query(f"SELECT count(*) FROM bench.sbtest{n}") for n in range(1, 5)] == [[(2000,)]] * 4
                    shutil.rmtree(place + "/copy")
                    shutil.rmtree(place + "/restored")
            finally:
                load.terminate()
                load.wait()


def test_a_data_directory_that_is_a_mount_point(server, place):
    """Its lost+found is root's alone: the server's user cannot look into it, and need not."""
    os.mkdir(place + "/data/lost+found", 0o700)
    with server.writer() as writer:
        assert writer.metadata()["components"][0]["name"] == "main"


def test_without_the_hold_myisam_tables_in_a_snapshot_are_not_closed(place):
    """What the stages are for: the same check finds fault with a snapshot that was taken without them."""
    with loop_btrfs.mounted() as mount:
        loop_btrfs.subvolume(mount + "/db")
        own(mount + "/db")
        with Server(mount + "/db/data", place) as server:
            server.make_probes()
            load = Load(server)
            try:
                until(lambda: load.errors or load.last["myisam"] > 50, "the load goes on")
                loop_btrfs.snapshot(mount + "/db", mount + "/snapshot")
            finally:
                load.stop()
        shutil.copytree(mount + "/snapshot/data", place + "/copy", ignore=shutil.ignore_patterns("*.pid", "ibtmp*"))
        subprocess.run(["chown", "-R", "mysql:mysql", place + "/copy"], check=True)
        loop_btrfs.delete(mount + "/snapshot")
        os.mkdir(place + "/restored")
        own(place + "/restored")
        with Server(place + "/copy", place + "/restored", restored=True) as restored:
            said = [text for table, _, text in restored.check_tables() if table == "test.numbers_myisam"]
        assert any("closed" in text for text in said), said


def test_the_component_is_the_data_directory_and_what_lies_elsewhere(place):
    for name in ("redo", "undo", "logs"):
        os.mkdir(place + "/" + name)
        own(place + "/" + name)
    options = ["--innodb-log-group-home-dir=" + place + "/redo", "--innodb-undo-directory=" + place + "/undo", "--log-bin=" + place + "/logs/shop-bin"]
    with Server(place + "/data", place, options=options) as server, server.writer() as writer:
        metadata = writer.metadata()
        component, = metadata["components"]
        assert [(s["path"], s["spec"], s["recursive"]) for s in component["file_sets"]] == [
            (place + "/data", "*", True), (place + "/redo", "*", True), (place + "/undo", "*", True), (place + "/logs", "shop-bin.*", False)]
        assert {"path": place + "/data", "spec": "*.pid", "recursive": False} in metadata["exclude"]
        assert metadata["restore_method"] == "stop_restore_start" and "10." in component["caption"]
        members = on_disk(place)
        members["volumes"].append({"volume": place + "/redo", "provider": "external", "atomic": True})
        writer.ok("prepare_backup", **members)
        answer = writer.refused("prepare_snapshot", "NONRETRYABLE", **members)
        assert "one volume" in answer["message"], "redo log and data of different instants do not start"
        assert not server.sessions() or writer.ok("abort")


def test_a_volume_that_is_copied_file_by_file_is_refused(server, place):
    members = on_disk(place)
    members["volumes"][0].update(provider="copy", atomic=False)
    with server.writer() as writer:
        writer.metadata()
        writer.ok("prepare_backup", **members)
        answer = writer.refused("prepare_snapshot", "NONRETRYABLE", **members)
        assert "atomic" in answer["message"]


@pytest.mark.parametrize("end", ["thaw", "abort", "backup_shutdown", "end-of-file", "SIGTERM", "SIGKILL"])
def test_the_hold_ends_by(end, server, place):
    members = on_disk(place)
    with server.writer() as writer:
        prepare(writer, members)
        assert not server.held() and server.sessions() == 1
        writer.ok("freeze", **members)
        assert server.held()
        if end in ("thaw", "abort", "backup_shutdown"):
            writer.ok(end, **members)
        elif end == "end-of-file":
            writer.process.stdin.close()
            assert writer.process.wait(60) == 0
        else:
            writer.process.send_signal(getattr(signal, end))
            writer.process.wait(60)
        until(lambda: not server.held(), "the server lets go")
        if end == "thaw":
            writer.ok("post_snapshot", **members)
        until(lambda: server.sessions() == 0, "the session is gone")
    with server.writer() as writer:  # and the next backup goes
        prepare(writer, members)


def test_a_hold_without_thaw_ends_by_itself(server, place):
    members = on_disk(place)
    with server.writer(freeze_timeout_ms=1000) as writer:
        prepare(writer, members)
        writer.ok("freeze", **members)
        until(lambda: not server.held(), "the hold ends by itself")
        writer.refused("thaw", "TIMEOUT", **members)
        writer.refused("post_snapshot", "TIMEOUT", **members)
        writer.ok("abort")
        prepare(writer, members)


def test_a_killed_session_fails_the_thaw(server, place):
    members = on_disk(place)
    with server.writer() as writer:
        prepare(writer, members)
        writer.ok("freeze", **members)
        number = server.query("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = %s", mariadb_server.USER)[0][0]
        server.query("KILL CONNECTION %d" % number)
        until(lambda: not server.held(), "the server lets go")
        answer = writer.refused("thaw", "RETRYABLE", **members)
        assert "connection lost" in answer["message"]
        writer.refused("post_snapshot", "RETRYABLE", **members)
        writer.ok("abort")
        prepare(writer, members)


class Locked:
    """Somebody who holds the write lock of a MyISAM table: BLOCK_DDL has to wait for that."""

    def __init__(self, server):
        self.db = server.connect("test")

    def __enter__(self):
        self.db.cursor().execute("LOCK TABLES probe_myisam WRITE")

    def __exit__(self, *unused):
        self.db.cursor().execute("UNLOCK TABLES")  # heard: a connection that closes gives its locks up in the server's own time
        self.db.close()


def test_a_lock_that_lasts_fails_the_freeze_in_time_and_leaves_nothing_held(server, place):
    members = on_disk(place)
    with server.writer() as writer:
        prepare(writer, members)
        with Locked(server):
            answer = writer.refused("freeze", "TIMEOUT", deadline_ms=1500, **members)
            assert answer["message"]
            until(lambda: server.sessions() == 0, "the waiting session is gone although the lock is still held")
            server.query("REPLACE INTO test.probe_innodb VALUES (1)")
            server.query("CREATE TABLE test.made_meanwhile (i int) ENGINE=InnoDB")
        assert not server.held()
        writer.refused("post_snapshot", "INCONSISTENTSNAPSHOT", **members)
        writer.ok("abort")
        prepare(writer, members)
        writer.ok("freeze", **members)


def test_a_requester_that_leaves_ends_a_wait_for_a_lock(server, place):
    members = on_disk(place)
    with server.writer() as writer:
        prepare(writer, members)
        with Locked(server):
            writer.send("freeze", deadline_ms=3600 * 1000, **members)
            until(lambda: server.query("SELECT count(*) FROM information_schema.PROCESSLIST WHERE USER = %s AND INFO LIKE 'BACKUP STAGE%%'",
                                       mariadb_server.USER)[0][0] == 1, "the writer waits")
            writer.process.stdin.close()
            assert writer.process.wait(60) == 0
            until(lambda: server.sessions() == 0, "the waiting session is killed")
        assert not server.held()


def test_a_server_that_hangs_is_given_up_at_the_deadline(server, place):
    members = on_disk(place)
    with server.writer() as writer:
        prepare(writer, members)
        stop(server.process.pid)
        try:
            writer.refused("freeze", "TIMEOUT", deadline_ms=500, **members)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        until(lambda: server.sessions() == 0, "the session is gone")
        assert not server.held()


def test_tables_outside_the_data_directory_are_refused(server, place):
    os.mkdir(place + "/elsewhere")
    own(place + "/elsewhere")
    members = on_disk(place)
    with server.writer() as writer:
        prepare(writer, members)
        server.query("CREATE TABLE test.far (i int) ENGINE=InnoDB DATA DIRECTORY='%s/elsewhere'" % place)
        answer = writer.refused("freeze", "NONRETRYABLE", **members)
        assert "far.isl" in answer["message"]
        assert not server.held()
        writer.ok("abort")
        writer.refused("identify", "NONRETRYABLE")
        server.query("DROP TABLE test.far")
        prepare(writer, members)
        server.query("CREATE TABLE test.linked (i int) ENGINE=MyISAM DATA DIRECTORY='%s/elsewhere'" % place)
        answer = writer.refused("freeze", "NONRETRYABLE", **members)
        assert "linked.MYD" in answer["message"]


def test_a_server_that_is_not_selected_is_left_alone(server, place):
    with server.writer() as writer:
        writer.metadata()
        for event in ("prepare_backup", "prepare_snapshot", "freeze", "thaw", "post_snapshot"):
            assert "components" not in writer.ok(event, components=[], volumes=[])
            assert not server.held()


def test_events_out_of_turn_are_refused(server, place):
    members = on_disk(place)
    with server.writer() as writer:
        writer.metadata()
        writer.refused("post_snapshot", "INCONSISTENTSNAPSHOT", **members)
        writer.ok("prepare_backup", **members)
        writer.refused("freeze", "NONRETRYABLE", **members)
        writer.ok("prepare_snapshot", **members)
        writer.refused("prepare_snapshot", "NONRETRYABLE", **members)


def test_logins_by_password_file_and_rights_are_told(server, place):
    for account, rights in (("full", "RELOAD, PROCESS, BINLOG MONITOR"), ("weak", "USAGE")):
        server.query("CREATE USER %s@localhost IDENTIFIED BY 'hunter2'" % account)
        server.query("GRANT %s ON *.* TO %s@localhost" % (rights, account))
    with open(place + "/password", "w") as file:
        file.write("hunter2\n")
    own(place + "/password")
    members = on_disk(place)
    with server.writer(login="full", password_file=place + "/password") as writer:
        prepare(writer, members)
        writer.ok("freeze", **members)
    with server.writer(login="weak", password_file=place + "/password") as writer:
        writer.metadata()
        writer.ok("prepare_backup", **members)
        answer = writer.refused("prepare_snapshot", "NONRETRYABLE", **members)
        assert "GRANT RELOAD" in answer["message"]
    with open(place + "/password", "w") as file:
        file.write("wrong\n")
    with server.writer(login="full", password_file=place + "/password") as writer:
        answer = writer.refused("identify", "NONRETRYABLE")
        assert "password_file" in answer["message"] and "wrong" not in answer["message"]
    with server.writer(login="full", password_file=place + "/nowhere") as writer:
        writer.refused("identify", "NONRETRYABLE")


def test_no_server_and_no_address_are_told_apart(place):
    with Writer("mariadb", {"name": "shop", "socket": place + "/nowhere.sock"}) as writer:
        writer.refused("identify", "RETRYABLE")
    with Writer("mariadb", {"name": "shop"}) as writer:
        writer.refused("identify", "NONRETRYABLE")


@pytest.mark.parametrize("version,name", [(b"5.5.5-10.3.39-MariaDB", "10.3.39"), (b"8.0.36", "8.0.36")])
def test_servers_without_backup_stage_are_refused_with_a_reason(place, version, name):
    """No such server is at hand: this one says hello as they do, lets everybody in, and is asked for nothing more."""
    hello = b"\x0a" + version + b"\0" + b"\x01\0\0\0" + b"12345678\0" + b"\xff\xf7" + b"\x21" + b"\x02\0" + b"\x0f\x80" + b"\x15" + b"\0" * 10 + \
        b"901234567890\0" + b"mysql_native_password\0"
    packet = lambda number, body: len(body).to_bytes(3, "little") + bytes([number]) + body  # noqa: E731
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place + "/old.sock")
    listener.listen()

    def serve():
        client, _ = listener.accept()
        client.sendall(packet(0, hello))
        header = client.recv(4)
        client.recv(int.from_bytes(header[:3], "little"))
        client.sendall(packet(header[3] + 1, b"\0\0\0\x02\0\0\0"))
        client.recv(64)
        client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with Writer("mariadb", {"name": "shop", "socket": place + "/old.sock"}) as writer:
            answer = writer.refused("identify", "NONRETRYABLE")
            assert name in answer["message"] and "BACKUP STAGE" in answer["message"]
    finally:
        thread.join()
        listener.close()
