"""Real databases on loop-mounted file systems."""
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "contract" / "writers"), str(pathlib.Path(__file__).resolve().parent)]
from daemon import daemon  # noqa: E402,F401


@pytest.fixture(scope="session", autouse=True)
def no_template_stays():
    yield
    if "mariadb_server" in sys.modules:
        sys.modules["mariadb_server"].stop_shared()


@pytest.fixture(scope="module")
def btrfs():
    """Where a btrfs of the test's own is mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-system-", dir="/var/tmp"))
    place.chmod(0o755)
    image, mounted = place / "image", place / "volume"
    mounted.mkdir()
    with open(image, "wb") as file:
        file.truncate(3 << 30)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    done = subprocess.run(["mount", "-o", "loop,noatime", image, mounted], capture_output=True, text=True)
    if done.returncode != 0:
        image.unlink()
        pytest.skip("cannot mount a btrfs image: " + done.stderr.strip())
    yield mounted
    subprocess.run(["umount", mounted], check=True)
    image.unlink()
    mounted.rmdir()
    place.rmdir()
