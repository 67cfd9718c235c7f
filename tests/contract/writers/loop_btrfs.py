"""A loop-mounted btrfs of the test's own."""
import contextlib
import os
import shutil
import subprocess
import tempfile
import time

import pytest


@contextlib.contextmanager
def mounted():
    """Yields the mount point, or skips with the reason why not."""
    if os.geteuid() != 0 or not shutil.which("mkfs.btrfs"):
        pytest.skip("a loop-mounted btrfs needs root and btrfs-progs")
    place = tempfile.mkdtemp(prefix="quiesced-btrfs-", dir="/var/tmp")
    os.chmod(place, 0o755)
    image, mount = place + "/image", place + "/mount"
    os.mkdir(mount)
    try:
        with open(image, "wb") as file:
            file.truncate(1 << 30)
        subprocess.run(["mkfs.btrfs", "-q", image], check=True)
        if subprocess.run(["mount", "-o", "loop", image, mount]).returncode != 0:
            pytest.skip("this machine mounts no loop device with btrfs")
        try:
            yield mount
        finally:
            unmount(mount)
    finally:
        shutil.rmtree(place)


def unmount(mount):
    """A worker whose job has ended may be at its own end still."""
    deadline = time.monotonic() + 10
    while (done := subprocess.run(["umount", mount], capture_output=True, text=True)).returncode != 0:
        assert "busy" in done.stderr and time.monotonic() < deadline, done.stderr
        time.sleep(0.1)


def subvolume(path):
    subprocess.run(["btrfs", "-q", "subvolume", "create", path], check=True)


def snapshot(source, target):
    subprocess.run(["btrfs", "-q", "subvolume", "snapshot", "-r", source, target], check=True)


def delete(path):
    subprocess.run(["btrfs", "-q", "subvolume", "delete", path], check=True)
