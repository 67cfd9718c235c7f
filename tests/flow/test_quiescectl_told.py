"""What quiescectl tells somebody who has never seen it: what a backup holds, what is wrong with what was typed, why nobody answers."""
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading

import pytest

import journey
from ctl import BAD_ARGUMENT, FAILED, OK, UNREACHED, USAGE, Ctl
from daemon import BUILD, SOURCE
from test_quiescectl_commands import Server, Slow


@pytest.fixture
def ctl(daemon, tmp_path):
    place = daemon.place
    (place / "slow").mkdir()
    config = journey.lay_out(place).replace("writers:\n", f"""writers:
  - {{name: slow, type: exec, command: [{SOURCE}/tests/writers/recorder], environment: {{FILES: {place}/slow, WAIT_FREEZE: {place}/never}}}}
""")
    return Ctl(daemon(config), tmp_path)


# --- a backup's size ---

def test_a_backup_tells_what_it_holds_and_what_it_cost(ctl):
    data = ctl.node.place / "data"
    told = ctl.run("backup", "--repository", "main", "--path", data / "file").stdout
    assert re.fullmatch(r"""Backup succeeded
  backup [0-9a-f-]{36}
  1 file, 16\.0 KiB
  consistency grade \w+.*
  frozen for \d+ ms
""", told), told
    made = ctl.json("backup", "--repository", "main", "--component", "app", "--path", data)["result"]
    kept = ctl.json("backup", "show", made["backup_id"])
    assert (made["files"], made["bytes"]) == (kept["files"], kept["bytes"]) and made["files"] >= 2 and "warnings" not in made
    told = ctl.run("restore", made["backup_id"], ctl.node.place / "restored").stdout
    assert f"  {kept['files']} files, " in told and "warning" not in told


def test_an_empty_backup_does_not_pass_unseen(ctl):
    (ctl.node.place / "data" / "empty").mkdir()
    told = ctl.run("backup", "--repository", "main", "--path", ctl.node.place / "data" / "empty").stdout
    assert "  0 files, 0 B\n  warning: the backup holds no file\n" in told
    backup = re.search(r"backup (\S+)", told).group(1)
    told = ctl.run("restore", backup, ctl.node.place / "restored").stdout
    assert "  0 files, 0 B\n  warning: no file was restored\n" in told


def test_an_exclude_that_matches_nothing_is_told(ctl):
    data = ctl.node.place / "data"
    told = ctl.run("backup", "--repository", "main", "--path", data, "--exclude", data / "flie", "--exclude", "/nowhere", "--exclude", data / "file").stdout
    assert f"  warning: exclude {data}/flie: there is no such file: nothing was left out for it\n" in told
    assert "exclude /nowhere: " in told and told.count("warning: ") == 2, told
    assert re.search(r"  1 file, ", told), told  # the database alone


# --- why nobody answers ---

def test_a_socket_that_may_not_be_used_and_one_that_nobody_listens_at(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("another user is needed")
    with tempfile.TemporaryDirectory(prefix="quiesced-test-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)
        program, path = shutil.copy(BUILD / "quiescectl", place), f"{place}/api.sock"
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(path)
            listening.listen()
            os.chmod(path, 0o600)
            done = subprocess.run([program, "--socket", path, "whoami"], user=65534, group=65534, extra_groups=[], capture_output=True, text=True, timeout=60,
                                  env={"HOME": place, "PATH": "/usr/bin:/bin"})
        finally:
            listening.close()
        assert done.returncode == UNREACHED and f"{path}: permission denied" in done.stderr and "principals" in done.stderr and "port" not in done.stderr, done.stderr
        done = subprocess.run([program, "--socket", path, "whoami"], capture_output=True, text=True, timeout=60, env={"HOME": place, "PATH": "/usr/bin:/bin"})
        assert done.returncode == UNREACHED and f"{path}: nobody listens there any more" in done.stderr and "Is the daemon running?" in done.stderr, done.stderr
        assert "port" not in done.stderr


class Gone(Slow):
    """A daemon that stops while a job of it is watched."""

    def do_GET(self):
        self.close_connection = True
        self.server.asked.set()
        os.unlink(self.server.server_address)


def test_of_a_daemon_that_is_gone_nobody_says_that_its_job_goes_on(tmp_path):
    server = Server(tmp_path / "api.sock")
    server.RequestHandlerClass = Gone
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    process = subprocess.Popen([BUILD / "quiescectl", "--socket", tmp_path / "api.sock", "job", "watch", Slow.job["id"]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    try:
        assert server.asked.wait(60)
        while process.poll() is None:  # each is heard once: the second one leaves the job alone
            process.terminate()
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                pass
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
        server.shutdown()
        thread.join()
        server.server_close()
    assert process.returncode == UNREACHED and "the daemon is not reached" in said and "not known" in said and "goes on by itself" not in said, said


# --- what is wrong with what was typed ---

def test_a_slash_that_completion_has_put_behind_a_folder_is_no_mistake(ctl):
    place = ctl.node.place
    made = ctl.json("backup", "--repository", "main", "--path", f"{place}/data/", "--exclude", f"{place}/data/file/")["result"]
    assert made["files"] == 1 and "warnings" not in made
    assert ctl.json("restore", made["backup_id"], f"{place}/restored//", "--path", f"{place}/data/")["result"]["files"] == 1
    assert ctl.json("repository", "create", "name=second", "mover=archive", f"path={place}/second/")["path"] == f"{place}/second"


def test_a_refusal_shows_what_was_refused_and_every_fault(ctl):
    said = ctl.run("backup", "--repository", "main", "--path", "/srv//files", code=BAD_ARGUMENT).stderr
    assert said.startswith("quiescectl: /paths/0 (/srv//files): must be an absolute path")
    assert "`errors`" not in said and "hint: See `quiescectl call GET /openapi.yaml` for what is taken." in said
    said = ctl.run("backup", "--repository", "main", "--type", "sideways", "--path", "srv", code=BAD_ARGUMENT).stderr
    assert "/type (sideways): " in said and "/paths/0 (srv): " in said and said.startswith("quiescectl: 2 things "), said
    said = ctl.run("call", "POST", "/webhooks", "url=https://example.org/", "secret=7", code=BAD_ARGUMENT).stderr
    assert "/secret" in said and "(7)" not in said, said


@pytest.mark.parametrize("arguments, told", [
    ("backup", "--repository NAME is missing"),
    ("backup --repository main /srv", "unexpected argument /srv"),
    ("backup --repository main --bogus", "unknown option --bogus"),
    ("backup --repository main -q", "unknown option -q"),
    ("backup --repository main --path", "--path needs a value"),
    ("backup --repository main --limit nice", "--limit nice: this is not NAME=VALUE"),
    ("restore", "BACKUP is missing"),
    ("restore x", "TARGET is missing"),
    ("restore x /srv /other", "unexpected argument /other"),
    ("restore x /srv --overwrite=yes", "--overwrite=yes: this option takes no value"),
    ("hold freeze --nmae vm", "unknown option --nmae"),
    ("hold thaw vm", "unexpected argument vm"),
    ("hold create", "PATH is missing"),
    ("status --bogus", "unknown option --bogus"),
    ("--bogus status", "unknown option --bogus"),
    ("status now", "unexpected argument now"),
    ("jobs", "jobs: no such command; did you mean `quiescectl job list`?"),
    ("statsu", "statsu: no such command; did you mean `quiescectl status`?"),
    ("job lsit", "job lsit: no such command; did you mean `quiescectl job list`?"),
    ("sesion show x", "sesion: no such command; did you mean `quiescectl session show`?"),
    ("job", "job: what of it?"),
    ("fly", "fly: no such command\n"),
    ("--limit 0 jobs", "--limit 0: a number from 1"),
])
def test_what_is_wrong_is_said_first_and_in_one_line(arguments, told, tmp_path):
    done = subprocess.run([BUILD / "quiescectl", *arguments.split()], capture_output=True, text=True, timeout=60, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert done.returncode == USAGE and done.stderr.startswith(f"quiescectl: {told}"), done
    assert len(done.stderr.splitlines()) == 2 and "--help" in done.stderr and done.stdout == "", done.stderr


def test_the_names_of_a_get_are_its_query(ctl):
    ctl.run("backup", "--repository", "main", "--path", ctl.node.place / "data", "--label", "a b&c")
    assert ctl.json("call", "GET", "/backups", "label=a b&c")["items"][0]["label"] == "a b&c"
    assert ctl.json("call", "GET", "/jobs?limit=1", "state=failed")["items"] == []
    assert "not NAME=VALUE" in ctl.run("call", "GET", "/jobs", "failed", code=USAGE).stderr


# --- help ---

def test_columns_of_the_help_stand_one_below_the_other():
    rows = subprocess.run([BUILD / "quiescectl", "hold", "--help"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert sum("…" in row for row in rows) >= 2
    page = subprocess.run([BUILD / "quiescectl", "--help"], capture_output=True, text=True, check=True).stdout.split("\nURL, CA")[0].splitlines()
    short = [row for row in page if row.startswith("  ") and len(row) > 48 and row[47] == " " and row[2] != " "]
    assert any("…" in row for row in short) and all(row[48] != " " for row in short), short


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_the_daemons_commands_have_help(command):
    done = subprocess.run([BUILD / "quiesced", command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == OK and done.stdout.startswith(f"usage: quiesced {command}") and done.stderr == ""


def test_a_plan_names_each_need_once(ctl):
    what = ["plan", "--repository", "main", "--component", "app", "--path", ctl.node.place / "data"]
    (volume,) = ctl.json(*what)["volumes"]
    assert volume["reason"] == f"needed by app/app, {ctl.node.place}/data"


# --- status ---

def test_neither_what_was_cancelled_nor_a_hold_is_a_backup_that_failed(ctl):
    def session(label, how):
        one = ctl.json("session", "create", "kind=backup", f"label={label}")["id"]
        ctl.run("session", how, one)
    session("hold:vm", "abort")
    session("hold-snapshot", "abort")
    assert "there is no backup yet" in ctl.run("status", code=FAILED).stdout
    ctl.run("backup", "--repository", "main", "--path", ctl.node.place / "data", "--label", "nightly")
    job = ctl.run("backup", "--repository", "main", "--component", "slow/main", "--label", "nightly", "--no-wait").stdout.strip()
    ctl.run("job", "cancel", job)
    found = ctl.json("status")
    assert found["verdict"] == "protected" and [row["label"] for row in found["labels"]] == ["nightly"] and "failed_since" not in found["labels"][0]
    session("nightly", "abort")  # given up, and not by a cancel
    assert ctl.run("status", code=FAILED).stdout.startswith("at risk: the newest backup of a label did not end well: nightly\n")


def test_who_sees_his_own_alone_is_told_of_his_own(ctl):
    ctl.run("backup", "--repository", "main", "--path", ctl.node.place / "data", "--label", "of admin")
    secret = ctl.home / "operator.token"
    secret.write_text(ctl.run("token", "create", "console", "operator").stdout)
    ready = ctl.node.ready
    his = [ctl.argv[0], "--url", ready["url"], "--ca", ready["ca"], "--token-file", str(secret)]
    told = ctl.run("status", base=his, code=FAILED).stdout
    assert told.startswith("not protected: there is no backup of yours yet\n") and "of admin" not in told
    ctl.run("backup", "--repository", "main", "--path", ctl.node.place / "data" / "file", "--label", "his", base=his)
    assert ctl.run("status", base=his).stdout.startswith("protected, as to backups of yours")
    assert ctl.run("status").stdout.startswith("protected\n")


# --- doctor ---

class Ailing(Slow):
    """A daemon whose disks are full, as its own contract says it."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.answer(*self.server.answers.get(path, (200, {"items": [], "next_cursor": None})))


def ailing(**free):
    volume = {"path": "/srv", "mount_point": "/srv", "fs_type": "btrfs", "source": "/dev/x", "superblock": "u", "provider": "btrfs", "reason": None, "bytes": 1 << 40, "free_percent": 50,
              "metadata_free_percent": 50, **free}
    return [volume, {**volume, "path": "/srv/sub", "mount_point": "/srv/sub"}, {**volume, "superblock": "1:2", "fs_type": "ext4", "provider": "copy", "free_percent": 0, "metadata_free_percent": None}]


@pytest.mark.parametrize("free, verdict, told, cure", [
    ({"metadata_free_percent": 1}, "bad", "volume /srv (btrfs): of the room that its metadata can have 1 % are free", "btrfs balance start -dusage=50 /srv"),
    ({"metadata_free_percent": 9}, "warn", "volume /srv (btrfs): of the room that its metadata can have 9 % are free", "btrfs balance start"),
    ({"free_percent": 1}, "warn", "volume /srv (btrfs): 1 % are free", "`quiescectl snapshots`"),
    ({"metadata_free_percent": 10, "free_percent": 2}, "ok", "no file system that snapshots are made on is full", ""),
])
def test_the_doctor_sees_full_file_systems(tmp_path, free, verdict, told, cure):
    server = Server(tmp_path / "api.sock")
    server.RequestHandlerClass = Ailing
    server.answers = {"/whoami": (200, {"principal": "admin", "role": "admin"}), "/volumes": (200, {"items": ailing(**free), "next_cursor": None}),
                      "/health/ready": (503, {"ready": False, "reasons": ["the store's file system is full: 7 KiB are left"], "warnings": []})}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        argv = [BUILD / "quiescectl", "--socket", tmp_path / "api.sock", "--json", "doctor"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
        found = json.loads(done.stdout)
        rows = [row for row in found if row["what"].startswith(told)]
        assert len(rows) == 1 and rows[0]["verdict"] == verdict and cure in rows[0]["hint"], found  # once, though it is mounted twice
        assert not any("ext4" in row["what"] for row in found), "nothing is snapshotted on it"
        (row,) = [row for row in found if row["what"].startswith("the store's file system")]
        assert row["verdict"] == "bad" and "state directory" in row["hint"] and done.returncode == FAILED
        assert not any("has room" in row["what"] for row in found)
        server.answers["/health/ready"] = (200, {"ready": True, "reasons": [], "warnings": []})
        found = json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}).stdout)
        assert {"verdict": "ok", "what": "the file system of the state directory has room", "hint": ""} in found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_doctor_sees_what_keeps_a_backup_from_being_made(tmp_path):
    """The mover of a repository that is not installed, a writer that does not answer, no provider: each with what to do."""
    def plug_in(name, reason=None, **more):
        return {"name": name, "title": name, "available": reason is None, "reason": reason, **more}
    server = Server(tmp_path / "api.sock")
    server.RequestHandlerClass = Ailing
    lists = {"/writers": [plug_in("shop", "the server does not answer", type="mariadb"), plug_in("app", type="sqlite")],
             "/providers": [plug_in("copy", "it needs root")],
             "/movers": [plug_in("archive"), plug_in("restic", "restic is not installed"), plug_in("borg", "borg is not installed")],
             "/repositories": [{"name": "main", "mover": "archive"}, {"name": "off", "mover": "restic"}]}
    server.answers = {path: (200, {"items": items, "next_cursor": None}) for path, items in lists.items()}
    server.answers |= {"/whoami": (200, {"principal": "admin", "role": "admin"}), "/health/ready": (200, {"ready": True, "reasons": [], "warnings": []})}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        done = subprocess.run([BUILD / "quiescectl", "--socket", tmp_path / "api.sock", "--json", "doctor"], capture_output=True, text=True, timeout=60,
                              env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    found, bad = json.loads(done.stdout), {}
    for row in found:
        if row["verdict"] == "bad":
            bad[row["what"]] = row["hint"]
    assert done.returncode == FAILED and len(bad) == 3, found
    (off,) = [hint for what, hint in bad.items() if what.startswith("repository off: ") and "restic is not installed" in what]
    assert "Install restic" in off and "docs/movers/restic.md" in off
    assert "docs/writers/mariadb.md" in bad["writer shop: the server does not answer"] and "docs/providers/copy.md" in bad["no snapshot provider is available"]
    (warned,) = [row for row in found if row["what"] == "provider copy: it needs root"]
    assert warned["verdict"] == "warn" and "docs/providers/copy.md" in warned["hint"]
    assert not any("borg" in row["what"] for row in found), "no repository needs it"
    named = re.findall(r"docs/[a-z/]+\.md", done.stdout)
    assert named and all((SOURCE / page).exists() for page in named)


def test_the_doctor_looks_at_the_file_system_of_the_repository(ctl):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    small = ctl.node.place / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "quiesced-test", small], check=True)
    try:
        ctl.run("repository", "create", "name=small", "mover=archive", f"path={small}/repository")
        (row,) = [row["what"] for row in ctl.json("doctor") if row["what"].startswith("repository small: ")]
        assert re.fullmatch(rf"repository small: of the usable space at {small} \(tmpfs, 20\.0 MiB in all\) \d+ % are free", row), row
        root = ctl.json("call", "GET", "/volumes/resolve", f"path={small}")
        assert root["bytes"] == 20 << 20 and 0 < root["free_percent"] <= 100
    finally:
        subprocess.run(["umount", small], check=True)
