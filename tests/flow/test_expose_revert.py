"""ExposeSnapshot, UnexposeSnapshot, RevertToSnapshot and QueryRevertStatus over HTTPS on a btrfs of the test's own."""
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

import leftovers
from conduct import Wire
from snapshot_ground import data, ground, loop_btrfs, revert, reverted, shown  # noqa: F401

# --- ExposeSnapshot, UnexposeSnapshot ---


def exposed_at(path):
    """Options of what is mounted at path, outermost last."""
    lines = [line.split() for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    return [set(fields[5].split(",")) for fields in lines if fields[4] == str(path)]


def test_expose_read_only_and_unexpose(ground, data, shown):
    _, (snapshot,) = ground.take(data)
    (data / "file").write_text("after\n")
    reply = ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)})
    assert reply.status == 201 and reply.headers["location"] == f"/snapshots/{snapshot}" and reply.json["exposed_path"] == str(shown), reply
    assert (shown / "file").read_text() == "before\n" and "exposed_locally" in ground.get(snapshot)["attributes"]
    (options,) = exposed_at(shown)
    assert {"ro", "nosuid", "nodev"} <= options
    with pytest.raises(OSError):
        (shown / "new").write_text("no")
    # it is no volume, and in nobody's way: a set that holds its directory can be made, without it
    assert not [v for v in ground.node.call("GET", "/volumes").json["items"] if v["mount_point"] == str(shown)]
    s = ground.session("file_share_backup")
    ground.open_set(s)
    added = ground.node.call("POST", s + "/snapshot-set/volumes", {"path": str(ground.shown), "provider": "copy"})
    assert added.status == 201 and ground.node.job("POST", s + "/snapshot")["state"] == "succeeded", added
    assert not list(pathlib.Path(ground.get(added.json["snapshot_id"])["path"], "x").iterdir())
    ground.release(s)
    again = ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)})
    assert (again.status, again.json["hresult"]) == (409, "VSS_E_OBJECT_ALREADY_EXISTS"), again
    kept = ground.node.call("DELETE", f"/snapshots/{snapshot}")
    assert (kept.status, kept.json["hresult"]) == (409, "VSS_E_BAD_STATE") and "exposed" in kept.json["detail"], kept
    assert ground.node.call("DELETE", f"/snapshots/{snapshot}/exposure").status == 204
    assert not exposed_at(shown) and ground.get(snapshot)["exposed_path"] is None and list(shown.iterdir()) == []
    again = ground.node.call("DELETE", f"/snapshots/{snapshot}/exposure")
    assert (again.status, again.json["hresult"]) == (404, "VSS_E_OBJECT_NOT_FOUND"), again


def test_delete_by_force_unexposes_first(ground, data, shown):
    _, (snapshot,) = ground.take(data)
    assert ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)}).status == 201
    with open(shown / "file") as open_file:
        assert ground.node.call("DELETE", f"/snapshots/{snapshot}?force=true").status == 200
        assert open_file.read() == "before\n"
    assert not exposed_at(shown) and ground.on_disk() == []


def test_where_a_snapshot_may_be_exposed(ground, data, shown):
    """Only at an empty directory beneath a root, by its own path; nothing changes otherwise."""
    _, (snapshot,) = ground.take(data)
    outside, link, full = ground.place / "outside", ground.shown / "link", ground.shown / "full"
    outside.mkdir()
    link.symlink_to(outside)
    full.mkdir()
    (full / "file").write_text("here before\n")
    before = ground.get(snapshot)
    for path in (outside, ground.shown, ground.shown / "missing", link, f"{ground.shown}/../outside", full, full / "file", "relative"):
        reply = ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(path)})
        assert (reply.status, reply.json["hresult"]) == (400, "E_INVALIDARG"), (path, reply)
        assert reply.json["errors"][0]["pointer"] == "/path", reply
    for body in ({}, {"path": str(shown), "more": 1}, {"path": ""}):
        assert ground.node.call("POST", f"/snapshots/{snapshot}/exposure", body).status == 400
    assert ground.get(snapshot) == before and not leftovers.mounts(ground.node)
    _, (other,) = ground.take(data)
    assert ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)}).status == 201
    reply = ground.node.call("POST", f"/snapshots/{other}/exposure", {"path": str(shown)})
    assert reply.status == 400 and "mounted" in reply.json["detail"], reply
    s, (released,) = ground.take(data, context="backup")
    reply = ground.node.call("POST", f"/snapshots/{released}/exposure", {"path": str(shown)})
    assert (reply.status, reply.json["hresult"]) == (422, "VSS_E_UNSUPPORTED_CONTEXT"), reply
    ground.release(s)
    ground.clear()
    shutil.rmtree(full)
    link.unlink()
    outside.rmdir()


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGKILL))
def test_an_exposure_outlives_the_daemon_and_comes_back_after_a_reboot(ground, data, shown, how):
    _, (snapshot,) = ground.take(data)
    assert ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)}).status == 201
    ground.restart(how)
    assert len(exposed_at(shown)) == 1 and ground.get(snapshot)["exposed_path"] == str(shown)
    assert ground.node.stop() == 0
    subprocess.run(["umount", shown], check=True)  # as a reboot would
    ground.restart()
    assert (shown / "file").read_text() == "before\n" and len(exposed_at(shown)) == 1
    assert ground.node.call("DELETE", f"/snapshots/{snapshot}/exposure").status == 204


def test_an_exposure_outside_of_the_roots_of_today_is_unmounted(ground, data, shown):
    _, (snapshot,) = ground.take(data)
    assert ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)}).status == 201
    settings = ground.node.place / "quiesced.yaml"
    text = settings.read_text()
    settings.write_text(text.replace(f"roots: [{ground.shown}]", f"roots: [{ground.place}/others]"))
    try:
        ground.restart()
        assert not exposed_at(shown) and ground.get(snapshot)["exposed_path"] is None
        assert any(snapshot in error["text"] and "expose.roots" in error["text"] for error in ground.node.call("GET", "/errors").json["items"])
    finally:
        settings.write_text(text)
        ground.restart()


def test_an_exposure_that_could_not_be_unmounted_is_kept_in_mind(ground, data, shown):
    """Outside of the roots of today, but mounted all the same: the record goes on telling."""
    _, (snapshot,) = ground.take(data)
    settings, unexpose = ground.node.place / "quiesced.yaml", ground.node.faults / "provider.unexpose"
    text = settings.read_text()
    assert ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)}).status == 201
    settings.write_text(text.replace(f"roots: [{ground.shown}]", f"roots: [{ground.place}/others]"))
    unexpose.write_text("fail")
    try:
        ground.restart()
        assert len(exposed_at(shown)) == 1 and ground.get(snapshot)["exposed_path"] == str(shown)
        assert any(snapshot in error["text"] and "still mounted" in error["text"] for error in ground.node.call("GET", "/errors").json["items"])
    finally:
        leftovers.forget(ground.node, "provider.unexpose")
        settings.write_text(text)
        ground.restart()
    assert ground.node.call("DELETE", f"/snapshots/{snapshot}/exposure").status == 204 and not exposed_at(shown)


def test_an_exposure_that_cannot_come_back_is_told(ground, data, shown):
    _, (snapshot,) = ground.take(data)
    assert ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)}).status == 201
    assert ground.node.stop() == 0
    subprocess.run(["umount", shown], check=True)
    (shown / "file").write_text("somebody uses it\n")
    ground.restart()
    assert ground.get(snapshot)["exposed_path"] is None and (shown / "file").read_text() == "somebody uses it\n"
    assert any(snapshot in error["text"] for error in ground.node.call("GET", "/errors").json["items"])
    (shown / "file").unlink()


def test_a_kill_behind_the_mount_leaves_no_mount(ground, data, shown):
    """The mount is there, nobody was told: the next start takes it away."""
    _, (snapshot,) = ground.take(data)
    commit = ground.node.faults / "engine.exposed"
    commit.write_text("crash")
    wire = Wire(ground.node)
    wire.ask("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)})
    assert not leftovers.settle(lambda: not leftovers.hits(ground.node, "engine.exposed"))
    assert len(exposed_at(shown)) == 1
    leftovers.forget(ground.node, "engine.exposed")
    wire.close()
    ground.wire = None
    leftovers.ready(ground.node)
    assert not exposed_at(shown) and ground.get(snapshot)["exposed_path"] is None


def test_only_our_own_mount_is_unmounted(ground, data, shown):
    """Somebody has unmounted it and mounted something else: that stays."""
    _, (snapshot,) = ground.take(data)
    assert ground.node.call("POST", f"/snapshots/{snapshot}/exposure", {"path": str(shown)}).status == 201
    subprocess.run(["umount", shown], check=True)
    subprocess.run(["mount", "--bind", data, shown], check=True)
    try:
        assert ground.node.call("DELETE", f"/snapshots/{snapshot}/exposure").status == 204
        assert len(exposed_at(shown)) == 1 and ground.get(snapshot)["exposed_path"] is None
    finally:
        subprocess.run(["umount", shown], check=True)


# --- RevertToSnapshot, QueryRevertStatus ---


def change(data):
    (data / "file").write_text("after\n")
    (data / "new").write_text("made later\n")


def content(data):
    return {entry.name: entry.read_text() for entry in data.iterdir()}


BEFORE, AFTER = {"file": "before\n"}, {"file": "after\n", "new": "made later\n"}


def test_revert_makes_the_volume_what_the_snapshot_holds(ground, data):
    _, (snapshot,) = ground.take(data, context="app_rollback")
    none = ground.node.call("GET", f"/snapshots/{snapshot}/revert")
    assert (none.status, none.json["hresult"]) == (404, "VSS_E_OBJECT_NOT_FOUND"), none
    change(data)
    assert content(data) == AFTER
    job = reverted(ground, snapshot)
    assert (job["state"], job["hresult"], job["operation"]) == ("succeeded", "VSS_S_ASYNC_FINISHED", "RevertToSnapshot"), job
    assert job["result"] == {"snapshot_id": snapshot, "volume": str(data)} and job["cancellable"] is False, job
    assert content(data) == BEFORE
    (data / "file").write_text("it can be written to\n")
    status = ground.node.call("GET", f"/snapshots/{snapshot}/revert")
    assert status.status == 200 and status.json == ground.node.call("GET", "/jobs/" + job["id"]).json, status
    # the snapshot is still there, of a volume that is still its volume: again, and to another one
    _, (second,) = ground.take(data)
    assert reverted(ground, snapshot)["state"] == "succeeded" and content(data) == BEFORE
    assert reverted(ground, second)["state"] == "succeeded" and content(data) == {"file": "it can be written to\n"}
    assert ground.node.call("GET", f"/snapshots/{snapshot}/revert").json["result"]["snapshot_id"] == second
    ground.clear()
    assert ground.on_disk() == []


def test_a_revert_cannot_be_cancelled(ground, data):
    _, (snapshot,) = ground.take(data)
    _, (other,) = ground.take(data)
    change(data)
    hold = ground.node.faults / "worker.revert"
    hold.write_text("pause")
    reply = revert(ground, snapshot)
    assert reply.status == 202, reply
    assert not leftovers.settle(lambda: not leftovers.hits(ground.node, "worker.revert"))
    job = ground.node.call("GET", f"/snapshots/{other}/revert").json
    assert job["id"] == reply.json["id"] and job["state"] == "running" and job["cancellable"] is False, job
    refused = ground.node.call("DELETE", "/jobs/" + job["id"])
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_S_ASYNC_PENDING") and refused.json["hint"], refused
    for second in (snapshot, other):  # one revert of a volume at a time
        refused = revert(ground, second)
        assert (refused.status, refused.json["hresult"], refused.json["job"]) == (409, "VSS_E_REVERT_IN_PROGRESS", job["id"]), refused
    for path in (f"/snapshots/{snapshot}", f"/snapshot-sets/{ground.get(snapshot)['set_id']}"):
        refused = ground.node.call("DELETE", path)
        assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_BAD_STATE"), refused
    leftovers.forget(ground.node, "worker.revert")
    assert ground.node.wait(job["id"])["state"] == "succeeded" and content(data) == BEFORE
    refused = ground.node.call("DELETE", "/jobs/" + job["id"])
    assert (refused.status, refused.json["hresult"]) == (409, "VSS_S_ASYNC_FINISHED"), refused


def test_two_reverts_of_one_volume_that_are_looked_at_together_become_one(ground, data):
    _, (snapshot,) = ground.take(data)
    _, (other,) = ground.take(data)
    change(data)
    for point in ("worker.revert_check", "worker.revert"):
        (ground.node.faults / point).write_text("pause")
    wires = [Wire(ground.node), Wire(ground.node)]
    for wire, one in zip(wires, (snapshot, other)):
        wire.ask("POST", f"/snapshots/{one}/revert", {"force": True})  # else each of them may find the other in the volume
    assert not leftovers.settle(lambda: len(leftovers.hits(ground.node, "worker.revert_check")) < 2)
    leftovers.forget(ground.node, "worker.revert_check")
    replies = sorted((wire.hear() for wire in wires), key=lambda reply: reply.status)
    assert [reply.status for reply in replies] == [202, 409], replies
    assert (replies[1].json["hresult"], replies[1].json["job"]) == ("VSS_E_REVERT_IN_PROGRESS", replies[0].json["id"]), replies
    leftovers.forget(ground.node, "worker.revert")
    assert ground.node.wait(replies[0].json["id"])["state"] == "succeeded" and content(data) == BEFORE
    for wire in wires:
        wire.close()


def test_a_volume_in_use_is_reverted_by_force_only(ground, data):
    _, (snapshot,) = ground.take(data)
    change(data)
    with open(data / "file") as held:
        refused = revert(ground, snapshot)
        assert (refused.status, refused.json["hresult"]) == (409, "VSS_E_VOLUME_IN_USE"), refused
        assert str(os.getpid()) in refused.json["detail"] and "force" in refused.json["hint"], refused
        assert content(data) == AFTER
        user = subprocess.Popen(["sleep", "600"], cwd=data, user="nobody")  # whoever it is
        try:
            assert str(user.pid) in revert(ground, snapshot).json["detail"]
        finally:
            user.kill()
            user.wait()
        assert reverted(ground, snapshot, force=True)["state"] == "succeeded"
        assert content(data) == BEFORE and held.read() == "after\n"


def test_what_cannot_be_reverted_is_told_and_stays(ground, data):
    """Mounted itself, with a mount or a subvolume in it, replaced, gone; not persistent; by a provider that cannot."""
    _, (snapshot,) = ground.take(data)
    change(data)

    def refused(status, code, **body):
        before = content(data) if data.exists() else None
        reply = revert(ground, snapshot, **body)
        assert (reply.status, reply.json["hresult"]) == (status, code) and reply.json["detail"], reply
        assert (content(data) if data.exists() else None) == before
        assert ground.node.call("GET", f"/snapshots/{snapshot}/revert").status == 404  # no job was made

    elsewhere = ground.place / "elsewhere"
    elsewhere.mkdir()
    for options in (["-o", "subvol=/" + data.name, loop_of(ground.mount)], ["--bind", data]):
        subprocess.run(["mount", *options, elsewhere], check=True)
        try:
            refused(409, "VSS_E_VOLUME_IN_USE", force=True)
        finally:
            subprocess.run(["umount", elsewhere], check=True)
    elsewhere.rmdir()
    loop_btrfs.subvolume(data / "nested")
    assert revert(ground, snapshot, force=True).json["hresult"] == "VSS_E_PROVIDER_VETO"
    loop_btrfs.delete(data / "nested")
    (data / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", data / "sub"], check=True)
    assert revert(ground, snapshot, force=True).json["hresult"] == "VSS_E_VOLUME_IN_USE"
    subprocess.run(["umount", data / "sub"], check=True)
    (data / "sub").rmdir()
    ground.drop(data)
    refused(404, "VSS_E_OBJECT_NOT_FOUND", force=True)
    ground.subvolume(data.name)  # another one, at its path
    refused(409, "VSS_E_VOLUME_IN_USE")
    assert reverted(ground, snapshot, force=True)["state"] == "succeeded"
    s, (released,) = ground.take(data, context="backup")
    assert revert(ground, released).json["hresult"] == "VSS_E_UNSUPPORTED_CONTEXT"
    ground.release(s)
    for bad in ({"force": "yes"}, {"more": 1}):
        assert revert(ground, snapshot, **bad).status == 400


def loop_of(mount):
    return subprocess.run(["findmnt", "-no", "SOURCE", mount], check=True, capture_output=True, text=True).stdout.strip()


def test_the_top_of_a_mount_is_not_reverted(ground):
    _, (snapshot,) = ground.take(ground.mount)
    reply = revert(ground, snapshot, force=True)
    assert (reply.status, reply.json["hresult"]) == (409, "VSS_E_VOLUME_IN_USE"), reply
    ground.clear()


def test_a_full_copy_is_not_reverted_to(ground, data):
    s = ground.session_without_context()
    assert ground.node.call("PUT", s + "/context", {"context": "nas_rollback", "attributes": ["plex"]}).status == 200
    ground.open_set(s)
    copied = ground.node.call("POST", s + "/snapshot-set/volumes", {"path": str(data), "provider": None}).json["snapshot_id"]
    assert ground.node.job("POST", s + "/snapshot")["state"] == "succeeded"
    reply = revert(ground, copied)
    assert (reply.status, reply.json["hresult"]) == (501, "E_NOTIMPL") and reply.json["detail"], reply
    ground.release(s)


@pytest.mark.parametrize("point, happened", (("provider.btrfs.revert.copied", False), ("provider.btrfs.revert.exchanged", True)))
@pytest.mark.parametrize("killed", ("worker", "everything", "core"))
def test_a_revert_that_is_killed_ends_as_it_happened(ground, data, point, happened, killed):
    """Before the exchange the volume is as it was, and the job failed; after it the job succeeded. Nothing lies about. A worker that
    goes on while core starts anew is waited for."""
    _, (snapshot,) = ground.take(data)
    change(data)
    fault = ground.node.faults / point
    fault.write_text("once crash" if killed == "worker" else "pause")
    job = revert(ground, snapshot).json["id"]
    if killed != "worker":
        assert not leftovers.settle(lambda: not leftovers.hits(ground.node, point))
    if killed == "everything":
        ground.restart(signal.SIGKILL)
    elif killed == "core":
        os.kill(leftovers.role(ground.node, "core"), signal.SIGKILL)
        fault.unlink()
        ground.wire, happened = None, True
        leftovers.ready(ground.node)
    ended = ground.node.wait(job)
    leftovers.forget(ground.node, point)
    assert content(data) == (BEFORE if happened else AFTER)
    assert ended["state"] == ("succeeded" if happened else "failed"), ended
    if not happened:
        assert ended["hresult"] == "VSS_E_UNEXPECTED" and "as it was" in ended["error"]["detail"], ended
    assert not [name for name in ground.on_disk() if name.endswith(".revert")], ground.on_disk()
    assert ground.node.call("GET", f"/snapshots/{snapshot}/revert").json["id"] == job
    assert reverted(ground, snapshot)["state"] == "succeeded" and content(data) == BEFORE
    ground.clear()
    assert ground.on_disk() == []


def test_what_a_revert_could_not_remove_is_told(ground, data):
    _, (snapshot,) = ground.take(data)
    change(data)
    fault = ground.node.faults / "provider.btrfs.revert.exchanged"
    fault.write_text("once fail")
    job = reverted(ground, snapshot)
    leftovers.forget(ground.node, "provider.btrfs.revert.exchanged")
    assert job["state"] == "succeeded" and job["result"]["cleanup"]["failed"][0]["object"] == snapshot, job
    assert content(data) == BEFORE and f"{snapshot}.revert" in ground.on_disk()
    assert any(snapshot in error["text"] for error in ground.node.call("GET", "/errors").json["items"])
    ground.clear()
    assert ground.on_disk() == []
