"""Bacula, Velero, AWS and Azure: what docs/front-doors.md has for each is read as its program reads it, and called in its order: before, the snapshot, after. When nothing is called
after, the freeze ends by itself."""
import json
import pathlib
import re
import shlex
import shutil

import pytest
import yaml

import doors
import manual_blocks
from doors import BUILD, FAILED, OK, SCRIPTS, until

SECONDS = 4  # limits.freeze_seconds


@pytest.fixture
def node(daemon, file_systems):
    fs = file_systems("btrfs", 200)
    one = daemon(f"writers: [{{name: app, type: sqlite, databases: [{fs.path}/app.db]}}]\nlimits: {{freeze_seconds: {SECONDS}}}\n{doors.shown_as_the_manual_says(daemon.place)}")
    one.fs = fs
    return one


def of_the_manual(node):
    """The four texts, with the test's places in those of the manual: Bacula's, Velero's, AWS's, Azure's."""
    own = node.place / "azure"
    own.mkdir(exist_ok=True)
    shutil.copy(SCRIPTS / "pre-post", own)
    return manual_blocks.of("front-doors.md", __file__, [("/usr/lib/quiesced/front-doors", SCRIPTS), ("/etc/azure", own), ("/usr/bin", BUILD), ("/srv/data", node.fs.path),
                                                         ("/mnt/quiesced/data", node.place / "shown" / "data")])


def velero(node):
    notes = yaml.safe_load(of_the_manual(node)[1])["metadata"]["annotations"]
    assert all(re.fullmatch(r"(pre|post)\.hook\.backup\.velero\.io/(command|container|on-error|timeout)", name) for name in notes), notes
    assert {value for name, value in notes.items() if name.endswith("on-error")} == {"Fail"} and all(re.fullmatch(r"\d+s", value) for name, value in notes.items() if name.endswith("timeout"))
    return [json.loads(notes[f"{when}.hook.backup.velero.io/command"]) for when in ("pre", "post")]


def aws(node):
    document = yaml.safe_load(of_the_manual(node)[2])
    parameters, (step,) = document["parameters"], document["mainSteps"]
    assert document["schemaVersion"] == "2.2" and step["action"] == "aws:runShellScript" and parameters["command"]["default"] == "dry-run"
    assert re.fullmatch(parameters["executionId"]["allowedPattern"], "None") and re.fullmatch(parameters["executionId"]["allowedPattern"], "0199c0e4-0000-7000-8000-000000000000")
    script = "\n".join(step["inputs"]["runCommand"])
    assert re.findall(r"\{\{ (\w+) }}", script) == ["command"]
    before, after, idle = [["sh", "-c", script.replace("{{ command }}", value)] for value in parameters["command"]["allowedValues"]]
    doors.run(node, *idle[1:], program=idle[0])
    return [before, after]


def azure(node):
    settings = json.loads(of_the_manual(node)[3])
    assert settings["pluginName"] == "ScriptRunner" and settings["continueBackupOnFailure"] is False and settings["timeoutInSeconds"] < 60
    assert settings["fsFreezeEnabled"] is ("--guest" in settings["preScriptParams"])
    return [[settings[f"{when}ScriptLocation"], *settings[f"{when}ScriptParams"]] for when in ("pre", "post")]


@pytest.mark.parametrize("program", [velero, aws, azure])
def test_before_and_after_a_snapshot_that_somebody_else_takes(node, load, program):
    writes = load(node.fs.path / "app.db")
    before, after = program(node)
    frozen = program is not azure  # whose extension freezes the file systems itself
    doors.run(node, *before[1:], program=before[0])
    (held,) = node.call("GET", "/holds").json["items"]
    assert held["frozen"] and doors.loop_fs.is_frozen(node.fs.path) is frozen
    doors.run(node, *after[1:], program=after[0])
    writes.goes_on()
    assert not doors.loop_fs.is_frozen(node.fs.path) and node.call("GET", "/holds").json["items"] == [] and doors.sessions_of_holds(node) == []
    jobs = node.call("GET", "/jobs?limit=500").json["items"]
    assert [job["state"] for job in jobs if job["operation"] in ("DoSnapshotSet", "BackupComplete")] == ["succeeded"] * 2


@pytest.mark.parametrize("program", [velero, aws, azure])
def test_what_comes_after_never_comes(node, load, program):
    """All goes on by itself; and who comes too late hears that his snapshot is worth nothing."""
    writes = load(node.fs.path / "app.db")
    before, after = program(node)
    doors.run(node, *before[1:], program=before[0])
    assert node.call("GET", "/holds").json["items"][0]["frozen"]
    until(lambda: not node.call("GET", "/holds").json["items"][0]["frozen"])
    writes.goes_on()
    assert not doors.loop_fs.is_frozen(node.fs.path)
    doors.run(node, *after[1:], program=after[0], code=FAILED)
    doors.run(node, *before[1:], program=before[0])
    doors.run(node, *after[1:], program=after[0], code=OK)
    writes.goes_on()


def test_a_job_of_bacula(node, load):
    """Its commands in its order, each split as bacula-fd does, without a shell."""
    text = of_the_manual(node)[0]
    scripts = [dict(re.findall(r"^\s*(\w+) = (.*)$", body, re.M)) for body in re.findall(r"RunScript \{(.*?)\}", text, re.S)]
    assert [(one["RunsWhen"], one["RunsOnClient"]) for one in scripts] == [("Before", "yes"), ("After", "yes")]
    assert scripts[0]["FailJobOnError"] == "yes" and scripts[1]["RunsOnFailure"] == scripts[1]["RunsOnSuccess"] == "yes"
    (shown,) = re.findall(r"File = (\S+)", text)
    before, after = [shlex.split(one["Command"].strip('"')) for one in scripts]
    writes = load(node.fs.path / "app.db")
    first = writes.done
    doors.run(node, *before[1:], program=before[0])
    last = writes.done
    writes.goes_on()  # while the job reads
    assert first <= doors.rows_of(pathlib.Path(shown) / "app.db") <= last + 1
    doors.run(node, *after[1:], program=after[0])
    assert list(pathlib.Path(shown).iterdir()) == [] and node.call("GET", "/snapshots").json["items"] == [] and doors.sessions_of_holds(node) == []
    writes.goes_on()
