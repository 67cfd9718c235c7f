"""Running it: the ready file, SIGHUP with a good and with a bad file, SIGTERM with a job in hand; all seen over HTTPS."""
import hashlib
import json
import os
import pathlib
import pwd
import signal
import subprocess
import time

import pytest

from conduct import Writer, configuration
from conftest import BUILD, SOURCE
from test_access import Caller

TOKENS = {name: "qsd1_" + hashlib.sha256(name.encode()).hexdigest()[:43] for name in ("first", "second")}


def principals(*names):
    return "principals:\n" + "".join(
        f"  - {{name: {name}, role: viewer, token_sha256: {hashlib.sha256(TOKENS[name].encode()).hexdigest()}}}\n" for name in names)


def until(condition, words):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, words()
        time.sleep(0.02)


def reload(node, text):
    """The file is read again; returns what was said meanwhile."""
    before = len(node.words())
    (node.place / "quiesced.yaml").write_text(text)
    node.process.send_signal(signal.SIGHUP)
    until(lambda: any(end in node.words()[before:] for end in ("configuration read again", "read before stays in force")), node.words)
    return node.words()[before:]


def test_the_ready_file_says_how_to_come_in(daemon):
    node = daemon()
    path = node.place / "ready.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(node.ready) == {"url", "ca", "cert", "key", "token_file", "socket", "pid"}
    assert node.ready["pid"] == node.process.pid
    for name in ("ca", "cert", "key", "token_file"):
        assert pathlib.Path(node.ready[name]).is_file(), name
    for name in ("key", "token_file"):
        assert pathlib.Path(node.ready[name]).stat().st_mode & 0o777 == 0o600, name
    assert node.call("GET", "/health/ready").status == 200
    assert node.stop() == 0
    assert not path.exists(), "it would promise too much"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
def test_as_root_front_and_core_run_as_two_users_that_are_made_when_missing(daemon):
    names = [f"qsd-{os.getpid()}-{role}" for role in ("f", "c")]
    try:
        node = daemon(f"run_as: {{front: {names[0]}, core: {names[1]}}}\n")
        users = [pwd.getpwnam(name) for name in names]
        assert all(user.pw_uid < 1000 and user.pw_shell.endswith("nologin") for user in users), users
        table = subprocess.run(["ps", "-o", "uid=,args=", "--ppid", str(node.process.pid)], check=True, capture_output=True, text=True).stdout
        uid_of = {line.split("--role=")[1].strip(): int(line.split()[0]) for line in table.splitlines() if "--role=" in line}
        assert uid_of == {"front": users[0].pw_uid, "core": users[1].pw_uid, "agent": 0, "logger": 0}
        assert node.stop() == 0
        assert node.start().call("GET", "/whoami").status == 200, "the second start finds them"
        assert node.stop() == 0
    finally:
        for name in names:
            subprocess.run(["userdel", name], check=False, capture_output=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
def test_a_state_directory_that_core_cannot_reach_is_refused_at_once(daemon):
    closed = daemon.place / "closed"
    closed.mkdir(mode=0o700)
    done = subprocess.run([BUILD / "quiesced", "serve", "--state-dir", closed / "state", "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and f"user quiesced cannot pass {closed}" in done.stderr and "give another --state-dir" in done.stderr, done


def test_sighup_takes_a_good_file_over_and_drops_no_connection(daemon):
    node = daemon(principals("first"))
    kept = Caller(node)
    kept.call("GET", "/health/live")
    socket = kept.connection.sock
    assert kept.call("GET", "/whoami", token=TOKENS["second"])[0] == 401
    said = reload(node, principals("second") + f"repositories:\n  - {{name: added, mover: archive, path: {node.place}/added}}\n")
    assert "configuration read again" in said
    until(lambda: kept.call("GET", "/whoami", token=TOKENS["second"])[0] == 200, node.words)
    assert kept.call("GET", "/whoami", token=TOKENS["first"])[0] == 401, "who was taken out is out"
    assert json.loads(kept.call("GET", "/repositories/added", token=TOKENS["second"])[1])["path"] == f"{node.place}/added"
    assert kept.connection.sock is socket, "the connection of before is still the one in use"


@pytest.mark.parametrize("text, where, reason, hint", [
    ("# a comment\nlimits: {lease_secs: 1}\n", 2, "limits.lease_secs: unknown member", "did you mean"),
    ("limits:\n  freeze_seconds: soon\n", 2, "limits.freeze_seconds: ", "integer"),
    ("principals:\n  - {name: x, role: king, token_sha256: 00}\n", 3, "principals: given twice, first on line 1", "Keep one of the two."),
    ("writers: [\n", 3, "did not find expected node content", "while parsing a flow node"),
], ids=["unknown member", "wrong value", "given twice", "not YAML"])
def test_sighup_with_a_bad_file_leaves_the_old_one_in_force(daemon, text, where, reason, hint):
    good = principals("first")
    node = daemon(good)
    said = reload(node, text + principals("second"))
    assert "the configuration read before stays in force" in said
    assert [line for line in said.splitlines() if f"{node.place}/quiesced.yaml:{where}: {reason}" in line and hint in line], said
    caller = Caller(node)
    assert caller.call("GET", "/whoami", token=TOKENS["first"])[0] == 200
    assert caller.call("GET", "/whoami", token=TOKENS["second"])[0] == 401
    reload(node, principals("second"))
    until(lambda: caller.call("GET", "/whoami", token=TOKENS["second"])[0] == 200, node.words)


def test_what_needs_a_new_start_is_told_and_left_as_it_was(daemon):
    node = daemon(principals("first"))
    assert "run_as has changed: takes effect when quiesced is started again" in reload(node, principals("first") + "run_as: {front: a1, core: b1}\n")
    assert Caller(node).call("GET", "/whoami", token=TOKENS["first"])[0] == 200


# --- SIGTERM with a job in hand ---

def held(daemon, drain_seconds):
    """A daemon whose one writer is inside BackupComplete until the file `gate` is there; returns it, the job and the gate."""
    place = daemon.place
    gate, record = place / "gate", place / "record"
    record.touch()
    record.chmod(0o666)
    (place / "data").mkdir()
    node = daemon(f"""
writers:
  - name: held
    type: exec
    command: [{SOURCE}/tests/writers/recorder]
    user: {'nobody' if os.geteuid() == 0 else 'null'}
    environment: {{NAME: held, RECORD: {record}, WAIT_BACKUP_COMPLETE: {gate}, FILES: {place}/data}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
limits: {{drain_seconds: {drain_seconds}}}
""")
    job = node.call("POST", "/backups", {"components": [{"writer": "held", "name": "main"}], "paths": [], "repository": "main"})
    assert job.status == 202, job
    until(lambda: "backup_complete" in record.read_text(), node.words)
    return node, job.json["id"], gate, record


def test_sigterm_lets_a_running_job_finish(daemon):
    node, job, gate, record = held(daemon, 60)
    node.process.send_signal(signal.SIGTERM)
    until(lambda: "draining" in node.words(), node.words)
    assert node.process.poll() is None
    gate.touch()
    assert node.process.wait(60) == 0
    assert "backup_complete.answered" in record.read_text() and '"abort"' not in record.read_text()
    node.start()
    done = node.call("GET", f"/jobs/{job}").json
    assert (done["state"], done["hresult"]) == ("succeeded", "VSS_S_ASYNC_FINISHED"), done
    assert node.call("GET", f"/backups/{done['result']['backup_id']}").json["complete"] is True


def test_sigterm_cancels_a_job_that_outlasts_the_drain(daemon):
    node, job, gate, record = held(daemon, 1)
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(100) == 0
    node.start()
    done = node.call("GET", f"/jobs/{job}").json
    assert done["state"] == "cancelled" and done["hresult"] == "VSS_S_ASYNC_CANCELLED", done
    assert not [item for item in node.call("GET", "/backups").json["items"] if item["complete"]]
    assert "backup_complete.answered" not in record.read_text()


def test_the_first_start_tells_the_fingerprint_of_its_ca(daemon):
    """GET /ca.pem needs no authentication: this is what its bytes are compared with."""
    node = daemon("")
    shown = subprocess.run(["openssl", "x509", "-in", node.ready["ca"], "-noout", "-fingerprint", "-sha256"], capture_output=True, text=True, check=True).stdout
    assert f"ca.pem, SHA-256 {shown.strip().partition('=')[2]}\n" in node.words()


def test_who_asks_for_the_writers_while_it_ends_is_let_go(daemon):
    """What waits for a worker that answers nobody any more is freed, or the leak checker says so."""
    slow = Writer(daemon.place, "slow", DELAY_IDENTIFY="20")
    node = daemon(configuration(daemon.place, [slow]))
    asking = subprocess.Popen(["curl", "-sS", "--max-time", "60", "--cacert", node.ready["ca"], "--cert", node.ready["cert"], "--key", node.ready["key"],
                               node.ready["url"] + "/writers"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: slow.heard(event="identify"), node.words)
    assert node.stop() == 0 and not node.sanitized()
    asking.communicate(timeout=60)
