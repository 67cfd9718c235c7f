"""The front doors with the real programs of the other side, each on file systems of the test's own."""
import os
import pathlib
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "contract" / "guardian"), str(pathlib.Path(__file__).resolve().parent)]
sys.path += [str(TESTS / "contract" / "writers"), str(TESTS / "system")]
import cluster  # noqa: E402
import doors  # noqa: E402
import loop_fs  # noqa: E402
from daemon import daemon  # noqa: E402,F401


@pytest.fixture
def file_systems():
    """file_systems(kind, megabytes): one on a loop device, mounted."""
    reason = loop_fs.unavailable()
    if reason:
        pytest.skip(reason)
    made = []

    def make(kind="ext4", size=None):
        made.append(loop_fs.LoopFs(kind, size=size))
        os.chmod(made[-1].path, 0o755)
        return made[-1]

    yield make
    for one in reversed(made):
        doors.unmount_beneath(one.path)
        one.close()


@pytest.fixture
def database():
    """database(top): a PostgreSQL cluster under load on the file system that is mounted there."""
    if os.geteuid() != 0:
        pytest.skip("a server of another user needs root")
    made = []

    def start(top):
        made.append(cluster.Cluster(top))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def load():
    """load(path): a SQLite database that is written to until the test ends."""
    made = []

    def start(path):
        made.append(doors.Load(path))
        return made[-1]

    yield start
    for one in made:
        one.stop()
