"""Every call in every state over HTTPS, generated from state_matrix.py: what succeeds leads where the matrix says, and a call that is
refused or ignored leaves the session, its document, its components, its writers' states, its jobs and its snapshots exactly as they were."""
import contextlib
import pathlib
import shutil
import tempfile

import pytest

from conduct import BACKUP_STATE, Session, Wire, Writer, configuration
from daemon import CONTRACT, Daemon
from state_matrix import (MATRICES, PENDING, PENDING_JOBS, READS, RESTORE_ONLY, RESTORE_PENDING, RESTORE_PENDING_JOBS, UNCHANGED, cells,
                          changes)

NOBODY = "0193a8f0-0000-7000-8000-000000000000"
# The lease runs on with every call of its owner, accepted or not: it is no change of the session.
MOVING = ("lease_expires_at",)


def component_of(session):
    return next(iter(session.components.values()))["id"] if session.components else NOBODY


def add_component(session):
    """The component of the first writer that is not in the session yet; of an ungathered session any name will do."""
    writers = session.call("GET", "/writers")
    instance = writers.json["items"][0]["instance_id"] if writers.status == 200 and writers.json["items"] else NOBODY
    return "POST", "/components", {"instance_id": instance, "logical_path": "", "name": "spare"}


def patch(**members):
    return lambda session: ("PATCH", "/components/" + component_of(session), members)


def fixed(method, path, body=None):
    return lambda session: (method, path, body)


def addition(what, body):
    return lambda session: ("POST", f"/components/{component_of(session)}/{what}", body(session))


# Each call as (method, path beneath the session, body), of the session it is made on.
CALLS = {
    "SetContext": fixed("PUT", "/context", {"context": "app_rollback", "attributes": []}),
    "EnableWriterClasses": fixed("PUT", "/writer-filter", {"enable": [NOBODY]}),
    "DisableWriterClasses": fixed("PUT", "/writer-filter", {"disable": [NOBODY]}),
    "DisableWriterInstances": fixed("PUT", "/writer-filter", {"disable_instances": [NOBODY]}),
    "SetBackupState": fixed("PUT", "/backup-state", dict(BACKUP_STATE, type="copy")),
    "GatherWriterMetadata": fixed("POST", "/metadata"),
    "GetWriterMetadata": fixed("GET", "/writers"),
    "AddComponent": add_component,
    "GetWriterComponents": fixed("GET", "/components"),
    "SetBackupOptions": patch(backup_options="verbose"),
    "SetPreviousBackupStamp": patch(previous_stamp="yesterday"),
    "SetBackupSucceeded": patch(succeeded=True),
    "StartSnapshotSet": fixed("POST", "/snapshot-set", {}),
    "AddToSnapshotSet": lambda session: ("POST", "/snapshot-set/volumes", {"path": str(session.node.place / "restored"), "provider": None}),
    "PrepareForBackup": fixed("POST", "/prepare"),
    "DoSnapshotSet": fixed("POST", "/snapshot"),
    "Copy": fixed("POST", "/copy", {"repository": "main"}),
    "BackupComplete": fixed("POST", "/complete"),
    "GatherWriterStatus": fixed("POST", "/status"),
    "SaveAsXML": fixed("GET", "/document"),
    "SetRestoreState": fixed("PUT", "/restore-state", {"type": "import"}),
    "SetSelectedForRestore": patch(selected=True),
    "SetSelectedForRestoreEx": lambda session: ("PATCH", "/components/" + component_of(session), {
        "selected": True, "instance_id": next(iter(session.components.values()), {"instance_id": NOBODY})["instance_id"]}),
    "AddRestoreSubcomponent": addition("subcomponents", lambda session: {"logical_path": "main", "name": "part"}),
    "SetRestoreOptions": patch(restore_options="quickly"),
    "SetAdditionalRestores": patch(additional_restores=True),
    "AddNewTarget": addition("new-targets", lambda session: {"path": str(session.node.place / "data"), "new_path": f"{session.node.place}/restored/new"}),
    "SetAuthoritativeRestore": patch(authoritative_restore=True),
    "SetRollForward": patch(roll_forward={"type": "partial", "point": "noon"}),
    "SetRestoreName": patch(restore_name="other"),
    "SetRangesFilePath": patch(ranges_file_path={"partial_file": 0, "path": "/srv/ranges"}),
    "PreRestore": fixed("POST", "/pre-restore"),
    "RestoreFiles": lambda session: ("POST", "/restore-files", {"backup_id": getattr(session, "of", NOBODY)}),
    "SetFileRestoreStatus": patch(file_restore_status="failed"),
    "AddAlternativeLocationMapping": addition("alternate-locations", lambda session: {
        "path": str(session.node.place / "data"), "alternate_path": f"{session.node.place}/restored/alternate"}),
    "PostRestore": fixed("POST", "/post-restore"),
    "AbortBackup": fixed("POST", "/abort"),
    "Release": fixed("DELETE", ""),
}


# Calls on the snapshot that AddToSnapshotSet promised.
SNAPSHOT_CALLS = {
    "GetSnapshotProperties": lambda session: ("GET", "", None),
    "DeleteSnapshots": lambda session: ("DELETE", "", None),
    "ExposeSnapshot": lambda session: ("POST", "/exposure", {"path": str(session.node.place / "restored")}),
    "UnexposeSnapshot": lambda session: ("DELETE", "/exposure", None),
    "RevertToSnapshot": lambda session: ("POST", "/revert", {"force": False}),
    "QueryRevertStatus": lambda session: ("GET", "/revert", None),
}


def call(session, operation):
    if operation in SNAPSHOT_CALLS:
        method, part, body = SNAPSHOT_CALLS[operation](session)
        return session.wire.call(method, f"/snapshots/{session.snapshot or NOBODY}{part}", body)
    return session.call(*CALLS[operation](session))


def portrait(session):
    """Everything that a call could have changed, as the API tells it."""
    told = {}
    for path in ("", "/components", "/writers", "/writer-status", "/document"):
        reply = session.call("GET", path)
        told[path] = (reply.status, reply.json if reply.status == 200 else reply.json["detail"])
    for member in MOVING:
        told[""][1].pop(member, None)
    for path in ("/jobs", "/snapshots", "/backups"):
        told[path] = session.wire.get(f"{path}?session={session.id}" if path == "/jobs" else path)["items"]
    return told


class Driven(Session):
    """A session that can be driven to every state of a matrix; `snapshot` is the id that AddToSnapshotSet gave."""

    def __init__(self, node, wire, matrix):
        self.matrix, self.snapshot = matrix, None
        super().__init__(node, wire, **({"context": "file_share_backup"} if matrix == "no_writers" else {}))

    def open_set(self):
        assert self.call("POST", "/snapshot-set", {}).status == 201
        volume = self.call("POST", "/snapshot-set/volumes", {"path": str(self.node.place / "data"), "provider": None})
        assert volume.status == 201, volume
        self.snapshot = volume.json["snapshot_id"]

    def add_all(self):
        """Component `main` alone: `spare` is left for AddComponent."""
        writer = self.wire.get(self.path + "/writers")["items"][0]
        made = self.call("POST", "/components", {"instance_id": writer["instance_id"], "logical_path": "", "name": "main"})
        assert made.status == 201, made
        self.components["first"] = made.json

    def step(self, state):
        if state == "identified" and self.matrix != "backup":
            self.done("metadata")
        elif state == "set_open":
            self.open_set()
        else:
            super().step(state)

    def bring(self, state):
        if state in ("snapshot_failed", "completed", "aborted"):
            self.bring("prepared" if state != "completed" else "snapshotted")
            self.end(state)
        elif self.matrix == "no_writers" and state not in ("initialized", "identified"):
            self.step("set_open")
            if state == "snapshotted":
                self.step("snapshotted")
        elif self.matrix == "backup":
            self.to(state)
        elif state != "initialized":
            self.step(state)
        return self

    def end(self, state):
        if state == "snapshot_failed":
            (self.node.faults / "worker.snapshot.create").write_text("once")
            assert self.job("snapshot")["state"] == "failed"
        elif state == "completed":
            self.done("complete")
        else:
            assert self.call("POST", "/abort").json["state"] == "aborted"


class Restoring(Driven):
    """Of a real backup, by its document: a writer that can do everything, a subcomponent and a partial file are written into it."""

    def __init__(self, node, wire):
        self.node, self.wire, self.components, self.matrix, self.snapshot = node, wire, {}, "restore", None
        self.of, document = self.backed_up()
        made = wire.call("POST", "/sessions", {"kind": "restore", "document": document})
        assert made.status == 201, made
        self.id, self.path = made.json["id"], "/sessions/" + made.json["id"]
        self.components["first"] = wire.get(self.path + "/components")["items"][0]

    def backed_up(self):
        if not hasattr(self.node, "backed_up"):
            session = Driven(self.node, self.wire, "backup").bring("snapshotted")
            backup = session.copy()
            session.succeed("first")
            session.done("complete")
            document = self.wire.get(session.path + "/document")
            assert session.call("DELETE").status in (202, 204)
            document["writers"][0]["backup_schema"] = ["new_target", "restore_with_move", "authoritative", "roll_forward", "restore_rename"]
            document["writers"][0]["components"].append({"logical_path": "main", "name": "part", "selectable": False, "selectable_for_restore": True,
                                                         "file_sets": []})
            document["components"][0]["partial_files"] = [{"path": str(self.node.place / "data"), "name": "file", "ranges": "0:1"}]
            self.node.backed_up = backup, document
        return self.node.backed_up

    def step(self, state):
        if state == "identified":
            self.done("metadata")
            assert self.call("PATCH", "/components/" + component_of(self), {"selected": True}).status == 200
        else:
            self.done("pre-restore" if state == "pre_restored" else "post-restore")

    def bring(self, state):
        if state == "aborted":
            self.bring("identified")
            self.cancel()
        else:
            for step in ("identified", "pre_restored", "completed")[:("initialized", "identified", "pre_restored", "completed").index(state)]:
                self.step(step)
        return self

    def cancel(self):
        with held(self.node, "worker.pre_restore"):
            job = self.begin("pre-restore")
            assert self.wire.call("DELETE", "/jobs/" + job["id"]).status == 202
            assert self.wire.wait(job)["state"] == "cancelled"


@contextlib.contextmanager
def held(node, point):
    """The operation's worker holds at the fault point until the end of the block."""
    hold = node.faults / point
    hold.write_text("hold")
    try:
        yield hold.with_suffix(hold.suffix + ".hit")
    finally:
        hold.unlink(missing_ok=True)
        hold.with_suffix(hold.suffix + ".hit").unlink(missing_ok=True)


class Stage:
    """One node, and one session at a time: a set that is open or prepared holds the node's creation slot."""

    def __init__(self, node):
        self.node, self.wire, self.session, self.at = node, Wire(node), None, None

    def take(self, matrix, state, reuse=False):
        if not (reuse and self.at == (matrix, state)):
            self.clear()
            made = Restoring(self.node, self.wire) if matrix == "restore" else Driven(self.node, self.wire, matrix)
            self.session, self.at = made, None
            made.bring(state)
            assert made.view()["state"] == state
        self.at = (matrix, state) if reuse else None
        return self.session

    def clear(self):
        if self.session:
            released = self.session.call("DELETE")
            assert released.status in (202, 204, 404), released
            if released.status == 202:
                self.wire.wait(released.json)
        self.session = self.at = None


@pytest.fixture(scope="module")
def stage():
    place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-test-", dir="/var/tmp"))
    place.chmod(0o755)
    components = ('[{"type":"filegroup","logical_path":"","name":"main","selectable":true,"file_sets":[{"path":"%s/data","spec":"*","recursive":true}]},'
                  '{"type":"filegroup","logical_path":"","name":"spare","selectable":true,"file_sets":[]}]' % place)
    text = configuration(place, [Writer(place, "first", COMPONENTS=components)]) + f"expose: {{roots: [{place}]}}\n"
    node = Daemon(place, text.replace(f"restore: {{roots: [{place}/restored]", f"restore: {{roots: [{place}/data, {place}/restored]"))
    node.start()
    one = Stage(node)
    yield one
    one.clear()
    status, reports = node.stop(), node.sanitized()
    shutil.rmtree(place)
    assert status == 0 and not reports, reports


def check(session, operation, cell, state, pending=None):
    before = None if changes(operation, cell) else portrait(session)
    reply = call(session, operation)
    if cell in UNCHANGED:
        code = {"bad": (409, "VSS_E_BAD_STATE"), "busy": (409, "VSS_E_SNAPSHOT_SET_IN_PROGRESS"), "absent": (404, "VSS_E_OBJECT_NOT_FOUND"),
                "unsupported": (422, "VSS_E_UNSUPPORTED_CONTEXT"), "ignored": (200, None)}[cell]
        assert (reply.status, reply.json.get("hresult")) == code, reply
        if cell == "bad":
            assert reply.json["session_state"] == state and reply.json["detail"], reply
            assert reply.json.get("job") == (None if operation in READS else pending), reply
        elif cell == "busy":
            assert int(reply.headers["retry-after"]) > 0, reply
    elif cell == "gone":
        assert reply.status in (202, 204), reply
        if reply.status == 202:
            assert session.wire.wait(reply.json)["state"] == "succeeded"
        assert session.call("GET").status == 404
    else:
        assert reply.status in (200, 201, 202), reply
        if reply.status == 202:
            assert session.wire.wait(reply.json)["state"] == "succeeded"
        assert session.view()["state"] == (state if cell == "=" else cell.removeprefix("->"))
    if before:
        after = portrait(session)
        assert after == before, f"{operation} in {state} changed {[part for part in before if before[part] != after[part]]}"


def every(matrix):
    states, rows = MATRICES[matrix]
    return [pytest.param(matrix, *cell, id="-".join((matrix, cell[0], cell[1]))) for cell in cells(states, rows)]


@pytest.mark.parametrize("matrix, state, operation, cell", every("backup") + every("no_writers") + every("restore"))
def test_cell(stage, matrix, state, operation, cell):
    check(stage.take(matrix, state, reuse=not changes(operation, cell)), operation, cell, state)


@pytest.mark.parametrize("job", PENDING_JOBS)
def test_while_a_job_is_pending(stage, job):
    """The job's worker holds at its beginning until every call has been made; the last is AbortBackup, which ends it."""
    state = {"metadata": "initialized", "prepare": "set_open", "snapshot": "prepared"}.get(job, "snapshotted")
    session = stage.take("backup", state)
    hold = stage.node.faults / f"worker.{job}"
    hold.write_text("hold")
    try:
        pending = session.begin(job, {"repository": "main"} if job == "copy" else None)
        session.wire.watch(pending, lambda job: hold.with_suffix(hold.suffix + ".hit").exists() and job["state"] == "running")
        column = PENDING_JOBS.index(job)
        for operation, row in PENDING.items():
            if operation != "AbortBackup":
                check(session, operation, row[column], state, pending=pending["id"])
                assert session.view()["pending_job"] == pending["id"], operation
        check(session, "AbortBackup", PENDING["AbortBackup"][column], state)
        assert session.wire.get("/jobs/" + pending["id"])["state"] == "cancelled"
    finally:
        hold.unlink(missing_ok=True)


@pytest.mark.parametrize("job", RESTORE_PENDING_JOBS)
def test_while_a_job_of_a_restore_is_pending(stage, job):
    """AbortBackup is ignored: the job goes on, and ends well."""
    state = {"metadata": "initialized", "pre-restore": "identified", "status": "identified"}.get(job, "pre_restored")
    session = stage.take("restore", state)
    with held(stage.node, "worker." + job.replace("-", "_")) as hit:
        pending = session.begin(job, {"backup_id": session.of} if job == "restore-files" else None)
        session.wire.watch(pending, lambda job: hit.exists() and job["state"] == "running")
        for operation, cell in RESTORE_PENDING.items():
            check(session, operation, cell, state, pending=pending["id"])
            assert session.view()["pending_job"] == pending["id"], operation
    assert session.wire.wait(pending)["state"] == "succeeded"


@pytest.mark.parametrize("state", MATRICES["backup"][0])
def test_a_backup_refuses_the_calls_of_a_restore(stage, state):
    """Where the component is not there yet, that comes first: existence before state."""
    session = stage.take("backup", state)
    for operation in RESTORE_ONLY:
        absent = state == "initialized" and "/components/" in CALLS[operation](session)[1]
        check(session, operation, "absent" if absent else "bad", state)


@pytest.mark.parametrize("state", ("set_open", "prepared"))
def test_another_sessions_open_set_is_in_progress(stage, state):
    """The node's one creation slot: asked for by a session that may start a set, and by one that may not, which is told that first."""
    holder = stage.take("backup", state)
    other, early = Driven(stage.node, stage.wire, "backup").bring("identified"), Driven(stage.node, stage.wire, "backup")
    check(other, "StartSnapshotSet", "busy", "identified")
    check(early, "StartSnapshotSet", "bad", "initialized")
    assert holder.call("POST", "/abort").json["state"] == "aborted"
    check(other, "StartSnapshotSet", "->set_open", "identified")
    for session in (other, early):
        assert session.call("DELETE").status in (202, 204)


def test_set_context_is_called_once(stage):
    session = stage.take("backup", "initialized")
    check(session, "SetContext", "=", "initialized")
    check(session, "SetContext", "bad", "initialized")


def test_prepare_for_backup_needs_set_backup_state(stage):
    session = stage.take("backup", "initialized")
    session.done("metadata")
    session.open_set()
    check(session, "PrepareForBackup", "bad", "set_open")
    check(session, "SetBackupState", "=", "set_open")
    check(session, "PrepareForBackup", "->prepared", "set_open")


def test_prepared_is_enough_where_nothing_needs_a_snapshot(stage):
    session = stage.take("backup", "initialized")
    assert session.call("PUT", "/backup-state", BACKUP_STATE).status == 200
    session.done("metadata")
    assert session.call("POST", "/snapshot-set", {}).status == 201
    session.done("prepare")
    check(session, "BackupComplete", "->completed", "prepared")


NOT_HERE = [(method, template) for method, template, operation in CONTRACT.operations()
            if not any(status.startswith("2") for status in operation["responses"])]


@pytest.mark.parametrize("method, template", NOT_HERE, ids=[template for _, template in NOT_HERE])
def test_what_has_no_counterpart_here_is_501_with_the_reason(stage, method, template):
    """Of a session and a set that are there, and of those that are not: the answer is the same."""
    session = stage.take("backup", "snapshotted", reuse=True)
    before = portrait(session)
    for session_id, set_id in ((session.id, before[""][1]["snapshot_set_id"]), (NOBODY, NOBODY)):
        for body in (None, {}):
            reply = session.wire.call(method, template.format(session_id=session_id, set_id=set_id), body)
            assert reply.status == 501 and (reply.json["hresult"], reply.json["code"].lower()) == ("E_NOTIMPL", "0x80004001"), reply
            assert any(word in reply.json["detail"] for word in ("no provider here", "VSS itself reserves")), reply
    assert portrait(session) == before


def test_every_call_without_a_counterpart_is_there():
    assert {template.rsplit("/", 1)[1] for _, template in NOT_HERE} == {"import", "break", "recovery-set", "recover", "pre-fast-recovery", "fast-recovery"}


def test_every_volume_says_which_provider_takes_it_or_why_none_does(stage):
    """IsVolumeSupported, of the volume with our data, and of all the others; Query's list of providers has every one that is named."""
    volumes = stage.wire.get("/volumes")["items"]
    providers = {provider["name"] for provider in stage.wire.get("/providers")["items"]}
    ours = [volume for volume in volumes if (str(stage.node.place) + "/").startswith(volume["mount_point"].rstrip("/") + "/")]
    assert any(volume["provider"] for volume in ours), volumes
    for volume in volumes:
        assert (volume["provider"] in providers) or (volume["provider"] is None and volume["reason"]), volume
