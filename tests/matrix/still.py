"""A small PostgreSQL server of its own for the restores in place: nobody writes to it, its writer stops and starts it by way of a service
manager, and what its table holds tells whether the data of before or the restored data lies in its place."""
import glob
import json
import os
import pathlib
import shutil
import time

import psycopg2

import postgresql_server
from service_manager import Manager

RESTORED, BEFORE = 1000, 10  # rows: as backed up, and as they were when the restore began
SECONDS = 120


def wait_for(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


class Still:
    def __init__(self, place, sockets):
        for path in (place, sockets):
            path.mkdir()
            postgresql_server.own(path)
        self.data = place / "data"
        self.server = postgresql_server.Server(str(self.data), str(sockets))
        self.manager = Manager(self.server, str(sockets / "manager"))
        self.server.query("CREATE TABLE t (i int)")

    def writer(self):
        """Its entry of the configuration."""
        commands = ", ".join(f"{order}: {json.dumps(command)}" for order, command in self.manager.commands.items())
        return f'{{name: still, type: postgresql, connection: "{self.server.connection} dbname=postgres", user: postgres, {commands}}}'

    def fill(self):
        self.server.query("TRUNCATE t")
        self.server.query(f"INSERT INTO t SELECT generate_series(1, {RESTORED})")

    def change(self):
        self.server.query(f"DELETE FROM t WHERE i > {BEFORE}")

    def runs(self):
        return self.manager.idle and self.server.process.poll() is None and self.answers()

    def answers(self):
        """A server that recovers, or that is about to end, lives and refuses."""
        try:
            return bool(self.server.query("SELECT 1"))
        except psycopg2.Error:
            return False

    def rows(self):
        return self.server.query("SELECT count(*) FROM t")[0][0]

    def left(self):
        return glob.glob(f"{self.data}*-restore-*") + glob.glob(f"{self.data}/.quiesced*")

    def judge(self, phase, succeeded, writer_is_dead, worker_is_dead):
        """What is wrong. A writer that was killed could put nothing back (docs/writers/postgresql.md): then its old data must lie aside, and
        people move it back. A mover that was killed with its worker leaves its private staging directory (docs/reliability.md)."""
        wrong = []
        for staging in glob.glob(f"{self.data}/.quiesced-restore-*") if worker_is_dead and wait_for(self.runs, 90) else []:
            shutil.rmtree(staging)
        wait_for(lambda: self.runs() and not self.left(), 15 if writer_is_dead else SECONDS)
        if writer_is_dead and not self.runs():
            self.put_back(phase)
        elif not self.runs():
            return ["the restored server stays stopped: " + str(self.left())]
        rows = self.rows()
        allowed = [RESTORED] if phase == "post_restore" and succeeded else [BEFORE, RESTORED] if phase == "post_restore" else [BEFORE]
        if rows not in allowed:
            wrong.append(f"the server that is restored has {rows} rows, not {allowed}")
        if self.left() and not writer_is_dead:
            wrong.append(f"of the restore in place there is left: {self.left()}")
        for place in self.left():
            shutil.rmtree(place)
        return wrong

    def put_back(self, phase):
        taken = [pathlib.Path(path) for path in glob.glob(f"{self.data}.before-restore-*")]
        if taken and phase != "pre_restore":  # in which nothing else came to lie there
            for entry in self.data.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for place in taken:
            for entry in place.iterdir():
                os.rename(entry, self.data / entry.name)
        self.server.launch()

    def destroy(self):
        self.manager.__exit__()
        self.server.stop()
