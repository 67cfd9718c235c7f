"""What a daemon may not leave behind, looked at from outside: processes, snapshots, staging, mounts, half-written backups."""
import json
import os
import pathlib
import time

ROLES = {"front", "core", "agent", "logger", "courier"}


def read(path):
    try:
        return pathlib.Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""


def command(pid):
    return read(f"/proc/{pid}/cmdline").split("\0")


def running(node):
    """Every process of this daemon, however orphaned: its place is in their arguments or their environment."""
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and str(node.place) in read(entry / "cmdline") + read(entry / "environ"):
            if read(entry / "stat").rpartition(")")[2].split()[:1] != ["Z"]:
                yield int(entry.name)


def processes(node):
    """What runs beneath the daemon beside its roles."""
    return [(pid, command(pid)) for pid in running(node)
            if pid != node.process.pid and not {f"--role={name}" for name in ROLES} & set(command(pid)) and "curl" not in command(pid)[0]]


def role(node, name):
    """The pid of a role, or None."""
    return next((pid for pid in running(node) if f"--role={name}" in command(pid)), None)


def staging(node):
    """Sessions' directories and snapshots in the staging directory."""
    top = node.place / "state" / "staging"
    found = [str(entry) for entry in top.iterdir() if entry.name != ".quiesced"]
    place = top / ".quiesced"
    return found + ([str(entry) for entry in place.iterdir()] if place.exists() else [])


def partial(repository):
    return [str(entry) for entry in pathlib.Path(repository).glob("*.*") if entry.name.endswith((".partial", ".removed"))]


def mounts(node):
    return [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(node.place) in line]


def answers(node):
    """Whether the API is ready at this moment."""
    try:
        node.ready = json.loads((node.place / "ready.json").read_text())
        return node.call("GET", "/health/ready", check=False).status == 200
    except (AssertionError, OSError, ValueError):
        return False


def ready(node, seconds=60):
    """Waits until the API answers again (a role has died, its generation starts anew)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answers(node):
            return
        assert node.process.poll() is None, node.words()[-4000:]
        time.sleep(0.05)
    raise AssertionError("the daemon did not become ready again\n" + node.words()[-4000:])


def settle(look, seconds=30):
    """Waits until look() finds nothing; returns what it still finds."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def assert_nothing_left(node, repository=None, why=""):
    assert not settle(lambda: processes(node)), (why, processes(node))
    assert not settle(lambda: staging(node)), (why, staging(node), node.words()[-4000:])
    assert not node.call("GET", "/snapshots").json["items"], why
    assert not mounts(node), why
    if repository:
        assert not partial(repository), (why, partial(repository))


def assert_truthful(node, job):
    """The job is terminal; what it says of the backup is so."""
    assert job["state"] in ("succeeded", "failed", "cancelled"), job
    if job["state"] == "succeeded" and job["operation"] == "Backup":
        backup = node.call("GET", f"/backups/{job['result']['backup_id']}").json
        assert backup["complete"] is True, (job, backup)
    if job["state"] == "succeeded":
        return
    assert job["error"]["hresult"] == job["hresult"], job
    for backup in node.call("GET", "/backups").json["items"]:
        if backup["session_id"] == job["session_id"] and backup["complete"]:  # BackupComplete was reached, what came after it failed
            proof = node.job("POST", f"/backups/{backup['id']}/verify")
            assert proof["state"] == "succeeded" and not proof["result"]["damaged"], (job, backup, proof)


def terminal(node, job_id, seconds=120):
    """Waits for the job's end through restarts of the daemon."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            reply = node.call("GET", f"/jobs/{job_id}?wait=5", check=False)
            if reply.status == 200 and reply.json["state"] in ("succeeded", "failed", "cancelled"):
                return node.call("GET", f"/jobs/{job_id}").json
        except AssertionError:
            assert node.process.poll() is None, node.words()[-4000:]
        time.sleep(0.05)
    raise AssertionError(f"job {job_id} did not end\n" + node.words()[-4000:])


def hits(node, point):
    path = node.faults / f"{point}.hit"
    return path.read_text().splitlines() if path.exists() else []


def forget(node, point):
    for name in (point, f"{point}.hit"):
        (node.faults / name).unlink(missing_ok=True)
