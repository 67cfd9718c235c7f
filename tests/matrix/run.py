#!/usr/bin/python3
"""Runs cells of the kill matrix on a rig of its own, and tells each result.

usage: run.py            cells as JSON lines on standard input, results as JSON lines on standard output
       run.py CELL...    those cells, by name (core-SIGKILL-freeze); results are printed"""
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback

import cells
from rig import BUILD, HERE, PYTHON, Rig, as_user, become_subreaper, of_daemon, process, run

HOLD_SECONDS = 120
END_SECONDS = 60
QUIET_SECONDS = 40
IN_PLACE_SECONDS = 240  # writers that stopped a server have a minute to start it again, and whoever ends them waits for that (docs/reliability.md)
COMPONENTS = [{"writer": "holder", "name": "main"}, {"writer": "app", "name": "app"}, {"writer": "pg", "name": "main"},
              {"writer": "shop", "name": "main"}, {"writer": "cache", "name": "main"}]


class Cell:
    def __init__(self, rig, cell):
        self.rig, self.cell = rig, cell
        self.role, self.signal, self.phase = cell
        self.kind, self.how, self.what = cells.PHASES[self.phase]
        self.repository = cells.repository(cell)
        self.wrong, self.again = [], False

    def expect(self, holds, text):
        if not holds:
            self.wrong.append(text)
        return holds

    # --- hold, kill, let go ---

    def hold_file(self):
        return self.rig.gate / self.what if self.how == "event" else self.rig.faults / self.what

    def held_file(self):
        return self.rig.gate / f"{self.what}.held" if self.how == "event" else self.rig.faults / f"{self.what}.hit"

    def let_go(self):
        self.hold_file().unlink(missing_ok=True)
        self.held_file().unlink(missing_ok=True)

    def is_held(self, view):
        if self.how == "progress":
            return (view.get("progress") or {}).get("phase") == self.what
        return self.held_file().exists()

    def begin(self):
        api = self.rig.api
        self.let_go()
        self.quiet()  # a daemon that has just started looks through its repositories, with movers of its own
        self.since_ns = self.wanted_ns = time.monotonic_ns()
        path, body = getattr(self, f"begin_{self.kind}")()
        self.before = {entry["id"] for entry in api.patient("GET", "/backups")[1]["items"]}
        if self.how != "progress":
            self.hold_file().write_text("" if self.how == "event" else "hold")
        self.since_ns = time.monotonic_ns()
        status, view = api.patient("POST", path, body)
        assert status == 202, f"POST {path}: {status} {view}"
        self.job = view["id"]
        deadline = time.monotonic() + HOLD_SECONDS
        while not self.is_held(view):
            status, view = api.patient("GET", f"/jobs/{self.job}")
            assert view["state"] not in ("succeeded", "failed", "cancelled"), f"the job ended before {self.phase} was reached: {view}"
            assert time.monotonic() < deadline, f"{self.phase} was not reached: {view}"
            time.sleep(0.02)

    def begin_backup(self):
        return "/backups", self.body()

    def begin_restore(self):
        backup = self.backup()["result"]["backup_id"]
        self.target, self.source = self.fresh_target(), backup
        return f"/backups/{backup}/restore", {"target": str(self.target), "paths": [], "overwrite": False}

    def begin_session(self):
        """A session whose snapshot is taken outside: prepared, and ext4 in its set."""
        api = self.rig.api

        def right(method, path, body=None, wanted=(200, 201)):
            status, view = api.patient(method, path, body)
            assert status in wanted, f"{method} {path}: {status} {view}"
            return view

        def done(path):
            view = api.ended(right("POST", path, None, (202,))["id"])
            assert view["state"] == "succeeded", view

        self.session = s = "/sessions/" + right("POST", "/sessions", {"kind": "backup", "label": "matrix"})["id"]
        right("PUT", s + "/backup-state", {"component_mode": True, "bootable_system_state": False, "type": "full", "partial_files": False})
        done(s + "/metadata")
        holder = next(writer for writer in right("GET", s + "/writers")["items"] if writer["name"] == "holder")
        right("POST", s + "/components", {"instance_id": holder["instance_id"], "logical_path": "", "name": "main"})
        right("POST", s + "/snapshot-set", {})
        right("POST", s + "/snapshot-set/volumes", {"path": str(self.rig.ext4), "provider": "external"})
        done(s + "/prepare")
        return s + "/snapshot", None

    def begin_in_place(self):
        """A restore session, brought to before the job of the phase. The exec writer takes part: it holds the events."""
        api, still = self.rig.api, self.rig.still
        still.fill()
        components = [{"writer": "still", "name": "main"}, COMPONENTS[0]]
        status, view = api.patient("POST", "/backups", {"components": components, "repository": self.repository})
        view = api.ended(view["id"], END_SECONDS)
        assert view["state"] == "succeeded", view
        still.change()
        status, made = api.patient("POST", "/sessions", {"kind": "restore", "backup_id": view["result"]["backup_id"]})
        assert status == 201, made
        self.session = s = "/sessions/" + made["id"]

        def done(path, body=None):
            status, job = api.patient("POST", s + path, body)
            job = api.ended(job["id"], IN_PLACE_SECONDS) if status == 202 else job
            assert status == 202 and job["state"] == "succeeded", (status, job)

        done("/metadata")
        for component in api.patient("GET", s + "/components")[1]["items"]:
            status, view = api.patient("PATCH", f"{s}/components/{component['id']}", {"selected": True})
            assert status == 200, view
        if self.phase != "pre_restore":
            done("/pre-restore")
        if self.phase == "post_restore":
            done("/restore-files", {})
        return s + "/" + self.phase.replace("_", "-"), {} if self.phase == "restore_files" else None

    def body(self, components=COMPONENTS):
        return {"components": components, "paths": [str(self.rig.ext4 / "files")], "repository": self.repository}

    def strike(self):
        wanted, rig = cells.ROLES[self.role][0], self.rig
        victims = [entry for role, entry in of_daemon() if role in wanted]
        if self.role != "all":
            missing = [role for role in wanted if role not in [role for role, _ in of_daemon()]]
            assert not missing, f"no process of role {missing} in {self.phase}: {[(r, e['pid']) for r, e in of_daemon()]}"
        # serve last: it would start what it sees die, while the rest still lives
        if self.role == "all":
            os.kill(rig.serve.pid, signal.SIGSTOP)
        for entry in victims:
            if entry["pid"] != rig.serve.pid:
                os.kill(entry["pid"], getattr(signal, self.signal))
        if self.role == "all":
            os.kill(rig.serve.pid, getattr(signal, self.signal))
            if self.signal == "SIGTERM":
                os.kill(rig.serve.pid, signal.SIGCONT)
        self.struck_ns = time.monotonic_ns()
        self.let_go()

    def restart(self):
        """Who is left when everything is struck: the machine's supervisor, which starts the service anew. Stopped processes
        cannot answer its watchdog; it kills them (systemd: WatchdogSec=), runs ExecStopPost= and starts."""
        rig = self.rig
        if self.signal == "SIGSTOP":
            for _, entry in of_daemon():
                os.kill(entry["pid"], signal.SIGKILL)
        rig.serve.wait(60)
        rig.start()

    # --- what became of it ---

    def settle(self):
        """The job ends, and with it every process that it had."""
        in_place = self.kind == "in_place"
        self.view = self.rig.api.ended(self.job, IN_PLACE_SECONDS if in_place else END_SECONDS)
        if self.kind == "session":  # a failed DoSnapshotSet leaves it to the requester to end the session
            self.rig.api.patient("POST", self.session + "/abort")
        if in_place:  # Release: without a PostRestore that succeeded, writers put back what they moved
            status, view = self.rig.api.patient("DELETE", self.session, seconds=IN_PLACE_SECONDS)
            if status == 202:
                self.rig.api.ended(view["id"], IN_PLACE_SECONDS)
        left = self.quiet(IN_PLACE_SECONDS if in_place else QUIET_SECONDS)
        self.expect(not left, f"processes are left: {left}")

    @staticmethod
    def quiet(seconds=QUIET_SECONDS):
        """Waits until only the lasting roles run; who else is left after that time is returned."""
        deadline = time.monotonic() + seconds
        while True:
            left = [f"{role} {entry['pid']} ({entry['state']})" for role, entry in of_daemon() if role not in ("serve", "front", "core", "agent", "logger")]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def judge(self):
        limit = None if self.role == "all" else self.rig.describe()["limit_ms"]
        case = {"rig": self.rig.describe(), "since_ns": self.since_ns, "limit_ms": limit}
        done = subprocess.run([PYTHON, HERE / "judge.py"], input=json.dumps(case), capture_output=True, text=True)
        if not self.expect(done.stdout.startswith("{"), f"the judge failed: {done.stderr[-2000:]}"):
            return
        verdict = json.loads(done.stdout)
        self.wrong += verdict["wrong"]
        self.pause_ms = verdict["pause_ms"]

    def judge_words(self):
        """What the API says: the job, its session, its backup."""
        api, view = self.rig.api, self.view
        if view["state"] == "failed":
            self.expect(view["error"] and view["hresult"] not in ("S_OK", "VSS_S_ASYNC_FINISHED"), f"a failure without a reason: {view}")
        status, sessions = api.patient("GET", "/sessions")
        for session in sessions["items"]:
            self.expect(session["state"] in ("completed", "aborted") and not session["pending_job"], f"a session is left open: {session}")
        status, jobs = api.patient("GET", "/jobs")
        for job in jobs["items"]:
            self.expect(job["state"] in ("succeeded", "failed", "cancelled"), f"a job is left open: {job}")
        status, snapshots = api.patient("GET", "/snapshots")
        if status == 200:
            self.expect(not snapshots["items"], f"snapshots are listed: {snapshots['items']}")
        if self.kind == "backup":
            self.judge_backup()
        elif self.kind == "session":
            self.expect(view["state"] != "succeeded", "succeeded, although nobody said that the outside snapshot was taken")
        elif self.kind == "in_place":
            dead = self.role in ("writer", "all") and self.signal != "SIGTERM"
            gone = self.role not in ("front", "writer", "mover") and self.phase == "restore_files"
            self.wrong += self.rig.still.judge(self.phase, view["state"] == "succeeded", dead, gone)
        elif view["state"] == "succeeded":
            self.judge_restored(self.target)
        else:
            self.judge_failed_restore()

    def judge_failed_restore(self):
        """Nothing is at its place; a private staging directory may be, and the next restore to the same target removes it."""
        left = [path.name for path in self.target.iterdir()]
        self.expect(all(name.startswith(".quiesced-restore-") for name in left), f"a failed restore left {left} at its target")
        self.restore_into(self.target, self.source, [str(self.rig.ext4 / "files"), str(self.rig.volume / "app")], postgresql=False)

    def judge_backup(self):
        """What succeeded is complete in the catalog, and what is called complete there is restored and read. That may be the backup of
        a job that was interrupted after BackupComplete; before it, nothing may be called so. A role that is stopped, not killed, is
        replaced a second or more later: until then the job went on, and may have come so far."""
        status, backups = self.rig.api.patient("GET", "/backups")
        complete = [entry["id"] for entry in backups["items"] if entry["complete"] and entry["id"] not in self.before]
        if self.view["state"] == "succeeded":
            self.expect(complete == [self.view["result"]["backup_id"]], f"succeeded with {self.view['result']}, but complete in the catalog: {complete}")
        elif self.phase not in ("backup_complete", "release") and not (self.signal == "SIGSTOP" and self.interrupted(self.view)):
            self.expect(not complete, f"the catalog calls {complete} complete, but the job failed in {self.phase}")
        for backup in complete:
            self.restore_and_read(backup, postgresql=True)

    @staticmethod
    def interrupted(view):
        return view["state"] == "failed" and view["error"]["reason"] == "interrupted"

    def fresh_target(self):
        target = self.rig.place / "restored" / str(time.monotonic_ns())
        target.mkdir()
        return target

    def backup(self):
        """The next backup succeeds, and what it says is true."""
        status, view = self.rig.api.patient("POST", "/backups", self.body(COMPONENTS if self.kind == "restore" else COMPONENTS[:2]))
        assert status == 202, f"the next backup: {status} {view}"
        view = self.rig.api.ended(view["id"], END_SECONDS)
        if self.follows_the_hint(view):
            return self.backup()
        assert view["state"] == "succeeded", f"the next backup {view['state']}: {view['error']}"
        return view

    def follows_the_hint(self, view):
        """A stopped role is replaced a second later, and the job that was begun meanwhile with it: its word is true, and what it
        advises is done, once."""
        follows = self.signal == "SIGSTOP" and self.interrupted(view) and not self.again
        self.again = self.again or follows
        return follows

    def restore_and_read(self, backup, postgresql):
        target = self.fresh_target()
        paths = [] if postgresql else [str(self.rig.ext4 / "files"), str(self.rig.volume / "app")]
        self.restore_into(target, backup, paths, postgresql)

    def restore_into(self, target, backup, paths, postgresql):
        status, view = self.rig.api.patient("POST", f"/backups/{backup}/restore", {"target": str(target), "paths": paths, "overwrite": False})
        if not self.expect(status == 202, f"restore of a backup that succeeded: {status} {view}"):
            return
        view = self.rig.api.ended(view["id"], END_SECONDS)
        if self.follows_the_hint(view):
            self.restore_into(target, backup, paths, postgresql)
        elif self.expect(view["state"] == "succeeded", f"restore of a backup that succeeded: {view['error']}"):
            self.judge_restored(target, postgresql)

    def judge_restored(self, target, postgresql=True):
        rig, below = self.rig, lambda path: pathlib.Path(f"{target}{path}")
        for file in (rig.ext4 / "files").iterdir():
            copy = below(file)
            self.expect(copy.exists() and copy.read_bytes() == file.read_bytes(), f"restored: {file} differs")
        database = sqlite3.connect(below(rig.database))
        self.expect(database.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "restored: SQLite is damaged")
        self.judge_rows("SQLite", database.execute("SELECT count(*), max(n) FROM written").fetchone(),
                        database.execute("SELECT max(at_ns) FROM written").fetchone()[0])
        database.close()
        if postgresql:
            self.judge_cluster(below(rig.cluster), below(rig.ext4 / "space"))
            self.judge_server("Redis", below(rig.ext4 / "redis"), "redis", self.read_redis)
            if cells.is_representative(self.cell):  # a second MariaDB takes its time
                self.judge_server("MariaDB", below(rig.volume / "mariadb"), "mysql", self.read_mariadb)
        shutil.rmtree(target)

    def judge_rows(self, what, counts, newest_ns):
        """A gapless prefix that reaches at least to where we began."""
        self.expect(counts[0] == counts[1] and counts[0], f"restored: {what} has {counts[0]} of {counts[1]} rows")
        self.expect((newest_ns or 0) >= self.wanted_ns - int(1e9), f"restored: {what} lacks what was acknowledged before the backup")

    def judge_cluster(self, cluster, space):
        """It starts beside its origin, with its tablespace led to the restored one."""
        rig, user = self.rig, as_user("postgres")
        self.hand_over("postgres", cluster, space)
        for link in (cluster / "pg_tblspc").iterdir():
            link.unlink()
            link.symlink_to(space)
        map_file = cluster / "tablespace_map"
        if map_file.exists():
            map_file.write_text(map_file.read_text().replace(str(rig.ext4 / "space"), str(space)))
        cluster.chmod(0o700)
        sockets = rig.place / "restored" / "sockets"
        sockets.mkdir(exist_ok=True)
        os.chown(sockets, user["user"], user["group"])
        server = None
        try:
            server = rig.postgres(cluster, sockets)
            count, last, newest = rig.query("SELECT count(*), max(n), max(at_ns) FROM written", sockets)[0]
            self.judge_rows("PostgreSQL", (count, last), newest)
        except AssertionError as error:
            self.wrong.append(f"restored: PostgreSQL: {error}")
        if server:
            server.send_signal(signal.SIGQUIT)
            server.wait(30)

    def hand_over(self, user, *places):
        """What the daemon restored is its own: the server of another user has to come to it."""
        run("chown", "-R", f"{user}:", *places)
        for place in places:
            for path in place.parents:
                if path == self.rig.place:
                    break
                path.chmod(0o755)

    def judge_server(self, what, data, user, read):
        """read(data, sockets) starts a second server there and returns the rows' count, the greatest number and the newest time."""
        self.hand_over(user, data)
        sockets = self.rig.place / "restored" / f"{user}-{time.monotonic_ns()}"
        sockets.mkdir()
        try:
            count, last, newest = read(data, sockets)
            self.judge_rows(what, (count, last), newest)
        except AssertionError as error:
            self.wrong.append(f"restored: {what}: {error}")
        shutil.rmtree(sockets)

    def read_mariadb(self, data, sockets):
        with self.rig.mariadb_at(data, sockets, restored=True) as server:
            found = server.query("CHECK TABLE matrix.written EXTENDED")
            assert found[0][2:] == ("status", "OK"), found
            return server.query("SELECT count(*), max(n), max(at_ns) FROM matrix.written")[0]

    def read_redis(self, data, sockets):
        with self.rig.redis_at(data, sockets) as server:
            rows = [row.split() for row in server.client().lrange("written", 0, -1)]
            assert rows, "the list is not there"
            return len(rows), int(rows[-1][0]), int(rows[-1][1])

    # --- the whole ---

    def play(self):
        rig = self.rig
        if not rig.running():
            rig.start()
        words_before = len(rig.words())
        try:
            self.begin()
            self.strike()
            if self.role == "all":
                self.restart()
            self.settle()
            self.judge()
            self.judge_words()
            self.restore_and_read(self.backup()["result"]["backup_id"], postgresql=False)
        except Exception as error:  # of a server's library too: it is this cell's failure, and the rig lives on for the next
            self.wrong.append(f"{error if isinstance(error, AssertionError) else traceback.format_exc()}")
        self.let_go()
        words = rig.words()[words_before:]
        self.wrong += [line for line in words.splitlines() if "Sanitizer" in line or "runtime error" in line]
        result = {"cell": self.cell, "wrong": self.wrong, "pause_ms": getattr(self, "pause_ms", {}), "state": getattr(self, "view", {}).get("state"),
                  "hresult": getattr(self, "view", {}).get("hresult"), "log": words[-6000:] if self.wrong else ""}
        if self.wrong:  # the next cell begins on clean ground
            rig.stop()
            for _, entry in of_daemon():
                os.kill(entry["pid"], signal.SIGKILL)
        return result


def played(rig, cell):
    """The result is kept in the file QUIESCED_MATRIX_RESULTS too: report.py makes the table of docs/reliability.md from it."""
    result = Cell(rig, cell).play()
    if "QUIESCED_MATRIX_RESULTS" in os.environ:
        with open(os.environ["QUIESCED_MATRIX_RESULTS"], "a") as file:
            file.write(json.dumps(result) + "\n")
    return result


def serve_cells(rig):
    for line in sys.stdin:
        print(json.dumps(played(rig, tuple(json.loads(line)))), flush=True)


def named_cells(rig, names):
    by_name = {cells.name(cell): cell for cell in cells.ALL}
    for name in names:
        started = time.monotonic()
        result = played(rig, by_name[name])
        print(f"{name}: {result['state']} {result['hresult']} {result['pause_ms']} {time.monotonic() - started:.1f} s", flush=True)
        for wrong in result["wrong"]:
            print(f"  WRONG {wrong}", flush=True)
        if result["log"]:
            print("  " + result["log"].replace("\n", "\n  "), flush=True)


def main():
    become_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the rig is taken down
    rig = Rig()
    try:
        rig.build()
        if sys.argv[1:]:
            named_cells(rig, [cells.name(cell) for cell in cells.ALL] if sys.argv[1:] == ["all"] else sys.argv[1:])
        else:
            serve_cells(rig)
    finally:
        rig.destroy()


if __name__ == "__main__":
    main()
