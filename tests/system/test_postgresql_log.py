"""A chain of a full and two log backups of a cluster under load, over HTTPS: restored, it holds every row acknowledged before the last one began."""
import json
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import load
import manual_blocks
import steps
from postgresql_server import BIN, Server, own, run

MAIN = [{"writer": "pg-main", "name": "main"}]


@pytest.fixture(scope="module", params=["together", pytest.param("wal-apart", marks=pytest.mark.full)])
def world(request, btrfs):
    """A cluster with its load; way (a) of its full backups where all lies in one subvolume, way (b) where the WAL lies in another."""
    sockets = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-pg-", dir="/tmp"))
    own(sockets)
    places = [btrfs / request.param, btrfs / (request.param + "-wal")]
    for place in places:
        subprocess.run(["btrfs", "-q", "subvolume", "create", place], check=True)
        own(place)
    apart = request.param == "wal-apart"
    server = Server(str(places[0] / "pgdata"), str(sockets), initdb=("-X", str(places[1] / "wal")) if apart else (), options=["archive_mode=off"])
    server.way, server.wal = ("backup-label", places[1] / "wal") if apart else ("atomic-snapshot", None)
    server.query("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'")
    server.query("SELECT pg_reload_conf()")
    server.query("CREATE EXTENSION amcheck")
    server.pgbench_init()
    server.numbers = load.Numbers(server)
    pgbench = load.Pgbench(server, sockets / "pgbench.log")
    yield server
    try:
        server.numbers.stop()
        pgbench.stop()
    finally:
        server.stop()
        shutil.rmtree(sockets)


def configuration(place, server):
    return f"""
writers:
  - {{name: pg-main, type: postgresql, connection: "{server.connection} dbname=postgres", user: postgres, log_backups: true}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{place}]}}
"""


def call(node, backup_type):
    job = steps.succeeded(node.job("POST", "/backups", {"components": MAIN, "repository": "main", "type": backup_type}))
    return steps.backup_of(node, job["result"]["backup_id"])


def verbs(node, previous):
    """The same, verb by verb: the client itself keeps the stamp, and its set has no volume."""
    s = "/sessions/" + node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    assert node.call("PUT", s + "/backup-state", dict(steps.BACKUP_STATE, type="log")).status == 200
    steps.succeeded(node.job("POST", s + "/metadata"))
    writer, = node.call("GET", s + "/writers").json["items"]
    component = node.call("POST", s + "/components", {"instance_id": writer["instance_id"], "logical_path": "", "name": "main"}).json["id"]
    assert node.call("PATCH", f"{s}/components/{component}", {"previous_stamp": previous}).status == 200
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    for operation in ("/prepare", "/snapshot"):
        steps.succeeded(node.job("POST", s + operation))
    backup = steps.succeeded(node.job("POST", s + "/copy", {"repository": "main"}))["result"]["backup_id"]
    assert node.call("PATCH", f"{s}/components/{component}", {"succeeded": True}).status == 200
    steps.succeeded(node.job("POST", s + "/complete"))
    assert node.call("DELETE", s).status in (202, 204)
    return steps.backup_of(node, backup)


def facts(backup):
    return json.loads(backup["components"][0]["backup_metadata"])


def stamp(backup):
    return backup["components"][0]["backup_stamp"]


def restart_lsn(server):
    return server.query("SELECT restart_lsn::text FROM pg_replication_slots")


def chain(node, server):
    """full, copy, log by one call, log by verbs. What had been acknowledged before the last one began."""
    refused = node.job("POST", "/backups", {"components": MAIN, "repository": "main", "type": "log"})
    assert refused["state"] == "failed" and refused["error"]["reason"] == "no_previous_backup", refused
    full = call(node, "full")
    assert facts(full)["way"] == server.way and restart_lsn(server) == [(facts(full)["stop_lsn"],)]
    call(node, "copy")
    assert restart_lsn(server) == [(facts(full)["stop_lsn"],)], "a copy moves nothing"
    plan = node.call("POST", "/backups", {"components": MAIN, "repository": "main", "type": "log", "validate_only": True})
    assert plan.status == 200 and plan.json["volumes"] == plan.json["refusals"] == [], "the log needs no snapshot"
    first = call(node, "log")
    assert first["components"][0]["previous_backup_id"] == full["id"] and first["components"][0]["backup_type"] == "log"
    assert first["components"][0]["grade"] == "application" and facts(first)["way"] == "log"
    assert first["files"] < full["files"], "segments, and nothing else"
    acknowledged = server.numbers.acknowledged[-1][0]
    second = verbs(node, stamp(first))
    assert facts(second)["start_lsn"] == facts(first)["stop_lsn"] and restart_lsn(server) == [(facts(second)["stop_lsn"],)]
    return full, [first, second], acknowledged


def restored_server(node, server, full, logs, place, target):
    """As docs/writers/postgresql.md says."""
    root = steps.restore(node, full["id"], target)
    data = root / server.data[1:]
    if server.wal:  # the link names the original's place
        (data / "pg_wal").unlink()
        (data / "pg_wal").symlink_to(root / str(server.wal)[1:])
    segments = str(server.wal or pathlib.Path(server.data) / "pg_wal")
    archive = target.with_name(target.name + "-log")
    archive.mkdir()
    for log in logs:
        job = node.job("POST", f"/backups/{log['id']}/restore", {"target": str(archive), "paths": [], "overwrite": False})
        steps.succeeded(job)
    (text,) = manual_blocks.of("writers/postgresql.md", __file__, [("LOGS/DATA_DIRECTORY/pg_wal", f"{archive}{segments}"), ("RESTORE_POINT", facts(logs[-1])["restore_point"])])
    with open(data / "postgresql.auto.conf", "a") as settings:
        settings.write(text)
    (data / "recovery.signal").touch()
    own(data / "recovery.signal")
    sockets = pathlib.Path(tempfile.mkdtemp(dir=place))
    own(sockets)
    return Server(str(data), str(sockets), restored=True, options=["hot_standby=off", "archive_mode=off"])


def test_a_chain_restores_to_its_last_moment_and_not_across_a_gap(world, daemon):
    node, place = daemon(configuration(daemon.place, world)), daemon.place
    full, logs, acknowledged = chain(node, world)
    assert node.call("GET", "/snapshots").json["items"] == []
    with restored_server(node, world, full, logs, place, place / "whole") as restored:
        numbers, last = restored.query("SELECT count(*), max(n) FROM numbers")[0]
        assert numbers == last >= acknowledged > 0
        accounts, tellers, branches, delta, _ = restored.sums()
        assert accounts == tellers == branches == delta
        run(BIN + "/pg_amcheck", "-h", restored.sockets, "-U", "postgres", "--heapallindexed", "-d", "postgres")
        restored.query("INSERT INTO numbers VALUES (-1)")
        assert restored.query("SELECT count(*) FROM pg_replication_slots") == [(0,)]
    shutil.rmtree(place / "whole")
    with pytest.raises(AssertionError, match="recovery ended before configured recovery target was reached"):
        restored_server(node, world, full, logs[1:], place, place / "gap")
    # Somebody drops the slot: the next log backup says what is to be done, and copies nothing.
    world.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    backups = len(node.call("GET", "/backups").json["items"])
    job = node.job("POST", "/backups", {"components": MAIN, "repository": "main", "type": "log"})
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_WRITERERROR_NONRETRYABLE") and "full backup" in json.dumps(job["error"]), job
    assert len(node.call("GET", "/backups").json["items"]) == backups
