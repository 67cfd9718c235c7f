"""File systems of one's own on loop devices, frozen and thawed by hand, and a judge that sees whether they can be written to."""
import errno
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
SIZES = {"ext4": 64, "xfs": 320, "btrfs": 128}


def run(*argv):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def unavailable():
    """Why loop devices cannot be used here, or None."""
    if os.geteuid() != 0:
        return "freezing needs root"
    if not os.path.exists("/dev/loop-control"):
        return "no loop devices here"
    return None


def freeze(path):
    """0, or the errno of FIFREEZE."""
    return _ioctl(path, FIFREEZE)


def thaw(path):
    return _ioctl(path, FITHAW)


def _ioctl(path, request):
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, request, 0)
        return 0
    except OSError as trouble:
        return trouble.errno
    finally:
        os.close(fd)


def is_frozen(path):
    """By trying: EBUSY says that it is. What was not frozen is not afterwards."""
    trouble = freeze(path)
    if trouble == 0:
        assert thaw(path) == 0
    assert trouble in (0, errno.EBUSY), trouble
    return trouble != 0


class LoopFs:
    def __init__(self, kind="ext4", home=None, size=None):
        self.kind = kind
        self.home = pathlib.Path(home or tempfile.mkdtemp(prefix="quiesced-fs-", dir="/var/tmp"))
        self.own_home = home is None
        self.image = self.home / f"{kind}-{time.monotonic_ns()}.img"
        with open(self.image, "wb") as f:
            f.truncate((size or SIZES[kind]) << 20)
        force = "-F" if kind == "ext4" else "-f"
        run(f"mkfs.{kind}", "-q", force, self.image)
        self.device = run("losetup", "--find", "--show", self.image)
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-mnt-", dir="/var/tmp"))
        self.mount()

    def mount(self):
        run("mount", self.device, self.path)

    @property
    def devno(self):
        return run("findmnt", "-no", "MAJ:MIN", self.path)

    def close(self):
        if not os.path.ismount(self.path):  # unmounted while frozen it stays so, and keeps its device: only a mount reaches it
            subprocess.run(["mount", self.device, self.path], capture_output=True)
        if os.path.ismount(self.path):
            thaw(self.path)
            for _ in range(50):
                if subprocess.run(["umount", self.path], capture_output=True).returncode == 0:
                    break
                time.sleep(0.1)
            else:
                run("umount", "-l", self.path)
        subprocess.run(["losetup", "-d", self.device], capture_output=True)
        self.path.rmdir()
        self.image.unlink()
        if self.own_home:
            shutil.rmtree(self.home)


JUDGE = """
import os, sys, time
fd = os.open(sys.argv[1] + "/judge", os.O_WRONLY | os.O_CREAT | os.O_DSYNC, 0o600)
print("ready", flush=True)
last, gaps = time.monotonic(), []
import select
while not select.select([0], [], [], 0.005)[0]:
    os.pwrite(fd, b"x", 0)
    now = time.monotonic()
    if now - last > 0.1:
        gaps.append((last, now))
    last = now
print(gaps, flush=True)
"""


class Judge:
    """A process that is no part of the daemon writes one byte every 5 ms, synchronously, and tells where it had to wait."""

    def __init__(self, path):
        self.process = subprocess.Popen([sys.executable, "-c", JUDGE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def gaps(self):
        """[(from, to)] on CLOCK_MONOTONIC; ends the judge."""
        out, _ = self.process.communicate("\n", timeout=60)
        return eval(out)  # our own process's list

    def longest(self):
        return max((b - a for a, b in self.gaps()), default=0.0)
