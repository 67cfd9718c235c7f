"""The session's verbs, as far as the planner's tests need them."""
BACKUP_STATE = {"component_mode": False, "bootable_system_state": False, "type": "full", "partial_files": False}


def session(daemon):
    made = daemon.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    path = f"/sessions/{made}"
    assert daemon.call("PUT", f"{path}/backup-state", BACKUP_STATE).status == 200
    assert daemon.job("POST", f"{path}/metadata")["state"] == "succeeded"
    assert daemon.call("POST", f"{path}/snapshot-set", {}).status == 201
    return path


def add(daemon, path, volume, **more):
    return daemon.call("POST", f"{path}/snapshot-set/volumes", {"path": str(volume), **more})
