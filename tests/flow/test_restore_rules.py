"""What may be selected, redirected and said in a restore, and which documents are none: every refusal names the member and changes nothing."""
import copy
import hashlib
import json

from conduct import Wire, Writer
from restoring import Ground, Restore, back_up, component, fill, tree
from test_access import token_of

NOBODY = "0193a8f0-0000-7000-8000-000000000000"
CLASS = "5f0f9b0e-3f57-8b1c-8a55-1c2d3e4f5a6b"


def part(name, path="", selectable=False, **more):
    return {"type": "filegroup", "logical_path": path, "name": name, "selectable": selectable, **more}


def held(folder):
    return [{"path": str(folder), "spec": "*", "recursive": True}]


def settings(session):
    return session.wire.get(session.path + "/components")["items"]


class Sets(Ground):
    """Component `set` with members: `set\\one` (selectable for restore, with a member of its own), `set\\two` (not); and `alone`."""

    def __init__(self, daemon):
        data = daemon.place / "data"
        offered = [part("set", selectable=True, file_sets=held(data / "set")), part("one", "set", selectable_for_restore=True, file_sets=held(data / "one")),
                   part("deep", "set\\one", file_sets=held(data / "deep")), part("two", "set", file_sets=held(data / "two")),
                   part("alone", selectable=True, file_sets=held(data / "alone"))]
        for name in ("set", "one", "deep", "two", "alone"):
            fill(data / name, name)
        self.data = data
        super().__init__(daemon, COMPONENTS=json.dumps(offered + [component("main", data / "main"), component("side", data / "side")]))
        self.backup = back_up(self.node, [{"writer": "app", "name": "set"}, {"writer": "app", "name": "alone"}])

    def spoil(self):
        for name in ("set", "one", "deep", "two", "alone"):
            (self.data / name / "table-0").write_text("newer")

    def back(self):
        return {name for name in ("set", "one", "deep", "two", "alone") if (self.data / name / "table-0").read_bytes() != b"newer"}


def test_a_set_comes_whole_and_a_subcomponent_alone(daemon):
    ground = Sets(daemon)
    ground.spoil()
    session = ground.session("set")
    for verb in ("pre-restore", "restore-files", "post-restore"):
        session.done(verb)
    assert ground.back() == {"set", "one", "deep", "two"}, "implicit members come with their root"
    ground.spoil()
    session = ground.session("set")
    one = {"logical_path": "set", "name": "one"}
    assert session.add("set", "subcomponents", one)["subcomponents"] == [one]
    for verb in ("pre-restore", "restore-files", "post-restore"):
        session.done(verb)
    assert ground.back() == {"one", "deep"}, "only that member, and its own set"
    heard = ground.writer.heard(session, "pre_restore")[0]["components"]
    assert [(c["name"], c["subcomponents"]) for c in heard] == [("set", [one])]


def test_selection_follows_its_rules(daemon):
    ground = Sets(daemon)
    session = ground.session()
    assert [c["name"] for c in settings(session)] == ["set", "alone"], "what was backed up explicitly"
    session.identify()
    one = {"logical_path": "set", "name": "one"}
    assert session.add("set", "subcomponents", one, 409)["hresult"] == "VSS_E_BAD_STATE", "the root is selected first"
    session.select("set", "alone")
    before = settings(session)
    for body, status, code, pointer in (({"logical_path": "set", "name": "two"}, 400, "E_INVALIDARG", "/name"),  # not selectable for restore
                                        ({"logical_path": "", "name": "set"}, 400, "E_INVALIDARG", "/name"),     # the component itself
                                        ({"logical_path": "set", "name": "none"}, 404, "VSS_E_OBJECT_NOT_FOUND", None),
                                        ({"logical_path": "", "name": "alone"}, 404, "VSS_E_OBJECT_NOT_FOUND", None),
                                        ({"name": ""}, 400, "E_INVALIDARG", "/name"), ({}, 400, "E_INVALIDARG", "/name")):
        refused = session.add("set", "subcomponents", body, status)
        assert refused["hresult"] == code and (not pointer or refused["errors"][0]["pointer"] == pointer), refused
    assert settings(session) == before
    session.add("set", "subcomponents", one)
    assert session.add("set", "subcomponents", one, 409)["hresult"] == "VSS_E_OBJECT_ALREADY_EXISTS"
    assert session.patch("set", selected=False)["subcomponents"] == [], "who deselects the root begins anew"
    for kind in ("subcomponents", "new-targets", "alternate-locations"):
        body = {"name": "x"} if kind == "subcomponents" else {"path": "/x", "new_path" if kind == "new-targets" else "alternate_path": "/y"}
        assert session.call("POST", f"/components/{NOBODY}/{kind}", body).json["hresult"] == "VSS_E_OBJECT_NOT_FOUND"


def test_what_a_requester_says_reaches_the_writer(daemon):
    ground = Ground(daemon, SCHEMA="new_target,authoritative,roll_forward,restore_rename")
    said = {"restore_options": "gently", "additional_restores": True, "authoritative_restore": True,
            "roll_forward": {"type": "partial", "point": "noon"}, "restore_name": "other"}
    session = ground.session()
    for member, value in said.items():
        assert session.patch("main", **{member: value})[member] == value
    assert session.call("PUT", "/restore-state", {"type": "import"}).json["restore_state"] == {"type": "import"}
    session.identify().select("main")
    session.done("pre-restore")
    request = ground.writer.heard(session, "pre_restore")[0]
    assert request["restore_type"] == "import" and request["backup_type"] == "full" and request["component_mode"] is True
    assert said.items() <= request["components"][0].items(), request
    assert session.patch("main", file_restore_status="none")["file_restore_status"] == "none"
    mapping = {"path": str(ground.main), "spec": "*", "recursive": True, "alternate_path": "/srv/by/hand"}
    assert session.add("main", "alternate-locations", mapping)["alternate_location_mappings"] == [mapping]
    session.done("post-restore")
    last = ground.writer.heard(session, "post_restore")[0]["components"][0]
    assert last["file_restore_status"] == "none" and last["alternate_location_mappings"] == [mapping], "a requester may bring the files by itself"
    assert session.call("GET", "/document").json["components"][0]["file_restore_status"] == "none"


def test_what_the_writer_cannot_do_is_not_asked_of_it(daemon):
    ground = Ground(daemon, SCHEMA="")
    session = ground.session("main")
    before = settings(session)
    for member, value in (("authoritative_restore", True), ("roll_forward", {"type": "all"}), ("restore_name", "other")):
        assert session.patch("main", 400, **{member: value})["errors"][0]["pointer"] == "/" + member
    assert session.add("main", "new-targets", {"path": str(ground.main), "new_path": f"{ground.place}/restored/x"}, 400)["errors"][0]["pointer"] == "/new_path"
    assert session.patch("main", 404, ranges_file_path={"partial_file": 0, "path": "/srv/ranges"})["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    for members, pointer in (({"selected": "yes"}, "/selected"), ({"file_restore_status": "some"}, "/file_restore_status"), ({"roll_forward": {"type": "x"}}, "/roll_forward/type"),
                             ({"ranges_file_path": {"partial_file": 0, "path": "ranges"}}, "/ranges_file_path/path"), ({"instance_id": NOBODY}, "/instance_id"),
                             ({"unknown": 1}, "/unknown")):
        assert session.patch("main", 400, **members)["errors"][0]["pointer"] == pointer
    assert session.patch("main", 409, selected=False, file_restore_status="all")["hresult"] == "VSS_E_BAD_STATE", "one of the two is out of sequence"
    assert settings(session) == before


def test_a_new_target_is_exactly_a_file_set(daemon):
    ground = Ground(daemon)
    session = ground.session()
    new = f"{ground.place}/restored/x"
    for body in ({"path": str(ground.side), "new_path": new}, {"path": str(ground.main), "spec": "*.db", "new_path": new},
                 {"path": str(ground.main), "recursive": False, "new_path": new}):
        assert session.add("main", "new-targets", body, 404)["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    for body, pointer in (({"path": "main", "new_path": new}, "/path"), ({"path": str(ground.main)}, "/new_path"), ({"path": str(ground.main), "new_path": "x"}, "/new_path")):
        assert session.add("main", "new-targets", body, 400)["errors"][0]["pointer"] == pointer
    assert session.component("main")["new_targets"] == []


def test_a_ranges_file_is_named_for_a_partial_file(daemon):
    ground = Ground(daemon)
    document = ground.session().call("GET", "/document").json
    document["components"][0]["partial_files"] = [{"path": str(ground.main), "name": "table-0", "ranges": "0:10"}]
    session = Restore(ground.node, ground.wire, document=document).identify().select("main")
    assert session.patch("main", ranges_file_path={"partial_file": 0, "path": "/srv/ranges"})["partial_files"][0]["ranges_file_path"] == "/srv/ranges"
    assert session.patch("main", 404, ranges_file_path={"partial_file": 1, "path": "/srv/ranges"})["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    session.done("pre-restore")
    assert ground.writer.heard(session, "pre_restore")[0]["components"][0]["partial_files"][0]["ranges_file_path"] == "/srv/ranges"


def test_a_component_is_redirected_to_another_instance(daemon):
    """SetSelectedForRestoreEx: one of the same class that is running, of a writer that restores with a move."""
    place = daemon.place
    twin, stranger = Writer(place, "twin", CLASS_ID=CLASS, COMPONENTS="[]"), Writer(place, "stranger", CLASS_ID=NOBODY, COMPONENTS="[]")
    ground = Ground(daemon, [twin, stranger], CLASS_ID=CLASS, SCHEMA="restore_with_move,new_target")
    session = ground.session().identify()
    instances = {w["name"]: w["instance_id"] for w in session.wire.get(session.path + "/writers")["items"]}
    assert session.patch("main", 400, selected=True, instance_id=instances["stranger"])["errors"][0]["pointer"] == "/instance_id"
    assert session.patch("main", 404, selected=True, instance_id=NOBODY)["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    assert session.patch("main", selected=True, instance_id=instances["twin"])["restore_instance_id"] == instances["twin"]
    assert session.patch("main", selected=True)["restore_instance_id"] is None, "a null instance is the plain form"
    session.patch("main", selected=True, instance_id=instances["twin"])
    ground.destroy()
    for verb in ("pre-restore", "restore-files", "post-restore"):
        session.done(verb)
    assert tree(ground.main) == ground.before["main"]
    assert [r["event"] for r in twin.heard(session)] == ["identify", "pre_restore", "post_restore"] and [r["event"] for r in ground.writer.heard(session)] == ["identify"]
    assert twin.heard(session, "post_restore")[0]["components"][0]["file_restore_status"] == "all"


def test_without_the_schema_nobody_is_redirected(daemon):
    twin = Writer(daemon.place, "twin", CLASS_ID=CLASS, COMPONENTS="[]")
    ground = Ground(daemon, [twin], CLASS_ID=CLASS)
    session = ground.session().identify()
    instance = next(w["instance_id"] for w in session.wire.get(session.path + "/writers")["items"] if w["name"] == "twin")
    refused = session.patch("main", 400, selected=True, instance_id=instance)
    assert refused["errors"][0]["pointer"] == "/instance_id" and "restore_with_move" in refused["detail"] and session.component("main")["selected"] is False
    filtered = ground.session()
    own = filtered.component("main")["instance_id"]
    assert filtered.call("PUT", "/writer-filter", {"disable_instances": [own]}).status == 200
    assert filtered.identify().patch("main", 404, selected=True)["hresult"] == "VSS_E_OBJECT_NOT_FOUND", "its writer is not running"


FORGED = [
    (lambda d: d.pop("components"), "/document/components"),
    (lambda d: d.update(version=2), "/document/version"),
    (lambda d: d["components"][0].pop("name"), "/document/components/0/name"),
    (lambda d: d["components"][0].update(type="other"), "/document/components/0/type"),
    (lambda d: d["components"].append(copy.deepcopy(d["components"][0])), "/document/components/2"),
    (lambda d: d["writers"][0].update(alternate_locations=[{"path": "/a"}]), "/document/writers/0/alternate_locations/0/alternate_path"),
    (lambda d: d["components"][0].update(name="unknown"), "/document/components/0"),
    (lambda d: d.update(writers=[]), "/document/components/0"),
    (lambda d: d["writers"][0]["components"][0]["file_sets"][0].update(path="relative"), "/document/writers/0/components/0/file_sets/0/path"),
    (lambda d: d["writers"][0]["components"][0]["file_sets"][0].update(path="/a/../b"), "/document/writers/0/components/0/file_sets/0/path"),
    (lambda d: d["components"][0].update(partial_files=[{}]), "/document/components/0/partial_files/0/path"),
]


def test_a_document_that_is_none_is_refused(daemon):
    ground = Ground(daemon)
    session = ground.session()
    document = session.call("GET", "/document").json
    count = len(ground.wire.get("/sessions")["items"])
    for forge, pointer in FORGED:
        forged = copy.deepcopy(document)
        forge(forged)
        refused = ground.wire.call("POST", "/sessions", {"kind": "restore", "document": forged})
        assert (refused.status, refused.json["hresult"]) == (422, "VSS_E_INVALID_XML_DOCUMENT") and refused.json["errors"][0]["pointer"] == pointer, refused
    for body, pointer in (({"kind": "restore"}, "/backup_id"), ({"kind": "restore", "backup_id": ground.backup, "document": document}, "/backup_id"),
                          ({"kind": "backup", "document": document}, "/document"), ({"kind": "backup", "accept_incomplete": True}, "/accept_incomplete")):
        assert ground.wire.call("POST", "/sessions", body).json["errors"][0]["pointer"] == pointer
    assert ground.wire.call("POST", "/sessions", {"kind": "restore", "backup_id": NOBODY}).status == 404
    assert len(ground.wire.get("/sessions")["items"]) == count
    own = Restore(ground.node, ground.wire, document=document).identify().select("main")
    own.done("pre-restore")
    assert own.call("POST", "/restore-files", {}).json["errors"][0]["pointer"] == "/backup_id", "which backup it was it does not say"
    assert own.call("POST", "/restore-files", {"backup_id": NOBODY}).status == 404
    assert own.call("POST", "/restore-files", {"backup_id": ground.backup, "components": [own.component("side")["id"]]}).json["errors"][0]["pointer"] == "/components/0"
    ground.destroy()
    own.done("restore-files", {"backup_id": ground.backup})
    assert tree(ground.main) == ground.before["main"]
    other = ground.session("main")
    other.done("pre-restore")
    assert other.call("POST", "/restore-files", {"backup_id": NOBODY}).json["errors"][0]["pointer"] == "/backup_id"


def test_a_restorer_restores_what_others_backed_up_and_an_operator_does_not(daemon):
    """The roles of design, section 8: every call of a restore session is a restorer's, from POST /sessions to DELETE."""
    rows = "".join(f"  - {{name: {role}-1, role: {role}, token_sha256: {hashlib.sha256(token_of(role).encode()).hexdigest()}}}\n" for role in ("operator", "restorer"))
    ground = Ground(daemon, more="principals:\n" + rows)
    ground.destroy()

    def ask(method, path, body=None, role="restorer"):
        return ground.node.call(method, path, body, token=token_of(role))

    body = {"kind": "restore", "backup_id": ground.backup}
    assert ask("POST", "/sessions", body, role="operator").status == 403
    s = "/sessions/" + ask("POST", "/sessions", body).json["id"]
    assert ask("PUT", s + "/restore-state", {"type": "by_copy"}).status == 200
    for verb in ("metadata", "pre-restore", "restore-files", "post-restore"):
        assert ask("POST", f"{s}/{verb}", role="operator").status in (403, 404), verb
        job = ask("POST", f"{s}/{verb}").json["id"]
        assert ask("GET", f"/jobs/{job}?wait=30").json["state"] == "succeeded"
        component = ask("GET", s + "/components").json["items"][0]["id"]
        if verb == "metadata":
            assert ask("PATCH", f"{s}/components/{component}", {"selected": True}, role="operator").status in (403, 404)
            assert ask("PATCH", f"{s}/components/{component}", {"selected": True}).status == 200
    assert tree(ground.main) == ground.before["main"] and ask("DELETE", s).status in (202, 204)


def test_an_incomplete_backup_is_restored_only_knowingly(daemon):
    ground = Ground(daemon)
    wire = Wire(ground.node)
    (ground.node.faults / "worker.complete").write_text("once fail")
    job = wire.wait(wire.call("POST", "/backups", {"components": [{"writer": "app", "name": "main"}], "repository": "main"}).json)
    assert job["state"] == "failed", job
    incomplete = next(b["id"] for b in wire.get("/backups")["items"] if not b["complete"])
    refused = wire.call("POST", "/sessions", {"kind": "restore", "backup_id": incomplete})
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE"), refused
    session = Restore(ground.node, wire, backup_id=incomplete, accept_incomplete=True).identify().select("main")
    ground.destroy()
    session.done("pre-restore")
    session.done("restore-files")
    assert tree(ground.main) == ground.before["main"]


def test_a_restore_of_nothing_is_not_called_restored(daemon):
    ground = Ground(daemon)
    session = ground.session().identify()
    session.done("pre-restore")
    refused = session.call("POST", "/restore-files")
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE") and "no component is selected" in refused.json["detail"], refused
    assert session.view()["state"] == "pre_restored" and session.view()["pending_job"] is None
