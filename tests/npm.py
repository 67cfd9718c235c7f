"""npm projects that tests need: installed once beneath build/, as their package-lock.json pins them, and run by the Node that it pins too."""
import fcntl
import os
import shutil
import subprocess

from daemon import SOURCE


def installed(folder):
    """node_modules of the project in `folder`, beneath build/; installed anew only when the lock has changed."""
    place = SOURCE / "build" / folder.name
    place.mkdir(parents=True, exist_ok=True)
    lock, done = (folder / "package-lock.json").read_bytes(), place / "installed-lock.json"
    with open(place / "lock", "w", encoding="ascii") as turn:  # tests run side by side
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not done.exists() or done.read_bytes() != lock:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, place / name)
            npm = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=place, capture_output=True, text=True)
            assert npm.returncode == 0, npm.stdout + npm.stderr
            done.write_bytes(lock)
    return place / "node_modules"


def node(modules, script, *arguments, cwd, environment=()):
    (binary,) = modules.glob("node-linux-*/bin/node")
    return subprocess.run([binary, script, *arguments], cwd=cwd, env=dict(os.environ, NO_COLOR="1", **dict(environment)), capture_output=True, text=True)
