"""A backup that is damaged, cut, or gone from its repository: verify fails and says what is wrong, over HTTPS and of quiescectl, with every mover."""
import datetime
import json
import os
import shutil
import subprocess

import pytest

from ctl import FAILED, Ctl
from metrics import scrape
from test_repository import make_node


def back_up(node, **more):
    job = node.job("POST", "/backups", dict({"paths": [str(node.place / "files")], "repository": "main", "label": "nightly"}, **more))
    assert job["state"] == "succeeded", job
    return job["result"]["backup_id"]


def verify(node, backup):
    return node.job("POST", f"/backups/{backup}/verify")


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


def empty(file):
    os.truncate(file, 0)


def remove(file):
    file.unlink()


class damaged:
    """The largest file of a pattern, which is where the data is, for a while."""

    def __init__(self, node, pattern, how):
        self.file = max((node.place / "repository").glob(pattern), key=lambda file: file.stat().st_size)
        self.how = how

    def __enter__(self):
        self.content, self.mode = self.file.read_bytes(), self.file.stat().st_mode & 0o777
        self.file.chmod(0o600)
        self.how(self.file)

    def __exit__(self, *_):
        self.file.write_bytes(self.content)
        self.file.chmod(self.mode)


@pytest.mark.parametrize("mover,places", [
    ("archive", {"*/data.tar.zst": (flip, cut, empty, remove), "*/manifest.jsonl": (flip, empty, remove), "*/complete.json": (cut, remove), "*/document.json": (empty, remove)}),
    pytest.param("restic", {"data/*/*": (flip, remove), "snapshots/*": (empty, remove)}, marks=pytest.mark.full),
    pytest.param("borg", {"data/*/*": (flip, cut, empty, remove)}, marks=pytest.mark.full),
])
def test_verify_fails_for_whatever_is_damaged_and_for_nothing_else(daemon, tmp_path, mover, places):
    node = make_node(daemon, mover)
    for i in range(4):
        (node.place / "files" / f"large-{i}").write_bytes(os.urandom(1 << 20))
    backup = back_up(node)
    ctl = Ctl(node, tmp_path)
    for pattern, hows in places.items():
        for how in hows:
            with damaged(node, pattern, how):
                job = verify(node, backup)
                case = (pattern, how.__name__, job)
                found = job["result"]["damaged"]
                assert (job["state"], job["hresult"]) == ("failed", "ERROR_FILE_CORRUPT") and found, case
                assert all(one["path"] and one["reason"] for one in found) and job["result"]["files"] <= 16 and "bytes" in job["result"], case
                assert job["error"]["detail"].startswith(f"{len(found)} entr") and found[0]["reason"][:100] in job["error"]["detail"] and job["error"]["hint"], case
    with damaged(node, next(iter(places)), flip):
        told = ctl.run("verify", backup, code=FAILED).stdout.splitlines()
        assert told[0].startswith("Verify failed: ") and "damaged or missing" in told[0], told
        assert [line for line in told if line.startswith("  damaged: /")], told
        assert ctl.json("verify", backup, code=FAILED)["result"]["damaged"]
    whole = verify(node, backup)
    assert whole["state"] == "succeeded" and whole["result"]["damaged"] == [] and whole["result"]["files"] == 16, whole
    assert ctl.run("verify", backup).stdout.startswith("Verify succeeded\n")


def test_a_backup_that_is_gone_from_its_repository_is_not_verified(daemon, tmp_path):
    node = make_node(daemon, "archive")
    backup = back_up(node)
    shutil.rmtree(node.place / "repository" / backup)
    job = verify(node, backup)
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_OBJECT_NOT_FOUND") and f"holds no backup {backup}" in job["error"]["detail"], job
    assert "holds no backup" in Ctl(node, tmp_path).run("verify", backup, code=FAILED).stdout


def condition(node, backup):
    shown = node.call("GET", f"/backups/{backup}").json
    assert (shown["checked_at"] is None) <= (shown["condition"] is None), shown
    return shown["condition"]


def scan(node):
    job = node.job("POST", "/repositories/main/scan")
    assert job["state"] == "succeeded", job
    return job["result"]


def test_the_catalog_learns_what_a_verify_a_restore_and_a_scan_find(daemon, tmp_path):
    node = make_node(daemon, "archive")
    older, newest = back_up(node), back_up(node)
    ctl = Ctl(node, tmp_path)
    assert condition(node, newest) is None and ctl.json("status")["protected"] is True
    assert verify(node, newest)["state"] == "succeeded" and condition(node, newest) == "good"
    place, aside = node.place / "repository" / newest, node.place / "aside"

    with damaged(node, f"{newest}/data.tar.zst", flip):
        assert verify(node, newest)["state"] == "failed"
        shown = node.call("GET", f"/backups/{newest}").json
        assert shown["condition"] == "damaged" and "damaged or missing" in shown["condition_reason"] and shown["complete"] is True and shown["sealed"] is True, shown
        status = ctl.json("status", code=FAILED)
        assert status["verdict"].startswith("at risk: the newest backup of a label is damaged") and status["labels"][0]["backup_id"] == older, status
        assert "damaged" in ctl.run("backups").stdout
        node.process.kill()
        node.process.wait()
        node.start()
        assert condition(node, newest) == "damaged", "it outlives the process"
    assert scan(node) == {"found": 2, "added": 0, "gone": 0, "damaged": []} and condition(node, newest) == "damaged", "a scan reads no data: it clears no damage"
    assert verify(node, newest)["state"] == "succeeded" and condition(node, newest) == "good" and ctl.json("status")["protected"] is True

    with damaged(node, f"{older}/data.tar.zst", flip):
        restored = node.job("POST", f"/backups/{older}/restore", {"target": str(node.place / "restored"), "paths": []})
        assert restored["hresult"] == "ERROR_FILE_CORRUPT" and condition(node, older) == "damaged", restored
    assert condition(node, newest) == "good"

    place.rename(aside)
    found = scan(node)
    assert (found["found"], found["gone"]) == (1, 1) and condition(node, newest) == "missing" and condition(node, older) == "damaged", found
    assert ctl.json("status", code=FAILED)["verdict"] == "not protected: a label has no good backup"
    aside.rename(place)
    assert scan(node)["gone"] == 0 and condition(node, newest) is None and ctl.json("status")["protected"] is True
    place.rename(aside)
    assert verify(node, newest)["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and condition(node, newest) == "missing"
    aside.rename(place)

    with damaged(node, f"{newest}/document.json", empty):
        assert [one["backup_id"] for one in scan(node)["damaged"]] == [newest] and condition(node, newest) == "damaged"
    assert verify(node, newest)["state"] == "succeeded"
    (node.place / "repository").rename(aside)
    assert verify(node, newest)["state"] == "failed" and node.job("POST", "/repositories/main/scan")["state"] == "failed"
    aside.rename(node.place / "repository")
    assert condition(node, newest) == "good" and condition(node, older) == "damaged", "a repository that is away says nothing about its backups"


def last_success(node, label="nightly"):
    return scrape(node).value("quiesced_last_success_timestamp_seconds", label=label)


def made_at(node, backup):
    return datetime.datetime.fromisoformat(node.call("GET", f"/backups/{backup}").json["created_at"]).timestamp()


def test_the_metric_of_the_last_success_knows_which_backups_still_count(daemon):
    """What an alert goes by obeys the rule of `quiescectl status` and the dashboard."""
    node = make_node(daemon, "archive")
    first = back_up(node)
    second = back_up(node)
    newest = back_up(node)
    other = back_up(node, label="other")
    completed, others = last_success(node), last_success(node, "other")
    assert completed >= made_at(node, newest)
    with damaged(node, f"{second}/data.tar.zst", flip):
        assert verify(node, second)["state"] == "failed" and last_success(node) == completed, "an older one does not matter"
    with damaged(node, f"{newest}/data.tar.zst", flip):
        assert verify(node, newest)["state"] == "failed"
        assert last_success(node) == pytest.approx(made_at(node, first)), "neither of the two newer ones counts"
        node.process.kill()
        node.process.wait()
        node.start()
        assert last_success(node) == pytest.approx(made_at(node, first)), "it outlives the process"
    assert verify(node, newest)["state"] == "succeeded" and last_success(node) == pytest.approx(made_at(node, newest))
    for backup in (first, newest):
        (node.place / "repository" / backup).rename(node.place / backup)
    assert scan(node)["gone"] == 2 and last_success(node) is None, "of three one is damaged, two are missing"
    (node.place / newest).rename(node.place / "repository" / newest)
    assert scan(node)["gone"] == 1 and last_success(node) == pytest.approx(made_at(node, newest))
    assert back_up(node) and last_success(node) > completed
    assert last_success(node, "other") == others, "labels are judged each by itself"
    assert node.job("DELETE", f"/backups/{other}")["state"] == "succeeded" and last_success(node, "other") is None


def test_a_new_installation_learns_of_the_last_success_by_a_scan(daemon):
    node = make_node(daemon, "archive")
    back_up(node)
    newest = back_up(node)
    node.stop()
    shutil.rmtree(node.place / "state")
    node.start()
    assert last_success(node) is None
    assert scan(node)["added"] == 2 and last_success(node) == pytest.approx(made_at(node, newest))


@pytest.mark.parametrize("mover", ["restic", pytest.param("borg", marks=pytest.mark.full)])
def test_a_scan_and_a_verify_find_what_is_gone_from_a_repository_of_other_programs(daemon, mover):
    node = make_node(daemon, mover)
    gone, kept = back_up(node), back_up(node)
    repository = {"restic": ["restic", "--no-cache", "-r", node.place / "repository", "-p", node.place / "password"], "borg": ["borg"]}[mover]
    environment = dict(os.environ, BORG_REPO=str(node.place / "repository"), BORG_BASE_DIR=str(node.place / "state" / "borg"), BORG_PASSPHRASE="correct horse", LANG="C.UTF-8",
                       BORG_RELOCATED_REPO_ACCESS_IS_OK="yes")
    if mover == "restic":
        known = json.loads(subprocess.run([*repository, "snapshots", "--json", "--tag", f"quiesced-backup={gone}"], capture_output=True, check=True).stdout)
        subprocess.run([*repository, "forget", *[one["id"] for one in known]], capture_output=True, check=True)
    else:
        subprocess.run([*repository, "delete", "--glob-archives", f"quiesced-{gone}.*"], capture_output=True, check=True, env=environment)
    found = scan(node)
    assert (found["found"], found["gone"]) == (1, 1) and condition(node, gone) == "missing" and condition(node, kept) is None, found
    assert verify(node, kept)["state"] == "succeeded" and condition(node, kept) == "good"
    assert verify(node, gone)["error"]["reason"] == "backup_missing"
    assert node.job("DELETE", f"/backups/{gone}")["state"] == "succeeded" and node.call("GET", f"/backups/{gone}").status == 404
    assert node.call("GET", f"/backups/{kept}").json["condition"] == "good" and verify(node, kept)["state"] == "succeeded"


def test_the_entry_of_a_backup_whose_data_is_gone_can_be_deleted(daemon, tmp_path):
    node = make_node(daemon, "archive")
    ctl = Ctl(node, tmp_path)
    lost = back_up(node)
    shutil.rmtree(node.place / "repository" / lost)
    assert scan(node)["gone"] == 1
    assert ctl.json("backup", "delete", lost)["state"] == "succeeded" and ctl.json("backups") == []
    second = {"name": "second", "mover": "archive", "path": str(node.place / "second")}
    assert node.call("POST", "/repositories", second).status == 201
    left = back_up(node, repository="second")
    etag = node.call("GET", "/repositories/second").headers["etag"]
    assert node.call("DELETE", "/repositories/second", headers=[f"If-Match: {etag}"]).status == 204
    refused = node.call("DELETE", f"/backups/{left}")
    assert refused.json["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and "empty new repository of that name" in refused.json["hint"], refused
    assert node.call("POST", "/repositories", dict(second, path=str(node.place / "empty"))).status == 201
    assert node.job("DELETE", f"/backups/{left}")["state"] == "succeeded" and node.call("GET", f"/backups/{left}").status == 404
    assert (node.place / "second" / left).is_dir(), "what lies elsewhere is not touched"
