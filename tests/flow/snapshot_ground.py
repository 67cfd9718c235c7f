"""For the tests of snapshots: a node, and a btrfs of its own whose subvolumes it snapshots."""
import hashlib
import http.client
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

import leftovers
from conduct import BACKUP_STATE, Wire, Writer
from daemon import Daemon

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "contract" / "writers"))
import loop_btrfs  # noqa: E402

CONTEXTS = {  # vss-model 5.1: persistent, writers, attributes of a snapshot
    "backup": (False, True, []),
    "file_share_backup": (False, False, ["no_writers"]),
    "nas_rollback": (True, False, ["persistent", "no_auto_release", "no_writers"]),
    "app_rollback": (True, True, ["persistent", "no_auto_release"]),
    "client_accessible": (True, False, ["persistent", "client_accessible", "no_auto_release", "no_writers"]),
    "client_accessible_writers": (True, True, ["persistent", "client_accessible", "no_auto_release"]),
}

PRINCIPALS = {"anna": "operator", "otto": "operator", "rosa": "restorer", "viktor": "viewer"}
PRINCIPAL = "  - {{name: {name}, role: {role}, token_sha256: {sha}}}\n"
TOKEN = {name: "qsd1_" + hashlib.sha256(name.encode()).hexdigest()[:43] for name in PRINCIPALS}


class Ground:
    """A node, and a btrfs with subvolumes whose snapshots it takes."""

    def __init__(self, mount, place):
        self.mount, self.place = pathlib.Path(mount), place
        self.shown = place / "shown"
        self.shown.mkdir()
        self.writer = Writer(place, "app", COMPONENTS='[{"type":"filegroup","logical_path":"","name":"main","selectable":true,"file_sets":[]}]')
        self.node = Daemon(place, f"writers:\n{self.writer.entry()}limits: {{snapshots_per_volume: 3}}\n"
                                  f"expose: {{roots: [{self.shown}]}}\nrepositories: [{{name: main, mover: archive, path: {place}/backups}}]\n"
                                  "principals:\n" + "".join(PRINCIPAL.format(name=name, role=role, sha=hashlib.sha256(TOKEN[name].encode()).hexdigest())
                                                            for name, role in PRINCIPALS.items())).start()
        self.node.call, self.wire = self.call, None  # one connection, instead of a curl for each

    def call(self, method, path, body=None, check=True, token=None):
        if token:
            return Daemon.call(self.node, method, path, body, token=TOKEN[token])
        self.wire = self.wire or Wire(self.node)
        try:
            return self.wire.call(method, path, body)
        except (OSError, http.client.HTTPException):
            self.wire = None
            raise

    def subvolume(self, name):
        loop_btrfs.subvolume(self.mount / name)
        (self.mount / name / "file").write_text("before\n")
        return self.mount / name

    def drop(self, path):
        loop_btrfs.delete(path)

    def session(self, context="nas_rollback", **more):
        made = self.node.call("POST", "/sessions", {"kind": "backup", "context": context, **more})
        assert made.status == 201, made
        return "/sessions/" + made.json["id"]

    def session_without_context(self):
        return "/sessions/" + self.node.call("POST", "/sessions", {"kind": "backup"}).json["id"]

    def open_set(self, s, writers=False):
        if writers:
            assert self.node.call("PUT", s + "/backup-state", BACKUP_STATE).status == 200
            assert self.node.job("POST", s + "/metadata")["state"] == "succeeded"
            writer = self.node.call("GET", s + "/writers").json["items"][0]
            chosen = {"instance_id": writer["instance_id"], "logical_path": "", "name": "main"}
            assert self.node.call("POST", s + "/components", chosen).status == 201
        opened = self.node.call("POST", s + "/snapshot-set", {})
        assert opened.status == 201, opened
        return opened.json["id"]

    def add(self, s, path):
        added = self.node.call("POST", s + "/snapshot-set/volumes", {"path": str(path), "provider": None})
        assert added.status == 201 and added.json["provider"] == "btrfs", added
        return added.json["snapshot_id"]

    def take(self, *paths, context="nas_rollback"):
        """(session's path, [snapshot ids]) of a set that was taken."""
        s, writers = self.session(context), CONTEXTS[context][1]
        self.open_set(s, writers)
        ids = [self.add(s, path) for path in paths]
        for verb in (["/prepare"] if writers else []) + ["/snapshot"]:
            job = self.node.job("POST", s + verb)
            assert job["state"] == "succeeded", job
        return s, ids

    def get(self, snapshot):
        reply = self.node.call("GET", f"/snapshots/{snapshot}")
        assert reply.status == 200, reply
        return reply.json

    def listed(self, query=""):
        reply = self.node.call("GET", "/snapshots" + query)
        assert reply.status == 200, reply
        return [item["id"] for item in reply.json["items"]]

    def on_disk(self):
        place = self.mount / ".quiesced"
        return sorted(entry.name for entry in place.iterdir()) if place.exists() else []

    def release(self, s):
        assert self.node.call("DELETE", s).status in (202, 204)

    def clear(self):
        """Deletes what there is; the end of a session, or of a reader, may be at it at the same time."""
        answers = []

        def rest():
            answers[:] = [self.node.call("DELETE", f"/snapshots/{snapshot}?force=true") for snapshot in self.listed()]
            return self.listed()

        assert not leftovers.settle(rest), answers

    def restart(self, how=signal.SIGTERM):
        if how == signal.SIGKILL:
            for pid in leftovers.running(self.node):
                os.kill(pid, signal.SIGKILL)
            self.node.process.wait()
        else:
            assert self.node.stop(how) == 0
        self.node.start()
        self.wire = None
        leftovers.ready(self.node)


@pytest.fixture(scope="module")
def ground():
    with loop_btrfs.mounted() as mount:
        place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-test-", dir="/var/tmp"))
        place.chmod(0o755)
        one = Ground(mount, place)
        try:
            yield one
            one.clear()
            status, left = one.node.stop(), one.on_disk()
            # a leak checker that was killed in its work, by us
            reports = [report for report in one.node.sanitized() if "Unable to get registers" not in report]
            assert status == 0 and not reports, reports
            assert not left and not leftovers.mounts(one.node), left
        finally:
            one.node.stop(signal.SIGKILL)
            subprocess.run(["umount", "-q", "-R", str(one.shown / "x")], check=False)
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def data(ground, request):
    path = ground.subvolume(request.node.name.split("[")[0][-40:])
    yield path
    ground.clear()
    ground.drop(path)


@pytest.fixture
def shown(ground):
    """An empty directory beneath expose.roots."""
    path = ground.shown / "x"
    path.mkdir()
    yield path
    ground.clear()
    path.rmdir()


def revert(ground, snapshot, **body):
    return ground.node.call("POST", f"/snapshots/{snapshot}/revert", body)


def reverted(ground, snapshot, **body):
    reply = revert(ground, snapshot, **body)
    assert reply.status == 202 and reply.headers["location"] == "/jobs/" + reply.json["id"], reply
    return ground.node.wait(reply.json["id"])
