"""quiescectl against a real daemon: a backup's whole life by hand, what it prints, and the exit codes that scripts rely on."""
import json
import re
import signal
import subprocess
import time

import pytest

import journey
from conftest import SOURCE
from ctl import BAD_ARGUMENT, BAD_STATE, CANCELLED, FAILED, NOT_THERE, OK, REFUSED, UNREACHED, USAGE, Ctl

@pytest.fixture
def ctl(daemon, tmp_path):
    (daemon.place / "slow").mkdir()
    (daemon.place / "slow" / "file").write_text("x")
    config = journey.lay_out(daemon.place).replace("writers:\n", f"""writers:
  - {{name: slow, type: exec, command: [{SOURCE}/tests/writers/recorder], environment: {{FILES: {daemon.place}/slow, TOUCH_FREEZE: {daemon.place}/slow/asked, WAIT_FREEZE: {daemon.place}/never}}}}
""")
    return Ctl(daemon(config), tmp_path)


def test_a_backup_is_planned_made_listed_verified_and_restored(ctl):
    place = ctl.node.place
    what = ["--repository", "main", "--path", place / "data", "--label", "by hand"]
    plan = ctl.run("plan", *what).stdout
    assert "freeze window: about" in plan and str(place / "data") in plan
    assert ctl.json("backups") == [] and "none" in ctl.run("backups").stderr
    made = ctl.run("backup", *what)
    backup = re.search(r"backup (\S+)", made.stdout).group(1)
    assert "Backup succeeded" in made.stdout.splitlines()[0] and made.stderr == ""
    table = ctl.run("backups").stdout.splitlines()
    assert table[0].split()[:2] == ["ID", "LABEL"] and table[1].startswith(backup) and "by hand" in table[1]
    assert "by hand" in ctl.run("job", "list", "operation=Backup").stdout.splitlines()[1], "which of several backups a job is"
    assert ctl.json("backup", "show", backup)["complete"] is True
    assert "succeeded" in ctl.run("verify", backup).stdout
    told = ctl.run("restore", backup, place / "restored", "--overwrite").stdout
    assert "verified against the manifest: yes" in told
    journey.compare(ctl.node)
    assert ctl.json("restore", backup, place / "restored", "--overwrite", "--path", place / "data" / "file")["state"] == "succeeded"
    assert ctl.run("backup", "delete", backup).returncode == OK
    ctl.run("backup", "show", backup, code=NOT_THERE)


def test_a_session_verb_by_verb(ctl):
    session = ctl.json("session", "create", "kind=backup", "label=verbs")["id"]
    ctl.run("session", "prepare", session, code=BAD_STATE)
    ctl.run("session", "set-state", session, "component_mode=true", "bootable_system_state=false", "type=full", "partial_files=false")
    ctl.run("session", "filter-writers", session, "writers=[\"slow\"]", "include=false", code=BAD_ARGUMENT)
    assert "GatherWriterMetadata succeeded" in ctl.run("session", "metadata", session).stdout
    offer = next(item for item in ctl.json("session", "writers", session)["items"] if item["name"] == "SQLite" or item["instance_name"] == "app")
    component = ctl.json("session", "add-component", session, f"instance_id={offer['instance_id']}", f"name={offer['components'][0]['name']}")["id"]
    ctl.run("session", "start-set", session)
    ctl.run("session", "add-volume", session, f"path={ctl.node.place}/data")
    for verb in ("prepare", "snapshot"):
        assert "succeeded" in ctl.run("session", verb, session).stdout
    assert "backup " in ctl.run("session", "copy", session, "repository=main").stdout
    assert ctl.json("session", "set-component", session, component, "succeeded=true")["succeeded"] is True
    assert "BackupComplete succeeded" in ctl.run("session", "complete", session).stdout
    assert session in ctl.run("session", "list").stdout
    assert {row["operation"] for row in ctl.json("job", "list", f"session={session}")} >= {"PrepareForBackup", "DoSnapshotSet", "BackupComplete"}
    ctl.run("session", "release", session)


def test_an_interrupt_asks_the_daemon_to_cancel_and_waits_for_how_it_ends(ctl):
    process = subprocess.Popen([*ctl.argv, "backup", "--repository", "main", "--component", "slow/main"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env=ctl.environment())
    deadline = time.monotonic() + 60
    while not (ctl.node.place / "slow" / "asked").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    told, said = process.communicate(timeout=120)
    assert process.returncode == CANCELLED, (told, said)
    assert "the daemon cancels it" in said and "cancelled" in told
    assert ctl.json("job", "list")[0]["state"] == "cancelled"


def test_a_job_is_started_watched_and_cancelled_by_id(ctl):
    job = ctl.run("backup", "--repository", "main", "--component", "slow/main", "--no-wait").stdout.strip()
    assert ctl.json("job", "show", job)["id"] == job
    told = ctl.json("job", "cancel", job, "--no-wait")
    assert told["id"] == job and told["state"] in ("cancelling", "cancelled")
    ctl.run("job", "cancel", job)
    assert ctl.run("job", "watch", job, code=CANCELLED).stdout.startswith("Backup cancelled")
    ctl.run("job", "cancel", job)
    ctl.run("job", "release", job)
    ctl.run("job", "show", job, code=NOT_THERE)


def test_exit_codes_and_words(ctl, tmp_path):
    said = ctl.run("whoami", "--socket", "/nowhere/api.sock", base=ctl.argv[:1], code=UNREACHED).stderr
    assert "/nowhere/api.sock: there is no such socket" in said and "Is the daemon running?" in said
    assert "--ca FILE" in ctl.run("whoami", "--url", ctl.node.ready["url"], base=ctl.argv[:1], code=UNREACHED).stderr
    assert "https alone" in ctl.run("whoami", "--url", "http://127.0.0.1:1", base=ctl.argv[:1], code=UNREACHED).stderr
    assert "no such command" in ctl.run("fly", code=USAGE).stderr
    assert "needs a value" in ctl.run("--url", code=USAGE, base=ctl.argv[:1]).stderr
    assert "quiescectl backup" not in ctl.run("job", "--help").stdout and "job watch" in ctl.run("job", "--help").stdout
    ctl.run(code=USAGE)
    ctl.run("backup", code=USAGE)
    assert ctl.run("whoami", "--url", "https://127.0.0.1:1", "--ca", ctl.node.ready["ca"], base=ctl.argv[:1], code=UNREACHED).stderr
    assert "certificate" in ctl.run("whoami", "--url", ctl.node.ready["url"], base=ctl.argv[:1], code=UNREACHED).stderr
    ctl.run("whoami", "--url", ctl.node.ready["url"], "--ca", ctl.node.ready["ca"], base=ctl.argv[:1], code=REFUSED)
    said = ctl.run("job", "show", "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c", code=NOT_THERE).stderr
    assert "VSS_E_OBJECT_NOT_FOUND" in said and "request " in said
    said = ctl.run("backup", "--repository", "main", "--path", "/no/\x1b]0;title\x07\x9bthere", code=FAILED).stdout
    assert "/no/" in said and not any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 for c in said), said
    said = ctl.run("backup", "--repository", "main", "--type", "sideways", code=BAD_ARGUMENT).stderr
    assert "/type" in said
    ctl.run("backup", "--repository", "nowhere", "--path", ctl.node.place, code=NOT_THERE)


def test_a_refusal_of_events_is_one_and_hints_name_commands(ctl):
    ready = ctl.node.ready
    stranger = [*ctl.argv[:1], "--url", ready["url"], "--ca", ready["ca"]]
    for follow in ((), ("-f",)):
        said = ctl.run("events", *follow, base=stranger, code=REFUSED).stderr
        assert "(401 E_ACCESSDENIED" in said and "hint: " in said, said
    assert "/session" in ctl.run("events", "session=none", code=BAD_ARGUMENT).stderr.lower().replace("?", "/")
    ctl.run("status", base=stranger, code=REFUSED)
    said = ctl.run("session", "show", "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c", code=NOT_THERE).stderr
    assert "hint: `quiescectl session list` lists what there is." in said, said
    said = ctl.run("call", "GET", "/nowhere", code=NOT_THERE).stderr
    assert "`quiescectl call GET /openapi.yaml` lists the paths." in said, said


def test_where_the_daemon_is_can_be_said_in_four_ways(ctl):
    program, ready = ctl.argv[:1], ctl.node.ready
    by_option = ["--url", ready["url"], "--ca", ready["ca"], "--token-file", ready["token_file"]]
    assert ctl.json("whoami", *by_option, base=program)["authentication"] == "token"
    assert ctl.json("whoami", base=program, QUIESCED_URL=ready["url"], QUIESCED_CA=ready["ca"], QUIESCED_CERT=ready["cert"],
                    QUIESCED_KEY=ready["key"])["authentication"] == "certificate"
    assert ctl.json("whoami", "--socket", ready["socket"], base=program)["authentication"] == "peer"
    ctl.run("login", *by_option, base=program)
    kept = ctl.home / ".config" / "quiescectl.json"
    assert kept.stat().st_mode & 0o777 == 0o600 and json.loads(kept.read_text())["token_file"] == ready["token_file"]
    assert ctl.json("whoami", base=program)["principal"] == "admin"
    ctl.run("logout", base=program)
    assert not kept.exists()
    config = ctl.home / "curlrc"
    config.write_text(ctl.run("curl-config").stdout)
    done = subprocess.run(["curl", "-K", config, ready["url"] + "/whoami"], capture_output=True, check=True)
    assert json.loads(done.stdout)["principal"] == "admin"


def test_lists_tokens_and_any_call(ctl):
    for name in ("writers", "providers", "movers", "volumes", "repositories", "snapshots", "errors", "token list", "cert list"):
        ctl.run(*name.split())
        assert isinstance(ctl.json(*name.split()), list), name
    assert {row["name"] for row in ctl.json("writers")} == {"app", "slow"}
    made = ctl.run("token", "create", "console", "viewer", "expires_in_seconds=600")
    assert re.fullmatch(r"qsd1_\S+\n", made.stdout) and "console" in made.stderr
    token = ctl.json("token", "list")[0]
    ctl.run("token", "revoke", token["id"])
    ctl.run("token", "revoke", token["id"], code=NOT_THERE)
    assert ctl.json("call", "GET", "/version")["name"] == "quiesced"
    hook = ctl.json("call", "POST", "/webhooks", "url=https://example.org/")["id"]
    ctl.run("call", "DELETE", f"/webhooks/{hook}", code=BAD_STATE)
    ctl.run("call", "DELETE", f"/webhooks/{hook}", "If-Match: *")
    for n in range(5):
        ctl.json("call", "POST", "/sessions", "kind=backup", f"label=n{n}")
    assert len(ctl.json("session", "list", "--limit", "3")) == 3
    assert "there are more" in ctl.run("session", "list", "--limit", "3").stderr
    assert len(ctl.json("session", "list")) == 5


def test_the_doctor_says_what_to_do(ctl, daemon):
    found = ctl.json("doctor")
    said = ctl.run("doctor").stdout
    assert all(row["verdict"] != "bad" for row in found) and "ok    reached, as admin (admin)" in said and "no backup yet" in said
    assert "no job failed within a day" in said and "no error was logged within a day" in said
    assert re.search(r"repository main: of the usable space at \S+ \(\w+, .* in all\) \d+ % are free", said), said
    (ctl.node.faults / "provider.create").write_text("once")
    ctl.run("backup", "--repository", "main", "--path", ctl.node.place / "data", code=FAILED)
    said = ctl.run("doctor").stdout
    assert "1 job failed within a day; the newest, " in said and "Backup" in said and "quiescectl job list state=failed" in said
    ready = ctl.node.ready
    ctl.node.stop()
    found = ctl.run("doctor", "--url", ready["url"], "--ca", ready["ca"], base=ctl.argv[:1], code=FAILED).stdout
    assert found.startswith("bad ") and ready["url"] in found


def test_status_tells_what_is_protected_what_runs_and_what_is_frozen(ctl):
    place = ctl.node.place
    assert "no backup yet" in ctl.run("status", code=FAILED).stdout
    ctl.run("backup", "--repository", "main", "--path", place / "data", "--label", "nightly")
    said = ctl.run("status").stdout
    assert said.startswith("protected\n") and "nightly" in said and "nothing runs" in said and "FROZEN" not in said
    job = ctl.run("backup", "--repository", "main", "--component", "slow/main", "--no-wait").stdout.strip()
    deadline = time.monotonic() + 60
    while not (found := ctl.json("status"))["frozen"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found["running"][0]["job_id"] == job and found["frozen"][0]["writers"] == ["slow"]
    said = ctl.run("status").stdout
    assert "FROZEN since" in said and f"session abort {found['frozen'][0]['session_id']}" in said and job in said
    ctl.run("session", "abort", found["frozen"][0]["session_id"])
    assert ctl.json("status")["frozen"] == []  # the one that was aborted has no label: it is of no series that could have a gap
    # One that fails is told though it never came as far as the catalog, whatever other labels do.
    (ctl.node.faults / "provider.create").write_text("once")
    ctl.run("backup", "--repository", "main", "--path", place / "data", "--label", "nightly", code=FAILED)
    ctl.run("backup", "--repository", "main", "--path", place / "data", "--label", "other")
    assert ctl.run("status", code=FAILED).stdout.startswith("at risk: the newest backup of a label did not end well: nightly\n")
    ctl.run("backup", "--repository", "main", "--path", place / "data", "--label", "nightly")
    assert ctl.json("status")["protected"] is True
    ctl.run("backup", "--repository", "main", "--component", "app")
    assert ctl.json("status")["protected"] is True
    (ctl.node.faults / "provider.create").write_text("once")
    ctl.run("backup", "--repository", "main", "--path", place / "data", "--label", "payroll", code=FAILED)
    told = ctl.run("status", code=FAILED).stdout
    assert told.startswith("not protected: a label has no good backup: payroll\n")


@pytest.mark.full  # retention has its own time
def test_events_begin_with_the_oldest_that_is_kept(daemon, tmp_path):
    ctl = Ctl(daemon("retention: {events: 100}\n"), tmp_path)
    for _ in range(60):
        session = ctl.node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
        ctl.node.call("DELETE", f"/sessions/{session}")
    ctl.node.stop()  # the next start drops what is beyond
    ctl.node.start()
    deadline = time.monotonic() + 400
    while (told := [json.loads(line) for line in ctl.run("--json", "events").stdout.splitlines()])[0]["id"] == 1:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert len(told) >= 50 and "reset" not in {event["type"] for event in told}


def test_events_tell_what_happened_and_go_on_over_a_restart(ctl):
    ctl.run("session", "create", "kind=backup")
    told = [json.loads(line) for line in ctl.run("--json", "events").stdout.splitlines()]
    assert told[0]["type"] == "session.changed" and [event["id"] for event in told] == sorted(event["id"] for event in told)
    assert len(ctl.run("events", "--limit", "1").stdout.splitlines()) == 1 and ctl.run("events", "types=session.thawed").stdout == ""
    process = subprocess.Popen([*ctl.argv, "--json", "events", "-f", f"after={told[-1]['id']}"], stdout=subprocess.PIPE, text=True, env=ctl.environment())
    try:
        for _ in range(2):
            made = ctl.json("session", "create", "kind=backup")
            event = json.loads(process.stdout.readline())
            while event["session_id"] != made["id"]: # of before the restart: how the daemon's end left the session of then
                event = json.loads(process.stdout.readline())
            assert event["type"] == "session.changed"
            listening = ctl.node.ready["url"].rsplit(":", 1)[1]
            ctl.node.stop()
            ctl.node.options = ["--listen", f"127.0.0.1:{listening}"]
            ctl.node.start()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == OK
