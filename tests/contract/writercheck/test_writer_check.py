"""quiesced writer-check: good writers pass every rule; a writer with one seeded fault fails that rule, and no other."""
import json
import os
import pathlib
import re
import sqlite3
import subprocess

import pytest

SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", pathlib.Path(__file__).resolve().parents[3]))
BUILD = pathlib.Path(os.environ["QUIESCED_BUILD"])
FAULTY = SOURCE / "tests" / "writers" / "faulty"
RULES_TEXT = (SOURCE / "daemon" / "writercheck" / "rules.def").read_text()
RULES = re.findall(r'^RULE\(\w+, "([a-z-]+)"', RULES_TEXT, re.M)
NEED_HOLD = set(re.findall(r'^RULE\(\w+, "([a-z-]+)", true', RULES_TEXT, re.M))
WAITED_FOR = {"answers-in-time", "end-of-file-exits", "no-process-left", "sigterm-ends", "hold-lease"}  # the fault is seen when the time is up
WAITED_FOR_MS, PATIENT_MS = 15000, 120000  # on a busy machine a good writer may be slow


def writer_check(*arguments):
    return subprocess.run([BUILD / "quiesced", "writer-check", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def verdicts(done):
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    assert document["passed"] == (done.returncode == 0)
    assert [row["rule"] for row in document["rules"]] == RULES
    return {row["rule"]: row["verdict"] for row in document["rules"]}


def passes(*arguments):
    done = writer_check("--json", "--limit-ms", PATIENT_MS, *arguments)
    assert set(verdicts(done).values()) == {"ok"}, done.stdout + done.stderr


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


def probe_of(hold):
    return f"/usr/bin/test ! -e {hold}"


def test_there_are_rules():
    assert len(RULES) == len(set(RULES)) > 30


@pytest.mark.parametrize("writer", [SOURCE / "examples" / "directory_writer.py", BUILD / "example-directory-writer"], ids=["python", "c"])
def test_the_examples_pass(writer, tmp_path):
    (tmp_path / "note").write_text("text")
    (tmp_path / ".lock").touch()
    passes("--probe", f"/usr/bin/flock --shared --nonblock {tmp_path}/.lock /bin/true", writer, tmp_path)


def test_the_built_in_sqlite_writer_passes(tmp_path):
    database = tmp_path / "app.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE t(x)")
    connection.close()
    probe = script(tmp_path / "probe", "#!/usr/bin/python3 -SE\nimport sqlite3, sys\n"
                   f"c = sqlite3.connect({str(database)!r}, timeout=0, isolation_level=None)\n"
                   "try:\n    c.execute('BEGIN IMMEDIATE')\n    c.execute('ROLLBACK')\n"
                   "except sqlite3.OperationalError:\n    sys.exit(1)\n")
    (tmp_path / "writer.json").write_text(json.dumps({"name": "app", "type": "sqlite", "databases": [str(database)]}))
    passes("--configuration", tmp_path / "writer.json", "--probe", probe, BUILD / "quiesced-writer-sqlite")


def test_the_faulty_writer_without_a_fault_passes(tmp_path):
    passes("--probe", probe_of(tmp_path / "hold"), FAULTY, tmp_path / "hold")


@pytest.mark.parametrize("rule", RULES)
def test_a_writer_with_one_fault_fails_that_rule(rule, tmp_path):
    limit = WAITED_FOR_MS if rule in WAITED_FOR else PATIENT_MS
    done = writer_check("--json", "--limit-ms", limit, "--probe", probe_of(tmp_path / "hold"), FAULTY, tmp_path / "hold", rule)
    found = verdicts(done)
    assert [name for name, verdict in found.items() if verdict == "FAIL"] == [rule], done.stdout + done.stderr
    assert done.returncode == 1


def test_the_text_names_every_rule_and_says_what_was_seen(tmp_path):
    done = writer_check("--probe", probe_of(tmp_path / "hold"), FAULTY, tmp_path / "hold", "unknown-event")
    assert done.returncode == 1
    *lines, last = done.stdout.splitlines()
    assert [line[12:].split()[0] for line in lines] == RULES
    assert last == "FAILED"
    (failure,) = [line for line in lines if line.startswith("FAIL")]
    assert "event_of_the_future was refused: VSS_E_WRITERERROR_NONRETRYABLE" in failure


def test_without_a_probe_the_hold_is_not_believed(tmp_path):
    done = writer_check("--json", FAULTY, tmp_path / "hold")
    assert verdicts(done)["hold"] == "FAIL"


def recorded(tmp_path, *options, **environment):
    """The verdicts on the recording writer, and every request that it got."""
    settings = [f"{key}={value}" for key, value in {"RECORD": tmp_path / "record", **environment}.items()]
    done = writer_check("--json", "--limit-ms", PATIENT_MS, *options, "/usr/bin/env", *settings, SOURCE / "tests" / "writers" / "recorder")
    entries = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    return verdicts(done), [entry["request"] for entry in entries if "request" in entry]


def test_a_writer_that_holds_no_writes_needs_no_probe(tmp_path):
    found, _ = recorded(tmp_path, COMPONENTS='[{"name":"main","hold":"none"}]')
    assert set(found.values()) == {"ok", "n/a"}, found
    assert {rule for rule, verdict in found.items() if verdict == "n/a"} == NEED_HOLD


def test_it_asks_what_the_worker_would_ask(tmp_path):
    (tmp_path / "writer.json").write_text('{"name": "app", "colour": "blue"}')
    _, requests = recorded(tmp_path, "--configuration", tmp_path / "writer.json", "--staging", "/srv/staging", FILES="/srv/app",
                           COMPONENTS=json.dumps([{"name": "whole", "selectable": True, "hold": "none"}, {"logical_path": "whole", "name": "part", "hold": "none"}]))
    assert {request["event"] for request in requests} >= {
        "identify", "prepare_backup", "prepare_snapshot", "freeze", "thaw", "post_snapshot", "backup_complete", "backup_shutdown", "abort",
        "pre_restore", "post_restore"}
    for request in requests:
        assert isinstance(request["id"], int) and request["session"] and request["deadline_ms"] > 0
        if request["event"] == "identify":
            assert request["configuration"] == {"name": "app", "colour": "blue"}
        else:
            assert request["staging"] == "/srv/staging"
            assert request["backup_type"] in ("full", "incremental", "differential", "log", "copy", "other")
    identified = [request for request in requests if request["event"] == "freeze" and request["component_mode"]]
    assert identified and all([c["name"] for c in request["components"]] == ["whole"] for request in identified)  # the part is implicit
    assert [r["components"] for r in requests if not r.get("component_mode", True)] and not any(
        r["components"] for r in requests if not r.get("component_mode", True))
    assert {c["succeeded"] for r in requests if r["event"] == "backup_complete" for c in r["components"]} == {True}


@pytest.mark.parametrize("arguments, words", [
    ((), "COMMAND: missing"),
    (("/nowhere/writer",), "/nowhere/writer: No such file"),
    (("--probe", "/nowhere/probe", FAULTY), "/nowhere/probe: No such file"),
    (("--probe", "/bin/false", FAULTY), "the application is held"),
    (("--limit-ms", "soon", FAULTY), "--limit-ms"),
    (("--configuration", "/nowhere/file", FAULTY), "/nowhere/file"),
    (("--unheard-of", FAULTY), "unheard-of"),
])
def test_what_cannot_be_judged_ends_with_2(arguments, words):
    done = writer_check(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""
