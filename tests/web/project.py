"""The dashboard's sources beside their pinned modules, as a developer has them; and the browser that the tests drive."""
import json
import os
import shutil
import subprocess

from daemon import SOURCE
from npm import installed, node

WEBUI = SOURCE / "webui"
HERE = SOURCE / "tests" / "web"
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
