"""Movers over HTTPS: a borg repository's whole life, what a configuration may not ask of one, and the limits within which a copy runs."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from conftest import BUILD
from daemon import Daemon
from test_repository import copied, hashes, make_node, wait_for


def borg(node, *arguments):
    environment = dict(os.environ, BORG_REPO=str(node.place / "vault"), BORG_BASE_DIR=str(node.place / "state" / "borg"), BORG_PASSPHRASE="correct horse", LANG="C.UTF-8",
                       BORG_RELOCATED_REPO_ACCESS_IS_OK="yes")
    done = subprocess.run(["borg", *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def test_a_borg_repository_from_its_making_to_its_last_backups_end(daemon):
    node = make_node(daemon, "archive")
    ctl = [str(BUILD / "quiescectl"), "--ready", str(node.place / "ready.json"), "--json"]
    made = subprocess.run([*ctl, "repository", "create", "name=vault", "mover=borg", f"path={node.place}/vault", f"password_file={node.place}/password"], capture_output=True, text=True)
    assert made.returncode == 0 and json.loads(made.stdout)["mover"] == "borg", made
    assert json.loads(subprocess.run([*ctl, "repository", "show", "vault"], capture_output=True, text=True).stdout)["path"] == f"{node.place}/vault"
    assert next(one for one in node.call("GET", "/movers").json["items"] if one["name"] == "borg")["available"] is True
    job = node.job("POST", "/backups", {"paths": [str(node.place / "files")], "repository": "vault"})
    assert job["state"] == "succeeded", job
    whole = job["result"]["backup_id"]
    shown = node.call("GET", f"/backups/{whole}").json
    assert shown["complete"] and shown["sealed"] and shown["mover"] == "borg" and shown["files"] == 12, shown
    names = borg(node, "list", "--short").split()
    assert len(names) == 3 and all(name.startswith(f"quiesced-{whole}.") for name in names), names
    assert node.job("POST", f"/backups/{whole}/verify")["result"]["damaged"] == []
    restored = node.job("POST", f"/backups/{whole}/restore", {"target": str(node.place / "restored"), "paths": []})
    assert restored["state"] == "succeeded" and hashes(f"{node.place}/restored{node.place}/files") == hashes(node.place / "files")
    (node.place / "files" / "large").write_bytes(os.urandom(160 << 20))
    second = node.call("POST", "/backups", {"paths": [str(node.place / "files")], "repository": "vault"}).json["id"]
    wait_for(lambda: (node.call("GET", f"/jobs/{second}").json["progress"] or {}).get("phase") == "copy")
    assert node.call("DELETE", f"/jobs/{second}").status == 202
    assert node.wait(second)["state"] == "cancelled"
    borg(node, "check")
    assert borg(node, "list", "--short").split() == names
    scan = subprocess.run([*ctl, "repository", "scan", "vault"], capture_output=True, text=True)
    assert scan.returncode == 0 and [row["id"] for row in node.call("GET", "/backups").json["items"]] == [whole]
    assert node.job("DELETE", f"/backups/{whole}")["state"] == "succeeded"
    assert borg(node, "list", "--short") == ""


@pytest.mark.parametrize("body,pointer,words", [
    ({"mover": "archive", "path": "/srv/x", "encrypt": True}, "/encrypt", "restic or borg"),
    ({"mover": "borg", "path": "/srv/x", "password_file": "/p", "encrypt": False}, "/encrypt", "archive"),
    ({"mover": "borg", "path": "/srv/x", "password_file": "/p", "limits": {"bandwidth_bytes_per_second": 4096}}, "/limits/bandwidth_bytes_per_second", "io_class"),
    ({"mover": "borg", "url": "rest:http://x/", "password_file": "/p"}, "/url", "path"),
    ({"mover": "restic", "url": "rest:http://u:sesame@x/", "password_file": "/p"}, "/url", "url_file"),
    ({"mover": "archive", "path": "/srv/x", "limits": {"io_class": "idle", "io_priority": 3}}, "/limits/io_priority", "leave it out"),
    ({"mover": "archive", "path": "/srv/x", "limits": {"io_class": "realtime"}}, "/limits/io_class", ""),
    ({"mover": "archive", "path": "/srv/x", "limits": {"nice": -5}}, "/limits/nice", ""),
    ({"mover": "archive", "path": "/srv/x", "password_file": "/p"}, "/password_file", ""),
    ({"mover": "borg", "url": "ssh://h/x", "password_file": "/p", "rsh": "sh -c evil"}, "/rsh", ""),
    ({"mover": "tape", "path": "/srv/x"}, "/mover", ""),
])
def test_what_cannot_be_had_is_refused_by_name(shared, body, pointer, words):
    refused = shared.call("POST", "/repositories", dict(body, name="bad"))
    assert refused.status == 400 and refused.json["hresult"] == "E_INVALIDARG", refused
    assert refused.json["errors"][0]["pointer"] == pointer and words in refused.json["hint"] and "sesame" not in str(refused.json), refused
    assert shared.call("GET", "/repositories/bad").status == 404


@pytest.fixture(scope="module")
def shared():
    """One daemon for all that is refused."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-movers-", dir="/var/tmp"))
    place.chmod(0o755)
    node = Daemon(place)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(place, ignore_errors=True)


def movers(node):
    """Mover children of this daemon."""
    parents, found = {}, []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parents[folder.name] = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if b"--role=mover" in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            pass

    def ours(pid):
        while pid in parents and pid != str(node.process.pid):
            pid = parents[pid]
        return pid == str(node.process.pid)

    return [pid for pid in found if ours(pid)]


def classes(node):
    return {subprocess.run(["ionice", "-p", pid], capture_output=True, text=True).stdout.strip() for pid in movers(node)}


def test_a_copy_keeps_its_repositorys_limits_and_its_own_over_them(daemon):
    """Seen while it runs: a rate of 64 KiB a second makes it last; then it is cancelled."""
    node = make_node(daemon, "archive")
    for i in range(8):
        (node.place / "files" / f"large-{i}").write_bytes(os.urandom(4 << 20))
    limits = {"io_class": "best-effort", "io_priority": 6, "nice": 7}
    assert node.call("POST", "/repositories", {"name": "slow", "mover": "archive", "path": str(node.place / "slow"), "limits": limits}).json["limits"] == limits
    body = {"paths": [str(node.place / "files")], "repository": "slow", "limits": {"bandwidth_bytes_per_second": 65536, "nice": 11}}
    job = node.call("POST", "/backups", body).json
    assert job["limits"] == dict(limits, nice=11, bandwidth_bytes_per_second=65536)
    wait_for(lambda: "best-effort: prio 6" in classes(node))
    nices = {pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16] for pid in movers(node)}
    assert "11" in nices, nices
    wait_for(lambda: ((node.call("GET", f"/jobs/{job['id']}").json["progress"] or {}).get("bytes_done") or 0) > 0)
    assert node.call("GET", f"/jobs/{job['id']}").json["state"] == "running"
    assert node.call("DELETE", f"/jobs/{job['id']}").status == 202 and node.wait(job["id"])["state"] == "cancelled"
    refused = node.call("POST", "/backups", dict(body, limits={"io_class": "idle", "io_priority": 1}))
    assert refused.status == 400 and refused.json["errors"][0]["pointer"] == "/limits/io_priority", refused
    s, _ = copied(node)
    job = node.job("POST", s + "/copy", {"repository": "slow", "limits": {"io_class": "idle"}})
    assert job["state"] == "succeeded" and job["limits"] == {"io_class": "idle", "nice": 7}, job


def test_a_copy_makes_no_repository_where_one_has_been(daemon):
    """Its disk is not mounted, or another one is."""
    node = make_node(daemon, "archive")
    main, away = node.place / "repository", node.place / "away"

    def backup(repository="main"):
        return node.job("POST", "/backups", {"paths": [str(node.place / "files")], "repository": repository})

    def refused(words, repository="main", place=main):
        job = backup(repository)
        assert job["state"] == "failed" and job["error"]["hresult"] == "VSS_E_OBJECT_NOT_FOUND", job
        assert str(place) in job["error"]["detail"] and words in job["error"]["hint"], job

    first = backup()
    assert first["state"] == "succeeded" and "repository_id" not in str(first["result"]), first
    assert node.job("DELETE", f"/backups/{first['result']['backup_id']}")["state"] == "succeeded"
    assert node.call("GET", "/backups").json["items"] == []
    assert node.stop() == 0
    node.start()
    main.rename(away)
    refused("disk mounted")  # though the catalog knows of no backup there any more
    assert not main.exists()
    main.mkdir()
    refused("disk mounted")
    assert list(main.iterdir()) == []
    elsewhere = node.place / "elsewhere"
    other = {"mover": "archive", "path": str(elsewhere)}
    assert node.call("POST", "/repositories", dict(other, name="other")).status == 201  # whoever defines one gets it made
    main.rmdir()
    elsewhere.rename(main)  # another disk is mounted
    refused("right disk")
    assert node.job("POST", "/repositories/main/scan")["state"] == "succeeded" and backup()["state"] == "succeeded"
    refused("disk mounted", "other", elsewhere)
    assert not elsewhere.exists()
    etag = node.call("GET", "/repositories/other").headers["etag"]
    assert node.call("PUT", "/repositories/other", other, headers=[f"If-Match: {etag}"]).status == 200
    assert backup("other")["state"] == "succeeded"
    shutil.rmtree(main)
    shutil.copytree(elsewhere, main)
    refused("right disk")
