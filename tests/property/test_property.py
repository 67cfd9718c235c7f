"""Requests made from openapi.yaml by the thousand: no 5xx, nothing undocumented, nothing forbidden, nothing of others' objects."""
import collections
import hashlib
import http.client
import os
import pathlib
import random
import socket
import ssl
import time

import pytest

from conduct import TERMINAL, Writer
from daemon import CONTRACT, Daemon
from judge import Judge
from maker import Maker

ROLES = {"viewer": "viewer", "auditor": "auditor", "restorer": "restorer", "operator": "operator", "admin": "admin", "victim": "operator", "scoped": "operator", "none": "none"}
CALLERS = ["viewer", "auditor", "restorer", "restorer", "operator", "operator", "operator", "admin", "admin", "scoped", "none"]
PERSISTENT = {"context": "client_accessible"}


def token_of(name):
    return "qsd1_" + hashlib.sha256(name.encode()).hexdigest()[:43]


class Line:
    """A TLS connection that is made anew when it was closed. Sends bytes; the answer is parsed by http.client."""

    def __init__(self, node):
        self.node, self.socket = node, None
        self.context = ssl.create_default_context(cafile=node.ready["ca"])

    def connect(self):
        host, port = self.node.ready["url"].removeprefix("https://").rsplit(":", 1)
        self.socket = self.context.wrap_socket(socket.create_connection((host, int(port)), timeout=150), server_hostname=host)

    def __call__(self, method, text):
        fresh = self.socket is None
        try:
            if fresh:
                self.connect()
            self.socket.sendall(text)
            answer = http.client.HTTPResponse(self.socket, method=method)
            answer.begin()
            stream = "event-stream" in (answer.getheader("Content-Type") or "")
            body = b"" if stream else answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            if fresh:
                raise
            return self(method, text)  # it had been closed in between
        if answer.will_close or stream:
            self.close()
        return answer.status, [(name.lower(), value) for name, value in answer.getheaders()], body

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket = None


class Ground:
    """A daemon with objects of everybody, and a victim's, whose labels and paths are words that others may not hear."""

    def __init__(self, daemon):
        self.place = daemon.place
        for name in ("data/in", "backups", "restored", "data/word-path"):
            (self.place / name).mkdir(parents=True)
        (self.place / "data" / "in" / "file").write_text("x\n")
        (self.place / "data" / "link").symlink_to("/etc")
        people = "".join(f"  - {{name: {name}, role: {ROLES[name]}, token_sha256: {hashlib.sha256(token_of(name).encode()).hexdigest()}}}\n"
                         for name in ("viewer", "auditor", "restorer", "operator", "victim"))
        quick = Writer(self.place, "quick", "quick", FILES=str(self.place / "data" / "in"))
        self.node = daemon(f"""
writers:
{quick.entry()}
repositories:
  - {{name: main, mover: archive, path: {self.place}/backups}}
restore: {{roots: [{self.place}/restored]}}
limits: {{wrong_credentials: 0, address_requests_per_second: 0, principal_requests_per_second: 0, lease_seconds: 7200}}
principals:
{people}""")
        self.line = Line(self.node)
        self.tokens = {name: token_of(name) for name in ROLES}
        self.tokens["none"] = None
        self.tokens["admin"] = pathlib.Path(self.node.ready["token_file"]).read_text().strip()
        self.tokens["scoped"] = self.call("admin", "POST", "/tokens", {"name": "scoped", "role": "operator", "scopes": ["read"]})["token"]
        self.ids = collections.defaultdict(lambda: collections.defaultdict(list))
        self.objects()

    def call(self, who, method, path, body=None):
        reply = self.node.call(method, path, body, token=self.tokens[who])
        assert reply.status < 300, reply
        return reply.json

    def job(self, who, path, body=None):
        job = self.call(who, "POST", path, body)
        while job["state"] not in TERMINAL:
            job = self.call(who, "GET", f"/jobs/{job['id']}?wait=20")
        assert job["state"] == "succeeded", job
        return job

    def session(self, who, label, paths):
        """A session of a persistent context up to its snapshot."""
        session = self.call(who, "POST", "/sessions", {"kind": "backup", "label": label, "lease_seconds": 7200})["id"]
        s = f"/sessions/{session}"
        self.call(who, "PUT", s + "/context", PERSISTENT)
        self.call(who, "POST", s + "/snapshot-set", {})
        self.call(who, "POST", s + "/snapshot-set/volumes", {"path": paths[0], "provider": "copy"})
        snapshot = self.job(who, s + "/snapshot")
        taken = snapshot["result"]["snapshots"][0]
        mine = self.ids[who]
        mine["session_id"].append(session)
        mine["job_id"].append(snapshot["id"])
        mine["snapshot_id"].append(taken["id"])
        mine["set_id"].append(self.call(who, "GET", f"/snapshots/{taken['id']}")["set_id"])
        plain = self.call(who, "POST", "/sessions", {"kind": "backup", "label": label, "lease_seconds": 7200})["id"]
        self.call(who, "PUT", f"/sessions/{plain}/backup-state", {"type": "full"})
        gathered = self.job(who, f"/sessions/{plain}/metadata")
        writer = self.call(who, "GET", f"/sessions/{plain}/writers")["items"][0]
        component = self.call(who, "POST", f"/sessions/{plain}/components", {"instance_id": writer["instance_id"], "name": "main"})
        mine["session_id"].append(plain)
        mine["job_id"].append(gathered["id"])
        mine["component_id"].append(component["id"])
        self.instance = writer["instance_id"]

    def backup(self, who, label, path):
        job = self.job(who, "/backups", {"paths": [path], "repository": "main", "label": label})
        self.ids[who]["backup_id"].append(job["result"]["backup_id"])
        self.ids[who]["job_id"].append(job["id"])
        self.ids[who]["session_id"].append(job["session_id"])

    def objects(self):
        data = str(self.place / "data" / "in")
        self.session("victim", "word-session", [str(self.place / "data" / "word-path")])
        self.backup("victim", "word-backup", str(self.place / "data" / "word-path"))
        self.ids["victim"]["token_id"].append(self.call("victim", "POST", "/tokens", {"name": "word-token", "role": "operator"})["id"])
        self.ids["victim"]["enrolment_id"].append(self.call("admin", "POST", "/enrolments", {"name": "word-enrolment", "role": "viewer"})["id"])
        for who in ("operator", "admin"):
            self.session(who, "own", [data])
            self.backup(who, "own", data)
        backup = self.ids["operator"]["backup_id"][0]
        restore = self.call("restorer", "POST", "/sessions", {"kind": "restore", "backup_id": backup, "lease_seconds": 7200})["id"]
        self.ids["restorer"]["job_id"].append(self.job("restorer", f"/sessions/{restore}/metadata")["id"])
        self.ids["restorer"]["session_id"].append(restore)
        self.ids["restorer"]["component_id"].append(self.ids["operator"]["component_id"][0])
        for who in ("admin", "operator", "restorer"):
            self.ids[who]["name"] += ["main", "repo-a"]
        for who in ("viewer", "auditor", "restorer"):
            for name in ("snapshot_id", "set_id", "backup_id"):
                self.ids[who][name] += self.ids["operator"][name]

    def judge(self):
        mine = self.ids["victim"]
        ours = mine["session_id"] + mine["job_id"] + mine["token_id"] + mine["enrolment_id"]
        beside = mine["snapshot_id"] + mine["set_id"] + mine["backup_id"]  # restorers see these
        words = ["word-session", "word-path", "word-backup", "word-token", "word-enrolment"]
        secrets = {"none": words, "operator": words, "scoped": words, "restorer": ["word-token", "word-enrolment"], "viewer": ["word-token", "word-enrolment"], "auditor": [], "admin": []}
        # the session of a backup that a restorer sees is named in it
        restorer = [identity for identity in ours if identity not in mine["session_id"]]
        watched = mine["token_id"] + mine["enrolment_id"]
        hidden = {"none": ours + beside, "operator": ours + beside, "scoped": ours + beside, "restorer": restorer, "viewer": watched, "auditor": [], "admin": []}
        return Judge(CONTRACT, ROLES, secrets, hidden)

    def victims(self):
        """The victim's objects as an administrator sees them, but for what the clock changes."""
        kinds = {"session_id": "/sessions/", "job_id": "/jobs/", "snapshot_id": "/snapshots/", "set_id": "/snapshot-sets/", "backup_id": "/backups/", "token_id": "/tokens/", "enrolment_id": "/enrolments/"}
        seen = {path + identity: self.call("admin", "GET", path + identity) for name, path in kinds.items() for identity in self.ids["victim"][name]}
        for one in seen.values():
            for found in ("condition", "condition_reason", "checked_at"):  # whoever may restore a backup may verify it
                one.pop(found, None)
        return seen

    def learn(self, request, status, headers):
        location = dict(headers).get("location", "")
        kind, _, identity = location.lstrip("/").partition("/")
        name = {"sessions": "session_id", "jobs": "job_id", "tokens": "token_id", "enrolments": "enrolment_id"}.get(kind)
        if status in (201, 202) and name and "/" not in identity:
            self.ids[request.caller][name] = [*self.ids[request.caller][name][:2], *self.ids[request.caller][name][2:][-18:], identity]

    def roles(self):
        """{pid: open descriptors} of serve and the roles that stay."""
        pids = [self.node.process.pid] + [int(pid) for pid in pathlib.Path(f"/proc/{self.node.process.pid}/task/{self.node.process.pid}/children").read_text().split()]
        return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids}

    def clear(self):
        """Ends every session but the victim's."""
        for who in ("operator", "restorer", "admin"):
            cursor = ""
            while True:
                page = self.call(who, "GET", f"/sessions?limit=100{cursor}")
                for session in page["items"]:
                    if session["owner"] == who and session["state"] not in ("aborted", "completed"):
                        assert self.node.call("DELETE", f"/sessions/{session['id']}", token=self.tokens[who]).status in (202, 204, 404)
                if not page["next_cursor"]:
                    break
                cursor = "&cursor=" + page["next_cursor"]


def pursue(ground, seed, count):
    rng = random.Random(seed)
    pool = {"repository": ["main"], "writer": ["quick"], "instance_id": [ground.instance], "repository_id": ["main"], "backup_id": ground.ids["operator"]["backup_id"], "session": ground.ids["operator"]["session_id"],
            "job": ground.ids["operator"]["job_id"], "set": ground.ids["operator"]["set_id"]}
    maker, judge, found = Maker(rng, CONTRACT, ground.place, ground.ids, ground.ids["victim"], pool), ground.judge(), {}
    statuses = collections.Counter()
    for number in range(count):
        request = maker.make(rng.choice(CALLERS))
        text = request.bytes(ground.tokens[request.caller])
        try:
            status, headers, body = ground.line(request.method, text)
        except (OSError, http.client.HTTPException) as error:
            status, headers, body = 0, [], b""
            faults = [f"no answer: {error!r}"]
        else:
            faults = judge.faults(request, status, headers, body)
            ground.learn(request, status, headers)
        statuses[status] += 1
        for fault in faults:
            found.setdefault((request.method, request.template, status, fault[:60]), f"#{number} {fault}\n  {text[:700]!r}\n  {status} {body[:500]!r}")
    return found, statuses


def check(daemon, seed, count):
    ground = Ground(daemon)
    ground.line("GET", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    before, open_before = ground.victims(), ground.roles()
    found, statuses = pursue(ground, seed, count)
    assert not found, f"seed {seed}, {count} requests: {len(found)} kinds of fault\n" + "\n".join(list(found.values())[:25])
    assert {200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 415} <= set(statuses), statuses  # they came through to everything
    assert ground.victims() == before
    ground.clear()
    ground.line.close()
    deadline = time.monotonic() + 120
    while any(now > open_before.get(pid, 0) for pid, now in ground.roles().items()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(now <= open_before.get(pid, 0) for pid, now in ground.roles().items()), (open_before, ground.roles())
    assert not ground.node.sanitized()


def test_some_thousand_requests(daemon):
    check(daemon, int(os.environ.get("QUIESCED_SEED", "1")), int(os.environ.get("QUIESCED_REQUESTS", "2500")))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 110))
def test_fifty_thousand_requests(daemon, seed):
    check(daemon, seed, 5500)
