"""The backup session over HTTPS with the real daemon, the SQLite writer, the copy provider and the archive mover."""
import hashlib
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from conftest import SOURCE

BACKUP_STATE = {"component_mode": True, "bootable_system_state": False, "type": "full", "partial_files": False}


def configuration(place):
    return f"""
writers:
  - {{name: app, type: sqlite, databases: [{place}/data/app.db]}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{place}/restored]}}
"""


@pytest.fixture
def node(daemon):
    place = daemon.place
    for name in ("data", "files", "backups", "restored"):
        (place / name).mkdir()
    for i in range(20):
        (place / "files" / f"file-{i}").write_bytes(bytes([i]) * (i * 1000))
    load = subprocess.Popen([SOURCE / "scripts" / "write-load", place / "data" / "app.db", "--print"], stdout=subprocess.PIPE, text=True)
    load.stdout.readline()
    one = daemon(configuration(place))
    one.load = load
    yield one
    load.kill()
    load.wait()


def open_session(node, label="test"):
    session = node.call("POST", "/sessions", {"kind": "backup", "label": label})
    assert session.status == 201 and session.json["state"] == "initialized"
    return "/sessions/" + session.json["id"]


def to_prepared(node):
    s = open_session(node)
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    assert node.job("POST", s + "/metadata")["state"] == "succeeded"
    writer = node.call("GET", s + "/writers").json["items"][0]
    component = node.call("POST", s + "/components", {"instance_id": writer["instance_id"], "logical_path": "", "name": writer["components"][0]["name"]})
    assert component.status == 201 and component.json["succeeded"] is False
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    volume = node.call("POST", s + "/snapshot-set/volumes", {"path": str(node.place / "data"), "provider": None})
    assert volume.status == 201, volume
    job = node.job("POST", s + "/prepare")
    assert job["state"] == "succeeded", job
    return s, component.json["id"]


def to_snapshotted(node):
    s, component = to_prepared(node)
    job = node.job("POST", s + "/snapshot")
    assert job["state"] == "succeeded", job
    assert job["result"]["freeze"]["window_ms"] >= 0
    return s, component


def test_a_whole_session_is_restored_equal(node):
    s, component = to_prepared(node)
    acknowledged = sqlite3.connect(node.place / "data" / "app.db").execute("SELECT max(n) FROM written").fetchone()[0]
    assert node.job("POST", s + "/snapshot")["state"] == "succeeded"
    copied = node.job("POST", s + "/copy", {"repository": "main"})
    assert copied["state"] == "succeeded", copied
    backup = copied["result"]["backup_id"]
    assert node.call("GET", f"/backups/{backup}").json["complete"] is False
    assert node.call("PATCH", f"{s}/components/{component}", {"succeeded": True}).json["succeeded"] is True
    done = node.job("POST", s + "/complete")
    assert (done["state"], done["hresult"], done["code"]) == ("succeeded", "VSS_S_ASYNC_FINISHED", "0x0004230a") or done["code"].lower() == "0x0004230a"
    assert node.call("GET", s).json["state"] == "completed"
    assert node.call("GET", f"/backups/{backup}").json["complete"] is True
    assert node.call("DELETE", s).status == 204
    assert node.call("GET", s).status == 404
    restored = node.job("POST", f"/backups/{backup}/restore", {"target": str(node.place / "restored"), "paths": [], "overwrite": False})
    assert restored["state"] == "succeeded", restored
    database = sqlite3.connect(f"{node.place}/restored{node.place}/data/app.db")
    assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    count, last = database.execute("SELECT count(*), max(n) FROM written").fetchone()
    assert count == last and last >= acknowledged
    assert node.load.poll() is None
    database.close()


def test_one_call_backs_up_paths_and_restores_equal(node):
    job = node.job("POST", "/backups", {"paths": [str(node.place / "files")], "components": [{"writer": "app", "name": "app"}], "repository": "main"})
    assert job["state"] == "succeeded", job
    backup = job["result"]["backup_id"]
    assert node.call("GET", f"/backups/{backup}").json["complete"] is True
    restored = node.job("POST", f"/backups/{backup}/restore", {"target": str(node.place / "restored"), "paths": [], "overwrite": False})
    assert restored["state"] == "succeeded", restored
    for i in range(20):
        original, copy = node.place / "files" / f"file-{i}", pathlib.Path(f"{node.place}/restored{node.place}/files/file-{i}")
        assert hashlib.sha256(original.read_bytes()).digest() == hashlib.sha256(copy.read_bytes()).digest()


def test_calls_out_of_sequence_answer_bad_state_with_the_sessions_state(node):
    s = open_session(node)
    for path in ("/complete", "/prepare", "/snapshot"):
        reply = node.call("POST", s + path)
        assert reply.status == 409 and reply.json["hresult"] == "VSS_E_BAD_STATE" and reply.json["session_state"] == "initialized", reply
    s, _ = to_prepared(node)
    reply = node.call("POST", s + "/complete")
    assert reply.status == 409 and reply.json["session_state"] == "prepared", reply
    assert node.call("POST", s + "/abort").json["state"] == "aborted"
    assert node.call("POST", s + "/complete").json["hresult"] == "VSS_E_BAD_STATE"


def test_bad_input_names_the_member_and_changes_nothing(node):
    s = open_session(node)
    before = node.call("GET", s).json
    for body, pointer in (({"component_mode": "yes", "type": "full"}, "/component_mode"), ({"type": "weekly"}, "/type"), ({"typ": "full"}, "/typ")):
        reply = node.call("PUT", s + "/backup-state", body)
        assert reply.status == 400 and reply.json["hresult"] == "E_INVALIDARG", reply
        assert pointer in [e["pointer"] for e in reply.json["errors"]], reply
    for text in ('{"type":"full","type":"copy"}', "{", '{"type":' + "[" * 100 + "]" * 100 + "}", '"' + "x" * 3_000_000 + '"'):
        reply = node.call("PUT", s + "/backup-state", text)
        assert reply.status in (400, 413), reply
    assert node.call("GET", s).json["state"] == before["state"] and node.call("GET", s).json["backup_state"] is None


def test_nobody_gets_in_without_a_credential(node):
    for token in ("", "qsd1_" + "A" * 43):
        assert node.call("GET", "/sessions", token=token).status == 401
    assert node.call("GET", "/health/live", token="").status == 200
    admin = pathlib.Path(node.ready["token_file"]).read_text().strip()
    assert node.call("GET", "/whoami", token=admin).json["principal"] == "admin"


def test_a_killed_core_leaves_every_job_terminal(node):
    s, _ = to_prepared(node)
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    time.sleep(0.5)
    node.start()
    reply = node.call("GET", s).json
    assert reply["state"] == "aborted" and reply["reason"] == "interrupted"
    for job in node.call("GET", "/jobs").json["items"]:
        assert job["state"] in ("succeeded", "failed", "cancelled"), job
    assert open_session(node)


def test_a_scan_rebuilds_a_lost_catalog_and_tells_what_is_damaged(node):
    body = {"paths": [str(node.place / "files")], "components": [], "repository": "main"}
    good, bad = (node.job("POST", "/backups", body)["result"]["backup_id"] for _ in range(2))
    assert node.stop() == 0
    shutil.rmtree(node.place / "state")
    (node.place / "backups" / bad / "document.json").write_text("{")
    node.start()
    assert node.call("GET", "/backups").json["items"] == []
    scan = node.job("POST", "/repositories/main/scan")
    assert scan["state"] == "succeeded" and scan["result"]["added"] == 1, scan
    assert [entry["backup_id"] for entry in scan["result"]["damaged"]] == [bad], scan
    assert [item["id"] for item in node.call("GET", "/backups").json["items"]] == [good]
    target = {"target": str(node.place / "restored"), "paths": [], "overwrite": False}
    assert node.job("POST", f"/backups/{good}/restore", target)["state"] == "succeeded"
    assert pathlib.Path(f"{node.place}/restored{node.place}/files/file-7").read_bytes() == (node.place / "files" / "file-7").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="a loop-mounted btrfs needs root")
def test_a_second_daemon_on_the_host_leaves_the_firsts_snapshots_alone(daemon, tmp_path):
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        subprocess.run(["btrfs", "subvolume", "create", mount / "volume"], check=True, stdout=subprocess.DEVNULL)
        (mount / "volume" / "file").write_text("kept")
        first = daemon()
        s = "/sessions/" + first.call("POST", "/sessions", {"kind": "backup", "context": "file_share_backup"}).json["id"]
        assert first.call("POST", s + "/snapshot-set", {}).status == 201
        assert first.call("POST", s + "/snapshot-set/volumes", {"path": str(mount / "volume")}).json["provider"] == "btrfs"
        snapshot = pathlib.Path(first.job("POST", s + "/snapshot")["result"]["snapshots"][0]["path"])
        assert (snapshot / "file").read_text() == "kept"
        neighbour = first.place / "neighbour"  # where other users can pass
        neighbour.mkdir()
        second = type(first)(neighbour)
        second.start()
        second.stop()
        assert (snapshot / "file").read_text() == "kept", second.words()
        # What is the first's own is still collected: killed, it clears its leftover at its next start.
        subprocess.run(["pkill", "-KILL", "-f", f"serve --config {first.place}"], check=True)
        first.process.wait()
        first.start()
        assert not snapshot.exists(), first.words()
        first.stop()
    finally:
        subprocess.run(["umount", mount], check=True)
