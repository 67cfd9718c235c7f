"""The real Samba: FSRVP (rpcclient, as Windows' remote VSS) makes application-consistent snapshots of a share through our script, which runs
as the SMB user; they are seen as Previous Versions, read and removed."""
import datetime
import grp
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess

import pytest

import cluster
import doors
import manual_blocks
from doors import BUILD, SCRIPTS, until

USER, GROUP, PASSWORD = "quiesced-smb", "quiesced-smbsnap", "Qs-7-test"


def system(*argv, check=True, **more):
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=120, **more)
    assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def user():
    """A user of this machine who is in the group that may snapshot."""
    if os.geteuid() != 0:
        pytest.skip("Samba's server needs root")
    if not shutil.which("smbd") or not shutil.which("rpcclient"):
        pytest.skip("samba is not installed")
    system("groupadd", "-f", GROUP)
    if system("id", USER, check=False).returncode != 0:
        system("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "--groups", f"{GROUP},{cluster.USER}", USER)
    yield pwd.getpwnam(USER)
    system("userdel", USER)
    system("groupdel", GROUP, check=False)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def of_the_manual(share, home, script=SCRIPTS / "samba-snapshot", group=GROUP):
    """What docs/front-doors.md shows, with the test's places in those of the manual: the commands that make the directories, the part of smb.conf (its global section goes on with ours), and
    that of quiesced.yaml."""
    return manual_blocks.of("front-doors.md", __file__, [("# smb.conf\n[global]\n", ""), ("[projects]", "[share]"), ("/mnt/quiesced/shadow/srv-projects", home),
                                                         ("/mnt/quiesced/shadow", home.parent), ("/usr/lib/quiesced/front-doors/samba-snapshot", script), ("smb-snapshots", group),
                                                         ("/srv/projects", share)])


def home_of(share, shadow):
    """Where its versions are to be."""
    return shadow / str(share).lstrip("/").replace("/", "-").replace(" ", "-")


def furnished(shares, home):
    """Makes the directories, and returns the settings of quiesced.yaml."""
    make, _, settings = of_the_manual(", ".join(map(str, shares)), home)
    system("sh", "-euc", make)
    return settings


def test_the_script_and_the_manual_name_one_place():
    (_, text, settings), script = manual_blocks.of("front-doors.md", __file__), (SCRIPTS / "samba-snapshot").read_text()
    (place,) = re.findall(r"QUIESCED_SHADOW:-(\S+)}", script)
    assert f"shadow:snapdir = {place}/srv-projects\n" in text and f"roots: [{place}]" in settings


class Samba:
    """smbd of one's own: every directory, database and port is the test's."""

    def __init__(self, node, share, shadow):
        self.place, self.share, self.port = node.place / "samba", share, free_port()
        self.place.mkdir()
        self.programs = self.place / "bin"
        self.programs.mkdir()
        for program in (BUILD / "quiescectl", SCRIPTS / "samba-snapshot"):  # where the SMB user reaches them, wherever this tree lies
            shutil.copy(program, self.programs)
        self.script = self.programs / "called"  # what a package would have installed stands here: where program, socket and versions are
        self.script.write_text(f"#!/bin/sh\nexport PATH={self.programs}:/usr/bin:/bin QUIESCED_SOCKET={node.ready['socket']} QUIESCED_SHADOW={shadow}\n"
                               f"exec {self.programs}/samba-snapshot \"$@\" 2>>{self.place}/script.log\n")
        self.script.chmod(0o755)
        (self.place / "script.log").touch()
        (self.place / "script.log").chmod(0o666)
        for name in ("private", "lock", "state", "cache", "pid", "ncalrpc", "log", "winbindd"):
            (self.place / name).mkdir()
        self.config = self.place / "smb.conf"
        self.config.write_text(f"""[global]
  workgroup = TEST
  server role = standalone server
  interfaces = 127.0.0.1
  bind interfaces only = yes
  smb ports = {self.port}
  private dir = {self.place}/private
  lock directory = {self.place}/lock
  state directory = {self.place}/state
  cache directory = {self.place}/cache
  pid directory = {self.place}/pid
  ncalrpc dir = {self.place}/ncalrpc
  winbindd socket directory = {self.place}/winbindd
  passdb backend = tdbsam:{self.place}/private/passdb.tdb
  log file = {self.place}/log/%m.log
  log level = 2
  disable netbios = yes
  load printers = no
  rpc start on demand helpers = yes
{of_the_manual(share, home_of(share, shadow), self.script)[1]}
  read only = no
""")
        system("smbpasswd", "-c", self.config, "-L", "-a", "-s", USER, input=f"{PASSWORD}\n{PASSWORD}\n")
        self.net("sam", "rights", "grant", USER, "SeBackupPrivilege")
        self.log = open(self.place / "smbd.log", "ab")
        self.process = subprocess.Popen(["smbd", "-F", "--no-process-group", "-s", str(self.config), "-l", str(self.place / "log")], stdout=self.log, stderr=self.log,
                                        stdin=subprocess.DEVNULL, start_new_session=True)
        until(self.answers)

    def net(self, *argv):
        return system("net", "-s", self.config, *argv)

    def answers(self):
        assert self.process.poll() is None, self.words()
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def words(self):
        return "\n".join(f"== {path}\n" + path.read_text(errors="replace")[-1500:] for path in [*self.place.glob("*.log"), *self.place.glob("log/*")] if path.is_file())

    def rpc(self, *words, check=True):
        done = system("rpcclient", "-s", self.config, "-p", self.port, "-U", f"{USER}%{PASSWORD}", "ncacn_np:127.0.0.1[sign]", "-c", " ".join(words), check=False)
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr, self.words())
        return done

    def smb(self, *commands, share="share"):
        done = system("smbclient", f"//127.0.0.1/{share}", "-s", self.config, "-p", self.port, "-U", f"{USER}%{PASSWORD}", "-c", "; ".join(commands), check=False)
        assert done.returncode == 0, (commands, done.stdout, done.stderr, self.words())
        return done.stdout

    def stop(self):
        helper = self.place / "pid" / "samba-dcerpcd.pid"  # has left smbd's session
        if helper.exists():
            subprocess.run(["kill", helper.read_text().strip()], capture_output=True)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.log.close()


@pytest.fixture
def ground(daemon, file_systems, load, user):
    """A daemon that lets the group snapshot the share alone, a busy database on the share's file system, and Samba."""
    fs, other, plain = file_systems("btrfs", 200), file_systems("btrfs"), file_systems("ext4")
    os.chown(fs.path, user.pw_uid, -1)
    (fs.path / "letter.txt").write_text("first\n")
    os.chown(fs.path / "letter.txt", user.pw_uid, -1)
    shadow = daemon.place / "shown"
    home = home_of(fs.path, shadow)
    node = daemon(f"""writers:
  - {{name: app, type: sqlite, databases: [{fs.path}/app.db]}}
  - {{name: elsewhere, type: sqlite, databases: [{other.path}/app.db]}}
repositories: [{{name: main, mover: archive, path: {daemon.place}/backups}}]
{furnished([fs.path, plain.path], home)}""")
    (node.place / "backups").mkdir(exist_ok=True)
    node.fs, node.other, node.plain, node.home = fs, other, plain, home
    node.load, node.elsewhere = load(fs.path / "app.db"), load(other.path / "app.db")
    samba = Samba(node, fs.path, shadow)
    yield node, samba
    samba.stop()


def test_a_remote_vss_requester_makes_sees_reads_and_deletes_a_snapshot(ground):
    node, samba = ground
    assert "supports shadow copy requests" in samba.rpc("fss_is_path_sup share").stdout
    before = node.load.done
    told = samba.rpc("fss_create_expose backup ro share").stdout
    after = node.load.done
    found = re.search(r"([0-9a-f-]{36})\(([0-9a-f-]{36})\): share (\S+) exposed as a snapshot", told)
    assert found, (told, samba.words())
    snapshot_set, copy, exposed = found.groups()
    versions = [path.name for path in node.home.iterdir()]
    assert len(versions) == 1 and re.fullmatch(r"@GMT-\d{4}\.\d\d\.\d\d-\d\d\.\d\d\.\d\d", versions[0])
    (node.fs.path / "letter.txt").write_text("second\n")
    # As a Previous Version of the share, as the share that FSRVP exposes, and with the database as it was at one instant.
    assert versions[0] in samba.smb("allinfo letter.txt")
    for share, name in (("share", versions[0] + "/letter.txt"), ("share", "letter.txt"), (exposed, "letter.txt")):
        fetched = node.place / "fetched"
        samba.smb(f"get {name} {fetched}", share=share)
        assert fetched.read_text() == ("second\n" if (share, name) == ("share", "letter.txt") else "first\n"), (share, name)
    assert before <= doors.rows_of(node.home / versions[0] / "app.db") <= after + 1
    # Whose files are elsewhere was not asked.
    job = node.call("GET", "/jobs?operation=DoSnapshotSet").json["items"][0]
    assert [one["grade"] for one in job["result"]["consistency"]["components"]] == ["application"], job
    assert [one["exposed_path"] for one in node.call("GET", "/snapshots").json["items"]] == [str(node.home / versions[0])]
    samba.rpc("fss_delete share", snapshot_set, copy)
    assert list(node.home.iterdir()) == [] and node.call("GET", "/snapshots").json["items"] == []
    assert doors.sessions_of_holds(node) == []
    node.load.goes_on()


def test_a_postgresql_server_under_load_comes_back_through_samba(daemon, file_systems, database, user):
    """The SMB user reads them as one of the server's group (`initdb --allow-group-access`), from the share that FSRVP exposes."""
    fs, shadow = file_systems("btrfs", 1024), daemon.place / "shown"
    server = database(fs.path)
    home = home_of(fs.path, shadow)
    node = daemon(f"writers: [{server.writer}]\n{furnished([fs.path], home)}")
    samba = Samba(node, fs.path, shadow)
    try:
        least = server.acknowledged()
        told = samba.rpc("fss_create_expose backup ro share").stdout
        most = server.acknowledged()
        snapshot_set, copy, exposed = re.search(r"([0-9a-f-]{36})\(([0-9a-f-]{36})\): share (\S+) exposed as a snapshot", told).groups()
        job = node.call("GET", "/jobs?operation=DoSnapshotSet").json["items"][0]
        assert [one["grade"] for one in job["result"]["consistency"]["components"]] == ["application"], job
        samba.smb(f"tar c {node.place}/cluster.tar cluster/data", share=exposed)
        until(lambda: server.acknowledged() > most)
        system("tar", "-xf", node.place / "cluster.tar", "-C", node.place)
        data = node.place / "copy"
        (node.place / "cluster" / "data").rename(data)
        system("chown", "-R", f"{cluster.USER}:", data)  # a client that sees no numbers of users and no modes brings none
        system("chmod", "-R", "u=rwX,go=", data)
        assert cluster.started(data, least) <= most + 1
        samba.rpc("fss_delete share", snapshot_set, copy)
        assert list(home.iterdir()) == [] and node.call("GET", "/snapshots").json["items"] == []
    finally:
        samba.stop()


def test_a_share_that_the_smb_user_may_not_snapshot(ground):
    """The daemon says no: the requester hears it, and nothing is left."""
    node, samba = ground
    text = (node.place / "quiesced.yaml").read_text()
    (node.place / "quiesced.yaml").write_text(text.replace(f"paths: [{node.fs.path}, {node.plain.path}]", f"paths: [{node.other.path}]"))
    node.process.send_signal(signal.SIGHUP)
    until(lambda: as_user(node, "GET", "/whoami")[1]["paths"] == [str(node.other.path)])
    told = samba.rpc("fss_create_expose backup ro share", check=False).stdout
    assert "exposed as a snapshot" not in told
    assert list(node.home.iterdir()) == [] and node.call("GET", "/snapshots").json["items"] == []
    node.load.goes_on()


def test_a_share_with_blanks_in_its_path(daemon, file_systems):
    """Samba hands the path over unquoted: the script puts it together again."""
    fs, shadow = file_systems("btrfs"), daemon.place / "shown"
    share = fs.path / "my share"
    system("btrfs", "subvolume", "create", share)
    (share / "letter").write_text("kept")
    home = home_of(share, shadow)
    system("sh", "-euc", of_the_manual(share, home, group="root")[0])
    node = daemon(f"expose: {{roots: [{shadow}]}}\n")
    script = {"program": SCRIPTS / "samba-snapshot", "QUIESCED_SHADOW": str(shadow)}
    doors.run(node, "check", *str(share).split(), **script)
    places = [pathlib.Path(doors.run(node, "create", *str(share).split(), **script).stdout.strip()) for _ in range(2)]
    assert places[0] != places[1] and sorted(places) == sorted(home.iterdir())
    assert [(place / "letter").read_text() for place in places] == ["kept"] * 2
    for place in places:
        doors.run(node, "delete", *str(share).split(), place, **script)
    assert list(home.iterdir()) == [] and node.call("GET", "/snapshots").json["items"] == []
    doors.run(node, "create", *str(share / "nowhere").split(), **script, code=1)  # no directory for its versions
    doors.run(node, "sideways", **script, code=2)


def seconds_between(first, last):
    one, other = (datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (first, last))
    return (other - one).total_seconds()


def as_user(node, method, path, body=None):
    argv = ["curl", "-sS", "--unix-socket", node.ready["socket"], "-X", method, "-w", "\n%{http_code}", "http://localhost" + path]
    if body is not None:
        argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, user=USER, group=USER, extra_groups=[grp.getgrnam(GROUP).gr_gid])
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text) if text.strip() else None


def test_the_smb_user_may_snapshot_that_share_and_nothing_else(ground):
    node, _ = ground
    status, who = as_user(node, "GET", "/whoami")
    assert status == 200 and (who["principal"], who["role"], who["paths"]) == ("samba", "operator", [str(node.fs.path), str(node.plain.path)])
    for method, path, body in (("GET", "/sessions", None), ("GET", "/jobs", None), ("GET", "/backups", None), ("GET", "/volumes", None), ("GET", "/writers", None),
                               ("POST", "/backups", {"paths": [str(node.fs.path)], "repository": "main"}), ("POST", "/tokens", {"name": "x", "role": "operator", "expires_in_seconds": 600}),
                               ("GET", "/events?follow=false", None), ("GET", "/audit", None), ("GET", "/metrics", None), ("GET", "/holds", None)):
        status, said = as_user(node, method, path, body)
        assert status == 403 and said["hresult"] == "E_ACCESSDENIED", (method, path, said)
    status, session = as_user(node, "POST", "/sessions", {"kind": "backup", "lease_seconds": 1800})
    assert status == 201 and seconds_between(session["created_at"], session["lease_expires_at"]) <= 125, "nor be in the way for long"
    s = "/sessions/" + session["id"]
    assert as_user(node, "PUT", s + "/backup-state", {"type": "copy"})[0] == 200
    status, job = as_user(node, "POST", s + "/metadata")
    assert node.wait(job["id"])["state"] == "succeeded"
    assert as_user(node, "POST", s + "/snapshot-set", {})[0] == 201
    for body in ({"path": str(node.other.path)}, {"path": "/"}, {"path": str(node.fs.path / "sub")}, {"path": str(node.fs.path), "provider": "external"},
                 {"path": str(node.fs.path), "provider": "guest"}):
        status, said = as_user(node, "POST", s + "/snapshot-set/volumes", body)
        assert status == 403 and said["reason"] == "paths", (body, said)
    assert as_user(node, "GET", "/volumes/resolve?path=/etc/shadow")[0] == 403
    assert as_user(node, "POST", s + "/components", {"instance_id": "x", "name": "y"})[0] == 403, "nor whom to freeze"
    status, said = as_user(node, "GET", f"/volumes/resolve?path={node.plain.path}")
    assert said["hresult"] == "VSS_E_VOLUME_NOT_SUPPORTED", "so a Samba client is told before it asks"
    status, said = as_user(node, "POST", s + "/snapshot-set/volumes", {"path": str(node.plain.path)})
    assert said["hresult"] == "VSS_E_VOLUME_NOT_SUPPORTED" and "copied in full" in said["detail"], "its path, but whole trees it has not copied"
    assert as_user(node, "POST", s + "/snapshot-set/volumes", {"path": str(node.fs.path)})[0] == 201
    status, added = as_user(node, "POST", s + "/snapshot-set/components")
    assert status == 200 and [one["name"] for one in added["items"]] == ["app"], added
    assert as_user(node, "DELETE", s)[0] in (202, 204)
    # Nobody who is not in the group gets in at all.
    done = subprocess.run(["curl", "-sS", "--unix-socket", node.ready["socket"], "-o", "/dev/null", "-w", "%{http_code}", "http://localhost/whoami"],
                          capture_output=True, text=True, check=True, user=USER, group=USER, extra_groups=[])
    assert done.stdout == "401"
    node.elsewhere.goes_on()
