"""Stored backups and repositories over HTTPS: verify, delete, full disks, what restic is left with after a cancel."""
import json
import os
import sqlite3
import subprocess
import time

import pytest

from test_repository import BACKUP_STATE, copied, hashes, make_node, sealed, wait_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


def back_up(node, **more):
    return node.job("POST", "/backups", dict({"paths": [str(node.place / "files")], "repository": "main"}, **more))


def restic(node, *arguments):
    done = subprocess.run(["restic", "--no-cache", "-r", node.place / "repository", "-p", node.place / "password", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def test_verify_finds_damage_and_delete_removes(daemon):
    node = make_node(daemon, "archive")
    backup = back_up(node)["result"]["backup_id"]
    verified = node.job("POST", f"/backups/{backup}/verify")
    assert verified["state"] == "succeeded" and verified["result"]["damaged"] == [] and verified["result"]["files"] == 12, verified
    data = node.place / "repository" / backup / "data.tar.zst"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    verified = node.job("POST", f"/backups/{backup}/verify")
    assert (verified["state"], verified["hresult"]) == ("failed", "ERROR_FILE_CORRUPT") and verified["result"]["damaged"], verified
    restored = node.job("POST", f"/backups/{backup}/restore", {"target": str(node.place / "restored"), "paths": [], "overwrite": False})
    assert restored["state"] == "failed" and list((node.place / "restored").iterdir()) == [], restored
    assert node.job("DELETE", f"/backups/{backup}")["state"] == "succeeded"
    assert node.call("GET", f"/backups/{backup}").status == 404 and not data.exists()
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/verify")):
        assert node.call(method, f"/backups/{backup}{path}").json["hresult"] == "VSS_E_OBJECT_NOT_FOUND"


def test_a_restore_session_of_plain_paths(daemon):
    node = make_node(daemon, "archive")
    backup = back_up(node)["result"]["backup_id"]
    session = node.call("POST", "/sessions", {"kind": "restore", "backup_id": backup})
    assert session.status == 201, session
    document = node.call("GET", f"/sessions/{session.json['id']}/document").json
    assert document["components"] == [] and document["kind"] == "backup-components-document"


def test_a_damaged_document_of_the_catalog_is_no_fault_of_the_caller(daemon):
    node = make_node(daemon, "archive")
    backup = back_up(node)["result"]["backup_id"]
    document = node.call("GET", "/sessions/" + node.call("POST", "/sessions", {"kind": "restore", "backup_id": backup}).json["id"] + "/document").json
    node.stop()
    with sqlite3.connect(next((node.place / "state" / "store").glob("*.db"))) as store:
        assert store.execute("UPDATE backups SET rest = json_set(rest, '$._.document', json('{}')) WHERE id = ?", [backup]).rowcount == 1
    node.start()
    refused = node.call("POST", "/sessions", {"kind": "restore", "backup_id": backup})
    assert (refused.status, refused.json["hresult"]) == (422, "VSS_E_CORRUPT_XML_DOCUMENT") and backup in refused.json["detail"] and refused.json["hint"], refused
    assert node.call("POST", "/sessions", {"kind": "restore", "document": {}}).json["hresult"] == "VSS_E_INVALID_XML_DOCUMENT"
    assert node.call("POST", "/sessions", {"kind": "restore", "document": document}).status == 201


def test_repositories_are_made_changed_and_forgotten(daemon):
    node = make_node(daemon, "archive")
    body = {"name": "second", "mover": "archive", "path": str(node.place / "second")}
    made = node.call("POST", "/repositories", body)
    assert made.status == 201 and made.headers["location"] == "/repositories/second", made
    assert node.call("POST", "/repositories", body).json["hresult"] == "VSS_E_OBJECT_ALREADY_EXISTS"
    assert (node.place / "second" / "quiesced-repository.json").exists()
    assert {r["name"] for r in node.call("GET", "/repositories").json["items"]} == {"main", "second"}
    etag = node.call("GET", "/repositories/second").headers.get("etag")
    moved = node.call("PUT", "/repositories/second", {"mover": "archive", "path": str(node.place / "third")}, headers=[f"If-Match: {etag}"] if etag else ())
    assert moved.status == 200 and moved.json["path"].endswith("third"), moved
    backup = back_up(node, repository="second")["result"]["backup_id"]
    assert (node.place / "third" / backup / "complete.json").exists()
    for method, more in (("PUT", {"mover": "archive", "path": str(node.place / "x")}), ("DELETE", None)):
        etag = node.call("GET", "/repositories/main").headers.get("etag")
        refused = node.call(method, "/repositories/main", more, headers=[f"If-Match: {etag}"] if etag else ())
        assert (refused.status, refused.json["hresult"], refused.json["reason"]) == (409, "VSS_E_BAD_STATE", "configured") and "configuration" in refused.json["detail"], refused
    etag = node.call("GET", "/repositories/second").headers.get("etag")
    assert node.call("DELETE", "/repositories/second", headers=[f"If-Match: {etag}"] if etag else ()).status == 204
    assert node.call("GET", "/repositories/second").status == 404
    assert node.call("POST", f"/backups/{backup}/verify").json["hresult"] == "VSS_E_OBJECT_NOT_FOUND", "its repository is not known"
    assert (node.place / "third" / backup / "complete.json").exists(), "forgetting removes no data"
    for path, status in ((node.place / "files" / "file-3", 400), (node.place / "no" / "such" / "folder", 404)):
        refused = node.call("POST", "/repositories", {"name": "bad", "mover": "archive", "path": str(path)})
        assert refused.status == status and str(path) in refused.json["detail"], refused
    (node.place / "damaged").mkdir()
    (node.place / "damaged" / "quiesced-repository.json").write_text("{")
    refused = node.call("POST", "/repositories", {"name": "bad", "mover": "archive", "path": str(node.place / "damaged")})
    assert refused.status == 400 and "damaged" in refused.json["detail"], refused


def test_what_restic_cannot_open_is_a_wrong_argument(daemon):
    node = daemon()
    (node.place / "password").write_text("correct horse")
    asked = {"mover": "restic", "path": str(node.place / "repo"), "password_file": str(node.place / "password")}
    assert node.call("POST", "/repositories", {"name": "good", **asked}).status == 201
    assert node.call("DELETE", "/repositories/good", headers=["If-Match: *"]).status == 204  # forgotten; the place is free, and what lies there stays
    (node.place / "wrong").write_text("battery staple")
    for wrong, said in (({"password_file": str(node.place / "wrong")}, (403, "E_ACCESSDENIED")), ({"password_file": str(node.place / "none")}, (400, "E_INVALIDARG")),
                        ({"path": str(node.place / "wrong")}, (400, "E_INVALIDARG"))):
        refused = node.call("POST", "/repositories", {"name": "bad", **asked, **wrong})
        assert (refused.status, refused.json["hresult"]) == said and "repository bad" in refused.json["detail"], refused
    assert node.call("GET", "/repositories").json["items"] == []
    assert node.call("GET", "/errors").json["items"] == [], "nothing of it was unexpected"


@needs_root
def test_a_full_repository_fails_the_copy_and_the_session_goes_on(daemon):
    small = daemon.place / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "quiesced-test", small], check=True)
    try:
        node = make_node(daemon, "archive")
        assert node.call("POST", "/repositories", {"name": "small", "mover": "archive", "path": str(small / "r")}).status == 201
        (node.place / "files" / "large").write_bytes(os.urandom(6 << 20))
        s, kept = copied(node)
        job = node.job("POST", s + "/copy", {"repository": "small"})
        assert (job["state"], job["hresult"]) == ("failed", "VSS_E_INSUFFICIENT_STORAGE"), json.dumps(job)
        assert "bytes are free" in json.dumps(job["error"]), job
        assert node.call("GET", s).json["state"] == "snapshotted"
        assert node.job("POST", s + "/complete")["state"] == "succeeded"
        assert node.call("GET", f"/backups/{kept}").json["complete"] is True
        failed = back_up(node, repository="small")
        assert (failed["state"], failed["hresult"]) == ("failed", "VSS_E_INSUFFICIENT_STORAGE"), failed
        assert node.call("GET", f"/sessions/{failed['session_id']}").json["state"] == "aborted"
        assert [p.name for p in (small / "r").iterdir()] == ["quiesced-repository.json"], "nothing of it is left"
        assert {i["id"] for i in node.call("GET", "/backups").json["items"]} == {kept}
        node.stop()
    finally:
        subprocess.run(["umount", small], check=True)


def test_restic_is_sound_after_a_cancel_and_reads_nothing_twice(daemon):
    node = make_node(daemon, "restic")
    for i in range(6):
        (node.place / "files" / f"large-{i}").write_bytes(os.urandom(32 << 20))
    s, _ = copied(node)
    job = node.call("POST", s + "/copy", {"repository": "main"}).json["id"]
    again = node.wait(job)["result"]
    assert again["files_unmodified"] == again["files"] == 18, again
    (node.place / "files" / "other").write_bytes(os.urandom(96 << 20))
    s, _ = copied(node)
    (node.place / "files" / "third").write_bytes(os.urandom(128 << 20))
    job = node.call("POST", "/backups", {"paths": [str(node.place / "files")], "repository": "main"}).json["id"]
    wait_for(lambda: (node.call("GET", f"/jobs/{job}").json["progress"] or {}).get("phase") == "copy")
    assert node.call("DELETE", f"/jobs/{job}").status == 202
    assert node.wait(job)["state"] == "cancelled"
    assert "no errors were found" in restic(node, "check") and restic(node, "list", "locks").strip() == ""


def test_retention_is_the_configured_one(daemon):
    node = make_node(daemon, "archive", "retention: {days: 2, jobs: 50}\n")
    job = back_up(node)
    stamp = "%Y-%m-%dT%H:%M:%S"
    lives = time.mktime(time.strptime(job["expires_at"][:19], stamp)) - time.mktime(time.strptime(job["finished_at"][:19], stamp))
    assert lives == 2 * 86400, job


@pytest.mark.parametrize("how,state,word", [("once fail", "failed", "some of"), ("once crash", "failed", "some of"), ("pause", "cancelled", "everything")])
def test_a_restore_that_ends_while_files_move_says_what_is_at_its_place(daemon, how, state, word):
    node = make_node(daemon, "archive")
    backup = back_up(node)["result"]["backup_id"]
    target = node.place / "restored"
    place = target / str(node.place / "files")[1:]
    place.mkdir(parents=True)  # so that file by file is moved, and not one folder
    (node.faults / "mover.publish").write_text(how)
    job = node.call("POST", f"/backups/{backup}/restore", {"target": str(target), "paths": [], "overwrite": True}).json["id"]
    if how == "pause":
        wait_for(lambda: (node.faults / "mover.publish.hit").exists())
        assert node.call("DELETE", f"/jobs/{job}").status == 202
        (node.faults / "mover.publish").unlink()
    ended = node.wait(job)
    left = ended["result"]["cleanup"]["left_behind"]
    assert ended["state"] == state and [x["object"] for x in left] == [str(target)] and left[0]["reason"].startswith(word), ended
    there = hashes(place)
    assert there.items() <= hashes(node.place / "files").items() and len(there) == (12 if word == "everything" else 1), "each is whole"
    again = node.job("POST", f"/backups/{backup}/restore", {"target": str(target), "paths": [], "overwrite": True})
    assert again["state"] == "succeeded" and "cleanup" not in again["result"] and hashes(place) == hashes(node.place / "files"), again
    assert not list(target.glob(".quiesced-restore-*")), "and the stage of the killed one is gone"


def snapshot_by_copy(node):
    """The job of DoSnapshotSet in a session of the one volume, with the copy provider."""
    s = "/sessions/" + node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    assert node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
    assert node.job("POST", s + "/metadata")["state"] == "succeeded"
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    assert node.call("POST", s + "/snapshot-set/volumes", {"path": str(node.place / "files"), "provider": "copy"}).status == 201
    assert node.job("POST", s + "/prepare")["state"] == "succeeded"
    return s, node.job("POST", s + "/snapshot")


@needs_root
def test_a_full_staging_directory_fails_the_snapshot_and_leaves_nothing(daemon):
    image, staging = daemon.place / "staging.img", daemon.place / "staging"
    staging.mkdir()
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, staging], check=True)
    node = None
    try:
        node = make_node(daemon, "archive", f"providers: {{copy: {{staging: {staging}}}}}")
        large = node.place / "files" / "large"
        large.write_bytes(os.urandom(24 << 20))
        s, failed = snapshot_by_copy(node)
        assert (failed["state"], failed["hresult"]) == ("failed", "VSS_E_INSUFFICIENT_STORAGE"), failed
        assert "No space left" in failed["error"]["detail"] and str(staging) in failed["error"]["hint"], failed["error"]
        assert node.call("GET", s).json["state"] == "snapshot_failed" and node.call("GET", "/snapshots").json["items"] == []
        assert not [p for p in staging.rglob("*") if p.is_file()], "nothing of the copy stays"
        assert node.call("DELETE", s).status in (202, 204)
        large.unlink()
        s, made = snapshot_by_copy(node)
        assert made["state"] == "succeeded" and node.call("DELETE", s).status in (202, 204), made
    finally:
        if node:
            node.stop()
        subprocess.run(["umount", staging], check=True)


def test_what_an_administrator_mistypes_is_told_with_the_way_out(daemon):
    node = make_node(daemon, "archive")
    backup = back_up(node)["result"]["backup_id"]
    missing = back_up(node, paths=["/nonexistent"])["error"]
    assert missing["detail"].endswith("/nonexistent: No such file or directory") and "exists on the host" in missing["hint"], missing
    outside = node.call("POST", f"/backups/{backup}/restore", {"target": "/etc", "paths": []}).json
    assert outside["errors"][0]["pointer"] == "/target" and f"beneath {node.place}/restored" in outside["hint"], outside
    nothing = node.job("POST", f"/backups/{backup}/restore", {"target": f"{node.place}/restored", "paths": ["/nowhere"]})["error"]
    assert "nothing at /nowhere" in nothing["detail"] and "absolute paths" in nothing["hint"], nothing
    twice = node.call("POST", "/repositories", {"name": "main", "mover": "archive", "path": str(node.place / "other")})
    assert twice.status == 409 and twice.json["hint"], twice
    assert node.call("PUT", "/backups", check=False).json["title"] == "There is no such call here."


def test_no_repository_is_made_where_another_lies_or_where_restores_write(daemon):
    node = make_node(daemon, "archive")
    place = node.place
    assert node.call("POST", "/repositories", {"name": "second", "mover": "archive", "path": f"{place}/second"}).status == 201
    for path in ("repository", "repository/inner", "second", "second/inner"):
        refused = node.call("POST", "/repositories", {"name": "third", "mover": "archive", "path": f"{place}/{path}"}, check=False)
        whose = "main" if path.startswith("repository") else "second"
        assert refused.status == 400 and refused.json["hresult"] == "E_INVALIDARG" and refused.json["errors"][0]["pointer"] == "/path", refused
        assert f"the path of repository {whose}," in refused.json["detail"] and refused.json["hint"], refused
        assert node.call("PUT", "/repositories/third", {"mover": "archive", "path": f"{place}/{path}"}, check=False).status == 400
    around = node.call("POST", "/repositories", {"name": "third", "mover": "archive", "path": f"{place}"}, check=False)
    assert around.status == 400 and around.json["errors"][0]["pointer"] == "/path", around
    (place / "restored" / "inner").mkdir()
    within = node.call("POST", "/repositories", {"name": "third", "mover": "archive", "path": f"{place}/restored"}, check=False)
    assert within.status == 400 and "restore.roots" in within.json["detail"], within
    url = node.call("POST", "/repositories", {"name": "third", "mover": "restic", "url": f"{place}/second", "password_file": f"{place}/password"}, check=False)
    assert url.status == 400 and url.json["errors"][0]["pointer"] == "/url", url
    assert {row["name"] for row in node.call("GET", "/repositories").json["items"]} == {"main", "second"}
    assert not (place / "repository" / "inner").exists() and not (place / "second" / "inner").exists()
    etag = node.call("GET", "/repositories/second").headers.get("etag")  # itself is no other one
    assert node.call("PUT", "/repositories/second", {"mover": "archive", "path": f"{place}/second"}, headers=[f"If-Match: {etag}"] if etag else ()).status == 200


def test_a_repository_of_the_api_beneath_a_source_is_refused_as_one_of_the_file_is(daemon):
    node = make_node(daemon, "archive")
    inside = node.place / "files" / "kept"
    assert node.call("POST", "/repositories", {"name": "inside", "mover": "archive", "path": str(inside)}).status == 201
    for repository in ("main", "inside"):
        job = node.job("POST", "/backups", {"paths": [str(node.place / "files")], "repository": repository})
        assert job["state"] == "failed" and job["error"]["reason"] == "repository-beneath-source" and str(inside) in job["error"]["detail"], job
    good = node.job("POST", "/backups", {"paths": [str(node.place / "files")], "excludes": [str(inside)], "repository": "main"})
    assert good["state"] == "succeeded", good
