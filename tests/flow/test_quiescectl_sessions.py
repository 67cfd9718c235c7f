"""A session by quiescectl: every operation that the contract has beneath /sessions/{session_id} is a verb, and those of components do what they say."""
import json
import subprocess
import threading
from types import SimpleNamespace

import pytest

from ctl import USAGE, Ctl
from daemon import BUILD, CONTRACT
from test_quiescectl_commands import Server, Slow
from test_restore_rules import Sets


class Recording(Slow):
    """A daemon that takes everything, and knows what it was asked."""

    def record(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.heard.append((self.command, self.path))
        self.answer(200, {})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = record


@pytest.fixture
def recording(tmp_path):
    server = Server(tmp_path / "api.sock")
    server.RequestHandlerClass, server.heard = Recording, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def operations():
    """Those beneath one session that are done here: a call that can only be answered 501 is none."""
    found = set()
    for path, item in CONTRACT.document["paths"].items():
        if path.startswith("/sessions/{session_id}"):
            found |= {(method.upper(), path) for method, operation in item.items() if method in ("get", "post", "put", "patch", "delete") and any(code < "300" for code in operation["responses"])}
    return found


def test_every_operation_of_a_session_is_a_verb(recording, tmp_path):
    document = json.loads(subprocess.run([BUILD / "quiescectl", "--help", "--json"], capture_output=True, check=True).stdout)
    verbs = {row["name"]: row["arguments"] for row in document["commands"] if row["group"] == "session" and row["arguments"].startswith("SESSION")}
    made = {}
    for name, arguments in verbs.items():
        ids = ["s1", "c1"] if "COMPONENT" in arguments.split() else ["s1"]
        argv = [BUILD / "quiescectl", "--socket", tmp_path / "api.sock", "session", name, *ids, "--no-wait"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
        assert done.returncode == 0 and len(recording.heard) == 1, (name, done, recording.heard)
        method, path = recording.heard.pop()
        made[name] = (method, path.replace("/s1", "/{session_id}").replace("/c1", "/{component_id}"))
    assert set(made.values()) == operations() and len(made) == len(operations()) > 30


def test_the_verbs_of_components(daemon, tmp_path):
    ground = Sets(daemon)
    ctl = Ctl(ground.node, tmp_path)
    session = ctl.json("session", "create", "kind=backup")["id"]
    ctl.run("session", "set-state", session, "component_mode=true", "type=full")
    ctl.run("session", "metadata", session)
    ctl.run("session", "start-set", session)
    ctl.run("session", "add-volume", session, f"path={ground.data}")
    added = ctl.json("session", "add-set-components", session)["items"]
    assert {one["name"] for one in added} == {"set", "alone", "main", "side"} and ctl.json("session", "add-set-components", session)["items"] == []
    one = ctl.json("session", "show-component", session, added[0]["id"])
    assert one["id"] == added[0]["id"] and one["name"] == added[0]["name"]
    assert "takes SESSION COMPONENT" in ctl.run("session", "show-component", session, code=USAGE).stderr
    assert "takes SESSION COMPONENT NAME=VALUE" in ctl.run("session", "add-new-target", session, code=USAGE).stderr
    ctl.run("session", "release", session)


def test_a_restore_with_new_targets_and_subcomponents(daemon, tmp_path):
    ground = Sets(daemon)
    ctl, moved = Ctl(ground.node, tmp_path), ground.place / "restored" / "alone"
    session = ctl.json("session", "create", "kind=restore", f"backup_id={ground.backup}")["id"]
    ctl.run("session", "metadata", session)
    components = {one["name"]: one["id"] for one in ctl.json("session", "components", session)["items"]}
    for one in components.values():
        ctl.run("session", "set-component", session, one, "selected=true")
    ground.spoil()
    member = ctl.json("session", "add-subcomponent", session, components["set"], "logical_path=set", "name=one")["subcomponents"]
    assert member == [{"logical_path": "set", "name": "one"}]
    target = ctl.json("session", "add-new-target", session, components["alone"], f"path={ground.data}/alone", f"new_path={moved}")["new_targets"]
    assert target == [{"path": f"{ground.data}/alone", "spec": "*", "recursive": True, "new_path": str(moved)}]
    ctl.run("session", "pre-restore", session)
    assert ctl.json("session", "restore-files", session, f"components=[\"{components['alone']}\"]")["result"]["targets"] == [str(moved)]
    assert ground.back() == set() and (moved / "table-0").exists()
    assert "RestoreFiles succeeded" in ctl.run("session", "restore-files", session).stdout
    assert ground.back() == {"one", "deep"}
    where = ctl.json("session", "add-alternate-location", session, components["set"], f"path={ground.data}/one", f"alternate_path={ground.place}/restored/one")
    assert where["alternate_location_mappings"][0]["alternate_path"] == f"{ground.place}/restored/one"
    assert ctl.json("session", "show-component", session, components["alone"])["file_restore_status"] == "all"
    ctl.run("session", "post-restore", session)
    (heard,) = [one for one in ground.writer.heard(SimpleNamespace(id=session), "post_restore")[0]["components"] if one["name"] == "set"]
    assert heard["alternate_location_mappings"] == where["alternate_location_mappings"]
