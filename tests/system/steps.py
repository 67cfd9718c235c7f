"""The two ways to take a backup over HTTPS, and how to restore one. Every call is curl's."""
import datetime

BACKUP_STATE = {"component_mode": True, "bootable_system_state": False, "type": "full", "partial_files": False}


def succeeded(job):
    assert job["state"] == "succeeded", job
    return job


def session_backup(node, components, volumes, before_freeze):
    """Verb by verb. components: [(writer, name)]; volumes: [(path, provider or None)]. Returns the backup's id."""
    session = node.call("POST", "/sessions", {"kind": "backup", "label": "verb by verb"})
    assert session.status == 201, session
    s = "/sessions/" + session.json["id"]
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    assert succeeded(node.job("POST", s + "/metadata"))["result"]["missing"] == []
    writers = {writer["name"]: writer for writer in node.call("GET", s + "/writers").json["items"]}
    chosen = []
    for writer, name in components:
        reply = node.call("POST", s + "/components", {"instance_id": writers[writer]["instance_id"], "logical_path": "", "name": name})
        assert reply.status == 201, reply
        chosen.append(reply.json["id"])
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    for path, provider in volumes:
        reply = node.call("POST", s + "/snapshot-set/volumes", {"path": str(path), "provider": provider})
        assert reply.status == 201, reply
    succeeded(node.job("POST", s + "/prepare"))
    before_freeze()
    taken = succeeded(node.job("POST", s + "/snapshot"))["result"]
    document = node.call("GET", s + "/document").json
    assert [part["grade"] for part in document["components"]] == [part["grade"] for part in taken["consistency"]["components"]]
    assert all(part["freeze"]["window_ms"] > 0 for part in document["components"])
    assert document["freeze"] == taken["freeze"] and document["consistency"]["paths"] == taken["consistency"]["paths"]
    backup = succeeded(node.job("POST", s + "/copy", {"repository": "main"}))["result"]["backup_id"]
    for component in chosen:
        assert node.call("PATCH", f"{s}/components/{component}", {"succeeded": True}).status == 200
    done = succeeded(node.job("POST", s + "/complete"))
    assert done["hresult"] == "VSS_S_ASYNC_FINISHED"
    assert {status["state"] for status in node.call("GET", s + "/writer-status").json["items"]} == {"VSS_WS_STABLE"}
    assert node.call("DELETE", s).status == 204
    return backup


def one_call_backup(node, components, paths, before_freeze):
    """POST /backups. Returns the backup's id."""
    before_freeze()
    job = node.job("POST", "/backups", {"components": [{"writer": writer, "name": name} for writer, name in components],
                                        "paths": [str(path) for path in paths], "repository": "main", "type": "full", "label": "one call"})
    return succeeded(job)["result"]["backup_id"]


def backup_of(node, backup):
    reply = node.call("GET", f"/backups/{backup}")
    assert reply.status == 200 and reply.json["complete"] is True, reply
    return reply.json


def restore(node, backup, target):
    """Into a directory of its own; returns the place that stands for the root."""
    target.mkdir()
    job = succeeded(node.job("POST", f"/backups/{backup}/restore", {"target": str(target), "paths": [], "overwrite": False}))
    assert job["result"]["files"] > 0, job
    return target


def moment(text):
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


def restore_session(node, backup, writer, stopped=lambda: None, targets=(), **members):
    """Its component back by its writer: verb by verb, each job succeeded. stopped: called between PreRestore and the files.
    targets: where its file sets go instead, in their order. members: of the component, more than `selected`. Returns the session as it was completed."""
    made = node.call("POST", "/sessions", {"kind": "restore", "backup_id": backup, "label": "in place"})
    assert made.status == 201, made
    s = "/sessions/" + made.json["id"]
    assert succeeded(node.job("POST", s + "/metadata"))["result"]["missing"] == []
    component, = [part for part in node.call("GET", s + "/components").json["items"] if part["writer"] == writer]
    c = f"{s}/components/{component['id']}"
    assert node.call("PATCH", c, {"selected": True, **members}).status == 200
    if targets:
        there, = [entry for entry in node.call("GET", s + "/writers").json["items"] if entry["name"] == writer]
        for files, target in zip(there["components"][0]["file_sets"], targets, strict=True):
            reply = node.call("POST", c + "/new-targets", {"path": files["path"], "spec": files["spec"], "recursive": files["recursive"], "new_path": str(target)})
            assert reply.status == 201, reply
    succeeded(node.job("POST", s + "/pre-restore"))
    stopped()
    assert succeeded(node.job("POST", s + "/restore-files", {}))["result"]["verified"] is True
    assert node.call("GET", c).json["file_restore_status"] == "all"
    succeeded(node.job("POST", s + "/post-restore"))
    assert {status["state"] for status in node.call("GET", s + "/writer-status").json["items"]} == {"VSS_WS_STABLE"}
    session = node.call("GET", s).json
    assert session["state"] == "completed"
    assert node.call("DELETE", s).status in (202, 204)
    return session
