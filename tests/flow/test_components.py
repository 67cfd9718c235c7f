"""Components over HTTPS: which may, must and need not be added (vss-model 4.7), what depends on what, and which files a backup really holds."""
import json
import shutil
import subprocess
import urllib.parse

import pytest

from conduct import BACKUP_STATE, Session, Wire, Writer, component, configuration, fill, one_call, restored

OTHER = "0b1e0000-0000-4000-8000-00000000000b"
NOWHERE = "0b1e0000-0000-4000-8000-00000000000c"


def start(daemon, *writers):
    """writers: (name, components, environment)."""
    made = [Writer(daemon.place, name, COMPONENTS=json.dumps(components), **environment) for name, components, environment in writers]
    node = daemon(configuration(daemon.place, made))
    node.writers = {writer.name: writer for writer in made}
    return node


def identified(node, state=BACKUP_STATE):
    session = Session(node)
    assert session.call("PUT", "/backup-state", state).status == 200
    session.done("metadata")
    session.instances = {writer["name"]: writer["instance_id"] for writer in session.wire.get(session.path + "/writers")["items"]}
    return session


def add(session, writer, name, path=""):
    return session.call("POST", "/components", {"instance_id": session.instances[writer], "logical_path": path, "name": name})


def explicit(backup):
    return sorted((part["writer"], part["logical_path"], part["name"]) for part in backup["components"])


@pytest.fixture
def store(daemon):
    """A required component with a free child, a set with an implicit, an own, and a deeper member, and one without a component above it."""
    place = daemon.place
    fill(place, "bin/program", "bin/plugin/one", "db/main", "log/old", "index/words", "deep/leaf", "dbs/other", "query/log")
    data = place / "data"
    node = start(daemon, ("store", [
        component("Executables", selectable=False, files=[{"path": f"{data}/bin", "spec": "*", "recursive": False}]),
        component("Plugins", "Executables", files=data / "bin/plugin"),
        component("Data", files=data / "db"),
        component("Logs", "Data", selectable=False, files=data / "log"),
        component("Index", "Data", files=data / "index"),
        component("Deep", "Data/Index", selectable=False, files=data / "deep"),
        component("Database", files=data / "dbs"),
        component("QueryLogs", "writerData", files=data / "query"),
    ], {}))
    return node


def test_add_component_follows_the_table_of_selectability(store):
    session = identified(store)
    refused = add(session, "store", "Logs", "Data")
    assert (refused.status, refused.json["hresult"], refused.json["errors"][0]["pointer"]) == (400, "E_INVALIDARG", "/name"), refused
    assert add(session, "store", "Data").status == 201
    twice = add(session, "store", "Data")
    assert (twice.status, twice.json["hresult"]) == (409, "VSS_E_OBJECT_ALREADY_EXISTS")
    for name, path in (("Index", "Data"), ("Logs", "Data"), ("Deep", "Data/Index")):
        member = add(session, "store", name, path)
        assert (member.status, member.json["hresult"]) == (400, "E_INVALIDARG"), (name, member)
        assert "Data" in member.json["detail"] or "Index" in member.json["detail"]
    assert add(session, "store", "Database").status == 201, "a name that merely begins alike is no member"
    assert add(session, "store", "QueryLogs", "writerData").status == 201, "a path element need not be a component"
    for name, path in (("Main", ""), ("Data", "writerData"), ("QueryLogs", "")):
        absent = add(session, "store", name, path)
        assert (absent.status, absent.json["hresult"]) == (404, "VSS_E_OBJECT_NOT_FOUND")
    other = identified(store)
    assert add(other, "store", "Index", "Data").status == 201, "selectable, and its ancestor is not explicit"
    above = add(other, "store", "Data")
    assert (above.status, above.json["hresult"]) == (400, "E_INVALIDARG") and "Index" in above.json["detail"], above
    assert len(other.wire.get(other.path + "/components")["items"]) == 1


def test_required_components_come_or_prepare_for_backup_is_refused(store):
    session = identified(store)
    assert add(session, "store", "Data").status == 201
    session.step("set_open")
    before = session.view()
    refused = session.call("POST", "/prepare")
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE") and "Executables" in refused.json["detail"], refused
    assert session.view()["state"] == before["state"] == "set_open" and session.view()["pending_job"] is None
    assert store.writers["store"].heard(session, "prepare_backup") == []
    assert add(session, "store", "Executables").status == 201
    session.done("prepare")
    session.done("snapshot")
    backup = session.copy()
    for item in session.wire.get(session.path + "/components")["items"]:
        assert session.call("PATCH", "/components/" + item["id"], {"succeeded": True}).status == 200
    session.done("complete")
    told = store.writers["store"].heard(session, "backup_complete")[0]["components"]
    assert [(part["name"], part["succeeded"]) for part in told] == [("Data", True), ("Executables", True)], "explicit ones alone are told of"
    assert [part["name"] for part in session.wire.get(session.path + "/document")["components"]] == ["Data", "Executables"]
    assert set(restored(store, session.wire, backup)) == {"bin/program", "db/main", "log/old", "index/words", "deep/leaf"}, (
        "the whole set, and nothing of a free child of the required component")


def test_none_of_a_writer_leaves_it_out(store):
    session = identified(store)
    session.step("set_open")
    session.done("prepare")
    session.done("snapshot")
    session.done("complete")
    assert [request["event"] for request in store.writers["store"].heard(session)] == ["identify"]


def test_one_call_adds_what_is_required_and_takes_every_set_once(store):
    wire = Wire(store)
    whole = one_call(wire, [{"writer": "store", "name": "Data"}, {"writer": "store", "logical_path": "Data", "name": "Index"}, {"writer": "store", "name": "Data"}])
    assert explicit(whole) == [("store", "", "Data"), ("store", "", "Executables")]
    part = one_call(wire, [{"writer": "store", "logical_path": "Data", "name": "Index"}])
    assert explicit(part) == [("store", "", "Executables"), ("store", "Data", "Index")]
    assert set(restored(store, wire, part["id"])) == {"bin/program", "index/words", "deep/leaf"}
    job = wire.wait(wire.call("POST", "/backups", {"components": [{"writer": "store", "name": "Database"}, {"writer": "store", "logical_path": "Data", "name": "Logs"}],
                                                   "repository": "main"}).json)
    assert (job["state"], job["hresult"]) == ("failed", "E_INVALIDARG") and "/components/1: component Logs" in job["error"]["detail"], job


# --- dependencies ----------------------------------------------------------------------------------------------------

@pytest.fixture
def related(daemon):
    place = daemon.place
    fill(place, "site/page", "db/rows", "alone/file")
    data = place / "data"
    on = [{"class_id": OTHER, "logical_path": "server", "name": "rows"}]
    return start(
        daemon,
        ("site", [component("pages", files=data / "site", dependencies=on),
                  component("orphan", files=data / "alone", dependencies=[{"class_id": NOWHERE, "name": "gone"}]),
                  component("far", files=data / "alone", dependencies=[{"class_id": NOWHERE, "logical_path": "\\\\elsewhere\\server", "name": "rows"}])],
         {"CLASS_ID": "0b1e0000-0000-4000-8000-00000000000a"}),
        ("database", [component("server"), component("rows", "server", selectable=False, files=data / "db"), component("temporary")], {"CLASS_ID": OTHER}),
        ("selfish", [component("a"), component("b", dependencies=[{"class_id": "0b1e0000-0000-4000-8000-00000000000d", "name": "a"}])],
         {"CLASS_ID": "0b1e0000-0000-4000-8000-00000000000d"}))


def test_dependencies_are_told_and_asked_for(related):
    session = identified(related)
    writers = {writer["name"]: writer for writer in session.wire.get(session.path + "/writers")["items"]}
    assert writers["site"]["components"][0]["dependencies"] == [{"class_id": OTHER, "logical_path": "server", "name": "rows"}]
    assert writers["site"]["components"][1]["dependencies"] == [{"class_id": NOWHERE, "logical_path": "", "name": "gone"}]
    told = {writer["name"]: writer for writer in session.wire.get("/writers")["items"]}
    assert told["site"]["components"] == writers["site"]["components"]
    assert not told["selfish"]["available"] and "own writer" in told["selfish"]["reason"], "never within one writer"
    assert add(session, "site", "pages").status == 201
    session.step("set_open")
    refused = session.call("POST", "/prepare")
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE"), refused
    assert all(word in refused.json["detail"] for word in ("pages", "database", "server")), refused
    assert add(session, "database", "server").status == 201, "the member comes with its set"
    session.done("prepare")


def test_what_it_depends_on_may_be_nowhere_or_on_another_computer(related):
    session = identified(related)
    assert add(session, "site", "orphan").status == 201
    session.step("set_open")
    refused = session.call("POST", "/prepare")
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE") and NOWHERE in refused.json["detail"], refused
    assert session.call("DELETE").status in (202, 204)
    job = session.wire.wait(session.wire.call("POST", "/backups", {"components": [{"writer": "site", "name": "orphan"}], "repository": "main"}).json)
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_BAD_STATE") and "gone" in job["error"]["detail"], job
    assert explicit(one_call(session.wire, [{"writer": "site", "name": "far"}])) == [("site", "", "far")], "nobody here could say"


def test_one_call_adds_what_it_depends_on(related):
    wire = Wire(related)
    backup = one_call(wire, [{"writer": "site", "name": "pages"}])
    assert explicit(backup) == [("database", "", "server"), ("site", "", "pages")]
    assert set(restored(related, wire, backup["id"])) == {"site/page", "db/rows"}


# --- file sets -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mover", ("archive", "restic"))
def test_specification_recursion_alternate_path_and_excludes_decide_what_is_copied(daemon, mover):
    place = daemon.place
    if mover == "restic" and not shutil.which("restic"):
        pytest.skip("no restic here")
    data = place / "data"
    fill(place, "flat/a.db", "flat/b.txt", "flat/sub/c.db", "tree/a.db", "tree/sub/b.db", "tree/sub/c.txt", "tree/sub/skip.db", "one/x1.log", "one/x12.log",
         "one/y1.log", "all/keep", "all/cache/blob", "all/keep.tmp", "all/sub/deep.tmp", "all/sub/deep", "live/now", "dump/now")
    (data / "dump/now").write_text("the dump\n")
    sets = [{"path": f"{data}/flat", "spec": "*.db", "recursive": False}, {"path": f"{data}/tree", "spec": "*.db", "recursive": True},
            {"path": f"{data}/one", "spec": "x?.log", "recursive": True}, {"path": f"{data}/all", "spec": "*", "recursive": True},
            {"path": f"{data}/live", "spec": "*", "recursive": True, "alternate_path": f"{data}/dump"}]
    exclude = [{"path": f"{data}/all/cache", "spec": "*", "recursive": True}, {"path": f"{data}/all", "spec": "*.tmp", "recursive": False},
               {"path": f"{data}/tree", "spec": "skip*", "recursive": True}]
    node = start(daemon, ("files", [component("main", files=sets)], {"EXCLUDE": json.dumps(exclude)}))
    wire, repository = Wire(node), "main"
    if mover == "restic":
        (place / "password").write_text("secret\n")
        repository = "second"
        made = wire.call("POST", "/repositories", {"name": repository, "mover": mover, "path": str(place / "restic"), "password_file": str(place / "password")})
        assert made.status in (201, 202), made
        if made.status == 202:
            assert wire.wait(made.json)["state"] == "succeeded"
    told = next(writer for writer in wire.get("/writers")["items"])["components"][0]["file_sets"]
    assert told == sets
    found = restored(node, wire, one_call(wire, [{"writer": "files", "name": "main"}], repository=repository)["id"])
    assert set(found) == {"flat/a.db", "tree/a.db", "tree/sub/b.db", "one/x1.log", "all/keep", "all/sub/deep.tmp", "all/sub/deep", "live/now"}
    assert found["live/now"] == "the dump\n", "copied from the alternate path, restored to the path"


MASKS = {"full-only": ["full"], "log-only": ["log"], "changes": ["incremental", "differential"], "always": None}
TAKEN = {"full": {"full-only", "always"}, "copy": {"full-only", "always"}, "incremental": {"changes", "always"}, "differential": {"changes", "always"},
         "log": {"log-only", "always"}}


def masked(data, **more):
    return [dict({"path": f"{data}/{name}", "spec": "*", "recursive": True}, **({"backup_types": types} if types else {}), **more) for name, types in MASKS.items()]


def test_a_backup_of_a_type_that_takes_no_file_is_a_backup_all_the_same(daemon):
    """Not of the whole volume, and no failure: a log backup of a component without logs holds the document alone."""
    place = daemon.place
    fill(place, "db/main")
    sets = [{"path": f"{place}/data/db", "spec": "*", "recursive": True, "backup_types": ["full"]}]
    node = start(daemon, ("app", [component("main", files=sets), component("empty")], {"SCHEMA": "log"}))
    wire = Wire(node)
    assert set(restored(node, wire, one_call(wire, [{"writer": "app", "name": "main"}])["id"])) == {"db/main"}
    log = one_call(wire, [{"writer": "app", "name": "main"}], type="log")
    assert (log["files"], log["complete"]) == (0, True)
    assert restored(node, wire, log["id"]) == {}
    session = driven(node, "log", [("app", "main")], [place / "data"])
    session.done("snapshot")
    assert restored_incomplete(node, session) == {}, "nor in a session that has a volume"
    assert one_call(wire, [{"writer": "app", "name": "empty"}])["files"] == 0


def chosen(node, backup_type, names, paths=()):
    """A session with an open set, and what was added to it."""
    session = identified(node, dict(BACKUP_STATE, type=backup_type))
    for writer, name in names:
        assert add(session, writer, name).status == 201
    assert session.call("POST", "/snapshot-set", {}).status == 201
    for path in paths:
        assert session.call("POST", "/snapshot-set/volumes", {"path": str(path), "provider": None}).status == 201
    return session


def driven(node, backup_type, names, paths=()):
    """The same, prepared."""
    session = chosen(node, backup_type, names, paths)
    session.done("prepare")
    return session


def test_masks_of_the_backup_type_decide_what_is_copied(daemon):
    """A writer whose schema does not name the type is backed up in full (vss-model 4.10)."""
    place = daemon.place
    fill(place, *(f"{writer}/{name}/file" for writer in ("able", "plain") for name in MASKS))
    node = start(daemon, ("able", [component("main", files=masked(place / "data/able"))], {"SCHEMA": "incremental,differential,log,copy"}),
                 ("plain", [component("main", files=masked(place / "data/plain"))], {}))
    wire = Wire(node)
    for backup_type, able in TAKEN.items():
        session = driven(node, backup_type, [("able", "main"), ("plain", "main")], [place / "data"])
        types = {item["writer"]: item["backup_type"] for item in wire.get(session.path + "/components")["items"]}
        assert types == {"able": backup_type, "plain": "copy" if backup_type == "copy" else "full"}
        session.done("snapshot")
        expected = {f"able/{name}/file" for name in able} | {f"plain/{name}/file" for name in TAKEN["full"]}
        assert set(restored_incomplete(node, session)) == expected, backup_type
        heard = {writer: node.writers[writer].heard(session, "prepare_backup")[0]["backup_type"] for writer in ("able", "plain")}
        assert heard == {"able": backup_type, "plain": backup_type}, "the writer is told the type itself"


def restored_incomplete(node, session):
    backup = session.copy()
    session.done("complete")
    found = restored(node, session.wire, backup)
    assert session.call("DELETE").status in (202, 204)
    return found


def test_a_mask_of_snapshot_types_decides_whether_a_snapshot_is_needed(daemon):
    place = daemon.place
    fill(place, "kept/file", "live/file")
    live = [{"path": f"{place}/data/live", "spec": "*", "recursive": True, "snapshot_types": ["full"]}]
    node = start(daemon, ("app", [component("kept", files=place / "data/kept"), component("live", files=live)], {"SCHEMA": "log"}))
    # In a log backup the live one needs no snapshot: none is planned for it, and it is copied as it lies there.
    plan = Wire(node).call("POST", "/backups", {"components": [{"writer": "app", "name": "live"}], "repository": "main", "validate_only": True}).json
    assert [volume["path"] for volume in plan["volumes"]] == [f"{place}/data/live"]
    session = driven(node, "log", [("app", "kept"), ("app", "live")], [place / "data/kept"])
    session.done("snapshot")
    for name in ("kept", "live"):
        (place / "data" / name / "file").write_text("changed after the snapshot\n")
    found = restored_incomplete(node, session)
    assert found == {"kept/file": "kept/file\n", "live/file": "changed after the snapshot\n"}
    # In a full backup, and in a copy, it does.
    for backup_type in ("full", "copy"):
        session = chosen(node, backup_type, [("app", "live")])
        failed = session.job("prepare")
        assert (failed["state"], failed["hresult"], failed["error"]["reason"]) == ("failed", "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT", "volume-missing"), failed
        assert session.call("DELETE").status in (202, 204)


def test_a_component_outside_the_sets_volumes_is_refused_before_anybody_is_told(daemon):
    """The requester adds the volumes of what it chose (AddToSnapshotSet); PrepareForBackup names what it forgot, and may then be repeated."""
    place = daemon.place
    fill(place, "in/file", "out/member/file")
    node = start(daemon, ("app", [component("in", files=place / "data/in"), component("out"),
                                  component("member", "out", selectable=False, files=place / "data/out/member")], {}))
    session = chosen(node, "full", [("app", "in"), ("app", "out")], [place / "data/in"])
    failed = session.job("prepare")
    assert (failed["state"], failed["hresult"], failed["error"]["reason"]) == ("failed", "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT", "volume-missing"), failed
    assert all(word in failed["error"]["detail"] for word in ("app", "member", f"{place}/data/out/member")), failed
    assert session.view()["state"] == "set_open" and node.writers["app"].heard(session, "prepare_backup") == []
    added = session.call("POST", "/snapshot-set/volumes", {"path": str(place / "data/out"), "provider": None})
    assert added.status == 201, added
    session.done("prepare")
    assert len(node.writers["app"].heard(session, "prepare_backup")) == 1
    session.done("snapshot")
    assert restored_incomplete(node, session) == {"in/file": "in/file\n", "out/member/file": "out/member/file\n"}


def test_bad_state_tells_whether_do_snapshot_set_is_needed(daemon):
    """BackupComplete from prepared: only when no file set of the selection needs a snapshot in this type of backup."""
    place = daemon.place
    fill(place, "live/file")
    live = [{"path": f"{place}/data/live", "spec": "*", "recursive": True, "snapshot_types": ["full"]}]
    node = start(daemon, ("app", [component("live", files=live)], {"SCHEMA": "log"}))
    full = driven(node, "full", [("app", "live")], [place / "data"])
    assert full.call("POST", "/complete").json["hresult"] == "VSS_E_BAD_STATE"
    assert full.call("DELETE").status in (202, 204)
    log = driven(node, "log", [("app", "live")])
    item = log.wire.get(log.path + "/components")["items"][0]
    assert log.call("PATCH", "/components/" + item["id"], {"succeeded": True}).status == 200
    log.done("complete")
    assert log.view()["state"] == "completed"
    assert node.writers["app"].heard(log, "backup_complete")[0]["components"][0]["succeeded"] is True
    assert node.writers["app"].heard(log, "freeze") == []


# --- what the requester says, and what the writer answers ------------------------------------------------------------

def test_options_and_stamps_reach_the_writer_and_come_back(daemon):
    place = daemon.place
    fill(place, "db/main")
    node = start(daemon, ("app", [component("main", files=place / "data/db"), component("side", files=place / "data/db")],
                          {"SCHEMA": "incremental,timestamped", "STAMP": "stamp-2", "SAY_POST_SNAPSHOT": '{"metadata": "what a restore needs"}'}))
    session = identified(node, dict(BACKUP_STATE, type="incremental"))
    made = {name: add(session, "app", name).json for name in ("main", "side")}
    patched = session.call("PATCH", "/components/" + made["main"]["id"], {"backup_options": "fast", "previous_stamp": "stamp-1"})
    assert (patched.json["backup_options"], patched.json["previous_stamp"]) == ("fast", "stamp-1")
    session.step("set_open")
    assert session.call("PATCH", "/components/" + made["main"]["id"], {"backup_options": "faster"}).status == 200
    session.done("prepare")
    told = {part["name"]: part for part in node.writers["app"].heard(session, "prepare_backup")[0]["components"]}
    assert (told["main"]["backup_options"], told["main"]["previous_stamp"]) == ("faster", "stamp-1")
    assert "backup_options" not in told["side"] and "previous_stamp" not in told["side"]
    for member in ({"backup_options": "late"}, {"previous_stamp": "late"}):
        late = session.call("PATCH", "/components/" + made["main"]["id"], member)
        assert (late.status, late.json["hresult"]) == (409, "VSS_E_BAD_STATE")
    session.done("snapshot")
    for name in ("main", "side"):
        item = session.wire.get(f"{session.path}/components/{made[name]['id']}")
        assert item["backup_stamp"] == "stamp-2" and item["backup_type"] == "incremental"
    document = {part["name"]: part for part in session.wire.get(session.path + "/document")["components"]}
    assert document["main"]["previous_stamp"] == "stamp-1" and document["main"]["backup_metadata"] == "what a restore needs"
    heard = {part["name"]: part for part in node.writers["app"].heard(session, "freeze")[0]["components"]}
    assert heard["main"]["backup_options"] == "faster"


# --- GetRootAndLogicalPrefixPaths ------------------------------------------------------------------------------------

@pytest.fixture
def bound(daemon):
    """place/data once more, through a bind mount."""
    place = daemon.place
    (place / "bound").mkdir()
    (place / "data").mkdir()
    done = subprocess.run(["mount", "--bind", place / "data", place / "bound"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("cannot mount: " + done.stderr.strip())
    yield place
    subprocess.run(["umount", place / "bound"], check=True)


def test_a_path_is_normalized_to_its_root_and_a_prefix_that_no_mount_changes(daemon, bound):
    node = start(daemon, ("app", [component("main")], {}))
    wire, place = Wire(node), bound
    (place / "data" / "sub").mkdir()
    (place / "link").symlink_to(place / "data" / "sub")

    def resolve(path):
        return wire.call("GET", "/volumes/resolve?path=" + urllib.parse.quote(str(path)))

    plain = resolve(place / "data" / "sub").json
    assert plain["path"] == str(place / "data" / "sub") and plain["provider"] and plain["reason"] is None
    assert plain["logical_prefix"].startswith(plain["superblock"] + ":/")
    for detour in (place / "link", f"{place}/data/../data/./sub/", f"{place}//data/sub"):
        assert resolve(detour).json == plain
    through = resolve(place / "bound" / "sub").json
    assert (through["path"], through["mount_point"]) == (str(place / "bound" / "sub"), str(place / "bound"))
    assert through["logical_prefix"] == plain["logical_prefix"], "the same data, whatever mount leads to it"
    assert resolve(place / "data").json["logical_prefix"] + "/sub" == plain["logical_prefix"] or plain["root_path"] != plain["path"]
    session = identified(node)
    assert session.call("POST", "/snapshot-set", {}).status == 201
    added = session.call("POST", "/snapshot-set/volumes", {"path": plain["root_path"], "provider": None})
    assert added.status == 201 and (added.json["volume"], added.json["provider"]) == (plain["root_path"], plain["provider"])
    proc = resolve("/proc/self").json
    assert proc["provider"] is None and proc["reason"] and proc["root_path"] == proc["mount_point"] == "/proc"
    for path, status, code in (("relative", 400, "E_INVALIDARG"), ("", 400, "E_INVALIDARG"), (place / "nowhere", 404, "VSS_E_OBJECT_NOT_FOUND"),
                               ("/" + "x" * 300, 400, "E_INVALIDARG")):
        refused = resolve(path)
        assert (refused.status, refused.json["hresult"]) == (status, code), (path, refused)
    assert resolve("relative").json["errors"][0]["pointer"] == "?path"
    assert wire.call("GET", "/volumes/resolve").status == 400
