"""GET /backups/{id}/files over HTTPS: what a backup holds, page by page, who may look, how many at once, and what is told when it cannot be looked at."""
import hashlib
import os
import shutil

import pytest

import leftovers
from conduct import Wire
from ctl import NOT_THERE, USAGE, Ctl
from daemon import Daemon
from test_repository import make_node

PRINCIPALS = {"viktor": "viewer", "otto": "operator", "rosa": "restorer"}
TOKEN = {name: "qsd1_" + hashlib.sha256(name.encode()).hexdigest()[:43] for name in PRINCIPALS}
MORE = "principals:\n" + "".join(f"  - {{name: {name}, role: {role}, token_sha256: {hashlib.sha256(TOKEN[name].encode()).hexdigest()}}}\n" for name, role in PRINCIPALS.items())


@pytest.fixture(params=("archive", "restic", "borg"))
def node(daemon, request):
    one = make_node(daemon, request.param, MORE)
    os.symlink("file-1", one.place / "files" / "link")
    (one.place / "files" / "sub").mkdir()
    (one.place / "files" / "sub" / "deep").write_text("deep")
    one.files = str(one.place / "files")
    job = one.job("POST", "/backups", {"paths": [one.files], "repository": "main"})
    assert job["state"] == "succeeded", job
    one.backup = job["result"]["backup_id"]
    one.at = f"/backups/{one.backup}/files"
    return one


def test_what_a_backup_holds_and_who_may_look(node, tmp_path):
    names, cursor, first = [], "", None
    while cursor is not None:
        page = node.call("GET", f"{node.at}?path={node.files}&limit=5" + (f"&cursor={cursor}" if cursor else ""))
        assert page.status == 200, page
        names += [(item["name"], item["type"]) for item in page.json["items"]]
        cursor, first = page.json["next_cursor"], first or page.json["next_cursor"]
    assert names == sorted([(f"file-{i}", "file") for i in range(12)] + [("link", "symlink"), ("sub", "directory")])
    assert [item["name"] for item in node.call("GET", node.at).json["items"]] == [node.files.split("/")[1]]
    elsewhere = node.call("GET", f"{node.at}?path={node.files}/sub&cursor={first}")
    assert elsewhere.status == 400 and elsewhere.json["errors"][0]["pointer"] == "?cursor", elsewhere
    for path, status in ((f"{node.files}/missing", 404), (f"{node.files}/file-1", 404), ("relative", 400), (f"{node.files}/..", 400), ("", 400)):
        told = node.call("GET", f"{node.at}?path={path}")
        assert told.status == status and (status != 404 or path in told.json["detail"]), (path, told)
    assert node.call("GET", "/backups/0198a6a1-3333-7000-8000-000000000000/files").status == 404
    by_whom = {name: Daemon.call(node, "GET", node.at, token=TOKEN[name]).status for name in PRINCIPALS}
    assert by_whom == {"viktor": 403, "otto": 404, "rosa": 200}, "an operator does not know of others' backups"
    ctl = Ctl(node, tmp_path)
    shown = ctl.run("backup", "files", node.backup, node.files).stdout
    assert len(shown.splitlines()) == 15 and "file-11" in shown and "symlink" in shown, shown
    assert [entry["name"] for entry in ctl.json("backup", "files", node.backup, f"{node.files}/sub")] == ["deep"]
    ctl.run("backup", "files", node.backup, f"{node.files}/missing", code=NOT_THERE)
    ctl.run("backup", "files", code=USAGE)
    ctl.run("backup", "files", node.backup, "/", "more", code=USAGE)


@pytest.mark.parametrize("node", ("archive",), indirect=True)
def test_those_who_look_into_backups_at_once_are_bounded(node):
    """Each is a worker and a mover."""
    (node.faults / "worker.list_backup_files").write_text("pause")
    wires = [Wire(node) for _ in range(8)]
    for wire in wires:
        wire.ask("GET", node.at)
    assert not leftovers.settle(lambda: len(leftovers.hits(node, "worker.list_backup_files")) < 8)
    refused = node.call("GET", node.at)
    assert (refused.status, refused.json["hresult"]) == (503, "E_OUTOFMEMORY") and int(refused.headers["retry-after"]) > 0, refused
    leftovers.forget(node, "worker.list_backup_files")
    assert [wire.hear().status for wire in wires] == [200] * 8
    assert node.call("GET", node.at).status == 200
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("node", ("archive",), indirect=True)
def test_a_repository_that_does_not_answer_is_given_up(node):
    """Its mover is told to stop, and killed when it does not: the caller has an answer, and the place is free again."""
    (node.faults / "mover.start").write_text("pause")
    (node.faults / "worker.mover.late").write_text("fail")
    given_up = node.call("GET", node.at)
    assert given_up.status == 500 and "no answer within 120 s" in given_up.json["detail"] and "within reach" in given_up.json["hint"], given_up
    for point in ("mover.start", "worker.mover.late"):
        leftovers.forget(node, point)
    assert not leftovers.settle(lambda: [entry for entry in leftovers.processes(node) if "--role=mover" in entry[1]])
    assert node.call("GET", node.at).status == 200


def test_what_cannot_be_looked_at_is_told(node):
    (node.faults / "worker.list_backup_files").write_text("fail")
    failed = node.call("GET", node.at)
    assert failed.status == 500 and failed.json["hresult"] == "VSS_E_UNEXPECTED", failed
    leftovers.forget(node, "worker.list_backup_files")
    assert node.call("GET", node.at).status == 200
    repository = node.place / "repository"
    if node.mover == "archive":
        manifest = next(repository.glob("*/manifest.jsonl"))
        manifest.write_bytes(manifest.read_bytes()[:-10])
        damaged = node.call("GET", node.at)
        assert (damaged.status, damaged.json["hresult"]) == (422, "ERROR_FILE_CORRUPT") and "manifest.jsonl" in damaged.json["detail"], damaged
    shutil.move(repository, node.place / "away")
    away = node.call("GET", node.at)
    assert (away.status, away.json["hresult"]) == (404, "VSS_E_OBJECT_NOT_FOUND") and "repository main" in away.json["detail"] and away.json["hint"], away
