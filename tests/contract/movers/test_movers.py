"""Every mover through the same checks: what goes in comes out, damage is found, nothing escapes, a cancel leaves nothing."""
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import uuid

import pytest

from conftest import ROOT, BUILD

needs_root = pytest.mark.skipif(not ROOT, reason="mounts need root")


def fact(path):
    st = path.lstat()
    plain = path.is_file() and not path.is_symlink()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if plain else None
    attributes = {k: os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)}
    return (oct(st.st_mode), st.st_uid, st.st_gid, st.st_size if plain else 0, st.st_mtime_ns, content, attributes, st.st_rdev,
            os.readlink(bytes(path)) if path.is_symlink() else None)


def facts(root):
    return {os.fsencode(p.relative_to(root)): fact(p) for p in [root, *root.rglob("*")] if not p.is_socket()}


def test_what_goes_in_comes_out(ground):
    done = ground.run()
    files = sum(p.is_file() and not p.is_symlink() for p in ground.source.rglob("*"))
    size = sum(p.stat().st_size for p in ground.source.rglob("*") if p.is_file() and not p.is_symlink())
    assert done["result"]["files"] == files and done["result"]["bytes"] == size and done["result"]["stored_bytes"] > 1_000_000, done
    assert ground.progress[-1] == {"type": "progress", "bytes_done": size, "bytes_total": size, "files_done": files, "files_total": files}
    result = ground.restore()["result"]
    assert result["verified"] is True and result["files"] == files and result["bytes"] == size
    assert facts(ground.copy()) == facts(ground.source)
    assert (ground.copy() / "deep" / "twin").stat().st_ino == (ground.copy() / "file-7").stat().st_ino
    for name in ("sparse", "all-hole"):
        assert (ground.copy() / name).stat().st_blocks <= (ground.source / name).stat().st_blocks + 16
    verified = ground.verify()
    assert verified["files"] == files and verified["damaged"] == []
    assert [p.name for p in ground.restored.iterdir()] == [ground.source.parts[1]], "nothing of the staging is left"


def test_progress_never_falls(ground):
    with open(ground.source / "large", "wb") as file:
        for _ in range(200):
            file.write(os.urandom(1 << 20))
    ground.run()
    done = [(line["bytes_done"], line["files_done"]) for line in ground.progress]
    assert done == sorted(done) and len(done) >= 2
    assert all(line["bytes_done"] <= line["bytes_total"] for line in ground.progress)


def test_the_repository_tells_what_it_holds(ground):
    ground.run(document={"components": [1, "ü"]})
    first = ground.backup
    ground.backup = str(uuid.uuid4())
    ground.run()
    items = {item["backup_id"]: item for item in ground.items()}
    assert set(items) == {first, ground.backup}
    assert items[first]["document"] == {"components": [1, "ü"]} and items[first]["files"] > 30 and items[first]["bytes"] > 5_000_000
    assert items[first]["data_id"] and items[first]["created_at"].startswith("20")


def test_a_seal_is_kept_replaced_and_goes_with_its_backup(ground):
    ground.run()
    assert "seal" not in ground.items()[0]
    for seal in ({"version": 1, "complete": True, "reason": None, "document": {"node": "n"}}, {"version": 1, "complete": False, "reason": "ü"}):
        assert ground.call("seal", seal=seal) == {"type": "done", "result": {}}
        assert [item["seal"] for item in ground.items()] == [seal]
    assert ground.verify()["damaged"] == []
    assert "result" in ground.call("remove") and ground.is_clean()
    gone = ground.call("seal", seal={"version": 1, "complete": True})
    assert gone["error"]["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and ground.is_clean()


def test_a_removed_backup_is_gone_and_others_stay(ground):
    ground.run()
    first, ground.backup = ground.backup, str(uuid.uuid4())
    ground.run()
    assert ground.call("remove") == {"type": "done", "result": {}}
    assert [item["backup_id"] for item in ground.items()] == [first]
    assert "result" in ground.call("remove"), "removing what is gone is success"
    ground.backup = first
    assert ground.verify()["damaged"] == []


def test_a_backup_that_is_there_is_not_written_twice(ground):
    ground.run()
    assert ground.run()["error"]["hresult"] == "VSS_E_OBJECT_ALREADY_EXISTS"
    assert ground.verify()["damaged"] == []


def test_a_flipped_byte_is_found_by_verify_and_refused_by_restore(ground):
    ground.run()
    ground.damage()
    assert ground.verify()["damaged"]
    assert "error" in ground.restore()
    assert list(ground.restored.iterdir()) == [], "what cannot be proven is not restored"


@pytest.mark.parametrize("how", ["end of input", "SIGTERM"])
def test_a_cancel_leaves_nothing_behind(ground, how):
    with open(ground.source / "large", "wb") as file:
        for _ in range(600):
            file.write(os.urandom(1 << 20))
    child = ground.start("run", items=[ground.item()], document={}, excludes=[])
    deadline = time.monotonic() + 20
    while not ground.has_begun() and time.monotonic() < deadline:
        time.sleep(0.005)
    if how == "SIGTERM":
        child.send_signal(signal.SIGTERM)
    else:
        child.stdin.close()
    assert ground.finish(child)["error"]["hresult"] == "VSS_S_ASYNC_CANCELLED"
    assert ground.is_clean()
    assert ground.items() == []


def test_a_killed_copy_leaves_nothing_that_the_next_one_stumbles_over(ground):
    with open(ground.source / "large", "wb") as file:
        for _ in range(300):
            file.write(os.urandom(1 << 20))
    child = ground.start("run", items=[ground.item()], document={}, excludes=[])
    while not ground.has_begun():
        time.sleep(0.005)
    child.kill()
    child.wait()
    assert ground.items() == []
    assert "result" in ground.run(), "the same backup again"
    assert [item["backup_id"] for item in ground.items()] == [ground.backup]
    assert ground.verify()["damaged"] == []
    if ground.kind == "archive":
        assert sorted(p.name for p in ground.path.iterdir()) == sorted([ground.backup, "quiesced-repository.json"])
    elif ground.kind == "borg":
        ground.borg("check")
        assert len(ground.archives()) == 2
    else:
        assert "no errors were found" in ground.restic("check")


def test_a_cancelled_restore_leaves_nothing_behind(ground):
    with open(ground.source / "large", "wb") as file:
        for _ in range(300):
            file.write(os.urandom(1 << 20))
    ground.run()
    child = ground.start("restore", target=str(ground.restored), roots=[str(ground.restored)], paths=[], overwrite=False)
    while not list(ground.restored.iterdir()):
        time.sleep(0.002)
    child.stdin.close()
    assert ground.finish(child)["error"]["hresult"] == "VSS_S_ASYNC_CANCELLED"
    assert list(ground.restored.iterdir()) == []


def test_existing_files_are_kept_unless_overwrite(ground):
    ground.run()
    ground.copy().mkdir(parents=True)
    (ground.copy() / "file-1").write_text("mine")
    (ground.copy() / "stranger").write_text("stays")
    assert ground.restore()["error"]["hresult"] == "VSS_E_OBJECT_ALREADY_EXISTS"
    assert (ground.copy() / "file-1").read_text() == "mine" and len(list(ground.copy().iterdir())) == 2
    assert ground.restore(overwrite=True)["result"]["verified"] is True
    (ground.copy() / "stranger").unlink()
    os.utime(ground.copy(), ns=(0, ground.source.stat().st_mtime_ns))
    assert facts(ground.copy()) == facts(ground.source)


@pytest.mark.parametrize("where", ["top", "deep"])
def test_a_symbolic_link_in_the_target_does_not_lead_out_of_it(ground, where):
    ground.run()
    outside = ground.place / "outside"
    outside.mkdir()
    link = ground.restored / ground.source.parts[1] if where == "top" else ground.copy() / "deep"
    link.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(outside, link)
    for overwrite in (False, True):
        assert ground.restore(overwrite=overwrite)["error"]["hresult"] == "E_ACCESSDENIED"
    assert list(outside.iterdir()) == [] and link.is_symlink()


def test_chosen_paths_alone_come_back_with_what_they_are_linked_to(ground):
    os.utime(ground.source, ns=(0, 1_000_000_000_000_000_001))
    ground.run()
    assert ground.restore(paths=[str(ground.source / "deep")])["result"]["verified"] is True
    assert facts(ground.copy() / "deep") == facts(ground.source / "deep"), "the hard link's first name was not chosen"
    assert [p.name for p in ground.copy().iterdir()] == ["deep"]
    assert ground.copy().stat().st_mtime_ns == 1_000_000_000_000_000_001
    assert ground.restore(paths=["/nowhere"])["error"]["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    before = facts(ground.restored)
    partly = ground.restore(paths=[str(ground.source / "file-2"), str(ground.source / "file-22222")])["error"]
    assert partly["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and partly["detail"].endswith("/file-22222"), partly
    assert facts(ground.restored) == before, "who asks for two does not get one"
    odd = str(ground.source / "$HOME [x]*? \\ #")
    assert ground.restore(paths=[odd])["result"]["files"] == 1
    assert sorted(p.name for p in ground.copy().iterdir()) == ["$HOME [x]*? \\ #", "deep"]


def test_a_target_outside_the_roots_is_refused(ground):
    ground.run()
    done = ground.restore(target="/etc")
    assert done["error"]["hresult"] == "E_INVALIDARG" and done["error"]["pointer"] == "/target"


def test_excluded_files_and_sockets_are_left_out_and_nothing_else(ground):
    left = socket.socket(socket.AF_UNIX)
    os.chdir(ground.source)
    left.bind("socket")
    left.close()
    (ground.source / "deep" / "er" / "x.tmp").write_text("x")
    mark = ground.source.stat().st_mtime_ns
    ground.run(excludes=[f"{ground.source}/**/*.tmp", f"{ground.source}/file-1", f"{ground.source}/\\$HOME \\[x\\]\\*\\? \\\\ #", f"{ground.source}/empty"])
    ground.restore()
    expected = facts(ground.source)
    for name in (b"deep/er/x.tmp", b"file-1", b"$HOME [x]*? \\ #", b"empty"):
        del expected[name]
    assert facts(ground.copy()) == expected and ground.source.stat().st_mtime_ns == mark
    assert ground.verify()["damaged"] == []


def test_a_file_name_pattern_and_a_flat_folder(ground):
    ground.run(items=[ground.item(spec="file-1*"), ground.item(path=str(ground.source / "deep"), source=str(ground.source / "deep"), recursive=False)])
    ground.restore()
    expected = {k: v for k, v in facts(ground.source).items() if os.path.isdir(bytes(ground.source) + b"/" + k) or k.startswith(b"file-1") or k.startswith(b"deep/")}
    assert facts(ground.copy()) == expected
    assert ground.verify()["damaged"] == []


def test_a_missing_source_fails_the_copy(ground):
    done = ground.run(items=[ground.item(), ground.item(path=str(ground.place / "no"), source=str(ground.place / "no"))])
    assert done["error"]["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and str(ground.place / "no") in done["error"]["detail"]
    assert ground.items() == []


def test_a_snapshot_and_added_files_appear_at_their_original_paths(ground):
    """As the worker asks: a snapshot elsewhere, one file that only exists in staging, one that replaces what is there."""
    snapshot, staging, live = ground.place / "snapshot", ground.place / "staging", ground.source
    if not ROOT and ground.kind != "archive": # a user namespace shows no ids but the caller's (docs/movers/restic.md)
        subprocess.run(["setfacl", "-b", live / "file-6", live / "deep"], check=True)
    os.rename(live, snapshot)
    live.mkdir()
    (live / "later").write_text("written after the snapshot")
    staging.mkdir()
    (staging / "0").write_text("segment")
    (staging / "1").write_text("newer label")
    items = [ground.item(source=str(snapshot)), {"path": f"{live}/deep/added", "source": f"{staging}/0", "spec": "*", "recursive": False},
             {"path": f"{live}/file-2", "source": f"{staging}/1", "spec": "*", "recursive": False}]
    binds = [{"source": str(snapshot), "target": str(live)}] if ground.kind != "archive" else []
    assert "result" in ground.run(items=items, binds=binds)
    assert f"{ground.place}/" not in pathlib.Path("/proc/self/mountinfo").read_text()
    assert ground.restore()["result"]["verified"] is True
    expected = facts(snapshot)
    expected[b"deep/added"], expected[b"file-2"] = fact(staging / "0"), fact(staging / "1")
    assert facts(ground.copy()) == expected
    assert ground.verify()["damaged"] == []


def test_a_snapshot_that_lies_in_the_tree_it_is_shown_over(ground):
    """As btrfs keeps it: in .quiesced, at the top of the mount that is the volume; a nested volume's beside it, and what a writer added, too."""
    live = ground.source
    if not ROOT and ground.kind != "archive":
        subprocess.run(["setfacl", "-b", live / "file-6", live / "deep"], check=True)
    os.rename(live, ground.place / "aside")
    snapshot, inner, added = (live / ".quiesced" / name for name in ("one", "two", "added"))
    live.mkdir()
    (live / "nested").mkdir()
    (live / "nested" / "later").write_text("written after the snapshot")
    inner.mkdir(parents=True)
    os.rename(ground.place / "aside", snapshot)
    (inner / "content").write_text("of the nested volume")
    inner.chmod(0o751)
    added.write_text("segment")
    (snapshot / "nested").mkdir()
    (snapshot / ".quiesced" / "older").mkdir(parents=True)
    (snapshot / ".quiesced" / "older" / "content").write_text("of another snapshot")
    binds = [{"source": str(inner), "target": f"{live}/nested"}, {"source": str(snapshot), "target": str(live)}] if ground.kind != "archive" else []
    items = [ground.item(source=str(snapshot)), ground.item(path=f"{live}/nested", source=str(inner)), ground.item(path=f"{live}/nested/added", source=str(added), recursive=False)]
    done = ground.run(items=items, binds=binds, excludes=[f"{live}/.quiesced"])
    assert "result" in done, done
    assert f"{ground.place}/" not in pathlib.Path("/proc/self/mountinfo").read_text()
    assert ground.restore()["result"]["files"] == done["result"]["files"]
    expected = {name: known for name, known in facts(snapshot).items() if not name.startswith(b".quiesced")}
    expected.update({os.path.normpath(b"nested/" + name): known for name, known in facts(inner).items()})
    expected[b"nested/added"] = fact(added)
    assert facts(ground.copy()) == expected
    assert ground.verify()["damaged"] == []
    for what in ("deep", "file-2"):
        shutil.rmtree(ground.copy())
        ground.backup = str(uuid.uuid4())
        assert "result" in ground.run(items=[ground.item(path=f"{live}/{what}", source=f"{snapshot}/{what}")], binds=binds)
        assert ground.restore()["result"]["verified"] is True
        assert os.listdir(ground.copy()) == [what] and facts(ground.copy() / what) == facts(snapshot / what)
    ground.backup = str(uuid.uuid4())
    missing = ground.run(items=[ground.item(path=f"{live}/no", source=f"{snapshot}/no")], binds=binds)["error"]
    assert missing["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and missing["detail"].startswith(f"cannot find {snapshot}/no"), missing


@needs_root
def test_a_snapshot_that_cannot_be_shown_at_its_path_is_not_copied_from_live_files(ground):
    """Over "/" a mount can be made, and is not seen."""
    binds = [{"source": str(ground.source), "target": "/"}] if ground.kind != "archive" else []
    done = ground.run(items=[ground.item(path="/")], binds=binds, excludes=[])
    if ground.kind == "archive":
        assert done["result"]["files"] > 30
    else:
        assert done["error"]["hresult"] == "VSS_E_NOT_SUPPORTED" and "archive mover" in done["error"]["hint"], done
        assert ground.items() == []


@needs_root
def test_what_is_mounted_below_is_not_entered(ground):
    subprocess.run(["mount", "-t", "tmpfs", "none", ground.source / "empty"], check=True)
    try:
        (ground.source / "empty" / "other").write_text("another volume's")
        ground.run()
        ground.restore()
        assert list((ground.copy() / "empty").iterdir()) == []
        assert ground.verify()["damaged"] == []
    finally:
        subprocess.run(["umount", ground.source / "empty"], check=True)


@needs_root
def test_a_full_disk_says_how_much_is_left_and_leaves_nothing_behind(ground):
    with open(ground.source / "large", "wb") as file:
        for _ in range(60):
            file.write(os.urandom(1 << 20))
    shutil.rmtree(ground.path, ignore_errors=True)
    ground.path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", ground.path], check=True)
    try:
        error = ground.run()["error"]
        assert error["hresult"] == "VSS_E_INSUFFICIENT_STORAGE" and "repository r" in error["detail"] and error["hint"]
        if ground.kind == "archive": # restic and borg cannot even lock what is full; its own test says what is listed
            assert "bytes are free" in error["detail"] and ground.is_clean() and ground.items() == []
    finally:
        subprocess.run(["umount", ground.path], check=True)


@needs_root
def test_a_full_target_leaves_nothing_behind(ground):
    ground.run()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", ground.restored], check=True)
    try:
        assert ground.restore()["error"]["hresult"] in ("VSS_E_INSUFFICIENT_STORAGE", "VSS_E_UNEXPECTED")
        assert list(ground.restored.iterdir()) == []
    finally:
        subprocess.run(["umount", ground.restored], check=True)


def test_open_creates_only_when_asked(ground):
    shutil.rmtree(ground.path, ignore_errors=True)
    assert ground.call("open", create=False)["error"]["hresult"] == "VSS_E_OBJECT_NOT_FOUND"
    assert "result" in ground.call("open", create=True)
    assert "result" in ground.call("open", create=False)
    assert ground.is_clean()


def test_probe_tells_that_it_may_run(ground):
    assert ground.call("probe")["result"] == {"available": True, "reason": ""}


def test_a_foreign_backup_id_is_refused(ground):
    ground.run()
    ground.backup = "../../etc"
    for verb in ("verify", "remove"):
        assert ground.call(verb)["error"]["hresult"] == "E_INVALIDARG"


@pytest.mark.parametrize("limits,shown,nice", [({"io_class": "idle", "nice": 12}, "idle", 12), ({"io_priority": 6}, "best-effort: prio 6", 0)])
def test_a_copy_runs_within_its_limits_and_so_does_what_it_starts(ground, limits, shown, nice):
    with open(ground.source / "large", "wb") as file:
        for _ in range(150):
            file.write(os.urandom(1 << 20))
    ground.more["limits"] = {"nice": 19}
    child = ground.start("run", items=[ground.item()], document={}, excludes=[], limits=limits)
    while not ground.has_begun():
        assert child.poll() is None
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGSTOP)
    try:
        programs = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        assert len(programs) == (0 if ground.kind == "archive" else 1)
        for pid in [str(child.pid), *programs]:
            assert subprocess.run(["ionice", "-p", pid], capture_output=True, text=True, check=True).stdout.strip() == shown
            assert int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16]) == nice
    finally:
        os.kill(child.pid, signal.SIGCONT)
        child.stdin.close()
    ground.finish(child)
    ground.backup = str(uuid.uuid4())
    assert ground.run(limits={"io_class": "realtime"})["error"]["hresult"] == "E_INVALIDARG"


def test_requests_that_are_no_requests():
    for line in (b"", b"{", b"[]\n", b"{}\n", b'{"verb":"run","mover":"none"}\n', b'{"verb":"dance","mover":"archive"}\n', b"x" * 100_000 + b"\n"):
        child = subprocess.run([BUILD / "quiesced-agent", "--role=mover"], input=line, capture_output=True)
        done = json.loads(child.stdout.splitlines()[-1])
        assert done["type"] == "done" and done["error"]["hresult"] != "S_OK", line


@needs_root
def test_attributes_that_a_merged_folder_cannot_hold_are_warnings(ground):
    """The folder is there already, and ext4 has one block for all attributes of an inode."""
    os.setxattr(ground.source / "deep", "user.theirs", b"t" * 3000)
    assert "result" in ground.run()
    image = ground.place / "image"
    with open(image, "wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, ground.restored], check=True)
    try:
        ground.copy(ground.source / "deep").mkdir(parents=True)
        os.setxattr(ground.copy(ground.source / "deep"), "user.mine", b"m" * 3000)
        result = ground.restore(overwrite=True)["result"]
        assert result["verified"] is True and len(result["warnings"]) == 1, result
        assert result["warnings"][0].startswith(f"{ground.source}/deep: cannot set user.theirs: No space"), result
        assert os.getxattr(ground.copy(ground.source / "deep"), "user.colour") == b"red", "the others are set all the same"
        assert ground.copy(ground.source / "deep" / "twin").stat().st_size > 0
    finally:
        subprocess.run(["umount", ground.restored], check=True)
