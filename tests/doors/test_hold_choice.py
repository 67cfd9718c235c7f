"""Which file systems `hold freeze` asks for when none is named: seen by a daemon of paper, since a real one would freeze this machine."""
import http.server
import json
import os
import socketserver
import subprocess
import threading

import pytest

from doors import BUILD, FAILED, OK

VOLUMES = [("/", "ext4", "8:1"), ("/srv/deep/bind", "ext4", "8:2"), ("/srv", "ext4", "8:2"), ("/home", "btrfs", "uuid-1"), ("/mnt/nfs", "nfs4", "0:40")]


class Paper(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path):
        self.asked, self.refused = [], ["/mnt/nfs"]
        super().__init__(str(path), Page)


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_):
        pass

    def address_string(self):
        return "local"

    def reply(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def any(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        path = self.path.partition("?")[0]
        if path == "/volumes":
            return self.reply(200, {"items": [{"path": p, "mount_point": p, "fs_type": t, "superblock": s, "source": "x", "provider": None, "reason": None} for p, t, s in VOLUMES]})
        if path.endswith("/snapshot-set/volumes"):
            self.server.asked.append(body)
            if body["path"] in self.server.refused:
                return self.reply(422, {"detail": "nfs4 cannot be frozen", "hresult": "VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER"})
            return self.reply(201, {"snapshot_id": "1", "volume": body["path"], "provider": body["provider"]})
        if path.startswith("/jobs/"):
            return self.reply(200, {"id": "j", "state": "succeeded", "operation": "x", "result": {}})
        if self.command == "DELETE":
            return self.reply(200, {})
        if self.command == "GET":
            return self.reply(200, {"items": [], "hold": {"since": "now", "deadline": "later"}, "pending_job": "j"})
        status = 202 if path.endswith(("/metadata", "/prepare", "/snapshot")) else 200 if path.endswith(("/backup-state", "/components")) else 201
        return self.reply(status, {"id": "j", "state": "running"})

    do_GET = do_POST = do_PUT = do_DELETE = any


@pytest.fixture
def paper(tmp_path):
    server = Paper(tmp_path / "socket")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def freeze(server, *words, code=OK):
    done = subprocess.run([str(BUILD / "quiescectl"), "--socket", server.server_address, "hold", "freeze", *words], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "HOME": "/nonexistent"})
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stderr


def test_every_file_system_once_at_its_shortest_mount_point(paper):
    said = freeze(paper)
    assert sorted(one["path"] for one in paper.asked) == ["/", "/home", "/mnt/nfs", "/srv"]
    assert {one["provider"] for one in paper.asked} == {"external"}
    assert "/mnt/nfs (nfs4) is not held: nfs4 cannot be frozen" in said, "what is left out is told"


def test_a_guest_agents_hold_asks_for_the_same(paper):
    freeze(paper, "--guest")
    assert sorted(one["path"] for one in paper.asked) == ["/", "/home", "/mnt/nfs", "/srv"]
    assert {one["provider"] for one in paper.asked} == {"guest"}


def test_those_that_are_named_are_the_only_ones(paper):
    freeze(paper, "--path", "/srv", "--path", "/home", "--exclude", "/home/scratch")
    assert [(one["path"], one["excludes"]) for one in paper.asked] == [("/srv", ["/home/scratch"]), ("/home", ["/home/scratch"])]


def test_where_there_is_none_it_fails(paper):
    paper.refused = [path for path, _, _ in VOLUMES]
    assert "no file system here that could be held" in freeze(paper, code=FAILED)
