"""Backups that go on from others, over HTTPS: what others go on from is not deleted."""
import shutil
import signal

import pytest

from receiver import until

from conduct import BACKUP_STATE, Session, Wire, Writer, configuration, fill, one_call

MAIN = [{"writer": "app", "name": "main"}]


@pytest.fixture
def node(daemon):
    fill(daemon.place, "db/main")
    writer = Writer(daemon.place, "app", FILES=f"{daemon.place}/data/db", SCHEMA="incremental,differential,log,timestamped", STAMP="session")
    return daemon(configuration(daemon.place, [writer]))


def refused(wire, backup, *dependents):
    reply = wire.call("DELETE", "/backups/" + backup)
    assert (reply.status, reply.json["hresult"], reply.json["reason"]) == (409, "VSS_E_BAD_STATE", "has_dependents"), reply
    assert set(reply.json.get("dependents", [])) == set(dependents) and all(name in reply.json["detail"] for name in (backup, *dependents)), reply
    assert wire.get("/backups/" + backup)["complete"] is True


def delete(wire, backup):
    job = wire.wait(wire.call("DELETE", "/backups/" + backup).json)
    assert job["state"] == "succeeded", job
    assert wire.call("GET", "/backups/" + backup).status == 404


def verbs(wire, node, previous=None, until="completed"):
    """A log backup of a client that keeps the stamps itself."""
    session = Session(node, wire)
    assert session.call("PUT", "/backup-state", dict(BACKUP_STATE, type="log")).status == 200
    session.done("metadata")
    session.add_all()
    assert session.call("PATCH", "/components/" + session.components["app"]["id"], {"previous_stamp": previous}).status == 200
    if until == "identified":
        return session
    session.step("set_open")
    session.done("prepare")
    session.done("snapshot")
    session.copy()
    session.succeed("app")
    session.done("complete")
    assert session.call("DELETE").status in (202, 204)
    return session.backup


def stamp(backup):
    return backup["components"][0]["backup_stamp"]


def test_a_backup_that_others_go_on_from_is_not_deleted(node):
    wire = Wire(node)
    full, other = (one_call(wire, MAIN) for _ in range(2))
    first = one_call(wire, MAIN, type="incremental")
    second = one_call(wire, MAIN, type="incremental")
    difference = one_call(wire, MAIN, type="differential")
    assert first["components"][0]["previous_backup_id"] == difference["components"][0]["previous_backup_id"] == other["id"]
    refused(wire, other["id"], first["id"], difference["id"])
    refused(wire, first["id"], second["id"])
    delete(wire, full["id"])
    delete(wire, second["id"])
    delete(wire, first["id"])
    refused(wire, other["id"], difference["id"])
    delete(wire, difference["id"])
    delete(wire, other["id"])


def test_also_one_whose_stamp_the_client_kept_and_one_that_is_only_being_made(node):
    wire = Wire(node)
    full = one_call(wire, MAIN)
    copy = one_call(wire, MAIN, type="copy")
    session = verbs(wire, node, stamp(full), until="identified")
    refused(wire, full["id"])
    assert session.id in wire.call("DELETE", "/backups/" + full["id"]).json["detail"]
    assert session.call("DELETE").status in (202, 204)
    log = verbs(wire, node, stamp(full))
    refused(wire, full["id"], log)
    delete(wire, copy["id"])
    delete(wire, log)
    delete(wire, full["id"])


def test_nothing_goes_on_by_its_stamp_from_a_backup_that_is_being_removed(node):
    wire = Wire(node)
    full = one_call(wire, MAIN)
    session = verbs(wire, node, until="identified")
    component = "/components/" + session.components["app"]["id"]
    (node.faults / "worker.remove_backup").write_text("pause")
    removal = wire.call("DELETE", "/backups/" + full["id"]).json
    until(lambda: (node.faults / "worker.remove_backup.hit").exists())
    reply = session.call("PATCH", component, {"previous_stamp": stamp(full), "backup_options": "changed"})
    assert (reply.status, reply.json["hresult"], reply.json["reason"]) == (409, "VSS_E_BAD_STATE", "no_previous_backup") and full["id"] in reply.json["detail"], reply
    now = session.call("GET", component).json
    assert (now["previous_stamp"], now["backup_options"]) == (None, None), "nothing was set"
    assert session.call("PATCH", component, {"previous_stamp": "of nobody's"}).status == 200
    (node.faults / "worker.remove_backup").unlink()
    assert wire.wait(removal)["state"] == "succeeded"


def test_a_restart_and_a_catalog_rebuilt_from_the_repository_know_it_still(node):
    wire = Wire(node)
    full = one_call(wire, MAIN)
    log = one_call(wire, MAIN, type="log")
    kept = verbs(wire, node, stamp(log))
    node.stop(signal.SIGKILL)
    node.start()
    wire = Wire(node)
    refused(wire, full["id"], log["id"])
    refused(wire, log["id"], kept)
    node.stop()
    shutil.rmtree(node.place / "state")
    node.start()
    del node.tls
    wire = Wire(node)
    assert wire.wait(wire.call("POST", "/repositories/main/scan").json)["result"]["added"] == 3
    refused(wire, full["id"], log["id"])
    refused(wire, log["id"], kept)
    delete(wire, kept)
    delete(wire, log["id"])
    delete(wire, full["id"])
