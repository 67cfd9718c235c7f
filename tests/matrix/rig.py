"""The patient of the kill matrix: two loop-mounted file systems, databases under load, hearts that beat, and a daemon.

Whoever builds a rig must be the subreaper of its processes (run.py is): whatever a dead daemon leaves behind then comes to
light as a descendant of ours."""
import contextlib
import ctypes
import glob
import http.client
import json
import os
import pathlib
import pwd
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse

SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("QUIESCED_BUILD", SOURCE / "build" / "asan"))
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(SOURCE / "tests" / "api"), str(SOURCE / "tests" / "contract" / "writers")]
import mariadb_server  # noqa: E402
import redis_server  # noqa: E402
import still  # noqa: E402
from contract import Contract  # noqa: E402

CONTRACT = Contract(SOURCE / "openapi.yaml")
POSTGRES = max(glob.glob("/usr/lib/postgresql/*/bin"), default="", key=lambda path: int(path.split("/")[-2]))
FREEZE_SECONDS = 2
LOAD_USER = "nobody"
DATABASE_USER = "postgres"
PYTHON = "/usr/bin/python3"
TERMINAL = ("succeeded", "failed", "cancelled")


def become_subreaper():
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) != 0:  # PR_SET_CHILD_SUBREAPER
        raise OSError(ctypes.get_errno(), "prctl")


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **more)
    assert done.returncode == 0, f"{command}: {done.stdout.decode(errors='replace')}"
    return done.stdout.decode(errors="replace")


def as_user(name):
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


# --- processes ---

def process(pid):
    """{pid, parent, state, argv}, or None when it is gone or a zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        argv = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = stat[stat.rindex(")") + 2:].split()[:2]
    return None if state in "ZX" else {"pid": int(pid), "parent": int(parent), "state": state, "argv": argv}


def descendants(root):
    """A task's children are asked for, so that one that is forked meanwhile is not lost between two listings."""
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        for file in glob.glob(f"/proc/{pid}/task/*/children"):
            try:
                children = pathlib.Path(file).read_text().split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            for child in children:
                queue.append(int(child))
                entry = process(child)
                if entry:
                    found.append(entry)
    return found


def role_of(entry):
    argv = entry["argv"]
    if not argv:
        return None
    for word in argv[1:]:
        if word.startswith("--role="):
            return word[len("--role="):]
    program = os.path.basename(argv[0])
    if program == "quiesced" and "serve" in argv:
        return "serve"
    if program.startswith("quiesced-writer-") or any(word.endswith("/writers/holding") for word in argv[:2]):
        return "writer"
    return "mover" if program == "restic" else None


def of_daemon():
    """Every living process of the rig's daemon, whoever its parent is by now: [(role, entry)]."""
    found = [(role_of(entry), entry) for entry in descendants(os.getpid())]
    return [(role, entry) for role, entry in found if role]


# --- the rig ---

class Rig:
    def __init__(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-matrix-", dir="/var/tmp"))
        self.quick = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-matrix-", dir="/dev/shm"))
        self.place.chmod(0o755)
        self.quick.chmod(0o755)
        self.helpers, self.mounts, self.server, self.mariadb, self.redis, self.still, self.serve = [], [], None, None, None, None, None
        for name in ("gate", "faults", "restored", "archive", "restic", "sockets", "mariadb", "redis"):
            (self.place / name).mkdir()
        (self.place / "faults").chmod(0o777)
        self.gate, self.faults = self.place / "gate", self.place / "faults"
        self.lock, self.record = self.place / "lock", self.place / "record"

    def build(self):
        self.ext4, self.btrfs = self.mount("ext4", 256), self.mount("btrfs", 768)
        self.volume = self.btrfs / "volume"
        run("btrfs", "subvolume", "create", self.volume)
        for path in (self.ext4 / "files", self.volume / "app"):
            path.mkdir()
        for i in range(40):
            (self.ext4 / "files" / f"file-{i}").write_bytes(bytes([i]) * (i * 500))
        entry = pwd.getpwnam(LOAD_USER)
        os.chown(self.volume / "app", entry.pw_uid, entry.pw_gid)
        self.start_hearts()
        self.start_databases()
        self.still = still.Still(self.volume / "still", self.place / "still")
        self.write_configuration()
        return self

    def mount(self, kind, megabytes):
        image, point = self.place / f"{kind}.image", self.place / kind
        point.mkdir()
        with open(image, "wb") as file:
            file.truncate(megabytes << 20)
        run(f"mkfs.{kind}", "-q", image)
        run("mount", "-o", "loop", image, point)
        self.mounts.append(point)
        return point

    def helper(self, *command, **more):
        helper = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True, **more)  # results only on ours
        self.helpers.append(helper)
        return helper

    def start_hearts(self):
        self.pulses = {}
        (self.volume / "pulse").mkdir()
        for name, path in (("ext4", self.ext4 / "beat"), ("btrfs", self.volume / "pulse" / "beat")):
            status = self.quick / f"pulse-{name}"
            self.helper(BUILD / "matrix-pulse", path, status)
            self.pulses[name] = status

    def start_databases(self):
        self.loads = {name: self.quick / f"load-{name}" for name in ("sqlite", "postgresql", "mariadb", "redis")}
        for status in self.loads.values():
            status.touch()
            status.chmod(0o666)
        self.database = self.volume / "app" / "app.db"
        self.helper(PYTHON, HERE / "load.py", "sqlite", self.database, self.loads["sqlite"], **as_user(LOAD_USER))
        self.start_postgresql()
        self.helper(PYTHON, HERE / "load.py", "postgresql", self.connection, self.loads["postgresql"])
        self.start_mariadb()
        self.helper(PYTHON, HERE / "load.py", "mariadb", self.mariadb.socket, self.loads["mariadb"])
        self.redis = self.redis_at(self.ext4 / "redis", self.place / "redis")
        self.helper(PYTHON, HERE / "load.py", "redis", self.redis.socket, self.loads["redis"])
        for name, status in {**self.pulses, **self.loads}.items():
            deadline = time.monotonic() + 60
            while status.stat().st_size < 8 if status.exists() else True:
                assert time.monotonic() < deadline, f"the load on {name} does not start"
                time.sleep(0.02)

    def start_postgresql(self):
        """Its table lies in a tablespace on the other file system, so that no one snapshot holds all of it: the writer needs backup
        mode and a replication slot, which a dead writer must not leave behind."""
        identity = as_user(DATABASE_USER)
        sockets, space = self.place / "sockets", self.ext4 / "space"
        space.mkdir()
        for path in (sockets, space, self.volume):
            os.chown(path, identity["user"], identity["group"])
        self.cluster = self.volume / "cluster"
        run(f"{POSTGRES}/initdb", "-D", self.cluster, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--wal-segsize=1", "-N", cwd="/", **identity)
        self.server = self.postgres(self.cluster, sockets)
        self.connection = f"host={sockets} user=postgres dbname=postgres"
        self.query("CREATE TABLESPACE elsewhere LOCATION '%s'" % space)
        self.query("CREATE TABLE written (n bigint PRIMARY KEY, at_ns bigint) TABLESPACE elsewhere")

    def start_mariadb(self):
        """On btrfs: its writer wants one atomic snapshot. Redis lies on ext4: its writer's hold is enough for copies of its files."""
        self.mariadb = self.mariadb_at(self.volume / "mariadb", self.place / "mariadb")
        self.mariadb.query("CREATE DATABASE matrix")

    @staticmethod
    def mariadb_at(data, sockets, restored=False):
        mariadb_server.own(sockets)
        return mariadb_server.Server(data, sockets, restored=restored, options=["--log-bin=log", "--max-binlog-size=1M", "--binlog-expire-logs-seconds=60"])

    @staticmethod
    def redis_at(data, sockets):
        redis_server.own(sockets)
        return redis_server.Server(data, sockets)

    @staticmethod
    def postgres(data, sockets):
        options = ["listen_addresses=", f"unix_socket_directories={sockets}", "shared_buffers=16MB", "max_connections=20", "min_wal_size=2MB",
                   "max_wal_size=4MB", "log_min_messages=fatal", "cluster_name=", "max_wal_senders=4"]
        log = open(os.path.join(sockets, "log"), "ab")
        server = subprocess.Popen([f"{POSTGRES}/postgres", "-D", data] + [word for option in options for word in ("-c", option)],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, **as_user(DATABASE_USER))
        deadline = time.monotonic() + 60
        while subprocess.run([f"{POSTGRES}/pg_isready", "-q", "-h", sockets], stdin=subprocess.DEVNULL).returncode != 0:
            assert server.poll() is None and time.monotonic() < deadline, "the server does not start: " + open(log.name, errors="replace").read()[-2000:]
            time.sleep(0.03)
        return server

    def query(self, sql, sockets=None):
        import psycopg2
        database = psycopg2.connect(f"host={sockets} user=postgres dbname=postgres" if sockets else self.connection, connect_timeout=5)
        try:
            database.autocommit = True
            cursor = database.cursor()
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None
        finally:
            database.close()

    def write_configuration(self):
        (self.place / "password").write_text("matrix")
        (self.place / "password").chmod(0o600)
        environment = {"GATE": self.gate, "LOCK": self.lock, "RECORD": self.record, "FILES": self.ext4 / "files", "NAME": "holder",
                       "LEVEL": "system"}  # frozen after the databases and thawed before them: struck there, they are held
        environment = ", ".join(f"{key}: {value}" for key, value in environment.items())
        seconds = ", ".join(f"{event}: 3" for event in ("identify", "prepare_backup", "prepare_snapshot", "post_snapshot", "backup_complete",
                                                        "abort", "backup_shutdown"))
        seconds += ", pre_restore: 30, post_restore: 30"
        (self.place / "quiesced.yaml").write_text(f"""
writers:
  - {{name: holder, type: exec, command: [{SOURCE}/tests/writers/holding], environment: {{{environment}}}}}
  - {{name: app, type: sqlite, databases: [{self.database}]}}
  - {{name: pg, type: postgresql, connection: "{self.connection}", user: {DATABASE_USER}}}
  - {{name: shop, type: mariadb, socket: {self.mariadb.socket}}}
  - {{name: cache, type: redis, socket: {self.redis.socket}}}
  - {self.still.writer()}
repositories:
  - {{name: archive, mover: archive, path: {self.place}/archive}}
  - {{name: restic, mover: restic, path: {self.place}/restic, password_file: {self.place}/password}}
restore: {{roots: [{self.place}/restored, {self.volume}/still, {self.ext4}/files]}}
limits: {{freeze_seconds: {FREEZE_SECONDS}, drain_seconds: 3, writer_seconds: {{{seconds}}}}}
""")

    # --- the daemon ---

    def start(self):
        ready = self.place / "ready.json"
        ready.unlink(missing_ok=True)
        self.log = open(self.place / "daemon.log", "ab")
        environment = dict(os.environ, QUIESCED_FAULT_DIR=str(self.faults), ASAN_OPTIONS=f"detect_leaks=0:abort_on_error=0:{os.environ.get('QUIESCED_ASAN', '')}")
        self.serve = subprocess.Popen([BUILD / "quiesced", "serve", "--config", self.place / "quiesced.yaml", "--state-dir", self.place / "state",
                                       "--listen", "127.0.0.1:0", "--ready-file", ready], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                      env=environment, start_new_session=True)
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert self.serve.poll() is None and time.monotonic() < deadline, "the daemon does not start: " + self.words()[-3000:]
            time.sleep(0.02)
        self.api = Api(json.loads(ready.read_text()))

    def running(self):
        return self.serve is not None and self.serve.poll() is None

    def stop(self):
        if self.running():
            self.serve.terminate()
            try:
                self.serve.wait(60)
            except subprocess.TimeoutExpired:
                self.serve.kill()
                self.serve.wait()

    def words(self):
        return (self.place / "daemon.log").read_text(errors="replace")

    def describe(self):
        """What the judge needs to know, and nothing of the daemon's inside."""
        return {"place": str(self.place), "file_systems": {"ext4": str(self.ext4), "btrfs": str(self.btrfs)},
                "pulses": {name: str(path) for name, path in self.pulses.items()}, "loads": {name: str(path) for name, path in self.loads.items()},
                "database": str(self.database), "connection": self.connection, "mariadb": self.mariadb.socket,
                "mariadb_user": mariadb_server.USER, "redis": self.redis.socket, "lock": str(self.lock), "volume": str(self.volume),
                "restic": {"repository": str(self.place / "restic"), "password_file": str(self.place / "password")},
                "staging": str(self.place / "state" / "staging"), "limit_ms": FREEZE_SECONDS * 1000 + 1000}

    def destroy(self):
        self.stop()
        deadline = time.monotonic() + 20  # whoever is killed within a system call holds its files until that returns
        while of_daemon() and time.monotonic() < deadline:
            for _, entry in of_daemon():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(entry["pid"], signal.SIGKILL)
            time.sleep(0.05)
        for helper in self.helpers:
            helper.kill()
            helper.wait()
        if self.server:
            self.server.send_signal(signal.SIGQUIT)
            self.server.wait(60)
        if self.still:
            self.still.destroy()
        for server in (self.mariadb, self.redis):
            if server:
                server.process.kill()
                server.process.wait()
                server.stop()
        mariadb_server.stop_shared()
        for point in reversed(self.mounts):
            run("umount", point)
        shutil.rmtree(self.place)
        shutil.rmtree(self.quick)


class Api:
    """The daemon over HTTPS, as its admin; every reply must keep the contract."""

    def __init__(self, ready):
        self.ready = ready
        parts = urllib.parse.urlsplit(ready["url"])
        self.host, self.port = parts.hostname, parts.port
        self.context = ssl.create_default_context(cafile=ready["ca"])
        self.context.load_cert_chain(ready["cert"], ready["key"])

    def call(self, method, path, body=None, seconds=60):
        connection = http.client.HTTPSConnection(self.host, self.port, context=self.context, timeout=seconds)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
            reply = connection.getresponse()
            raw = reply.read()
            CONTRACT.check(method, path, reply.status, {key.lower(): value for key, value in reply.getheaders()}, raw)
            return reply.status, json.loads(raw) if raw.strip() else None
        finally:
            connection.close()

    def patient(self, method, path, body=None, seconds=45):
        """The same for who waits until a role that died has been replaced."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.call(method, path, body, 5)
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"no answer to {method} {path} for {seconds} s: {error!r}") from error
                time.sleep(0.05)

    def ended(self, job, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            status, view = self.patient("GET", f"/jobs/{job}?wait=2", seconds=seconds)
            assert status == 200, f"job {job} is unknown: {status} {view}"
            if view["state"] in TERMINAL:
                return view
            assert time.monotonic() < deadline, f"job {job} is still {view['state']} ({view.get('progress')}) after {seconds} s"
