"""./quickstart in a scratch clone: the main job on real data, and after --stop nothing of it is left."""
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile

import pytest

SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
USERS = ("quiesced-demo", "quiesced-demo-front")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it installs packages and mounts a loop device")


def git(*words, **more):
    return subprocess.run(["git", *words], check=True, capture_output=True, **more).stdout


@pytest.fixture
def clone():
    """A fresh clone of what is being tested, changes that are not committed included."""
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-clone-", dir="/var/tmp"))
    scratch.chmod(0o755)  # the daemon's users pass it
    git("clone", "-q", SOURCE, scratch / "quiesced")
    changes = git("-C", SOURCE, "diff", "--binary", "HEAD")
    if changes:
        git("-C", scratch / "quiesced", "apply", input=changes)
    yield scratch
    quickstart(scratch, "--stop")
    shutil.rmtree(scratch)


def quickstart(scratch, *arguments, place=None):
    """Its end and its words; to a file, since the daemon that it leaves running could hold a pipe open."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), "QUICKSTART_DIR": str(place or scratch / "demo")}
    environment.update({name: value for name, value in os.environ.items() if name.startswith("CCACHE_")})
    with open(scratch / "words", "w+", encoding="utf-8") as words:
        done = subprocess.run([scratch / "quiesced" / "quickstart", *arguments], cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        words.seek(0)
        return done.returncode, words.read()


def traces(place):
    """Whatever on this machine has to do with the directory: processes (also those that merely run the clone's programs), mounts, loop
    devices, files, users."""
    found, text = {"processes": [], "mounts": [], "loops": [], "files": [], "users": []}, str(place)
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            opened = [os.readlink(link) for link in (process / "cwd", process / "exe", *(process / "fd").iterdir())]
        except OSError:  # it has ended
            continue
        if process.name != str(os.getpid()) and (text in words or any(name.startswith((text, f"{place.parent}/quiesced/build/")) for name in opened)):
            found["processes"].append(words)
    found["mounts"] = [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if text in line]
    loops = subprocess.run(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"], check=True, capture_output=True, text=True).stdout
    found["loops"] = [line for line in loops.splitlines() if text in line]
    found["files"] = [text] if os.path.lexists(place) else []
    found["users"] = [user.pw_name for user in pwd.getpwall() if user.pw_name in USERS]
    return found


def lasting(found):
    """serve, its roles, and the load."""
    return {name for name in (" serve ", "--role=logger", "--role=front", "--role=core", "--role=agent", "scripts/write-load")
            if any(name in words for words in found["processes"])}


def test_it_does_the_main_job_and_leaves_nothing_behind(clone):
    place = clone / "demo"
    code, words = quickstart(clone)
    assert code == 0, words
    for said in ("BackupComplete", "succeeded VSS_S_ASYNC_FINISHED", "200 files equal; integrity_check ok", "without a gap"):
        assert said in words, words
    assert len(words.splitlines()) <= 16, words
    (line,) = [line for line in words.splitlines() if line.strip().startswith("curl ")]
    pasted = subprocess.run(["bash", "-c", f"{line.strip()} --fail --silent --show-error"], capture_output=True, text=True)
    assert pasted.returncode == 0 and any(item["complete"] for item in json.loads(pasted.stdout)["items"]), pasted
    first = traces(place)
    assert len(lasting(first)) == 6 and first["files"] and sorted(first["users"]) == sorted(USERS), first
    if "snapshot (btrfs)" in words:
        assert first["mounts"] and first["loops"], first

    code, words = quickstart(clone)  # a second one takes the place of the first
    assert code == 0, words
    assert lasting(traces(place)) == lasting(first)

    for _ in range(2):
        code, words = quickstart(clone, "--stop")
        assert code == 0, words
        assert not any(traces(place).values()), traces(place)
    status = git("-C", clone / "quiesced", "status", "--porcelain", "--untracked-files=all").decode()
    assert "??" not in status, status


def test_it_removes_no_directory_that_it_has_not_made(clone):
    other = clone / "somebody's"
    other.mkdir()
    (other / "file").write_text("kept")
    code, words = quickstart(clone, "--stop", place=other)
    assert code == 1 and "left alone" in words, words
    assert (other / "file").read_text() == "kept"
