"""A whole session, verb by verb, with any client and any principal: from POST /sessions to a restored file that is equal."""
import pathlib
import sqlite3

BACKUP_STATE = {"component_mode": True, "bootable_system_state": False, "type": "full", "partial_files": False}


def lay_out(place):
    """Data, and the configuration that backs it up."""
    for name in ("data", "backups", "restored"):
        (place / name).mkdir()
    database = sqlite3.connect(place / "data" / "app.db")
    database.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY)")
    database.executemany("INSERT INTO rows VALUES (?)", ((n,) for n in range(1, 101)))
    database.commit()
    database.close()
    (place / "data" / "file").write_bytes(bytes(range(256)) * 64)
    return f"""
writers:
  - {{name: app, type: sqlite, databases: [{place}/data/app.db]}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{place}/data, {place}/restored]}}
"""


def back_up(node, provider=None):
    """Returns the id of a backup that is complete."""
    session = node.call("POST", "/sessions", {"kind": "backup", "label": "journey"})
    assert session.status == 201, session
    s = "/sessions/" + session.json["id"]
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    assert node.job("POST", s + "/metadata")["state"] == "succeeded"
    writer = node.call("GET", s + "/writers").json["items"][0]
    chosen = {"instance_id": writer["instance_id"], "logical_path": "", "name": writer["components"][0]["name"]}
    component = node.call("POST", s + "/components", chosen).json["id"]
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    volume = node.call("POST", s + "/snapshot-set/volumes", {"path": str(node.place / "data"), "provider": provider})
    assert volume.status == 201 and provider in (None, volume.json["provider"]), volume
    for verb in ("/prepare", "/snapshot"):
        job = node.job("POST", s + verb)
        assert job["state"] == "succeeded", job
    copied = node.job("POST", s + "/copy", {"repository": "main"})
    assert copied["state"] == "succeeded", copied
    assert node.call("PATCH", f"{s}/components/{component}", {"succeeded": True}).status == 200
    done = node.job("POST", s + "/complete")
    assert (done["state"], done["hresult"]) == ("succeeded", "VSS_S_ASYNC_FINISHED"), done
    assert node.call("DELETE", s).status in (202, 204)
    return copied["result"]["backup_id"]


def restore(node, backup):
    target = {"target": str(node.place / "restored"), "paths": [], "overwrite": True}
    job = node.job("POST", f"/backups/{backup}/restore", target)
    assert job["state"] == "succeeded", job
    compare(node)


def compare(node):
    restored = pathlib.Path(f"{node.place}/restored{node.place}/data/app.db")
    database = sqlite3.connect(restored)
    assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert database.execute("SELECT count(*), max(n) FROM rows").fetchone() == (100, 100)
    database.close()
