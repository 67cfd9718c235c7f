"""Backup types over HTTPS (vss-model 4.10): what each goes on from, what the writer is told, and what never becomes the base of anything."""
import json
import shutil

from conduct import BACKUP_STATE, Session, Wire, Writer, component, configuration, fill, one_call, restored

MAIN = [{"writer": "able", "name": "main"}]


def start(daemon, schema="incremental,differential,log,copy,timestamped", **writers):
    """A writer `able` whose stamps are its sessions' ids, and others as they are told; two repositories."""
    place = daemon.place
    fill(place, "able/file")
    made = {"able": {"SCHEMA": schema, "STAMP": "session"}, **writers}
    entries = {name: Writer(place, name, COMPONENTS=json.dumps([component("main", files=place / "data/able"), component("side", files=place / "data/able")]), **environment)
               for name, environment in made.items()}
    (place / "elsewhere").mkdir()
    other = f"repositories:\n  - {{name: other, mover: archive, path: {place}/elsewhere}}\n"
    node = daemon(configuration(place, list(entries.values())).replace("repositories:\n", other))
    node.writers = entries
    return node


def told(node, backup, event="prepare_backup", writer="able"):
    return next(request for request in node.writers[writer].heard(event=event) if request["session"] == backup["session_id"])


def refused(wire, word, components=MAIN, **more):
    body = {"components": components, "repository": "main", **more}
    job = wire.wait(wire.call("POST", "/backups", body).json)
    assert (job["state"], job["hresult"], job["error"]["reason"]) == ("failed", "VSS_E_BAD_STATE", "no_previous_backup"), job
    assert word in job["error"]["detail"] and job["error"]["hint"], job
    return body


def goes_on_from(node, backup, base):
    part, = backup["components"]
    assert part["previous_backup_id"] == (base["id"] if base else None), (backup["type"], part)
    assert part["previous_stamp"] == (base["session_id"] if base else None)
    assert told(node, backup)["components"][0].get("previous_stamp") == part["previous_stamp"]
    assert told(node, backup)["backup_type"] == backup["type"] == part["backup_type"]


def test_each_type_goes_on_from_its_own_base(daemon):
    node = start(daemon)
    wire = Wire(node)
    planned = wire.call("POST", "/backups", dict(refused(wire, "no complete backup", type="log"), validate_only=True))
    assert (planned.status, planned.json["hresult"]) == (409, "VSS_E_BAD_STATE"), "the plan says so, too"
    copy = one_call(wire, MAIN, type="copy")
    goes_on_from(node, copy, None)
    for backup_type in ("incremental", "differential", "log"):
        refused(wire, "no complete backup", type=backup_type)  # a copy is no base
    full = one_call(wire, MAIN, type="full")
    goes_on_from(node, full, None)
    first = one_call(wire, MAIN, type="incremental")
    goes_on_from(node, first, full)
    one_call(wire, MAIN, type="copy")
    second = one_call(wire, MAIN, type="incremental")
    goes_on_from(node, second, first)
    since_full = one_call(wire, MAIN, type="differential")
    goes_on_from(node, since_full, full)
    log = one_call(wire, MAIN, type="log")
    goes_on_from(node, log, second)  # a differential moves nothing
    goes_on_from(node, one_call(wire, MAIN, type="log"), log)
    goes_on_from(node, one_call(wire, MAIN, type="incremental"), second)
    refused(wire, "no complete backup", [{"writer": "able", "name": "side"}], type="incremental")  # of another component


def test_what_failed_or_was_not_completed_is_no_base(daemon):
    node = start(daemon, half={"SCHEMA": "incremental,log", "STAMP": "session", "PARTIAL_POST_SNAPSHOT": "VSS_E_WRITERERROR_RETRYABLE"})
    wire = Wire(node)
    full = one_call(wire, MAIN)
    for ending in ("unsaid", "aborted"):
        session = Session(node)
        assert session.call("PUT", "/backup-state", BACKUP_STATE).status == 200
        session.done("metadata")
        able = next(writer for writer in wire.get(session.path + "/writers")["items"] if writer["name"] == "able")
        assert session.call("POST", "/components", {"instance_id": able["instance_id"], "logical_path": "", "name": "main"}).status == 201
        session.step("set_open")
        session.done("prepare")
        session.done("snapshot")
        session.copy()
        if ending == "unsaid":
            session.done("complete")  # SetBackupSucceeded was not called: false
        else:
            assert session.call("POST", "/abort").status == 200
        goes_on_from(node, one_call(wire, MAIN, type="differential"), full)
        assert session.call("DELETE").status in (202, 204)
    half = [{"writer": "half", "name": "main"}]
    one_call(wire, half, writer_failure="report")  # completed, but the component has a failure of its own
    refused(wire, "no complete backup", half, type="log")


def test_of_a_writer_that_failed_nothing_is_said_to_have_succeeded(daemon):
    """writer_failure `report`: the backup goes on without it. It gives up no log for it, and nothing goes on from its stamp."""
    failed = {"SCHEMA": "incremental,log", "STAMP": "session"}
    node = start(daemon, half={**failed, "PARTIAL_POST_SNAPSHOT": "VSS_E_WRITERERROR_RETRYABLE"}, cold={**failed, "FAIL_FREEZE": "VSS_E_WRITERERROR_RETRYABLE"},
                 late={**failed, "FAIL_POST_SNAPSHOT": "VSS_E_WRITERERROR_RETRYABLE"}, soft={**failed, "SOFT_PREPARE_SNAPSHOT": "VSS_E_WRITERERROR_RETRYABLE"})
    wire = Wire(node)
    chosen = MAIN + [{"writer": writer, "name": "main"} for writer in ("half", "cold", "late", "soft")] + [{"writer": "half", "name": "side"}]
    backup = one_call(wire, chosen, writer_failure="report")
    assert {(part["writer"], part["name"]): part["succeeded"] for part in backup["components"]} == {
        ("able", "main"): True, ("half", "side"): True, ("half", "main"): False, ("cold", "main"): False, ("late", "main"): False, ("soft", "main"): False}
    complete = told(node, backup, "backup_complete", "half")
    assert {part["name"]: part["succeeded"] for part in complete["components"]} == {"main": False, "side": True}
    for writer in ("cold", "late", "soft"):
        refused(wire, "no complete backup", [{"writer": writer, "name": "main"}], type="log")
    goes_on_from(node, one_call(wire, MAIN, type="incremental"), backup)


def test_a_chain_lies_in_one_repository(daemon):
    node = start(daemon)
    wire = Wire(node)
    one_call(wire, MAIN)
    refused(wire, "in repository main", type="log", repository="other")
    elsewhere = one_call(wire, MAIN, repository="other")
    refused(wire, "in repository other", type="incremental")
    goes_on_from(node, one_call(wire, MAIN, type="incremental", repository="other"), elsewhere)


def test_a_writer_that_does_not_know_the_type_makes_a_full_backup(daemon):
    node = start(daemon, plain={"STAMP": "session"})
    wire = Wire(node)
    both = MAIN + [{"writer": "plain", "name": "main"}]
    refused(wire, "writer able", both, type="log")
    one_call(wire, MAIN)
    mixed = one_call(wire, both, type="log")
    types = {part["writer"]: (part["backup_type"], part["previous_backup_id"] is None) for part in mixed["components"]}
    assert types == {"able": ("log", False), "plain": ("full", True)} and mixed["type"] == "log"
    assert told(node, mixed, writer="plain")["backup_type"] == "log"
    assert set(restored(node, wire, mixed["id"])) == {"able/file"}


def test_what_goes_on_from_nothing_is_not_called_so(daemon):
    """Paths are always copied whole, and a writer that does not know the type makes a full backup: neither is labelled as something less."""
    node = start(daemon, plain={"STAMP": "session"})
    wire, files = Wire(node), [str(node.place / "data/able")]
    for backup_type in ("incremental", "differential", "log"):
        for more in ({}, {"validate_only": True}):
            reply = wire.call("POST", "/backups", {"paths": files, "repository": "main", "type": backup_type, **more})
            assert reply.status == 400 and reply.json["hresult"] == "E_INVALIDARG", reply
            (fault,) = reply.json["errors"]
            assert fault["pointer"] == "/type" and backup_type in fault["detail"], fault
    assert wire.get("/jobs")["items"] == [] and wire.get("/sessions")["items"] == []
    whole = one_call(wire, [], paths=files, type="copy")
    assert whole["type"] == "copy"
    plain = one_call(wire, [{"writer": "plain", "name": "main"}], type="log")
    assert plain["type"] == "full" and [part["backup_type"] for part in plain["components"]] == ["full"]
    assert told(node, plain, writer="plain")["backup_type"] == "log", "the writer hears what the requester has set"
    one_call(wire, MAIN)
    mixed = one_call(wire, MAIN + [{"writer": "plain", "name": "main"}], paths=files, type="log")
    assert mixed["type"] == "log"
    types = {backup["id"]: backup["type"] for backup in (whole, plain, mixed)}
    node.stop()
    shutil.rmtree(node.place / "state")
    node.start()  # what a scan finds says the same of them
    del node.tls
    wire = Wire(node)
    assert node.job("POST", "/repositories/main/scan")["result"]["found"] == 4
    assert {backup["id"]: backup["type"] for backup in wire.get("/backups")["items"]}.items() >= types.items()


def test_an_exclusive_schema_does_not_mix_incremental_and_differential(daemon):
    node = start(daemon, schema="incremental,differential,exclusive_incremental_differential")
    wire = Wire(node)
    full = one_call(wire, MAIN)
    goes_on_from(node, one_call(wire, MAIN, type="differential"), full)
    refused(wire, "does not mix", type="incremental")
    full = one_call(wire, MAIN)
    first = one_call(wire, MAIN, type="incremental")
    goes_on_from(node, first, full)
    refused(wire, "does not mix", type="differential")


def test_a_schema_that_contradicts_itself_leaves_the_writer_out(daemon):
    wrong = {"exclusive": ("exclusive_incremental_differential,incremental", "both"), "timestamped": ("timestamped,log", "incremental or differential"),
             "modified": ("last_modify", "incremental or differential")}
    node = start(daemon, **{name: {"SCHEMA": schema} for name, (schema, _) in wrong.items()})
    writers = {writer["name"]: writer for writer in Wire(node).get("/writers")["items"]}
    assert writers.pop("able")["available"]
    for name, (_, word) in wrong.items():
        assert not writers[name]["available"] and "backup_schema" in writers[name]["reason"] and word in writers[name]["reason"], writers[name]


def test_a_copy_says_so_in_every_event_and_nothing_of_it_is_kept(daemon):
    """What a writer may do in BackupComplete (truncate, move its history) follows from type and succeeded: both are told there."""
    node = start(daemon)
    wire = Wire(node)
    for backup_type in ("full", "copy", "log"):
        backup = one_call(wire, MAIN, type=backup_type)
        heard = [request for request in node.writers["able"].heard() if request["session"] == backup["session_id"]]
        types = {request["event"]: request.get("backup_type") for request in heard if request["event"] != "identify"}
        assert set(types) == {"prepare_backup", "prepare_snapshot", "freeze", "thaw", "post_snapshot", "backup_complete", "backup_shutdown"}
        assert set(types.values()) == {backup_type}, types
        assert told(node, backup, "backup_complete")["components"][0]["succeeded"] is True
