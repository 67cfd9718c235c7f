"""What counts as a backup to rely on: not one of which the requester said that a part had failed, nor one with nothing in it (docs/monitoring.md)."""
import pytest

import journey
from ctl import FAILED, Ctl


@pytest.fixture
def node(daemon):
    return daemon(journey.lay_out(daemon.place))


def taken(node, label, choose):
    """A session up to its snapshot; choose(s) adds what is chosen, and returns the component's path or None."""
    s = "/sessions/" + node.call("POST", "/sessions", {"kind": "backup", "label": label}).json["id"]
    assert node.call("PUT", s + "/backup-state", journey.BACKUP_STATE).status == 200
    assert node.job("POST", s + "/metadata")["state"] == "succeeded"
    component = choose(s)
    for phase in ("prepare", "snapshot"):
        assert node.job("POST", f"{s}/{phase}")["state"] == "succeeded"
    return s, component


def the_app(node, s):
    writer = next(one for one in node.call("GET", s + "/writers").json["items"] if "app" in (one["name"], one["instance_name"]))
    added = node.call("POST", s + "/components", {"instance_id": writer["instance_id"], "logical_path": "", "name": writer["components"][0]["name"]})
    assert added.status == 201, added
    assert node.call("POST", s + "/snapshot-set", {}).status == 201
    assert node.call("POST", s + "/snapshot-set/volumes", {"path": str(node.place / "data")}).status == 201
    return f"{s}/components/{added.json['id']}"


def last_success(node):
    return [line for line in node.call("GET", "/metrics").raw.decode().splitlines() if line.startswith('quiesced_last_success_timestamp_seconds{label="nightly"}')]


@pytest.mark.parametrize("said,counts", ((True, True), (False, False), (None, False)))
def test_what_the_requester_says_of_a_component_decides(node, tmp_path, said, counts):
    s, component = taken(node, "nightly", lambda s: the_app(node, s))
    assert node.job("POST", s + "/copy", {"repository": "main"})["state"] == "succeeded"
    if said is not None:
        assert node.call("PATCH", component, {"succeeded": said}).status == 200
    assert node.job("POST", s + "/complete")["state"] == "succeeded", "BackupComplete tells the writer, and succeeds (vss-model 11)"
    (backup,) = node.call("GET", "/backups").json["items"]
    assert backup["complete"] is True and [one["succeeded"] for one in backup["components"]] == [bool(said)]
    status = Ctl(node, tmp_path).json("status", code=0 if counts else FAILED)
    assert status["protected"] is counts and (counts or status["verdict"] == "not protected: a label has no good backup"), status
    assert bool(last_success(node)) is counts


def test_a_session_with_nothing_chosen_copies_nothing(node):
    def nothing(s):
        assert node.call("POST", s + "/snapshot-set", {}).status == 201
    s, _ = taken(node, "nightly", nothing)
    job = node.job("POST", s + "/copy", {"repository": "main"})
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_BAD_STATE") and "neither components nor volumes" in job["error"]["detail"] and job["error"]["hint"], job
    assert node.call("GET", "/backups").json["items"] == [] and last_success(node) == []


def test_a_backup_of_an_empty_directory_is_told_and_does_not_count(node, tmp_path):
    (node.place / "data" / "hollow").mkdir()
    ctl = Ctl(node, tmp_path)
    told = ctl.run("backup", "--repository", "main", "--path", node.place / "data" / "hollow", "--label", "nightly").stdout
    assert "the backup holds no file" in told
    assert ctl.run("status", code=FAILED).stdout.startswith("not protected: a label has no good backup: nightly\n") and last_success(node) == []
    ctl.run("backup", "--repository", "main", "--path", node.place / "data", "--label", "nightly")
    assert ctl.json("status")["protected"] is True and last_success(node)
