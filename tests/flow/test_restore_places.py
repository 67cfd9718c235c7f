"""Where RestoreFiles brings files: new targets, the writer's word, alternate locations, other file systems; and what it says when it cannot."""
import json
import os
import subprocess
import time

import pytest

from conduct import Writer, configuration, one_call
from restoring import Ground, Restore, back_up, component, fill, tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.mark.parametrize("mover", ["archive", pytest.param("restic", marks=pytest.mark.full)])
def test_new_targets_and_in_place_in_one_restore(daemon, mover):
    """`main` goes elsewhere, `side` to its place; each equals what was backed up, and the writers know where."""
    ground = Ground(daemon, mover=mover)
    session, elsewhere = ground.session(), ground.place / "restored" / "deep" / "new"
    target = {"path": str(ground.main), "spec": "*", "recursive": True, "new_path": str(elsewhere)}
    assert session.add("main", "new-targets", target)["new_targets"] == [target]
    assert session.add("main", "new-targets", target, 409)["hresult"] == "VSS_E_OBJECT_ALREADY_EXISTS"
    session.identify().select("main", "side")
    (ground.main / "table-0").write_text("newer, and to stay")
    (ground.side / "table-0").write_text("newer, and to go")
    changed = tree(ground.main)
    session.done("pre-restore")
    result = session.done("restore-files")["result"]
    assert sorted(result["targets"]) == sorted([str(elsewhere), str(ground.side)]) and result["files"] == 12, result
    assert tree(elsewhere) == ground.before["main"] and tree(ground.side) == ground.before["side"] and tree(ground.main) == changed
    session.done("post-restore")
    assert {c["name"]: c.get("new_targets") for c in ground.writer.heard(session, "pre_restore")[0]["components"]}["main"] == [target]


@pytest.mark.parametrize("mover", ["archive", "restic"])
def test_file_sets_bring_back_what_they_name_and_no_more(daemon, mover):
    """A pattern, a flat folder, a folder within another's; what lies beside them stays as it is. A component that has no files there is whole."""
    place = daemon.place
    data = place / "data"
    sets = [{"path": f"{data}/flat", "spec": "*.db", "recursive": False}, {"path": f"{data}/flat", "spec": "*.db-journal", "recursive": False},
            {"path": f"{data}/deep", "spec": "*.log", "recursive": True}]
    offered = [component("named", data, file_sets=sets), component("empty", data, file_sets=[{"path": f"{data}/none", "spec": "*.x", "recursive": True}])]
    text = configuration(place, [Writer(place, "app", COMPONENTS=json.dumps(offered))]).replace(f"roots: [{place}/restored]", f"roots: [{data}]")
    if mover == "restic":
        (place / "password").write_text("correct horse")
        text = text.replace(f"mover: archive, path: {place}/backups", f'mover: restic, url: "{place}/backups/r", password_file: {place}/password')
    for name in ("flat/a.db", "flat/b.db", "flat/other", "flat/below/c.db", "deep/x/1.log", "deep/x/1.txt", "none/y"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("old " + name)
    node = daemon(text)
    backup = back_up(node, [{"writer": "app", "name": "named"}, {"writer": "app", "name": "empty"}])
    for path in data.rglob("*"):
        if path.is_file():
            path.write_text("new")
    (data / "flat" / "a.db").unlink()
    session = Restore(node, backup_id=backup).identify().select("named", "empty")
    session.done("pre-restore")
    assert session.done("restore-files")["result"]["files"] == 3
    found = {str(path.relative_to(data)): path.read_text() for path in data.rglob("*") if path.is_file() and path.name != "file"}
    back = {name: "old " + name for name in ("flat/a.db", "flat/b.db", "deep/x/1.log")}
    assert found == {name: "new" for name in ("flat/other", "flat/below/c.db", "deep/x/1.txt", "none/y")} | back
    assert {c["name"]: c["file_restore_status"] for c in session.wire.get(session.path + "/components")["items"]} == {"named": "all", "empty": "all"}


def test_files_that_the_writer_added_come_with_their_component(daemon):
    """They lie beneath its file sets, and need not be named by one: to their place, or below the set's new target."""
    place = daemon.place
    main, added = place / "data" / "main", {f"{place}/data/main/deep/er/label": "added", f"{place}/data/main/table-9.log": "added, too"}
    (main / "deep" / "er").mkdir(parents=True)
    (main / "rows.db").write_text("rows")
    offered = [component("main", main, file_sets=[{"path": str(main), "spec": "*.db", "recursive": False}])]
    node = daemon(configuration(place, [Writer(place, "app", COMPONENTS=json.dumps(offered), ADD=json.dumps(added), SCHEMA="new_target")])
                  .replace(f"restore: {{roots: [{place}/restored]", f"restore: {{roots: [{place}/data, {place}/restored]"))
    backup = back_up(node, [{"writer": "app", "name": "main"}])
    assert not (main / "deep" / "er" / "label").exists()
    session = Restore(node, backup_id=backup).identify().select("main")
    session.done("pre-restore")
    assert session.done("restore-files")["result"]["files"] == 3
    assert (main / "deep" / "er" / "label").read_text() == "added" and (main / "table-9.log").read_text() == "added, too"
    moved = Restore(node, backup_id=backup).identify().select("main")
    moved.add("main", "new-targets", {"path": str(main), "spec": "*.db", "recursive": False, "new_path": f"{place}/restored/new"})
    moved.done("pre-restore")
    moved.done("restore-files")
    found = {str(path.relative_to(place / "restored")): path.read_text() for path in (place / "restored").rglob("*") if path.is_file()}
    assert found == {"new/rows.db": "rows", "new/deep/er/label": "added", "new/table-9.log": "added, too"}


def test_the_writer_directs_single_files(daemon):
    """restore_target directed: only what is directed comes, under the name that it is given; new targets do not count."""
    place = daemon.place
    directed = [{"path": f"{place}/data/main/table-1", "new_path": f"{place}/restored/one"},
                {"path": f"{place}/data/main/deep/er/index", "new_path": f"{place}/data/main/deep/er/index"}]
    ground = Ground(daemon, SAY_PRE_RESTORE=json.dumps({"restore_target": "directed", "directed_targets": directed}))
    expected = (ground.main / "table-1").read_bytes()
    session = ground.session("main")
    session.add("main", "new-targets", {"path": str(ground.main), "new_path": f"{place}/restored/unused"})
    (ground.main / "deep" / "er" / "index").unlink()
    (ground.main / "table-2").write_text("newer")
    session.done("pre-restore")
    assert session.component("main")["restore_target"] == "directed" and session.component("main")["directed_targets"] == directed
    session.done("restore-files")
    assert (place / "restored" / "one").read_bytes() == expected and (ground.main / "deep" / "er" / "index").read_text() == "index main"
    assert (ground.main / "table-2").read_text() == "newer" and sorted(p.name for p in (place / "restored").iterdir()) == ["one"]
    session.done("post-restore")
    assert ground.writer.heard(session, "post_restore")[0]["components"][0]["file_restore_status"] == "all"


def test_a_directed_file_that_the_backup_does_not_hold(daemon):
    place = daemon.place
    directed = [{"path": f"{place}/data/main/nowhere", "new_path": f"{place}/restored/one"}]
    ground = Ground(daemon, SAY_PRE_RESTORE=json.dumps({"restore_target": "directed", "directed_targets": directed}))
    session = ground.session("main")
    session.done("pre-restore")
    job = session.job("restore-files")
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_OBJECT_NOT_FOUND") and "holds no file" in job["error"]["detail"], job
    assert session.component("main")["file_restore_status"] == "none"


def test_a_writer_that_directs_no_file_of_its_component_is_in_error(daemon):
    """No status "all" without a file; the session stays as it is."""
    ground = Ground(daemon, SAY_PRE_RESTORE=json.dumps({"restore_target": "directed", "directed_targets": []}))
    session = ground.session("main")
    session.done("pre-restore")
    refused = session.call("POST", "/restore-files", {})
    assert (refused.status, refused.json["hresult"]) == (502, "VSS_E_UNEXPECTED_WRITER_ERROR") and "named none" in refused.json["detail"], refused
    assert session.view()["state"] == "pre_restored" and session.component("main")["file_restore_status"] is None


@pytest.mark.parametrize("method, target, where", [
    ("custom", "alternate", "alternate"), ("restore_to_alternate_location", "original", "alternate"),
    ("restore_to_alternate_location", "original_location", "place")])
def test_alternate_locations(daemon, method, target, where):
    """The writer's mapping is used when it says so in PreRestore or by its restore method, and PostRestore tells which ones were."""
    place = daemon.place
    mapping = {"path": f"{place}/data/main", "spec": "*", "recursive": True, "alternate_path": f"{place}/restored/alternate"}
    ground = Ground(daemon, RESTORE_METHOD=method, ALTERNATE=json.dumps([mapping]), SAY_PRE_RESTORE=json.dumps({"restore_target": target}))
    session = ground.session("main")
    (ground.main / "table-0").write_text("newer")
    changed = tree(ground.main)
    session.done("pre-restore")
    session.done("restore-files")
    session.done("post-restore")
    alternate = place / "restored" / "alternate"
    assert tree(alternate if where == "alternate" else ground.main) == ground.before["main"]
    assert alternate.exists() == (where == "alternate") and (where == "place" or tree(ground.main) == changed)
    told = ground.writer.heard(session, "post_restore")[0]["components"][0].get("alternate_location_mappings")
    assert told == ([mapping] if where == "alternate" else []), told


def test_an_alternate_location_that_the_writer_did_not_name_is_its_error(daemon):
    ground = Ground(daemon, SAY_PRE_RESTORE=json.dumps({"restore_target": "alternate"}))
    session = ground.session("main")
    session.done("pre-restore")
    refused = session.call("POST", "/restore-files", {})
    assert (refused.status, refused.json["hresult"]) == (502, "VSS_E_UNEXPECTED_WRITER_ERROR") and "names none" in refused.json["detail"], refused
    assert session.view()["pending_job"] is None and session.component("main")["file_restore_status"] is None
    deadline = time.monotonic() + 60  # its row is written behind the answer
    while not (rows := session.wire.get("/errors?session=" + session.id)["items"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [row["hresult"] for row in rows] == ["VSS_E_UNEXPECTED_WRITER_ERROR"]


def test_what_is_there_is_kept_by_restore_if_not_there(daemon):
    ground = Ground(daemon, RESTORE_METHOD="restore_if_not_there")
    before = tree(ground.main)
    session = ground.session("main")
    session.done("pre-restore")
    job = session.job("restore-files")
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_OBJECT_ALREADY_EXISTS") and tree(ground.main) == before, job
    assert session.component("main")["file_restore_status"] == "none"
    ground.destroy()
    session.done("restore-files")
    assert tree(ground.main) == ground.before["main"] and session.component("main")["file_restore_status"] == "all"


def test_only_beneath_the_restore_roots(daemon):
    """Neither the document's own places, nor new targets, nor the writer's word, nor a symbolic link lead out of the roots."""
    place = daemon.place
    ground = Ground(daemon, SAY_PRE_RESTORE=json.dumps({"restore_target": "original"}))
    session = ground.session("main")
    refused = session.add("main", "new-targets", {"path": str(ground.main), "new_path": f"{place}/outside"}, 400)
    assert refused["errors"][0]["pointer"] == "/new_path" and "restore root" in refused["detail"], refused
    document = session.call("GET", "/document").json
    document["writers"][0]["components"][0]["file_sets"][0]["path"] = f"{place}/outside"
    forged = Restore(ground.node, ground.wire, document=document).identify().select("main")
    refused = forged.call("POST", "/pre-restore")
    assert (refused.status, refused.json["hresult"]) == (403, "E_ACCESSDENIED") and not (place / "outside").exists(), refused
    assert ground.writer.heard(forged, "pre_restore") == [] and forged.view()["state"] == "identified"
    (place / "restored" / "link").symlink_to("/var/tmp")
    linked = ground.session("main")
    linked.add("main", "new-targets", {"path": str(ground.main), "new_path": f"{place}/restored/link/new"})
    linked.done("pre-restore")
    job = linked.job("restore-files")
    assert (job["state"], job["hresult"]) == ("failed", "E_ACCESSDENIED") and linked.component("main")["file_restore_status"] == "none", job


def test_what_fails_of_several_is_told_component_by_component(daemon):
    """`main` is whole, `side` cannot be placed: the job fails, each component says its own, and a second call brings the rest."""
    ground = Ground(daemon)
    blocked = ground.place / "restored" / "blocked"
    session = ground.session("main", "side")
    session.add("side", "new-targets", {"path": str(ground.side), "new_path": str(blocked)})
    ground.destroy()
    blocked.write_text("a file, where a folder has to be")
    session.done("pre-restore")
    job = session.job("restore-files")
    assert job["state"] == "failed" and [x["object"] for x in job["result"]["cleanup"]["left_behind"]], job
    assert {c["name"]: c["file_restore_status"] for c in session.wire.get(session.path + "/components")["items"]} == {"main": "all", "side": "none"}
    assert tree(ground.main) == ground.before["main"] and blocked.is_file()
    blocked.unlink()
    session.done("restore-files", {"components": [session.component("side")["id"]]})
    assert tree(blocked) == ground.before["side"] and session.component("side")["file_restore_status"] == "all"


def test_files_that_moved_in_part_are_a_failed_component(daemon):
    ground = Ground(daemon)
    for path in ground.main.iterdir():
        if path.is_file():
            path.unlink()
    session = ground.session("main")
    session.done("pre-restore")
    (ground.node.faults / "mover.publish").write_text("once fail")
    job = session.job("restore-files")
    assert job["state"] == "failed" and "some of" in job["result"]["cleanup"]["left_behind"][0]["reason"], job
    assert session.component("main")["file_restore_status"] == "failed" and session.view()["state"] == "pre_restored"
    session.done("restore-files")
    assert tree(ground.main) == ground.before["main"] and session.component("main")["file_restore_status"] == "all"


def test_damaged_data_is_not_restored(daemon):
    ground = Ground(daemon)
    data = ground.place / "backups" / ground.backup / "data.tar.zst"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    ground.destroy()
    session = ground.session("main")
    session.done("pre-restore")
    job = session.job("restore-files")
    assert (job["state"], job["hresult"]) == ("failed", "ERROR_FILE_CORRUPT"), job
    assert session.component("main")["file_restore_status"] == "none" and not ground.main.exists()
    shown = ground.wire.get("/backups/" + ground.backup)
    assert shown["condition"] == "damaged" and shown["condition_reason"] == job["error"]["detail"] and shown["checked_at"], "the catalog learns it, as from POST /backups/{id}/restore"
    data.parent.rename(ground.place / "gone")
    job = session.job("restore-files")
    assert (job["state"], job["error"]["reason"]) == ("failed", "backup_missing") and ground.wire.get("/backups/" + ground.backup)["condition"] == "missing", job


def test_a_failure_that_is_not_the_backups_says_nothing_about_it(daemon):
    ground = Ground(daemon)
    session = ground.session("main")
    session.done("pre-restore")
    (ground.node.faults / "mover.publish").write_text("once fail")
    assert session.job("restore-files")["state"] == "failed"
    (ground.place / "backups").rename(ground.place / "unmounted")
    assert session.job("restore-files")["state"] == "failed"
    assert ground.wire.get("/backups/" + ground.backup)["condition"] is None


def test_of_a_chain_the_backup_that_is_damaged_is_told_and_no_other(daemon):
    ground = Ground(daemon, SCHEMA="new_target,incremental,log,timestamped,roll_forward", STAMP="session", SAY_PRE_RESTORE=json.dumps({"chain_target": f"{daemon.place}/restored"}))
    log = one_call(ground.wire, [{"writer": "app", "name": "main"}], type="log")["id"]
    data = ground.place / "backups" / ground.backup / "data.tar.zst"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    ground.destroy()
    session = Restore(ground.node, ground.wire, backup_id=log).identify().select("main")
    session.done("pre-restore")
    job = session.job("restore-files")
    assert (job["state"], job["hresult"]) == ("failed", "ERROR_FILE_CORRUPT"), job
    assert [ground.wire.get("/backups/" + one)["condition"] for one in (ground.backup, log)] == ["damaged", None]


def test_a_writers_word_does_not_lead_out_of_the_restore_roots(daemon):
    place = daemon.place
    directed = [{"path": f"{place}/data/main/table-1", "new_path": f"{place}/outside/one"}]
    ground = Ground(daemon, SAY_PRE_RESTORE=json.dumps({"restore_target": "directed", "directed_targets": directed}))
    session = ground.session("main")
    session.done("pre-restore")
    refused = session.call("POST", "/restore-files", {})
    assert (refused.status, refused.json["hresult"]) == (403, "E_ACCESSDENIED") and not (place / "outside").exists(), refused


def test_nothing_is_stopped_for_files_that_may_not_come_back(daemon):
    """PreRestore is confined as RestoreFiles is: by the places of the document, and by those where the writer lives now."""
    place = daemon.place
    data = place / "data" / "main"
    fill(data)
    writer = Writer(place, "app", COMPONENTS=json.dumps([component("main", data)]), SCHEMA="new_target")
    node = daemon(configuration(place, [writer]))
    backup = back_up(node, [{"writer": "app", "name": "main"}])
    session = Restore(node, backup_id=backup).identify().select("main")
    document = session.call("GET", "/document").json
    document["writers"][0]["components"][0]["file_sets"][0]["path"] = f"{place}/restored/forged"
    for refused in (session, Restore(node, document=document).identify().select("main")):
        reply = refused.call("POST", "/pre-restore")
        assert (reply.status, reply.json["hresult"]) == (403, "E_ACCESSDENIED") and str(data) in reply.json["detail"], reply
        assert writer.heard(refused, "pre_restore") == [] and refused.view()["state"] == "identified"
    session.add("main", "new-targets", {"path": str(data), "new_path": f"{place}/restored/new"})
    session.done("pre-restore")
    session.done("restore-files")
    assert tree(place / "restored" / "new") == tree(data)


def test_a_new_target_is_apart_from_where_the_component_lives(daemon):
    """There its writer would not stop it: neither where the document has it, nor where it lives now."""
    ground = Ground(daemon)
    session = ground.session("main")
    for path in (ground.main, ground.main.parent, ground.main / "deep" / "new"):
        refused = session.add("main", "new-targets", {"path": str(ground.main), "new_path": str(path)}, 400)
        assert refused["hresult"] == "E_INVALIDARG" and refused["errors"][0]["pointer"] == "/new_path" and "in place" in refused["hint"], refused
    assert session.component("main")["new_targets"] == []
    document = session.call("GET", "/document").json
    document["writers"][0]["components"][0]["file_sets"][0]["path"] = f"{ground.place}/data/before"
    moved = Restore(ground.node, ground.wire, document=document).identify().select("main")
    moved.add("main", "new-targets", {"path": f"{ground.place}/data/before", "new_path": str(ground.main)})
    refused = moved.call("POST", "/pre-restore")
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE") and str(ground.main) in refused.json["detail"], refused
    assert ground.writer.heard(moved, "pre_restore") == [] and tree(ground.main) == ground.before["main"]


def test_writers_hear_the_file_sets_of_the_backup(daemon):
    """Not those of today: what PreRestore makes room for is what RestoreFiles will put there."""
    ground = Ground(daemon)
    session = ground.session("side")
    document = session.call("GET", "/document").json
    before = {"path": f"{ground.place}/data/before", "spec": "*", "recursive": True}
    document["writers"][0]["components"][0]["file_sets"] = [before, {**before, "path": f"{ground.place}/data/log", "backup_types": ["log"]}]
    moved = Restore(ground.node, ground.wire, document=document).identify().select("main")
    for moving, events in ((session, ("pre_restore",)), (moved, ("pre_restore", "post_restore"))):
        for event in events:
            moving.done(event.replace("_", "-"))
    heard = [ground.writer.heard(moved, event)[0]["components"] for event in ("pre_restore", "post_restore")]
    assert [[c["file_sets"] for c in components] for components in heard] == [[[before]], [[before]]]
    assert ground.writer.heard(session, "pre_restore")[0]["components"][0]["file_sets"] == [{**before, "path": str(ground.side)}]


@needs_root
@pytest.mark.parametrize("mover", ["archive", pytest.param("restic", marks=pytest.mark.full)])
def test_a_component_that_spans_file_systems_comes_back_in_place(daemon, mover):
    """A folder with another file system mounted in it: each is restored on its own, in one call."""
    place = daemon.place
    top, nested = place / "data" / "spans", place / "data" / "spans" / "nested"
    nested.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "quiesced-test", nested], check=True)
    try:
        fill(nested / "n", "nested")
        fill(top / "t", "top")
        sets = [{"path": str(path), "spec": "*", "recursive": True} for path in (top, nested)]
        text = configuration(place, [Writer(place, "app", COMPONENTS=json.dumps([component("spans", top, file_sets=sets)]))])
        if mover == "restic":
            (place / "password").write_text("correct horse")
            text = text.replace(f"mover: archive, path: {place}/backups", f'mover: restic, url: "{place}/backups/r", password_file: {place}/password')
        node = daemon(text.replace(f"roots: [{place}/restored]", f"roots: [{place}/data]"))
        backup = back_up(node, [{"writer": "app", "name": "spans"}])
        before = tree(top)
        subprocess.run(["rm", "-rf", top / "t", nested / "n"], check=True)
        session = Restore(node, backup_id=backup).identify().select("spans")
        session.done("pre-restore")
        assert len(session.done("restore-files")["result"]["targets"]) == 2
        assert tree(top) == before and os.path.ismount(nested)
        node.stop()
    finally:
        subprocess.run(["umount", nested], check=True)
