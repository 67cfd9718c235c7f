"""The planner: what each refusal prevents, shown on loop-mounted file systems; and the refusals, over HTTPS."""
import pathlib
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS), str(TESTS / "contract" / "guardian"), str(pathlib.Path(__file__).resolve().parent)]
from daemon import daemon  # noqa: E402,F401
from loop_fs import LoopFs, unavailable  # noqa: E402


@pytest.fixture
def loops():
    """Makes file systems of the test's own; closed in reverse, thawed first."""
    why = unavailable()
    if why:
        pytest.skip(why)
    made = []

    def make(kind="ext4", **more):
        made.append(LoopFs(kind, **more))
        return made[-1]

    yield make
    for one in reversed(made):
        one.close()
