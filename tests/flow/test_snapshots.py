"""Snapshot sets over HTTPS on a btrfs of the test's own: contexts, what outlives what, Query, DeleteSnapshots, limits."""
import contextlib
import os
import pathlib
import signal

import pytest

import leftovers
from conduct import Wire
from snapshot_ground import CONTEXTS, data, ground, reverted  # noqa: F401


@pytest.mark.parametrize("context", CONTEXTS)
def test_what_a_context_means(ground, data, context):
    """Its attributes, whether writers are told, and whether the snapshot outlives its session."""
    persistent, writers, attributes = CONTEXTS[context]
    told = len(ground.writer.heard(event="freeze"))
    s, (snapshot,) = ground.take(data, context=context)
    shown = ground.get(snapshot)
    assert shown["context"] == context and shown["attributes"] == attributes + ["differential"], shown
    assert shown["session_id"] == s.rsplit("/", 1)[1] and shown["volume"] == str(data) and shown["provider"] == "btrfs", shown
    assert shown["state"] == "created" and shown["exposed_path"] is None and shown["node"], shown
    assert pathlib.Path(shown["path"], "file").read_text() == "before\n"
    assert (len(ground.writer.heard(event="freeze")) > told) == writers
    ground.release(s)
    assert not leftovers.settle(lambda: ground.node.call("GET", s).status != 404)
    assert ground.listed(f"?context={context}") == ([snapshot] if persistent else [])
    assert ground.on_disk() == ([snapshot, f"{snapshot}.json"] if persistent else [])


def test_context_all_creates_nothing_and_asks_for_everything(ground, data):
    _, (one,) = ground.take(data, context="nas_rollback")
    _, (other,) = ground.take(data, context="client_accessible")
    s = ground.session("all")
    refused = ground.node.call("POST", s + "/snapshot-set", {})
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE"), refused
    assert ground.listed("?context=all") == ground.listed() == [other, one]
    ground.release(s)


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGKILL))
def test_a_persistent_snapshot_outlives_the_daemon_and_an_auto_release_one_does_not(ground, data, how):
    other = ground.subvolume(f"second-{how}")
    s, (kept,) = ground.take(data, context="app_rollback")
    before = ground.get(kept)
    ground.take(other, context="backup")
    ground.restart(how)
    assert ground.listed() == [kept] and ground.get(kept) == before
    assert ground.on_disk() == [kept, f"{kept}.json"] and pathlib.Path(before["path"], "file").read_text() == "before\n"
    ground.drop(other)


def test_query_by_session_set_and_volume(ground, data):
    other = ground.subvolume("other")
    s, (first, second) = ground.take(data, other)
    _, (third,) = ground.take(other)
    shown = ground.get(first)
    assert ground.listed() == [third, second, first]
    assert ground.listed("?session=" + s.rsplit("/", 1)[1]) == ground.listed("?set=" + shown["set_id"]) == [second, first]
    assert ground.listed(f"?volume={other}") == [third, second]
    assert ground.listed(f"?volume={other}&set={shown['set_id']}&context=nas_rollback") == [second]
    assert ground.listed("?context=backup") == []
    page = ground.node.call("GET", "/snapshots?limit=2").json
    assert [item["id"] for item in page["items"]] == [third, second]
    assert ground.listed(f"?limit=2&cursor={page['next_cursor']}") == [first]
    whole = ground.node.call("GET", "/snapshot-sets/" + shown["set_id"])
    assert whole.status == 200 and [item["id"] for item in whole.json["snapshots"]] == [first, second] and whole.json["count"] == 2, whole
    assert whole.json["session_id"] == shown["session_id"] and whole.json["context"] == "nas_rollback", whole
    for bad in ("?context=nobody", "?volume=", "?colour=red"):
        assert ground.node.call("GET", "/snapshots" + bad).status == 400
    ground.clear()
    assert ground.node.call("GET", "/snapshot-sets/" + shown["set_id"]).status == 404
    ground.drop(other)


def test_a_set_that_is_not_taken_yet_is_not_found(ground, data):
    s = ground.session()
    set_id = ground.open_set(s)
    snapshot = ground.add(s, data)
    for path in ("/snapshot-sets/" + set_id, "/snapshots/" + snapshot):
        for method in ("GET", "DELETE"):
            reply = ground.node.call(method, path)
            assert (reply.status, reply.json["hresult"]) == (404, "VSS_E_OBJECT_NOT_FOUND"), reply
    ground.release(s)


def test_delete_snapshots_one_and_a_set(ground, data):
    other = ground.subvolume("other")
    _, (first, second) = ground.take(data, other)
    set_id = ground.get(first)["set_id"]
    gone = ground.node.call("DELETE", f"/snapshots/{first}")
    assert gone.status == 200 and gone.json == {"deleted": 1, "snapshot_ids": [first], "nondeleted_snapshot_id": None}, gone
    assert ground.node.call("GET", f"/snapshots/{first}").status == ground.node.call("DELETE", f"/snapshots/{first}").status == 404
    left = ground.node.call("GET", f"/snapshot-sets/{set_id}").json
    assert [item["id"] for item in left["snapshots"]] == [second] and left["count"] == 2
    assert ground.on_disk() == [second, f"{second}.json"]
    gone = ground.node.call("DELETE", f"/snapshot-sets/{set_id}")
    assert gone.status == 200 and gone.json["snapshot_ids"] == [second], gone
    assert ground.on_disk() == [] and ground.node.call("DELETE", f"/snapshot-sets/{set_id}").status == 404
    ground.drop(other)


def test_delete_snapshots_stops_at_the_first_failure_and_names_it(ground, data):
    """The second of three is no longer ours: its mark names another node. What was deleted before stays deleted, the third is not tried."""
    others = [ground.subvolume(name) for name in ("second", "third")]
    _, (first, second, third) = ground.take(data, *others)
    set_id, mark = ground.get(first)["set_id"], ground.mount / ".quiesced" / f"{second}.json"
    ours = mark.read_text()
    mark.write_text(ours.replace('"node":"', '"node":"not-'))
    failed = ground.node.call("DELETE", f"/snapshot-sets/{set_id}")
    assert (failed.status, failed.json["hresult"]) == (502, "VSS_E_PROVIDER_VETO"), failed
    assert failed.json["nondeleted_snapshot_id"] == second and failed.json["deleted"] == 1 and failed.json["snapshot_ids"] == [first], failed
    assert ground.listed() == [third, second] and [ground.get(s)["state"] for s in (second, third)] == ["created", "created"]
    assert {second, third} <= set(ground.on_disk()) and first not in ground.on_disk()
    mark.write_text(ours)
    again = ground.node.call("DELETE", f"/snapshot-sets/{set_id}")
    assert again.status == 200 and again.json["snapshot_ids"] == [second, third], again
    for path in others:
        ground.drop(path)


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGKILL))
def test_a_removal_that_was_broken_off_is_finished_at_the_next_start(ground, data, how):
    _, (snapshot,) = ground.take(data)
    hold = ground.node.faults / "worker.remove_snapshot"
    hold.write_text("hold")
    wire = Wire(ground.node)
    wire.ask("DELETE", f"/snapshots/{snapshot}")
    assert not leftovers.settle(lambda: not leftovers.hits(ground.node, "worker.remove_snapshot"))
    assert ground.get(snapshot)["state"] == "deleting"
    second = ground.node.call("DELETE", f"/snapshots/{snapshot}")
    assert (second.status, second.json["hresult"]) == (409, "VSS_E_BAD_STATE"), second
    if how == signal.SIGKILL:
        leftovers.forget(ground.node, "worker.remove_snapshot")
        hold.write_text("crash")
    ground.restart(how)
    wire.close()
    assert ground.listed() == [] and ground.on_disk() == []
    leftovers.forget(ground.node, "worker.remove_snapshot")


def test_a_snapshot_is_not_deleted_while_its_session_works(ground, data):
    s, (snapshot,) = ground.take(data, context="backup")
    hold = ground.node.faults / "worker.status"
    hold.write_text("hold")
    job = ground.node.call("POST", s + "/status").json["id"]
    refused = ground.node.call("DELETE", f"/snapshots/{snapshot}")
    assert (refused.status, refused.json["hresult"], refused.json["nondeleted_snapshot_id"]) == (409, "VSS_E_BAD_STATE", snapshot), refused
    leftovers.forget(ground.node, "worker.status")
    assert ground.node.wait(job)["state"] == "succeeded"
    assert ground.node.call("DELETE", f"/snapshots/{snapshot}").status == 200
    ground.release(s)  # which finds nothing to remove


def test_the_volumes_maximum_of_snapshots(ground, data):
    for _ in range(3):
        ground.take(data)
    s = ground.session()
    ground.open_set(s)
    full = ground.node.call("POST", s + "/snapshot-set/volumes", {"path": str(data), "provider": None})
    assert (full.status, full.json["hresult"]) == (507, "VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED") and full.json["hint"], full
    assert ground.node.call("DELETE", f"/snapshots/{ground.listed()[0]}").status == 200
    ground.add(s, data)
    ground.release(s)
    ground.take(data)
    job = ground.node.job("POST", "/backups", {"paths": [str(data)], "repository": "main"})
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED") and job["error"]["hint"], job


def test_whose_a_snapshot_is(ground, data):
    """An operator administers his own, and knows of no others; a viewer sees all and changes none; a restorer looks into all and goes back
    to all, and deletes none."""
    made = ground.call("POST", "/sessions", {"kind": "backup", "context": "nas_rollback"}, token="anna")
    s = "/sessions/" + made.json["id"]
    assert ground.call("POST", s + "/snapshot-set", {}, token="anna").status == 201
    snapshot = ground.call("POST", s + "/snapshot-set/volumes", {"path": str(data), "provider": None}, token="anna").json["snapshot_id"]
    assert ground.node.wait(ground.call("POST", s + "/snapshot", token="anna").json["id"])["state"] == "succeeded"
    row, set_id = f"/snapshots/{snapshot}", ground.get(snapshot)["set_id"]
    calls = [("GET", row, None), ("GET", f"/snapshot-sets/{set_id}", None), ("GET", row + "/revert", None), ("GET", row + "/files", None), ("DELETE", row + "/exposure", None),
             ("DELETE", row, None), ("DELETE", f"/snapshot-sets/{set_id}", None), ("POST", row + "/exposure", {"path": str(ground.shown / "no")}),
             ("POST", row + "/revert", {})]
    want = {"otto": [404] * 8 + [403], "viktor": [200, 200, 404] + [403] * 6, "rosa": [200, 200, 404, 200, 404, 403, 403, 400, 202]}
    for who, statuses in want.items():
        replies = [ground.call(method, path, body, token=who) for method, path, body in calls]
        assert [reply.status for reply in replies] == statuses, who
        listed = [item["id"] for item in ground.call("GET", "/snapshots", token=who).json["items"]]
        assert listed == ([] if who == "otto" else [snapshot]), who
    assert ground.node.wait(replies[-1].json["id"])["state"] == "succeeded"
    assert ground.call("POST", row + "/revert", {}, token="anna").status == 403
    assert ground.call("GET", row + "/revert", token="rosa").json["id"] == replies[-1].json["id"]
    assert ground.get(snapshot)["state"] == "created" and ground.call("DELETE", row, token="anna").json["deleted"] == 1
    ground.release(s)


def test_looking_into_a_snapshot(ground, data):
    (data / "sub" / "deep").mkdir(parents=True)
    for n in range(12):
        (data / "sub" / f"{n:02}").write_bytes(b"x" * n)
    (data / "link").symlink_to("/etc")
    (data / "out").symlink_to("sub")
    os.mkfifo(data / "pipe")
    os.close(os.open(os.fsencode(data) + b"/bad\xff\nname", os.O_CREAT | os.O_WRONLY, 0o640))
    s, (snapshot,) = ground.take(data, context="backup")
    files = f"/snapshots/{snapshot}/files"
    (data / "file").unlink()
    top = ground.node.call("GET", files).json["items"]
    assert [(item["name"], item["type"], item["target"]) for item in top] == [
        ("bad\\xff\\x0aname", "file", None), ("file", "file", None), ("link", "symlink", "/etc"), ("out", "symlink", "sub"), ("pipe", "fifo", None),
        ("sub", "directory", None)], top
    assert top[0]["mode"] == "0640" and top[1]["bytes"] == len("before\n") and top[1]["uid"] == os.getuid()
    names, cursor = [], ""
    while cursor is not None:
        page = ground.node.call("GET", f"{files}?path=/sub&limit=5" + (f"&cursor={cursor}" if cursor else "")).json
        names += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert names == [f"{n:02}" for n in range(12)] + ["deep"]
    assert ground.node.call("GET", files + "?path=/sub/deep").json["items"] == []
    for path in ("/link", "/out", "/file", "/missing", "/link/ssh"):
        reply = ground.node.call("GET", f"{files}?path={path}")
        assert (reply.status, reply.json["hresult"]) == (404, "VSS_E_OBJECT_NOT_FOUND"), (path, reply)
    for path in ("sub", "/sub/../..", "/sub/", "//etc", ""):
        assert ground.node.call("GET", f"{files}?path={path}").status == 400, path
    ground.release(s)
    assert ground.node.call("GET", files).status == 404


def test_those_who_look_into_snapshots_at_once_are_bounded(ground, data):
    """Each is a worker."""
    _, (snapshot,) = ground.take(data)
    hold = ground.node.faults / "worker.list_files"
    hold.write_text("pause")
    files, wires = f"/snapshots/{snapshot}/files", [Wire(ground.node) for _ in range(16)]
    for wire in wires:
        wire.ask("GET", files)
    assert not leftovers.settle(lambda: len(leftovers.hits(ground.node, "worker.list_files")) < 16)
    refused = ground.node.call("GET", files)
    assert (refused.status, refused.json["hresult"]) == (503, "E_OUTOFMEMORY") and int(refused.headers["retry-after"]) > 0, refused
    leftovers.forget(ground.node, "worker.list_files")
    assert [wire.hear().status for wire in wires] == [200] * 16
    assert ground.node.call("GET", files).status == 200
    for wire in wires:
        wire.close()


def test_a_tree_whose_removal_failed_is_told_and_removed_later(ground, data):
    """A copy goes file by file: once its removal began it is no snapshot any more, until it is gone."""
    def copied():
        s = ground.session_without_context()
        assert ground.node.call("PUT", s + "/context", {"context": "nas_rollback", "attributes": ["plex"]}).status == 200
        ground.open_set(s)
        snapshot = ground.node.call("POST", s + "/snapshot-set/volumes", {"path": str(data), "provider": None}).json["snapshot_id"]
        assert ground.node.job("POST", s + "/snapshot")["state"] == "succeeded"
        ground.release(s)
        (ground.node.faults / "provider.remove").write_text("once fail")
        failed = ground.node.call("DELETE", f"/snapshots/{snapshot}")
        leftovers.forget(ground.node, "provider.remove")
        assert (failed.status, failed.json["hresult"], failed.json["nondeleted_snapshot_id"]) == (500, "VSS_E_UNEXPECTED", snapshot), failed
        assert ground.get(snapshot)["state"] == "deleting"
        return snapshot

    snapshot = copied()
    for method, path, body in (("POST", "exposure", {"path": str(ground.shown / "x")}), ("POST", "revert", {})):
        reply = ground.node.call(method, f"/snapshots/{snapshot}/{path}", body)
        assert (reply.status, reply.json["hresult"]) == (409, "VSS_E_BAD_STATE"), reply
    assert ground.node.call("DELETE", f"/snapshots/{snapshot}").status == 200
    again = copied()
    ground.restart()
    assert ground.listed() == [] and not leftovers.staging(ground.node), again


@pytest.mark.parametrize("context, kept", (("app_rollback", True), ("backup", False)))
@pytest.mark.parametrize("end", ("abort", "complete"))
def test_a_persistent_snapshot_outlives_its_session_however_that_ends(ground, data, end, context, kept):
    s, (snapshot,) = ground.take(data, context=context)
    if end == "abort":
        assert ground.node.call("POST", s + "/abort").json["state"] == "aborted"
    else:
        assert ground.node.job("POST", s + "/complete")["state"] == "succeeded"
        assert ground.listed() == [snapshot]  # BackupComplete is not the end of the session
        ground.release(s)
    assert ground.listed() == ([snapshot] if kept else [])
    assert ground.on_disk() == ([snapshot, f"{snapshot}.json"] if kept else [])
    if end == "abort":
        ground.release(s)


def test_a_persistent_snapshot_outlives_its_sessions_worker(ground, data):
    s, (snapshot,) = ground.take(data, context="app_rollback")
    for worker in [pid for pid in leftovers.running(ground.node) if "--role=worker" in leftovers.command(pid)]:  # one of another session may be about to end
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    assert not leftovers.settle(lambda: ground.node.call("GET", s).json["state"] != "aborted")
    assert ground.listed() == [snapshot] and snapshot in ground.on_disk()


def test_a_set_holds_64_volumes(ground):
    paths = [ground.subvolume(f"many-{n}") for n in range(65)]
    s = ground.session()
    ground.open_set(s)
    for path in paths[:64]:
        ground.add(s, path)
    full = ground.node.call("POST", s + "/snapshot-set/volumes", {"path": str(paths[64]), "provider": None})
    assert (full.status, full.json["hresult"]) == (422, "VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED"), full
    assert ground.node.job("POST", s + "/snapshot")["state"] == "succeeded"
    taken = ground.node.call("GET", "/snapshots?limit=100&session=" + s.rsplit("/", 1)[1]).json["items"]
    assert len(taken) == 64 and {item["set_count"] for item in taken} == {64}
    assert ground.node.call("DELETE", "/snapshot-sets/" + taken[0]["set_id"]).json["deleted"] == 64
    ground.release(s)
    for path in paths:
        ground.drop(path)


def test_one_creation_at_a_time(ground, data):
    s, other = ground.session(), ground.session()
    ground.open_set(s)
    refused = ground.node.call("POST", other + "/snapshot-set", {})
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_SNAPSHOT_SET_IN_PROGRESS"), refused
    assert int(refused.headers["retry-after"]) > 0
    ground.add(s, data)
    assert ground.node.job("POST", s + "/snapshot")["state"] == "succeeded"
    ground.open_set(other)  # a finished set does not block
    ground.release(s)
    ground.release(other)


def test_attributes_of_a_context(ground, data):
    """differential and plex choose the provider; what cannot be had is refused where VSS refuses it."""
    def chosen(*attributes):
        s = ground.session_without_context()
        reply = ground.node.call("PUT", s + "/context", {"context": "nas_rollback", "attributes": list(attributes)})
        return s, reply

    def add(s, provider=None):
        ground.open_set(s)
        reply = ground.node.call("POST", s + "/snapshot-set/volumes", {"path": str(data), "provider": provider})
        if reply.status != 201:
            ground.release(s)
        return reply

    s, reply = chosen("plex", "no_autorecovery")
    assert reply.status == 200 and reply.json["attributes"] == ["plex", "no_autorecovery"], reply
    assert add(s).json["provider"] == "copy"
    assert ground.node.job("POST", s + "/snapshot")["state"] == "succeeded"
    shown = ground.get(ground.listed()[0])
    assert shown["attributes"] == ["persistent", "no_autorecovery", "no_auto_release", "no_writers", "plex"], shown
    ground.release(s)
    s, reply = chosen("differential")
    refused = add(s, "copy")
    assert (refused.status, refused.json["hresult"]) == (422, "VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER"), refused
    s, reply = chosen("transportable")
    refused = add(s)
    assert reply.status == 200 and (refused.status, refused.json["hresult"]) == (422, "VSS_E_VOLUME_NOT_SUPPORTED"), refused
    for attributes, code in ((["differential", "plex"], (400, "E_INVALIDARG")), (["rollback_recovery"], (422, "VSS_E_UNSUPPORTED_CONTEXT")),
                             (["coloured"], (400, "E_INVALIDARG"))):
        s, reply = chosen(*attributes)
        assert (reply.status, reply.json["hresult"]) == code, reply
        assert ground.node.call("GET", s).json["context"] == "backup"
        ground.release(s)
