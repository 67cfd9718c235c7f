"""The planner's answers over HTTPS: `validate_only`, POST /backups, and the session's verbs, which refuse the same."""
import os
import pathlib
import signal
import time

import pytest

from loop_fs import run
from verbs import add, session

CONFIG = """
repositories: [{{name: main, mover: archive, path: {repository}}}]
providers: {{copy: {{staging: {staging}}}}}
restore: {{roots: [{place}]}}
"""


@pytest.fixture
def nested(loops, daemon):
    """A daemon, and a btrfs subvolume with a file, a nested subvolume and a nested mount."""
    data, other = loops("btrfs").path / "data", loops("ext4").path
    run("btrfs", "subvolume", "create", data)
    run("btrfs", "subvolume", "create", data / "nested")
    (data / "mounted").mkdir()
    run("mount", "--bind", other, data / "mounted")
    for folder in (data, data / "nested", data / "mounted"):
        (folder / "file").write_text(str(folder))
    one = make(daemon)
    yield one, data
    run("umount", data / "mounted")


def make(daemon, repository=None):
    place = daemon.place
    for name in ("repository", "staging"):
        (place / name).mkdir()
    return daemon(CONFIG.format(repository=repository or place / "repository", staging=place / "staging", place=place))


def plan(daemon, paths, **more):
    reply = daemon.call("POST", "/backups", {"paths": [str(p) for p in paths], "repository": "main", "validate_only": True, **more})
    assert reply.status == 200, reply
    return reply.json


def rules(items):
    return sorted({item["rule"] for item in items})


def test_what_is_nested_is_added_excluded_or_refused(nested):
    daemon, data = nested
    answer = plan(daemon, [data])
    assert rules(answer["refusals"]) == ["nested-volume-missing"] and len(answer["refusals"]) == 2
    assert {"nested", "mounted"} == {pathlib.Path(r["detail"].split()[0]).name for r in answer["refusals"]}
    assert answer["refusals"][0]["hresult"] == "VSS_E_VOLUME_NOT_SUPPORTED" and answer["limit_ms"] == 60000
    assert answer["freeze"] == [] and answer["parked"] is False
    excludes = [str(data / "mounted")]
    assert rules(plan(daemon, [data], excludes=excludes)["refusals"]) == ["nested-volume-missing"]
    assert plan(daemon, [data, data / "nested"], excludes=excludes)["refusals"] == []

    refused = daemon.job("POST", "/backups", {"paths": [str(data)], "repository": "main"})
    assert (refused["state"], refused["hresult"]) == ("failed", "VSS_E_VOLUME_NOT_SUPPORTED")
    assert refused["error"]["reason"] == "nested-volume-missing" and refused["error"]["hint"]
    made = daemon.job("POST", "/backups", {"paths": [str(data), str(data / "nested")], "repository": "main", "excludes": excludes})
    assert made["state"] == "succeeded", made
    restored = daemon.place / "restored"
    done = daemon.job("POST", f"/backups/{made['result']['backup_id']}/restore", {"target": str(restored)})
    assert done["state"] == "succeeded", done
    files = {str(p.relative_to(restored)) for p in restored.rglob("file")}
    assert files == {f"{str(data)[1:]}/file", f"{str(data)[1:]}/nested/file"}


def test_excludes_are_checked_like_paths(nested):
    daemon, data = nested
    refused = daemon.call("POST", "/backups", {"paths": [str(data)], "excludes": ["/a", "/b/../c"], "repository": "main"})
    assert refused.status == 400 and refused.json["errors"][0]["pointer"] == "/excludes/1"
    path = session(daemon)
    refused = add(daemon, path, data, excludes=["/x/"])
    assert refused.status == 400 and refused.json["errors"][0]["pointer"] == "/excludes/0"


def test_verb_by_verb_the_same_is_refused_in_prepare(nested):
    daemon, data = nested
    path = session(daemon)
    assert add(daemon, path, data).status == 201
    job = daemon.job("POST", f"{path}/prepare")
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_VOLUME_NOT_SUPPORTED")
    assert job["error"]["reason"] == "nested-volume-missing"
    assert daemon.call("DELETE", path).status == 204

    path = session(daemon)
    assert add(daemon, path, data, excludes=[str(data / "mounted")]).status == 201
    assert add(daemon, path, data / "nested").status == 201
    for verb, body in (("prepare", None), ("snapshot", None), ("copy", {"repository": "main"})):
        job = daemon.job("POST", f"{path}/{verb}", body)
        assert job["state"] == "succeeded", job
    assert daemon.call("GET", f"{path}/document").json["excludes"] == [str(data / "mounted")]
    assert daemon.call("DELETE", path).status == 204


def test_a_mount_that_appears_after_prepare_is_refused_at_the_snapshot(loops, daemon):
    data, other = loops("btrfs").path / "data", loops("ext4").path
    run("btrfs", "subvolume", "create", data)
    (data / "late").mkdir()
    daemon = make(daemon)
    path = session(daemon)
    assert add(daemon, path, data).status == 201
    assert daemon.job("POST", f"{path}/prepare")["state"] == "succeeded"
    run("mount", "--bind", other, data / "late")
    try:
        job = daemon.job("POST", f"{path}/snapshot")
        assert (job["state"], job["error"]["reason"]) == ("failed", "nested-volume-missing")
    finally:
        run("umount", data / "late")


def test_one_tree_is_captured_once(loops, daemon):
    place = loops("xfs").path
    (place / "outer" / "inner").mkdir(parents=True)
    daemon = make(daemon)
    path = session(daemon)
    assert add(daemon, path, place / "outer").status == 201
    again = add(daemon, path, place / "outer" / "inner")
    assert (again.status, again.json["hresult"]) == (409, "VSS_E_OBJECT_ALREADY_EXISTS")
    twice = add(daemon, path, place / "outer" / "inner", provider="copy")
    assert (twice.status, twice.json["hresult"]) == (422, "VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER")
    assert twice.json["detail"].startswith("same-superblock-twice: ") and twice.json["hint"]
    assert len(plan(daemon, [place / "outer", place / "outer" / "inner"])["volumes"]) == 1


def test_a_repository_beneath_its_source_is_refused_or_excluded(loops, daemon):
    place = loops("btrfs").path
    (place / "repository").mkdir()
    (place / "file").write_text("data")
    daemon = make(daemon, repository=place / "repository")
    assert rules(plan(daemon, [place])["refusals"]) == ["repository-beneath-source"]
    excludes = [str(place / "repository")]
    assert plan(daemon, [place], excludes=excludes)["refusals"] == []
    path = session(daemon)
    refused = add(daemon, path, place)
    assert (refused.status, refused.json["hresult"]) == (422, "VSS_E_VOLUME_NOT_SUPPORTED")
    assert add(daemon, path, place, excludes=excludes).status == 201
    assert daemon.call("DELETE", path).status == 204
    files = []
    for _ in range(2):
        made = daemon.job("POST", "/backups", {"paths": [str(place)], "repository": "main", "excludes": excludes})
        assert made["state"] == "succeeded", made
        files.append(daemon.call("GET", f"/backups/{made['result']['backup_id']}").json["files"])
    assert files[0] == files[1]  # the first backup is no part of the second


def test_a_repository_that_was_not_in_the_configuration_is_none_the_less_one(daemon):
    """Made over the API, or named by a reload since the session has its worker: refused by the plan, AddToSnapshotSet, PrepareForBackup and DoSnapshotSet."""
    place = daemon.place
    for name in ("source", "other", "third"):
        (place / name).mkdir()
        (place / name / "file").write_text("data")
    daemon = make(daemon)

    def repository(source):
        made = daemon.call("POST", "/repositories", {"name": source, "mover": "archive", "path": str(place / source / "within")})
        assert made.status == 201, made
        return str(place / source / "within")

    within = repository("source")
    assert rules(plan(daemon, [place / "source"])["refusals"]) == ["repository-beneath-source"]
    path = session(daemon)
    refused = add(daemon, path, place / "source")
    assert (refused.status, refused.json["reason"]) == (422, "repository-beneath-source") and within in refused.json["detail"] and refused.json["hint"], refused
    assert add(daemon, path, place / "source", excludes=[within]).status == 201
    assert add(daemon, path, place / "other").status == 201
    within = repository("other")
    job = daemon.job("POST", f"{path}/prepare")
    assert (job["state"], job["error"]["reason"]) == ("failed", "repository-beneath-source") and within in job["error"]["detail"], job
    assert daemon.call("DELETE", path).status == 204

    path = session(daemon)
    assert add(daemon, path, place / "third").status == 201
    assert daemon.job("POST", f"{path}/prepare")["state"] == "succeeded"
    configuration = place / "quiesced.yaml"
    configuration.write_text(configuration.read_text().replace("repositories: [", f"repositories: [{{name: third, mover: archive, path: {place}/third/within}}, "))
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while daemon.call("GET", "/repositories/third").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    job = daemon.job("POST", f"{path}/snapshot")
    assert (job["state"], job["error"]["reason"]) == ("failed", "repository-beneath-source"), job


def test_what_cannot_be_snapshotted_is_refused_with_every_reason(daemon):
    if os.geteuid() != 0:
        pytest.skip("as root: every provider is there")
    daemon = make(daemon)
    refusal, = plan(daemon, ["/proc/sys"])["refusals"]
    assert refusal["rule"] == "unsupported-file-system" and refusal["detail"].startswith("/proc/sys (proc): btrfs: ") and "copy:" in refusal["detail"] and refusal["hint"]
    path = session(daemon)
    assert add(daemon, path, "/proc/sys").json["hresult"] == "VSS_E_VOLUME_NOT_SUPPORTED"


def test_the_daemons_own_files_beneath_a_source_are_a_warning(daemon):
    daemon = make(daemon)
    answer = plan(daemon, [daemon.place / "state"])
    assert "own-files-beneath-source" in rules(answer["warnings"]), answer
