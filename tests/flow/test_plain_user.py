"""A plain user runs quiesced: what needs no root works whole, and what needs it says so."""
import os
import pathlib
import shutil
import subprocess

import pytest

import journey
from conftest import BUILD
from receiver import Receiver, until

NOBODY = 65534


@pytest.fixture
def plain(daemon):
    """A daemon of the user nobody (of the caller, when that is a plain user already), from a copy of the binaries that it can reach."""
    place = daemon.place
    binaries = place / "bin"
    binaries.mkdir()
    for binary in BUILD.glob("quiesced*"):
        if binary.is_file() and os.access(binary, os.X_OK):
            shutil.copy(binary, binaries)

    def start(config=""):
        give(place)
        return daemon(config, binaries=binaries, user=NOBODY if os.geteuid() == 0 else None)

    start.place = place
    return start


def give(path):
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", path], check=True)


def processes(node):
    """Every process beneath the daemon: command line and user."""
    found, wanted = {}, {node.process.pid}
    tree = [(int(line.split()[0]), int(line.split()[1]), int(line.split()[2]), line.split(None, 3)[3])
            for line in subprocess.run(["ps", "-eo", "pid=,ppid=,uid=,args="], check=True, capture_output=True, text=True).stdout.splitlines()]
    for _ in range(4):
        wanted |= {pid for pid, parent, _, _ in tree if parent in wanted}
    for pid, _, uid, arguments in tree:
        if pid in wanted:
            found[arguments] = uid
    return found


def test_a_whole_backup_by_copy_and_its_restore(plain):
    node = plain(journey.lay_out(plain.place))
    uid = NOBODY if os.geteuid() == 0 else os.geteuid()
    running = processes(node)
    assert {role for role in ("front", "core", "agent") if any(f"--role={role}" in arguments for arguments in running)} == {"front", "core", "agent"}
    assert set(running.values()) == {uid}
    journey.restore(node, journey.back_up(node, "copy"))
    for name in ("pki/admin.key", "pki/ca.key"):
        status = (node.place / "state" / name).stat()
        assert (status.st_uid, status.st_mode & 0o777) == (uid, 0o600), name
    assert node.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a loop-mounted xfs needs root")
def test_a_whole_backup_by_reflink(plain, tmp_path):
    image, mount = tmp_path / "image", plain.place / "data"
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    config = journey.lay_out(plain.place)
    inside = plain.place / "kept"
    shutil.move(mount, inside)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        shutil.copytree(inside, mount, dirs_exist_ok=True)
        node = plain(config)
        journey.restore(node, journey.back_up(node, "reflink"))
        assert node.stop() == 0
    finally:
        subprocess.run(["umount", mount], check=True)


def test_what_needs_root_says_so(plain):
    node = plain(f"""
writers:
  - {{name: other, type: exec, command: [/bin/true], user: root}}
repositories:
  - {{name: main, mover: archive, path: {plain.place}/backups}}
""")
    providers = {provider["name"]: provider for provider in node.call("GET", "/providers").json["items"]}
    assert providers["copy"]["available"] and providers["reflink"]["available"], providers
    unavailable = [provider for provider in providers.values() if not provider["available"]]
    assert providers["btrfs"] in unavailable
    for provider in unavailable:
        assert "root" in provider["reason"], provider
    (writer,) = node.call("GET", "/writers").json["items"]
    assert writer["available"] is False and "root" in writer["reason"], writer
    s = "/sessions/" + node.call("POST", "/sessions", {"kind": "backup", "context": "file_share_backup"}).json["id"]
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    (node.place / "data").mkdir()
    refused = node.call("POST", s + "/snapshot-set/volumes", {"path": str(node.place / "data"), "provider": "btrfs"})
    assert refused.status == 422 and refused.json["detail"], refused


def test_secrets_of_others_stay_theirs(plain):
    """Paths that the user may not read fail the backup, by name, and nothing is called complete."""
    secret = plain.place / "secret"
    secret.mkdir()
    (secret / "file").write_text("not yours")
    node = plain(f"repositories:\n  - {{name: main, mover: archive, path: {plain.place}/backups}}\n")
    if os.geteuid() == 0:
        os.chown(secret / "file", 0, 0)
    os.chmod(secret / "file", 0o000)
    job = node.job("POST", "/backups", {"paths": [str(secret)], "components": [], "repository": "main"})
    assert job["state"] == "failed" and f"{secret}/file" in job["error"]["detail"], job
    assert not [item for item in node.call("GET", "/backups").json["items"] if item["complete"]]


def test_its_own_user_is_administrator_on_its_socket(plain):
    node = plain("principals: []\n")
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(["curl", "-sS", "--unix-socket", node.ready["socket"], "http://localhost/whoami"], capture_output=True, text=True, **identity)
    assert '"principal":"admin"' in done.stdout and '"authentication":"peer"' in done.stdout, done
    status = pathlib.Path(node.ready["socket"]).stat()
    assert status.st_mode & 0o777 == 0o600 and status.st_uid == (NOBODY if os.geteuid() == 0 else os.geteuid())


def test_webhooks(plain, tmp_path):
    """The courier is the same user, and delivers all the same."""
    receiver = Receiver(tmp_path)
    node = plain("webhooks: {allow_private: [127.0.0.0/8]}\n")
    made = node.call("POST", "/webhooks", {"url": receiver.url, "ca_pem": receiver.ca})
    assert made.status == 201, made
    assert node.call("POST", f"/webhooks/{made.json['id']}/test").status == 202
    assert until(lambda: receiver.of("webhook.test"))[0].signed_with(made.json["secret"]) == 0
    running = processes(node)
    assert any("--role=courier" in arguments for arguments in running) and len(set(running.values())) == 1
    receiver.close()


def test_records_of_root_are_closed_to_it_and_that_is_no_alarm(plain, tmp_path, monkeypatch):
    closed = tmp_path / "run"
    (closed / "freezes").mkdir(parents=True)
    closed.chmod(0)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(closed))
    node = plain(journey.lay_out(plain.place))
    words = node.words()
    assert words.count(f"{closed}/freezes is closed to this user: what a daemon of root may have left frozen cannot be looked at") == 1, words
    assert "left frozen by an earlier run" not in words
    assert node.stop() == 0
    closed.chmod(0o700)
