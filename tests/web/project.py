"""The dashboard's sources beside their pinned modules, as a developer has them; and the browser that the tests drive."""
import json
import os
import shutil
import sqlite3
import subprocess

from daemon import SOURCE
from npm import installed, node

WEBUI = SOURCE / "webui"
HERE = SOURCE / "tests" / "web"
WRITERS = SOURCE / "tests" / "writers"
PICTURES = SOURCE / "build" / "webui" / "pictures"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


def laid_out(place):
    """A copy of webui/ without what was built, with node_modules; returns node_modules."""
    modules = installed(WEBUI)
    for entry in WEBUI.iterdir():
        if entry.name in ("dist", "node_modules"):
            continue
        (shutil.copytree if entry.is_dir() else shutil.copy)(entry, place / entry.name)
    (place / "node_modules").symlink_to(modules)
    return modules


class Failed(AssertionError):
    pass


def browse(scenario, given, **answers):
    """Runs one scenario of tests/web/*.mjs in Chromium. What it asks for in between is answered by the functions `answers`."""
    modules = installed(WEBUI)
    (binary,) = modules.glob("node-linux-*/bin/node")
    file, _, name = scenario.partition("/")
    words = json.dumps({**given, "modules": str(modules), "chromium": CHROMIUM})
    process = subprocess.Popen([binary, HERE / f"{file}.mjs", name, words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = None
    try:
        for line in process.stdout:
            said = json.loads(line)
            if "ask" not in said:
                continue
            process.stdin.write(json.dumps(answers[said["ask"]](*said.get("with", []))) + "\n")
            process.stdin.flush()
        process.stdin.close()
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise Failed(f"{scenario}: {json.dumps(said)[:6000] if said else ''}\n{process.stderr.read()[-6000:]}")
    return said["done"]


def configuration(place):
    for name in ("data", "backups", "restored", "second"):
        (place / name).mkdir(exist_ok=True)
    (place / "data" / "folder").mkdir()
    (place / "data" / "folder" / "inside.txt").write_text("inside\n")
    database = sqlite3.connect(place / "data" / "app.db")
    database.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY)")
    database.executemany("INSERT INTO rows VALUES (?)", ((n,) for n in range(1, 1001)))
    database.commit()
    database.close()
    return f"""
writers:
  - {{name: app, type: sqlite, databases: [{place}/data/app.db]}}
  - {{name: slow, type: exec, command: [{WRITERS}/recorder], environment: {{NAME: slow, FILES: {place}/data/folder,
      SCHEMA: "new_target,roll_forward", TOUCH_PREPARE_BACKUP: {place}/held, WAIT_PREPARE_BACKUP: {place}/free, DELAY_FREEZE: "0.05"}}}}
  - {{name: gate, type: exec, command: [{WRITERS}/recorder], environment: {{NAME: gate, FILES: {place}/second, FREEZE_TIMEOUT_MS: "600000", TOUCH_FREEZE: {place}/frozen, WAIT_FREEZE: {place}/thawed}}}}
  - {{name: missing, type: exec, command: [/nowhere/writer]}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
restore: {{roots: [{place}/restored]}}
limits: {{freeze_seconds: 600}} # a busy machine's browser takes its time
"""


def given(one, **more):
    PICTURES.mkdir(parents=True, exist_ok=True)
    return {"pictures": str(PICTURES), "url": one.ready["url"], "token": one.token, "target": str(one.place / "restored"), "data": str(one.place / "data"), **more}


def free(one):
    """From now on the slow writer holds nothing up."""
    (one.place / "free").touch()
    return True


def back_up(one, **more):
    free(one)
    job = one.job("POST", "/backups", {"components": [{"writer": "app", "name": "app"}, {"writer": "slow", "name": "main"}], "repository": "main", "label": "nightly", **more})
    assert job["state"] == "succeeded", job
