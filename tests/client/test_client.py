"""A console's client in TypeScript, its types generated from openapi.yaml: it type-checks, and runs against the daemon over verified TLS."""
import json
import pathlib
import re
import shutil
import sqlite3

import pytest

from conduct import Writer
from daemon import SOURCE
from npm import installed, node

HERE = SOURCE / "tests" / "client"


@pytest.fixture(scope="module")
def modules():
    return installed(HERE)


@pytest.fixture(scope="module")
def project(modules, tmp_path_factory):
    """The sources with the types of this openapi.yaml, beside node_modules."""
    place = tmp_path_factory.mktemp("client")
    (place / "node_modules").symlink_to(modules)
    for source in (*HERE.glob("*.ts"), HERE / "tsconfig.json", HERE / "package.json"):
        shutil.copy(source, place)
    # a default is what the daemon assumes: no client has to send it
    made = node(modules, modules / "openapi-typescript/bin/cli.js", SOURCE / "openapi.yaml", "--default-non-nullable=false", "-o", "schema.d.ts", cwd=place)
    assert made.returncode == 0, made.stdout + made.stderr
    return place


def checked(modules, place):
    return node(modules, modules / "typescript/bin/tsc", "-p", ".", cwd=place)


def test_the_client_type_checks(modules, project):
    done = checked(modules, project)
    assert done.returncode == 0, done.stdout


def test_no_member_is_without_a_type(project):
    """`Record<string, never>` is an object of which the contract says nothing: no client can read it."""
    untyped = re.findall(r"^ *([^\n]*Record<string, never>.*)$", (project / "schema.d.ts").read_text(), re.M)
    assert sorted(untyped) == ["Nothing: Record<string, never>;", "export type $defs = Record<string, never>;", "export type webhooks = Record<string, never>;"]


MISTAKES = {
    "member": ('body: { repository: "main" }', 'body: { repo: "main" }'),
    "path": ('"/sessions/{session_id}/writer-status"', '"/sessions/{session_id}/writers-status"'),
    "code": ('early.hresult !== "VSS_E_BAD_STATE"', 'early.hresult !== "VSS_E_BADSTATE"'),
    "result": ("copied.backup_id", "copied.backup"),
}


def test_mistakes_are_caught(modules, project, tmp_path):
    """Types that let everything through would make the first test worthless."""
    place = tmp_path / "client"
    shutil.copytree(project, place, symlinks=True)
    text = (place / "console.ts").read_text()
    for name, mistake in MISTAKES.items():
        assert mistake[0] in text
        (place / f"{name}.ts").write_text(text.replace(*mistake, 1))
    done = checked(modules, place)
    assert done.returncode != 0 and set(re.findall(r"^([\w.]+)\(", done.stdout, re.M)) == {f"{name}.ts" for name in MISTAKES}, done


def lay_out(place):
    for name in ("data", "backups", "restored"):
        (place / name).mkdir()
    database = sqlite3.connect(place / "data" / "app.db")
    database.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY)")
    database.executemany("INSERT INTO rows VALUES (?)", ((n,) for n in range(1, 101)))
    database.commit()
    database.close()
    slow = Writer(place, "slow", WAIT_BACKUP_COMPLETE=str(place / "never"))
    return f"""
writers:
  - {{name: app, type: sqlite, databases: [{place}/data/app.db]}}
{slow.entry()}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{place}/data, {place}/restored]}}
"""


def rows(path):
    database = sqlite3.connect(path)
    try:
        assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return database.execute("SELECT count(*), max(n) FROM rows").fetchone()
    finally:
        database.close()


def test_a_console_runs_everything(daemon, modules, project):
    place = daemon.place
    daemon(lay_out(place))
    done = node(modules, project / "console.ts", place, cwd=project)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["me"] == ["admin", "admin", "certificate"]
    assert told["stranger"] == "SELF_SIGNED_CERT_IN_CHAIN"
    assert told["nobody"] == told["forbidden"] == "E_ACCESSDENIED"
    backup = told["backup"]
    assert backup["state"] == "completed" and backup["grade"] == "application" and backup["window"] > 0
    assert backup["writers"] == [["app", "VSS_WS_STABLE"]] and backup["status"] == [["app", "S_OK"]] and backup["components"] == [["app", True]]
    assert told["cancel"] == {"cancel": ["S_OK", "VSS_S_ASYNC_CANCELLED"], "state": "cancelled", "hresult": "VSS_S_ASYNC_CANCELLED", "failed": [],
                              "session": "aborted", "released": 410}
    assert told["restore"] == {"state": "completed", "verified": True, "statuses": ["all"]}
    assert told["beside"]["complete"] is True and told["beside"]["verified"] is True and told["beside"]["files"] >= 1
    assert rows(place / "data" / "app.db") == rows(pathlib.Path(f"{place}/restored{place}/data/app.db")) == (100, 100)
