"""A file that is asked for alone, where no snapshot of its file system can be had: it alone is copied, and not its directory."""
import json
import os
import subprocess

import pytest

import journey
from ctl import OK, Ctl
from test_quiescectl_commands import until


@pytest.fixture
def node(daemon):
    if os.geteuid() != 0:
        pytest.skip("the snapshot is root's")
    place = daemon.place
    config = journey.lay_out(place)
    (place / "data" / "large").write_bytes(os.urandom(1 << 20))
    (place / "data" / "sub").mkdir()
    (place / "data" / "sub" / "inner").write_text("inner")
    on = place / "memory"  # tmpfs: only the provider copy takes it
    on.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "quiesced-test", on], check=True)
    try:
        subprocess.run(["cp", "-a", f"{place}/data/.", on], check=True)
        os.link(on / "file", on / "other-name")
        yield daemon(config.replace(f"{place}/data/app.db", f"{on}/app.db").replace("restore: {roots: [", f"restore: {{roots: [{on}, "))
    finally:
        subprocess.run(["umount", "-l", on], check=True)


def taken(node, **body):
    """What the snapshot of a backup holds, looked at right before it goes; and the backup's id."""
    gate = node.faults / "worker.copy.done"
    gate.write_text("hold")
    job = node.call("POST", "/backups", {"repository": "main", **body}).json
    until((node.faults / "worker.copy.done.hit").exists)
    shown = {}
    for snapshot in node.call("GET", f"/snapshots?session={job['session_id']}").json["items"]:
        assert snapshot["provider"] == "copy"
        shown[snapshot["volume"]] = sorted(os.listdir(snapshot["path"]))
    gate.unlink()
    (node.faults / "worker.copy.done.hit").unlink()
    ended = node.wait(job["id"])
    assert ended["state"] == "succeeded", ended
    return shown, ended["result"]["backup_id"]


def test_the_file_alone_is_copied(node, tmp_path):
    on, ctl = str(node.place / "memory"), Ctl(node, tmp_path)
    shown, backup = taken(node, paths=[f"{on}/file"])
    assert shown == {on: ["file"]}
    assert ctl.json("restore", backup, node.place / "restored")["result"]["files"] == 1
    assert (node.place / "restored" / on[1:] / "file").read_bytes() == (node.place / "memory" / "file").read_bytes()
    assert taken(node, paths=[f"{on}/file", f"{on}/large"])[0] == {on: ["file", "large"]}


def test_what_is_beside_it_comes_when_it_is_asked_for_too(node):
    on = str(node.place / "memory")
    everything = sorted(os.listdir(on))
    assert taken(node, paths=[f"{on}/file", on])[0] == {on: everything}
    shown, _ = taken(node, components=[{"writer": "app", "name": "app"}], paths=[f"{on}/file"])
    assert shown[on] == everything, "the neighbours of a database belong to it"
    shown, backup = taken(node, paths=[f"{on}/file", f"{on}/sub"])
    assert "large" not in shown[on] and "file" in shown[on]
    assert node.call("GET", f"/backups/{backup}").json["files"] == 2


def test_what_is_mounted_beside_it_is_no_matter_of_its_own(node):
    """A plan of the directory would be refused: what is mounted in it is not in its snapshot."""
    on = node.place / "memory"
    (on / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "quiesced-test", on / "mounted"], check=True)
    try:
        plan = node.call("POST", "/backups", {"repository": "main", "paths": [f"{on}/file"], "validate_only": True}).json
        assert plan["refusals"] == [], json.dumps(plan)
        assert taken(node, paths=[f"{on}/file"])[0] == {str(on): ["file"]}
        plan = node.call("POST", "/backups", {"repository": "main", "paths": [f"{on}/file", f"{on}"], "validate_only": True}).json
        assert [rule["rule"] for rule in plan["refusals"]] == ["nested-volume-missing"], plan
    finally:
        subprocess.run(["umount", on / "mounted"], check=True)


def test_a_file_that_is_a_mount_itself_is_refused_before_anything_is_frozen(node):
    """As a container's /etc/hosts: its directory's copy has what lies beneath the mount, if anything."""
    on = node.place / "memory"
    (on / "bound").touch()
    subprocess.run(["mount", "--bind", on / "file", on / "bound"], check=True)
    try:
        for paths in ([f"{on}/bound"], [f"{on}/file", f"{on}/bound"]):
            plan = node.call("POST", "/backups", {"repository": "main", "paths": paths, "validate_only": True}).json
            assert [rule["rule"] for rule in plan["refusals"]] == ["nested-volume-missing"] and f"{on}/bound" in json.dumps(plan["refusals"]), plan
        assert taken(node, paths=[f"{on}/file"])[0] == {str(on): ["file"]}
    finally:
        subprocess.run(["umount", on / "bound"], check=True)


def test_the_volume_of_a_session_is_the_whole_directory(node, tmp_path):
    on, ctl = node.place / "memory", Ctl(node, tmp_path)
    session = ctl.json("session", "create", "kind=backup")["id"]
    ctl.run("session", "set-context", session, "context=app_rollback")
    ctl.run("session", "set-state", session, "component_mode=true", "bootable_system_state=false", "type=copy", "partial_files=false")
    ctl.run("session", "metadata", session)
    ctl.run("session", "start-set", session)
    assert ctl.json("session", "add-volume", session, f"path={on}/file")["volume"] == str(on)
    for verb in ("prepare", "snapshot"):
        ctl.run("session", verb, session)
    (snapshot,) = ctl.json("snapshots", f"session={session}")
    assert sorted(os.listdir(snapshot["path"])) == sorted(os.listdir(on))
    assert ctl.run("hold", "delete", snapshot["id"]).returncode == OK
