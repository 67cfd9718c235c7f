"""GET /snapshots/{id}/archive over HTTPS: Debian's tar gets out what was in the snapshot, and an archive that breaks off never looks whole."""
import collections
import hashlib
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess

import pytest

import leftovers
from conduct import address, tls
from daemon import CONTRACT
from snapshot_ground import TOKEN, data, ground  # noqa: F401

LARGE = 64 << 20  # more than every buffer on the way together


def curl(ground, path, out, *more):
    """curl at work: (its process); what it got goes to out, the head to out.head."""
    node = ground.node
    return subprocess.Popen(["curl", "-sS", "--max-time", "300", "--cacert", node.ready["ca"], "--cert", node.ready["cert"], "--key", node.ready["key"], "-D",
                             f"{out}.head", "-o", out, *more, node.ready["url"] + path], stderr=subprocess.PIPE)


def head_of(out):
    lines = pathlib.Path(f"{out}.head").read_text().splitlines()
    return int(lines[0].split()[1]), {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:] if line)}


def fetched(ground, path, out, method="GET"):
    """A whole archive, in out; its headers."""
    done = curl(ground, path, out)
    words = done.communicate()[1]
    status, headers = head_of(out)
    assert done.returncode == 0 and status == 200, (words, status, ground.node.words()[-3000:])
    CONTRACT.check(method, path, status, headers, b"")
    assert headers["transfer-encoding"] == "chunked" and "content-length" not in headers, headers
    return headers


def listing(top):
    """Everything that tar keeps, by path; files with several names by their first one."""
    found, links = {}, collections.defaultdict(list)
    for folder, names, files in os.walk(os.fsencode(top)):
        for name in [b"."] * (folder == os.fsencode(top)) + names + files:
            path = os.path.join(folder, name)
            at = os.lstat(path)
            if stat.S_ISSOCK(at.st_mode):
                continue
            kind, where = stat.S_IFMT(at.st_mode), os.path.relpath(path, os.fsencode(top))
            attributes = {} if stat.S_ISLNK(at.st_mode) else {key: os.getxattr(path, key) for key in os.listxattr(path)}
            content = hashlib.sha256(pathlib.Path(os.fsdecode(path)).read_bytes()).hexdigest() if kind == stat.S_IFREG else None
            device = at.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else None
            found[where] = (oct(at.st_mode), at.st_uid, at.st_gid, at.st_mtime_ns, at.st_size if kind == stat.S_IFREG else None, content,
                            os.readlink(path) if kind == stat.S_IFLNK else None, device, attributes)
            if kind == stat.S_IFREG and at.st_nlink > 1:
                links[at.st_ino].append(where)
    return found, sorted(sorted(names) for names in links.values())


def fill(top):
    deep = top / "sub" / "deep" / "deeper"
    deep.mkdir(parents=True)
    for number, size in enumerate((0, 1, 511, 512, 513, 32767, 32768, 32769, 131072, 131073, 3 << 20)):
        (deep / f"file-{number}").write_bytes(os.urandom(size))
    os.link(deep / "file-9", top / "sub" / "same")
    os.link(deep / "file-9", top / "again")
    (top / "empty").mkdir(mode=0o2750)
    with open(top / "holes", "wb") as file:
        file.truncate(64 << 20)
        file.seek(20 << 20)
        file.write(b"island" * 1000)
    with open(top / "nothing but a hole", "wb") as file:
        file.truncate(1 << 20)
    (top / "link").symlink_to("/etc")
    (top / "dangling").symlink_to("x" * 300)
    (top / ("n" * 200)).mkdir()
    (top / ("n" * 200) / ("m" * 250)).write_bytes(b"long")
    os.close(os.open(os.fsencode(top) + b"/bad\xff\nname \\ *", os.O_CREAT | os.O_WRONLY, 0o4755))
    os.mkfifo(top / "fifo", 0o600)
    os.mknod(top / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(str(top / "socket"))
    os.setxattr(top / "again", "user.colour", b"blue\x00\xff")
    os.setxattr(top / "sub", "user.colour", b"red")
    os.setxattr(top / "sub", "trusted.mark", b"root's")
    subprocess.run(["setfacl", "-m", "u:12:rw,g:34:r", deep / "file-6"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:12:rwx", top / "sub"], check=True)
    os.chown(deep / "file-1", 1234567, 7654321)
    os.utime(deep / "file-2", ns=(1, 1_234_567_890_123_456_789))
    os.utime(deep / "file-3", ns=(1, -2_000_000_000))  # libarchive and tar disagree on fractions before 1970


def extract(ground, archive, *more):
    """By Debian's tar, as root, on a file system that takes everything; the folder."""
    target = ground.mount / "extracted"
    target.mkdir()
    subprocess.run(["tar", "-C", target, "--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", archive, *more], check=True)
    return target


@pytest.fixture
def out(ground):
    path = ground.place / "archive"
    yield path
    subprocess.run(["rm", "-rf", ground.mount / "extracted", *ground.place.glob("archive*")], check=True)


@pytest.mark.parametrize("form, accept, status", (
    ("tar", "application/x-tar", 200), ("tar", "*/*", 200), ("tar", "application/zstd", 406), ("tar.zst", "application/zstd, image/png", 200),
    ("tar.zst", "application/x-tar", 406), ("tar.zst", "application/zstd;q=0, */*", 406), ("tar", "text/html", 406)))
def test_an_archive_of_a_type_that_is_not_wanted_is_not_sent(ground, data, out, form, accept, status):  # noqa: F811
    _, (snapshot,) = ground.take(data)
    done = curl(ground, f"/snapshots/{snapshot}/archive?format={form}", out, "-H", f"Accept: {accept}")
    done.communicate()
    got, headers = head_of(out)
    assert got == status, headers
    if status == 406:
        problem = json.loads(pathlib.Path(out).read_bytes())
        assert headers["content-type"] == "application/problem+json" and problem["hresult"] == "E_INVALIDARG", problem


@pytest.mark.parametrize("form, kind", [("tar", "application/x-tar"), ("tar.zst", "application/zstd")])
def test_what_tar_gets_out_is_what_was_in_the_snapshot(ground, data, out, form, kind):
    fill(data)
    before = listing(data)
    s, (snapshot,) = ground.take(data, context="backup")
    subprocess.run(["rm", "-rf", data / "sub", data / "holes"], check=True)
    headers = fetched(ground, f"/snapshots/{snapshot}/archive?format={form}", out)
    assert headers["content-type"] == kind and headers["content-disposition"] == f'attachment; filename="snapshot-{snapshot}.{form}"', headers
    assert headers["cache-control"] == "no-store"
    assert subprocess.run(["zstd", "-tq", out]).returncode == 0 if form == "tar.zst" else out.stat().st_size < 32 << 20, "holes are not sent"
    target = extract(ground, out, *(["--zstd"] if form == "tar.zst" else []))
    after = listing(target)
    assert {path: (after[0].get(path), what) for path, what in before[0].items() if after[0].get(path) != what} == {}
    assert after == before and len(before[0]) > 25
    assert (target / "holes").stat().st_blocks * 512 < 1 << 20, "they are holes again"
    ground.release(s)


def test_a_part_of_a_snapshot(ground, data, out):
    fill(data)
    _, (snapshot,) = ground.take(data)
    archive = f"/snapshots/{snapshot}/archive"
    fetched(ground, archive + "?path=/sub/deep", out)
    names = subprocess.run(["tar", "-tf", out], check=True, capture_output=True, text=True).stdout.split()
    assert sorted(names) == sorted(["sub/deep/", "sub/deep/deeper/"] + [f"sub/deep/deeper/file-{n}" for n in range(11)])
    for path in ("file", "link", "fifo"):  # a single one; a link is kept, not followed
        fetched(ground, f"{archive}?path=/{path}", out)
        assert subprocess.run(["tar", "-tf", out], check=True, capture_output=True, text=True).stdout == path + "\n"
    fetched(ground, archive + "?path=/empty", out)
    assert subprocess.run(["tar", "-tf", out], check=True, capture_output=True, text=True).stdout == "empty/\n"


def test_head_and_refusals(ground, data, out):
    (data / "sub").mkdir()
    (data / "out").symlink_to("/etc")
    (data / "up").symlink_to("..")
    (data / "in").symlink_to("sub")
    _, (snapshot,) = ground.take(data)
    archive = f"/snapshots/{snapshot}/archive"
    head = ground.node.call("HEAD", archive + "?path=/sub&format=tar.zst")
    assert head.status == 200 and head.headers["content-type"] == "application/zstd" and "content-length" not in head.headers, head.headers
    for path in ("/missing", "/file/below", "/out/passwd", "/up/file", "/in/x", "/" + "n" * 300):
        reply = ground.node.call("GET", f"{archive}?path={path}")
        assert (reply.status, reply.json["hresult"]) == (404, "VSS_E_OBJECT_NOT_FOUND"), (path, reply)
        assert ground.node.call("HEAD", f"{archive}?path={path}").status == 404, path
    for query in ("path=sub", "path=/sub/../..", "path=/../../etc", "path=/sub/", "path=//etc", "path=", "path=/a%00b", "format=zip", "format=", "other=1"):
        reply = ground.node.call("GET", f"{archive}?{query}")
        assert (reply.status, reply.json["hresult"]) == (400, "E_INVALIDARG"), (query, reply)
    assert ground.node.call("GET", "/snapshots/0190c7d2-6f5a-7c3e-9d11-2b4f0a7e6c55/archive").status == 404
    assert ground.node.call("POST", archive, {}).status == 405
    old = curl(ground, archive, out, "--http1.0", "--no-alpn")
    assert old.wait() == 0 and head_of(out)[0] == 400 and b"HTTP/1.0" in out.read_bytes(), "there, the end of a connection is the end of a body"
    assert not leftovers.settle(lambda: movers(ground.node))


def test_behind_the_head_comes_nothing_of_a_body(ground, data):
    _, (snapshot,) = ground.take(data)
    with tls(ground.node).wrap_socket(socket.create_connection(address(ground.node), timeout=60), server_hostname="127.0.0.1") as wire:
        wire.sendall(f"HEAD /snapshots/{snapshot}/archive HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got = b""
        while more := wire.recv(4096):
            got += more
    assert got.startswith(b"HTTP/1.1 200 ") and got.index(b"\r\n\r\n") + 4 == len(got), got
    assert b"connection: close" in got.lower() and b"content-length" not in got.lower(), got


def test_who_may_read_a_snapshot_out(ground, data, out):
    _, (snapshot,) = ground.take(data)
    path = f"/snapshots/{snapshot}/archive"
    for who in ("anna", "otto", "viktor"):
        assert ground.call("GET", path, token=who).status == 403, who
        assert ground.call("HEAD", path, token=who).status == 403, who
    done = subprocess.run(["curl", "-sS", "-f", "--cacert", ground.node.ready["ca"], "-H", f"Authorization: Bearer {TOKEN['rosa']}", "-o", out,
                           ground.node.ready["url"] + path])
    assert done.returncode == 0 and b"before\n" in out.read_bytes()
    nobody = subprocess.run(["curl", "-sS", "-f", "--cacert", ground.node.ready["ca"], ground.node.ready["url"] + path], capture_output=True)
    assert nobody.returncode == 22 and b"401" in nobody.stderr


# --- what breaks off ---


def movers(node):
    return [pid for pid in leftovers.running(node) if "--role=mover" in leftovers.command(pid)]


def how_far(pid):
    """Where a producer stands in the large file; 0: not there yet."""
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(fd).endswith("/large"):
                return int(pathlib.Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().split()[1])
        except OSError:
            pass  # closed meanwhile
    return 0


class Reader:
    """A client that reads the head and then nothing."""

    def __init__(self, ground, path):
        self.socket = tls(ground.node).wrap_socket(socket.create_connection(address(ground.node)), server_hostname="127.0.0.1")
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.got = b""
        while b"\r\n\r\n" not in self.got:
            self.got += self.socket.recv(4096)
        self.status = int(self.got.split()[1])

    def rest(self):
        """To the end of the body, or to the end of the connection."""
        while not self.got.endswith(b"\r\n0\r\n\r\n") and (more := self.socket.recv(65536)):
            self.got = self.got[-16:] + more
        return self.got.endswith(b"\r\n0\r\n\r\n")

    def close(self):
        self.socket.close()


@pytest.fixture
def large(ground, data):
    """A snapshot with a file that is not read at once, of a session that is still there."""
    (data / "large").write_bytes(os.urandom(1 << 20) * (LARGE >> 20))
    s, (snapshot,) = ground.take(data, context="backup")
    yield s, snapshot, f"/snapshots/{snapshot}/archive"
    ground.node.call("DELETE", s)  # unless it is gone already


def under_way(ground, path, out):
    """curl in the middle of it, slowly, and the producer that waits for it."""
    client = curl(ground, path, out, "--limit-rate", "1M")
    assert not leftovers.settle(lambda: not (out.exists() and out.stat().st_size > 100000)), client.poll()
    (producer,) = movers(ground.node)
    return client, producer


@pytest.mark.parametrize("how", ("producer", "stopped producer", "worker", "core", "session"))
def test_an_archive_that_breaks_off_never_looks_whole(ground, large, out, how):
    session, snapshot, path = large
    client, producer = under_way(ground, path, out)
    if how == "producer":
        os.kill(producer, signal.SIGKILL)
    elif how == "stopped producer":
        os.kill(producer, signal.SIGSTOP)
    elif how == "worker":
        os.kill(int(pathlib.Path(f"/proc/{producer}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    elif how == "core":
        os.kill(leftovers.role(ground.node, "core"), signal.SIGKILL)
    else:
        assert ground.node.call("DELETE", session).status in (202, 204)
    words = client.communicate()[1]
    assert client.returncode in (18, 56), (client.returncode, words)  # partial file, or a receive error (reset)
    assert out.stat().st_size < LARGE
    if how == "core":
        ground.wire = None
        leftovers.ready(ground.node)
    assert not leftovers.settle(lambda: movers(ground.node))
    if how in ("producer", "stopped producer", "worker"):
        told = ground.node.call("GET", "/errors?limit=5").json["items"]
        assert any(snapshot in row["text"] and "broke off" in row["text"] for row in told), told


def test_a_failure_in_the_middle_of_the_tree_is_no_end(ground, data, out):
    """What is listed and then cannot be read fails it, however much came before."""
    _, (snapshot,) = ground.take(data)
    (ground.node.faults / "mover.read_out").write_text("fail")
    client = curl(ground, f"/snapshots/{snapshot}/archive", out)
    client.communicate()
    leftovers.forget(ground.node, "mover.read_out")
    assert client.returncode in (18, 52, 56), client.returncode


def test_a_client_that_leaves_ends_the_producer(ground, large, out):
    session, snapshot, path = large
    client, _ = under_way(ground, path, out)
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert not leftovers.settle(lambda: movers(ground.node))
    reader = Reader(ground, path)
    assert reader.status == 200 and movers(ground.node)
    reader.close()
    assert not leftovers.settle(lambda: movers(ground.node))


def test_what_is_read_out_is_not_deleted(ground, data, out):
    (data / "large").write_bytes(os.urandom(1 << 20) * (LARGE >> 20))
    _, (snapshot,) = ground.take(data)
    reader = Reader(ground, f"/snapshots/{snapshot}/archive")
    for method, path, body in (("DELETE", "", None), ("DELETE", "?force=true", None), ("POST", "/revert", {}), ("POST", "/exposure", {"path": str(ground.shown / "y")})):
        refused = ground.node.call(method, f"/snapshots/{snapshot}{path}", body)
        assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE") and "archive" in refused.json["detail"], refused
    assert ground.node.call("GET", f"/snapshots/{snapshot}/files").status == 200, "whoever only looks is not kept off"
    assert reader.rest()
    reader.close()
    assert ground.node.call("DELETE", f"/snapshots/{snapshot}").status == 200


def test_many_at_a_time_are_bounded_and_each_is_whole(ground, large):
    """Eight clients that read nothing: what is under way for them does not grow, a ninth comes later, and then all get their archive."""
    session, snapshot, path = large
    readers = [Reader(ground, path) for _ in range(8)]
    assert [reader.status for reader in readers] == [200] * 8
    refused = ground.node.call("GET", path)
    assert (refused.status, refused.json["hresult"]) == (503, "E_OUTOFMEMORY") and int(refused.headers["retry-after"]) > 0, refused
    assert len(movers(ground.node)) == 8
    assert not leftovers.settle(lambda: [pid for pid in movers(ground.node) if not how_far(pid)])
    assert max(how_far(pid) for pid in movers(ground.node)) < LARGE // 2, "a producer runs on though nobody reads"
    assert ground.node.call("GET", "/snapshots").status == 200, "and everybody else is served"
    assert all(reader.rest() for reader in readers)
    again = ground.node.call("HEAD", path)
    assert again.status == 200
    for reader in readers:
        reader.close()
    assert not leftovers.settle(lambda: movers(ground.node))


def test_the_connection_goes_on_after_an_archive(ground, data):
    _, (snapshot,) = ground.take(data)
    reader = Reader(ground, f"/snapshots/{snapshot}/archive")
    assert reader.rest()
    reader.socket.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reader.socket.recv(4096).startswith(b"HTTP/1.1 200"), "kept alive"
    reader.close()


@pytest.mark.parametrize("when", ["before the limit", "after it"])
def test_a_client_that_reads_too_slowly_is_disconnected(ground, large, when):
    """Who was there when the limit changed goes by it, too: front hears of it a moment after the log says so."""
    session, snapshot, path = large
    config = ground.node.place / "quiesced.yaml"
    before = config.read_text()

    def begin():
        reader = Reader(ground, path)
        assert movers(ground.node)
        return reader

    reader = begin() if when == "before the limit" else None
    config.write_text(before.replace("limits: {", "limits: {stall_seconds: 1, "))
    ground.node.process.send_signal(signal.SIGHUP)
    try:
        assert not leftovers.settle(lambda: "configuration read again" not in ground.node.words())
        reader = reader or begin()
        assert not leftovers.settle(lambda: movers(ground.node)), "its producer is gone, and the snapshot free"
        with pytest.raises(OSError):
            assert not reader.rest()
            raise ConnectionResetError("it ended without the last chunk")
        reader.close()
    finally:
        config.write_text(before)
        ground.node.process.send_signal(signal.SIGHUP)
