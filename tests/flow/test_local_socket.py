"""The local socket: who is known by the kernel's word, who is not, and the socket itself."""
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import time

import pytest

from conftest import BUILD, CONTRACT
from journey import back_up, lay_out

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other users are taken on by root alone")
NOBODY, DAEMON = 65534, 1


def curl(node, path, *options, user=None, method="GET", body=None, groups=()):
    """Status and body of one request, by another user of the machine when one is given."""
    argv = ["curl", "-sS", "--unix-socket", node.ready["socket"], "-X", method, "-w", "\n%{http_code}", *options, "http://localhost" + path]
    if body is not None:
        argv += ["-H", "Content-Type: application/json", "--data", json.dumps(body)]
    identity = {} if user is None else {"user": user, "group": user, "extra_groups": list(groups)}
    done = subprocess.run(argv, capture_output=True, text=True, **identity)
    if done.returncode:
        return None, done.stderr
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text) if text.strip() else None


def reload(node, config):
    (node.place / "quiesced.yaml").write_text(config)
    before = node.words().count("configuration read again")
    node.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while node.words().count("configuration read again") == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_root_and_the_daemons_own_user_are_administrators(daemon):
    node = daemon()
    path = pathlib.Path(node.ready["socket"])
    assert path == node.place / "state" / "api.sock"
    assert stat.S_ISSOCK(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_uid == os.geteuid()
    status, who = curl(node, "/whoami")
    assert status == 200 and (who["role"], who["authentication"]) == ("admin", "peer")
    assert who["principal"] == ("root" if os.geteuid() == 0 else "admin")
    assert curl(node, "/whoami", "-H", "Authorization: Bearer wrong")[0] == 401, "a header that is there decides alone"
    token = pathlib.Path(node.ready["token_file"]).read_text().strip()
    assert curl(node, "/whoami", "-H", f"Authorization: Bearer {token}")[1]["authentication"] == "token"
    assert curl(node, "/nowhere")[0] == 404
    status, made = curl(node, "/tokens", method="POST", body={"name": "bootstrap", "role": "viewer"})
    assert status == 201 and node.call("GET", "/whoami", token=made["token"]).json["principal"] == "bootstrap"
    assert curl(node, "/tokens/" + made["id"])[1]["last_used_from"] == "127.0.0.1"
    node.stop()
    assert not path.exists()


@needs_root
def test_users_and_groups_have_the_roles_that_the_configuration_gives_them(daemon):
    node = daemon("principals: [{name: reader, role: viewer, user: nobody}, {name: backups, role: operator, group: daemon},\n"
                  "             {name: absent, role: admin, user: no-such-user-here}]\n")
    socket_path = node.ready["socket"]
    assert stat.S_IMODE(os.stat(socket_path).st_mode) == 0o666
    for user, groups, want in ((NOBODY, (), ("reader", "viewer")), (NOBODY, (DAEMON,), ("reader", "viewer")), (DAEMON, (), ("backups", "operator")),
                               (2, (3, DAEMON), ("backups", "operator")), (2, (3,), None)):
        status, who = curl(node, "/whoami", user=user, groups=groups)
        assert (status == 401) if want is None else (status, who["principal"], who["role"]) == (200, *want), (user, groups, who)
    for _ in range(30):
        assert curl(node, "/sessions", user=2)[0] == 401, "not a guess: nothing is counted"
    assert curl(node, "/sessions", user=NOBODY, method="POST", body={"kind": "backup"})[0] == 403
    status, session = curl(node, "/sessions", user=DAEMON, method="POST", body={"kind": "backup"})
    assert status == 201 and session["owner"] == "backups"
    assert curl(node, "/sessions/" + session["id"], user=NOBODY)[0] == 200
    assert "no user no-such-user-here" in node.words()
    # A token made over the socket is its maker's, and ends when the mapping does.
    status, made = curl(node, "/tokens", user=DAEMON, method="POST", body={"name": "own", "role": "operator"})
    assert status == 201 and made["principal"] == "backups" and node.call("GET", "/whoami", token=made["token"]).status == 200
    reload(node, "principals: [{name: reader, role: auditor, user: nobody}]\n")
    deadline = time.monotonic() + 30
    while curl(node, "/whoami", user=NOBODY)[1].get("role") != "auditor":
        assert time.monotonic() < deadline
    assert curl(node, "/whoami", user=DAEMON)[0] == 401
    assert node.call("GET", "/whoami", token=made["token"]).status == 401
    reload(node, "principals: []\n")
    deadline = time.monotonic() + 30
    while stat.S_IMODE(os.stat(socket_path).st_mode) != 0o600:
        assert time.monotonic() < deadline
    assert curl(node, "/whoami", user=NOBODY)[0] is None, "not even a connection"


@needs_root
def test_one_user_does_not_take_everybodys_connections(daemon):
    node = daemon("limits: {connections_per_address: 5}\nprincipals: [{name: reader, role: viewer, user: nobody}]\n")
    held = []
    for _ in range(5):
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].connect(node.ready["socket"])
        held[-1].sendall(b"GET /health/live HTTP/1.1\r\nHost: l\r\n\r\n")
        assert held[-1].recv(65536).startswith(b"HTTP/1.1 200")
    assert curl(node, "/whoami")[0] is None, "root has had his five"
    assert curl(node, "/whoami", user=NOBODY)[0] == 200 and node.call("GET", "/whoami").status == 200
    for one in held:
        one.close()
    deadline = time.monotonic() + 30
    while curl(node, "/whoami")[0] != 200:
        assert time.monotonic() < deadline


class Local:
    """journey.py's client, over the local socket."""

    def __init__(self, node):
        self.node, self.place, self.wait_over = node, node.place, node.wait

    def call(self, method, path, body=None):
        argv = ["curl", "-sS", "-i", "--max-time", "120", "--unix-socket", self.node.ready["socket"], "-X", method, "http://localhost" + path]
        if body is not None:
            argv += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        done = subprocess.run(argv, input=json.dumps(body).encode() if body is not None else None, capture_output=True)
        assert done.returncode == 0, done.stderr
        head, _, payload = done.stdout.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        CONTRACT.check(method, path, int(lines[0].split()[1]), fields, payload)
        return type("Reply", (), {"status": int(lines[0].split()[1]), "json": json.loads(payload) if payload.strip() else None})()

    def job(self, method, path, body=None):
        reply = self.call(method, path, body)
        assert reply.status == 202, reply.json
        while reply.json["state"] not in ("succeeded", "failed", "cancelled"):
            reply = self.call("GET", f"/jobs/{reply.json['id']}?wait=20")
        return reply.json


def test_a_whole_backup_over_the_socket(daemon):
    node = daemon(lay_out(daemon.place))
    back_up(Local(node))


def test_what_a_client_does_on_the_socket_harms_nobody(daemon):
    node = daemon()
    path = node.ready["socket"]

    def connect():
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(30)
        one.connect(path)
        return one

    with connect() as one:  # gone before it said anything
        pass
    with connect() as one:  # half a request, then nobody
        one.sendall(b"GET /whoami HTTP/1.1\r\nHost: l")
    with connect() as one:  # many on one connection, the sending side closed early: all are answered
        one.sendall(b"GET /whoami HTTP/1.1\r\nHost: l\r\n\r\n" * 50)
        one.shutdown(socket.SHUT_WR)
        got = b""
        while part := one.recv(65536):
            got += part
        assert got.count(b"HTTP/1.1 200") == 50
    with connect() as one:  # the largest document there is, read slowly
        one.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: l\r\nConnection: close\r\n\r\n")
        got = b""
        while part := one.recv(4096):
            got += part
        head, _, document = got.partition(b"\r\n\r\n")
        assert json.loads(document)["info"]["title"] == "quiesced"
    with connect() as one:  # TLS is not spoken here
        one.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64))
        assert one.recv(65536).startswith(b"HTTP/1.1 400")
    with connect() as one:  # and what HTTP forbids is refused as it is over TLS
        one.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert one.recv(65536).startswith(b"HTTP/1.1 400")
    assert curl(node, "/health/live")[0] == 200 and node.call("GET", "/whoami").status == 200


def test_the_socket_is_where_the_configuration_says_and_a_dead_ones_place_is_taken(daemon):
    path = daemon.place / "run" / "quiesced.sock"
    node = daemon(f"socket: {{path: {path}}}\n")
    assert node.ready["socket"] == str(path) and curl(node, "/whoami")[0] == 200
    node.stop(signal.SIGKILL)
    assert path.exists()
    node.start()
    assert curl(node, "/whoami")[0] == 200
    node.stop()
    assert not path.exists()
    (node.place / "quiesced.yaml").write_text("socket: {enabled: false}\n")
    node.start()
    assert node.ready["socket"] is None and not (node.place / "state" / "api.sock").exists()


def test_a_place_that_is_another_ones_is_left_alone(daemon):
    taken, file, config = daemon.place / "taken.sock", daemon.place / "file", daemon.place / "other.yaml"
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(taken))
    other.listen()
    file.write_text("mine")
    for path, word in ((taken, "another program listens there"), (file, "something else"), (daemon.place / ("x" * 120), "longer than 107")):
        config.write_text(f"socket: {{path: {path}}}\n")
        done = subprocess.run([BUILD / "quiesced", "serve", "--config", config, "--state-dir", daemon.place / "state", "--listen", "127.0.0.1:0"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and word in done.stderr, done.stderr
    assert file.read_text() == "mine" and taken.exists()
    other.close()
