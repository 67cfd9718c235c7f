"""A restore in place that is not brought to its end, over HTTPS: whatever ends it, the database runs again with the data that it had."""
import glob
import json
import pathlib
import shutil
import signal
import time

import pytest

import steps
from postgresql_server import Server, directory, own
from service_manager import Manager


def until(condition, what):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "never happened: " + what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def world():
    path = pathlib.Path(directory())
    with Server(str(path / "data"), str(path)) as server, Manager(server, str(path / "manager")) as manager:
        server.query("CREATE TABLE t (i int)")
        yield path, server, manager
    shutil.rmtree(path)


@pytest.fixture
def backed_up(world, daemon):
    """(node, server, manager, session's path), the session with its component selected; the server has changed since the backup."""
    path, server, manager = world
    manager.asked, manager.on = [], {}
    (daemon.place / "backups").mkdir()
    commands = ", ".join(f"{order}: {json.dumps(command)}" for order, command in manager.commands.items())
    node = daemon(f"""
writers:
  - {{name: db, type: postgresql, connection: "{server.connection} dbname=postgres", user: postgres, {commands}}}
repositories:
  - {{name: main, mover: archive, path: {daemon.place}/backups}}
restore: {{roots: [{path}]}}
""")
    server.query("TRUNCATE t")
    server.query("INSERT INTO t SELECT generate_series(1, 1000)")
    backup = steps.one_call_backup(node, [("db", "main")], [], lambda: None)
    server.query("DELETE FROM t WHERE i > 10")
    s = "/sessions/" + node.call("POST", "/sessions", {"kind": "restore", "backup_id": backup}).json["id"]
    steps.succeeded(node.job("POST", s + "/metadata"))
    component, = node.call("GET", s + "/components").json["items"]
    assert node.call("PATCH", f"{s}/components/{component['id']}", {"selected": True}).status == 200
    yield node, server, manager, s
    until(lambda: not glob.glob(f"{path}/data*-restore-*") and not glob.glob(f"{path}/data/.quiesced*"), "what was restored in vain is removed")


def is_as_before(server):
    return server.query("SELECT count(*) FROM t") == [(10,)]


def delete_session(node, s):
    assert node.call("DELETE", s).status in (202, 204)


def stop_the_daemon(node, _):
    node.stop()


def kill_the_daemon(node, _):
    node.stop(signal.SIGKILL)


def fail_the_files(node, s):
    component, = node.call("GET", s + "/components").json["items"]
    assert node.call("PATCH", f"{s}/components/{component['id']}", {"file_restore_status": "failed"}).status == 200
    steps.succeeded(node.job("POST", s + "/post-restore"))


@pytest.mark.parametrize("end", [kill_the_daemon] + [pytest.param(end, marks=pytest.mark.full) for end in (delete_session, stop_the_daemon, fail_the_files)],
                         ids=lambda end: end.__name__)
@pytest.mark.parametrize("files", [False, pytest.param(True, marks=pytest.mark.full)], ids=["before-files", "after-files"])
def test_between_pre_restore_and_post_restore(end, files, backed_up):
    node, server, manager, s = backed_up
    steps.succeeded(node.job("POST", s + "/pre-restore"))
    assert manager.asked == ["stop"]
    if files:
        steps.succeeded(node.job("POST", s + "/restore-files", {}))
    end(node, s)
    until(lambda: manager.asked == ["stop", "start"] and server.process.poll() is None and manager.idle, "the server is started again")
    assert is_as_before(server)


@pytest.mark.parametrize("verb,order", [pytest.param("pre-restore", "stop", marks=pytest.mark.full), ("post-restore", "start")])
def test_a_cancelled_job_ends_with_the_old_data_and_a_server_that_runs(verb, order, backed_up):
    """Cancelled while the command that stops, or starts, is at work."""
    node, server, manager, s = backed_up
    begun = []

    def slowly():
        begun.append(order)
        if len(begun) == 1:
            until(lambda: node.call("GET", job).json["state"] in ("cancelling", "cancelled"), "the job is cancelled")
        {"stop": server.halt, "start": manager.start}[order]()

    if verb == "post-restore":
        steps.succeeded(node.job("POST", s + "/pre-restore"))
        steps.succeeded(node.job("POST", s + "/restore-files", {}))
    manager.on[order] = slowly
    job = "/jobs/" + node.call("POST", f"{s}/{verb}").json["id"]
    until(lambda: begun, "the command runs")
    assert node.call("DELETE", job).status == 202
    until(lambda: node.call("GET", job).json["state"] == "cancelled", "the job ends")
    until(lambda: manager.asked[-1] == "start" and manager.idle, "the server is started again")
    assert is_as_before(server)


def test_a_backup_of_another_data_directory_stops_nothing(backed_up):
    """The server was moved since: its files would come back to where it no longer works."""
    node, server, manager, s = backed_up
    document = node.call("GET", s + "/document").json
    sets = document["writers"][0]["components"][0]["file_sets"]
    sets[0]["path"] = sets[0]["path"].replace("/data", "/before")
    moved = "/sessions/" + node.call("POST", "/sessions", {"kind": "restore", "document": document}).json["id"]
    steps.succeeded(node.job("POST", moved + "/metadata"))
    component, = node.call("GET", moved + "/components").json["items"]
    assert node.call("PATCH", f"{moved}/components/{component['id']}", {"selected": True}).status == 200
    job = node.job("POST", moved + "/pre-restore")
    assert (job["state"], job["hresult"]) == ("failed", "VSS_E_WRITERERROR_NONRETRYABLE") and "/before, and the server's is" in job["error"]["detail"], job
    assert manager.asked == [] and is_as_before(server) and node.call("GET", moved).json["state"] == "identified"
    delete_session(node, moved)
