"""The SQLite writer against real databases and real competitors."""
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest

from writer_driver import Writer, chosen, until

# Moves money between two tables and notes it; the sums never change.
LOAD = """
import random, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
db.execute("PRAGMA synchronous = OFF")
while True:
    amount = random.randint(1, 100)
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE a SET balance = balance - ? WHERE id = ?", (amount, random.randint(1, 200)))
    db.execute("UPDATE b SET balance = balance + ? WHERE id = ?", (amount, random.randint(1, 200)))
    db.execute("INSERT INTO moves(amount, note) VALUES (?, hex(randomblob(200)))", (amount,))
    db.execute("COMMIT")
"""

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def make(path, journal_mode="wal"):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = " + journal_mode)
        db.execute("CREATE TABLE a(id INTEGER PRIMARY KEY, balance INTEGER)")
        db.execute("CREATE TABLE b(id INTEGER PRIMARY KEY, balance INTEGER)")
        db.execute("CREATE TABLE moves(id INTEGER PRIMARY KEY, amount INTEGER, note TEXT)")
        for table in "ab":
            db.executemany("INSERT INTO %s VALUES (?, 0)" % table, ((i,) for i in range(1, 201)))
    db.close()
    return str(path)


def locked(path):
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("ROLLBACK")
        return False
    except sqlite3.OperationalError as error:
        assert "locked" in str(error)
        return True
    finally:
        db.close()


def check_copy(path):
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    moved = db.execute("SELECT coalesce(sum(amount), 0), count(*) FROM moves").fetchone()
    assert db.execute("SELECT -sum(balance) FROM a").fetchone()[0] == moved[0]
    assert db.execute("SELECT sum(balance) FROM b").fetchone()[0] == moved[0]
    db.close()
    return moved[1]


@pytest.fixture(params=["wal", "delete"])
def database(request, tmp_path):
    return make(tmp_path / "app.db", request.param)


@pytest.fixture
def competitors():
    started = []

    def start(script, *arguments):
        process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        return process
    yield start
    for process in started:
        process.kill()
        process.communicate()


def writer_of(*paths, **more):
    return Writer("sqlite", {"name": "app", "type": "sqlite", "databases": list(paths), **more})


def freeze(writer, *names):
    writer.metadata()
    writer.ok("prepare_backup", components=chosen(*names))
    writer.ok("prepare_snapshot", components=chosen(*names))
    writer.ok("freeze", components=chosen(*names))


def test_every_database_is_one_component_with_the_files_that_belong_to_it(tmp_path):
    (tmp_path / "x").mkdir()
    paths = [make(tmp_path / "app.db"), make(tmp_path / "x" / "app.sqlite"), make(tmp_path / "plain")]
    with writer_of(*paths) as writer:
        components = {c["name"]: c for c in writer.metadata()["components"]}
    assert sorted(components) == ["app", "app-2", "plain"]
    assert components["app"]["type"] == "database" and components["app"]["logical_path"] == ""
    assert [(s["path"], s["spec"], s["recursive"]) for s in components["app"]["file_sets"]] == [
        (str(tmp_path), spec, False) for spec in ("app.db", "app.db-wal", "app.db-journal")]
    assert components["app-2"]["file_sets"][0]["path"] == str(tmp_path / "x")


def test_a_symbolic_link_is_followed_to_the_real_files(tmp_path):
    real = make(tmp_path / "real.db")
    os.symlink(real, tmp_path / "link.db")
    with writer_of(str(tmp_path / "link.db")) as writer:
        component = writer.metadata()["components"][0]
    assert component["name"] == "link"
    assert component["file_sets"][0]["spec"] == "real.db"


def test_one_database_named_twice_is_refused(tmp_path):
    real = make(tmp_path / "real.db")
    os.symlink(real, tmp_path / "link.db")
    with writer_of(real, str(tmp_path / "link.db")) as writer:
        writer.refused("identify", "NONRETRYABLE")


@pytest.mark.parametrize("databases", [[], ["relative.db"], ["/srv/../app.db"], ["/srv/app*.db"], [7]])
def test_a_configuration_that_makes_no_sense_is_refused(databases):
    with Writer("sqlite", {"name": "app", "databases": databases}) as writer:
        writer.refused("identify", "NONRETRYABLE")


def test_freeze_blocks_a_writer_and_thaw_releases_it(database):
    with writer_of(database) as writer:
        freeze(writer, "app")
        assert locked(database)
        writer.ok("thaw", components=chosen("app"))
        assert not locked(database)
        component = writer.ok("post_snapshot", components=chosen("app"))["components"][0]
        assert component["name"] == "app" and component["stamp"]
        facts = json.loads(component["metadata"])
        assert facts["journal_mode"] in ("wal", "delete")
        assert facts["page_count"] > 0 and facts["schema_version"] > 0


def test_identify_while_frozen_does_not_drop_the_lock(database):
    with writer_of(database) as writer:
        freeze(writer, "app")
        writer.metadata()
        assert locked(database)


def test_a_database_that_is_not_selected_is_not_held(tmp_path):
    first, second = make(tmp_path / "one.db"), make(tmp_path / "two.db")
    with writer_of(first, second) as writer:
        freeze(writer, "two")
        assert not locked(first)
        assert locked(second)


@pytest.mark.parametrize("event", ["abort", "backup_shutdown"])
def test_what_is_held_is_released_by(event, database):
    with writer_of(database) as writer:
        freeze(writer, "app")
        writer.ok(event)
        assert not locked(database)
        writer.refused("post_snapshot", "NONRETRYABLE", components=chosen("app"))


@pytest.mark.parametrize("end", ["end-of-file", "SIGTERM", "SIGKILL"])
def test_the_lock_ends_with_the_process_by(end, database):
    with writer_of(database) as writer:
        freeze(writer, "app")
        if end == "end-of-file":
            writer.process.stdin.close()
        elif end == "SIGTERM":
            writer.process.terminate()
        else:
            writer.process.kill()
        writer.process.wait(60)
        assert not locked(database)
        check_copy(database)


def test_the_writer_releases_by_itself_when_no_thaw_comes(database):
    with writer_of(database, freeze_timeout_ms=200) as writer:
        freeze(writer, "app")
        until(lambda: not locked(database), "release")
        writer.refused("thaw", "TIMEOUT", components=chosen("app"))
        writer.refused("post_snapshot", "TIMEOUT", components=chosen("app"))
        writer.ok("abort")


def test_a_database_that_somebody_holds_fails_the_freeze_and_nothing_stays_held(tmp_path, competitors):
    paths = [make(tmp_path / name) for name in ("a.db", "b.db", "c.db")]
    with writer_of(*paths) as writer:
        writer.metadata()
        writer.ok("prepare_backup", components=chosen("a", "b", "c"))
        holder = competitors(HOLD, paths[1])
        assert holder.stdout.readline() == b"held\n"
        answer = writer.refused("freeze", "RETRYABLE", components=chosen("a", "b", "c"), deadline_ms=700)
        assert "b.db" in answer["message"]
        assert not locked(paths[0]) and not locked(paths[2])
        writer.ok("thaw", components=chosen("a", "b", "c"))
        writer.refused("post_snapshot", "INCONSISTENTSNAPSHOT", components=chosen("a", "b", "c"))


def test_end_of_file_ends_a_freeze_that_waits(database, competitors):
    with writer_of(database) as writer:
        writer.metadata()
        writer.ok("prepare_backup", components=chosen("app"))
        competitors(HOLD, database).stdout.readline()
        writer.send("freeze", components=chosen("app"), deadline_ms=3600 * 1000)
        writer.process.stdin.close()
        assert writer.process.wait(60) == 0


def rows_in(database):
    seen = sqlite3.connect("file:%s?mode=ro" % database, uri=True, timeout=30)
    try:
        return seen.execute("SELECT count(*) FROM moves").fetchone()[0]
    finally:
        seen.close()


def test_copies_under_the_load_of_several_processes_are_whole(database, tmp_path, competitors):
    for _ in range(3):
        competitors(LOAD, database)
    counts = []
    with writer_of(database) as writer:
        for turn in range(10):
            freeze(writer, "app")
            acknowledged = rows_in(database)
            target = tmp_path / ("copy-%d" % turn)
            target.mkdir()
            for file_set in writer_files(database):
                # In two steps with a pause, as a slow copy would: the lock alone keeps it whole.
                if os.path.exists(file_set):
                    shutil.copy(file_set, target)
                time.sleep(0.02)
            writer.ok("thaw", components=chosen("app"))
            writer.ok("post_snapshot", components=chosen("app"))
            counts.append(check_copy(target / "app.db"))
            assert counts[-1] == acknowledged
            # The lock is really gone: the load commits again after every thaw. Waiting for it also keeps the next freeze out of
            # SQLite's back-off (up to 100 ms), in which ten freezes on end can starve the load by themselves.
            until(lambda: rows_in(database) > acknowledged, "the load goes on after the thaw")
    assert counts == sorted(counts) and counts[-1] > counts[0], "the load has to go on"


def writer_files(database):
    return [database, database + "-wal", database + "-journal"]


def test_an_answer_comes_by_the_deadline_when_others_starve_the_lock(database, competitors):
    for _ in range(3):
        competitors(LOAD, database)
    with writer_of(database) as writer:
        writer.metadata()
        writer.ok("prepare_backup", components=chosen("app"))
        outcomes = set()
        for _ in range(20):
            answer = writer.ask("freeze", components=chosen("app"), deadline_ms=20)
            outcomes.add(answer.get("failure", "ok"))
            assert answer["ok"] or not writer_holds(writer, database)
            if not writer.ask("thaw", components=chosen("app"))["ok"]:  # so short a window may end before the thaw comes
                writer.ok("abort")
                writer.ok("prepare_backup", components=chosen("app"))  # an Abort lets go of what was chosen
            assert not writer_holds(writer, database)
        assert outcomes <= {"ok", "VSS_E_WRITERERROR_RETRYABLE"}


def writer_holds(writer, database):
    """Does the writer's own process hold a write lock (a POSIX lock that says WRITE) on the database or its WAL index?"""
    inodes = {os.stat(path).st_ino for path in (database, database + "-shm") if os.path.exists(path)}
    with open("/proc/locks") as locks:
        for line in locks:
            fields = line.split()
            if "WRITE" in fields and str(writer.process.pid) in fields and int(fields[-3].rsplit(":", 1)[1]) in inodes:
                return True
    return False


def test_a_database_replaced_after_prepare_fails_the_freeze(database):
    with writer_of(database) as writer:
        writer.metadata()
        writer.ok("prepare_backup", components=chosen("app"))
        os.rename(database, database + ".old")
        shutil.copy(database + ".old", database)
        answer = writer.refused("freeze", "RETRYABLE", components=chosen("app"))
        assert "replaced" in answer["message"]


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "notes.db").write_text("these are no pages of a database\n" * 100)
    with writer_of(str(tmp_path / "notes.db"), str(tmp_path / "missing.db")) as writer:
        writer.metadata()
        writer.refused("prepare_backup", "NONRETRYABLE", components=chosen("notes"))
        writer.refused("prepare_backup", "NONRETRYABLE", components=chosen("missing"))
        assert not (tmp_path / "missing.db").exists()
        writer.ok("prepare_backup", components=[])


def test_freeze_without_prepare_is_out_of_turn(database):
    with writer_of(database) as writer:
        writer.metadata()
        writer.refused("freeze", "NONRETRYABLE", components=chosen("app"))
        assert not locked(database)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused as root")
def test_root_is_refused_somebody_elses_database_and_leaves_no_files(database):
    os.chown(database, 65534, 65534)
    before = set(os.listdir(os.path.dirname(database)))
    with writer_of(database) as writer:
        writer.metadata()
        answer = writer.refused("prepare_backup", "NONRETRYABLE", components=chosen("app"))
        assert "user" in answer["message"]
        assert set(os.listdir(os.path.dirname(database))) == before
