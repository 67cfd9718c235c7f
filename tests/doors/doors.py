"""quiescectl and the scripts of packaging/front-doors as their callers run them, and a database that tells whether a copy is consistent."""
import os
import pathlib
import re
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time

import loop_fs  # noqa: F401
import manual_blocks

from daemon import BUILD, SOURCE

OK, FAILED, USAGE, UNREACHED, REFUSED, NOT_THERE, BAD_STATE, CANCELLED, DAEMON, BAD_ARGUMENT = range(10)
SCRIPTS = SOURCE / "packaging" / "front-doors"


def environment(node, **more):
    """What a front door's script needs: the program in its PATH, and the socket."""
    return {"PATH": f"{BUILD}:{os.environ['PATH']}", "HOME": str(node.place), "QUIESCED_SOCKET": node.ready["socket"],
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", ""), **more}


def run(node, *argv, code=OK, program=None, **more):
    """quiescectl (or a script), and how it has to end."""
    done = subprocess.run([str(program or BUILD / "quiescectl"), *map(str, argv)], capture_output=True, text=True, timeout=240,
                          env=environment(node, **more), stdin=subprocess.DEVNULL)
    assert "Sanitizer" not in done.stderr, done.stderr
    assert code is None or done.returncode == code, (argv, done.returncode, done.stdout, done.stderr, node.words()[-3000:])
    return done


def shown_as_the_manual_says(place):
    """Makes the directory that docs/front-doors.md has snapshots shown at, and returns the setting that lets them be, with the test's place in that of the manual."""
    make, setting = manual_blocks.of("front-doors.md", __file__, [("/mnt/quiesced", place / "shown")])
    subprocess.run(["sh", "-euc", make], check=True)
    return setting


def hold(node, *argv, **more):
    return run(node, "hold", *argv, **more)


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def answers(node):
    """Does anybody listen on the socket?"""
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(node.ready["socket"]) == 0


def pending(process, number):
    """Has the signal not been taken yet? (Two of one kind at once are one.)"""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return any(int(mask, 16) >> (number - 1) & 1 for mask in re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)", status, re.M))


def sessions_of_holds(node):
    return [one for one in node.call("GET", "/sessions?limit=500").json["items"] if (one["label"] or "").startswith("hold")]


def unmount_beneath(path):
    """Snapshots that a failed test left exposed."""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        place = line.split()[1]
        if place.startswith(f"{path}/"):
            subprocess.run(["umount", "-l", place], capture_output=True)


class Load:
    """Every transaction writes the next number into two tables; `done` is the newest that was committed."""

    def __init__(self, path):
        self.path, self.done, self.stopping, self.trouble = pathlib.Path(path), 0, False, None
        with sqlite3.connect(self.path) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript("CREATE TABLE a (n INTEGER PRIMARY KEY); CREATE TABLE b (n INTEGER PRIMARY KEY, filler TEXT);")
        database.close()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()
        until(lambda: self.done >= 5)

    def work(self):
        try:
            database = sqlite3.connect(self.path, timeout=120, isolation_level=None)
            while not self.stopping:
                database.execute("BEGIN IMMEDIATE")
                database.execute("INSERT INTO a VALUES (?)", (self.done + 1,))
                database.execute("INSERT INTO b VALUES (?, ?)", (self.done + 1, "x" * 500))
                database.execute("COMMIT")
                self.done += 1
                time.sleep(0.002)
            database.close()
        except sqlite3.Error as trouble:
            self.trouble = trouble

    def goes_on(self):
        """Nobody holds it (any more)."""
        before = self.done
        until(lambda: self.done > before + 2)

    def stop(self):
        self.stopping = True
        self.thread.join(120)
        assert self.trouble is None and not self.thread.is_alive(), self.trouble


def rows_of(database):
    """What a copy of the database, with its WAL beside it, holds: the newest number. It is whole, and both tables agree."""
    with tempfile.TemporaryDirectory(prefix="quiesced-copy-", dir="/var/tmp") as place:
        for name in pathlib.Path(database).parent.glob(pathlib.Path(database).name + "*"):
            if not name.name.endswith("-shm"):
                shutil.copy(name, place)
        copy = sqlite3.connect(pathlib.Path(place) / pathlib.Path(database).name)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        a, b = (copy.execute(f"SELECT count(*), max(n) FROM {table}").fetchone() for table in "ab")
        copy.close()
        assert a == b and a[0] == a[1], (a, b)
        return a[1]
