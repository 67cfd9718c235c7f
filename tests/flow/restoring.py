"""Restore sessions for tests: a node with an exec writer and a complete backup of two of its components, and what it was like."""
import hashlib
import json
import shutil

from conduct import Session, Wire, Writer, configuration


def tree(top):
    """Everything below `top` that a restore has to bring back: contents by hash, modes, link targets."""
    found = {}
    for path in sorted(top.rglob("*")):
        content = path.readlink() if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        found[str(path.relative_to(top))] = (oct(path.lstat().st_mode), str(content))
    return found


def fill(folder, extra=""):
    """An exec writer's application: files in folders, a link, a file that only its owner may read."""
    (folder / "deep" / "er").mkdir(parents=True)
    for i in range(5):
        (folder / f"table-{i}").write_bytes(bytes([i]) * (i * 5000 + 1))
    (folder / "deep" / "er" / "index").write_text("index " + extra)
    (folder / "deep" / "link").symlink_to("er/index")
    (folder / "table-1").chmod(0o600)


def component(name, folder, **more):
    return {"type": "database", "logical_path": "", "name": name, "selectable": True,
            "file_sets": [{"path": str(folder), "spec": "*", "recursive": True}], **more}


class Restore(Session):
    """A restore session of a backup, or of a document."""

    def __init__(self, node, wire=None, **body):
        self.node, self.wire = node, wire or Wire(node)
        made = self.wire.call("POST", "/sessions", {"kind": "restore", **body})
        assert made.status == 201, made
        self.id, self.path = made.json["id"], "/sessions/" + made.json["id"]

    def component(self, name):
        return next(c for c in self.wire.get(self.path + "/components")["items"] if c["name"] == name)

    def patch(self, name, status=200, **members):
        reply = self.call("PATCH", "/components/" + self.component(name)["id"], members)
        assert reply.status == status, reply
        return reply.json

    def add(self, name, what, body, status=201):
        reply = self.call("POST", f"/components/{self.component(name)['id']}/{what}", body)
        assert reply.status == status, reply
        return reply.json

    def identify(self):
        self.done("metadata")
        return self

    def select(self, *names):
        for name in names:
            assert self.patch(name, selected=True)["selected"] is True
        return self


def back_up(node, components):
    job = node.job("POST", "/backups", {"components": components, "repository": "main"})
    assert job["state"] == "succeeded", job
    return job["result"]["backup_id"]


class Ground:
    """A node with one exec writer, `app`, whose components `main` and `side` are folders of place/data."""

    def __init__(self, daemon, others=(), kind="recorder", mover="archive", more="", **environment):
        self.place = daemon.place
        self.main, self.side = self.place / "data" / "main", self.place / "data" / "side"
        offered = [component("main", self.main), component("side", self.side)]
        self.writer = Writer(self.place, "app", kind, **{"COMPONENTS": json.dumps(offered), "SCHEMA": "new_target", **environment})
        text = configuration(self.place, [self.writer, *others]).replace(f"roots: [{self.place}/restored]", f"roots: [{self.place}/data, {self.place}/restored]")
        if mover == "restic":
            (self.place / "password").write_text("correct horse")
            text = text.replace(f"mover: archive, path: {self.place}/backups", f'mover: restic, url: "{self.place}/backups/restic", password_file: {self.place}/password')
        fill(self.main, "main")
        fill(self.side, "side")
        self.node = daemon(text + more)
        self.wire = Wire(self.node)
        self.backup = back_up(self.node, [{"writer": "app", "name": "main"}, {"writer": "app", "name": "side"}])
        self.before = {"main": tree(self.main), "side": tree(self.side)}

    def session(self, *selected, **body):
        """A restore session of the backup; identified, where components are named to be selected."""
        session = Restore(self.node, self.wire, backup_id=self.backup, **body)
        return session.identify().select(*selected) if selected else session

    def destroy(self):
        for folder in (self.main, self.side):
            shutil.rmtree(folder, ignore_errors=True)
