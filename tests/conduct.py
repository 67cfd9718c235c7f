"""What the tests of the flow share: a client that keeps its connection, exec writers that record, a session driven to any state."""
import http.client
import json
import os
import pathlib
import shutil
import ssl
import threading

from daemon import CONTRACT, SOURCE, Reply

BACKUP_STATE = {"component_mode": True, "bootable_system_state": False, "type": "full", "partial_files": False}
TERMINAL = ("succeeded", "failed", "cancelled")
checking = threading.Lock()  # the contract's resolver is not made for threads


def tls(node):
    """One TLS context per node, the client certificate in it."""
    if not hasattr(node, "tls"):
        context = ssl.create_default_context(cafile=node.ready["ca"])
        context.load_cert_chain(node.ready["cert"], node.ready["key"])
        node.tls = context
    return node.tls


def address(node):
    host, port = node.ready["url"].removeprefix("https://").rsplit(":", 1)
    return host, int(port)


class Wire:
    """A kept-alive connection. call() is ask() and hear(); between the two a test may do other things."""

    def __init__(self, node):
        self.node = node
        self.connection = http.client.HTTPSConnection(*address(node), context=tls(node), timeout=120)

    def ask(self, method, path, body=None):
        headers = {} if body is None else {"Content-Type": "application/json"}
        text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        self.asked = (method, path)
        self.connection.request(method, path, body=text, headers=headers)

    def hear(self):
        answer = self.connection.getresponse()
        body = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        with checking:
            CONTRACT.check(*self.asked, answer.status, headers, body)
        return Reply(answer.status, headers, body)

    def call(self, method, path, body=None):
        self.ask(method, path, body)
        return self.hear()

    def get(self, path):
        reply = self.call("GET", path)
        assert reply.status == 200, reply
        return reply.json

    def wait(self, job):
        """The job when it has ended."""
        return self.watch(job, lambda job: job["state"] in TERMINAL, "?wait=20")

    def watch(self, job, until, query=""):
        """The job as soon as `until` is true of it."""
        identity = job if isinstance(job, str) else job["id"]
        while True:
            job = self.get(f"/jobs/{identity}{query}")
            if until(job):
                return job
            assert job["state"] not in TERMINAL, job

    def close(self):
        self.connection.close()


class Writer:
    """An entry of the configuration whose process is one of tests/writers; its record tells what it heard."""

    def __init__(self, node_place, name, kind="recorder", **environment):
        self.name, self.record = name, pathlib.Path(node_place) / f"record-{name}"
        self.environment = {"NAME": name, "RECORD": str(self.record), "INSTANCE_NAME": name, **environment}
        self.command = SOURCE / "tests" / "writers" / kind

    def entry(self):
        environment = ", ".join(f"{key}: {json.dumps(value)}" for key, value in self.environment.items())
        return f"  - {{name: {self.name}, type: exec, command: [{self.command}], environment: {{{environment}}}}}\n"

    def heard(self, session=None, event=None):
        """The requests in order, of one session and of one event when they are named."""
        if not self.record.exists():
            return []
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        requests = [line["request"] for line in lines if "request" in line]
        return [r for r in requests if (not session or r["session"] == session.id) and (not event or r["event"] == event)]


def configuration(place, writers, limits=""):
    """Data in place/data, a repository in place/backups."""
    for name in ("data", "backups", "restored"):
        (place / name).mkdir(exist_ok=True)
    (place / "data" / "file").write_text("what the writers keep\n")
    return ("writers:\n" + "".join(writer.entry() for writer in writers) if writers else "") + f"""
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{place}/restored]}}
limits: {{{limits}}}
"""


class Session:
    """A backup session. to(STATE) drives it there; every writer takes part with its component `main`."""

    STEPS = ("initialized", "identified", "set_open", "prepared", "snapshotted")

    def __init__(self, node, wire=None, **body):
        self.node, self.wire, self.components, self.backup = node, wire or Wire(node), {}, None
        made = self.wire.call("POST", "/sessions", {"kind": "backup", **body})
        assert made.status == 201, made
        self.id, self.path = made.json["id"], "/sessions/" + made.json["id"]

    def call(self, method, path="", body=None):
        return self.wire.call(method, self.path + path, body)

    def view(self):
        return self.wire.get(self.path)

    def begin(self, operation, body=None):
        """POST of a job that must be accepted: the job as it was answered."""
        reply = self.call("POST", "/" + operation, body)
        assert reply.status == 202 and reply.headers["location"] == "/jobs/" + reply.json["id"], reply
        return reply.json

    def job(self, operation, body=None):
        return self.wire.wait(self.begin(operation, body))

    def done(self, operation, body=None):
        job = self.job(operation, body)
        assert job["state"] == "succeeded", job
        return job

    def add_all(self):
        for writer in self.wire.get(self.path + "/writers")["items"]:
            for component in writer["components"]:
                made = self.call("POST", "/components", {"instance_id": writer["instance_id"], "logical_path": "", "name": component["name"]})
                assert made.status == 201, made
                self.components[writer["name"]] = made.json

    def step(self, state):
        if state == "identified":
            assert self.call("PUT", "/backup-state", BACKUP_STATE).status == 200
            self.done("metadata")
            self.add_all()
        elif state == "set_open":
            assert self.call("POST", "/snapshot-set", {}).status == 201
            volume = self.call("POST", "/snapshot-set/volumes", {"path": str(self.node.place / "data"), "provider": None})
            assert volume.status == 201, volume
        elif state == "prepared":
            self.done("prepare")
        elif state == "snapshotted":
            self.done("snapshot")

    def to(self, state):
        now = self.STEPS.index(self.view()["state"])
        for step in self.STEPS[now + 1:self.STEPS.index(state) + 1]:
            self.step(step)
        assert self.view()["state"] == state
        return self

    def copy(self):
        self.backup = self.done("copy", {"repository": "main"})["result"]["backup_id"]
        return self.backup

    def succeed(self, name, value=True):
        reply = self.call("PATCH", "/components/" + self.components[name]["id"], {"succeeded": value})
        assert reply.status == 200 and reply.json["succeeded"] is value, reply


class Gate:
    """Holds the writer `gate` in BackupComplete of one session, until it is opened."""

    def __init__(self, place, session):
        self.path = pathlib.Path(place) / "gates" / session.id
        os.mkfifo(self.path)
        self.path.chmod(0o666)
        self.fd = os.open(self.path, os.O_RDWR)

    def open(self):
        os.write(self.fd, b"\n")

    def close(self):
        os.close(self.fd)
        self.path.unlink()


def gate_writer(place):
    (place / "gates").mkdir(exist_ok=True)
    return Writer(place, "gate", "gate", GATE=str(place / "gates"))


def component(name, path="", selectable=True, files=None, **more):
    """files: a directory, or file sets."""
    sets = [{"path": str(files), "spec": "*", "recursive": True}] if isinstance(files, (str, pathlib.Path)) else files or []
    return {"type": "filegroup", "logical_path": path, "name": name, "selectable": selectable, "file_sets": sets, **more}


def fill(place, *names):
    for name in names:
        path = place / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")


def restored(node, wire, backup):
    """What a backup holds beneath place/data: {name: text}."""
    target = node.place / "restored" / backup
    target.mkdir()
    accepted = wire.call("POST", f"/backups/{backup}/restore", {"target": str(target), "paths": [], "overwrite": False})
    job = wire.wait(accepted.json)
    assert job["state"] == "succeeded", job
    root = target / str(node.place / "data").lstrip("/")
    found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    shutil.rmtree(target)
    return found


def one_call(wire, components, **more):
    """POST /backups: the backup, complete."""
    job = wire.wait(wire.call("POST", "/backups", {"components": components, "repository": "main", **more}).json)
    assert job["state"] == "succeeded", job
    return wire.get("/backups/" + job["result"]["backup_id"])
