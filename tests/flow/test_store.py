"""The store when it is damaged, full, or killed: told plainly, never made anew in silence, and nothing acknowledged is lost."""
import hashlib
import os
import signal
import sqlite3
import subprocess
import threading

import pytest

import leftovers
from conftest import BUILD, SOURCE


def session(node):
    reply = node.call("POST", "/sessions", {"kind": "backup", "label": "kept"})
    assert reply.status == 201, reply
    return reply.json["id"]


def store(node):
    return node.place / "state" / "store" / "quiesced.db"


def kill_all(node):
    """SIGKILL for every process of the daemon at once."""
    node.process.kill()
    node.process.wait()
    for pid in leftovers.settle(lambda: list(leftovers.running(node)), 3):
        os.kill(pid, signal.SIGKILL)
    assert not leftovers.settle(lambda: list(leftovers.running(node)))


def test_a_damaged_record_is_set_aside_and_told_and_the_daemon_serves(daemon):
    node = daemon()
    bad, good = session(node), session(node)
    assert node.stop() == 0
    with sqlite3.connect(store(node)) as connection:
        connection.execute("UPDATE sessions SET doc = substr(doc, 1, 40) WHERE id = ?", (bad,))
    connection.close()
    for _ in range(2):  # the second start finds nothing more to do
        node.start()
        assert node.call("GET", f"/sessions/{good}").json["state"] == "aborted"
        assert node.call("GET", f"/sessions/{bad}").status == 404
        told = [error for error in node.call("GET", "/errors").json["items"] if bad in error["text"]]
        assert len(told) == 1 and "quarantine" in told[0]["text"], told
        assert node.stop() == 0
    with sqlite3.connect(store(node)) as connection:
        assert connection.execute("SELECT count(*) FROM quarantine WHERE id = ?", (bad,)).fetchone()[0] == 1
    connection.close()


MIGRATIONS = {int(path.name[:4]): path.read_text() for path in sorted((SOURCE / "daemon" / "store" / "migrations").glob("*.sql"))}


def schema(connection):
    return sorted(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'").fetchall())


def as_it_was(path, version, application, rows):
    """The store of a program that knew migrations up to version alone, with these sessions."""
    owner = path.stat()
    for file in path.parent.glob(path.name + "*"):
        file.unlink()
    connection = sqlite3.connect(path)
    for number, sql in MIGRATIONS.items():
        if number <= version:
            connection.executescript(sql)
    connection.executemany(f"INSERT INTO sessions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", rows)
    connection.execute(f"PRAGMA application_id = {application}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()
    os.chown(path, owner.st_uid, owner.st_gid)
    path.chmod(owner.st_mode & 0o7777)


COLUMNS = ("id", "session_id", "job_id", "owner", "state", "operation", "created_ms", "expires_ms", "hidden", "doc")


@pytest.mark.parametrize("version", [pytest.param(version, marks=[] if version in (*list(MIGRATIONS)[:1], *list(MIGRATIONS)[-5:]) else [pytest.mark.full]) for version in list(MIGRATIONS)[:-1]])
def test_a_store_of_each_earlier_version_is_brought_up_to_date(daemon, version):
    """By an upgrade: the schema is that of a new one, what was there is there, and the store of before is kept beside it."""
    node = daemon()
    kept, path, newest = session(node), store(node), max(MIGRATIONS)
    assert node.stop() == 0
    with sqlite3.connect(path) as connection:
        today, application = schema(connection), connection.execute("PRAGMA application_id").fetchone()[0]
        assert connection.execute("PRAGMA user_version").fetchone()[0] == newest
        rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM sessions").fetchall()
    connection.close()
    as_it_was(path, version, application, rows)
    node.start()
    assert node.call("GET", f"/sessions/{kept}").json["label"] == "kept"
    session(node)
    assert node.stop() == 0
    with sqlite3.connect(path) as connection:
        assert (connection.execute("PRAGMA user_version").fetchone()[0], schema(connection)) == (newest, today)
    connection.close()
    assert len(list(path.parent.glob(f"{path.name}.v{version}-*"))) == 1


def damage_truncate(path):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)


def damage_flip(path):
    """One bit of every page's head: the trees no longer fit together."""
    with open(path, "r+b") as file:
        for at in range(4096, path.stat().st_size, 4096):
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x40]))


def damage_replace(path):
    path.write_bytes(b"not a database at all\n" * 1000)


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_replace])
def test_a_damaged_store_is_told_with_the_way_out_and_left_as_it_is(daemon, damage):
    node = daemon()
    for _ in range(5):
        session(node)
    assert node.stop() == 0
    damage(store(node))
    before = hashlib.sha256(store(node).read_bytes()).digest()
    done = subprocess.run([BUILD / "quiesced", "serve", "--config", node.place / "quiesced.yaml", "--state-dir", node.place / "state", "--listen",
                           "127.0.0.1:0"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done
    assert str(store(node)) in done.stderr and "ove it away" in done.stderr, done.stderr[-3000:]
    assert hashlib.sha256(store(node).read_bytes()).digest() == before


@pytest.fixture
def small(daemon):
    """A daemon whose state directory is a file system of 24 MiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    image, state = daemon.place / "image", daemon.place / "state"
    subprocess.run(["truncate", "-s", "24M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    state.mkdir()
    subprocess.run(["mount", "-o", "loop", image, state], check=True)
    nodes = []
    try:
        nodes.append(daemon())
        yield nodes[0]
    finally:
        for node in nodes:
            node.stop()
        subprocess.run(["umount", state], check=True)


def fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass


def test_a_full_store_refuses_clearly_and_goes_on_by_itself(small):
    kept, filler = [session(small)], small.place / "state" / "filler"
    fill(filler)
    refused = None
    for _ in range(400):  # what SQLite has allocated already is used up first
        reply = small.call("POST", "/sessions", {"kind": "backup", "label": "kept"})
        if reply.status != 201:
            refused = reply
            break
        kept.append(reply.json["id"])
    assert refused and refused.status == 503 and refused.json["reason"] == "store_full", refused
    assert refused.json["hresult"] == "VSS_E_UNEXPECTED" and "Free space" in refused.json["hint"] and int(refused.headers["retry-after"]) > 0
    assert small.call("GET", f"/sessions/{kept[-1]}").json["state"] == "initialized"
    filler.unlink()
    kept.append(session(small))
    kill_all(small)
    small.start()
    for id in kept:
        assert small.call("GET", f"/sessions/{id}").json["state"] == "aborted"


def test_what_was_acknowledged_survives_sigkill_in_the_middle_of_commits(daemon):
    node, acknowledged, stop = daemon(), [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                acknowledged.append(session(node))
            except AssertionError:
                return  # killed in the middle of this call: nobody promised anything

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert not leftovers.settle(lambda: len(acknowledged) < 20, 120)
    kill_all(node)
    stop.set()
    for thread in threads:
        thread.join()
    node.start()
    for id in acknowledged:
        assert node.call("GET", f"/sessions/{id}").json["state"] == "aborted", id


def test_a_client_that_disappears_changes_and_leaks_nothing(daemon):
    """In the middle of a request, of a long poll, and right after a POST."""
    node = daemon()
    core = leftovers.role(node, "core")
    open_files = lambda: len(os.listdir(f"/proc/{core}/fd"))  # noqa: E731
    id = session(node)
    before = leftovers_quiet(open_files)
    url, credentials = node.ready["url"], ["--cacert", node.ready["ca"], "--cert", node.ready["cert"], "--key", node.ready["key"]]
    job = node.call("POST", f"/sessions/{id}/metadata").json["id"]
    node.wait(job)
    for words in (["-X", "POST", "-H", "Content-Type: application/json", "-H", "Content-Length: 1000", "--data", '{"kind"', f"{url}/sessions"],
                  [f"{url}/jobs/{job}?wait=60"], ["-X", "POST", f"{url}/sessions/{id}/status"], [f"{url}/events"]):
        for _ in range(5):
            client = subprocess.Popen(["curl", "-sS", "--max-time", "60", *credentials, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                client.wait(0.3)
            except subprocess.TimeoutExpired:
                client.kill()
                client.wait()
    for item in node.call("GET", "/jobs").json["items"]:
        assert node.wait(item["id"])["state"] in ("succeeded", "failed"), item
    assert [item["id"] for item in node.call("GET", "/sessions").json["items"]] == [id]
    assert node.call("GET", f"/sessions/{id}").json["state"] == "identified"
    node.call("DELETE", f"/sessions/{id}")
    assert not leftovers.settle(lambda: open_files() > before, 60), (before, open_files())


def leftovers_quiet(count):
    """The number of open files when nobody asks for anything."""
    least = count()
    leftovers.settle(lambda: count() > least, 2)
    return count()
