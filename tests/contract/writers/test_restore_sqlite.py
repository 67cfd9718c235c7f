"""SQLite restored by its writer: new content for the living file, in one transaction, beside an application that goes on."""
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from test_writer_sqlite import HOLD, LOAD, check_copy, make
from writer_driver import Writer, chosen, until


class Backup:
    """What a mover would keep: the files of the sets, copied while they are held, and what the writer answered."""

    def __init__(self, writer, path, store):
        self.path, self.store, name = str(path), store, os.path.basename(path)[:-3]
        store.mkdir()
        members = {"components": chosen(name)}
        writer.ok("prepare_backup", **members)
        writer.ok("freeze", **members)
        for suffix in ("", "-wal", "-journal"):
            if os.path.exists(self.path + suffix):
                subprocess.run(["cp", self.path + suffix, store], check=True)  # opened and closed here, this process would lose its locks of it
        writer.ok("thaw", **members)
        answer, = writer.ok("post_snapshot", **members)["components"]
        self.name, self.facts = name, answer["metadata"]

    def component(self, **members):
        return {"logical_path": "", "name": self.name, "backup_metadata": self.facts, **members}

    def bring(self, answer):
        """As a mover does with directed targets: whatever was kept."""
        assert answer["restore_target"] == "directed"
        for target in answer["directed_targets"]:
            kept = self.store / os.path.basename(target["path"])
            assert os.path.dirname(target["path"]) == os.path.dirname(self.path)
            if kept.exists():
                shutil.copy(kept, target["new_path"])


def writer_of(*paths, **more):
    return Writer("sqlite", {"name": "app", "type": "sqlite", "databases": [str(path) for path in paths], **more})


def execute(path, *statements):
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        return [db.execute(statement).fetchall() for statement in statements][-1]
    finally:
        db.close()


def is_restored(path):
    return check_copy(path) == 3 and execute(path, "SELECT count(*) FROM sqlite_master WHERE name = 'later'") == [(0,)]


def is_as_before(path):
    return execute(path, "SELECT count(*) FROM moves") == [(0,)] and execute(path, "SELECT count(*) FROM later") == [(0,)]


def left(path):
    return sorted(name for name in os.listdir(os.path.dirname(path)) if "quiesced" in name or "before-restore" in name)


def fill(path):
    execute(path, *["INSERT INTO moves(amount, note) VALUES (0, '%s')" % word for word in "abc"])


@pytest.fixture(params=["wal", "delete"])
def database(request, tmp_path):
    path = make(tmp_path / "app.db", request.param)
    fill(path)
    return path


@pytest.fixture
def app(database):
    """An application that has the database open, so that its WAL stays."""
    db = sqlite3.connect(database, timeout=60, isolation_level=None)
    db.execute("SELECT count(*) FROM moves").fetchall()
    yield db
    db.close()


@pytest.fixture
def writer(database):
    with writer_of(database) as started:
        started.metadata()
        yield started


@pytest.fixture
def backup(writer, database, app, tmp_path):
    app.execute("UPDATE a SET balance = 0")  # something in the WAL
    made = Backup(writer, database, tmp_path / "store")
    app.execute("DELETE FROM moves")
    app.execute("CREATE TABLE later(i)")
    return made


def test_the_content_is_replaced_beneath_an_open_application(writer, backup, database, app):
    before = os.stat(database)
    answer, = writer.ok("pre_restore", components=[backup.component()])["components"]
    app.execute("INSERT INTO later VALUES (1)")  # nothing is held meanwhile
    app.execute("DELETE FROM later")
    backup.bring(answer)
    writer.ok("post_restore", components=[backup.component(file_restore_status="all")])
    assert app.execute("SELECT count(*) FROM moves").fetchall() == [(3,)], "the application sees it without opening it anew"
    app.execute("INSERT INTO moves(amount, note) VALUES (0, 'more')")
    app.execute("DELETE FROM moves WHERE note = 'more'")
    after = os.stat(database)
    assert (before.st_ino, before.st_uid, before.st_mode) == (after.st_ino, after.st_uid, after.st_mode)
    assert is_restored(database) and left(database) == []


def test_under_load_every_transaction_is_of_the_old_content_or_the_new(tmp_path):
    path = make(tmp_path / "app.db")
    fill(path)
    with writer_of(path) as writer:
        writer.metadata()
        backup = Backup(writer, path, tmp_path / "store")
        load = [subprocess.Popen([sys.executable, "-c", LOAD, path]) for _ in range(2)]
        try:
            for _ in range(3):
                seen = execute(path, "SELECT max(id) FROM moves")[0][0]
                until(lambda: execute(path, "SELECT max(id) FROM moves")[0][0] > seen + 5, "the load goes on")
                answer, = writer.ok("pre_restore", components=[backup.component()])["components"]
                backup.bring(answer)
                writer.ok("post_restore", components=[backup.component(file_restore_status="all")])
            assert all(process.poll() is None for process in load)
        finally:
            for process in load:
                process.kill()
                process.wait()
    assert check_copy(path) >= 3 and left(path) == []


@pytest.mark.parametrize("end", ["none", "failed", "backup_shutdown", "abort", "end-of-file"])
def test_nothing_changes_when_it_ends_by(end, writer, backup, database, app):
    answer, = writer.ok("pre_restore", components=[backup.component()])["components"]
    backup.bring(answer)
    assert len(left(database)) == 1
    if end in ("none", "failed"):
        writer.ok("post_restore", components=[backup.component(file_restore_status=end)])
    elif end == "end-of-file":
        writer.process.stdin.close()
        assert writer.process.wait(60) == 0
    else:
        writer.ok(end)
    assert is_as_before(database) and left(database) == []


def spoil(path):
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)


@pytest.mark.parametrize("damage", ["a page", "no file"])
def test_files_that_are_not_whole_touch_nothing(damage, writer, backup, database, app):
    answer, = writer.ok("pre_restore", components=[backup.component()])["components"]
    backup.bring(answer)
    copy = answer["directed_targets"][0]["new_path"]
    if damage == "a page":
        for name in os.listdir(os.path.dirname(copy)):
            if name.endswith("-wal"):
                os.unlink(copy + "-wal")
        spoil(copy)
    else:
        os.unlink(copy)
    answer = writer.refused("post_restore", "NONRETRYABLE", components=[backup.component(file_restore_status="all")])
    assert copy in answer["message"]
    assert is_as_before(database) and left(database) == []


def test_a_wal_that_did_not_come_is_noticed(tmp_path):
    path = make(tmp_path / "app.db")
    app = sqlite3.connect(path, isolation_level=None)
    app.execute("CREATE TABLE only_in_the_wal(i)")
    with writer_of(path) as writer:
        writer.metadata()
        backup = Backup(writer, path, tmp_path / "store")
        app.execute("CREATE TABLE later(i)")
        answer, = writer.ok("pre_restore", components=[backup.component()])["components"]
        os.unlink(tmp_path / "store" / "app.db-wal")
        backup.bring(answer)
        answer = writer.refused("post_restore", "NONRETRYABLE", components=[backup.component(file_restore_status="all")])
        assert "was" in answer["message"] and ("page_count" in answer["message"] or "schema_version" in answer["message"])
    assert is_as_before(path)
    app.close()


@pytest.mark.parametrize("what", ["garbage", "nothing"])
def test_where_no_database_is_left_the_file_is_put(what, tmp_path):
    path = make(tmp_path / "app.db")
    fill(path)
    with writer_of(path) as writer:
        writer.metadata()
        backup = Backup(writer, path, tmp_path / "store")
        os.unlink(path)
        if what == "garbage":
            with open(path, "wb") as file:
                file.write(b"no database at all" * 1000)
            os.chmod(path, 0o640)
        answer, = writer.ok("pre_restore", components=[backup.component()])["components"]
        backup.bring(answer)
        writer.ok("post_restore", components=[backup.component(file_restore_status="all")])
    assert is_restored(path)
    assert len(left(path)) == (1 if what == "garbage" else 0)
    assert what == "nothing" or os.stat(path).st_mode & 0o777 == 0o640


def test_a_page_size_of_its_own_is_taken_over_when_nobody_else_has_it_open(tmp_path):
    path = make(tmp_path / "app.db")
    fill(path)
    with writer_of(path) as writer:
        writer.metadata()
        backup = Backup(writer, path, tmp_path / "store")
        execute(path, "PRAGMA journal_mode = DELETE", "PRAGMA page_size = 8192", "VACUUM", "PRAGMA journal_mode = WAL", "DELETE FROM moves",
                "CREATE TABLE later(i)")
        app = sqlite3.connect(path, timeout=0, isolation_level=None)
        app.execute("SELECT count(*) FROM moves").fetchall()
        for status in ("refused", "ok"):
            answer, = writer.ok("pre_restore", components=[backup.component()])["components"]
            backup.bring(answer)
            again = {"components": [backup.component(file_restore_status="all")], "deadline_ms": 2000 if status == "refused" else 30000}
            if status == "refused":
                writer.refused("post_restore", "RETRYABLE", **again)
                assert is_as_before(path)
                app.close()
            else:
                writer.ok("post_restore", **again)
    assert is_restored(path) and execute(path, "PRAGMA page_size") == [(4096,)]


def test_one_that_is_locked_fails_alone(tmp_path):
    paths = [make(tmp_path / name) for name in ("a.db", "b.db")]
    for path in paths:
        fill(path)
    with writer_of(*paths) as writer:
        writer.metadata()
        backups = [Backup(writer, path, tmp_path / ("store-" + os.path.basename(path))) for path in paths]
        for path in paths:
            execute(path, "DELETE FROM moves", "CREATE TABLE later(i)")
        answers = writer.ok("pre_restore", components=[backup.component() for backup in backups])["components"]
        for backup, answer in zip(backups, answers):
            backup.bring(answer)
        holder = subprocess.Popen([sys.executable, "-c", HOLD, paths[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout.readline() == b"held\n"
        answer, = writer.ok("post_restore", components=[backup.component(file_restore_status="all") for backup in backups], deadline_ms=3000)["components"]
        assert (answer["name"], answer["failure"]) == ("b", "VSS_E_WRITERERROR_RETRYABLE") and paths[1] in answer["application_message"]
        holder.communicate()
    assert is_restored(paths[0]) and is_as_before(paths[1]) and left(paths[0]) == []


def test_a_repeated_pre_restore_gives_the_same_answer(writer, backup, database, app):
    first, = writer.ok("pre_restore", components=[backup.component()])["components"]
    again, = writer.ok("pre_restore", components=[backup.component()])["components"]
    assert again == first and len(left(database)) == 1
    backup.bring(again)
    writer.ok("post_restore", components=[backup.component(file_restore_status="all")])
    assert is_restored(database) and left(database) == []


@pytest.mark.parametrize("way", ["the same", "a link", "a link of the file"])
def test_a_new_target_where_the_database_lives_is_refused(way, writer, backup, database, app, tmp_path):
    target = tmp_path
    if way == "a link":
        (tmp_path / "link").symlink_to(tmp_path)
        target = tmp_path / "link" / "."
    elif way == "a link of the file":
        target = tmp_path / "new"
        target.mkdir()
        os.link(database, target / "app.db")
    targets = [{"path": str(tmp_path), "spec": "app.db" + suffix, "recursive": False, "new_path": str(target)} for suffix in ("", "-wal", "-journal")]
    answer = writer.refused("pre_restore", "NONRETRYABLE", components=[backup.component(new_targets=targets)])
    assert "lives in the new target" in answer["message"]
    assert is_as_before(database) and left(database) == []


def test_a_new_target_is_only_looked_at(writer, backup, database, app, tmp_path):
    (tmp_path / "new").mkdir()
    targets = [{"path": str(tmp_path), "spec": "app.db" + suffix, "recursive": False, "new_path": str(tmp_path / "new")} for suffix in ("", "-wal", "-journal")]
    for damage in (False, True):
        answer, = writer.ok("pre_restore", components=[backup.component(new_targets=targets)])["components"]
        assert "directed_targets" not in answer
        for name in os.listdir(tmp_path / "new"):
            os.unlink(tmp_path / "new" / name)
        for kept in (tmp_path / "store").iterdir():
            shutil.copy(kept, tmp_path / "new")
        if damage:
            (tmp_path / "new" / "app.db-wal").unlink(missing_ok=True)
            spoil(tmp_path / "new" / "app.db")
        ask = writer.ok if not damage else lambda *a, **b: writer.refused(a[0], "NONRETRYABLE", **b)
        ask("post_restore", components=[backup.component(new_targets=targets, file_restore_status="all")])
        assert damage or is_restored(tmp_path / "new" / "app.db")
    assert is_as_before(database) and left(database) == []
